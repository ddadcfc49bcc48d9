"""Remote files that are not whole yet, in a directory of the job's own, and how they get to their
places.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import xxhash

from adsmig.errors import AdsmigError, ObjectError, StorageFull, TransientError
from adsmig.model import Meta
from adsmig.storage.descent import MISSING, BehindLink
from adsmig.storage.localfile import SET_ID, from_os_error, tell_unkept
from adsmig.storage.sftpflushes import Flushes
from adsmig.storage.sftppacket import (
    CLOSE,
    CREATE,
    EXTENDED,
    FAILURE,
    FOR_WRITING,
    FSETSTAT,
    FSTAT,
    FSYNC,
    LSTAT,
    MKDIR,
    OPEN,
    REMOVE,
    RMDIR,
    SETSTAT,
    SYMLINK,
    TRUNCATE,
    Status,
    attributes,
    handle_of,
    number,
    seconds_of,
    status_of,
    text,
)
from adsmig.storage.sftpwire import SftpWire
from adsmig.storage.staging import Own


class Finishing(NamedTuple):
    """Requests in flight that make a file whole."""

    owning: int | None
    setting: int
    flushing: int | None
    looking: int
    closing: int


class SftpStaging:
    """The directory ``name`` at the top of a destination.  Errors are OSError, but for ours.

    Nothing is written through a link below ``root`` that is there when a file is begun.  ``wary``:
    nor through one that comes meanwhile, as this run may make them; it costs a round trip a file.
    """

    def __init__(self, root: bytes, name: bytes, wary: bool, where: str) -> None:
        self._root, self.wary, self._where = root, wary, where
        self._path = os.path.join(root, name)
        # Names of this try's own: a server may go on writing for a connection that was lost.
        self._token = os.urandom(6).hex().encode()
        self._tries = itertools.count()
        self._mine = Own()
        self._gives_owners = True
        self.flushes = Flushes()

    def prepare(self, wire: SftpWire) -> None:
        """Makes it, and what is above it."""
        self.make(wire, self._path)

    def path_for(self, key: bytes) -> bytes:
        """Where this thread keeps what is to become ``key``; another each time.

        In a directory of its own, as storage.staging has them.
        """
        if not self._mine.path:
            name = b"%s-%d" % (self._token, next(self._tries))
            self._mine.path = os.path.join(self._path, name)
        name = xxhash.xxh3_128_hexdigest(key).encode()
        return os.path.join(self._mine.path, b"%s.%d" % (name, next(self._tries)))

    def path_for_large(self, key: bytes) -> bytes:
        """Where to keep what is to become ``key``, for others to write to; another each time."""
        name = xxhash.xxh3_128_hexdigest(key).encode()
        return os.path.join(self._path, b"%s.%s.%d" % (name, self._token, next(self._tries)))

    # Files

    def create(self, wire: SftpWire, staged: bytes, path: bytes, meta: Meta) -> bytes:
        """A handle of a new, empty file there, which is to be moved to ``path``.

        ObjectError if that cannot be.
        """
        opening = self.begin_create(wire, staged, meta)
        try:
            self.check_target(wire, path)
        except BaseException:
            if not wire.lost:
                with contextlib.suppress(OSError):
                    wire.close(handle_of(wire.wait(opening)))
            raise
        try:
            return handle_of(wire.wait(opening))
        except OSError as exc:
            if exc.errno != errno.ENOENT:
                raise
            self.make(wire, os.path.dirname(staged))
            return handle_of(wire.wait(self.begin_create(wire, staged, meta)))

    def begin_create(self, wire: SftpWire, staged: bytes, meta: Meta) -> int:
        """The request, in flight, for a handle of a new, empty file there."""
        mode = 0o666 if meta.mode is None else meta.mode & 0o700 | 0o600
        flags = number(FOR_WRITING | CREATE | TRUNCATE)
        return wire.send(OPEN, text(staged), flags, attributes(mode))

    def finish(
        self,
        wire: SftpWire,
        handle: bytes,
        staged: bytes,
        size: int | None,
        meta: Meta,
        writing: Sequence[int] = (),
    ) -> int:
        """Gives a file its owner (as root), mode and time, brings it to stable storage, closes it;
        and waits for the answers to the last of its bytes, ``writing``.

        The size that the server says it has; TransientError if that is not the ``size`` written.
        All in one round trip, but where the server cannot set them through a handle.
        """
        if FSYNC in wire.extensions:
            finishing = self.begin_finish(wire, handle, meta)
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
        return self.end_finish(wire, finishing, staged, size, meta, writing)

    def begin_finish(self, wire: SftpWire, handle: bytes, meta: Meta) -> Finishing:
        """The requests of :meth:`finish`, in flight, to a server that can flush."""
        owning = self._own(wire, FSETSTAT, handle, meta)
        setting = wire.send(FSETSTAT, text(handle), attributes(_plain(meta), meta.mtime_ns))
        flushing = wire.send(EXTENDED, text(FSYNC), text(handle))
        looking = wire.send(FSTAT, text(handle))
        return Finishing(owning, setting, flushing, looking, wire.send(CLOSE, text(handle)))

    def end_finish(
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
        try:
            wire.wait(setting)
            same_time = meta.mtime_ns is None or seconds_of(meta.mtime_ns) == seconds_of(
                there.st_mtime_ns
            )
        except OSError:
            same_time = False
        # As with file systems, who is not given a file does not hand out the rights of its owner.
        given = (there.st_uid, there.st_gid) == (meta.uid, meta.gid)
        mode = meta.mode if given else _plain(meta)
        if not same_time or mode != _plain(meta):
            self._set(wire, staged, mode, meta.mtime_ns)
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

    def _set(self, wire: SftpWire, path: bytes, mode: int | None, time_ns: int | None) -> None:
        """Sets a mode and a time; the time alone where no mode can be kept, as on FAT."""
        if mode is not None:
            try:
                wire.ask(SETSTAT, text(path), attributes(mode, time_ns))
                return
            except OSError as exc:
                if time_ns is None or exc.errno in MISSING:
                    raise
        try:
            wire.ask(SETSTAT, text(path), attributes(mtime_ns=time_ns))
        except OSError as exc:
            raise OSError(exc.errno, f"{exc.strerror}, when it was given its time") from exc
        if mode is not None:
            tell_unkept("permissions")

    def link(self, wire: SftpWire, staged: bytes, target: bytes) -> None:
        """A new symbolic link there."""
        # OpenSSH has them the other way round than the draft, and all have followed (PROTOCOL,
        # 4.1).
        request = (text(target), text(staged))
        try:
            wire.ask(SYMLINK, *request)
        except OSError as exc:
            if exc.errno != errno.ENOENT:
                raise
            self.make(wire, os.path.dirname(staged))
            wire.ask(SYMLINK, *request)

    def publish(self, wire: SftpWire, staged: bytes, path: bytes) -> None:
        """Renames a staged file to its place; makes the directories above that."""
        directory = os.path.dirname(path)
        if self.wary:
            self.make(wire, directory)
        try:
            wire.rename(staged, path)
        except OSError as exc:
            if exc.errno in MISSING:
                self.make(wire, directory)
                wire.rename(staged, path)
            else:
                self.check_target(wire, path)
                raise
        self.flushes.note(directory)

    def remove_strays(self, wire: SftpWire, staged: bytes) -> None:
        """Removes what others have left for the same key."""
        same_key = os.path.basename(staged).partition(b".")[0] + b"."
        try:
            names = wire.names(self._path)
        except OSError as exc:
            if exc.errno in MISSING:
                return
            raise
        for name, _ in names:
            if name.startswith(same_key):
                self.remove(wire, os.path.join(self._path, name))

    def remove(self, wire: SftpWire, staged: bytes, how: int = REMOVE) -> None:
        """Removes a staged file, or an empty directory, if it is there."""
        try:
            wire.ask(how, text(staged))
        except OSError as exc:
            if exc.errno not in MISSING:
                raise

    def tidy(self, wire: SftpWire) -> None:
        """Removes the directory and all that is in it; what was removed already is no error."""
        for name, status in wire.names(self._path):
            path = os.path.join(self._path, name)
            if status and stat.S_ISDIR(status.st_mode):
                for inner, _ in wire.names(path):
                    self.remove(wire, os.path.join(path, inner))
                self.remove(wire, path, RMDIR)
            else:
                self.remove(wire, path)
        self.remove(wire, self._path, RMDIR)

    # Directories

    def make(self, wire: SftpWire, directory: bytes) -> None:
        """Makes a directory, and those above it; ObjectError where something is in the way."""
        self.check_way(wire, os.path.join(directory, b"x"))
        try:
            wire.ask(MKDIR, text(directory), number(0))
        except OSError as exc:
            if exc.errno == errno.ENOENT and directory not in (b"", b"/"):
                self.make(wire, os.path.dirname(directory))
                try:
                    wire.ask(MKDIR, text(directory), number(0))
                except OSError as error:
                    self._expect_directory(wire, directory, error)
            else:
                self._expect_directory(wire, directory, exc)
                return
        self.flushes.note(os.path.dirname(directory))

    def _expect_directory(self, wire: SftpWire, directory: bytes, exc: OSError) -> None:
        """Whatever was wrong, if it is there all is well."""
        try:
            there = wire.stat(directory)
        except OSError as error:
            if error.errno in MISSING and wire.exists(directory):
                raise ObjectError("key", "its directory is a broken link there") from exc
            raise exc from error
        if not stat.S_ISDIR(there.st_mode):
            raise ObjectError("key", "a file is where this key needs a directory") from exc

    def check_target(self, wire: SftpWire, path: bytes) -> None:
        """Refuses what lies below a link, or in the place of a directory, a device, a pipe or a
        socket.
        """
        looking = wire.send(LSTAT, text(path))
        try:
            self.check_way(wire, path)
            expect_file(status_of(wire.wait(looking)).st_mode)
        except OSError:
            return  # it is not there, or it will be told when it is written
        finally:
            if not wire.lost:
                wire.forget(looking)

    def check_way(self, wire: SftpWire, path: bytes) -> None:
        """BehindLink if a directory between the root and ``path`` is a symbolic link."""
        if self.links(wire, self.way(path)):
            raise BehindLink()

    def way(self, path: bytes) -> list[bytes]:
        """The directories between the root and ``path``."""
        names = path[len(self._root) :].strip(b"/").split(b"/")[:-1]
        return [os.path.join(self._root, *names[: at + 1]) for at in range(len(names))]

    def links(self, wire: SftpWire, paths: Iterable[bytes]) -> set[bytes]:
        """Those of ``paths`` that are symbolic links."""
        paths = list(paths)
        found = zip(paths, wire.lstats(paths), strict=True)
        return {
            path for path, one in found if isinstance(one, Status) and stat.S_ISLNK(one.st_mode)
        }

    def set_directory_meta(self, wire: SftpWire, path: bytes, meta: Meta) -> None:
        """Gives a directory what of its owner, mode and time is not so yet."""
        self.check_way(wire, os.path.join(path, b"x"))
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
        if time_ns is not None and seconds_of(time_ns) == seconds_of(there.st_mtime_ns):
            time_ns = None
        if (mode, time_ns) != (None, None):
            self._set(wire, path, mode, time_ns)


def _plain(meta: Meta) -> int | None:
    """The mode of a file, without the rights of an owner whom it may not be given to."""
    return meta.mode if meta.mode is None or meta.uid is None else meta.mode & ~SET_ID


def expect_file(mode: int) -> None:
    """ObjectError if what is in a file's place is one that a file does not replace."""
    if stat.S_ISDIR(mode):
        raise ObjectError("key", "a directory is where this file has to be")
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        raise ObjectError("key", "there is something that is neither file nor directory")


@contextlib.contextmanager
def translated(
    wire: SftpWire, root: bytes, doing: str, staged: bytes | None = None
) -> Iterator[None]:
    """Turns OSError into ours, and removes the staged file of a write that failed."""
    try:
        yield
    except BaseException as exc:
        error = _ours(wire, root, doing, exc) if isinstance(exc, OSError) else None
        if staged and not wire.lost:
            with contextlib.suppress(OSError, AdsmigError):
                wire.forget(wire.send(REMOVE, text(staged)))
        if error is None:
            raise
        raise error from exc


def _ours(wire: SftpWire, root: bytes, doing: str, exc: OSError) -> AdsmigError:
    if exc.errno == FAILURE and not wire.lost:
        with contextlib.suppress(OSError, AdsmigError):
            if not wire.has_room(root):
                return StorageFull(f"{doing}: no space left there; free some room")
    return from_os_error(exc, doing)
