"""A file as it was changed here: kept in the cache directory until the store has it.

Beside the data lies a journal, for as long as the store lacks something of it: which key it is
for, what the store had when it was changed first, and which parts of it the store took already.  A
mount that was killed leaves both, and the next one stores them.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ctypes
import functools
import json
import logging
import os
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

from adsmig.model import Entry, Meta, Part, Upload

log = logging.getLogger(__name__)

_PUNCH, _KEEP_SIZE = 2, 1
_DAMAGED = (ValueError, LookupError, TypeError, AttributeError)
"""What reading a journal ends with that is empty, torn, or holds something else."""


class Draft:
    """The content of one file, whole, but for the beginning that :attr:`sent` tells of.

    Belongs to the event loop; the data is written and read at once, for it goes to the page cache.
    """

    def __init__(self, directory: Path, base: Entry | None) -> None:
        """``base`` is what the store has under the key: what this is going to replace."""
        self.path = directory / uuid.uuid4().hex
        self.base = base
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        self.size = 0
        self.dirty = False
        """The store lacks something of it."""
        self.offered = False
        """The store was asked to take it, and has not said yet that it has."""
        self.version = 0
        """Counts the changes."""
        self.written_ns = 0
        """When it was last written to, unless its time was set since."""
        self.timed = False
        """Its time was chosen, and it was not written to since."""
        self.upload: Upload | None = None
        self.parts: dict[int, Part] = {}
        self.sent = 0
        """Bytes of the beginning that only the parts of the upload hold."""
        self.filled = 0
        """Bytes of the beginning that were written in order, without a gap."""
        self._later: dict[int, int] = {}
        self.spoiled = set[int]()
        """Parts that were written to while they were on their way."""
        self.begun = Meta()
        """What the upload was opened with."""
        self._disowned = False
        self._noted: tuple[bytes, Meta] | None = None
        """What the journal says that this is to become; None while there is no journal."""

    def __repr__(self) -> str:
        return f"<Draft {self.path.name}, {self.size} bytes{', dirty' if self.dirty else ''}>"

    def read(self, start: int, size: int) -> bytes:
        """What is there; the caller makes sure that it is not :attr:`sent` away."""
        return os.pread(self.fd, max(min(size, self.size - start), 0), start)

    def write(self, start: int, data: bytes | memoryview) -> None:
        """Puts bytes in their place; OSError where there is no room."""
        at, view = start, memoryview(data)
        self._spoil(start, start + len(view))
        try:
            while view:
                count = os.pwrite(self.fd, view, at)
                at, view = at + count, view[count:]
        except OSError:
            # The next mount, and who fills it up with zeros, takes what is there for the file's.
            os.ftruncate(self.fd, self.size)
            raise
        self.size = max(self.size, at)
        self.version += 1
        self.timed = False
        if start <= self.filled:
            self.filled = max(self.filled, at)
            while self.filled in self._later:
                self.filled = self._later.pop(self.filled)
        elif len(self._later) < 1000:
            self._later[start] = at

    def truncate(self, size: int) -> None:
        """Cuts it off, or fills it up with zeros."""
        self._spoil(min(size, self.size), max(size, self.size))
        os.ftruncate(self.fd, size)
        self.size = size
        self.filled = min(self.filled, size)
        self._later.clear()
        self.version += 1
        self.timed = False

    def _spoil(self, start: int, end: int) -> None:
        """Parts that were stored, and are to hold other bytes there, have to be stored again.  The
        journal tells that first: whoever finds both must not take the old bytes for the new ones.
        """
        if not self.upload:
            return
        size = self.upload.part_size
        numbers = range(start // size + 1, -(-end // size) + 1)
        self.spoiled.update(numbers)
        stored = {number: self.parts.pop(number) for number in numbers if number in self.parts}
        if stored and self._noted:
            try:
                self.note(*self._noted)
            except OSError:
                self.parts.update(stored)
                raise

    async def drop_sent(self, keep: int) -> None:
        """Gives back the room of what the store has in parts, but for about ``keep`` bytes; what
        the journal cannot tell of stays.
        """
        if not self.upload or not self._noted:
            return
        upload, before = self.upload, self.sent
        size, number = upload.part_size, before // upload.part_size + 1
        end = before
        while number in self.parts and end + size <= self.filled - keep:
            end, number = end + size, number + 1
        if end == before:
            return
        # Not even a power cut may leave the hole to who knows nothing of it, and stores zeros.
        self.sent = end
        try:
            self.note(*self._noted)
            await asyncio.to_thread(self._flush_journal)
            done = True
        except OSError:
            done = False
        if self.upload is not upload or self.sent < end:
            return  # it was fetched back meanwhile
        done = done and _punch(self.fd, before, end - before)
        if not done and self.sent == end:
            self.sent = before

    def _flush_journal(self) -> None:
        for path in (self.path.with_suffix(".json"), self.path.parent):
            fd = os.open(path, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def note(self, key: bytes, meta: Meta) -> None:
        """Writes the journal: this is to become ``key``; none for what nobody wants stored."""
        if self._disowned:
            return
        upload = None
        if self.upload:
            upload = {
                "id": self.upload.upload_id,
                "part_size": self.upload.part_size,
                "key": _text(self.upload.entry.key),
                "parts": [list(part) for part in self.parts.values()],
            }
        facts = {
            "key": _text(key),
            "base": self.base and [self.base.size, self.base.etag],
            "meta": asdict(meta),
            "timed": self.timed,
            "sent": self.sent,
            "upload": upload,
            "boot": boot(),
        }
        name = self.path.with_suffix(".new")
        name.write_text(json.dumps(facts))
        os.replace(name, self.path.with_suffix(".json"))
        self._noted = key, meta

    def settled(self, entry: Entry) -> None:
        """The store has all of it."""
        self.base = entry
        self.dirty = self.offered = False
        self.upload, self.parts = None, {}
        self._noted = None
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path.with_suffix(".json"))

    def disowned(self) -> None:
        """It is no longer for any key; who has it open goes on reading it."""
        self.dirty, self._disowned = False, True
        self._noted = None
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path.with_suffix(".json"))

    def remove(self) -> None:
        """Nobody needs it any more."""
        os.close(self.fd)
        for path in (self.path.with_suffix(".json"), self.path):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


class Left:
    """A draft that a mount left which was killed."""

    def __init__(self, path: Path, facts: dict[str, Any]) -> None:
        self.path = path
        self.key = _bytes(facts["key"])
        self.meta = Meta(**facts["meta"])
        self.timed: bool = facts.get("timed", False)
        """Its time is one that was chosen since it was written."""
        self.base: tuple[int, str | None] | None = tuple(facts["base"]) if facts["base"] else None
        self.size = path.stat().st_size
        self.upload: Upload | None = None
        self.parts: dict[int, Part] = {}
        self.sent: int = facts["sent"]
        """Bytes of the beginning that are in the upload only, or, without one, in the base only."""
        self.restarted = facts.get("boot") != boot()
        """The machine was started since: of what was not flushed, some may not be there."""
        if upload := facts["upload"]:
            key = _bytes(upload["key"])
            self.upload = Upload(Entry(key, 0, None, 0), upload["id"], upload["part_size"])
            self.parts = {part[0]: Part(*part) for part in upload["parts"]}

    def forget(self) -> None:
        """It is in the store now."""
        self.path.with_suffix(".json").unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)


def left(directory: Path) -> list[Left]:
    """The drafts with something that the store lacks, but for :func:`damaged` ones; other remains
    are removed.
    """
    found = []
    for path in sorted(directory.iterdir()):
        if path.suffix == ".new":
            path.unlink()
        elif not path.suffix:
            try:
                found.append(_read(path))
            except FileNotFoundError:
                path.unlink()
            except _DAMAGED as exc:
                log.warning("the journal of %s is damaged: %r", path, exc)
    return found


def damaged(directory: Path) -> list[Path]:
    """The drafts of which the journal cannot be read, as a power cut may leave it."""
    found = []
    for path in sorted(directory.iterdir()):
        if not path.suffix:
            try:
                _read(path)
            except FileNotFoundError:
                pass
            except _DAMAGED:
                found.append(path)
    return found


def _read(path: Path) -> Left:
    return Left(path, json.loads(path.with_suffix(".json").read_text()))


@functools.cache
def boot() -> str:
    """What tells this run of the machine from any other, if that can be known; random(4)."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _text(key: bytes) -> str:
    return base64.b64encode(key).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text)


_libc = ctypes.CDLL(None, use_errno=True)


def _punch(fd: int, start: int, size: int) -> bool:
    """Whether the file system takes back the room of these bytes."""
    done = _libc.fallocate(fd, _PUNCH | _KEEP_SIZE, ctypes.c_int64(start), ctypes.c_int64(size))
    return int(done) == 0
