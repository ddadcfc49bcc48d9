"""Object stores: answers that are wrong, cut short or lost, and copies inside the service."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from uuid import uuid4
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adsmig import uri
from adsmig.errors import (
    AdsmigError,
    Expired,
    NotFound,
    ObjectError,
    SourceChanged,
    StorageFull,
    Throttled,
    TransientError,
    Unreachable,
)
from adsmig.location import Credentials, Location
from adsmig.model import EVERYTHING, Entry, KeyRange, Meta, Outcome, Part, Upload
from adsmig.retry import TRIES
from adsmig.storage.local import LocalStorage
from adsmig.storage.memory import MemoryStorage
from adsmig.storage.s3 import S3Storage
from adsmig.storage.s3delete import survives_xml
from adsmig.storage.wire import Wire
from adsmig.transfer import copy
from tests.storage.conftest import Place
from tests.storage.fakes3 import DROPPED, Answer, FakeS3, Reply, Request, error, listing_of
from tests.storage.support import (
    Options,
    content_of,
    drain,
    get,
    keys_of,
    put,
    send_part,
)

Faked = Callable[..., FakeS3]

MD5 = hashlib.md5(b"content").hexdigest()
ENTRY = Entry(b"object", 7, None, 1, MD5)
CONTENT = Reply(200, b"content", {"ETag": f'"{MD5}"'})
SLOW = error(503, "SlowDown", "Please reduce your request rate.")
BROKEN = error(500, "InternalError", "We encountered an internal error. Please try again.")


@pytest.fixture
def faked() -> Iterator[Faked]:
    """``faked(*answers)`` starts a server that gives them in turn."""
    servers = []

    def start(*answers: Answer) -> FakeS3:
        servers.append(FakeS3(*answers).__enter__())
        return servers[-1]

    yield start
    for server in servers:
        server.__exit__(None, None, None)


def page(*keys: str, more: str = "") -> Reply:
    """A page of a listing; ``more`` is the token for the next."""
    contents = "".join(
        f"<Contents><Key>{key}</Key><Size>7</Size><ETag>&quot;{MD5}&quot;</ETag>"
        "<LastModified>2026-11-23T01:21:40.000Z</LastModified></Contents>"
        for key in keys
    )
    end = f"<NextContinuationToken>{more}</NextContinuationToken>" if more else ""
    text = f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>{contents}{end}"
    return Reply(200, f"<ListBucketResult>{text}</ListBucketResult>".encode())


# Trying again

LOST = [
    pytest.param(SLOW, id="SlowDown"),
    pytest.param(Reply(503), id="503"),
    pytest.param(error(429, "TooManyRequests"), id="429"),
    pytest.param(BROKEN, id="InternalError"),
    pytest.param(Reply(502, b"<html>Bad Gateway</html>"), id="502"),
    pytest.param(error(400, "RequestTimeout"), id="RequestTimeout"),
    pytest.param(DROPPED, id="dropped"),
]
GARBLED = [
    pytest.param(Reply(200, b"<ListBucketResult><Conten"), id="broken XML"),
    pytest.param(Reply(200, b"<html>Welcome to the hotel</html>"), id="other XML"),
    pytest.param(Reply(200, b""), id="empty"),
    pytest.param(
        Reply(200, page("a").body[:60], {"Content-Length": "300"}, hang_up="after"), id="cut short"
    ),
    pytest.param(error(200, "InternalError"), id="an error, with 200"),
]


@pytest.mark.parametrize("lost", [*LOST, *GARBLED])
def test_a_listing_goes_on_after_a_page_that_did_not_come(faked: Faked, lost: Reply) -> None:
    server = faked(page("a", "b", more="t1"), lost, lost, page("c", more="t2"), lost, page("d"))
    assert keys_of(server.storage()) == [b"a", b"b", b"c", b"d"]
    tokens = [request.query.get("continuation-token") for request in server.requests]
    assert tokens == [None, "t1", "t1", "t1", "t2", "t2"]


@pytest.mark.parametrize("lost", [SLOW, BROKEN, DROPPED, *GARBLED])
def test_a_page_that_never_comes_is_an_error_and_no_end(faked: Faked, lost: Reply) -> None:
    server = faked(page("a", more="t"), lost)
    listing = server.storage().list(EVERYTHING)
    assert next(listing).key == b"a"
    with pytest.raises(TransientError):
        next(listing)
    assert len(server.requests) == 1 + TRIES


def test_a_listing_begins_at_a_key_that_may_be_listed_and_not_looked_at(faked: Faked) -> None:
    listing = listing_of([b"a", b"a/b", b"b"])

    def answer(request: Request) -> Reply:
        return Reply(403) if request.method == "HEAD" else listing(request)

    storage = faked(answer).storage()
    assert [entry.key for entry in storage.list(KeyRange(b"a", None, True))] == [b"a", b"a/b", b"b"]
    assert [entry.key for entry in storage.list(KeyRange(b"a0", None, True))] == [b"b"]


def test_a_single_key_need_not_be_one_that_may_be_listed(faked: Faked) -> None:
    def answer(request: Request) -> Reply:
        return CONTENT if request.method == "HEAD" else error(403, "AccessDenied")

    assert [entry.key for entry in faked(answer).storage().list(KeyRange(b"a", b"a", True))] == [
        b"a"
    ]


@pytest.mark.parametrize(
    "refusal", [error(403, "AccessDenied"), error(404, "NoSuchBucket"), error(400, "InvalidWish")]
)
def test_a_listing_that_is_refused_is_an_error_at_once(faked: Faked, refusal: Reply) -> None:
    server = faked(page("a", more="t"), refusal)
    listing = server.storage().list(EVERYTHING)
    assert next(listing).key == b"a"
    with pytest.raises(AdsmigError):
        next(listing)
    assert len(server.requests) == 2


UNITS: dict[str, tuple[Callable[[S3Storage], Any], Reply]] = {
    "stat": (lambda storage: storage.stat(b"object"), CONTENT),
    "probe": (lambda storage: storage.probe(b"a"), page("b")),
    "delete": (lambda storage: storage.delete([b"object"]), Reply(204)),
    "abort": (lambda storage: storage.abort(b"object", "id"), Reply(204)),
    "prepare": (lambda storage: storage.prepare(), page()),
}


@pytest.mark.parametrize("lost", LOST)
@pytest.mark.parametrize("name", UNITS)
def test_small_requests_try_again(faked: Faked, name: str, lost: Reply) -> None:
    unit, good = UNITS[name]
    server = faked(lost, lost, good)
    unit(server.storage())
    assert len(server.requests) == 3


LARGER: dict[str, Callable[[S3Storage], Any]] = {
    "read": lambda storage: get(storage, ENTRY),
    "write": lambda storage: put(storage, b"object", b"content"),
    "put_part": lambda storage: send_part(storage, b"o", Upload(ENTRY, "id", 7), 1, b"content"),
    "copy_from": lambda storage: storage.copy_from(storage, ENTRY, b"copy"),
}


@pytest.mark.parametrize("lost", LOST)
@pytest.mark.parametrize("name", LARGER)
def test_larger_units_leave_it_to_the_caller_to_try_again(
    faked: Faked, name: str, lost: Reply
) -> None:
    server = faked(lost)
    with pytest.raises(TransientError) as caught:
        LARGER[name](server.storage())
    assert isinstance(caught.value, Throttled) == (lost.status in (503, 429))
    assert len(server.requests) == 1


def test_a_kept_connection_that_was_closed_meanwhile_needs_no_pause(
    faked: Faked, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pause(*_: Any) -> None:
        raise AssertionError("it waited")

    monkeypatch.setattr("adsmig.retry.wait", pause)
    server = faked(replace(CONTENT, hang_up="after"))
    storage = server.storage()
    for _ in range(5):
        assert storage.stat(b"object").size == 7


def test_a_connection_is_kept_for_the_next_request(
    faked: Faked, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, connected = faked(CONTENT), []
    real = Wire._connect

    def counting(wire: Wire) -> Any:
        connected.append(1)
        return real(wire)

    monkeypatch.setattr(Wire, "_connect", counting)
    storage = server.storage()
    for _ in range(5):
        storage.stat(b"object")
        assert get(storage, ENTRY) == b"content"
    assert len(connected) == 1
    storage.close()
    storage.stat(b"object")
    assert len(connected) == 2


def test_no_answer_in_time_is_worth_another_try(faked: Faked) -> None:
    given_up = threading.Event()

    def late(_: Request) -> Reply:
        given_up.wait(5)
        return CONTENT

    with pytest.raises(TransientError, match="in time"):
        get(faked(late).storage(options=Options(read_timeout_s=0.1)), ENTRY)
    given_up.set()


def test_nobody_at_the_address_is_unreachable() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{unused.getsockname()[1]}"
        where = Location("s3", b"", "bkt", host, path_style=True, credentials=Credentials("a", "b"))
        storage = S3Storage(where, Options())
        for unit in (lambda: storage.stat(b"a"), storage.prepare, lambda: keys_of(storage)):
            with pytest.raises(Unreachable, match="cannot reach"):
                unit()


@pytest.mark.parametrize(
    ("told", "raised"),
    [
        (error(400, "InvalidArgument"), ObjectError),
        (error(400, "ExpiredToken"), Expired),
        (error(404, "NoSuchKey"), NotFound),
    ],
)
def test_a_look_that_is_refused_without_a_word_is_asked_why(
    faked: Faked, told: Reply, raised: type[AdsmigError]
) -> None:
    server = faked(Reply(400), told)
    with pytest.raises(raised):
        server.storage().stat(b"./object")
    assert [one.method for one in server.requests[:2]] == ["HEAD", "GET"]
    assert (len(server.requests) == 2) == (raised is not Expired)  # keys may yet be renewed
    assert server.requests[1].headers["range"] == "bytes=0-0"


def test_a_look_that_is_refused_by_mistake_is_tried_again(faked: Faked) -> None:
    server = faked(Reply(400), CONTENT, CONTENT)
    server.storage().stat(b"object")
    assert [one.method for one in server.requests] == ["HEAD", "GET", "HEAD"]


# What an error means


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (error(404, "NoSuchKey"), NotFound),
        (Reply(404), NotFound),
        (error(403, "AccessDenied"), ObjectError),
        (Reply(403), ObjectError),
        (error(400, "InvalidRequest"), ObjectError),
        (error(405, "MethodNotAllowed"), ObjectError),
        (error(409, "XMinioObjectExistsAsDirectory"), ObjectError),
        (error(409, "OperationAborted"), TransientError),
        (error(412, "PreconditionFailed"), SourceChanged),
        (error(409, "ConditionalRequestConflict"), SourceChanged),
        (error(503, "SlowDown"), Throttled),
        (error(503, "XMinioServerNotInitialized"), TransientError),
        (error(507, "InsufficientStorage"), StorageFull),
        (error(507, "XMinioStorageFull"), StorageFull),
        (error(403, "QuotaExceeded"), StorageFull),
        (error(400, "ExpiredToken"), TransientError),
        (error(400, "BadDigest"), TransientError),
        (error(403, "SignatureDoesNotMatch"), AdsmigError),
        (error(403, "InvalidAccessKeyId"), AdsmigError),
        (error(403, "RequestTimeTooSkewed"), AdsmigError),
        (error(404, "NoSuchBucket"), AdsmigError),
        (error(301, "PermanentRedirect"), AdsmigError),
        (Reply(307, headers={"Location": "http://elsewhere/"}), AdsmigError),
    ],
    ids=lambda value: (
        getattr(value, "__name__", None) or f"{value.status} {value.body[29:].decode()[:40]}"
    ),
)
def test_an_error_tells_who_has_to_act(faked: Faked, reply: Reply, kind: type[AdsmigError]) -> None:
    with pytest.raises(AdsmigError) as caught:
        put(faked(reply).storage(), b"object", b"content")
    found = caught.value
    if reply.status == 404 and kind is NotFound:
        assert isinstance(found, (NotFound, ObjectError))  # of a PUT: there is no such place
        return
    assert isinstance(found, kind)
    if kind is AdsmigError:
        assert not isinstance(found, (ObjectError, TransientError, NotFound, StorageFull))
    if kind is TransientError:
        assert not isinstance(found, SourceChanged)


def test_an_object_that_is_not_there_is_not_found(faked: Faked) -> None:
    server = faked(Reply(404))
    with pytest.raises(NotFound):
        server.storage().stat(b"object")
    assert len(server.requests) == 1


@pytest.mark.parametrize("code", ["InvalidWish", "SignatureDoesNotMatch", "InvalidToken", "Odd"])
@pytest.mark.parametrize("status", [200, 400, 403, 500, 503])
def test_no_error_tells_a_secret(faked: Faked, status: int, code: str) -> None:
    """Not even from a server that repeats all that it was sent."""

    def parrot(request: Request) -> Reply:
        return error(status, code, " ".join(f"{k}: {v}" for k, v in request.headers.items())[:190])

    def token_first(request: Request) -> Reply:
        return error(status, code, f"token {request.headers['x-amz-security-token']} is bad")

    for answer in (parrot, token_first):
        storage = faked(answer).storage()
        for unit in (
            lambda storage=storage: storage.copy_from(storage, ENTRY, b"copy"),
            lambda storage=storage: keys_of(storage),
            lambda storage=storage: storage.complete(b"a", Upload(ENTRY, "i", 7), [], Meta()),
        ):
            try:
                unit()
            except AdsmigError as exc:
                text = "".join(traceback.format_exception(exc)) + repr(exc)
                assert "the-secret" not in text
                assert "the-token" not in text
        assert "the-secret" not in repr(storage) + repr(storage._wire) + repr(storage.location)


def test_an_empty_page_that_is_not_the_last_hides_nothing(faked: Faked) -> None:
    def answer(request: Request) -> Reply:
        if token := request.query.get("continuation-token"):
            text = f"<ContinuationToken>{token}</ContinuationToken><IsTruncated>false</IsTruncated>"
            text += "<Contents><Key>d/</Key><Size>0</Size></Contents>"
        else:
            text = "<IsTruncated>true</IsTruncated>"
            text += "<NextContinuationToken>on</NextContinuationToken>"
        return Reply(body=f"<ListBucketResult>{text}</ListBucketResult>".encode())

    storage = faked(answer).storage(server="SeaweedFS")
    assert storage.holds_below(b"d/")
    assert storage.stat(b"d/").key == b"d/"
    assert storage._lists(b"d/")
    assert not storage._lists(b"d")


# Reading


def test_a_read_asks_for_the_version_that_was_listed(faked: Faked) -> None:
    server = faked(
        CONTENT, Reply(206, b"nten", {"ETag": f'"{MD5}"', "Content-Range": "bytes 2-5/7"})
    )
    storage = server.storage()
    assert get(storage, ENTRY) == b"content"
    assert get(storage, ENTRY, 2, 4) == b"nten"
    assert [request.headers["if-match"] for request in server.requests] == [f'"{MD5}"'] * 2
    assert [request.headers.get("range") for request in server.requests] == [None, "bytes=2-5"]


def test_only_a_whole_object_with_an_md5_for_its_etag_has_an_md5(faked: Faked) -> None:
    kms = {"x-amz-server-side-encryption": "aws:kms", "ETag": f'"{MD5}"'}
    own = {"x-amz-server-side-encryption-customer-algorithm": "AES256", "ETag": f'"{MD5}"'}
    appended = [
        Reply(200, b"content", {**CONTENT.headers, f"x-{name}-object-type": kind})
        for name, kind in (("oss", "Appendable"), ("cos", "appendable"), ("oss", "Normal"))
    ]
    answers = [
        (CONTENT, MD5),
        *zip(appended, (None, None, MD5), strict=True),
        (Reply(200, b"content", kms), None),
        (Reply(200, b"content", own), None),
        (Reply(200, b"content", {"ETag": f'"{MD5}-1"'}), None),
        (Reply(200, b"content"), None),
    ]
    storage = faked(*(reply for reply, _ in answers)).storage()
    for reply, md5 in answers:
        entry = ENTRY._replace(etag=reply.headers.get("ETag", "").strip('"') or None)
        with storage.read(entry) as body:
            assert body.md5 == md5
            assert drain(body) == b"content"


@pytest.mark.parametrize(
    "reply",
    [
        error(412, "PreconditionFailed"),
        error(404, "NoSuchKey"),
        Reply(200, b"longer content", {"ETag": f'"{MD5}"'}),
        Reply(200, b"short", {"ETag": f'"{MD5}"'}),
        Reply(200, b"", {"ETag": f'"{MD5}"'}),
        Reply(200, b"CONTENT", {"ETag": '"0123456789abcdef0123456789abcdef"'}),
    ],
    ids=["412", "404", "longer", "shorter", "empty", "If-Match not looked at"],
)
def test_another_version_is_a_changed_source(faked: Faked, reply: Reply) -> None:
    server = faked(reply)
    with pytest.raises(SourceChanged):
        get(server.storage(), ENTRY)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "reply",
    [
        error(412, "PreconditionFailed"),
        error(416, "InvalidRange"),
        Reply(416),
        Reply(206, b"nt", {"ETag": f'"{MD5}"', "Content-Range": "bytes 2-3/4"}),
        Reply(206, b"NTEN", {"ETag": f'"{MD5[::-1]}"', "Content-Range": "bytes 2-5/7"}),
    ],
    ids=["412", "InvalidRange", "416", "shorter", "If-Match not looked at"],
)
def test_a_span_of_another_version_is_a_changed_source(faked: Faked, reply: Reply) -> None:
    with pytest.raises(SourceChanged):
        get(faked(reply).storage(), ENTRY, 2, 4)


@pytest.mark.parametrize(
    "reply",
    [
        CONTENT,
        Reply(206, b"cont", {"ETag": f'"{MD5}"', "Content-Range": "bytes 0-3/7"}),
    ],
    ids=["the whole", "another span"],
)
def test_a_store_that_gives_another_span_is_found_out(faked: Faked, reply: Reply) -> None:
    storage = faked(reply, CONTENT).storage()
    with pytest.raises(AdsmigError):
        get(storage, ENTRY, 2, 4)
    assert get(storage, ENTRY) == b"content"  # what was left unread does no harm


CUT = Reply(200, b"con", {"ETag": f'"{MD5}"', "Content-Length": "7"}, hang_up="after")
CHUNKED = {"ETag": f'"{MD5}"', "Transfer-Encoding": "chunked", "Content-Length": ""}


@pytest.mark.parametrize(
    "reply",
    [
        CUT,
        Reply(200, b"con", {"ETag": f'"{MD5}"', "Content-Length": ""}, hang_up="after"),
        Reply(200, b"3\r\ncon\r\n0\r\n\r\n", CHUNKED),
        Reply(200, b"3\r\ncon\r\n4\r\nt", CHUNKED, hang_up="after"),
    ],
    ids=["cut short", "no length", "chunks that end early", "a chunk cut short"],
)
def test_a_body_cut_short_is_worth_another_try(faked: Faked, reply: Reply) -> None:
    storage = faked(reply, CONTENT).storage()
    with pytest.raises(TransientError):
        get(storage, ENTRY)
    assert get(storage, ENTRY) == b"content"


def test_a_body_in_chunks_is_read(faked: Faked) -> None:
    storage = faked(Reply(200, b"3\r\ncon\r\n4\r\ntent\r\n0\r\n\r\n", CHUNKED), CONTENT).storage()
    assert get(storage, ENTRY) == b"content"
    assert get(storage, ENTRY) == b"content"


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, b"3\r\ncon\r\n8\r\ntent and\r\n0\r\n\r\n", CHUNKED),
        Reply(200, b"content and", {"ETag": f'"{MD5}"', "Content-Length": ""}, hang_up="after"),
    ],
    ids=["chunks", "no length"],
)
def test_a_body_longer_than_it_was_listed_is_a_changed_source(faked: Faked, reply: Reply) -> None:
    storage = faked(reply).storage()
    with pytest.raises(SourceChanged):
        get(storage, ENTRY)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, b"7\r\ncontent\r\n0\r\n\r\n", CHUNKED),
        Reply(200, b"content", {"ETag": f'"{MD5}"', "Content-Length": ""}, hang_up="after"),
    ],
    ids=["chunks", "no length"],
)
def test_what_was_taken_for_empty_is_a_changed_source_if_it_is_not(
    faked: Faked, reply: Reply
) -> None:
    storage = faked(reply).storage()
    with pytest.raises(SourceChanged):
        get(storage, ENTRY._replace(size=0))


def test_an_empty_body_in_chunks_is_read(faked: Faked) -> None:
    storage = faked(Reply(200, b"0\r\n\r\n", CHUNKED)).storage()
    for _ in range(2):
        assert get(storage, ENTRY._replace(size=0)) == b""


def test_a_size_that_a_look_does_not_tell_is_that_of_a_listing(faked: Faked) -> None:
    server = faked(Reply(200, b"", CHUNKED), page("object"))
    assert server.storage().stat(b"object").size == 7
    server = faked(Reply(200, b"", CHUNKED), page("object2"))
    with pytest.raises(NotFound):
        server.storage().stat(b"object")


def test_an_object_that_is_decoded_on_its_way_is_not_copied(faked: Faked) -> None:
    """As GCS does what has ``Content-Encoding: gzip``: listed in the size that it is kept in."""

    def answer(request: Request) -> Reply:
        if not request.key:
            return page("object")
        return Reply(200, b"b\r\nthe content\r\n0\r\n\r\n", CHUNKED)

    dst = MemoryStorage(Location("memory", b"", bucket=uuid4().hex))
    outcome = copy(faked(answer).storage(), dst, ENTRY, b"copy", None)
    assert outcome.kind == "changed"
    assert "decoded" in outcome.error
    assert keys_of(dst) == []


# Writing


def test_a_write_sends_the_bytes_their_number_and_what_is_known_of_them(faked: Faked) -> None:
    server = faked(Reply(200, headers={"ETag": f'"{MD5}"'}))
    meta = Meta(
        1_600_000_000_000_000_007,
        0o640,
        1,
        2,
        {"content-type": "text/x-odd", "cache-control": "no-cache"},
        {"note": "a b"},
    )
    stored = put(server.storage(b"p/"), b"d/a b.txt", b"content", meta, size=3)
    assert (stored.etag, stored.md5) == (MD5, MD5)
    (request,) = server.requests
    assert (request.method, request.key, request.body) == ("PUT", b"p/d/a b.txt", b"content")
    headers = request.headers
    assert headers["content-length"] == "7"
    assert "transfer-encoding" not in headers
    assert "content-encoding" not in headers
    assert headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
    assert headers["content-type"] == "text/x-odd"
    assert headers["cache-control"] == "no-cache"
    assert headers["x-amz-meta-note"] == "a b"
    assert headers["x-amz-meta-mtime"] == "1600000000.000000007"
    assert headers["x-amz-meta-mode"] == "0640"
    assert (headers["x-amz-meta-uid"], headers["x-amz-meta-gid"]) == ("1", "2")


@pytest.mark.parametrize(
    ("key", "kind"),
    [(b"a.html", "text/html"), (b"d.html/x", "application/octet-stream"), (b"a.png", "image/png")],
)
def test_a_content_type_is_guessed_from_the_name(faked: Faked, key: bytes, kind: str) -> None:
    server = faked(Reply(200))
    put(server.storage(), key, b"content")
    assert server.requests[0].headers["content-type"] == kind


def test_an_etag_that_is_no_md5_is_not_taken_for_one(faked: Faked) -> None:
    kms = {"x-amz-server-side-encryption": "aws:kms", "ETag": f'"{MD5}"'}
    server = faked(Reply(200, headers=kms), Reply(200, headers={"ETag": '"abc"'}), Reply(200))
    storage = server.storage()
    assert [put(storage, b"object", b"content").md5 for _ in range(3)] == [None] * 3


def test_an_error_behind_a_200_is_no_success_of_a_write(faked: Faked) -> None:
    # There may be an older object of the same size, which nobody could tell from what was sent.
    older = Reply(200, b"", {"ETag": f'"{ETAG}"', "Content-Length": "7"})
    for answer, kind in ((error(200, "InternalError"), TransientError),
                         (error(200, "SlowDown"), Throttled),
                         (error(200, "AccessDenied"), ObjectError)):  # fmt: skip
        storage = faked(answer, older).storage()
        with pytest.raises(kind):
            storage.write(b"object", iter([memoryview(b"content")]), 7, Meta())
        upload = Upload(ENTRY, "id", 7)
        with pytest.raises(kind):
            faked(answer).storage().put_part(b"object", upload, 1, iter([memoryview(b"content")]))


def test_a_server_that_refuses_a_body_before_it_is_sent_is_understood(faked: Faked) -> None:
    server = faked(replace(error(403, "AccessDenied"), read_body=False))
    with pytest.raises(ObjectError) as caught:
        put(server.storage(), b"object", bytes(20 << 20), size=1 << 18)
    assert caught.value.kind == "denied"


@settings(max_examples=60)
@given(st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=10))
def test_every_byte_of_a_key_arrives(names: list[str]) -> None:
    keys = ["/".join(names[: at + 1]).encode(errors="replace") for at in range(len(names))]
    with FakeS3(CONTENT) as server:
        storage = server.storage(b"p +%/")
        for key in keys:
            storage.stat(key)
        assert [request.key for request in server.requests] == [b"p +%/" + key for key in keys]


# Uploads


def xml(name: str, **children: str) -> Reply:
    inside = "".join(f"<{tag}>{text}</{tag}>" for tag, text in children.items())
    return Reply(200, f'<{name} xmlns="http://s3.amazonaws.com/doc/"> {inside}</{name}>'.encode())


ETAG = hashlib.md5(bytes.fromhex(MD5)).hexdigest() + "-1"
DONE = xml("CompleteMultipartUploadResult", ETag=f"&quot;{ETAG}&quot;")
THERE = Reply(200, b"content", {"ETag": f'"{ETAG}"'})
UPLOAD = Upload(ENTRY, "the-id", 7)
PARTS = [Part(1, MD5, None, MD5)]
GONE = error(404, "NoSuchUpload")


def kept_waiting(answer: Reply, before: bool = False) -> Reply:
    """The answer of a store that sends blanks meanwhile, lest the connection be closed."""
    declared = b'<?xml version="1.0" encoding="UTF-8"?>\n'
    body, blanks = answer.body.removeprefix(b'<?xml version="1.0"?>\n'), b" \n" * 2000
    return Reply(200, blanks + declared + body if before else declared + blanks + body)


def complete(server: FakeS3) -> str | None:
    return server.storage().complete(b"object", UPLOAD, PARTS, Meta())


@pytest.mark.parametrize("lost", [*LOST, error(200, "InternalError"), error(200, "SlowDown")])
def test_complete_tries_again(faked: Faked, lost: Reply) -> None:
    server = faked(lost, lost, DONE, THERE)
    assert complete(server) == ETAG
    assert server.told() == ["POST object"] * 3 + ["HEAD object"]
    assert b"<PartNumber>1</PartNumber>" in server.requests[2].body


@pytest.mark.parametrize("before", [False, True])
def test_an_answer_is_known_after_any_number_of_blanks(faked: Faked, before: bool) -> None:
    lost = kept_waiting(BROKEN, before)
    assert complete(faked(lost, kept_waiting(DONE, before), THERE)) == ETAG
    storage = faked(lost).storage()
    with pytest.raises(TransientError):
        storage.copy_from(storage, ENTRY, b"copy")
    with pytest.raises(ObjectError, match="InvalidPart"):
        complete(faked(kept_waiting(error(200, "InvalidPart"), before)))


@pytest.mark.parametrize("lost", [DROPPED, BROKEN, SLOW])
def test_complete_knows_what_a_first_try_did_whose_answer_was_lost(
    faked: Faked, lost: Reply
) -> None:
    assert complete(faked(lost, GONE, THERE)) == ETAG


@pytest.mark.parametrize(
    "there",
    [
        Reply(404),
        Reply(200, b"CONTENT", {"ETag": '"0123456789abcdef0123456789abcdef"'}),
        Reply(200, b"another", {"ETag": '"0123456789abcdef0123456789abcdef-1"'}),
        Reply(200, b"another", {}),
        Reply(200, b"longer content", {"ETag": f'"{ETAG}"'}),
    ],
    ids=["nothing", "a PUT", "another upload", "no etag", "another size"],
)
def test_an_upload_that_is_gone_is_not_found(faked: Faked, there: Reply) -> None:
    with pytest.raises(NotFound):
        complete(faked(GONE, there))


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (error(200, "InternalError"), TransientError),
        (error(200, "InvalidPart"), ObjectError),
        (error(200, "AccessDenied"), ObjectError),
        (error(400, "InvalidPart"), ObjectError),
        (error(400, "EntityTooSmall"), ObjectError),
        (Reply(200, b""), TransientError),
        (Reply(200, b"<CompleteMultipartUploadResult"), TransientError),
    ],
)
def test_an_error_in_the_answer_to_complete_is_no_success(
    faked: Faked, reply: Reply, kind: type[AdsmigError]
) -> None:
    with pytest.raises(kind):
        complete(faked(reply))


def test_an_upload_gone_with_status_200_is_looked_up(faked: Faked) -> None:
    gone = error(200, "NoSuchUpload")
    assert complete(faked(gone, THERE)) == ETAG
    with pytest.raises(NotFound):
        complete(faked(gone, Reply(404)))


def test_a_completed_object_of_the_wrong_size_is_an_error(faked: Faked) -> None:
    with pytest.raises(TransientError):
        complete(faked(DONE, Reply(200, b"conte", {"ETag": f'"{ETAG}"'})))


def test_an_upload_without_an_id_is_an_error(faked: Faked) -> None:
    nothing = xml("ListMultipartUploadsResult")
    for answer in (xml("InitiateMultipartUploadResult"), xml("X", UploadId=""), BROKEN):
        with pytest.raises(TransientError):
            faked(nothing, answer).storage().begin_upload(b"object", ENTRY, Meta())


def uploads(**names: str) -> Reply:
    found = "".join(
        f"<Upload><Key>{key}</Key><UploadId>{name}</UploadId></Upload>"
        for name, key in names.items()
    )
    text = f"<EncodingType>url</EncodingType>{found}"
    return Reply(200, f"<ListMultipartUploadsResult>{text}</ListMultipartUploadsResult>".encode())


@pytest.mark.parametrize("written", ["a+b%2Bc%252F", "a%20b%2Bc%252F", "a b+c%2F"])
def test_only_the_uploads_of_the_very_key_are_strays(faked: Faked, written: str) -> None:
    opened = xml("InitiateMultipartUploadResult", UploadId="new")
    found = uploads(mine=written, other=written + "x", longer=written + "/y")
    server = faked(found, Reply(204), opened)
    upload = server.storage().begin_upload(b"a b+c%2F", ENTRY, Meta())
    assert upload.upload_id == "new"
    removed = [r.query["uploadId"] for r in server.requests if r.method == "DELETE"]
    assert removed == ["mine"]


@pytest.mark.parametrize(
    "refusal",
    [error(403, "AccessDenied"), error(200, "SomethingElse"), error(501, "NotImplemented")],
)
def test_strays_that_may_not_be_listed_do_not_stop_an_upload(faked: Faked, refusal: Reply) -> None:
    opened = xml("InitiateMultipartUploadResult", UploadId="new")
    assert faked(refusal, opened).storage().begin_upload(b"object", ENTRY, Meta())


@pytest.mark.parametrize("etag", [MD5, "1" * 32])
def test_another_version_is_noticed_where_a_store_heeds_no_if_match(
    faked: Faked, etag: str
) -> None:
    """Of an object that was copied inside it, part by part, nothing else would tell."""
    told = Reply(headers={"ETag": f'"{etag}"', "Content-Length": "7"})
    storage = faked(told).storage()
    if etag == MD5:
        assert storage.meta(ENTRY) == Meta()
        return
    with pytest.raises(SourceChanged):
        storage.meta(ENTRY)


def test_strays_that_may_not_be_given_up_do_not_stop_an_upload(faked: Faked) -> None:
    opened = xml("InitiateMultipartUploadResult", UploadId="new")
    server = faked(uploads(mine="object"), error(403, "AccessDenied"), opened)
    assert server.storage().begin_upload(b"object", ENTRY, Meta()).upload_id == "new"
    assert [r.method for r in server.requests] == ["GET", "DELETE", "POST"]


def test_an_upload_beside_others_gives_up_none(faked: Faked) -> None:
    server = faked(xml("InitiateMultipartUploadResult", UploadId="new"))
    assert server.storage().begin_beside(b"object", ENTRY, Meta()).upload_id == "new"
    assert server.told() == ["POST object"]


# Copying inside the service


COPIED = xml("CopyObjectResult", ETag=f"&quot;{MD5}&quot;")


def test_a_copy_names_its_source_and_the_version_of_it(faked: Faked) -> None:
    server = faked(COPIED)
    src, dst = server.storage(b"from/"), server.storage(b"to/")
    entry = ENTRY._replace(key="a b+c%2F/é".encode())
    stored = dst.copy_from(src, entry, b"copy")
    assert stored
    assert (stored.etag, stored.md5) == (MD5, MD5)
    (request,) = server.requests
    assert str(request) == "PUT to/copy"
    assert request.body == b""
    assert request.headers["x-amz-copy-source"] == "/bkt/from/a%20b%2Bc%252F/%C3%A9"
    assert request.headers["x-amz-copy-source-if-match"] == f'"{MD5}"'


@pytest.mark.parametrize("end", ["\0", "\n", "\r"])
@pytest.mark.parametrize("name", ["x-amz-meta-note", "Content-Disposition"])
def test_metadata_that_no_header_can_carry_is_the_objects_fault(
    faked: Faked, end: str, name: str
) -> None:
    src = faked(Reply(200, b"content", {"ETag": f'"{MD5}"', name: f"one{end}two"})).storage()
    server = faked(Reply())
    outcome = copy(src, server.storage(), ENTRY, b"copy", None)
    assert outcome.kind == "metadata"
    assert name.lower() in outcome.error
    with src.read(ENTRY) as body, pytest.raises(ObjectError):
        server.storage().begin_upload(b"copy", ENTRY, body.meta)
    assert server.requests == []


def copied_from(faked: Faked, etag: str, headers: dict[str, str]) -> Outcome:
    """A copy, whose ETag is its MD5, of an object that was listed with 32 zeros for one."""
    told = Reply(headers={"ETag": f'"{etag}"', "Content-Length": "7", **headers})
    server = faked(lambda request: COPIED if request.method == "PUT" else told)
    entry = ENTRY._replace(etag="0" * 32)
    return copy(server.storage(b"from/"), server.storage(b"to/"), entry, b"copy", None)


@pytest.mark.parametrize(
    "headers",
    [{"x-amz-server-side-encryption": "aws:kms"}, {"x-oss-object-type": "Appendable"}],
)
def test_a_copy_of_what_has_no_md5_for_an_etag(faked: Faked, headers: dict[str, str]) -> None:
    assert not copied_from(faked, "0" * 32, headers).error


@pytest.mark.parametrize("etag", ["0" * 32, "1" * 32])
def test_a_copy_of_another_version_is_noticed_by_its_md5(faked: Faked, etag: str) -> None:
    assert copied_from(faked, etag, {}).kind == "changed"


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (error(200, "InternalError"), TransientError),
        (error(200, "SlowDown"), Throttled),
        (error(200, "NoSuchKey"), (SourceChanged, NotFound)),
        (error(200, "PreconditionFailed"), SourceChanged),
        (error(412, "PreconditionFailed"), SourceChanged),
        (error(404, "NoSuchKey"), SourceChanged),
        (Reply(200, b""), TransientError),
        (Reply(200, b"<CopyObjectResu"), TransientError),
    ],
    ids=lambda value: (
        f"{value.status} {value.body[29:].decode()[:30]}" if isinstance(value, Reply) else ""
    ),
)
def test_a_copy_that_failed_is_no_success(
    faked: Faked, reply: Reply, kind: type[AdsmigError]
) -> None:
    storage = faked(reply).storage()
    with pytest.raises(kind):
        storage.copy_from(storage, ENTRY, b"copy")
    with pytest.raises(kind):
        storage.copy_part(storage, b"copy", UPLOAD, 1)


@pytest.mark.parametrize(
    "refusal",
    [error(403, "AccessDenied"), error(501, "NotImplemented"), error(400, "EntityTooLarge")],
)
def test_where_copies_are_refused_the_bytes_pass_through_us(faked: Faked, refusal: Reply) -> None:
    storage = faked(refusal).storage()
    assert storage.copy_from(storage, ENTRY, b"copy") is None
    assert storage.copy_part(storage, b"copy", UPLOAD, 1) is None


def test_only_storages_of_one_service_and_account_copy_inside_it(
    faked: Faked, tmp_path: Any
) -> None:
    one, other = faked(COPIED), faked(COPIED)
    storage = one.storage()
    others = [
        other.storage(),
        one.storage(credentials=Credentials("another", "account")),
        LocalStorage(uri.parse(str(tmp_path)), Options()),
    ]
    for src in others:
        assert storage.copy_from(src, ENTRY, b"copy") is None
        assert storage.copy_part(src, b"copy", UPLOAD, 1) is None
    assert one.requests + other.requests == []


@pytest.fixture(params=["seaweedfs", "minio", "moto"])
def server_place(request: pytest.FixtureRequest, places: Any) -> Iterator[Place]:
    place = places.make(request.param)
    yield place
    place.close()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The methods of all requests."""
    methods: list[str] = []
    real = Wire._send

    def recording(wire: Wire, method: str, *args: Any) -> Any:
        methods.append(method)
        return real(wire, method, *args)

    monkeypatch.setattr(Wire, "_send", recording)
    return methods


def two_sides(place: Place) -> tuple[S3Storage, S3Storage]:
    prefix = place.location.path
    src, dst = (
        place.open(place.beside(prefix + b"src/")),
        place.open(place.beside(prefix + b"dst/")),
    )
    assert isinstance(src, S3Storage)
    assert isinstance(dst, S3Storage)
    return src, dst


META = Meta(
    1_600_000_000_000_000_007,
    0o640,
    12,
    34,
    {"content-type": "text/x-odd", "cache-control": "no-cache"},
    {"note": "two words"},
)


@pytest.mark.parametrize("key", ["object", "d/a b+c%2F&é😀"])
def test_a_copy_inside_the_service_keeps_content_and_metadata(
    server_place: Place, told: list[str], key: str
) -> None:
    src, dst = two_sides(server_place)
    content = b"content" * 1000
    put(src, key.encode(), content, META)
    (entry,) = list(src.list(EVERYTHING))
    told.clear()
    stored = dst.copy_from(src, entry, b"copied/" + entry.key)
    assert told == ["PUT"]
    assert stored
    copied = dst.stat(b"copied/" + entry.key)
    assert (copied.size, copied.etag) == (entry.size, entry.etag)
    with src.read(entry) as original, dst.read(copied) as body:
        assert body.meta == original.meta
        assert body.meta.mtime_ns == META.mtime_ns
        assert drain(body) == content


def test_a_copy_of_another_version_is_a_changed_source(server_place: Place) -> None:
    if server_place.kind == "moto":
        pytest.skip("it does not look at x-amz-copy-source-if-match")
    src, dst = two_sides(server_place)
    put(src, b"object", b"old content")
    entry = src.stat(b"object")
    put(src, b"object", b"NEW CONTENT")
    with pytest.raises(SourceChanged):
        dst.copy_from(src, entry, b"copy")
    src.delete([b"object"])
    with pytest.raises(SourceChanged):
        dst.copy_from(src, entry, b"copy")
    assert keys_of(dst) == []


def test_parts_are_copied_inside_the_service(server_place: Place, told: list[str]) -> None:
    src, dst = two_sides(server_place)
    size = 5 << 20
    content = bytes(range(256)) * (size // 256) + b"the rest"
    put(src, b"large", content, META)
    entry = src.stat(b"large")
    upload = replace(dst.begin_upload(b"copy", entry, META), part_size=size)
    told.clear()
    parts = []
    for number in (1, 2):
        stored = dst.copy_part(src, b"copy", upload, number)
        assert stored
        parts.append(Part(number, stored.etag or "", None, None))
    assert told == ["PUT", "PUT"]
    etag = dst.complete(b"copy", upload, parts, META)
    assert content_of(dst, b"copy") == content
    with dst.read(dst.stat(b"copy")) as body:
        assert body.meta.mtime_ns == META.mtime_ns
        assert body.meta.user["note"] == "two words"
    assert dst.complete(b"copy", upload, parts, META) == etag  # the first answer was lost


def test_odd_keys_are_tried_once_and_leave_nothing_behind(
    server_place: Place, told: list[str]
) -> None:
    storage = server_place.open()
    put(storage, b"plain", b"")
    for _ in range(3):
        for key in (b"d//e", b"d/./e", b"d\\e"):
            try:
                put(storage, key, b"content")
                storage.delete([key])
            except ObjectError:
                pass
    assert keys_of(storage) == [b"plain"]
    # The plain one, one trial for each kind of key, and at most three writes of each.
    assert told.count("PUT") <= 1 + 3 + 9


# Pruning


LARGE = [b"p/ex/%05d" % number for number in range(10_000)] + [b"p/a", b"p/ex-/x", b"p/f", b"q"]


@pytest.mark.parametrize("by_directory", [False, True], ids=["flat", "walk"])
@pytest.mark.parametrize(
    ("within", "found", "most"),
    [
        (EVERYTHING, [b"a", b"ex-/x", b"f"], 2),
        (KeyRange(b"ex/05000", None), [b"f"], 2),
        (KeyRange(b"ex/05000", None, True), [b"f"], 2),
        (KeyRange(b"ex/05000", b"ex/06000"), [], 1),
        (KeyRange(b"a", b"ex/06000"), [b"ex-/x"], 2),
    ],
)
def test_a_pruned_directory_of_ten_thousand_keys_costs_at_most_two_pages(
    faked: Faked, by_directory: bool, within: KeyRange, found: list[bytes], most: int
) -> None:
    server = faked(listing_of(LARGE))
    storage = server.storage(b"p/", Options(by_directory=by_directory))
    assert [e.key for e in storage.list(within, lambda name: name == b"ex/")] == found
    walked = by_directory and b"ex-/x" in found  # that one is a directory of its own
    assert len(server.requests) <= most + walked
    assert not [one for one in server.requests if one.method != "GET"]
    if not by_directory:
        starts = [request.query.get("start-after") for request in server.requests]
        assert starts in (
            [],
            [None, "p/ex/\xf4\x8f\xbf\xbf"],
            ["p/a", "p/ex/\xf4\x8f\xbf\xbf"],
            ["p/a"],
            ["p/ex/\xf4\x8f\xbf\xbf"],
        )


# Deleting


def deleted(**errors: str) -> Reply:
    """An answer to DeleteObjects in which these keys have these errors."""
    found = "".join(
        f"<Error><Key>{key}</Key><Code>{code}</Code><Message>because of it</Message></Error>"
        for key, code in errors.items()
    )
    space = "http://s3.amazonaws.com/doc/2006-03-01/"
    return Reply(
        200, f'<?xml version="1.0"?><DeleteResult xmlns="{space}">{found}</DeleteResult>'.encode()
    )


def asked(request: Request) -> list[bytes]:
    """The keys that a request is to delete."""
    if request.method == "DELETE":
        return [request.key]
    assert str(request) == "POST "
    assert request.query == {"delete": ""}
    root = ElementTree.fromstring(request.body)
    return [(node.text or "").encode() for node in root.iter() if node.tag.endswith("}Key")]


def test_many_objects_are_deleted_with_one_request(faked: Faked) -> None:
    server = faked(deleted())
    keys = [b"a b", "é&<>\"'😀".encode(), b"d/e", b"%2F+", b"]]>"]
    assert server.storage(b"p/").delete(keys) == {}
    (request,) = server.requests
    assert asked(request) == [b"p/" + key for key in keys]
    assert b"<Quiet>true</Quiet>" in request.body
    digest = base64.b64encode(hashlib.md5(request.body).digest()).decode()
    assert request.headers["content-md5"] == digest
    assert request.headers["content-length"] == str(len(request.body))
    assert not [name for name in request.headers if "checksum" in name or "trailer" in name]


def test_a_request_deletes_a_thousand_objects_at_most(faked: Faked) -> None:
    server = faked(deleted())
    keys = [b"%04d" % number for number in range(2500)]
    assert server.storage().delete(keys + keys[:10]) == {}
    chunks = [asked(request) for request in server.requests]
    assert [len(chunk) for chunk in chunks] == [1000, 1000, 500]
    assert [key for chunk in chunks for key in chunk] == keys


def test_one_object_is_deleted_by_name(faked: Faked) -> None:
    server = faked(Reply(204))
    assert server.storage().delete([b"a"]) == {}
    assert server.told() == ["DELETE a"]


@pytest.mark.parametrize("name", ["AccessDenied", "InvalidRequest", "NoSomething"])
def test_a_key_that_could_not_be_deleted_is_named_with_its_reason(faked: Faked, name: str) -> None:
    server = faked(deleted(b=name))
    problems = server.storage().delete([b"a", b"b", b"c"])
    assert list(problems) == [b"b"]
    assert name in problems[b"b"]
    assert len(server.requests) == 1


@pytest.mark.parametrize("name", ["InternalError", "SlowDown", "ServiceUnavailable"])
def test_keys_that_could_not_be_deleted_now_are_asked_for_again(faked: Faked, name: str) -> None:
    server = faked(deleted(b=name, c="AccessDenied", d=name), deleted(d=name), deleted())
    problems = server.storage().delete([b"a", b"b", b"c", b"d"])
    assert list(problems) == [b"c"]
    assert [asked(one) for one in server.requests] == [
        [b"a", b"b", b"c", b"d"],
        [b"b", b"d"],
        [b"d"],
    ]


def test_a_key_that_can_never_be_deleted_is_given_up(faked: Faked) -> None:
    server = faked(deleted(b="InternalError", c="NoSuchKey"), deleted(b="InternalError"))
    problems = server.storage().delete([b"a", b"b", b"c"])
    assert list(problems) == [b"b"]
    assert "InternalError" in problems[b"b"]
    assert len(server.requests) == TRIES
    server = faked(BROKEN)
    assert list(server.storage().delete([b"a"])) == [b"a"]
    assert list(server.storage().delete([b"a", b"b"])) == [b"a", b"b"]


def test_a_store_that_wants_fewer_requests_for_ever_is_an_error(faked: Faked) -> None:
    for answer in (deleted(b="SlowDown"), SLOW):
        with pytest.raises(Throttled):
            faked(answer).storage().delete([b"a", b"b"])
    with pytest.raises(Throttled):
        faked(SLOW).storage().delete([b"a"])


@pytest.mark.parametrize("lost", [*LOST, Reply(200, b"<DeleteResult"), error(200, "InternalError")])
def test_an_answer_to_a_deletion_that_was_lost_is_asked_for_again(
    faked: Faked, lost: Reply
) -> None:
    server = faked(lost, lost, deleted())
    assert server.storage().delete([b"a", b"b"]) == {}
    assert [asked(one) for one in server.requests] == [[b"a", b"b"]] * 3


@pytest.mark.parametrize(
    "refusal",
    [
        error(501, "NotImplemented"),
        error(405, "MethodNotAllowed"),
        error(400, "MalformedXML"),
        error(400, "InvalidRequest"),
        error(404, "NoSuchKey"),
        error(200, "NotImplemented"),
        Reply(501),
        Reply(405),
        Reply(400),
        Reply(404),
        Reply(200, b"<html/>"),
        deleted(other="AccessDenied"),
        Reply(200, b"<DeleteResult><Error><Code>AccessDenied</Code></Error></DeleteResult>"),
    ],
    ids=lambda reply: f"{reply.status} {reply.body[-60:].decode()}",
)
def test_where_many_cannot_be_deleted_at_once_they_are_one_by_one(
    faked: Faked, refusal: Reply
) -> None:
    server = faked(refusal, Reply(204), error(404, "NoSuchKey"), error(403, "AccessDenied"))
    problems = server.storage().delete([b"a", b"b", b"c"])
    assert list(problems) == [b"c"]
    assert server.told() == ["POST ", "DELETE a", "DELETE b", "DELETE c"]


def test_an_answer_without_a_body_says_that_all_is_well(faked: Faked) -> None:
    for answer in (Reply(200), Reply(204)):
        server = faked(answer)
        assert server.storage().delete([b"a", b"b"]) == {}
        assert len(server.requests) == 1


def test_a_deletion_that_is_not_allowed_is_a_reason_for_every_key(faked: Faked) -> None:
    server = faked(error(403, "AccessDenied"))
    problems = server.storage().delete([b"a", b"b", b"c"])
    assert list(problems) == [b"a", b"b", b"c"]
    assert all("AccessDenied" in problem for problem in problems.values())
    assert len(server.requests) == 1
    assert "AccessDenied" in server.storage().delete([b"a"])[b"a"]


@pytest.mark.parametrize("refusal", [error(404, "NoSuchBucket"), error(403, "InvalidAccessKeyId")])
@pytest.mark.parametrize("keys", [[b"a"], [b"a", b"b"]])
def test_a_deletion_that_no_key_is_to_blame_for_is_an_error(
    faked: Faked, refusal: Reply, keys: list[bytes]
) -> None:
    for answer in (refusal, *([deleted(a="InvalidAccessKeyId")] if len(keys) > 1 else [])):
        with pytest.raises(AdsmigError) as caught:
            faked(answer).storage().delete(keys)
        assert not isinstance(caught.value, (ObjectError, TransientError))


FRAGILE = [
    "\x01",
    "a\x0bb",
    "a\tb",
    "a\nb",
    "a\rb",
    " a",
    "a ",
    "\xa0a",
    "a\u3000",
    "a\x7fb",
    "\x85",
]
FRAGILE += ["a\u2028b", "\ufffe", "a\uffff"]


def test_keys_that_a_document_cannot_carry_are_deleted_by_name(faked: Faked) -> None:
    keys = [key.encode() for key in FRAGILE] + [b"\xff", "\ud800".encode("utf-8", "surrogatepass")]
    server = faked(deleted())
    assert server.storage().delete([b"a", *keys, b"a b", "\ufeff\ufffd".encode()]) == {}
    assert asked(server.requests[0]) == [b"a", b"a b", "\ufeff\ufffd".encode()]
    assert [asked(one) for one in server.requests[1:]] == [[key] for key in keys]


@given(st.text(min_size=1, max_size=20))
def test_a_key_that_survives_xml_does(text: str) -> None:
    key = text.encode("utf-8", "surrogatepass")
    if survives_xml(key):
        document = f'<?xml version="1.0" encoding="UTF-8"?><a>{escape(text)}</a>'.encode()
        found = ElementTree.fromstring(document).text or ""
        assert found.strip().encode() == found.encode() == key


def test_the_bucket_is_never_deleted(faked: Faked) -> None:
    server = faked(Reply(204))
    assert server.storage().delete([b""]) == {}
    assert server.requests == []


@pytest.mark.parametrize("others", [[], [b"x", b"y"]])
def test_a_key_that_ends_in_a_slash_is_looked_for_first(faked: Faked, others: list[bytes]) -> None:
    """Some store may take ``f/`` for ``f``."""
    for there, gone in ((page("d/"), True), (page("d/x"), False), (page(), False)):
        server = faked(there, *([deleted()] if others else [Reply(204)]))
        assert server.storage().delete([b"d/", *others]) == {}
        assert (server.requests[0].query["prefix"], server.requests[0].method) == ("d/", "GET")
        found = [key for request in server.requests[1:] for key in asked(request)]
        assert found == [b"d/"] * gone + others


def test_a_gateway_before_files_is_asked_about_every_key(faked: Faked) -> None:
    def answer(request: Request) -> Reply:
        if "versioning" in request.query:
            return error(501, "NotImplemented")
        if request.method == "HEAD":
            return Reply(200 if request.key == b"a" else 404)
        return Reply(204)

    server = faked(answer)
    storage = server.storage(server="MinIO")
    assert storage.delete([b"a", b"b"]) == {}
    assert server.told() == ["GET ", "HEAD a", "HEAD b", "DELETE a"]
    server.requests.clear()
    assert storage.delete([b"a"]) == {}
    assert server.told() == ["HEAD a", "DELETE a"]


@pytest.mark.parametrize(
    "answer", [Reply(200, b"<VersioningConfiguration/>"), error(403, "AccessDenied"), Reply(404)]
)
def test_a_minio_of_its_own_deletes_many_at_once(faked: Faked, answer: Reply) -> None:
    server = faked(answer, deleted())
    assert server.storage(server="MinIO").delete([b"a", b"b"]) == {}
    assert server.told() == ["GET ", "POST "]


def test_an_odd_key_that_may_not_be_tried_is_not_deleted(faked: Faked) -> None:
    """What writes nothing does not tell how keys are kept."""

    def answer(request: Request) -> Reply:
        return error(403, "AccessDenied") if request.method == "PUT" else Reply(204)

    server = faked(answer)
    problems = server.storage().delete([b"a//b"])
    assert "AccessDenied" in problems[b"a//b"]
    assert not [one for one in server.requests if one.method == "DELETE"]


@pytest.mark.parametrize("others", [[], [b"x", b"y"]])
def test_a_marker_is_deleted_from_above_its_content(
    server_place: Place, others: list[bytes]
) -> None:
    storage = server_place.open()
    put(storage, b"d/")
    put(storage, b"d/x", b"content")
    assert storage.delete([b"d/", *others]) == {}
    assert keys_of(storage) == [b"d/x"]
    assert content_of(storage, b"d/x") == b"content"


def test_deleting_leaves_no_directory_behind(server_place: Place) -> None:
    storage = server_place.open()
    keys = [b"d/e/%d" % number for number in range(20)] + [b"d/g/h/i", b"d/x"]
    for key in keys:
        put(storage, key, b"content")
    assert storage.delete(keys) == {}
    assert keys_of(storage) == []


def test_a_deletion_with_many_requests_is_checked_by_its_md5(server_place: Place) -> None:
    storage, told = server_place.open(), list[int]()
    for key in (b"a", b"b", b"c"):
        put(storage, key)
    assert isinstance(storage, S3Storage)
    real = storage._wire.request

    def counting(*args: Any, **options: Any) -> Any:
        told.append(args[0])
        return real(*args, **options)

    storage._wire.request = counting  # type: ignore[method-assign]
    assert storage.delete([b"a", b"c"]) == {}
    assert ("POST" in told) == (server_place.kind != "minio")
    assert keys_of(storage) == [b"b"]


# What is chosen for a destination


CHOSEN = Options(storage_class="STANDARD_IA", sse="aws:kms:arn:aws:kms:eu:1:key/2")
CHOICE = {
    "x-amz-storage-class": "STANDARD_IA",
    "x-amz-server-side-encryption": "aws:kms",
    "x-amz-server-side-encryption-aws-kms-key-id": "arn:aws:kms:eu:1:key/2",
}


def chosen(request: Request) -> dict[str, str]:
    return {name: value for name, value in request.headers.items() if name in CHOICE}


def write_all_ways(storage: S3Storage) -> None:
    put(storage, b"object", b"content")
    storage.copy_from(storage, ENTRY, b"copy")
    storage.begin_upload(b"object", ENTRY, Meta())


def test_storage_class_and_encryption_go_with_what_makes_an_object(faked: Faked) -> None:
    def answer(request: Request) -> Reply:
        if request.method == "HEAD":
            return CONTENT
        return deleted() if "delete" in request.query else xml("Answer", UploadId="id", ETag=MD5)

    server = faked(answer)
    storage = server.storage(options=CHOSEN, destination=True)
    write_all_ways(storage)
    made = [one for one in server.requests if one.method in ("PUT", "POST")]
    assert [chosen(one) for one in made] == [CHOICE] * 3
    assert [chosen(one) for one in server.requests if one not in made] == [{}]
    server.requests.clear()
    send_part(storage, b"object", UPLOAD, 1, b"content")
    storage.copy_part(storage, b"copy", UPLOAD, 1)
    storage.complete(b"object", UPLOAD, PARTS, Meta())
    storage.delete([b"object"])
    storage.delete([b"object", b"copy"])
    storage.delete([b"a//b"])
    assert len(server.requests) > 6
    assert [chosen(one) for one in server.requests] == [{}] * len(server.requests)


@pytest.mark.parametrize("sse", ["AES256", "aws:kms", ""])
def test_encryption_without_a_key_names_none(faked: Faked, sse: str) -> None:
    server = faked(Reply(200))
    storage = server.storage(options=Options(sse=sse), destination=True)
    put(storage, b"object", b"content")
    wanted = {"x-amz-server-side-encryption": sse} if sse else {}
    assert chosen(server.requests[0]) == wanted
    assert storage.etag_is_md5 == (sse != "aws:kms")


def test_a_source_has_nothing_chosen(faked: Faked) -> None:
    server = faked(xml("Answer", UploadId="id", ETag=MD5))
    storage = server.storage(options=CHOSEN)
    write_all_ways(storage)
    assert [chosen(one) for one in server.requests] == [{}] * 4
    assert storage.etag_is_md5


def opened(place: Place, destination: bool = True, **options: Any) -> S3Storage:
    storage = S3Storage(place.location, Options(**options), destination)
    place.opened.append(storage)
    return storage


def test_a_storage_class_is_kept_and_listed(server_place: Place) -> None:
    chosen = "REDUCED_REDUNDANCY" if server_place.kind == "minio" else "STANDARD_IA"
    storage, plain = opened(server_place, storage_class=chosen), opened(server_place)
    put(storage, b"a", b"content")
    put(plain, b"b", b"content")
    plain.copy_from(plain, plain.stat(b"b"), b"c")
    storage.copy_from(plain, plain.stat(b"b"), b"d")
    upload = storage.begin_upload(b"e", ENTRY, Meta())
    storage.complete(b"e", upload, [send_part(storage, b"e", upload, 1, b"content")], Meta())
    wanted = {b"a": chosen, b"b": "", b"c": "", b"d": chosen, b"e": chosen}
    if server_place.kind == "minio":
        wanted = dict.fromkeys(wanted, "")  # it takes the class, and keeps none
    assert {entry.key: entry.storage_class for entry in plain.list(EVERYTHING)} == wanted
    assert {key: plain.stat(key).storage_class for key in wanted} == wanted
    with pytest.raises(ObjectError):
        put(opened(server_place, storage_class="NONSENSE"), b"f", b"content")


def test_encryption_under_a_key_is_taken_for_no_md5(places: Any) -> None:
    place = places.make("moto")  # the others have no keys
    for sse, md5 in (("AES256", MD5), ("aws:kms", None), ("aws:kms:the-key", None)):
        storage = opened(place, sse=sse)
        assert put(storage, b"object", b"content").md5 == md5
        assert content_of(storage, b"object") == b"content"
        copied = storage.copy_from(storage, storage.stat(b"object"), b"copy")
        assert copied
        assert copied.md5 == md5
        client = place.server.client()
        for key in ("object", "copy"):
            where = {"Bucket": place.location.bucket, "Key": place.location.path.decode() + key}
            head = client.head_object(**where)
            assert head["ServerSideEncryption"] == sse[:7]
            assert head.get("SSEKMSKeyId", "") == sse[8:]
    place.close()


# Tags


TAGGING = (
    b'<Tagging xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><TagSet>'
    b"<Tag><Key>a b</Key><Value>\xc3\xa9=+&amp;</Value></Tag><Tag><Key>empty</Key><Value/></Tag>"
    b"</TagSet></Tagging>"
)
TAGS = "a%20b=%C3%A9%3D%2B%26&empty="
WITH_TAGS = Options(tags=True)


def tagged(count: str = "", tagging: Reply = Reply(200, TAGGING)) -> Callable[[Request], Reply]:  # noqa: B008
    def answer(request: Request) -> Reply:
        if "tagging" in request.query:
            return tagging
        size = {"ETag": f'"{MD5}"'} | ({"x-amz-tagging-count": count} if count else {})
        return Reply(200, b"content", size)

    return answer


def tags_read(storage: S3Storage, entry: Entry = ENTRY) -> list[str]:
    with storage.read(entry) as body:
        assert drain(body) == b"content"
    return [body.meta.tags, storage.meta(entry).tags]


def questions(server: FakeS3) -> int:
    return sum("tagging" in request.query for request in server.requests)


@pytest.mark.parametrize("count", ["2", ""], ids=["counted", "not counted"])
def test_tags_come_with_the_object(faked: Faked, count: str) -> None:
    server = faked(tagged(count))
    assert tags_read(server.storage(options=WITH_TAGS)) == [TAGS, TAGS]
    assert questions(server) == 2
    assert {request.key for request in server.requests} == {b"object"}


def test_tags_are_read_only_when_they_are_wanted(faked: Faked) -> None:
    server = faked(tagged("2"))
    assert tags_read(server.storage()) == ["", ""]
    assert tags_read(server.storage(options=WITH_TAGS, destination=True)) == ["", ""]
    span = Reply(206, b"nten", {"Content-Range": "bytes 2-5/7", "x-amz-tagging-count": "2"})
    assert get(faked(span).storage(options=WITH_TAGS), ENTRY, 2, 4) == b"nten"
    assert questions(server) == 0


def test_a_store_that_counts_is_not_asked_in_vain(faked: Faked) -> None:
    server = faked(tagged())
    storage = server.storage(options=WITH_TAGS)
    tags_read(storage)
    assert questions(server) == 2  # nothing said yet that it counts
    server.answers = [tagged("1")]
    tags_read(storage)
    assert questions(server) == 4
    server.answers = [tagged()]
    assert tags_read(storage) == ["", ""]
    server.answers = [tagged("0")]
    assert tags_read(storage) == ["", ""]
    assert questions(server) == 4


@pytest.mark.parametrize(
    "reply", [error(501, "NotImplemented"), error(405, "MethodNotAllowed"), Reply(501), Reply(405)]
)
def test_a_store_without_tags_is_asked_once(faked: Faked, reply: Reply) -> None:
    server = faked(tagged(tagging=reply))
    assert tags_read(server.storage(options=WITH_TAGS)) == ["", ""]
    assert questions(server) == 1


@pytest.mark.parametrize("reply", [error(404, "NoSuchTagSet"), error(404, "NoSuchKey"), Reply(404)])
def test_an_object_that_the_store_finds_no_tags_of_has_none(faked: Faked, reply: Reply) -> None:
    assert tags_read(faked(tagged(tagging=reply)).storage(options=WITH_TAGS)) == ["", ""]


@pytest.mark.parametrize("count", ["2", ""])
@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (error(403, "AccessDenied"), ObjectError),
        (error(400, "InvalidTag"), ObjectError),
        (BROKEN, TransientError),
        (SLOW, Throttled),
        (Reply(200, b"<Tagg"), TransientError),
        (error(200, "InternalError"), TransientError),
    ],
    ids=lambda value: (
        f"{value.status} {value.body[-70:].decode()}" if isinstance(value, Reply) else ""
    ),
)
def test_tags_are_never_lost_in_silence(
    faked: Faked, count: str, reply: Reply, kind: type[AdsmigError]
) -> None:
    storage = faked(tagged(count, reply)).storage(options=WITH_TAGS)
    for unit in (lambda: storage.read(ENTRY), lambda: storage.meta(ENTRY)):
        with pytest.raises(kind) as caught:
            unit()
        assert reply.status != 403 or getattr(caught.value, "kind", "") == "denied"
    assert get(faked(CONTENT).storage(), ENTRY) == b"content"


def test_an_object_that_goes_before_its_tags_are_read_is_a_changed_source(faked: Faked) -> None:
    storage = faked(tagged("2", error(404, "NoSuchKey"))).storage(options=WITH_TAGS)
    with pytest.raises(SourceChanged):
        storage.read(ENTRY)


def test_tags_are_written_with_the_object(faked: Faked) -> None:
    server = faked(xml("Answer", UploadId="id", ETag=MD5))
    storage = server.storage(destination=True)
    put(storage, b"object", b"content", Meta(tags=TAGS))
    storage.begin_upload(b"object", ENTRY, Meta(tags=TAGS))
    assert [one.headers.get("x-amz-tagging") for one in server.requests] == [TAGS, None, TAGS]
    server.requests.clear()
    put(storage, b"object", b"content")
    storage.copy_from(storage, ENTRY, b"copy")
    send_part(storage, b"object", UPLOAD, 1, b"content")
    assert not [one for one in server.requests if "x-amz-tagging" in str(one.headers)]


def in_order(tags: str) -> list[str]:
    return sorted(tags.split("&"))


def test_tags_go_from_store_to_store(server_place: Place, told: list[str]) -> None:
    src, dst = opened(server_place, False, tags=True), opened(server_place, tags=True)
    tags = "a%20b=%C3%A9%2B%3D&c=&d%2Fe=f%3Ag%40h.i-j_k"
    put(dst, b"small", b"content", Meta(tags=tags))
    upload = dst.begin_upload(b"large", ENTRY, Meta(tags=tags))
    dst.complete(b"large", upload, [send_part(dst, b"large", upload, 1, b"content")], Meta())
    dst.copy_from(dst, dst.stat(b"small"), b"copied")
    put(dst, b"none", b"content")
    for key in (b"small", b"large", b"copied"):
        assert [in_order(found) for found in tags_read(src, src.stat(key))] == [in_order(tags)] * 2
    told.clear()
    assert tags_read(src, src.stat(b"none")) == ["", ""]
    assert told == ["HEAD", "GET", "HEAD"]  # all three servers count


# Anonymous


def test_anonymous_requests_are_not_signed(faked: Faked) -> None:
    server = faked(page("a"), CONTENT)
    storage = server.storage(anonymous=True)
    assert keys_of(storage) == [b"a"]
    assert get(storage, ENTRY) == b"content"
    for request in server.requests:
        assert "the-" not in str(request.headers)
        assert not {"authorization", "x-amz-date", "x-amz-security-token"} & set(request.headers)
    refused = faked(error(403, "AccessDenied")).storage(anonymous=True)
    with pytest.raises(AdsmigError):
        keys_of(refused)


def test_a_public_bucket_is_read_without_credentials(server_place: Place) -> None:
    put(server_place.open(), b"d/object", b"content", META)
    assert server_place.server
    bucket = server_place.location.bucket
    what = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    rule = {"Effect": "Allow", "Principal": "*", "Action": ["s3:GetObject", "s3:ListBucket"]}
    policy = {"Version": "2012-10-17", "Statement": [{**rule, "Resource": what}]}
    server_place.server.client().put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
    for credentials in (None, server_place.location.credentials, Credentials("no", "such")):
        where = replace(server_place.location, anonymous=True, credentials=credentials)
        storage = server_place.open(where, destination=False)
        storage.prepare()
        (entry,) = list(storage.list(EVERYTHING))
        assert get(storage, entry) == b"content"
        if server_place.kind != "moto":  # it lets anybody write, and nobody ask for a HEAD
            assert storage.meta(entry).mtime_ns == META.mtime_ns
            assert storage.stat(b"d/object").size == 7
            with pytest.raises(ObjectError):
                put(storage, b"new", b"content")
            assert list(storage.delete([b"d/object"])) == [b"d/object"]
    server_place.server.client().delete_bucket_policy(Bucket=bucket)


def test_an_anonymous_location_is_the_same_place() -> None:
    here = uri.parse("s3://a:b@bkt.example.com/p/")
    assert replace(here, anonymous=True).identity == here.identity
    assert repr(replace(here, anonymous=True)) == repr(here)
    assert not here.anonymous
