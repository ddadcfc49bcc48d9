"""Over https, to a store whose certificate is trusted, and to one whose is not."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from tests.certificates import self_signed
from tests.conftest import BucketFactory
from tests.e2e.conftest import Adsmig, digest, make_tree
from tests.recorder import Recorder
from tests.servers import MinIOGateway


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1, signed by itself, with its key, as PEM."""
    return self_signed(tmp_path / "certificate.pem", "127.0.0.1")


def test_a_tree_goes_both_ways_over_https(
    adsmig: Adsmig, minio: MinIOGateway, bucket: BucketFactory, tmp_path: Path, certificate: Path
) -> None:
    make_tree(tmp_path / "tree", 60)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with Recorder(minio.host, context) as recorder:
        url = minio.url(bucket(minio)).replace(minio.host, recorder.host)
        said = adsmig("--https", "cp", tmp_path / "tree", url, code=3).stderr
        assert "cannot trust 127.0.0.1" in said
        trust = {"SSL_CERT_FILE": str(certificate)}
        adsmig("--https", "cp", tmp_path / "tree", url, **trust)
        assert len(recorder.sent()) == 60
        adsmig("--https", "cp", url, tmp_path / "back", **trust)
    assert digest(tmp_path / "back") == digest(tmp_path / "tree")
