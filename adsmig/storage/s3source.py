"""A bucket as a source: what is listed, looked up and read."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from itertools import chain

from adsmig.checksum import Wanted, crc32_in, parts_in
from adsmig.errors import BLAMELESS, NotFound, ObjectError, SourceChanged, TransientError
from adsmig.location import Location
from adsmig.model import EVERYTHING, Entry, KeyRange, Meta
from adsmig.providers import AWS, OPAQUE, VIRTUAL
from adsmig.retry import retry
from adsmig.storage import listing
from adsmig.storage.aws import credentials_for, default_region
from adsmig.storage.base import GONE, RESIZED, Body, Identity, Prune, Settings, Storage
from adsmig.storage.http import Headers
from adsmig.storage.listpage import STANDARD
from adsmig.storage.response import Response
from adsmig.storage.s3object import S3Body, etag_tells, http_time, meta_of
from adsmig.storage.s3pages import Pages
from adsmig.storage.s3sums import CRC32, TELL, Vouching
from adsmig.storage.s3tags import Tags
from adsmig.storage.several import Sent
from adsmig.storage.tls import context_for
from adsmig.storage.wire import Asked, Stream, Wire

log = logging.getLogger(__name__)

NO_PARTS = (200, 206, 400, 412, 416, 501)
"""What a HEAD of a part is answered with: the part, or in many ways that parts are not known. With
412 an object that was replaced says so, too; whoever reads it will notice."""


class S3Source:
    """One bucket and prefix.  Listing, odd keys and signing live in modules beside this one.

    What providers do in ways of their own is in ``location.profile``, and nowhere else.

    ``tags``: objects are read with theirs.
    """

    keeps_files = False
    names_ahead = 0
    is_local = False
    tick_ns = 1_000_000_000

    def __init__(
        self, location: Location, settings: Settings, tags: bool, side: str = "SRC"
    ) -> None:
        self.location = location
        self.prefix = location.path
        self.bucket = location.bucket
        self.profile = location.profile
        self._settings = settings
        self.etag_is_md5 = self.profile.etag != OPAQUE
        china = ".cn" if self._region.startswith("cn-") else ""
        host = location.host or f"s3.{self._region}.amazonaws.com{china}"
        # A certificate for *.s3.amazonaws.com does not cover a bucket name with dots.
        dotted = location.https and "." in location.bucket and self.profile.style != VIRTUAL
        self._path_style = location.path_style or dotted
        self._wire = Wire(
            host if self._path_style else f"{location.bucket}.{host}",
            region=self._region,
            credentials=credentials_for(location, side),
            connect_timeout_s=settings.connect_timeout_s,
            read_timeout_s=settings.read_timeout_s,
            routes=settings.routes,
            tls=context_for(settings.ca_bundle, settings.verify_tls) if location.https else None,
            bucket=location.bucket if self._path_style else "",
        )
        self._vouching = Vouching(self.profile.crc32)
        self._root = b"/" + location.bucket.encode() + b"/" if self._path_style else b"/"
        self._page = self._pages(ahead=False)
        self._tags = Tags(self._wire) if tags else None

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
        return chain.from_iterable(self._listings(keys, prune))

    def _listings(self, keys: KeyRange, prune: Prune | None) -> Iterator[Iterable[Entry]]:
        """What there is to list, one after the other; each is read to its end, or none after it."""
        if keys.closed and keys.after:
            if not (prune and listing.Pruned(prune).holds(keys.after)):
                with contextlib.suppress(NotFound):
                    yield (self._seen(keys.after),)
            if keys.upto == keys.after:
                return
            keys = keys.rest(keys.after)
        if self._lists_by_directory():
            yield listing.walk(self._page, self.prefix, keys, prune=prune)
            return
        listing.prove_order(self._page, self.prefix, keys.after)
        pages = self._pages(ahead=True)
        try:
            yield listing.flat(pages, self.prefix, keys, prune=prune)
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
        page = listing.some(self._page, self.prefix + directory, b"", by_directory=False, limit=2)
        return bool(page.entries or page.prefixes)

    def probe(self, after: bytes, guess: bool = False) -> bytes | None:
        """See Storage.probe."""
        way = listing.walk if self._lists_by_directory() else listing.flat
        for entry in way(self._page, self.prefix, KeyRange(after), limit=4):
            return entry.key
        return None

    def _pages(self, ahead: bool) -> Pages:
        return Pages(self._wire, self._root, self.profile, str(self.location), ahead)

    def _lists(self, full: bytes) -> bool:
        """Whether a listing shows exactly this full key."""
        page = listing.some(self._page, full, b"", by_directory=False, limit=1)
        return any(entry.key == full for entry in page.entries)

    def stat(self, key: bytes) -> Entry:
        """See Storage.stat."""
        self._check_name(key)
        if key.endswith(b"/") and self._lists_by_directory():
            # SeaweedFS has a HEAD of any directory succeed.
            if listing.is_left_over(entry := self._listed(key)):
                raise NotFound(f"no such object: {key!r}")
            return entry
        return self._headed(key)[0]

    def missing(self, key: bytes, size: int, src: Storage, its_key: bytes) -> str:
        """See Storage.missing."""
        try:
            there = self.stat(key)
        except NotFound:
            return GONE
        return "" if there.size == size else RESIZED

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
        path = self._path(key)

        def unit() -> Response:
            answer = self._wire.request("HEAD", path, expect=(200, 400))
            if answer.status == 400:
                # It has no body that could tell a key which the store does not take from an expired
                # token.
                self._wire.request("GET", path, headers={"range": "bytes=0-0"}, expect=(200, 206))
                raise self._wire.error("HEAD", answer)
            return answer

        answer = retry(unit, "looking up an object")
        length = answer.header("content-length")  # may be left out (RFC 9110, section 8.6)
        kind = answer.header("x-amz-storage-class")
        entry = Entry(
            key,
            int(length) if length else self._listed(key).size,
            None,
            http_time(answer.header("last-modified")),
            answer.etag or None,
            "" if kind == STANDARD else kind,
        )
        return entry, meta_of(answer.headers)

    def _seen(self, key: bytes) -> Entry:
        """As stat; from a listing where that is refused, for who may list an object need not be let
        look at it, nor the reverse.
        """
        try:
            return self.stat(key)
        except BLAMELESS:
            raise
        except (ObjectError, TransientError) as exc:
            log.info("%r cannot be looked at, and is listed: %s", key, exc)
            return self._listed(key)

    def _listed(self, key: bytes) -> Entry:
        """As stat, from a listing."""
        full = self.prefix + key
        for entry in listing.some(self._page, full, b"", by_directory=True, limit=1).entries:
            if entry.key == full:
                return entry._replace(key=key)
        raise NotFound(f"no such object: {key!r}")

    # Reading

    def read(self, entry: Entry, start: int = 0, size: int | None = None) -> Body:
        """See Storage.read."""
        return self._ask(entry, start, entry.size if size is None else start + size).answer()

    def ask(self, entry: Entry) -> Sent[Body]:
        """See Overlapping.ask."""
        return self._ask(entry, 0, entry.size)

    def _ask(self, entry: Entry, start: int, end: int) -> Sent[Body]:
        headers = _if_match(entry)
        part = start > 0 or end < entry.size
        if part:
            headers["range"] = f"bytes={start}-{end - 1}"
        else:
            headers |= self._vouching.asking()
        asked = self._wire.ask("GET", self._path(entry.key), {}, headers)

        def answer() -> S3Body:
            stream = self._opened(entry, headers, asked)
            try:
                return self._body(entry, start, end, part, stream)
            except BaseException:
                stream.__exit__()
                raise

        return Sent(asked.fd, answer, asked.drop)

    def _opened(self, entry: Entry, headers: dict[str, str], asked: Asked) -> Stream:
        """The answer to a GET, which may have asked for a checksum; asked anew without, where
        that is refused.
        """
        asking = headers.keys() & TELL.keys()
        try:
            try:
                stream = asked.open()
            except ObjectError as exc:
                if not (asking and self._vouching.unasked(exc)):
                    raise
                return self._wire.open(self._path(entry.key), _if_match(entry))
        except NotFound as exc:
            raise SourceChanged("removed since it was listed") from exc
        if asking:
            self._vouching.answered()
        return stream

    def _body(self, entry: Entry, start: int, end: int, part: bool, stream: Stream) -> S3Body:
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
        headers = self._looked_at(entry).headers
        return self._tagged(meta_of(headers), entry, headers)

    def is_md5(self, entry: Entry) -> bool:
        """Whether an ETag that looks like an MD5 is one, by its headers; raises as :meth:`read`."""
        return etag_tells(self._looked_at(entry).headers)

    def _looked_at(self, entry: Entry) -> Response:
        try:
            answer = self._wire.request("HEAD", self._path(entry.key), {}, _if_match(entry))
        except NotFound as exc:
            raise SourceChanged("removed since it was listed") from exc
        if answer.etag and entry.etag and answer.etag != entry.etag:
            raise SourceChanged("another version is there now")  # a store without If-Match
        return answer

    def _tagged(self, meta: Meta, entry: Entry, headers: Headers) -> Meta:
        if not self._tags:
            return meta
        return replace(meta, tags=self._tags.of(self._path(entry.key), headers))

    def prepare(self) -> None:
        """Makes sure that the bucket is there and may be listed; says so soon if not."""
        self._page(self.prefix, b"", "", by_directory=False, limit=1, tries=3)

    def identity(self) -> Identity | None:
        """None: a bucket is known by its name."""
        return None

    def release(self) -> None:
        """Nothing: a connection is the calling thread's only while it uses it."""

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


def _if_match(entry: Entry) -> dict[str, str]:
    """The header by which a store refuses to read a later version than the one listed."""
    return {"if-match": f'"{entry.etag}"'} if entry.etag else {}
