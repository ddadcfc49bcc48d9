"""Bytes on their way between files of the cache and the store, and whether they arrived."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, cast

from adsmig.checksum import crc32_text
from adsmig.errors import SourceChanged, TransientError
from adsmig.storage.base import Body

CHUNK = 256 << 10
"""Bytes that are read at once."""


def prove(data: bytearray, body: Body) -> None:
    """Raises TransientError if all of an object's bytes are not what the store says they are."""
    if body.crc32:
        good = crc32_text(zlib.crc32(data)) == body.crc32
    else:
        good = not body.md5 or hashlib.md5(data, usedforsecurity=False).hexdigest() == body.md5
    if not good:
        raise TransientError("what arrived does not match the store's checksum")


class Span:
    """``size`` bytes of an open file from byte ``start`` on, on their way to the store; who made it
    closes the file.  ``moved`` is told of each piece that is sent, in bytes.
    """

    def __init__(self, fd: int, start: int, size: int, moved: Callable[[int], None]) -> None:
        self._fd, self._start, self._size, self._moved = fd, start, size, moved
        self.digest = ""
        """Their MD5, hexadecimal, once all were given out by :meth:`chunks`."""

    def md5(self) -> str:
        """The same, of what is there by now, sent or not; SourceChanged if some is missing."""
        whole = hashlib.md5(usedforsecurity=False)
        for chunk in self._read():
            whole.update(chunk)
        return whole.hexdigest()

    def chunks(self) -> Iterator[memoryview]:
        """They, in order, up to CHUNK at a time, each until the next is asked for; SourceChanged
        if some are missing.
        """
        whole = hashlib.md5(usedforsecurity=False)
        left = self._size
        for chunk in self._read():
            self._moved(len(chunk))
            left -= len(chunk)
            whole.update(chunk)
            if not left:
                self.digest = whole.hexdigest()
            yield chunk
        self.digest = whole.hexdigest()

    def _read(self) -> Iterator[memoryview]:
        buffer = memoryview(bytearray(min(CHUNK, self._size)))
        left = self._size
        while left:
            count = os.preadv(self._fd, [buffer[:left]], self._start + self._size - left)
            if not count:
                raise SourceChanged("the file in the cache is shorter than it was")
            left -= count
            yield buffer[:count]


def scratch() -> BinaryIO:
    """A new file without a name, which the caller closes."""
    import tempfile

    return cast(BinaryIO, tempfile.TemporaryFile())
