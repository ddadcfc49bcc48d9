"""Keys by name: --src-profile, --dst-profile."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import BucketFactory
from tests.e2e.conftest import Adsmig
from tests.servers import MinIOGateway


def test_two_profiles_of_one_file_and_a_resume_that_remembers_them(
    adsmig: Adsmig,
    minio: MinIOGateway,
    bucket: BucketFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    src, dst = bucket(minio), bucket(minio)
    minio.client().put_object(Bucket=src, Key="a", Body=b"content")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    accounts = tmp_path / "config" / "adsmig" / "credentials"
    accounts.parent.mkdir(parents=True)
    accounts.touch(0o600)

    def keep(secret: str) -> None:
        accounts.write_text(
            f"[old]\naccess_key={minio.access_key}\nsecret_key={minio.secret_key}\n"
            f"[new]\naccess_key={minio.access_key}\nsecret_key={secret}\n"
        )

    keep("that-is-wrong")
    line = ["cp", "--src-profile", "old", "--dst-profile", "new", "--manifest", tmp_path / "m.db",
            f"minio://{minio.host}/{src}/", f"minio://{minio.host}/{dst}/"]  # fmt: skip
    refused = adsmig(*line, code=3)
    assert "that-is-wrong" not in refused.stdout + refused.stderr
    keep(minio.secret_key)
    adsmig("resume", "--manifest", tmp_path / "m.db")
    assert minio.client().get_object(Bucket=dst, Key="a")["Body"].read() == b"content"
    assert minio.secret_key.encode() not in (tmp_path / "m.db").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--src-profile", "gone", "s3://bucket/", "{dst}"], 3, "no profile gone"),
        (["--dst-profile", "x", "{src}", "{dst}"], 2, "--dst-profile is for"),
        (["--src-profile", "x", "minio://ak:sk@h:1/b/", "{dst}"], 2, "--src-profile is for"),
    ],
)
def test_a_profile_that_is_of_no_use_is_refused(
    adsmig: Adsmig, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    places = {"src": tmp_path / "src", "dst": tmp_path / "dst"}
    places["src"].mkdir()
    said = adsmig("cp", *(one.format(**places) for one in arguments), code=code).stderr
    assert message in said
    assert len(said.splitlines()) == 1
