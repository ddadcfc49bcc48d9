"""The requests that begin and end a multipart upload.

docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from xml.etree import ElementTree

from adsmig.checksum import joined_crc32
from adsmig.errors import NotFound, ObjectError, TransientError
from adsmig.model import Part, Upload
from adsmig.retry import retry
from adsmig.storage.listpage import unquote
from adsmig.storage.s3sums import CRC32, FULL, KIND, vouched
from adsmig.storage.wire import Wire

log = logging.getLogger(__name__)

TRIES = 5
"""Of a page of uploads: what is not seen there stays, and is paid for."""


def opened(wire: Wire, path: bytes, headers: Mapping[str, str]) -> tuple[str, str]:
    """The id of a new upload, and what the store will make of its parts' CRC-32s (Upload.vouched)
    if ``headers`` have told it that each will come with one.
    """
    answer = wire.request("POST", path, {"uploads": ""}, headers)
    upload_id = wire.document(answer).findtext("UploadId")
    if not upload_id:
        raise TransientError("the store opened a multipart upload without an id")
    return upload_id, vouched(answer)


def unfinished(
    wire: Wire, root: bytes, prefix: bytes, encoded: bool = True
) -> Iterator[tuple[bytes, str]]:
    """Full key and id of the uploads whose full keys begin with ``prefix``; none where they cannot
    be listed, which is believed after some tries.

    ``encoded``: the store may be asked for escaped keys.
    docs.aws.amazon.com/AmazonS3/latest/API/API_ListMultipartUploads.html.
    """
    query: dict[str, str | bytes] = {"uploads": "", "prefix": prefix}
    if encoded:
        query["encoding-type"] = "url"
    seen = set[tuple[str, str]]()
    while True:
        try:
            document = retry(lambda: _listed(wire, root, query), "listing uploads", tries=TRIES)
        except (ObjectError, NotFound, TransientError) as exc:
            log.info("cannot list uploads: %s", exc)
            return  # not allowed to, or a store that cannot
        escaped = document.findtext("EncodingType") == "url"
        for item in document.iter("Upload"):
            name, upload_id = item.findtext("Key", ""), item.findtext("UploadId", "")
            key = unquote(name.encode()) if escaped else name.encode()
            if not key.startswith(prefix):
                key = name.encode()  # SeaweedFS says that it encodes, and does not
            if key.startswith(prefix):
                yield key, upload_id
        mark = document.findtext("NextKeyMarker", ""), document.findtext("NextUploadIdMarker", "")
        if document.findtext("IsTruncated") != "true" or not any(mark) or mark in seen:
            return
        seen.add(mark)
        query["key-marker"] = unquote(mark[0].encode()) if escaped else mark[0]
        query["upload-id-marker"] = mark[1]


def _listed(wire: Wire, root: bytes, query: Mapping[str, str | bytes]) -> ElementTree.Element:
    return wire.document(wire.request("GET", root, query))


def completed(wire: Wire, path: bytes, upload: Upload, parts: Sequence[Part]) -> str | None:
    """The ETag of the object that the parts became."""
    wanted = "".join(
        f"<Part><PartNumber>{part.number}</PartNumber><ETag>&quot;{escape(part.etag)}&quot;"
        f"</ETag>{_crc32(part) if upload.vouched else ''}</Part>"
        for part in parts
    )
    body = f"<CompleteMultipartUpload>{wanted}</CompleteMultipartUpload>".encode()
    headers = {}
    if upload.vouched == FULL:
        sizes = ((part.crc32, upload.span(part.number)[1]) for part in parts)
        if whole := joined_crc32(sizes):
            headers = {CRC32: whole, KIND: FULL}
    answer = wire.request("POST", path, {"uploadId": upload.upload_id}, headers, body)
    return wire.document(answer).findtext("ETag", "").strip('"') or None


def _crc32(part: Part) -> str:
    return f"<ChecksumCRC32>{part.crc32}</ChecksumCRC32>" if part.crc32 else ""
