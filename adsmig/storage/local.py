"""File systems: what storage.localsource tells of and reads, written by rename."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import NoReturn

from adsmig.checksum import NO_SUMS, Sums, Wanted
from adsmig.errors import AdsmigError, NotFound, ObjectError
from adsmig.location import Location
from adsmig.model import Entry, Meta, Part, Upload
from adsmig.storage.base import Settings, Storage, Stored, part_size_for
from adsmig.storage.descent import MISSING, BehindLink, Held, descend, not_removed, remove
from adsmig.storage.localfile import (
    MUCH,
    begin_to_store,
    from_os_error,
    set_directory_meta,
    set_meta,
    write_all,
)
from adsmig.storage.localsource import OWN, LocalSource
from adsmig.storage.paths import names_of
from adsmig.storage.staging import Staging


class LocalStorage(LocalSource):
    """A directory tree that files are written to as well.

    ``destination`` says that this run writes here.  What is being written lies in a staging
    directory of the job's at the top, where it stays if the run ends early.

    Nothing is written or deleted through a symbolic link below the root, whoever made it, and
    whenever: a key must not lead out of the destination, nor to what has another key.  So
    directories are reached by descriptors there, one name after the other (storage.descent).
    """

    etag_is_md5 = False

    def __init__(self, location: Location, settings: Settings, destination: bool = False) -> None:
        super().__init__(location, settings, destination)
        self._staging = Staging(self._root, os.fsencode(settings.staging))

    # Writing

    def wanted(self) -> Wanted:
        """None: what is written here is not held against any."""
        return Wanted()

    def write(
        self,
        key: bytes,
        chunks: Iterator[memoryview],
        size: int,
        meta: Meta,
        sums: Sums = NO_SUMS,
    ) -> Stored:
        """See Storage.write."""
        if key.endswith(b"/") or not key:
            self._write_directory(key, size, meta)
            return Stored()
        above = self._checked(key)
        staged = self._staging.path_for(key)
        try:
            fd = self._staging.create(staged, meta)
            try:
                for chunk in chunks:
                    write_all(fd, chunk)
                begin_to_store(fd, 0, size)
                set_meta(fd, meta, self._staging.owner())
            finally:
                os.close(fd)
            # What took its time is put where its directory is by now.
            self._publish(staged, key, above if size < MUCH else None)
        except BaseException as exc:
            self._fail(exc, staged)
        return Stored()

    def _write_directory(self, key: bytes, size: int, meta: Meta) -> None:
        self._path(key)
        if size:
            raise ObjectError("key", "a directory cannot hold content, as this object does")
        with self._translated(), self._claimed(key):
            os.close(descend(self._root.opened(), names_of(key), make=True))
        self.set_directory_meta(key, meta)

    def set_directory_meta(self, key: bytes, meta: Meta) -> None:
        """Gives a directory its mode, owner (as root) and mtime, once all its content is written.

        ObjectError where that fails; a directory that is not there is no error.  The root stays as
        it is, for it is the user's own.
        """
        self._path(key)
        if not key or (meta.mode, meta.uid, meta.mtime_ns) == (None, None, None):
            return
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        with (
            self._translated(),
            contextlib.suppress(FileNotFoundError),
            self._claimed(key),
        ):
            above = self._directory_of(key)
            fd = os.open(names_of(key)[-1], flags | os.O_NOFOLLOW, dir_fd=above.fd)
            try:
                set_directory_meta(fd, meta)
            finally:
                os.close(fd)

    def write_link(self, key: bytes, target: bytes, meta: Meta) -> None:
        """See Storage.write_link.  Whole or not at all, as a file, and as durable."""
        if key.endswith(b"/") or not key:
            raise ObjectError("key", "a symbolic link cannot have the name of a directory")
        if not target or b"\0" in target:
            raise ObjectError("link", "a symbolic link cannot lead to an empty name or to a NUL")
        above = self._checked(key)
        staged = self._staging.path_for(key)
        with self._translated(staged):
            self._staging.link(staged, target, meta)
            self._publish(staged, key, above)

    def delete(self, keys: Sequence[bytes]) -> dict[bytes, str]:
        """See Storage.delete.  What lies behind a symbolic link below the root stays, with that
        for a reason: it is outside the root, or there under another key.
        """
        self._root.check()
        reasons, good = dict[bytes, str](), list[bytes]()
        for key in keys:
            if problem := OWN if key in self._own else self.problem(key):
                reasons[key] = problem
            elif key:  # the root itself is no object
                good.append(key)
        good.sort(reverse=True)  # a directory goes after what is in it
        for names, group in groupby(good, lambda key: names_of(key)[:-1]):
            reasons.update(self._delete_in(names, group))
        if reasons:
            self._root.check()
        return reasons

    def _delete_in(self, names: Sequence[bytes], keys: Iterable[bytes]) -> dict[bytes, str]:
        """Removes from one directory."""
        try:
            above = descend(self._root.opened(), names)
        except BehindLink as exc:
            return {key: str(exc) for key in keys if os.path.lexists(self._path(key))}
        except OSError as exc:
            return {} if exc.errno in MISSING else dict.fromkeys(keys, not_removed(exc))
        try:
            start = len(b"/".join([*names, b""]))
            results = {key: remove(key[start:], above, self.destination) for key in keys}
        finally:
            os.close(above)
        return {key: reason for key, reason in results.items() if reason}

    def copy_from(self, src: Storage, entry: Entry, key: bytes) -> Stored | None:
        """None: the bytes have to pass here, to be hashed."""
        return None

    def copy_part(self, src: Storage, key: bytes, upload: Upload, number: int) -> Stored | None:
        """None, as copy_from."""
        return None

    def begin_upload(self, key: bytes, entry: Entry, meta: Meta, crc32: bool = False) -> Upload:
        """A staged file of full size."""
        self._checked(key)
        staged = self._staging.path_for_large(key)
        with self._translated(staged):
            self._staging.remove_strays(staged)
            fd = self._staging.create(staged, meta)
            try:
                os.ftruncate(fd, entry.size)
            finally:
                os.close(fd)
        return Upload(entry, staged.hex(), part_size_for(entry.size))

    def put_part(
        self,
        key: bytes,
        upload: Upload,
        number: int,
        chunks: Iterator[memoryview],
        sums: Sums = NO_SUMS,
    ) -> Stored:
        """See Storage.put_part."""
        start, size = upload.span(number)
        offset = start
        with self._translated():
            try:
                fd = self._staging.open(bytes.fromhex(upload.upload_id))
            except FileNotFoundError as exc:
                raise NotFound("the staged file is gone") from exc
            try:
                for chunk in chunks:
                    offset += write_all(fd, chunk, offset)
                begin_to_store(fd, start, size)
            finally:
                os.close(fd)
        return Stored()

    def complete(self, key: bytes, upload: Upload, parts: Sequence[Part], meta: Meta) -> str | None:
        """See Storage.complete."""
        staged = bytes.fromhex(upload.upload_id)
        with self._translated():
            try:
                fd = self._staging.open(staged)
            except FileNotFoundError as exc:
                with contextlib.suppress(NotFound):
                    there = self.stat(key)
                    if there.size == upload.entry.size and self._is_time_of(there, meta):
                        return None  # an earlier try renamed it, and was killed before it said so
                raise NotFound("the staged file is gone") from exc
            try:
                if os.fstat(fd).st_size != upload.entry.size:
                    raise NotFound("the staged file was tampered with")
                set_meta(fd, meta)
                os.fsync(fd)
            finally:
                os.close(fd)
            self._publish(staged, key)
        return None

    def _is_time_of(self, there: Entry, meta: Meta) -> bool:
        """Whether a file has the time that it was given, as far as times are told apart here."""
        if there.mtime_ns is None or meta.mtime_ns is None:
            return False
        return abs(there.mtime_ns - meta.mtime_ns) < self.tick_ns

    def abort(self, key: bytes, upload_id: str) -> None:
        """See Storage.abort."""
        with self._translated(), contextlib.suppress(FileNotFoundError):
            self._staging.remove(bytes.fromhex(upload_id))

    def uploads(self) -> Iterator[tuple[bytes, str]]:
        """None: they lie in the staging directory."""
        return iter(())

    def prepare(self) -> None:
        """Makes the root and the staging directory of a destination, and locks that for as long
        as this storage lives; looks into a source, which has to be the one that it was.
        """
        try:
            if not self.destination:
                os.scandir(self._root.path).close()
                self._root.check()
                return
            self._staging.prepare()
            self.tick_ns = self._staging.tick()
        except BlockingIOError as exc:
            raise AdsmigError(
                f"another run of this job is writing to {self.location}; wait for it, or end it"
            ) from exc
        except OSError as exc:
            verb = "write to" if self.destination else "read"
            raise AdsmigError(f"cannot {verb} {self.location}: {exc.strerror}") from exc

    def sync(self) -> None:
        """See Storage.sync."""
        try:
            self._root.sync()
        except OSError as exc:
            raise from_os_error(exc, f"flushing {self.location}") from exc
        self._root.check()

    def tidy(self) -> None:
        """Removes the staging directory."""
        self._staging.tidy()

    # Inside

    def _checked(self, key: bytes) -> Held | None:
        """The directory of ``key``, None if it is not there.

        Refuses what lies below a file or a link, or in the place of a directory or of something
        that is no file.
        """
        self._path(key)
        above = None
        try:
            above = self._directory_of(key)
            mode = os.lstat(names_of(key)[-1], dir_fd=above.fd).st_mode
        except OSError as exc:
            if exc.errno in (errno.ENOTDIR, errno.ENAMETOOLONG):
                raise from_os_error(exc, f"writing to {self.location}") from exc
            return above  # it is not there, or it will be told when it is written
        if stat.S_ISDIR(mode):
            raise ObjectError("key", "a directory is where this file has to be")
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
            raise ObjectError("key", "there is something that is neither file nor directory")
        return above

    def _publish(self, staged: bytes, key: bytes, above: Held | None = None) -> None:
        """Puts a staged file in its place, in ``above`` if that is still there."""
        if self._staging.folding:
            with self._claimed(key):
                above = self._directory_of(key, make=True)
                self._staging.publish(staged, names_of(key)[-1], above.fd)
            return
        name = names_of(key)[-1]
        if above:
            with contextlib.suppress(FileNotFoundError):
                self._staging.publish(staged, name, above.fd)
                return
        above = self._directory_of(key, make=True)
        self._staging.publish(staged, name, above.fd)

    def _claimed(self, key: bytes) -> contextlib.AbstractContextManager[None]:
        """While what is called so comes to its place; see storage.folding."""
        folding = self._staging.folding
        if not folding:
            return contextlib.nullcontext()
        return folding.claimed(names_of(key), key.endswith(b"/"))

    @contextlib.contextmanager
    def _translated(self, staged: bytes | None = None) -> Iterator[None]:
        """As :meth:`_fail`."""
        try:
            yield
        except BaseException as exc:
            self._fail(exc, staged)

    def _fail(self, exc: BaseException, staged: bytes | None = None) -> NoReturn:
        """Raises: ours for an OSError.  The staged file of a write that failed is removed."""
        if staged:
            with contextlib.suppress(OSError, BehindLink):
                self._staging.remove(staged)
        if isinstance(exc, OSError):
            raise from_os_error(exc, f"writing to {self.location}") from exc
        raise exc
