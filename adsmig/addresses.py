"""Tells files from directories in what a user wrote, so that a job is about exact places."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import NamedTuple

from adsmig.errors import NotFound, UsageError
from adsmig.location import Location
from adsmig.storage import open_storage
from adsmig.storage.base import Settings


class Places(NamedTuple):
    """The roots that a job's keys are relative to."""

    src: Location
    dst: Location
    single: tuple[bytes, bytes] | None
    """The two keys, if SRC is a single object."""


class Source(NamedTuple):
    """What a lone address means."""

    at: Location
    single: bytes | None
    """The key, if it is a single object."""


def resolve_source(src: Location, settings: Settings) -> Source:
    """What SRC means where there is no DST; as :func:`resolve`."""
    name = _object_name(src, settings)
    return Source(_directory(src), None) if name is None else Source(_parent(src), name)


def resolve(src: Location, dst: Location, settings: Settings) -> Places:
    """What SRC and DST mean; looks at both, and changes nothing.

    SRC ending in ``/``, or a local directory, is a directory: its content goes under DST.  SRC
    naming an object is that object, copied to DST, or into it if DST ends in ``/`` or is a local
    directory.  An object store's SRC that names no object is the directory ``SRC/``, never a
    prefix of other names.  Raises NotFound for a local SRC that is not there, UsageError for a
    slash after a file.
    """
    name = _object_name(src, settings)
    if name is None:
        if dst.scheme == "file" and os.path.lexists(dst.path) and not os.path.isdir(dst.path):
            raise UsageError(f"{src} is a directory, but {dst} is a file")
        return Places(_directory(src), _directory(dst), None)
    if dst.trailing_slash or (dst.scheme == "file" and os.path.isdir(dst.path)):
        return Places(_parent(src), _directory(dst), (name, name))
    return Places(_parent(src), _parent(dst), (name, dst.path.rpartition(b"/")[2]))


def _object_name(src: Location, settings: Settings) -> bytes | None:
    """The name, within its directory, of the single object that SRC is; None for a directory."""
    name = src.path.rpartition(b"/")[2]
    if src.scheme == "file":
        if os.path.isdir(src.path):
            return None
        if not os.path.lexists(src.path):
            raise NotFound(f"no such file or directory: {src}")
        if src.trailing_slash:
            raise UsageError(f"{src} is a file: write it without the slash")
        return name
    if src.trailing_slash:
        return None
    try:
        open_storage(_parent(src), settings).stat(name)
    except NotFound:
        return None
    return name


def _directory(location: Location) -> Location:
    path = location.path
    if location.scheme != "file" and path and not path.endswith(b"/"):
        path += b"/"
    return replace(location, path=path, trailing_slash=True)


def _parent(location: Location) -> Location:
    head, slash, _ = location.path.rpartition(b"/")
    path = head + slash if location.scheme != "file" else head or b"/"
    return replace(location, path=path, trailing_slash=True)
