"""The hashes by which a store and its client tell each other what is sent and held.

docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html.  Here an MD5
is hexadecimal, as in ETags, and a CRC-32 as stores write it: its four bytes in base64, the highest
first.  A CRC-32 costs a processor a small part of what an MD5 does, and those of parts can be
joined to that of the whole.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from typing import NamedTuple

from isal.isal_zlib import crc32_combine

_MD5 = re.compile(r"[0-9A-Fa-f]{32}\Z")
_PARTS = re.compile(r"[0-9A-Fa-f]{32}-([0-9]{1,5})\Z")


class Sums(NamedTuple):
    """Hashes of the same bytes, as far as they are known."""

    md5: str | None = None
    crc32: str | None = None


NO_SUMS = Sums()


class Wanted(NamedTuple):
    """Which hashes somebody has a use for."""

    md5: bool = False
    crc32: bool = False


def md5_in(etag: str | None) -> str | None:
    """The MD5 that an ETag looks like, in lower case; some stores write it in capitals."""
    return etag.lower() if etag and _MD5.match(etag) else None


def parts_in(etag: str | None) -> int:
    """How many parts an ETag says that the object was put in; 0 if it says nothing of that."""
    match = _PARTS.match(etag or "")
    return int(match[1]) if match else 0


def combined_etag(md5s: Iterable[str | None]) -> str | None:
    """The ETag that AWS gives to an object put in parts of these MD5s; None if one is not known."""
    digests = []
    for md5 in md5s:
        if md5 is None:
            return None
        digests.append(bytes.fromhex(md5))
    whole = hashlib.md5(b"".join(digests), usedforsecurity=False)
    return f"{whole.hexdigest()}-{len(digests)}"


def crc32_text(crc: int) -> str:
    """The text of what zlib.crc32 returns."""
    return base64.b64encode(crc.to_bytes(4, "big")).decode()


def crc32_in(text: str | None) -> str | None:
    """The CRC-32 of whole content that a header or element has; None for what is none, as that of
    the CRC-32s of parts (``...-3``).
    """
    try:
        value = base64.b64decode(text or "", validate=True)
    except (binascii.Error, ValueError):
        return None
    return text if len(value) == 4 else None


def joined_crc32(parts: Iterable[tuple[str | None, int]]) -> str | None:
    """That of parts put together in this order, each with the number of its bytes; None if one is
    not known.
    """
    whole = 0
    for text, size in parts:
        if text is None:
            return None
        whole = crc32_combine(whole, int.from_bytes(base64.b64decode(text), "big"), size)
    return crc32_text(whole)
