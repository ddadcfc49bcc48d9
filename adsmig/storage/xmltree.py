"""XML from a server that need not be friendly."""

from __future__ import annotations

from xml.etree import ElementTree

from adsmig.errors import AdsmigError, TransientError

MOST_MARKS = 2_000_000
"""Of ``<`` and ``=``: each stands for a tag or an attribute, of 100 bytes of memory and more.  A
page of a listing has some 20 tags for each of 1,000 keys, which may have 1,024 ``=`` each."""


def root_of(document: bytes) -> ElementTree.Element:
    """The root element.

    TransientError if it is no XML in UTF-8, which a broken connection can make it; AdsmigError for
    what no store sends: a document type, which can define entities that grow beyond all bounds or
    name files, and tags without end.
    """
    if b"\0" in document[:4] or document[:2] in (b"\xfe\xff", b"\xff\xfe"):
        raise TransientError("the store answered with broken XML (not in UTF-8)")
    if b"<!DOCTYPE" in document:
        raise AdsmigError("the store answered with XML that has a document type; is it a store?")
    if document.count(b"<") + document.count(b"=") > MOST_MARKS:
        raise AdsmigError("the store answered with XML of tags without end; is it a store?")
    try:
        return ElementTree.fromstring(document.lstrip())  # of blanks that kept the connection
    except (ElementTree.ParseError, ValueError, LookupError) as exc:
        raise TransientError(f"the store answered with broken XML ({exc})") from exc
