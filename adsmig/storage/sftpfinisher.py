"""What makes remote files whole: owner, mode and time, and that they are on stable storage."""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections.abc import Sequence
from typing import NamedTuple

from adsmig.errors import TransientError
from adsmig.model import Meta
from adsmig.storage.descent import MISSING
from adsmig.storage.localfile import SET_ID, tell_unkept
from adsmig.storage.sftppacket import (
    CLOSE,
    CREATE,
    EXTENDED,
    FOR_WRITING,
    FSETSTAT,
    FSTAT,
    FSYNC,
    LSTAT,
    REMOVE,
    SETSTAT,
    TRUNCATE,
    attributes,
    seconds_of,
    status_of,
    text,
)
from adsmig.storage.sftpwire import SftpWire

log = logging.getLogger(__name__)

_TRIED_NS = 10**18
"""A time that no file has by itself: in 2001."""


class Finishing(NamedTuple):
    """Requests in flight that make a file whole."""

    owning: int | None
    setting: int
    flushing: int | None
    looking: int
    closing: int


class Finisher:
    """Finds out, once, what the server ``where`` can give to files; ``directory`` is there, and for
    what that takes.  Errors are OSError, but for ours.
    """

    def __init__(self, directory: bytes, where: str) -> None:
        self._directory, self._where = directory, where
        self._gives_owners = True
        self._keeps_times: bool | None = None
        """None: nobody had reason to ask."""
        self._trying = threading.Lock()

    def finish(
        self,
        wire: SftpWire,
        handle: bytes,
        staged: bytes,
        size: int | None,
        meta: Meta,
        writing: Sequence[int] = (),
    ) -> int:
        """Gives a file its owner (as root), mode and time, as far as the server can, brings it to
        stable storage, closes it; and waits for the answers to the last of its bytes, ``writing``.

        The size that the server says it has; TransientError if that is not the ``size`` written.
        All in one round trip, but where the server cannot set them through a handle.
        """
        if FSYNC in wire.extensions:
            finishing = self.begin(wire, handle, meta)
        else:
            # Others than OpenSSH may work on several requests at once, in whatever order.  To some
            # a file is only there, under its name, once it is closed; rclone never answers who
            # would set the time of one that is open.
            wire.settle(*writing)
            closing = wire.send(CLOSE, text(handle))
            wire.settle(closing)
            owning = self._own(wire, SETSTAT, staged, meta)
            setting = wire.send(SETSTAT, text(staged), attributes(_plain(meta), meta.mtime_ns))
            wire.settle(owning, setting)
            looking = wire.send(LSTAT, text(staged))
            finishing = Finishing(owning, setting, None, looking, closing)
        return self.end(wire, finishing, staged, size, meta, writing)

    def begin(self, wire: SftpWire, handle: bytes, meta: Meta) -> Finishing:
        """The requests of :meth:`finish`, in flight, to a server that can flush."""
        owning = self._own(wire, FSETSTAT, handle, meta)
        setting = wire.send(FSETSTAT, text(handle), attributes(_plain(meta), meta.mtime_ns))
        flushing = wire.send(EXTENDED, text(FSYNC), text(handle))
        looking = wire.send(FSTAT, text(handle))
        return Finishing(owning, setting, flushing, looking, wire.send(CLOSE, text(handle)))

    def end(
        self,
        wire: SftpWire,
        finishing: Finishing,
        staged: bytes,
        size: int | None,
        meta: Meta,
        writing: Sequence[int] = (),
    ) -> int:
        """Waits for the answers; as :meth:`finish`."""
        owning, setting, flushing, looking, closing = finishing
        requests = [one for one in (looking, flushing, closing) if one is not None]
        try:
            there = status_of(wire.all([*requests, *writing])[0])
        except BaseException:
            if not wire.lost:
                wire.forget(*(one for one in (owning, setting) if one is not None))
            raise
        self._owned(wire, owning)
        done, time_ns = True, meta.mtime_ns
        try:
            wire.wait(setting)
        except OSError:
            done = False
        kept = time_ns is None or seconds_of(time_ns) == seconds_of(there.st_mtime_ns)
        if not (kept and done) and not self._gives_times(wire):
            time_ns = None
        # As with file systems, who is not given a file does not hand out the rights of its owner.
        given = (there.st_uid, there.st_gid) == (meta.uid, meta.gid)
        mode = meta.mode if given else _plain(meta)
        late = not kept and time_ns is not None
        if late or not done or mode != _plain(meta):
            self._set(wire, staged, mode, time_ns)
        if size is not None and there.st_size != size:
            raise TransientError(f"the server has {there.st_size} bytes instead of {size}")
        return there.st_size

    def _own(self, wire: SftpWire, kind: int, file: bytes, meta: Meta) -> int | None:
        """Before the mode is set, for that clears the set-id bits."""
        if meta.uid is None or meta.gid is None or not self._gives_owners:
            return None
        return wire.send(kind, text(file), attributes(owner=(meta.uid, meta.gid)))

    def _owned(self, wire: SftpWire, request: int | None) -> None:
        """Only root can give files to others; whoever else logged in keeps them."""
        if request is not None:
            try:
                wire.wait(request)
            except OSError:
                self._gives_owners = False

    def _gives_times(self, wire: SftpWire) -> bool:
        """Whether a file gets the time that the server is asked to give it: some refuse to, and
        some only say that they did.  Tried once.
        """
        with self._trying:
            if self._keeps_times is None:
                self._keeps_times = self._try_times(wire)
                if not self._keeps_times:
                    log.warning(
                        "%s keeps no times of files: a sync that goes by times misses what is"
                        " replaced by something older than the copy; --compare manifest and"
                        " --checksum do not", self._where,
                    )  # fmt: skip
            return self._keeps_times

    def _try_times(self, wire: SftpWire) -> bool:
        path = os.path.join(self._directory, b"times." + os.urandom(6).hex().encode())
        wire.ask(CLOSE, text(wire.open(path, FOR_WRITING | CREATE | TRUNCATE, attributes(0o600))))
        try:
            wire.ask(SETSTAT, text(path), attributes(mtime_ns=_TRIED_NS))
            return seconds_of(wire.lstat(path).st_mtime_ns) == seconds_of(_TRIED_NS)
        except OSError as exc:
            if exc.errno in MISSING:  # somebody has removed it, which tells nothing
                raise
            return False
        finally:
            if not wire.lost:
                wire.forget(wire.send(REMOVE, text(path)))

    def _set(self, wire: SftpWire, path: bytes, mode: int | None, time_ns: int | None) -> None:
        """Sets a mode and a time; one of them where the other cannot be kept, as no mode on FAT."""
        if mode is not None:
            try:
                wire.ask(SETSTAT, text(path), attributes(mode, time_ns))
                return
            except OSError as exc:
                if exc.errno in MISSING or (time_ns is None and self._keeps_times is not False):
                    raise
        if time_ns is not None:
            try:
                wire.ask(SETSTAT, text(path), attributes(mtime_ns=time_ns))
            except OSError as exc:
                if exc.errno in MISSING or self._gives_times(wire):
                    raise OSError(exc.errno, f"{exc.strerror}, when it was given its time") from exc
                if mode is not None:
                    self._set(wire, path, mode, None)
                return
        if mode is not None:
            tell_unkept("permissions")

    def set_directory(self, wire: SftpWire, path: bytes, meta: Meta) -> None:
        """Gives a directory what of its owner, mode and time is not so yet."""
        try:
            there = wire.stat(path)
        except OSError as exc:
            if exc.errno in MISSING:
                return
            raise
        if meta.uid is not None and meta.gid is not None and self._gives_owners:
            owner = meta.uid, meta.gid
            if owner != (there.st_uid, there.st_gid):
                self._owned(wire, wire.send(SETSTAT, text(path), attributes(owner=owner)))
        mode = None if meta.mode == stat.S_IMODE(there.st_mode) else meta.mode
        time_ns = meta.mtime_ns
        kept = time_ns is None or seconds_of(time_ns) == seconds_of(there.st_mtime_ns)
        if kept or self._keeps_times is False:
            time_ns = None
        if (mode, time_ns) != (None, None):
            self._set(wire, path, mode, time_ns)


def _plain(meta: Meta) -> int | None:
    """The mode of a file, without the rights of an owner whom it may not be given to."""
    return meta.mode if meta.mode is None or meta.uid is None else meta.mode & ~SET_ID
