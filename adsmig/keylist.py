"""The keys that ``--files-from`` names: sorted once into a file that every process maps."""

from __future__ import annotations

import mmap
import os
import re
import shutil
import stat
from collections.abc import Iterator

from adsmig.errors import AdsmigError, UsageError
from adsmig.model import KeyRange

STREAM = "-"
"""Names standard input, as in rclone, and whatever else can be read only once."""


def is_stream(name: str) -> bool:
    """Whether it is standard input, or a pipe of this process, as of a shell's ``<(...)``."""
    return name == STREAM or bool(re.match(r"/dev/(stdin$|fd/)|/proc/[^/]+/fd/", name))


def check_names(names: str) -> None:
    """Raises UsageError for a file that cannot be read."""
    try:
        if not stat.S_ISFIFO(os.stat(names).st_mode):  # whose writer would take this for the reader
            with open(names, "rb"):
                pass
    except OSError as exc:
        raise UsageError(f"cannot read --files-from {names}: {exc.strerror}") from exc


def copy_names(names: str, path: str) -> None:
    """Writes what the file or stream ``names`` holds to ``path``, which has the whole of it, on
    stable storage, or what it had before.
    """
    try:
        source = open(0 if names == STREAM else names, "rb", closefd=names != STREAM)  # noqa: SIM115
    except OSError as exc:
        raise UsageError(f"cannot read --files-from {names}: {exc.strerror}") from exc
    try:
        with source, open(f"{path}.new", "wb", opener=_private) as file:
            shutil.copyfileobj(source, file, 1 << 20)
            file.flush()
            os.fsync(file.fileno())
        os.replace(f"{path}.new", path)
    except OSError as exc:
        raise AdsmigError(f"cannot copy --files-from to {path}: {exc.strerror}") from exc


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def sort_keys(names: str, path: str, as_paths: bool, called: str = "") -> None:
    """Writes the keys of the file ``names`` to ``path``, in byte order, each once.

    Blank lines and those that begin with ``#`` or ``;`` are no keys, as in rclone.  ``as_paths``: a
    ``/`` or ``./`` at the beginning, as ``find`` writes it, is not part of a key.  ``called``: what
    the user knows the file as, if by another name.
    """
    called = called or names
    found = set()
    try:
        with open(names, "rb") as file:
            for line in file:
                key = line.rstrip(b"\r\n")
                if not key or key[:1] in b"#;":
                    continue
                if as_paths:
                    key = re.sub(rb"^(\.?/+)+", b"", key)
                if key:
                    found.add(key)
    except OSError as exc:
        raise UsageError(f"cannot read --files-from {called}: {exc.strerror}") from exc
    if not found:
        raise UsageError(f"--files-from {called} names no keys: write one a line")
    try:
        with open(path, "wb", opener=_private) as file:
            file.writelines(key + b"\n" for key in sorted(found))
    except OSError as exc:
        raise AdsmigError(f"cannot write {path}: {exc.strerror}") from exc


class KeyList:
    """A file of :func:`sort_keys`, mapped; it takes no memory of its own."""

    def __init__(self, path: str) -> None:
        with open(path, "rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def keys(self, within: KeyRange) -> Iterator[bytes]:
        """The keys of a range, ascending."""
        at = self._seek(within.after, within.closed)
        while at < len(self._map):
            end = self._map.find(b"\n", at)
            key = self._map[at:end]
            if within.ends_before(key):
                return
            yield key
            at = end + 1

    def __contains__(self, key: bytes) -> bool:
        return next(self.keys(KeyRange(key, key, True)), None) is not None

    def _seek(self, key: bytes, closed: bool) -> int:
        """Where the first line past ``key`` begins, or of ``key`` itself if ``closed``."""
        low, high = 0, len(self._map)
        while low < high:
            start = self._map.rfind(b"\n", 0, (low + high) // 2) + 1
            end = self._map.find(b"\n", start)
            line = self._map[start:end]
            if line < key or (line == key and not closed):
                low = end + 1
            else:
                high = start
        return low
