"""Signatures, held against those that botocore computes for the same requests."""

from __future__ import annotations

import datetime
import time
from types import SimpleNamespace

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoCredentials
from hypothesis import example, given
from hypothesis import strategies as st

from adsmig.location import Credentials
from adsmig.storage.signing import encode_path, encode_query, sign

KEYS = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
HOST = "bucket.s3.eu-west-1.amazonaws.com"
NOW = 1795400000.0


def with_botocore(
    credentials: Credentials,
    region: str,
    method: str,
    target: str,
    headers: dict[str, str],
    now: float,
) -> str:
    """The Authorization header that botocore gives to a request, payload unsigned."""
    request = AWSRequest(method, f"https://{headers['host']}{target}", headers)
    unsigned = SimpleNamespace(s3={"payload_signing_enabled": False})
    request.context["client_config"] = unsigned
    keys = BotoCredentials(credentials.access_key, credentials.secret_key, credentials.token)
    clock = datetime.datetime.fromtimestamp(now, datetime.timezone.utc)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.auth, "get_current_datetime", lambda: clock)
        botocore.auth.S3SigV4Auth(keys, "s3", region).add_auth(request)
    assert request.headers["X-Amz-Content-SHA256"] == "UNSIGNED-PAYLOAD"
    return str(request.headers["Authorization"])


def authorization(
    path: bytes = b"/key",
    query: dict[str, str | bytes] | None = None,
    headers: dict[str, str] | None = None,
    credentials: Credentials = KEYS,
    region: str = "eu-west-1",
    method: str = "GET",
    now: float = NOW,
) -> tuple[str, str]:
    """What we sign a request with, and what botocore does; header values are text."""
    wanted = {"host": HOST, **(headers or {})}
    target, arguments = encode_path(path), encode_query(query or {})
    on_the_wire = {name: value.encode().decode("latin-1") for name, value in wanted.items()}
    ours = sign(credentials, region, method, target, arguments, on_the_wire, now)
    url = f"{target}?{arguments}" if arguments else target
    return ours["authorization"], with_botocore(credentials, region, method, url, wanted, now)


keys = st.text(max_size=30).map(str.encode) | st.lists(
    st.sampled_from(["/", "//", "./", "../", "+", "%", "%2F", " ", "~", "\x00", "\x7f", "é", "💥"])
).map(lambda parts: "".join(parts).encode())  # fmt: skip

# Beyond what HTTP allows: no line breaks.  White space outside ASCII is tested by name.
plain = st.characters(exclude_categories=["Cs", "Zs", "Zl", "Zp", "Cc"])
values = st.text(plain | st.sampled_from(" \t"), max_size=20)
names = st.sampled_from(
    ["content-type", "x-amz-meta-a", "x-amz-meta-a-b", "x-amz-meta-b", "if-match", "range",
     "x-amz-copy-source", "cache-control"]
)  # fmt: skip
arguments = st.dictionaries(
    st.sampled_from(["prefix", "list-type", "uploads", "uploadId", "partNumber", "max-keys"]),
    st.text(max_size=20) | st.text(max_size=20).map(str.encode) | st.binary(max_size=20),
)


@given(
    path=keys.map(lambda key: b"/" + key),
    query=arguments,
    headers=st.dictionaries(names, values.filter(str.isascii), max_size=4),
    token=st.none() | st.from_regex(r"[A-Za-z0-9+/=]{1,40}", fullmatch=True),
    region=st.sampled_from(["us-east-1", "eu-west-1", "cn-sh-01", ""]),
    method=st.sampled_from(["GET", "PUT", "HEAD", "POST", "DELETE"]),
    now=st.integers(0, 4_000_000_000),
)
@example(b"//a//./b/../c/", {}, {}, None, "us-east-1", "PUT", 0)
@example(b"/", {"prefix": b"\xff +%~", "uploads": ""}, {"range": ""}, None, "x", "GET", 0)
def test_signs_as_botocore_does(
    path: bytes,
    query: dict[str, str | bytes],
    headers: dict[str, str],
    token: str | None,
    region: str,
    method: str,
    now: int,
) -> None:
    credentials = Credentials("AKID", "s/+ =é", token)
    ours, theirs = authorization(path, query, headers, credentials, region, method, now)
    assert ours == theirs


@pytest.mark.parametrize("value", ["", " ", "a  b", "\ta\t \tb ", "a\x0bb\x0cc", "é", "日本", "🧪"])
def test_signs_header_values_trimmed_and_as_their_bytes(value: str) -> None:
    ours, theirs = authorization(headers={"x-amz-meta-a": value})
    assert ours == theirs


@pytest.mark.parametrize("value", ["à", "Å", "voilà là", "包", "𠀠"])
def test_signs_text_whose_bytes_would_be_white_space_as_characters(value: str) -> None:
    assert {0x85, 0xA0} & set(value.encode())
    ours, theirs = authorization(headers={"x-amz-meta-a": value})
    assert ours == theirs


@pytest.mark.parametrize("value", ["a\u00a0b", "a\u00a0\u00a0b", "a\u3000b", "a\u0085b", "\u2003a"])
def test_signs_white_space_outside_ascii_as_servers_in_go_do(value: str) -> None:
    # strings.Fields, in MinIO's and SeaweedFS' signV4TrimAll; botocore's str.split agrees.
    ours, theirs = authorization(headers={"x-amz-meta-a": value})
    assert ours == theirs


@given(st.dictionaries(names, values, min_size=1, max_size=4))
@example({"x-amz-meta-a": "à"})
def test_signs_any_text_as_botocore_does(headers: dict[str, str]) -> None:
    ours, theirs = authorization(headers=headers)
    assert ours == theirs


def test_header_values_that_are_no_text_are_signed() -> None:
    headers = sign(KEYS, "r", "GET", "/", "", {"host": HOST, "x-amz-meta-a": "\xff\xfe"}, NOW)
    other = sign(KEYS, "r", "GET", "/", "", {"host": HOST, "x-amz-meta-a": "\xff\xfd"}, NOW)
    assert headers["x-amz-meta-a"] == "\xff\xfe"
    assert headers["authorization"] != other["authorization"]


def test_the_headers_given_are_sent_unchanged_beside_those_of_the_signature() -> None:
    credentials = Credentials("ak", "sk", "token")
    given_headers = {"host": HOST, "x-amz-meta-a": " b  c "}
    headers = sign(credentials, "us-east-1", "PUT", "/k", "", given_headers, 0)
    assert given_headers == {"host": HOST, "x-amz-meta-a": " b  c "}
    assert headers.pop("authorization").startswith(
        "AWS4-HMAC-SHA256 Credential=ak/19700101/us-east-1/s3/aws4_request, SignedHeaders="
        "host;x-amz-content-sha256;x-amz-date;x-amz-meta-a;x-amz-security-token, Signature="
    )
    assert headers == {
        **given_headers,
        "x-amz-content-sha256": "UNSIGNED-PAYLOAD",
        "x-amz-date": "19700101T000000Z",
        "x-amz-security-token": "token",
    }


def test_the_secret_is_in_no_header() -> None:
    headers = sign(KEYS, "us-east-1", "PUT", "/k", "", {"host": HOST}, 0)
    assert KEYS.secret_key not in str(headers)


def test_a_new_day_region_or_secret_has_a_new_signature() -> None:
    def signature(secret: str = "s", region: str = "r", now: float = 86399.0) -> str:
        return sign(Credentials("a", secret), region, "GET", "/", "", {"host": "h"}, now)[
            "authorization"
        ].rpartition("=")[2]

    assert len({signature(), signature("t"), signature(region="q"), signature(now=86400.0)}) == 4
    assert signature() == signature()


def test_the_clock_is_the_present_if_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "gmtime", lambda _: time.struct_time((2026, 1, 2, 3, 4, 5, 0, 2, 0)))
    headers = sign(KEYS, "us-east-1", "GET", "/", "", {"host": HOST})
    assert headers["x-amz-date"] == "20260102T030405Z"


def test_paths_keep_every_byte() -> None:
    assert encode_path(b"/a//b/./c/../~_-.d") == "/a//b/./c/../~_-.d"
    assert encode_path(b"/ +%\x00\xff\\*") == "/%20%2B%25%00%FF%5C%2A"
    assert encode_path("/é💥".encode()) == "/%C3%A9%F0%9F%92%A5"


def test_queries_are_sorted_and_escaped() -> None:
    query: dict[str, str | bytes] = {"uploads": "", "prefix": b"a b/+\xff~", "max-keys": "1"}
    assert encode_query(query) == "max-keys=1&prefix=a%20b%2F%2B%FF~&uploads="
    assert encode_query({}) == ""
