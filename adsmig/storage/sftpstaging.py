"""Remote files that are not whole yet, in a directory of the job's own, and how they get to their
places.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
from collections.abc import Iterable, Iterator

import xxhash

from adsmig.errors import AdsmigError, ObjectError, StorageFull
from adsmig.model import Meta
from adsmig.storage.descent import MISSING, BehindLink
from adsmig.storage.localfile import from_os_error
from adsmig.storage.sftpfinisher import Finisher
from adsmig.storage.sftpflushes import Flushes
from adsmig.storage.sftppacket import (
    CREATE,
    FAILURE,
    FOR_WRITING,
    LSTAT,
    MKDIR,
    OPEN,
    REMOVE,
    RMDIR,
    SYMLINK,
    TRUNCATE,
    Status,
    attributes,
    handle_of,
    number,
    status_of,
    text,
)
from adsmig.storage.sftpwire import SftpWire
from adsmig.storage.staging import Own


class SftpStaging:
    """The directory ``name`` at the top of a destination.  Errors are OSError, but for ours.

    Nothing is written through a link below ``root`` that is there when a file is begun.  ``wary``:
    nor through one that comes meanwhile, as this run may make them; it costs a round trip a file.
    """

    def __init__(self, root: bytes, name: bytes, wary: bool, where: str) -> None:
        self._root, self.wary = root, wary
        self._path = os.path.join(root, name)
        # Names of this try's own: a server may go on writing for a connection that was lost.
        self._token = os.urandom(6).hex().encode()
        self._tries = itertools.count()
        self._mine = Own()
        self.finisher = Finisher(self._path, where)
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
