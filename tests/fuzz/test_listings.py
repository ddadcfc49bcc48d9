"""Pages of listings: we read what botocore reads; whatever else comes is an error of ours."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable
from functools import cache
from typing import Any
from urllib.parse import quote, quote_plus
from xml.sax.saxutils import escape

import botocore.parsers
import botocore.session
from botocore.compat import unquote_str
from hypothesis import example, given
from hypothesis import strategies as st

from adsmig.errors import AdsmigError
from adsmig.storage import s3object
from adsmig.storage.http import Headers
from adsmig.storage.listpage import STANDARD, Page, parse, parse_time

SPACE = ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
IN_XML = st.text(
    st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff"), min_size=1
)
TIMES = st.datetimes(datetime.datetime(1970, 1, 2), datetime.datetime(2200, 1, 1)).map(
    lambda time: time.replace(microsecond=time.microsecond // 1000 * 1000)
)
ITEMS = st.tuples(
    IN_XML,
    st.integers(0, 5 << 40),
    TIMES,
    st.none() | st.text("0123456789abcdef-", min_size=1),
    st.none() | st.sampled_from([STANDARD, "GLACIER", "STANDARD_IA"]),
)
Item = tuple[str, int, datetime.datetime, str | None, str | None]


@cache
def reader(operation: str) -> Callable[[bytes], dict[str, Any]]:
    """botocore's, without its HTTP."""
    model = botocore.session.get_session().get_service_model("s3").operation_model(operation)
    parser = botocore.parsers.create_parser("rest-xml")
    return lambda body: parser.parse(
        {"body": body, "headers": {}, "status_code": 200}, model.output_shape
    )


def document(
    items: list[Item], prefixes: list[str], encode: Callable[[str], str], rest: str, space: str
) -> bytes:
    def one(item: Item) -> str:
        key, size, time, etag, kind = item
        return (
            f"<Contents><Key>{escape(encode(key))}</Key>"
            f"<LastModified>{time.isoformat(timespec='milliseconds')}Z</LastModified>"
            + (f"<ETag>&quot;{etag}&quot;</ETag>" if etag else "")
            + f"<Size>{size}</Size>"
            + (f"<StorageClass>{kind}</StorageClass>" if kind else "")
            + "</Contents>"
        )

    below = "".join(
        f"<CommonPrefixes><Prefix>{escape(encode(path))}</Prefix></CommonPrefixes>"
        for path in prefixes
    )
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult{space}>{rest}'
        f"{''.join(map(one, items))}{below}</ListBucketResult>"
    ).encode()


@given(
    st.lists(ITEMS, max_size=5),
    st.lists(IN_XML, max_size=3),
    st.booleans(),
    st.booleans(),
    st.sampled_from([1, 2]),
    st.sampled_from(["", SPACE]),
)
def test_we_read_what_botocore_reads(
    items: list[Item], prefixes: list[str], escaped: bool, more: bool, version: int, space: str
) -> None:
    encode: Callable[[str], str] = (lambda text: quote(text, safe="/")) if escaped else str
    last = max([*(item[0] for item in items), *prefixes, "~"], key=str.encode)
    rest = f"<IsTruncated>{str(more).lower()}</IsTruncated>"
    rest += "<EncodingType>url</EncodingType>" if escaped else ""
    if more and version == 2:
        rest += "<NextContinuationToken>token/+=</NextContinuationToken>"
    elif more:
        rest += f"<NextMarker>{escape(encode(last))}</NextMarker>"
    body = document(items, prefixes, encode, rest, space)
    theirs = reader("ListObjectsV2" if version == 2 else "ListObjects")(body)
    decode: Callable[[str], str] = unquote_str if escaped else str
    ours = parse(body, version)
    listed = theirs.get("Contents", [])
    assert [entry.key.decode() for entry in ours.entries] == [decode(one["Key"]) for one in listed]
    for entry, one in zip(ours.entries, listed, strict=True):
        assert entry.size == one["Size"]
        assert entry.stored_ns == round(one["LastModified"].timestamp() * 1000) * 10**6
        assert entry.etag == (one["ETag"].strip('"') if "ETag" in one else None)
        assert (entry.storage_class or STANDARD) == one.get("StorageClass", STANDARD)
    below = [decode(one["Prefix"]) for one in theirs.get("CommonPrefixes", [])]
    assert [path.decode() for path in ours.prefixes] == below
    assert ours.truncated == theirs["IsTruncated"]
    if version == 2:
        assert ours.token == theirs.get("NextContinuationToken", "")
    else:
        ends = [entry.key for entry in ours.entries[-1:]] + ours.prefixes[-1:]
        marker = decode(theirs.get("NextMarker", "")).encode()
        within = ours.prefixes and max(ends) == ours.prefixes[-1] and marker.startswith(max(ends))
        assert ours.token.encode() == (max(ends) if more and ends and not within else marker)


@given(st.lists(st.text(min_size=1), max_size=5))
def test_keys_that_xml_cannot_hold_come_escaped(keys: list[str]) -> None:
    """As in HTML forms: AWS writes a blank as ``+``, which botocore leaves."""
    time = datetime.datetime(2026, 1, 1)
    items: list[Item] = [(key, 1, time, None, None) for key in keys]
    rest = "<IsTruncated>false</IsTruncated><EncodingType>url</EncodingType>"
    page = parse(document(items, [], quote_plus, rest, SPACE))
    assert [entry.key.decode() for entry in page.entries] == keys


def refused_or_page(data: bytes, version: int) -> Page | None:
    with contextlib.suppress(AdsmigError):
        return parse(data, version)
    return None


WHOLE = document(
    [("a", 1, datetime.datetime(2026, 1, 1), "0", None),
     ("b/ü", 22, datetime.datetime.min, "", "X")],
    ["c/"], str, "<IsTruncated>true</IsTruncated><NextMarker>d</NextMarker>", SPACE,
)  # fmt: skip


@given(st.binary(), st.sampled_from([1, 2]))
def test_any_bytes_are_an_error_of_ours(data: bytes, version: int) -> None:
    assert refused_or_page(data, version) is None


@given(
    st.integers(0, len(WHOLE)), st.integers(0, 40), st.binary(max_size=8), st.sampled_from([1, 2])
)
@example(WHOLE.index(b"2026"), 4, "²".encode(), 2)
@example(WHOLE.index(b"00:00.000") + 6, 3, "²".encode(), 2)
def test_a_damaged_page_is_refused_or_read(at: int, gone: int, new: bytes, version: int) -> None:
    page = refused_or_page(WHOLE[:at] + new + WHOLE[at + gone :], version)
    for entry in page.entries if page else ():
        assert entry.key
        assert 0 <= entry.size < 1 << 63


@given(st.text() | st.from_regex(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d*)?Z?"))
def test_any_time_is_a_number(text: str) -> None:
    assert isinstance(parse_time(text.encode()), int)


@given(
    st.dictionaries(
        st.sampled_from(["mtime", "mode", "uid", "gid"]).map("x-amz-meta-{}".format),
        st.text() | st.from_regex(r"-?\d*\.?\d*") | st.integers().map(str),
    )
)
def test_any_metadata_is_understood_or_left_out(headers: Headers) -> None:
    meta = s3object.meta_of(headers)
    assert meta.mode is None or 0 <= meta.mode <= 0o777
    for number in (meta.uid, meta.gid):
        assert number is None or 0 <= number < 1 << 31


@given(st.text() | st.datetimes().map(lambda t: t.strftime("%a, %d %b %Y %H:%M:%S GMT")))
@example("Mon, 01 Jan 0001 00:00:00 -0000")
@example("Mon, 01 Jan 2026 00:00:00 +9999")
def test_any_header_of_a_time_is_a_number(text: str) -> None:
    assert isinstance(s3object.http_time(text), int)
