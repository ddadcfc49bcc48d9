"""Symbolic links as objects: a fixed content, and where they point in the metadata."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from urllib.parse import quote_from_bytes, unquote_to_bytes

from adsmig.model import Entry, Meta

LINK = b"symbolic link\n"
"""The content of all of them, so that a listing tells what may be one."""
LINK_MD5 = hashlib.md5(LINK, usedforsecurity=False).hexdigest()
_TARGET = "symlink"


def may_be_link(entry: Entry) -> bool:
    """Whether a listing cannot tell an object from a symbolic link."""
    etag = (entry.etag or "").lower()
    return entry.size == len(LINK) and (len(etag) != len(LINK_MD5) or etag == LINK_MD5)


def target_of(meta: Meta) -> bytes | None:
    """Where the symbolic link with this metadata points; None if it is none."""
    text = meta.user.get(_TARGET)
    return None if text is None else unquote_to_bytes(text)


def link_meta(target: bytes, meta: Meta) -> Meta:
    """The metadata of a symbolic link."""
    return replace(meta, user={**meta.user, _TARGET: quote_from_bytes(target)})
