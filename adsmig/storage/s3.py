"""Object stores of the S3 protocol."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial

from adsmig.checksum import NO_SUMS, Sums, Wanted, crc32_in
from adsmig.errors import NotFound, ObjectError, SourceChanged, TransientError
from adsmig.location import Location
from adsmig.model import (
    EVERYTHING,
    Entry,
    KeyRange,
    Meta,
    Part,
    Upload,
    combined_etag,
    md5_in,
    parts_in,
)
from adsmig.providers import AWS, MANY, OPAQUE, VIRTUAL
from adsmig.retry import retry
from adsmig.storage import listing
from adsmig.storage.aws import credentials_for, default_region
from adsmig.storage.base import Identity, Prune, Settings, Storage, Stored, part_size_for
from adsmig.storage.http import Headers
from adsmig.storage.listpage import STANDARD
from adsmig.storage.oddkeys import OddKeys, holds
from adsmig.storage.s3delete import is_gateway, remove
from adsmig.storage.s3object import (
    SSE,
    S3Body,
    chosen_headers,
    etag_tells,
    headers_for,
    http_time,
    md5_of,
    meta_of,
    stored_of,
    user_size,
)
from adsmig.storage.s3pages import Pages
from adsmig.storage.s3sums import CRC32, UPLOAD, Vouching
from adsmig.storage.s3tags import Tags
from adsmig.storage.s3upload import completed, opened, unfinished
from adsmig.storage.signing import encode_path
from adsmig.storage.tls import context_for
from adsmig.storage.wire import Response, Stream, Wire

NO_PARTS = (200, 206, 400, 412, 416, 501)
"""What a HEAD of a part is answered with: the part, or in many ways that parts are not known. With
412 an object that was replaced says so, too; whoever reads it will notice."""


class S3Storage:
    """One bucket and prefix.  Listing, odd keys and signing live in modules beside this one.

    What providers do in ways of their own is in ``location.profile``, and nowhere else.

    ``destination``: objects are written as the settings choose, and their tags are not read.
    """

    keeps_files = False
    is_local = False
    tick_ns = 1_000_000_000

    def __init__(self, location: Location, settings: Settings, destination: bool = False) -> None:
        self.location = location
        self.prefix = location.path
        self.bucket = location.bucket
        self.profile = location.profile
        self._settings = settings
        self._chosen = chosen_headers(settings) if destination else {}
        # docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html: not under a key of KMS.
        encrypted = "kms" in self._chosen.get(SSE, "")
        self.etag_is_md5 = self.profile.etag != OPAQUE and not encrypted
        china = ".cn" if self._region.startswith("cn-") else ""
        host = location.host or f"s3.{self._region}.amazonaws.com{china}"
        # A certificate for *.s3.amazonaws.com does not cover a bucket name with dots.
        dotted = location.https and "." in location.bucket and self.profile.style != VIRTUAL
        self._path_style = location.path_style or dotted
        self._wire = Wire(
            host if self._path_style else f"{location.bucket}.{host}",
            region=self._region,
            credentials=credentials_for(location),
            connect_timeout_s=settings.connect_timeout_s,
            read_timeout_s=settings.read_timeout_s,
            routes=settings.routes,
            tls=context_for(settings.ca_bundle, settings.verify_tls) if location.https else None,
        )
        self._vouching = Vouching(self.profile.crc32)
        self._root = b"/" + location.bucket.encode() + b"/" if self._path_style else b"/"
        self._page = self._pages(ahead=False)
        self._tags = Tags(self._wire) if settings.tags and not destination else None
        # A name of this process's own: another may be trying the same.
        trial = self.prefix + f"{settings.staging}-{os.urandom(6).hex()}".encode()
        self._odd = OddKeys(partial(holds, self._wire, self._root, self._lists, trial), trial)

    def __repr__(self) -> str:
        return f"S3Storage({self.location})"

    @cached_property
    def _region(self) -> str:
        if self.location.region:
            return self.location.region
        return "us-east-1" if self.location.host else default_region(self.location)

    # Listing

    def list(self, keys: KeyRange, prune: Prune | None = None) -> Iterator[Entry]:
        """See Storage.list."""
        if keys.closed and keys.after:
            if not (prune and listing.Pruned(prune).holds(keys.after)):
                with contextlib.suppress(NotFound):
                    yield self.stat(keys.after)
            if keys.upto == keys.after:
                return
            keys = keys.rest(keys.after)
        if self._lists_by_directory():
            yield from listing.walk(self._page, self.prefix, keys, prune=prune)
            return
        listing.prove_order(self._page, self.prefix, keys.after)
        pages = self._pages(ahead=True)
        try:
            yield from listing.flat(pages, self.prefix, keys, prune=prune)
        finally:
            pages.close()

    def _lists_by_directory(self) -> bool:
        """Whether the store lists out of byte order.

        That cannot wait for the first page: from a store that lists by directory, a page after
        ``a-b`` is in order, and lacks ``a/b``.
        """
        return self._settings.by_directory or self._is("SeaweedFS")

    def _is(self, server: str) -> bool:
        """Whether a store of that name serves; asks it who it is, if no answer said yet."""
        if not self._wire.servers:
            self.prepare()
        return any(name.startswith(server) for name in tuple(self._wire.servers))

    def children(self, directory: bytes) -> Iterator[tuple[bytes, Entry | None]]:
        """What is right in a directory, '' or ending in a slash: the keys, relative as all are, of
        objects with their entries, of directories with None.  The directory's own marker is among
        them.  In ascending order, streamed; raises as :meth:`list`.
        """
        found = listing.level(
            self._page, self.prefix, directory, EVERYTHING, listing.PAGE, lambda _: True
        )
        for key, entry in found:
            yield key, entry and entry._replace(key=key)

    def holds_below(self, directory: bytes) -> bool:
        """Whether there is a key that begins with ``directory``, which ends in a slash.

        Tries again.
        """
        page = self._page(self.prefix + directory, b"", "", by_directory=False, limit=2)
        return bool(page.entries or page.prefixes)

    def probe(self, after: bytes) -> bytes | None:
        """See Storage.probe."""
        way = listing.walk if self._lists_by_directory() else listing.flat
        for entry in way(self._page, self.prefix, KeyRange(after), limit=4):
            return entry.key
        return None

    def _pages(self, ahead: bool) -> Pages:
        return Pages(self._wire, self._root, self.profile, str(self.location), ahead)

    def _lists(self, full: bytes) -> bool:
        """Whether a listing shows exactly this full key."""
        page = self._page(full, b"", "", by_directory=False, limit=1)
        return any(entry.key == full for entry in page.entries)

    def stat(self, key: bytes) -> Entry:
        """See Storage.stat."""
        self._check_name(key)
        if key.endswith(b"/") and self._lists_by_directory():
            return self._listed(key)  # SeaweedFS has a HEAD of any directory succeed
        return self._headed(key)[0]

    def look(self, key: bytes) -> tuple[Entry, Meta]:
        """As :meth:`stat`, with what is kept beside the content, but for tags."""
        self._check_name(key)
        if key.endswith(b"/") and self._lists_by_directory():
            return self._listed(key), self._headed(key)[1]
        return self._headed(key)

    def _check_name(self, key: bytes) -> None:
        if problem := self.problem(key):  # a store that is asked may answer anything
            raise NotFound(f"no such object: {key!r}; {problem}")

    def _headed(self, key: bytes) -> tuple[Entry, Meta]:
        answer = retry(lambda: self._wire.request("HEAD", self._path(key)), "looking up an object")
        kind = answer.header("x-amz-storage-class")
        entry = Entry(
            key,
            int(answer.header("content-length", "0")),
            None,
            http_time(answer.header("last-modified")),
            answer.etag or None,
            "" if kind == STANDARD else kind,
        )
        return entry, meta_of(answer.headers)

    def _listed(self, key: bytes) -> Entry:
        """As stat, from a listing."""
        full = self.prefix + key
        for entry in self._page(full, b"", "", by_directory=True, limit=1).entries:
            if entry.key == full:
                return entry._replace(key=key)
        raise NotFound(f"no such object: {key!r}")

    # Reading

    def read(self, entry: Entry, start: int = 0, size: int | None = None) -> S3Body:
        """See Storage.read."""
        end = entry.size if size is None else start + size
        headers = _if_match(entry)
        part = start > 0 or end < entry.size
        if part:
            headers["range"] = f"bytes={start}-{end - 1}"
        try:
            stream = self._open(entry.key, headers, {} if part else self._vouching.asking())
        except NotFound as exc:
            raise SourceChanged("removed since it was listed") from exc
        try:
            if part and (
                stream.status != 206
                or not stream.headers.get("content-range", "").startswith(f"bytes {start}-")
            ):
                raise ObjectError("range", "the store gives another range than was asked for")
            body = S3Body(stream, entry, end - start)
            if self.profile.etag == OPAQUE:
                body.md5 = None
            if not self.profile.crc32:
                body.crc32 = None
            if not part:
                body.meta = self._tagged(body.meta, entry, stream.headers)
            return body
        except BaseException:
            stream.__exit__()
            raise

    def _open(self, key: bytes, headers: dict[str, str], asking: dict[str, str]) -> Stream:
        """A GET that asks for a checksum as well, where that is not refused."""
        try:
            stream = self._wire.open(self._path(key), headers | asking)
        except ObjectError as exc:
            if not (asking and self._vouching.unasked(exc)):
                raise
            return self._wire.open(self._path(key), headers)
        if asking:
            self._vouching.answered()
        return stream

    def crc32(self, entry: Entry) -> str | None:
        """See Storage.crc32."""
        asking = self._vouching.asking()
        if not asking:
            return None
        path, headers = self._path(entry.key), _if_match(entry) | asking
        try:
            answer = self._wire.request("HEAD", path, {}, headers, expect=NO_PARTS)
        except (NotFound, ObjectError):
            return None
        return crc32_in(answer.header(CRC32)) if answer.status < 300 else None

    def wanted(self) -> Wanted:
        """See Storage.wanted."""
        return self._vouching.wanted()

    def part_size(self, entry: Entry, sure: bool = False) -> int | None:
        """See Storage.part_size."""
        count = parts_in(entry.etag) if self.profile.etag == AWS else 0
        size = self._size_of_part(entry, 1, count) if count else 0
        if not size or -(-entry.size // size) != count:
            return None
        for number in range(2, count + 1 if sure else 0):
            left = entry.size - (number - 1) * size
            if self._size_of_part(entry, number, count) != min(size, left):
                return None
        return size

    def _size_of_part(self, entry: Entry, number: int, count: int) -> int:
        """0 if the store does not tell (API_HeadObject.html), or its ETag is made of no MD5s."""
        query: dict[str, str | bytes] = {"partNumber": str(number)}
        path, headers = self._path(entry.key), _if_match(entry)
        try:
            answer = self._wire.request("HEAD", path, query, headers, expect=NO_PARTS)
        except (NotFound, ObjectError):
            return 0
        if answer.status >= 400 or not etag_tells(answer.headers):
            return 0
        if answer.header("x-amz-mp-parts-count") == str(count):
            return int(answer.header("content-length", "0"))
        return entry.size if count == 1 else 0

    def meta(self, entry: Entry) -> Meta:
        """See Storage.meta."""
        try:
            answer = self._wire.request("HEAD", self._path(entry.key), {}, _if_match(entry))
        except NotFound as exc:
            raise SourceChanged("removed since it was listed") from exc
        return self._tagged(meta_of(answer.headers), entry, answer.headers)

    def _tagged(self, meta: Meta, entry: Entry, headers: Headers) -> Meta:
        if not self._tags:
            return meta
        return replace(meta, tags=self._tags.of(self._path(entry.key), headers))

    # Writing

    def write(
        self,
        key: bytes,
        chunks: Iterator[memoryview],
        size: int,
        meta: Meta,
        sums: Sums = NO_SUMS,
    ) -> Stored:
        """See Storage.write."""
        self._check_key(key)
        headers = self._headers(key, meta) | self._vouching.headers(sums)
        try:
            answer = self._wire.request("PUT", self._path(key), {}, headers, chunks, size)
        except NotFound as exc:
            raise ObjectError("key", f"the store does not take this key: {exc}") from exc
        except ObjectError as exc:
            if self._vouching.refused(headers, exc):
                raise TransientError(str(exc), immediate=True) from exc
            raise
        if key.endswith(b"/") and size and self.stat(key).size != size:
            raise ObjectError("key", "this store keeps no content under a key that ends in a slash")
        stored = self._stored(answer, headers)
        if CRC32 in headers and not stored.crc32 and "content-md5" not in headers:
            raise TransientError("the store does not confirm CRC-32s as it did before")
        return stored

    def _headers(self, key: bytes, meta: Meta) -> dict[str, str]:
        """The request headers of a new object."""
        headers = headers_for(key, meta)
        size, most = user_size(headers), self.profile.max_meta
        if most and size > most:
            raise ObjectError("metadata", f"user metadata of {size} bytes; it takes up to {most}")
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
        if not isinstance(src, S3Storage) or not self._same_service(src):
            return None
        if entry.key.endswith(b"/"):
            return None  # a directory, to stores that have such, and nothing that can be copied
        if entry.size > self.profile.max_copy:
            return None
        self._check_key(key)
        return self._copy(key, {}, src._copy_source(entry) | self._chosen)

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
        try:
            answer = self._wire.request("PUT", self._path(key), query, source)
        except NotFound as exc:
            raise SourceChanged("removed since it was listed") from exc
        except ObjectError:
            return None  # not allowed, or not known here: let the bytes pass through us
        etag = self._wire.document(answer).findtext("ETag", "").strip('"')
        md5 = None if self.profile.etag == OPAQUE else md5_of(etag, answer.headers)
        return Stored(etag or None, md5)

    def begin_upload(self, key: bytes, entry: Entry, meta: Meta, crc32: bool = False) -> Upload:
        """See Storage.begin_upload."""
        self._check_key(key)
        if entry.size > self.profile.max_size:
            raise ObjectError(
                "size", f"this store holds objects of up to {self.profile.max_size} bytes"
            )
        headers = self._headers(key, meta)
        encoded = self.profile.url_encoding
        for full, stray in unfinished(self._wire, self._root, self.prefix + key, encoded):
            if full == self.prefix + key:
                self.abort(key, stray)
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

    def prepare(self) -> None:
        """Makes sure that the bucket is there and may be listed; says so soon if not."""
        self._page(self.prefix, b"", "", by_directory=False, limit=1, tries=3)

    def identity(self) -> Identity | None:
        """None: a bucket is known by its name."""
        return None

    def sync(self) -> None:
        """Nothing to do: a store that answers 200 has kept the object."""

    def tidy(self) -> None:
        """Nothing stays behind: unfinished uploads are aborted one by one."""

    def release(self) -> None:
        """Nothing: to connect anew takes no more than to take over what others have."""

    def close(self) -> None:
        """See Storage.close."""
        self._wire.close()

    # Inside

    def _path(self, key: bytes) -> bytes:
        return self._root + self.prefix + key

    def problem(self, key: bytes) -> str:
        """See Storage.problem."""
        full = self.prefix + key
        if not full:
            return "an object needs a name"
        if len(full) > self.profile.max_key:
            return f"a key of {len(full)} bytes; stores hold up to {self.profile.max_key}"
        if full.startswith(b"/") and not self.profile.leading_slash:
            return "this store holds no key that begins with a slash"
        try:
            full.decode()
        except UnicodeDecodeError:
            return "the name is not UTF-8, as keys of object stores are"
        return ""

    def _check_key(self, key: bytes) -> None:
        if problem := self.problem(key):
            raise ObjectError("key", problem)
        self._check_odd(key)

    def _check_odd(self, key: bytes) -> None:
        if problem := self._odd.problem(self.prefix + key):
            raise ObjectError("key", problem)


def _if_match(entry: Entry) -> dict[str, str]:
    """The header by which a store refuses to read a later version than the one listed."""
    return {"if-match": f'"{entry.etag}"'} if entry.etag else {}
