"""Addresses: whatever a user writes is understood or refused in words, and never shows a secret."""

from __future__ import annotations

import re
from dataclasses import replace
from urllib.parse import quote

from hypothesis import assume, given
from hypothesis import strategies as st

from adsmig.argv import redacted as redacted_line
from adsmig.errors import UsageError
from adsmig.location import Location
from adsmig.log import redacted
from adsmig.uri import parse

SECRET = "Zq7Zq8Zq9"
"""In no other piece of an address here; a half of it is enough to tell."""

PIECES = st.sampled_from([
    "s3://", "oss://", "minio://", "sftp://", "file://", "gs://", "S3://", "s3:/", "://", "//", "/",
    ":", "@", "%", "%2F", "%zz", "+", "?", "#", "~", ".", "..", "-", "[::1]", ":9000", ":22", ":0",
    "bucket", "bucket.host", "b.s3.eu-west-1.amazonaws.com", "127.0.0.1", "localhost", "Host",
    "user", "AK", "path", "a b", "é", "日本", "\0", "\n", "\x1b[31m", "\udcff", "",
])  # fmt: skip
SHAPED = st.lists(PIECES | st.text(max_size=3), max_size=12).map("".join)


@given(st.text() | SHAPED, st.booleans(), st.none() | st.booleans())
def test_any_text_is_an_address_or_wrong_usage(
    text: str, path_style: bool, https: bool | None
) -> None:
    try:
        found = parse(text, https=https, path_style=path_style)
        said = [str(found), repr(found), found.identity]
    except UsageError as exc:
        said = [str(exc)]
    for line in said:
        assert line.encode()
        assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", line)


@given(
    st.sampled_from(["", "s3://", "oss://", "minio://", "sftp://", "gs://", "s3:/", "S3://"]),
    st.sampled_from(["AK", "user", "bucket", "bucket.host", "a b", "é", "127.0.0.1", "u%40h", ""]),
    st.sampled_from(":@/%+ ?#"),
    st.lists(PIECES, max_size=5),
)
def test_a_secret_is_not_shown(scheme: str, name: str, inside: str, behind: list[str]) -> None:
    """Whatever is not escaped in it, and whatever comes behind."""
    text = "".join([scheme, name, f":{SECRET}{inside}{SECRET}@", *behind])
    try:
        found = parse(text)
    except UsageError as exc:
        said = f"{exc} {exc!r} {exc.__cause__!r} {exc.__context__!r}"
    else:
        said = f"{found} {found!r}"
    assert SECRET not in said, text


@given(st.text(min_size=1), st.text(min_size=1), st.none() | st.text(min_size=1))
def test_escaped_keys_come_back_and_are_hidden(key: str, secret: str, token: str | None) -> None:
    parts = [quote(one, safe="") for one in (key, secret, token) if one is not None]
    text = f"s3://{':'.join(parts)}@bucket.host/p"
    found = parse(text)
    assert found.credentials
    assert (found.credentials.access_key, found.credentials.secret_key) == (key, secret)
    assert found.credentials.token == token
    assert str(found) == "s3://***@bucket.host/p"
    assert repr(found.credentials) == "***"
    assert (
        redacted(f"adsmig: no such thing: {text}")
        == "adsmig: no such thing: s3://***@bucket.host/p"
    )
    assert redacted_line(text.encode()) == b"s3://***@bucket.host/p"


@given(SHAPED)
def test_what_is_shown_leads_to_the_same_place(text: str) -> None:
    try:
        found = parse(text)
    except UsageError:
        return
    shown = str(found)
    # What had to be escaped to be shown, and a password, cannot be read back.
    assume("\\" not in shown and found.credentials is None)
    assert plain(parse(shown)) == plain(found)


def plain(at: Location) -> Location:
    """Without the slash at the end, which is not shown of paths."""
    return replace(at, trailing_slash=False) if at.is_path else at
