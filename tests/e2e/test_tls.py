"""Over https, to a store whose certificate is trusted, and to one whose is not."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.conftest import BucketFactory
from tests.e2e.conftest import Adsmig, digest, make_tree
from tests.recorder import Recorder
from tests.servers import MinIOGateway


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1, signed by itself, with its key, as PEM."""
    return self_signed(tmp_path / "certificate.pem", "127.0.0.1")


def self_signed(path: Path, name_or_address: str, ends_in_days: float = 1) -> Path:
    """Writes a certificate for that, signed by itself, with its key, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name_or_address[:64])])
    now = datetime.datetime.now(datetime.timezone.utc)
    served: x509.GeneralName = x509.DNSName(name_or_address)
    with contextlib.suppress(ValueError):
        served = x509.IPAddress(ipaddress.ip_address(name_or_address))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=9))
        .not_valid_after(now + datetime.timedelta(days=ends_in_days))
        .add_extension(x509.SubjectAlternativeName([served]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path


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
