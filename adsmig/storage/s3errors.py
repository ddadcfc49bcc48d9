"""What an answer that is no success stands for: which error, told apart by S3's own code."""

from __future__ import annotations

import html
import re
from urllib.parse import unquote

from adsmig.errors import (
    AdsmigError,
    Expired,
    NotFound,
    ObjectError,
    SourceChanged,
    StorageFull,
    Throttled,
    TransientError,
)
from adsmig.location import Credentials, one_line
from adsmig.storage.response import Response

_THROTTLED = {"SlowDown", "SlowDownRead", "SlowDownWrite", "ServiceUnavailable", "Throttling",
              "ThrottlingException", "RequestLimitExceeded", "TooManyRequests", "Busy"}  # fmt: skip
_TRANSIENT = {"InternalError", "RequestTimeout", "OperationAborted", "BadDigest",
              "XAmzContentChecksumMismatch",
              "IncompleteBody", "XMinioServerNotInitialized", "ServerBusy"}  # fmt: skip
_JOB = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "RequestTimeTooSkewed", "InvalidBucketName",
        "PermanentRedirect", "TokenRefreshRequired",
        "AccountProblem", "AllAccessDisabled", "InvalidToken",
        "InvalidTokenId"}  # fmt: skip
_EXPIRED = {"ExpiredToken", "SecurityTokenExpired"}  # the latter of OSS
_STYLE = {"SecondLevelDomainForbidden", "PathStyleDomainForbidden"}  # of OSS, and of COS
_CHANGED = {"PreconditionFailed", "ConditionalRequestConflict"}
_FULL = {"XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "InsufficientStorage",
         "QuotaExceeded"}  # fmt: skip
_SERVER = {*range(500, 600)} - {501}
"""Statuses that may pass: from 520 on, of proxies that the store did not answer.  501 is what it
cannot do at all.
"""
_BEFORE = re.compile(rb"\A\s*(?:<\?xml[^>]*>\s*)?")
"""What comes before a document: among it, blanks that were sent for as long as nothing was known
(API_CompleteMultipartUpload.html).
"""


def error_of(
    method: str, place: str, answer: Response, used: Credentials | None = None
) -> AdsmigError:
    """The error that an answer stands for, by its S3 code where it has one, else its status.

    ``place``: the host and the bucket that was asked; ``used``: what it was asked with.

    docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html.  The server's message is left out
    if the answer quotes one of those, escaped or not.
    """
    code, message = error_code(answer.body)
    text = answer.body.decode("utf-8", "replace")
    secrets = (used.access_key, used.secret_key, used.token) if used else ()
    keys = f"the keys {used.origin}".rstrip() if used else "the keys, of which none were given,"
    quotes = (text, html.unescape(text), unquote(text))
    if any(secret and secret in quote for secret in secrets for quote in quotes):
        message = ""
    if not code and answer.status == 403:
        code = "AccessDenied"  # a HEAD has no body
    said = f"{code or answer.status}" + (f" ({message})" if message else "")
    where = f"{place} answered {method} with {said}"
    if code in _FULL or answer.status == 507:
        return StorageFull(f"{where}; free some room")
    if code in _THROTTLED or answer.status in (429, 503):
        return Throttled(where)
    if code == "AuthorizationHeaderMalformed":
        return AdsmigError(
            f"{where}: it is of another region; name that with --src-region or --dst-region, and"
            f" check {keys}"
        )
    if code in _JOB:
        return AdsmigError(f"{where}; check the address, {keys} and the clock")
    if code in _STYLE:
        return AdsmigError(f"{where}: it takes BUCKET.HOST only; leave out --path-style")
    if code in _EXPIRED:
        return Expired(f"{where}; get new keys, then resume")
    if method == "HEAD" and answer.status == 400:
        return TransientError(where)  # without a body, it may be an expired token as well
    if "not a directory" in message or "is a directory" in message:
        return ObjectError("key", f"{where}: this store cannot hold a key beside one below it")
    if code in _TRANSIENT or answer.status == 408 or answer.status in _SERVER:
        return TransientError(where)
    if code == "NoSuchBucket":
        return AdsmigError(f"no such bucket: {place}; create it, or check the address")
    if answer.status == 404 or code in ("NoSuchKey", "NoSuchUpload"):
        return NotFound(where)
    if answer.status in (412, 416) or code in _CHANGED:
        # 416: the range lies past the end of what is there now.
        return SourceChanged("the object changed while it was read")
    if answer.status in (301, 307):
        return AdsmigError(
            f"{where}: the bucket lives at another endpoint or region; name that in the address, or"
            " with --src-region, --dst-region"
        )
    if answer.status in (401, 403):
        return ObjectError("denied", f"{where}; check {keys} and what they may do")
    return ObjectError(code or str(answer.status), where)


def error_code(body: bytes) -> tuple[str, str]:
    """The code and a short message of an S3 error document; empty strings if it is none."""
    if b"<Error" not in _BEFORE.sub(b"", body, count=1)[:400]:
        return "", ""
    code = re.search(rb"<Code>\s*([\w.]{1,80})\s*</Code>", body)
    message = re.search(rb"<Message>([^<]{1,200})", body)
    name = code[1].decode() if code else "Error"
    text = message[1].decode("utf-8", "replace").strip().rstrip(".") if message else ""
    if name in ("SignatureDoesNotMatch", "InvalidAccessKeyId", "AccessDenied"):
        text = ""
    return name, one_line(" ".join(text.split()))
