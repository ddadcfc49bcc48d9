"""Removing many files of one remote directory, with what the server says put in words."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from itertools import islice

from adsmig.storage.descent import MISSING, not_removed
from adsmig.storage.sftppacket import REMOVE, RMDIR, text
from adsmig.storage.sftpwire import SftpWire

BATCH = 64
"""Files that are removed at once."""


def remove_in(wire: SftpWire, root: bytes, keys: Sequence[bytes]) -> dict[bytes, str]:
    """Removes ``keys`` below ``root``, in their order; those that stayed, with the reasons.

    See Storage.delete for what is no error.
    """
    reasons = {}
    waiting = iter(keys)
    while batch := list(islice(waiting, BATCH)):
        requests = list(_requests(wire, root, batch))
        errors = [
            (key, _error(wire, request)) for key, request in zip(batch, requests, strict=True)
        ]
        for key, exc in errors:
            if exc and (reason := _reason(wire, os.path.join(root, key), exc)):
                reasons[key] = reason
    return reasons


def _requests(wire: SftpWire, root: bytes, keys: Sequence[bytes]) -> Iterator[int]:
    for key in keys:
        kind = RMDIR if key.endswith(b"/") else REMOVE
        yield wire.send(kind, text(os.path.join(root, key).removesuffix(b"/")))


def _error(wire: SftpWire, request: int) -> OSError | None:
    try:
        wire.wait(request)
    except OSError as exc:
        return exc
    return None


def _reason(wire: SftpWire, path: bytes, exc: OSError) -> str:
    """Why ``path`` could not be removed; '' if that is no error.

    OpenSSH tells neither a directory that is not empty nor one where a file was meant from what
    else can be wrong.
    """
    wanted = path.endswith(b"/")
    path = path.removesuffix(b"/")
    try:
        there = wire.lstat(path)
    except OSError as error:
        return "" if error.errno in MISSING else not_removed(exc)
    if not wanted:
        # A directory is no object of its name without the slash, so that one is not there.
        return "" if stat.S_ISDIR(there.st_mode) else not_removed(exc)
    if stat.S_ISLNK(there.st_mode):
        try:
            leads = stat.S_ISDIR(wire.stat(path).st_mode)
        except OSError:
            leads = False
        return "it is a symbolic link to a directory" if leads else ""
    if not stat.S_ISDIR(there.st_mode):
        return ""
    try:
        return "" if wire.names(path) else not_removed(exc)
    except OSError:
        return not_removed(exc)
