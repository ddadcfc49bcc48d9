"""What a file of known hosts says of a server."""

from __future__ import annotations

from pathlib import Path

import pytest
from paramiko import ECDSAKey, PKey
from paramiko.hostkeys import HostKeys

from adsmig.storage.hostkeys import HostKeyRefused, check, known_keys, user_file


@pytest.fixture(scope="module")
def keys() -> list[PKey]:
    return [ECDSAKey.generate(), ECDSAKey.generate()]


def text(key: PKey) -> str:
    return f"{key.get_name()} {key.get_base64()}"


@pytest.fixture
def file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    return Path(user_file())


@pytest.mark.parametrize(
    "line",
    [
        "@cert-authority *.example.com {other}",
        "@cert-authority nas {other}",
        "@revoked nas {other}",
        "@what nas {other}",
        "@revoked",
        "nas ssh-rsa !!!",
        "nas sk-ssh-ed25519@openssh.com AAAA",
        "nas",
        "|1|no|hash {other}",
        "|1| {other}",
        "  # nas {other}",
        "",
    ],
)
def test_what_is_no_key_of_the_server_is_passed_over(
    file: Path, keys: list[PKey], line: str
) -> None:
    key, other = keys
    file.write_text(line.format(other=text(other)) + f"\nnas {text(key)}\n")
    known = known_keys("nas", 22)
    assert known == {key.get_name(): key}
    check("nas", 22, key, known, False)


@pytest.mark.parametrize(
    "name",
    ["nas", "here,nas,there", pytest.param(HostKeys.hash_host("nas"), id="hashed")],
)
def test_a_key_is_found_by_each_name_of_its_line(file: Path, keys: list[PKey], name: str) -> None:
    kind, data = text(keys[0]).split()
    file.write_text(f"{name}\t{kind}  {data} a comment\nnas {text(keys[1])}\n")
    assert known_keys("nas", 22) == {kind: keys[0]}
    assert known_keys("nas", 23) == known_keys("as", 22) == {}


def test_a_key_that_was_revoked_is_refused_whatever_else_is_said(
    file: Path, keys: list[PKey]
) -> None:
    file.write_text(f"nas {text(keys[0])}\n@revoked nas {text(keys[0])}\n")
    for known in known_keys("nas", 22), {}:
        with pytest.raises(HostKeyRefused, match="revoked"):
            check("nas", 22, keys[0], known, True)
