"""AWS Signature Version 4 for S3, with the payload unsigned.

docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html.  Deriving the signing key
takes four HMACs; it holds for a day, region and service, so it is kept.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import quote_from_bytes, quote_plus

from adsmig.location import Credentials

UNSIGNED = "UNSIGNED-PAYLOAD"


@lru_cache(maxsize=16)
def _signing_key(secret_key: str, day: str, region: str) -> bytes:
    key = ("AWS4" + secret_key).encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


@lru_cache(maxsize=2)
def _stamp(seconds: int) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(seconds))


def _trimmed(value: str) -> str:
    """A header's value in canonical form: runs of white space are one blank, none at the ends.

    White space is what it is in the text that the bytes stand for; in Latin-1 the bytes 0x85 and
    0xA0, parts of other characters in UTF-8, would be some.
    """
    if value.isascii():
        return " ".join(value.split())
    try:
        text = value.encode("latin-1").decode()
    except UnicodeDecodeError:
        return b" ".join(value.encode("latin-1").split()).decode("latin-1")
    return " ".join(text.split()).encode().decode("latin-1")


def encode_path(path: bytes) -> str:
    """A path as it stands in the request and in the canonical request, every byte kept."""
    return quote_from_bytes(path, safe="/~")


def encode_query(query: Mapping[str, str | bytes]) -> str:
    """A query string in canonical form: sorted, every reserved byte escaped."""
    return "&".join(
        f"{name}={quote_plus(value, safe='~').replace('+', '%20')}"
        for name, value in sorted(query.items())
    )


def sign(
    credentials: Credentials,
    region: str,
    method: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    now: float | None = None,
) -> dict[str, str]:
    """The headers to send: ``headers`` plus date, payload marker, token and Authorization.

    ``path`` and ``query`` are as sent (``encode_path``, ``encode_query``); ``headers`` has
    lower-case names, ``host`` among them, and all are signed.  ``now`` is Unix time.
    """
    stamp = _stamp(int(time.time() if now is None else now))
    day = stamp[:8]
    headers = {**headers, "x-amz-content-sha256": UNSIGNED, "x-amz-date": stamp}
    if credentials.token:
        headers["x-amz-security-token"] = credentials.token
    names = sorted(headers)
    signed = ";".join(names)
    canonical = (
        f"{method}\n{path}\n{query}\n"
        + "".join(f"{name}:{_trimmed(headers[name])}\n" for name in names)
        + f"\n{signed}\n{UNSIGNED}"
    )
    scope = f"{day}/{region}/s3/aws4_request"
    digest = hashlib.sha256(canonical.encode("latin-1")).hexdigest()
    key = _signing_key(credentials.secret_key, day, region)
    signature = hmac.digest(
        key, f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}".encode(), "sha256"
    ).hex()
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope},"
        f" SignedHeaders={signed}, Signature={signature}"
    )
    return headers
