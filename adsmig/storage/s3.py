"""Object stores of the S3 protocol."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from typing import NoReturn

from adsmig.checksum import NO_SUMS, Sums, combined_etag, md5_in
from adsmig.errors import AdsmigError, NotFound, ObjectError, SourceChanged, TransientError
from adsmig.location import Location
from adsmig.model import Entry, Meta, Part, Upload
from adsmig.providers import AWS, MANY, OPAQUE
from adsmig.retry import retry
from adsmig.storage.base import Settings, Storage, Stored, part_size_for
from adsmig.storage.http import UNSAFE
from adsmig.storage.oddkeys import OddKeys, holds
from adsmig.storage.response import Response
from adsmig.storage.s3delete import is_gateway, remove
from adsmig.storage.s3object import SSE, chosen_headers, headers_for, md5_of, stored_of, user_size
from adsmig.storage.s3source import S3Source
from adsmig.storage.s3sums import CRC32, UPLOAD
from adsmig.storage.s3upload import completed, opened, unfinished
from adsmig.storage.several import Sent
from adsmig.storage.signing import encode_path


class S3Storage(S3Source):
    """One bucket and prefix, of which objects are copied as well as read.

    ``destination``: objects are written as the settings choose, and their tags are not read.
    """

    def __init__(self, location: Location, settings: Settings, destination: bool = False) -> None:
        side = "DST" if destination else "SRC"
        super().__init__(location, settings, settings.tags and not destination, side)
        self._chosen = chosen_headers(settings) if destination else {}
        if "kms" in self._chosen.get(SSE, ""):
            # docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html: not under a key of KMS.
            self.etag_is_md5 = False
        # A name of this process's own: another may be trying the same.
        trial = self.prefix + f"{settings.staging}-{os.urandom(6).hex()}".encode()
        self._odd = OddKeys(partial(holds, self._wire, self._root, self._lists, trial), trial)

    # Writing

    def write(
        self, key: bytes, chunks: Iterator[memoryview], size: int, meta: Meta, sums: Sums = NO_SUMS
    ) -> Stored:
        """See Storage.write."""
        return self.send(key, chunks, size, meta, sums).answer()

    def send(
        self, key: bytes, chunks: Iterator[memoryview], size: int, meta: Meta, sums: Sums = NO_SUMS
    ) -> Sent[Stored]:
        """See Overlapping.send."""
        self._check_key(key)
        headers = self._headers(key, meta) | self._vouching.headers(sums)
        try:
            asked = self._wire.ask("PUT", self._path(key), {}, headers, chunks, size)
        except AdsmigError as exc:
            self._reject(headers, exc)

        def answer() -> Stored:
            try:
                stored = self._stored(asked.answer(), headers)
            except AdsmigError as exc:
                self._reject(headers, exc)
            if key.endswith(b"/") and size and self.stat(key).size != size:
                raise ObjectError(
                    "key", "this store keeps no content under a key that ends in a slash"
                )
            if CRC32 in headers and not stored.crc32 and "content-md5" not in headers:
                raise TransientError("the store does not confirm CRC-32s as it did before")
            return stored

        return Sent(asked.fd, answer, asked.drop)

    def _reject(self, headers: dict[str, str], exc: AdsmigError) -> NoReturn:
        """Raises what the error of a PUT with these headers means."""
        if isinstance(exc, NotFound):
            raise ObjectError("key", f"the store does not take this key: {exc}") from exc
        if isinstance(exc, ObjectError) and self._vouching.refused(headers, exc):
            raise TransientError(str(exc), immediate=True) from exc
        raise exc

    def _headers(self, key: bytes, meta: Meta) -> dict[str, str]:
        """The request headers of a new object."""
        headers = headers_for(key, meta)
        size, most = user_size(headers), self.profile.max_meta
        if most and size > most:
            raise ObjectError("metadata", f"user metadata of {size} bytes; it takes up to {most}")
        # A store may have sent such ones all the same.
        if bad := next((one for one in headers.items() if UNSAFE.search("".join(one))), None):
            raise ObjectError("metadata", f"no header can carry {bad[0]!r} as {bad[1]!r}")
        return headers | self._chosen

    def _stored(self, answer: Response, headers: dict[str, str]) -> Stored:
        """What the answer to a write with these headers says."""
        stored = stored_of(answer)
        stored = stored if self.profile.etag != OPAQUE else Stored(stored.etag)
        return self._vouching.confirmed(headers, answer, stored)

    def write_link(self, key: bytes, target: bytes, meta: Meta) -> None:
        """See Storage.write_link."""
        raise ObjectError("link", "an object store has no symbolic links")

    def delete(self, keys: Sequence[bytes]) -> dict[bytes, str]:
        """See Storage.delete.  Never removes another object, as some stores would."""
        # The gateway leaves the directories of what goes with others, as objects.
        alone = self.profile.delete != MANY
        together = len(keys) > 1 and not alone and not self._is_gateway
        full = [self.prefix + key for key in keys]
        problems = remove(self._wire, self._root, full, self._check_deletion, together)
        return {key[len(self.prefix) :]: problem for key, problem in problems.items()}

    def _check_deletion(self, full: bytes) -> None:
        """Raises NotFound or ObjectError where a DELETE of the full key could remove another.

        Stores that keep objects as files may take ``f/`` for the file ``f`` (the MinIO gateway of
        JuiceFS 1.4), or ``d`` for ``d/``, an empty directory (SeaweedFS 4.48 too).
        """
        if not full:
            raise NotFound("no object is without a name")  # a DELETE would be the bucket's
        key = full[len(self.prefix) :]
        self._check_odd(key)
        if full.endswith(b"/"):
            try:
                self._listed(key)
            except NotFound:
                # The gateway lists an empty directory only from above.
                if not self._is_gateway or self._is_there(full.rstrip(b"/")):
                    raise
        elif self._is("SeaweedFS") or self._is_gateway:
            self.stat(key)

    def _is_there(self, full: bytes) -> bool:
        with contextlib.suppress(NotFound):
            retry(lambda: self._wire.request("HEAD", self._root + full), "looking up an object")
            return True
        return False

    @cached_property
    def _is_gateway(self) -> bool:
        return self._is("MinIO") and is_gateway(self._wire, self._root)

    def hides(self, key: bytes) -> bool:
        """False: there are no links."""
        return False

    def set_directory_meta(self, key: bytes, meta: Meta) -> None:
        """Nothing to do: there are no directories but objects."""

    def copy_from(self, src: Storage, entry: Entry, key: bytes) -> Stored | None:
        """See Storage.copy_from."""
        sent = self.send_copy(src, entry, key)
        return sent.answer() if sent else None

    def send_copy(self, src: Storage, entry: Entry, key: bytes) -> Sent[Stored | None] | None:
        """See Overlapping.send_copy."""
        if not isinstance(src, S3Storage) or not self._same_service(src):
            return None
        if entry.key.endswith(b"/"):
            return None  # a directory, to stores that have such, and nothing that can be copied
        if entry.size > self.profile.max_copy:
            return None
        self._check_key(key)
        sent = self._send_copy(key, {}, src._copy_source(entry) | self._chosen)

        def answer() -> Stored | None:
            stored = sent.answer()
            theirs = md5_in(entry.etag)
            if stored and stored.md5 and theirs and stored.md5 != theirs and not src.is_md5(entry):
                return stored._replace(md5=None)  # as right as any
            return stored

        return Sent(sent.fd, answer, sent.drop)

    def copy_within(self, entry: Entry, key: bytes, meta: Meta | None) -> Stored | None:
        """As :meth:`copy_from` itself, with ``meta`` in place of the object's own, or with that."""
        if meta is None:
            return self.copy_from(self, entry, key)
        if entry.key.endswith(b"/") or entry.size > self.profile.max_copy:
            return None
        self._check_key(key)
        headers = self._headers(key, meta) | {"x-amz-metadata-directive": "REPLACE"}
        return self._copy(key, {}, self._copy_source(entry) | headers)

    def _same_service(self, src: S3Storage) -> bool:
        def service(storage: S3Storage) -> tuple[object, ...]:
            at = storage.location
            who = at.anonymous or at.credentials or at.account
            return at.host, at.https, who, storage._region

        return service(self) == service(src)

    def _copy_source(self, entry: Entry) -> dict[str, str]:
        path = b"/" + self.bucket.encode() + b"/" + self.prefix + entry.key
        headers = {"x-amz-copy-source": encode_path(path)}
        if entry.etag:
            headers["x-amz-copy-source-if-match"] = f'"{entry.etag}"'
        return headers

    def _copy(
        self, key: bytes, query: dict[str, str | bytes], source: dict[str, str]
    ) -> Stored | None:
        return self._send_copy(key, query, source).answer()

    def _send_copy(
        self, key: bytes, query: dict[str, str | bytes], source: dict[str, str]
    ) -> Sent[Stored | None]:
        asked = self._wire.ask("PUT", self._path(key), query, source)

        def answer() -> Stored | None:
            try:
                found = asked.answer()
            except NotFound as exc:
                raise SourceChanged("removed since it was listed") from exc
            except ObjectError:
                return None  # not allowed, or not known here: let the bytes pass through us
            etag = self._wire.document(found).findtext("ETag", "").strip('"')
            md5 = None if self.profile.etag == OPAQUE else md5_of(etag, found.headers)
            return Stored(etag or None, md5)

        return Sent(asked.fd, answer, asked.drop)

    def begin_upload(self, key: bytes, entry: Entry, meta: Meta, crc32: bool = False) -> Upload:
        """See Storage.begin_upload."""
        return self._begin(key, entry, meta, crc32, alone=True)

    def begin_beside(self, key: bytes, entry: Entry, meta: Meta) -> Upload:
        """As :meth:`begin_upload`, where others may have an upload of the same key under way, too:
        theirs is left alone.
        """
        return self._begin(key, entry, meta, False, alone=False)

    def _begin(self, key: bytes, entry: Entry, meta: Meta, crc32: bool, alone: bool) -> Upload:
        self._check_key(key)
        if entry.size > self.profile.max_size:
            raise ObjectError(
                "size", f"this store holds objects of up to {self.profile.max_size} bytes"
            )
        headers = self._headers(key, meta)
        if alone:
            self._give_up_strays(key)
        told = UPLOAD if crc32 and self._vouching.may else {}
        try:
            upload_id, vouched = opened(self._wire, self._path(key), headers | told)
        except ObjectError as exc:
            if not self._vouching.refused(told, exc):
                raise
            upload_id, vouched = opened(self._wire, self._path(key), headers)
        wanted = max(part_size_for(entry.size), -(-entry.size // self.profile.max_parts))
        part_size = min(max(wanted, self.profile.min_part), self.profile.max_part)
        return Upload(entry, upload_id, part_size, vouched if told else "")

    def _give_up_strays(self, key: bytes) -> None:
        encoded = self.profile.url_encoding
        for full, stray in unfinished(self._wire, self._root, self.prefix + key, encoded):
            if full == self.prefix + key:
                with contextlib.suppress(ObjectError):  # who may store, may not always do that
                    self.abort(key, stray)

    def put_part(
        self,
        key: bytes,
        upload: Upload,
        number: int,
        chunks: Iterator[memoryview],
        sums: Sums = NO_SUMS,
    ) -> Stored:
        """See Storage.put_part."""
        query = {"partNumber": str(number), "uploadId": upload.upload_id}
        size = upload.span(number)[1]
        headers = {CRC32: sums.crc32} if upload.vouched and sums.crc32 else {}
        answer = self._wire.request("PUT", self._path(key), query, headers, chunks, size)
        return self._stored(answer, headers)

    def copy_part(self, src: Storage, key: bytes, upload: Upload, number: int) -> Stored | None:
        """See Storage.copy_part."""
        if not isinstance(src, S3Storage) or not self._same_service(src):
            return None
        start, size = upload.span(number)
        if size > self.profile.max_copy:
            return None
        source = src._copy_source(upload.entry)
        source["x-amz-copy-source-range"] = f"bytes={start}-{start + size - 1}"
        query: dict[str, str | bytes] = {"partNumber": str(number), "uploadId": upload.upload_id}
        return self._copy(key, query, source)

    def complete(self, key: bytes, upload: Upload, parts: Sequence[Part], meta: Meta) -> str | None:
        """See Storage.complete."""
        try:
            etag = retry(
                lambda: completed(self._wire, self._path(key), upload, parts),
                "completing a multipart upload",
            )
        except NotFound:
            # Perhaps an earlier try completed it and its answer was lost.
            there = self.stat(key)
            ours = combined_etag(part.md5 or md5_in(part.etag) for part in parts)
            ours = ours if self.profile.etag == AWS else None
            if there.size != upload.entry.size or not ours or there.etag != ours:
                raise
            return there.etag
        try:
            there = self.stat(key)
        except NotFound as exc:
            raise TransientError("the store does not show the object yet") from exc
        if there.size != upload.entry.size:
            raise TransientError(f"{there.size} bytes are there instead of {upload.entry.size}")
        return etag or there.etag

    def abort(self, key: bytes, upload_id: str) -> None:
        """See Storage.abort."""
        with contextlib.suppress(NotFound):
            retry(
                lambda: self._wire.request("DELETE", self._path(key), {"uploadId": upload_id}),
                "aborting a multipart upload",
            )

    def uploads(self) -> Iterator[tuple[bytes, str]]:
        """See Storage.uploads."""
        # That one says that it encodes, and does not.
        encoded = self.profile.url_encoding and not self._is("SeaweedFS")
        for full, upload_id in unfinished(self._wire, self._root, self.prefix, encoded):
            yield full[len(self.prefix) :], upload_id

    def sync(self) -> None:
        """Nothing to do: a store that answers 200 has kept the object."""

    def tidy(self) -> None:
        """Nothing stays behind: unfinished uploads are aborted one by one."""

    def _check_key(self, key: bytes) -> None:
        if problem := self.problem(key):
            raise ObjectError("key", problem)
        self._check_odd(key)

    def _check_odd(self, key: bytes) -> None:
        if problem := self._odd.problem(self.prefix + key):
            raise ObjectError("key", problem)
