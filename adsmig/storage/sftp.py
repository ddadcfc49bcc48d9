"""SFTP servers: what storage.sftpsource tells of and reads, written by rename."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from itertools import groupby

from adsmig.checksum import NO_SUMS, Sums, Wanted
from adsmig.errors import AdsmigError, NotFound, ObjectError, TransientError
from adsmig.location import Location
from adsmig.model import Entry, Meta, Part, Upload
from adsmig.storage.base import Settings, Storage, Stored, part_size_for
from adsmig.storage.descent import MISSING, BehindLink, not_removed
from adsmig.storage.paths import names_of
from adsmig.storage.several import Whole
from adsmig.storage.sftpbatch import BatchFile, can_batch, write_batch
from adsmig.storage.sftpfile import send_spans, write_spans
from adsmig.storage.sftplogin import shown
from adsmig.storage.sftppacket import FOR_WRITING, seconds_of
from adsmig.storage.sftpremoval import remove_in
from adsmig.storage.sftpsource import SftpSource
from adsmig.storage.sftpstaging import SftpStaging, translated
from adsmig.storage.sftpwire import SftpWire

BATCH = 32
"""Small files that are written at once."""


class SftpStorage(SftpSource):
    """A directory of a server that files are written to as well.

    What is being written lies in a staging directory of the job's at the top, as with file systems
    (storage.local); so do the rules about links hold, as far as the protocol lets them: it has no
    descriptors of directories, so links on the way to a key are looked for, and one that takes a
    directory's place right after that is followed.
    """

    etag_is_md5 = False

    def __init__(self, location: Location, settings: Settings, destination: bool = False) -> None:
        super().__init__(location, settings, destination)
        self._staging = SftpStaging(
            self._root, os.fsencode(settings.staging), self._copies_links, shown(location)
        )

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
        """See Storage.write.  The server has answered for every byte when this returns, and has
        said that they are on stable storage, if it can say so.
        """
        if key.endswith(b"/") or not key:
            self._write_directory(key, size, meta)
            return Stored()
        path, wire = self._path(key), self._wire()
        staged = self._staging.path_for(key)
        with self._translated(wire, staged):
            handle = self._staging.create(wire, staged, path, meta)
            try:
                written, flying = send_spans(wire, handle, chunks)
            except BaseException:
                if not wire.lost:
                    wire.close(handle)
                raise
            self._staging.finisher.finish(wire, handle, staged, written, meta, flying)
            if written != size:
                raise TransientError(f"{written} bytes came instead of {size}")
            self._staging.publish(wire, staged, path)
        return Stored(size=written)

    def batch_size(self) -> int:
        """See Batching.  1 where the server lacks what it takes.  Tries again."""
        able = self._files.retried(can_batch, "asking what the server can do")
        return BATCH if able else 1

    def write_batch(self, objects: Sequence[Whole]) -> Sequence[Stored | None]:
        """See Batching."""
        files = dict[bytes, BatchFile]()
        for key, content, meta in objects:
            if not self.problem(key):
                path, staged = os.path.join(self._root, key), self._staging.path_for(key)
                files[key] = BatchFile(path, staged, content, meta)
        write_batch(self._wire(), self._staging, list(files.values()))
        written = {key for key, file in files.items() if file.written}
        return [Stored(size=len(one.content)) if one.key in written else None for one in objects]

    def _write_directory(self, key: bytes, size: int, meta: Meta) -> None:
        path, wire = self._path(key), self._wire()
        if size:
            raise ObjectError("key", "a directory cannot hold content, as this object does")
        with self._translated(wire):
            self._staging.make(wire, path.removesuffix(b"/") or b"/")
        if key:  # the root is the user's own
            self.set_directory_meta(key, meta)

    def set_directory_meta(self, key: bytes, meta: Meta) -> None:
        """See Storage.set_directory_meta.  Called once all content of the directory is written."""
        if (meta.mode, meta.uid, meta.mtime_ns) == (None, None, None):
            return
        path, wire = self._path(key).removesuffix(b"/"), self._wire()
        with self._translated(wire):
            self._staging.check_way(wire, os.path.join(path, b"x"))
            self._staging.finisher.set_directory(wire, path or b"/", meta)

    def write_link(self, key: bytes, target: bytes, meta: Meta) -> None:
        """See Storage.write_link.  The protocol sets no times of links."""
        if key.endswith(b"/") or not key:
            raise ObjectError("key", "a symbolic link cannot have the name of a directory")
        if not target or b"\0" in target:
            raise ObjectError("link", "a symbolic link cannot lead to an empty name or to a NUL")
        path, wire = self._path(key), self._wire()
        staged = self._staging.path_for(key)
        with self._translated(wire, staged):
            self._staging.check_target(wire, path)
            self._staging.link(wire, staged, target)
            self._staging.publish(wire, staged, path)

    def delete(self, keys: Sequence[bytes]) -> dict[bytes, str]:
        """See Storage.delete.  What lies behind a symbolic link below the root stays, with that
        for a reason: it is outside the root, or there under another key.
        """
        reasons, good = dict[bytes, str](), list[bytes]()
        for key in keys:
            if problem := self.problem(key):
                reasons[key] = problem
            elif key:  # the root itself is no object
                good.append(key)
        good.sort(reverse=True)  # a directory goes after what is in it
        for names, group in groupby(good, lambda key: names_of(key)[:-1]):
            reasons.update(self._delete_in(names, list(group)))
        return reasons

    def _delete_in(self, names: Sequence[bytes], keys: Sequence[bytes]) -> dict[bytes, str]:
        """Removes from one directory."""

        def unit(wire: SftpWire) -> dict[bytes, str]:
            try:
                self._staging.check_way(wire, os.path.join(self._root, *names, b"x"))
            except BehindLink as exc:
                there = [key for key in keys if self._exists(wire, key)]
                return dict.fromkeys(there, str(exc))
            return remove_in(wire, self._root, keys)

        try:
            return self._files.retried(unit, "removing files")
        except OSError as exc:
            return {} if exc.errno in MISSING else dict.fromkeys(keys, not_removed(exc))

    def _exists(self, wire: SftpWire, key: bytes) -> bool:
        return wire.exists(self._path(key).removesuffix(b"/"))

    def copy_from(self, src: Storage, entry: Entry, key: bytes) -> Stored | None:
        """None: the bytes have to pass here, to be hashed."""
        return None

    def copy_part(self, src: Storage, key: bytes, upload: Upload, number: int) -> Stored | None:
        """None, as copy_from."""
        return None

    def begin_upload(self, key: bytes, entry: Entry, meta: Meta, crc32: bool = False) -> Upload:
        """A staged file, which the parts are written into through several connections."""
        path, wire = self._path(key), self._wire()
        staged = self._staging.path_for_large(key)
        with self._translated(wire, staged):
            self._staging.remove_strays(wire, staged)
            wire.close(self._staging.create(wire, staged, path, meta))
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
        offset, size = upload.span(number)
        wire, staged = self._wire(), bytes.fromhex(upload.upload_id)
        with self._translated(wire):
            handle = self._opened(wire, staged)
            try:
                written = write_spans(wire, handle, chunks, offset)
                self._staging.flushes.at_times(wire, handle, written)
            finally:
                if not wire.lost:
                    wire.close(handle)
            if written != size:
                raise TransientError(f"{written} bytes came instead of {size}")
        self._staging.flushes.note(staged)
        return Stored()

    def _opened(self, wire: SftpWire, staged: bytes) -> bytes:
        try:
            return wire.open(staged, FOR_WRITING)
        except OSError as exc:
            if exc.errno in MISSING:
                raise NotFound("the staged file is gone") from exc
            raise

    def complete(self, key: bytes, upload: Upload, parts: Sequence[Part], meta: Meta) -> str | None:
        """See Storage.complete."""
        return self._files.retried(
            lambda wire: self._complete(wire, key, upload, meta), "completing an upload"
        )

    def _complete(self, wire: SftpWire, key: bytes, upload: Upload, meta: Meta) -> None:
        path, staged = self._path(key), bytes.fromhex(upload.upload_id)
        with self._translated(wire):
            try:
                handle = self._opened(wire, staged)
            except NotFound:
                with contextlib.suppress(NotFound):
                    there = self.stat(key)
                    same_time = meta.mtime_ns is None or seconds_of(meta.mtime_ns) == seconds_of(
                        there.mtime_ns or 0
                    )
                    if there.size == upload.entry.size and same_time:
                        return  # an earlier try renamed it, and was cut off before it said so
                raise
            size = self._staging.finisher.finish(wire, handle, staged, None, meta)
            if size != upload.entry.size:
                raise NotFound("the staged file was tampered with")
            self._staging.publish(wire, staged, path)

    def abort(self, key: bytes, upload_id: str) -> None:
        """See Storage.abort."""
        with self._translated(self._wire()):
            self._files.retried(
                lambda wire: self._staging.remove(wire, bytes.fromhex(upload_id)),
                "removing a staged file",
            )

    def uploads(self) -> Iterator[tuple[bytes, str]]:
        """None: they lie in the staging directory."""
        return iter(())

    # The place

    def prepare(self) -> None:
        """Makes the root and the staging directory of a destination; looks into a source."""

        def unit(wire: SftpWire) -> None:
            if self.destination:
                self._staging.prepare(wire)
            else:
                wire.close(wire.opendir(self._root))

        try:
            self._files.retried(unit, "preparing")
        except (OSError, ObjectError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else str(exc)
            verb = "write to" if self.destination else "read"
            raise AdsmigError(f"cannot {verb} {self.location}: {reason}") from exc

    def sync(self) -> None:
        """Has the server bring the directories that were written to, and the parts of large files,
        to stable storage, if it knows how to.
        """
        with self._translated(self._wire()):
            self._files.retried(self._staging.flushes.sync, "flushing")

    def tidy(self) -> None:
        """Removes the staging directory."""
        with contextlib.suppress(OSError, AdsmigError):
            self._files.retried(self._staging.tidy, "tidying")

    # Inside

    def _translated(
        self, wire: SftpWire, staged: bytes | None = None
    ) -> contextlib.AbstractContextManager[None]:
        return translated(wire, self._root, f"writing to {self.location}", staged)
