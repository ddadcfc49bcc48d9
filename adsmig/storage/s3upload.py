"""The requests that begin and end a multipart upload.

docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

from adsmig.errors import NotFound, ObjectError, TransientError
from adsmig.model import Part
from adsmig.storage.listpage import unquote
from adsmig.storage.wire import Wire


def opened(wire: Wire, path: bytes, headers: Mapping[str, str]) -> str:
    """The id of a new upload."""
    answer = wire.request("POST", path, {"uploads": ""}, headers)
    upload_id = wire.document(answer).findtext("UploadId")
    if not upload_id:
        raise TransientError("the store opened a multipart upload without an id")
    return upload_id


def strays(wire: Wire, root: bytes, key: bytes, encoded: bool = True) -> list[str]:
    """The ids of the uploads of exactly this full key; none where they cannot be listed.

    ``encoded``: the store may be asked for escaped keys.
    """
    query: dict[str, str | bytes] = {"uploads": "", "prefix": key}
    if encoded:
        query["encoding-type"] = "url"
    try:
        answer = wire.request("GET", root, query)
    except (ObjectError, NotFound):
        return []  # not allowed to list uploads, or a store that cannot
    try:
        document = wire.document(answer)
    except TransientError:
        return []  # no such list, but an empty page
    escaped = document.findtext("EncodingType") == "url"
    found = []
    for item in document.iter("Upload"):
        name = item.findtext("Key", "")
        # SeaweedFS says that it encodes, and does not.
        if key in (name.encode(), unquote(name.encode()) if escaped else b""):
            found.append(item.findtext("UploadId", ""))
    return found


def completed(wire: Wire, path: bytes, upload_id: str, parts: Sequence[Part]) -> str | None:
    """The ETag of the object that the parts became."""
    wanted = "".join(
        f"<Part><PartNumber>{part.number}</PartNumber><ETag>&quot;{escape(part.etag)}&quot;"
        "</ETag></Part>"
        for part in parts
    )
    body = f"<CompleteMultipartUpload>{wanted}</CompleteMultipartUpload>".encode()
    answer = wire.request("POST", path, {"uploadId": upload_id}, {}, body)
    return wire.document(answer).findtext("ETag", "").strip('"') or None
