"""Deleting objects: many with one request, one by one where that cannot be.

docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html.  An answer of 200 still names the
keys that could not be removed.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from html import escape
from xml.etree import ElementTree

from adsmig.errors import BLAMELESS, AdsmigError, NotFound, ObjectError, TransientError
from adsmig.retry import retry
from adsmig.storage.response import Response
from adsmig.storage.wire import Wire

MOST = 1000
"""Keys in one request."""

_FRAGILE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufffe\uffff]")


def remove(
    wire: Wire,
    root: bytes,
    keys: Iterable[bytes],
    check: Callable[[bytes], None],
    together: bool,
) -> dict[bytes, str]:
    """Removes the objects of these full keys; those that stay, with the reasons.  Tries again.

    ``root`` is the path of the bucket.  ``check`` raises NotFound for a key that there is nothing
    to do about, ObjectError for one that must not be sent.  ``together`` lets many go with one
    request.  Raises what no object is to blame for, as a store that cannot be reached.
    """
    many, alone, problems = list[bytes](), list[bytes](), dict[bytes, str]()
    for key in dict.fromkeys(keys):
        try:
            check(key)
        except NotFound:
            continue
        except BLAMELESS:
            raise
        except (ObjectError, TransientError) as exc:
            problems[key] = str(exc)
            continue
        (many if together and survives_xml(key) else alone).append(key)
    if len(many) == 1:
        alone.append(many.pop())
    for start in range(0, len(many), MOST):
        chunk = many[start : start + MOST]
        try:
            problems |= _remove_together(wire, root, chunk)
        except (ObjectError, NotFound) as exc:
            if isinstance(exc, ObjectError) and exc.kind == "denied":
                problems |= dict.fromkeys(chunk, str(exc))
            else:  # a request, or a key in it, that this store does not take
                alone += chunk
    for key in alone:
        try:
            retry(partial(wire.request, "DELETE", root + key), "deleting an object")
        except NotFound:
            continue
        except BLAMELESS:
            raise
        except (ObjectError, TransientError) as exc:
            problems[key] = str(exc)
    return problems


def survives_xml(key: bytes) -> bool:
    """Whether every reader of XML takes this key out of a document as it was put in.

    XML 1.0 cannot hold most control characters (www.w3.org/TR/xml/#charsets), has ends of lines of
    its own (#sec-line-ends), and some readers trim the text that they find.
    """
    try:
        text = key.decode()
    except UnicodeDecodeError:
        return False
    return text == text.strip() and not _FRAGILE.search(text)


def is_gateway(wire: Wire, root: bytes) -> bool:
    """Whether a MinIO serves the files of another system: such a one has no versions."""
    try:
        retry(partial(wire.request, "GET", root, {"versioning": ""}), "asking for versions")
    except ObjectError as exc:
        return exc.kind == "NotImplemented"
    except NotFound:
        pass
    return False


def _remove_together(wire: Wire, root: bytes, keys: Sequence[bytes]) -> dict[bytes, str]:
    """As :func:`remove`, with one request; an ObjectError where the store does not take it."""
    left, problems = keys, dict[bytes, str]()

    def unit() -> None:
        nonlocal left
        errors = _request(wire, root, left)
        problems.update((k, str(exc)) for k, exc in errors.items() if isinstance(exc, ObjectError))
        left = [key for key, exc in errors.items() if isinstance(exc, TransientError)]
        for exc in errors.values():
            if not isinstance(exc, (ObjectError, NotFound)):
                raise exc

    try:
        retry(unit, f"deleting {len(keys)} objects")
    except BLAMELESS:
        raise
    except TransientError as exc:
        problems |= dict.fromkeys(left, str(exc))
    return problems


def _request(wire: Wire, root: bytes, keys: Sequence[bytes]) -> dict[bytes, AdsmigError]:
    """Asks once; the errors that the answer names."""
    objects = "".join(f"<Object><Key>{escape(key.decode())}</Key></Object>" for key in keys)
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Quiet>true</Quiet>{objects}</Delete>"
    ).encode()
    digest = hashlib.md5(body, usedforsecurity=False).digest()
    headers = {
        "content-md5": base64.b64encode(digest).decode(),
        "content-type": "application/xml",
    }
    answer = wire.request("POST", root, {"delete": ""}, headers, body)
    if not answer.body.strip():
        return {}  # as OSS answers who asked it to be quiet
    document = wire.document(answer)
    if document.tag != "DeleteResult":
        raise ObjectError("answer", f"the store answered a deletion with <{document.tag}>")
    errors = {
        item.findtext("Key", "").encode(): wire.error(
            "DELETE", Response(answer.status, answer.headers, ElementTree.tostring(item))
        )
        for item in document.iter("Error")
    }
    if not errors.keys() <= set(keys):
        raise ObjectError("answer", "the store names keys that it was not asked to delete")
    return errors
