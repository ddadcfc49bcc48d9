"""An object as S3 sends and takes it: its bytes, its headers, what its ETag means."""

from __future__ import annotations

import mimetypes
import re
import stat
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from adsmig.checksum import crc32_in, md5_in
from adsmig.errors import SourceChanged, TransientError
from adsmig.model import Entry, Meta
from adsmig.storage.base import Settings, Stored
from adsmig.storage.http import Headers
from adsmig.storage.response import Response
from adsmig.storage.s3sums import CRC32
from adsmig.storage.wire import Stream

_KEPT_HEADERS = ("content-type", "content-encoding", "content-disposition", "content-language",
                 "cache-control", "expires")  # fmt: skip
_USER = "x-amz-meta-"
SSE = "x-amz-server-side-encryption"
_OBJECT_TYPES = tuple(f"x-{name}-object-type" for name in ("oss", "cos", "obs", "bce"))
_DECIMAL = re.compile(r"(-?\d{1,12})(?:\.(\d{1,9})\d*)?")


class S3Body:
    """An object, or a span of it, being read; see storage.base.Body."""

    def __init__(self, stream: Stream, entry: Entry, size: int) -> None:
        self._stream, self._left = stream, size
        length = stream.headers.get("content-length")
        if length is not None and int(length) != size:
            raise SourceChanged(f"{length} bytes are there instead of {size}")
        self._open_ended = length is None
        if not size:
            self._expect_end()
        etag = stream.headers.get("etag", "").removeprefix("W/").strip('"')
        if etag and entry.etag and etag != entry.etag:
            raise SourceChanged("another version is there now")  # a store without If-Match
        whole = size == entry.size
        self.md5 = md5_of(etag, stream.headers) if whole else None
        self.crc32 = crc32_in(stream.headers.get(CRC32)) if whole else None
        self.meta = meta_of(stream.headers)

    def readinto(self, buffer: memoryview) -> int:
        """See Body.readinto."""
        if not self._left:
            return 0
        count = self._stream.readinto(buffer[: self._left])
        if not count:
            raise TransientError(f"the store sent {self._left} bytes too few")
        self._left -= count
        if not self._left:
            self._expect_end()
        return count

    def _expect_end(self) -> None:
        # GCS decodes what has Content-Encoding: gzip, and does not say how long that will be
        # (cloud.google.com/storage/docs/transcoding).
        if self._open_ended and self._stream.readinto(memoryview(bytearray(1))):
            raise SourceChanged("it is longer than it was listed, or the store sends it decoded")

    def rewind(self) -> bool:
        """See Body.rewind."""
        return False

    def __enter__(self) -> S3Body:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.__exit__()


def meta_of(headers: Headers) -> Meta:
    """What an answer's headers say is kept beside the content."""
    user = {
        name.removeprefix(_USER): value for name, value in headers.items() if name.startswith(_USER)
    }
    return Meta(
        _decimal_ns(user.get("mtime")),
        _permissions(user.get("mode")),
        _integer(user.get("uid")),
        _integer(user.get("gid")),
        {name: headers[name] for name in _KEPT_HEADERS if name in headers},
        user,
    )


def headers_for(key: bytes, meta: Meta) -> dict[str, str]:
    """The request headers that keep ``meta`` with an object."""
    headers = dict(meta.headers)
    # A way to send, which older Ceph keeps as if it were the content's; other stores refuse it.
    if "aws-chunked" in headers.get("content-encoding", ""):
        codings = [one.strip() for one in headers.pop("content-encoding").split(",")]
        if kept := ", ".join(one for one in codings if one not in ("", "aws-chunked")):
            headers["content-encoding"] = kept
    user = dict(meta.user)
    if meta.mtime_ns is not None:
        user.setdefault("mtime", f"{meta.mtime_ns // 10**9}.{meta.mtime_ns % 10**9:09d}")
    if meta.mode is not None:
        user.setdefault("mode", f"{meta.mode:04o}")
    if meta.uid is not None and meta.gid is not None:
        user.setdefault("uid", str(meta.uid))
        user.setdefault("gid", str(meta.gid))
    if "content-type" not in headers:
        guess = mimetypes.guess_type(key.decode(errors="replace").rpartition("/")[2])[0]
        headers["content-type"] = guess or "application/octet-stream"
    headers.update((_USER + name, value) for name, value in user.items())
    if meta.tags:
        headers["x-amz-tagging"] = meta.tags
    return headers


def user_size(headers: Mapping[str, str]) -> int:
    """Bytes of user metadata among request headers: names and values, as stores count them."""
    return sum(len(n) - len(_USER) + len(v) for n, v in headers.items() if n.startswith(_USER))


def chosen_headers(settings: Settings) -> dict[str, str]:
    """The request headers that give a new object the storage class and encryption of the job.

    docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html.
    """
    headers = {}
    if settings.storage_class:
        headers["x-amz-storage-class"] = settings.storage_class
    if settings.sse:
        headers[SSE] = settings.sse
        if settings.sse.startswith("aws:kms:"):
            headers[SSE] = "aws:kms"
            headers[f"{SSE}-aws-kms-key-id"] = settings.sse.removeprefix("aws:kms:")
    return headers


def md5_of(etag: str, headers: Headers) -> str | None:
    """The MD5 of the content, in lower case, where an answer's ETag is that.

    Not after multipart uploads (``-N``), nor with keys of KMS or of the customer's
    (docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html).
    """
    return md5_in(etag) if etag_tells(headers) else None


def etag_tells(headers: Headers) -> bool:
    """Whether an answer's ETag has to do with the content: not under keys of KMS or of the
    customer's, nor of an object that can be appended to (as OSS calls it in AppendObject).
    """
    if "kms" in headers.get(SSE, "") or f"{SSE}-customer-algorithm" in headers:
        return False
    return not any(headers.get(name, "").lower() == "appendable" for name in _OBJECT_TYPES)


def stored_of(answer: Response) -> Stored:
    """What an answer to a PUT says about what was stored."""
    etag = answer.etag
    return Stored(etag or None, md5_of(etag, answer.headers))


def http_time(text: str) -> int:
    """Nanoseconds of Unix time of a Last-Modified header; 0 for what is no time."""
    try:
        return int(parsedate_to_datetime(text).timestamp()) * 10**9
    except ValueError:
        return 0


def _decimal_ns(text: str | None) -> int | None:
    """Nanoseconds of decimal seconds, exactly; None for anything else."""
    match = _DECIMAL.fullmatch(text or "")
    return int(match[1]) * 10**9 + int((match[2] or "").ljust(9, "0")) if match else None


def _permissions(text: str | None) -> int | None:
    """Octal permission bits, of a whole mode as well, or one in decimal as s3fs keeps it; no set-id
    bits, which a bucket has no business to hand out.
    """
    for base in (8, 10):
        mode = _integer(text, base)
        kinds = (stat.S_IFREG, stat.S_IFDIR) if base == 10 else (stat.S_IFREG, stat.S_IFDIR, 0)
        if mode is not None and mode & ~0o7777 in kinds:
            return mode & 0o777
    return None


def _integer(text: str | None, base: int = 10) -> int | None:
    if text is None:
        return None
    try:
        value = int(text, base)
    except ValueError:
        return None
    return value if 0 <= value < 2**31 else None
