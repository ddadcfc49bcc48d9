"""Who answers over https has to prove who it is; what a user can say about that, and how long it
holds.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from adsmig.job import Job
from adsmig.uri import parse
from tests.certificates import self_signed
from tests.conftest import BucketFactory
from tests.e2e.inside import COLLECTED, Here, here, no_pauses, put, tree_of
from tests.recorder import Recorder
from tests.servers import Moto

__all__ = ["here", "no_pauses"]

pytestmark = [COLLECTED, pytest.mark.usefixtures("no_pauses")]

FILES = {"a": b"content", "b/c": b"more"}
WARNING = "with --no-verify-tls, anybody"

Behind = Callable[[Path], str]


@pytest.fixture
def behind(moto: Moto, bucket: BucketFactory) -> Iterator[Behind]:
    """``behind(certificate)`` gives the address of a bucket at a server that shows this one."""
    with ExitStack() as stack:

        def serve(certificate: Path) -> str:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            recorder = stack.enter_context(Recorder(moto.host, context))
            return moto.url(bucket(moto)).replace(moto.host, recorder.host)

        yield serve


@pytest.fixture
def src(tmp_path: Path) -> Path:
    return put(tmp_path / "src", FILES)


@pytest.mark.parametrize(
    ("name", "ends_in_days", "trusted", "why"),
    [
        ("127.0.0.1", 1, False, "self-signed certificate"),
        ("elsewhere.example", 1, True, "IP address mismatch"),
        ("127.0.0.1", -1, True, "certificate has expired"),
    ],
    ids=["self-signed", "another host", "expired"],
)
def test_who_cannot_prove_to_be_the_store_is_refused(
    here: Here,
    behind: Behind,
    src: Path,
    tmp_path: Path,
    name: str,
    ends_in_days: float,
    trusted: bool,
    why: str,
) -> None:
    certificate = self_signed(tmp_path / "certificate.pem", name, ends_in_days)
    url = behind(certificate)
    options = ["--ca-bundle", certificate] if trusted else []
    said = here("cp", "--https", *options, src, url, code=3)
    assert "cannot trust 127.0.0.1" in said
    assert why in said
    assert said.count("\n") == 1
    said = here("cp", "--https", "--no-verify-tls", *options, src, url)
    assert said.count(WARNING) == 1
    here("cp", "--https", "--no-verify-tls", *options, url, tmp_path / "back")
    assert tree_of(tmp_path / "back") == FILES


@pytest.mark.parametrize("way", ["--ca-bundle", "AWS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_the_authorities_to_trust_can_be_named(
    here: Here,
    behind: Behind,
    src: Path,
    tmp_path: Path,
    way: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    certificate = self_signed(tmp_path / "certificate.pem", "127.0.0.1")
    url = behind(certificate)
    options: list[object] = []
    if way == "--ca-bundle":
        options = ["--ca-bundle", certificate]
        monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "missing"))
    else:
        monkeypatch.setenv(way, str(certificate))
    said = here("cp", "--https", *options, src, url)
    assert WARNING not in said


def test_https_to_who_speaks_http_is_told_what_to_say(
    here: Here, moto: Moto, bucket: BucketFactory, src: Path
) -> None:
    said = here("cp", "--https", src, moto.url(bucket(moto)), code=3)
    assert "it does not speak https; for http, say --no-https" in said
    assert "SSL" not in said


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_bundle_that_is_none_is_one_line(
    here: Here, src: Path, tmp_path: Path, content: bytes | None
) -> None:
    bundle = tmp_path / "bundle.pem"
    if content is not None:
        bundle.write_bytes(content)
    said = here("cp", "--https", "--ca-bundle", bundle, src, "minio://ak:sk@127.0.0.1:1/b/", code=3)
    assert f"cannot use the --ca-bundle {bundle}" in said
    assert said.count("\n") == 1


def test_the_settings_make_no_other_job_and_are_not_forgotten() -> None:
    places = parse("/src/"), parse("minio://10.0.0.5:9000/b/", https=True)
    plain = Job("cp", *places)
    chosen = Job("cp", *places, ca_bundle="/etc/ca.pem", verify_tls=False)
    assert (chosen.id, chosen.manner) == (plain.id, plain.manner)
    kept = Job.from_json(chosen.to_json())
    assert (kept.ca_bundle, kept.verify_tls) == ("/etc/ca.pem", False)
    kept = Job.from_json(plain.to_json())
    assert (kept.ca_bundle, kept.verify_tls) == ("", True)


def test_retry_goes_on_as_the_run_was_begun_and_can_be_told_otherwise(
    here: Here,
    behind: Behind,
    src: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    certificate = self_signed(tmp_path / "certificate.pem", "127.0.0.1")
    url = behind(certificate)
    monkeypatch.setenv("ADSMIG_DST_ACCESS_KEY", "ak")
    monkeypatch.setenv("ADSMIG_DST_SECRET_KEY", "sk")
    (src / "broken").symlink_to("nothing")
    monkeypatch.chdir(tmp_path)
    here("cp", "--https", "--ca-bundle", "certificate.pem", src, url, code=1)
    monkeypatch.chdir("/")
    said = here("retry", code=1)
    assert WARNING not in said
    certificate.unlink()
    assert "cannot use the --ca-bundle" in here("retry", code=3)
    assert WARNING in here("cp", "-q", "--https", "--no-verify-tls", src, url, code=1)
    assert WARNING in here("retry", code=1)
    said = here("retry", "--verify-tls", code=3)
    assert "cannot trust" in said
    assert WARNING not in said


def test_nothing_is_said_where_there_is_no_https(here: Here, src: Path, tmp_path: Path) -> None:
    assert WARNING not in here("cp", "--no-verify-tls", src, tmp_path / "dst")
