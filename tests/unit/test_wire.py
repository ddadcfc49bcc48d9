"""HTTP as it can really be, served byte by byte from a socket."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

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
from adsmig.location import Credentials
from adsmig.retry import TRIES
from adsmig.routes import Route
from adsmig.storage import wire as module
from adsmig.storage.http import BadAnswer, Connection
from adsmig.storage.response import Response
from adsmig.storage.s3errors import error_code, error_of
from adsmig.storage.wire import Wire

KEYS = Credentials("AKIDSECRETID", "secret/secret+secret", "tokensecret")


class Answer(NamedTuple):
    """What to send for one request, and what to do with the connection."""

    data: bytes
    early: bool = False
    """Answer when the head was read, before the body."""
    close: bool = False
    reset: bool = False
    """Close with a RST."""
    wait_for: threading.Event | None = None
    """Answer only then."""


class Request(NamedTuple):
    connection: int
    """From 1, by when it was accepted."""
    line: bytes
    headers: dict[bytes, bytes]
    """Lower-case names."""
    body: bytes


def ok(body: bytes = b"", headers: bytes = b"", status: bytes = b"200 OK") -> Answer:
    return Answer(
        b"HTTP/1.1 %s\r\nContent-Length: %d\r\n%s\r\n%s" % (status, len(body), headers, body)
    )


def error(status: int, code: str = "", message: str = "") -> Answer:
    document = (
        f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    )
    return ok(document.encode() if code else b"", status=b"%d Some Words" % status)


class Server:
    """Gives each request the next of ``answers``, whatever was asked."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[Request] = []
        self.connections: list[socket.socket] = []
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self.connections:
            connection.close()

    def hang_up(self) -> None:
        """Closes all connections that are open now."""
        for connection in self.connections:
            with connection, contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(20)
            self.connections.append(connection)
            threading.Thread(
                target=self._serve, args=(connection, len(self.connections)), daemon=True
            ).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        try:
            with connection.makefile("rb") as file:
                while self._one(connection, number, file):
                    pass
        except (OSError, ValueError):
            connection.close()

    def _one(self, connection: socket.socket, number: int, file: Any) -> bool:
        line = file.readline()
        if not line:
            connection.close()
            return False
        headers = {}
        while (header := file.readline().rstrip(b"\r\n")) != b"":
            name, _, value = header.partition(b": ")
            before = headers.get(name.lower())
            headers[name.lower()] = value if before is None else before + b", " + value
        with self._lock:
            answer = self.answers.pop(0) if self.answers else Answer(b"", close=True)
        if answer.wait_for:
            answer.wait_for.wait(20)
        size = int(headers.get(b"content-length", b"0"))
        body = b"" if answer.early else file.read(size)
        with self._lock:
            self.requests.append(Request(number, line.rstrip(), headers, body))
        connection.sendall(answer.data)
        if answer.reset:
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        if answer.close or answer.reset:
            file.close()
            connection.close()
            return False
        if answer.early:
            file.read(size)
        return True


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


MakeWire = Callable[..., Wire]


@pytest.fixture
def make_wire(server: Server) -> Iterator[MakeWire]:
    made: list[Wire] = []

    def make(host: str = server.host, read_timeout_s: float = 20, **options: Any) -> Wire:
        settings: dict[str, Any] = {
            "region": "us-east-1",
            "credentials": lambda: KEYS,
            "connect_timeout_s": 20,
            **options,
        }
        made.append(Wire(host, read_timeout_s=read_timeout_s, **settings))
        return made[-1]

    yield make
    for wire in made:
        wire.close()


@pytest.fixture
def wire(make_wire: MakeWire) -> Wire:
    return make_wire()


def chunks(*parts: bytes) -> Iterator[memoryview]:
    return iter(map(memoryview, parts))


def used(server: Server) -> list[int]:
    """The connection that each request came over."""
    return [request.connection for request in server.requests]


# What is sent


def test_a_request_is_sent_as_it_was_signed(server: Server, wire: Wire) -> None:
    server.answers = [ok(b"body", b"X-A: b\r\n")]
    answer = wire.request(
        "PUT", "/b/é//./ +".encode(), {"uploads": "", "prefix": b"\xff/"}, {"x-amz-meta-a": "b"},
        b"content",
    )  # fmt: skip
    assert (answer.status, answer.body, answer.header("x-a")) == (200, b"body", "b")
    (request,) = server.requests
    assert request.line == b"PUT /b/%C3%A9//./%20%2B?prefix=%FF%2F&uploads= HTTP/1.1"
    assert request.body == b"content"
    assert request.headers[b"host"] == server.host.encode()
    assert request.headers[b"content-length"] == b"7"
    assert request.headers[b"x-amz-content-sha256"] == b"UNSIGNED-PAYLOAD"
    assert request.headers[b"x-amz-security-token"] == b"tokensecret"
    assert b"x-amz-meta-a" in request.headers[b"authorization"]
    assert b"accept-encoding" not in request.headers


def test_nothing_is_signed_for_somebody_without_keys(server: Server, make_wire: MakeWire) -> None:
    server.answers = [ok()]
    make_wire(credentials=lambda: None).request("GET", b"/")
    assert server.requests[0].line == b"GET / HTTP/1.1"
    assert not any(name.startswith((b"x-amz", b"auth")) for name in server.requests[0].headers)


def test_keys_are_asked_for_every_time(server: Server, make_wire: MakeWire) -> None:
    server.answers = [ok(), ok()]
    several = iter([Credentials("first", "s"), Credentials("second", "s")])
    wire = make_wire(credentials=lambda: next(several))
    for _ in range(2):
        wire.request("GET", b"/")
    for name, request in zip((b"first", b"second"), server.requests, strict=True):
        assert b"Credential=%s/" % name in request.headers[b"authorization"]


def test_a_body_can_come_in_chunks_of_a_known_size(server: Server, wire: Wire) -> None:
    server.answers = [ok()]
    wire.request("PUT", b"/k", body=chunks(b"a" * 100_000, b"", b"b" * 5), size=100_005)
    assert server.requests[0].body == b"a" * 100_000 + b"b" * 5
    assert server.requests[0].headers[b"content-length"] == b"100005"
    assert b"transfer-encoding" not in server.requests[0].headers


@pytest.mark.parametrize(
    ("method", "body", "length"),
    [("PUT", None, b"0"), ("PUT", b"", b"0"), ("POST", None, b"0"), ("GET", None, None),
     ("HEAD", None, None), ("DELETE", None, None)],
)  # fmt: skip
def test_a_request_without_a_body_says_so_where_one_is_expected(
    server: Server, wire: Wire, method: str, body: bytes | None, length: bytes | None
) -> None:
    server.answers = [ok()]
    wire.request(method, b"/", body=body)
    assert server.requests[0].headers.get(b"content-length") == length


def test_header_values_pass_as_bytes_both_ways(server: Server, wire: Wire) -> None:
    text = "é💥".encode()
    server.answers = [ok(headers=b"X-Amz-Meta-A: \xff" + text + b'\r\nETag: W/"ab"\r\n')]
    answer = wire.request("PUT", b"/", headers={"x-amz-meta-a": (text + b"\xff").decode("latin-1")})
    assert server.requests[0].headers[b"x-amz-meta-a"] == text + b"\xff"
    assert answer.header("x-amz-meta-a").encode("latin-1") == b"\xff" + text
    assert answer.etag == "ab"
    assert answer.header("nothing", "default") == "default"


def test_the_server_is_known_once_it_has_answered(server: Server, wire: Wire) -> None:
    assert wire.servers == set()
    server.answers = [ok(headers=b"Server: SeaweedFS 4\r\n"), ok()]
    wire.request("GET", b"/")
    wire.request("GET", b"/")
    assert wire.servers == {"SeaweedFS 4", ""}
    assert "tokensecret" not in repr(wire)


# Connections


def test_a_thread_keeps_one_connection(server: Server, wire: Wire) -> None:
    server.answers = [ok(b"1"), ok(status=b"204 No Content"), error(404, "NoSuchKey"), ok(b"4")]
    wire.request("GET", b"/")
    wire.request("DELETE", b"/")
    with pytest.raises(NotFound):
        wire.request("GET", b"/")
    assert wire.request("PUT", b"/", body=chunks(b"x"), size=1).body == b"4"
    assert used(server) == [1, 1, 1, 1]


def test_each_thread_has_a_connection_of_its_own(server: Server, wire: Wire) -> None:
    server.answers = [ok() for _ in range(6)]

    def work() -> None:
        for _ in range(3):
            wire.request("GET", b"/")
        wire.close()

    for _ in range(2):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert used(server) == [1, 1, 1, 2, 2, 2]


def test_close_drops_the_connection_and_the_next_request_opens_another(
    server: Server, wire: Wire
) -> None:
    server.answers = [ok(), ok()]
    wire.request("GET", b"/")
    wire.close()
    wire.request("GET", b"/")
    assert used(server) == [1, 2]


def test_a_connection_that_the_server_closed_meanwhile_is_worth_another_try_at_once(
    server: Server, wire: Wire
) -> None:
    server.answers = [ok()]
    wire.request("GET", b"/")
    server.hang_up()
    server.answers = [ok(b"again")]
    with pytest.raises(TransientError) as caught:
        wire.request("GET", b"/")
    assert caught.value.immediate
    assert wire.request("GET", b"/").body == b"again"
    assert used(server) == [1, 2]


def test_a_body_sent_to_a_server_that_had_hung_up_is_worth_another_try_at_once(
    server: Server, wire: Wire
) -> None:
    server.answers = [ok()]
    wire.request("GET", b"/")
    server.hang_up()
    with pytest.raises(TransientError) as caught:
        wire.request("PUT", b"/", body=chunks(*[b"x" * 200_000] * 50), size=10_000_000)
    assert caught.value.immediate


def test_however_many_connections_the_server_closed_meanwhile_the_next_try_has_a_new_one(
    server: Server, wire: Wire
) -> None:
    count = TRIES + 3
    server.answers = [ok() for _ in range(count)]
    asked = [wire.ask("GET", b"/") for _ in range(count)]
    for one in asked:
        one.answer()
    assert len(wire._idle) == count
    server.hang_up()
    server.answers = [ok(b"again")]
    with pytest.raises(TransientError) as caught:
        wire.request("GET", b"/")
    assert caught.value.immediate
    assert wire.request("GET", b"/").body == b"again"
    assert used(server)[-1] == count + 1


def test_a_new_connection_that_the_server_closes_is_worth_waiting_for(
    server: Server, wire: Wire
) -> None:
    server.answers = [Answer(b"", close=True)]
    with pytest.raises(TransientError, match=f"lost the connection to {server.host}") as caught:
        wire.request("GET", b"/")
    assert not caught.value.immediate


def test_a_server_that_wants_to_close_is_let_go(server: Server, wire: Wire) -> None:
    closing = ok(b"1", b"Connection: close\r\n")._replace(close=True)
    old = Answer(b"HTTP/1.0 200 OK\r\n\r\nuntil the end", close=True)
    server.answers = [closing, old, ok(b"3")]
    assert [wire.request("GET", b"/").body for _ in range(3)] == [b"1", b"until the end", b"3"]
    assert used(server) == [1, 2, 3]


# Answers


def test_chunked_answers_are_put_together(server: Server, wire: Wire) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    whole = Answer(head + b"3\r\nabc\r\n5;x=y\r\ndefgh\r\n0\r\nTrailer: x\r\n\r\n")
    server.answers = [whole, whole, ok(b"next")]
    assert wire.request("GET", b"/").body == b"abcdefgh"
    with wire.open(b"/") as stream:
        assert read_all(stream) == b"abcdefgh"
    assert wire.request("GET", b"/").body == b"next"
    assert used(server) == [1, 1, 1]


def test_the_answer_to_a_head_has_a_length_and_no_body(server: Server, wire: Wire) -> None:
    head = Answer(b'HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\nETag: "e"\r\n\r\n')
    missing = Answer(b"HTTP/1.1 404 Not Found\r\nContent-Length: 300\r\n\r\n")
    server.answers = [head, missing, ok(b"next")]
    answer = wire.request("HEAD", b"/")
    assert (answer.header("content-length"), answer.body, answer.etag) == ("5000000", b"", "e")
    with pytest.raises(NotFound):
        wire.request("HEAD", b"/")
    assert wire.request("GET", b"/").body == b"next"
    assert used(server) == [1, 1, 1]


def test_what_belongs_to_no_answer_is_not_taken_for_the_next(server: Server, wire: Wire) -> None:
    server.answers = [Answer(ok(b"first").data + ok(b"smuggled").data), ok(b"second")]
    assert wire.request("GET", b"/").body == b"first"
    assert wire.request("GET", b"/").body == b"second"
    assert used(server) == [1, 2]


def test_an_interim_answer_is_passed_over(server: Server, wire: Wire) -> None:
    server.answers = [Answer(b"HTTP/1.1 100 Continue\r\n\r\n" + ok(b"real").data)]
    assert wire.request("PUT", b"/", body=b"x").body == b"real"


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"\x15\x03\x01\x00\x02\x02\x16",
        b"<html>no</html>\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnumber\r\n",
    ],
)
def test_what_is_no_http_is_a_lost_connection(server: Server, wire: Wire, data: bytes) -> None:
    server.answers = [Answer(data, close=True), ok(b"fine")]
    with pytest.raises(TransientError) as caught:
        wire.request("GET", b"/")
    assert not isinstance(caught.value, Unreachable)
    assert not caught.value.immediate
    assert wire.request("GET", b"/").body == b"fine"


@pytest.mark.parametrize(
    "data", [b"SSH-2.0-OpenSSH_9.9\r\n", b"\x15\x03\x01\x00", b"\x1b[31m\r\n", b"x" * 60_000]
)
def test_what_is_no_http_is_told_in_one_short_line(server: Server, wire: Wire, data: bytes) -> None:
    server.answers = [Answer(data, close=True)]
    with pytest.raises(TransientError, match="does not speak HTTP") as caught:
        wire.request("GET", b"/")
    assert str(caught.value).isprintable()


def test_http_beyond_measure_is_told_in_one_short_line(server: Server, wire: Wire) -> None:
    server.answers = [Answer(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000 + b"\r\n", close=True)]
    with pytest.raises(TransientError, match=r"connection to .*: headers without an end"):
        wire.request("GET", b"/")


def test_an_answer_cut_short_is_a_lost_connection(server: Server, wire: Wire) -> None:
    server.answers = [Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", close=True)]
    with pytest.raises(TransientError):
        wire.request("GET", b"/")


def test_the_connection_of_an_answer_cut_short_is_not_used_again(
    server: Server, wire: Wire
) -> None:
    server.answers = [
        Answer(b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nabc", close=True), ok(b"fine")
    ]  # fmt: skip
    with pytest.raises(AdsmigError):
        wire.request("GET", b"/")
    assert wire.request("GET", b"/").body == b"fine"


def test_a_chunked_answer_cut_short_is_a_lost_connection(server: Server, wire: Wire) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    for cut in (b"5\r\nab", b"3\r\nabc\r\n", b"3\r\nabc"):
        server.answers = [Answer(head + cut, close=True)]
        with pytest.raises(TransientError, match="lost the connection"):
            wire.request("GET", b"/")


def test_a_document_beyond_measure_is_an_error_and_ends_the_connection(
    server: Server, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Connection] = []
    connect = wire._connect

    def remembered() -> Connection:
        made.append(connect())
        return made[-1]

    monkeypatch.setattr(wire, "_connect", remembered)
    monkeypatch.setattr(module, "MAX_DOCUMENT", 1000)
    server.answers = [ok(b"x" * 1000), ok(b"x" * 1001), ok(b"fine")]
    try:
        assert len(wire.request("GET", b"/").body) == 1000
        with pytest.raises(AdsmigError, match="over 1000 bytes") as caught:
            wire.request("GET", b"/")
        assert not isinstance(caught.value, TransientError)
        assert made[0].sock.fileno() == -1
        assert wire.request("GET", b"/").body == b"fine"
        assert used(server) == [1, 1, 2]
    finally:
        for connection in made:
            connection.close()


def test_documents_are_xml_whatever_their_namespace() -> None:
    headers: dict[str, str] = {}
    root = Response(200, headers, b'<A xmlns="http://s3.amazonaws.com/doc/"><B>c</B></A>').xml()
    assert (root.tag, root.findtext("B")) == ("A", "c")
    for broken in (b"", b"<A>", b"{}", b"<A>\x00</A>"):
        with pytest.raises(TransientError, match="broken XML"):
            Response(200, headers, broken).xml()


# Errors


def test_an_error_answered_while_the_body_is_sent_is_told(
    server: Server, make_wire: MakeWire
) -> None:
    refusal = error(403, "AccessDenied", "no")
    for how in ({"close": True}, {"reset": True}, {}):
        wire = make_wire()
        server.answers = [refusal._replace(early=True, **how)]
        with pytest.raises(ObjectError) as caught:
            wire.request("PUT", b"/", body=chunks(*[b"x" * 200_000] * 60), size=12_000_000)
        assert caught.value.kind == "denied"
        wire.close()
        server.hang_up()
        server.connections.clear()


def test_a_full_store_that_hangs_up_on_a_body_is_full(server: Server, wire: Wire) -> None:
    server.answers = [error(507, "XMinioStorageFull")._replace(early=True, close=True)]
    with pytest.raises(StorageFull):
        wire.request("PUT", b"/", body=chunks(*[b"x" * 200_000] * 60), size=12_000_000)


def test_an_error_of_the_body_itself_passes_and_drops_the_connection(
    server: Server, wire: Wire
) -> None:
    def body() -> Iterator[memoryview]:
        yield memoryview(b"half")
        raise SourceChanged("the file changed while it was read")

    server.answers = [ok(b"fine")] * 3
    wire.request("GET", b"/1")
    with pytest.raises(SourceChanged):
        wire.request("PUT", b"/2", body=body(), size=8)
    assert wire.request("GET", b"/3").body == b"fine"
    third = [one.connection for one in server.requests if one.line.startswith(b"GET /3")]
    assert third == [2]


def test_no_answer_in_time_is_worth_another_try(server: Server, make_wire: MakeWire) -> None:
    never = threading.Event()
    server.answers = [ok()._replace(wait_for=never)]
    with pytest.raises(TransientError, match="no answer in time") as caught:
        make_wire(read_timeout_s=0.05).request("GET", b"/")
    assert not isinstance(caught.value, Unreachable)
    never.set()


def test_a_refused_connection_means_that_nobody_is_there(make_wire: MakeWire) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host = f"127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(Unreachable, match=f"cannot reach {host}: Connection refused"):
        make_wire(host).request("GET", b"/")


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
        (TimeoutError("timed out"), "no answer in time"),
        (OSError(113, "No route to host"), "No route to host"),
        (ssl.SSLError(1, "wrong version number"), "wrong version number"),
    ],
)
def test_a_place_that_cannot_be_reached_says_why(
    make_wire: MakeWire, monkeypatch: pytest.MonkeyPatch, reason: OSError, said: str
) -> None:
    def connect(*_: object) -> None:
        raise reason

    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(Unreachable, match=said):
        make_wire().request("GET", b"/")


def test_a_certificate_that_cannot_be_trusted_is_no_matter_of_trying_again(
    make_wire: MakeWire, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(*_: object) -> None:
        exc = ssl.SSLCertVerificationError(1, "certificate verify failed")
        exc.verify_message = "self-signed certificate"
        raise exc

    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(AdsmigError, match=r"self-signed certificate.*--ca-bundle") as caught:
        make_wire(tls=ssl.create_default_context()).request("GET", b"/")
    assert not isinstance(caught.value, TransientError)


OF_THE_OBJECT, OF_THE_JOB = ObjectError, AdsmigError
ERRORS: list[tuple[int, str, type[AdsmigError]]] = [
    (404, "NoSuchKey", NotFound),
    (404, "NoSuchUpload", NotFound),
    (400, "NoSuchKey", NotFound),
    (404, "", NotFound),
    (404, "NoSuchBucket", OF_THE_JOB),
    (412, "PreconditionFailed", SourceChanged),
    (412, "", SourceChanged),
    (409, "ConditionalRequestConflict", SourceChanged),
    (409, "OperationAborted", TransientError),
    (503, "SlowDown", Throttled),
    (503, "", Throttled),
    (429, "TooManyRequests", Throttled),
    (429, "", Throttled),
    (400, "RequestLimitExceeded", Throttled),
    (500, "InternalError", TransientError),
    (500, "", TransientError),
    (502, "", TransientError),
    (504, "", TransientError),
    (408, "", TransientError),
    (400, "RequestTimeout", TransientError),
    (400, "ExpiredToken", Expired),
    (403, "SecurityTokenExpired", Expired),  # of OSS
    (403, "InvalidTokenId", OF_THE_JOB),  # of MinIO
    (400, "XMinioAdminBucketQuotaExceeded", StorageFull),
    (509, "BandwidthLimitExceeded", TransientError),
    (522, "", TransientError),
    (400, "BadDigest", TransientError),
    (400, "IncompleteBody", TransientError),
    (507, "", StorageFull),
    (507, "XMinioStorageFull", StorageFull),
    (403, "QuotaExceeded", StorageFull),
    (403, "AccessDenied", OF_THE_OBJECT),
    (403, "", OF_THE_OBJECT),
    (401, "", OF_THE_OBJECT),
    (403, "InvalidAccessKeyId", OF_THE_JOB),
    (403, "SignatureDoesNotMatch", OF_THE_JOB),
    (403, "RequestTimeTooSkewed", OF_THE_JOB),
    (400, "AuthorizationHeaderMalformed", OF_THE_JOB),
    (400, "InvalidBucketName", OF_THE_JOB),
    (301, "PermanentRedirect", OF_THE_JOB),
    (307, "", OF_THE_JOB),
    (400, "KeyTooLongError", OF_THE_OBJECT),
    (400, "EntityTooLarge", OF_THE_OBJECT),
    (400, "", OF_THE_OBJECT),
    (416, "InvalidRange", SourceChanged),
    (501, "NotImplemented", OF_THE_OBJECT),
]


@pytest.mark.parametrize(("status", "code", "kind"), ERRORS)
def test_an_error_answer_is_the_error_that_it_stands_for(
    server: Server, wire: Wire, status: int, code: str, kind: type[AdsmigError]
) -> None:
    server.answers = [error(status, code, "Some words."), ok(b"fine")]
    with pytest.raises(AdsmigError) as caught:
        wire.request("GET", b"/")
    assert type(caught.value) is kind
    said = str(caught.value)
    if kind is not SourceChanged:
        assert server.host in said
    assert said.isprintable()
    assert wire.request("GET", b"/").body == b"fine"


def test_a_head_that_is_refused_without_a_reason_is_tried_again() -> None:
    answer = Response(400, {})
    assert type(error_of("HEAD", "h", answer)) is TransientError  # it can be an expired token
    assert type(error_of("GET", "h", answer)) is ObjectError


@pytest.mark.parametrize("code", ["ExistingObjectIsDirectory", "InvalidBucketState"])
def test_a_conflict_of_another_kind_is_the_objects_and_has_its_name(code: str) -> None:
    found = error_of("PUT", "h", Response(409, {}, document(code)))
    assert isinstance(found, ObjectError)
    assert found.kind == code


def document(code: str, rest: str = "") -> bytes:
    return f"<Error><Code>{code}</Code>{rest}</Error>".encode()


def test_the_kind_of_an_objects_error_is_the_stores_word_or_the_status() -> None:
    headers: dict[str, str] = {}
    for answer, kind in (
        (Response(400, headers, document("KeyTooLongError")), "KeyTooLongError"),
        (Response(418, headers), "418"),
        (Response(403, headers), "denied"),
    ):
        found = error_of("PUT", "h", answer)
        assert isinstance(found, ObjectError)
        assert found.kind == kind


def test_an_error_document_is_read_wherever_it_comes_from() -> None:
    words = "<Message> Some\n  words. </Message>"
    assert error_code(document("NoSuchKey", words)) == ("NoSuchKey", "Some words")
    assert error_code(b'<?xml version="1.0"?>\n' + document("A", words)) == ("A", "Some words")
    assert error_code(b"<Error xmlns='x'><Code> A.b </Code></Error>") == ("A.b", "")
    assert error_code(b"<Error></Error>") == ("Error", "")
    assert error_code(b"<Error><Message>\xff</Message></Error>") == ("Error", "\ufffd")
    for other in (
        b"",
        b"<html>",
        b"<ListBucketResult></ListBucketResult>",
        b"x" * 500 + b"<Error>",
    ):
        assert error_code(other) == ("", "")
    code, message = error_code(document("A" * 1000, f"<Message>{'b' * 1000}</Message>"))
    assert len(code) + len(message) < 300


@pytest.mark.parametrize("secret", [KEYS.access_key, KEYS.secret_key, KEYS.token])
@pytest.mark.parametrize("code", ["SignatureDoesNotMatch", "AccessDenied", "SomethingElse"])
def test_a_server_that_quotes_what_was_sent_is_not_quoted(
    server: Server, wire: Wire, code: str, secret: str
) -> None:
    quoted = f"<Message>You sent {secret}.</Message><StringToSign>{secret}</StringToSign>"
    server.answers = [ok(document(code, quoted), status=b"403 Forbidden")]
    with pytest.raises(AdsmigError) as caught:
        wire.request("GET", b"/")
    assert code in str(caught.value)
    assert secret not in str(caught.value)


def test_a_server_that_quotes_nothing_is_quoted(server: Server, wire: Wire) -> None:
    server.answers = [error(403, "SomethingElse", "The bucket is asleep.")]
    with pytest.raises(ObjectError, match=r"SomethingElse \(The bucket is asleep\)"):
        wire.request("GET", b"/")


def vars_of(keys: Credentials) -> list[str]:
    return [keys.access_key, keys.secret_key, keys.token or ""]


@pytest.mark.parametrize(
    "answer",
    [Answer(b"", close=True), Answer(b"nothing\r\n\r\n", close=True), error(500, "InternalError"),
     error(404, "NoSuchBucket"), error(301), error(400, "AuthorizationHeaderMalformed")],
)  # fmt: skip
def test_no_error_holds_a_secret(server: Server, wire: Wire, answer: Answer) -> None:
    server.answers = [answer]
    with pytest.raises(AdsmigError) as caught:
        wire.request("PUT", b"/k", headers={"x-amz-copy-source": "/b/k"}, body=b"x")
    shown = f"{caught.value!r} {caught.value} {wire!r}"
    assert not any(secret in shown for secret in vars_of(KEYS))


# Streams


def read_all(stream: Any, size: int = 7) -> bytes:
    buffer, content = memoryview(bytearray(size)), b""
    while count := stream.readinto(buffer):
        content += bytes(buffer[:count])
    return content


def test_a_stream_read_to_its_end_leaves_its_connection_to_the_next(
    server: Server, wire: Wire
) -> None:
    server.answers = [ok(b"0123456789" * 10, b"X-A: b\r\n"), ok(b""), ok(b"next")]
    with wire.open(b"/k", {"range": "bytes=0-99"}) as stream:
        assert (stream.status, stream.headers["x-a"]) == (200, "b")
        assert read_all(stream) == b"0123456789" * 10
    with wire.open(b"/empty") as stream:
        assert stream.readinto(memoryview(bytearray())) == 0  # lets it see that nothing follows
    assert wire.request("GET", b"/").body == b"next"
    assert used(server) == [1, 1, 1]
    assert server.requests[0].headers[b"range"] == b"bytes=0-99"


def test_a_stream_closed_early_takes_its_connection_along(server: Server, wire: Wire) -> None:
    server.answers = [ok(b"0123456789"), ok(b"next")]
    with wire.open(b"/k") as stream:
        assert stream.readinto(memoryview(bytearray(3))) == 3
    assert wire.request("GET", b"/").body == b"next"
    assert used(server) == [1, 2]


def test_as_many_idle_connections_are_kept_as_may_be_waited_by_at_once(
    server: Server, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adsmig.storage.wire.MOST_IDLE", 2)
    server.answers = [ok(b"src") for _ in range(7)]
    for _ in range(2):
        with wire.open(b"/k") as stream:
            wire.request("PUT", b"/k", body=b"x")
            read_all(stream)
    with wire.open(b"/1") as first, wire.open(b"/2") as second, wire.open(b"/3") as third:
        for stream in (first, second, third):
            read_all(stream)
    assert len(wire._idle) == 2
    assert len(set(used(server))) == 3


def test_what_one_thread_has_done_with_serves_the_next(server: Server, wire: Wire) -> None:
    server.answers = [ok(b"one"), ok(b"two")]
    for _ in range(2):
        thread = threading.Thread(target=wire.request, args=("GET", b"/"))
        thread.start()
        thread.join()
    assert used(server) == [1, 1]


def test_a_stream_that_is_an_error_raises_it_and_keeps_the_connection(
    server: Server, wire: Wire
) -> None:
    server.answers = [error(412, "PreconditionFailed"), error(404, "NoSuchKey"), ok(b"next")]
    with pytest.raises(SourceChanged):
        wire.open(b"/k")
    with pytest.raises(NotFound):
        wire.open(b"/k")
    assert wire.request("GET", b"/").body == b"next"
    assert used(server) == [1, 1, 1]


def test_a_stream_cut_short_never_gives_more_than_came(server: Server, wire: Wire) -> None:
    server.answers = [Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", close=True)]
    buffer = memoryview(bytearray(9))
    with wire.open(b"/k") as stream:
        assert stream.readinto(buffer) == 3
        with pytest.raises(TransientError, match="it ended 6 bytes early"):
            stream.readinto(buffer)


CUT_OFF = Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", reset=True)


def test_a_stream_whose_connection_breaks_is_worth_another_try(server: Server, wire: Wire) -> None:
    server.answers = [CUT_OFF, ok(b"next")]
    buffer = memoryview(bytearray(3))
    with wire.open(b"/k") as stream:
        assert stream.readinto(buffer) == 3
        with pytest.raises(TransientError, match=f"lost the connection to {server.host}") as caught:
            stream.readinto(buffer)
    assert not caught.value.immediate
    assert wire.request("GET", b"/").body == b"next"
    assert used(server) == [1, 2]


def test_a_broken_connection_is_not_kept(server: Server, wire: Wire) -> None:
    server.answers = [CUT_OFF]
    with pytest.raises(TransientError), wire.open(b"/k") as stream:
        read_all(stream, 3)
    assert wire._idle == []


def test_a_stream_that_stalls_is_worth_another_try(server: Server, make_wire: MakeWire) -> None:
    server.answers = [CUT_OFF._replace(reset=False)]
    with make_wire(read_timeout_s=0.5).open(b"/k") as stream:
        assert stream.readinto(memoryview(bytearray(3))) == 3
        with pytest.raises(TransientError, match="no answer in time"):
            stream.readinto(memoryview(bytearray(3)))


# Routes


def test_a_route_changes_the_connection_and_nothing_else(
    server: Server, make_wire: MakeWire
) -> None:
    server.answers = [ok(b"here")]
    port = int(server.host.partition(":")[2])
    wire = make_wire("bucket.real.cloud", routes=(Route("*.cloud", 80, "127.0.0.1", port),))
    assert wire.request("GET", b"/k").body == b"here"
    headers = server.requests[0].headers
    assert headers[b"host"] == b"bucket.real.cloud"
    assert b"SignedHeaders=host;" in headers[b"authorization"]


def test_nobody_at_the_end_of_a_route_is_told_with_both_names(make_wire: MakeWire) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    wire = make_wire("bucket.real.cloud", routes=(Route("", 0, "127.0.0.1", port),))
    with pytest.raises(Unreachable, match=rf"bucket.real.cloud at 127.0.0.1 port {port}"):
        wire.request("GET", b"/k")


def test_what_is_announced_is_taken_with_one_call_as_it_comes() -> None:
    ours, theirs = socket.socketpair()
    connection = Connection(ours)

    def dribble() -> None:
        theirs.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 40\r\n\r\n")
        for number in range(4):
            time.sleep(0.02)
            theirs.sendall(bytes([number]) * 10)

    thread = threading.Thread(target=dribble)
    thread.start()
    answer = connection.answer("GET")
    buffer = memoryview(bytearray(64))
    assert answer.readinto(buffer[:30]) == 30
    assert answer.readinto(buffer[30:]) == 10
    assert answer.done
    assert bytes(buffer[:40]) == b"".join(bytes([number]) * 10 for number in range(4))
    thread.join()
    connection.close()
    theirs.close()


class Records(socket.socket):
    """Gives out a few bytes at a time, however many there are, as TLS does."""

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        assert not flags, "TLS has none"
        return super().recv_into(memoryview(buffer)[:7])


@pytest.mark.parametrize("kind", [socket.socket, Records])
def test_a_buffer_is_filled_from_what_came_with_the_head_and_after_it(
    kind: type[socket.socket],
) -> None:
    plain, theirs = socket.socketpair()
    connection = Connection(kind(fileno=plain.detach()))
    theirs.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 40\r\n\r\n" + bytes(range(5)))
    answer = connection.answer("GET")
    theirs.sendall(bytes(range(5, 40)) + b"HTTP/1.1 204 No Content\r\n\r\n")
    buffer = memoryview(bytearray(64))
    assert answer.readinto(buffer[:30]) == 30
    assert answer.readinto(buffer[30:]) == 10
    assert answer.done
    assert bytes(buffer[:40]) == bytes(range(40))
    assert connection.answer("GET").status == 204
    connection.close()
    theirs.close()


def test_a_body_that_breaks_off_gives_what_came_of_it() -> None:
    ours, theirs = socket.socketpair()
    connection = Connection(ours)
    theirs.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 40\r\n\r\n" + bytes(15))
    theirs.close()
    answer = connection.answer("GET")
    buffer = memoryview(bytearray(64))
    assert answer.readinto(buffer) == 15
    with pytest.raises(BadAnswer, match="25 bytes early"):
        answer.readinto(buffer)
    connection.close()
