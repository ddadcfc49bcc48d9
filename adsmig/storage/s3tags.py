"""The tags of objects, which take a request of their own to read."""

from __future__ import annotations

from urllib.parse import quote

from adsmig.errors import NotFound, ObjectError, SourceChanged
from adsmig.storage.http import Headers
from adsmig.storage.wire import Wire

_UNKNOWN = {"NotImplemented", "MethodNotAllowed", "501", "405"}


class Tags:
    """Reads them, as seldom as can be.

    A store tells their number with an object, if there are any, and if the keys may read tags
    (docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html).  So nothing is concluded from its
    absence before it was once there.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._has_any, self._counts = True, False

    def of(self, path: bytes, headers: Headers) -> str:
        """Those of the object at ``path``, as ``x-amz-tagging`` has them.

        ``headers`` are what came with the object.  '' where the store knows no tags; an ObjectError
        where they may not be read.
        """
        count = headers.get("x-amz-tagging-count")
        self._counts |= count is not None
        if count == "0" or (count is None and (self._counts or not self._has_any)):
            return ""
        try:
            answer = self._wire.request("GET", path, {"tagging": ""})
        except NotFound as exc:
            if count:
                raise SourceChanged("removed since it was listed") from exc
            return ""
        except ObjectError as exc:
            if count or exc.kind not in _UNKNOWN:
                raise
            self._has_any = False
            return ""
        return "&".join(
            f"{quote(tag.findtext('Key', ''), safe='')}={quote(tag.findtext('Value', ''), safe='')}"
            for tag in self._wire.document(answer).iter("Tag")
        )
