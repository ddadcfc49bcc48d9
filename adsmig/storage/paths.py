"""Keys as paths: which of them can be, and the names that they are made of."""

from __future__ import annotations

import os
from collections.abc import Iterable

from adsmig.storage.base import STAGING

PATH_MAX = 4096
"""Linux: bytes of the longest path, with the NUL at its end (path_resolution(7))."""


def problem_of(key: bytes, root: bytes, destination: bool) -> str:
    """Why ``key`` cannot be a path below ``root``, as far as can be told without trying; or ''."""
    for name in key.removesuffix(b"/").split(b"/") if key else ():
        if not name:
            return "no name between two slashes: not a path"
        if name in (b".", b".."):
            return f"{name.decode()!r} cannot be part of a path"
        if len(name) > 255:
            return "a name of more than 255 bytes cannot be part of a path"
    if b"\0" in key:
        return "a NUL cannot be part of a path"
    if destination and key.startswith(STAGING):
        return f"{STAGING.decode()}… is where unfinished files are kept"
    if len(os.path.join(root, key)) >= PATH_MAX:
        return "too long for a path of this file system"
    return ""


def below(root: bytes, paths: Iterable[bytes]) -> frozenset[bytes]:
    """The keys of those real paths that lie below ``root``, which may be a link."""
    paths = tuple(paths)
    top = os.path.join(os.path.realpath(root), b"") if paths else b""
    return frozenset(path[len(top) :] for path in paths if path.startswith(top))


def above(path: bytes) -> list[bytes]:
    """The directories that lead to an absolute path, the first ``/``."""
    return [path[:at] or b"/" for at, byte in enumerate(path[:-1]) if byte == ord("/")]


def names_of(key: bytes) -> list[bytes]:
    """The names that lead to ``key``, its own the last."""
    return key.removesuffix(b"/").split(b"/") if key else []
