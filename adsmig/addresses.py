"""Tells files from directories in what a user wrote, so that a job is about exact places."""

from __future__ import annotations

import os
import stat
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


def resolve_source(src: Location, settings: Settings, follow: bool = True) -> Source:
    """What SRC means where there is no DST; as :func:`resolve`.

    Without ``follow``, a symbolic link is what it is, unless a ``/`` ends it: to remove it is not
    to remove what it leads to.
    """
    src = _ready(src, settings)
    name = _object_name(src, settings, follow)
    return Source(_directory(src), None) if name is None else Source(_parent(src), name)


def resolve(src: Location, dst: Location, settings: Settings) -> Places:
    """What SRC and DST mean; looks at both, and changes nothing.

    SRC ending in ``/``, or a directory of a file system, is a directory: its content goes under
    DST.  SRC naming an object is that object, copied to DST, or into it if DST ends in ``/`` or is
    a directory of a file system.  An object store's SRC that names no object is the directory
    ``SRC/``, never a prefix of other names.  Raises NotFound for a SRC in a file system that is not
    there, UsageError for a slash after a file.
    """
    src, dst = _ready(src, settings), _ready(dst, settings)
    name = _object_name(src, settings)
    kind = _kind(dst, settings)
    if name is None:
        if kind == "file":
            raise UsageError(f"{src} is a directory, but {dst} is a file")
        return Places(_directory(src), _directory(dst), None)
    if dst.trailing_slash or kind == "directory":
        return Places(_parent(src), _directory(dst), (name, name))
    return Places(_parent(src), _parent(dst), (name, dst.path.rpartition(b"/")[2]))


def _object_name(src: Location, settings: Settings, follow: bool = True) -> bytes | None:
    """The name, within its directory, of the single object that SRC is; None for a directory."""
    name = src.path.rpartition(b"/")[2]
    if src.is_path:
        kind = _kind(src, settings, follow or src.trailing_slash)
        if kind == "directory":
            return None
        if not kind:
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


def _ready(location: Location, settings: Settings) -> Location:
    """Logged in, where that takes a password, and with a path that is absolute."""
    if location.scheme != "sftp":
        return location
    from adsmig.storage import sftpplace

    return sftpplace.ready(location, settings)


def _kind(location: Location, settings: Settings, follow: bool = True) -> str:
    """``file`` or ``directory``, if that is there in a file system; else ''.  A link is what it
    leads to, a ``file`` if that is nothing, or without ``follow``.
    """
    if location.scheme == "file":
        there, leads = os.path.lexists(location.path), os.path.isdir(location.path)
        if not follow and os.path.islink(location.path):
            leads = False
    elif location.scheme == "sftp":
        from adsmig.storage import sftpplace

        status = sftpplace.status_at(location, settings, follow)
        leads = status is not None and stat.S_ISDIR(status.st_mode)
        there = status is not None
        if follow and not there:
            there = sftpplace.status_at(location, settings, follow=False) is not None
    else:
        return ""
    return "directory" if leads else "file" if there else ""


def _directory(location: Location) -> Location:
    path = location.path
    if not location.is_path and path and not path.endswith(b"/"):
        path += b"/"
    return replace(location, path=path, trailing_slash=True)


def _parent(location: Location) -> Location:
    head, slash, _ = location.path.rpartition(b"/")
    path = head or b"/" if location.is_path else head + slash
    return replace(location, path=path, trailing_slash=True)
