"""Answers to ListObjects: XML in, entries out, exactly as the store wrote them.

Both versions are read (docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html, and
API_ListObjects.html for the one before).  Whether pages follow on each other is looked at by
:mod:`adsmig.storage.listing`.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import repeat
from typing import NamedTuple, TypeVar
from urllib.parse import unquote_to_bytes
from xml.etree import ElementTree

from adsmig.errors import ListingError, TransientError
from adsmig.model import Entry, entries_of
from adsmig.storage.xmltree import root_of

MAX_KEY = 8192
"""Bytes; stores take 1,024 (docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html)."""

STANDARD = "STANDARD"
"""The storage class of an object where nobody chose one; an Entry leaves it out."""


V = TypeVar("V")


class Page(NamedTuple):
    """One answer; keys and prefixes are full, as the store has them."""

    entries: list[Entry]
    prefixes: list[bytes]
    truncated: bool
    token: str
    """Where to go on: a continuation token, or of version 1 the next marker, a full key."""
    of_token: str = ""
    """The token that the store was asked to go on from, as it says; '' if it does not."""
    of_after: bytes = b""
    """The key that it was asked to start after, as it stands there, perhaps encoded."""


def parse(document: bytes, version: int = 2) -> Page:
    """The page in an XML answer to ListObjects of that version.

    TransientError if it is none; ListingError for a next marker that does not lead on, and for what
    no object can be; AdsmigError for what no store sends (xmltree.root_of).
    """
    columns, rest = _columns(document)
    root = _root(rest)
    space, brace, name = root.tag.rpartition("}")
    if name != "ListBucketResult":
        raise TransientError(f"the store answered a listing with <{name}>")
    space += brace
    # Only if the answer says that it encoded: some stores ignore the wish.
    encoded = root.findtext(space + "EncodingType") == "url"
    entries = _entries(columns, encoded)
    prefixes = []
    for item in root:
        if item.tag == space + "Contents":
            entries.append(_entry(item, space, encoded))
        elif item.tag == space + "CommonPrefixes":
            if not (directory := _key(item, space + "Prefix", encoded)):
                raise TransientError("the store listed a directory without a name")
            prefixes.append(directory)
    more = root.findtext(space + "IsTruncated")
    if more not in ("true", "false"):
        raise ListingError("the store does not say whether a listing goes on")
    if version == 2:
        token = root.findtext(space + "NextContinuationToken") or ""
        told, count = root.findtext(space + "KeyCount") or "", len(entries) + len(prefixes)
        # Less than there are is what Ceph says, which leaves out directories.
        if told.isdecimal() and int(told) > count:
            raise TransientError(f"the store lists {count} keys in a page of {told}")
    else:
        token = ""
        if more == "true":  # kept as it is, even if it is no text
            markers = [_key(root, space + "NextMarker", way) for way in (encoded, False)]
            last = _next_marker(entries, prefixes, *markers)
            token = last.decode("utf-8", "surrogateescape")
    of_token = (root.findtext(space + "ContinuationToken") or "") if version == 2 else ""
    of_after = _key(root, space + ("StartAfter" if version == 2 else "Marker"), False)
    return Page(entries, prefixes, more == "true", token, of_token, of_after)


_CONTROL = re.compile(
    rb"&#(?:x0*([0-9A-Fa-f]{1,2})|0*([0-9]{1,2}));|([\x01-\x08\x0b\x0c\x0e-\x1f])"
)
_STAND_INS = range(0xFDD0, 0xFDF0)
"""32 numbers that are no characters, and that XML can hold."""
_TAKEN = re.compile(rb"\xef\xb7[\x90-\xaf]|&#(?:x0*[Ff][Dd]|0*6[45][0-9]{3})")
"""What may be one of them already."""


def _root(document: bytes) -> ElementTree.Element:
    """As xmltree.root_of; also of a document with control characters that XML cannot hold, in which
    a store that escapes no keys has written them all the same.
    """
    try:
        return root_of(document)
    except TransientError:
        marked = _CONTROL.sub(_stand_in, document)
        if marked == document or _TAKEN.search(document):
            raise
    root = root_of(marked)
    meant = {one: one - _STAND_INS.start for one in _STAND_INS}
    for element in root.iter():
        element.text = element.text and element.text.translate(meant)
    return root


def _stand_in(match: re.Match[bytes]) -> bytes:
    hexadecimal, decimal, itself = match.groups()
    number = ord(itself) if itself else int(hexadecimal or decimal, 16 if hexadecimal else 10)
    if number >= len(_STAND_INS) or number in b"\t\n\r":
        return match[0]
    return chr(_STAND_INS[number]).encode()


Columns = list[list[bytes]]
"""What the objects of a page have in each field of _COLUMNS, as it stands in the document."""

_COLUMNS = ("key", "size", "time", "etag", "kind")

_TEXT = rb"[ !#-%'-;=-~]"
"""A character that stands for itself in XML and in UTF-8, and is no quote."""
_FIELDS = {
    b"Key": b"(?P<key>%b{1,%d})" % (_TEXT, MAX_KEY),
    b"Size": b"(?P<size>[0-9]{1,18})",
    b"LastModified": b"(?P<time>[^<]*)",  # looked at afterwards, as quickly as it is found
    b"ETag": b"QUOTE(?P<etag>%b+)QUOTE" % _TEXT,
    b"StorageClass": b"(?P<kind>%b*)" % _TEXT,
}
_OF_TIMES = b"0123456789-T:.Z"
_QUOTE = re.compile(rb'<ETag>("|&quot;|&#34;|)')


def _columns(document: bytes) -> tuple[Columns, bytes]:
    """What a page says of its objects, and the document without them.

    A store writes all objects of a page alike, so that an expression made of the first finds the
    others, in a fifth of the time that a tree of elements takes.  Where one is not like the first,
    or has characters that are escaped, nothing is taken out, and the whole is for the XML parser.
    """
    none = [list[bytes]()] * len(_COLUMNS)
    first = document.find(b"<Contents>")
    end = document.find(b"</Contents>", first)
    if first < 0 or end < 0 or _has_markup(document):
        return none, document
    like = document[first : end + len(b"</Contents>")]
    quote = _QUOTE.search(like)
    pattern = quote and _pattern(re.sub(rb">[^<]+<", b"><", like), quote[1])
    if not pattern:
        return none, document
    parts = pattern.split(document)  # what is between objects, and after it the fields of one
    step = len(_FIELDS) + 1
    rest = b"".join(parts[::step])
    times = parts[pattern.groupindex["time"] :: step]
    if b"<Contents" in rest or b"".join(times).translate(None, _OF_TIMES):
        return none, document
    return [parts[pattern.groupindex[name] :: step] for name in _COLUMNS], rest


def _has_markup(document: bytes) -> bool:
    """Whether there may be a comment, or characters that stand for themselves.

    That there is none of a single character takes a hundredth of the time to tell that it takes of
    two of which the first is frequent.
    """
    return b"!" in document and b"<!" in document


def _entries(columns: Columns, encoded: bool) -> list[Entry]:
    """Those of a page, a column at a time: each step is one call for all of them."""
    keys, sizes, times, etags, kinds = columns
    if encoded and _escapes(b"\n".join(keys)):
        keys = list(map(unquote, keys))
    nothing, plain = repeat(None), repeat("")
    fields = zip(
        keys,
        map(int, sizes),
        nothing,
        _mapped(parse_time, times),
        b"\n".join(etags).decode().split("\n"),
        _mapped(_class_of, kinds),
        repeat(False),
        plain,
        nothing,
        strict=False,  # some have no end
    )
    return list(entries_of(fields)) if keys else []


def _mapped(function: Callable[[bytes], V], values: list[bytes]) -> Iterator[V]:
    """``function`` of each value; of the many that are the same, once."""
    known = {value: function(value) for value in set(values)}
    return map(known.__getitem__, values)


def _class_of(kind: bytes) -> str:
    return "" if kind == STANDARD.encode() else kind.decode()


def _escapes(text: bytes) -> bool:
    return b"%" in text or b"+" in text


@lru_cache(maxsize=32)
def _pattern(bare: bytes, quote: bytes) -> re.Pattern[bytes] | None:
    """What matches each ``Contents`` of the shape that is left without its text, its ETag between
    two of ``quote``; None if such a one does not have every field once.
    """
    kind = b"StorageClass" in bare
    if any(
        bare.count(b"<%b></%b>" % (field, field)) != (field != b"StorageClass" or kind)
        for field in _FIELDS
    ):
        return None
    shape = re.escape(bare).replace(b"></", b">%b*</" % _TEXT)
    for field, value in _FIELDS.items():
        value = value.replace(b"QUOTE", quote)
        shape = shape.replace(b"<%b>%b*</" % (field, _TEXT), b"<%b>%b</" % (field, value))
    return re.compile(shape if kind else shape + b"(?P<kind>)")


def _entry(item: ElementTree.Element, space: str, encoded: bool) -> Entry:
    """The object that a ``Contents`` describes."""
    key, size = _key(item, space + "Key", encoded), _number(item.findtext(space + "Size"))
    if not key or size is None:
        raise TransientError("the store listed an object without key or size")
    if len(key) > MAX_KEY or not 0 <= size < 1 << 63:
        raise ListingError("the store listed what cannot be: a key or size beyond all bounds")
    # '""' stays apart from no ETag at all; see listing.walk.
    etag = item.findtext(space + "ETag")
    kind = item.findtext(space + "StorageClass") or ""
    return Entry(
        key,
        size,
        None,
        parse_time((item.findtext(space + "LastModified") or "").encode()),
        etag.strip('"') if etag else None,
        "" if kind == STANDARD else kind,
    )


def _number(text: str | None) -> int | None:
    try:
        return int(text or "")
    except ValueError:
        return None


def _key(item: ElementTree.Element, tag: str, encoded: bool) -> bytes:
    text = (item.findtext(tag) or "").encode()
    return unquote(text) if encoded else text


def _next_marker(
    entries: list[Entry], prefixes: list[bytes], marker: bytes, as_it_stands: bytes
) -> bytes:
    """Where the page after this one begins: its last key, whatever ``marker`` it names, which the
    store may have left ``as_it_stands``.

    Stores may leave that out where no delimiter was asked for (API_ListObjects.html).  One before
    the last key would have keys listed again, or for ever.  One beyond it would have those between
    them left out: some stores that escape keys do not escape it, so that ``a%2Fb`` is taken for
    ``a/b``.  So it counts only on a page without keys, and within the directory that is the last.
    """
    last = max([entries[-1].key if entries else b"", prefixes[-1] if prefixes else b""])
    bare = last.removesuffix(b"/")
    if marker and marker < last and bare not in (marker, as_it_stands.removesuffix(b"/")):
        raise ListingError(f"the store lists up to {last!r}, and would go on from {marker!r}")
    in_directory = bool(prefixes) and last == prefixes[-1] and marker.startswith(last)
    return marker if in_directory or not last else last


def unquote(text: bytes) -> bytes:
    """A key that was listed with ``encoding-type=url``: as in HTML forms, a blank is ``+``."""
    if b"+" in text:
        text = text.replace(b"+", b" ")
    return unquote_to_bytes(text) if b"%" in text else text


_seconds: dict[bytes, int] = {}


def parse_time(text: bytes) -> int:
    """Nanoseconds of Unix time from ``2026-11-22T10:11:12.345Z``; 0 for what is no such time."""
    second = text[:19]
    whole = _seconds.get(second)
    if whole is None:
        try:
            year, month, day = int(text[:4]), int(text[5:7]), int(text[8:10])
            clock = int(text[11:13]), int(text[14:16]), int(text[17:19])
            whole = calendar.timegm((year, month, day, *clock)) * 1_000_000_000
        except ValueError:
            return 0
        if len(_seconds) > 10_000:
            _seconds.clear()
        _seconds[second] = whole
    fraction = text[20:].rstrip(b"Z")
    if text[19:20] != b"." or not fraction.isdigit():
        return whole
    return whole + int(fraction[:9].ljust(9, b"0"))
