"""What a store says of the CRC-32s of objects; see adsmig.checksum.

docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html, API_CreateMultipartUpload.html.  Of the
stores that speak the protocol, some hold what they are sent against them, some pass over them and
some refuse them.  Only what a store's own answers confirm is built on.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping

from adsmig.checksum import Sums, Wanted, crc32_in
from adsmig.errors import AdsmigError, ObjectError
from adsmig.storage.base import Stored
from adsmig.storage.response import Response

CRC32 = "x-amz-checksum-crc32"
KIND, ALGORITHM = "x-amz-checksum-type", "x-amz-checksum-algorithm"
FULL, COMPOSITE = "FULL_OBJECT", "COMPOSITE"
TELL = {"x-amz-checksum-mode": "ENABLED"}
"""Has a GET or HEAD answered with the checksum that the store keeps."""
UPLOAD = {ALGORITHM: "CRC32", KIND: FULL}
"""Announces that each part will come with one."""


def vouched(answer: Response) -> str:
    """Upload.vouched of an upload that was opened."""
    if answer.header(ALGORITHM).upper() != "CRC32":
        return ""
    return FULL if answer.header(KIND).upper() == FULL else COMPOSITE


class Vouching:
    """Whether one store takes CRC-32s, as this process has come to know it.

    Safe to share among threads: what one of them learns a moment late only costs an MD5.
    """

    def __init__(self, may: bool) -> None:
        """``may``: the provider's profile does not speak against it."""
        self._sent: bool | None = None if may else False
        self._told: bool | None = None if may else False

    # What is written

    def wanted(self) -> Wanted:
        """See Storage.wanted.  Until the store has confirmed a CRC-32, an MD5 goes with it."""
        return Wanted(md5=not self._sent, crc32=self._sent is not False)

    @property
    def may(self) -> bool:
        """Whether the store may be sent any."""
        return self._sent is not False

    def headers(self, sums: Sums) -> dict[str, str]:
        """The request headers for content with these hashes."""
        headers = {}
        if sums.crc32 and self._sent is not False:
            headers[CRC32] = sums.crc32
        if sums.md5 and not (headers and self._sent):
            headers["content-md5"] = base64.b64encode(bytes.fromhex(sums.md5)).decode()
        return headers

    def confirmed(self, headers: Mapping[str, str], answer: Response, stored: Stored) -> Stored:
        """``stored``, with the CRC-32 that the answer to a write with these headers names, if they
        told one.
        """
        if CRC32 not in headers:
            return stored
        said = crc32_in(answer.header(CRC32))
        self._sent = said is not None
        return stored._replace(crc32=said)

    def refused(self, headers: Mapping[str, str], exc: AdsmigError) -> bool:
        """Whether a write was refused perhaps because it came with a CRC-32, and may be tried
        without.
        """
        told = CRC32 in headers or ALGORITHM in headers
        if self._sent is None and told and _of_request(exc):
            self._sent = False
            return True
        return False

    # What is read

    def asking(self) -> dict[str, str]:
        """The headers of a GET or HEAD of a whole object."""
        return {} if self._told is False else TELL

    def answered(self) -> None:
        """A request with those was answered as it should be."""
        if self._told is None:
            self._told = True

    def unasked(self, exc: AdsmigError) -> bool:
        """Whether a request with those was refused perhaps because of them."""
        if self._told is None and _of_request(exc):
            self._told = False
            return True
        return False


def _of_request(exc: AdsmigError) -> bool:
    """Whether it was refused for how it was asked, and not for what, or by whom."""
    return isinstance(exc, ObjectError) and exc.kind not in ("denied", "key")
