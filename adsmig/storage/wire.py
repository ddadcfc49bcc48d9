"""Signed HTTP to one S3 endpoint: connections kept alive, errors told apart.

A request costs about a tenth of what it does through an SDK, which is what the many small
requests of a migration are made of.  Header values are as in storage.http.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NoReturn
from xml.etree import ElementTree

from adsmig.errors import (
    AdsmigError,
    TransientError,
    Unreachable,
)
from adsmig.location import Credentials
from adsmig.routes import Route, target
from adsmig.storage.http import Answer, BadAnswer, Connection
from adsmig.storage.response import Response
from adsmig.storage.s3errors import error_code, error_of
from adsmig.storage.signing import encode_path, encode_query, sign

log = logging.getLogger(__name__)

MAX_DOCUMENT = 16 << 20
"""Bytes of an XML answer; a listing page of 1,000 keys of 1,024 bytes, escaped, has under 10 MB."""

MOST_IDLE = 64
"""Connections that are kept: as many as all threads of a crew may have answers to wait for."""

PATIENCE = 15
"""Times the time-out that a server may keep us waiting within one answer: at the end of a large
upload, AWS sends a blank now and then for minutes (API_CompleteMultipartUpload.html)."""


class Wire:
    """Requests to one host.  Safe to share among threads, which leave each other the connections
    that they do not need.

    ``credentials`` is called for every request, so that it can refresh what expires; None makes
    requests unsigned.  ``bucket`` is one that the host does not name, but errors are to.  Without
    ``tls``, over plain HTTP.  Raises the errors of :mod:`adsmig.errors`; tries nothing again.
    """

    def __init__(
        self,
        host: str,
        *,
        region: str,
        credentials: Callable[[], Credentials | None],
        connect_timeout_s: float,
        read_timeout_s: float,
        routes: Sequence[Route] = (),
        tls: ssl.SSLContext | None = None,
        bucket: str = "",
    ) -> None:
        self.host, self.region = host, region
        self._place = f"{host}/{bucket}" if bucket else host
        self._credentials = credentials
        self._connect_timeout_s, self._read_timeout_s = connect_timeout_s, read_timeout_s
        self._routes = routes
        self._idle: list[Connection] = []
        """The one used last at the end.  Only appended to and popped from, each in one step."""
        self._tls = tls
        self.servers: set[str] = set()
        """The ``Server`` headers seen: a proxy may answer with its own now and then."""

    def __repr__(self) -> str:
        return f"Wire({'https' if self._tls else 'http'}://{self.host})"

    def request(
        self,
        method: str,
        path: bytes,
        query: Mapping[str, str | bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterator[memoryview] | None = None,
        size: int | None = None,
        expect: tuple[int, ...] = (200, 204, 206),
    ) -> Response:
        """Sends a request and reads the whole answer.

        ``path`` is unescaped.  A ``body`` that is an iterator needs its ``size`` in bytes.
        """
        return self.ask(method, path, query, headers, body, size).answer(expect)

    def ask(
        self,
        method: str,
        path: bytes,
        query: Mapping[str, str | bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterator[memoryview] | None = None,
        size: int | None = None,
    ) -> Asked:
        """Sends a request as :meth:`request` does, of which the caller reads the answer later, or
        drops it.
        """
        sent = self._send(method, path, query or {}, headers or {}, body, size)
        return Asked(self, method, *sent)

    def open(
        self,
        path: bytes,
        headers: Mapping[str, str] | None = None,
        expect: tuple[int, ...] = (200, 206),
    ) -> Stream:
        """A GET whose body is read by the caller, who closes the Stream."""
        return self.ask("GET", path, {}, headers).open(expect)

    def _read(self, connection: Connection, response: Answer) -> bytes:
        """The whole body."""
        if response.done:
            return b""
        try:
            data = response.read(MAX_DOCUMENT + 1)
        except BaseException as exc:
            self._fail(connection, exc)
        if len(data) > MAX_DOCUMENT:
            connection.close()
            raise AdsmigError(
                f"{self.host} sent an answer of over {MAX_DOCUMENT} bytes; is it a store?"
            )
        return data

    def document(self, answer: Response) -> ElementTree.Element:
        """The XML of a 200 answer, which can still hold an error (API_CompleteMultipartUpload)."""
        root = answer.xml()
        if root.tag == "Error":
            raise self.error("the request", answer)
        return root

    def error(self, method: str, answer: Response) -> AdsmigError:
        """The error that an answer stands for; see :func:`error_of`."""
        used = self._credentials()
        return error_of(method, self._place, answer, used)

    def close(self) -> None:
        """Drops the connections that nobody uses; another may be made after that."""
        while connection := self._take():
            connection.close()

    def _keep(self, connection: Connection, response: Answer) -> None:
        if response.will_close or not connection.clean or len(self._idle) >= MOST_IDLE:
            connection.close()
        else:
            self._idle.append(connection)

    def _take(self) -> Connection | None:
        """One that nobody uses, for the caller alone."""
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _connect(self) -> Connection:
        name, port = _address(self.host, 443 if self._tls else 80)
        there = target(self._routes, name, port)
        try:
            sock = self._socket_to(there or (name, port), name)
        except ssl.SSLCertVerificationError as exc:
            raise AdsmigError(
                f"cannot trust {self.host}: {exc.verify_message.rstrip('.')}; check the address"
                " and the clock, or name the authority of its certificate with --ca-bundle"
            ) from exc
        except OSError as exc:
            where = f"{self.host} at {there[0]} port {there[1]}" if there else self.host
            if getattr(exc, "reason", None) in _NO_TLS:
                raise Unreachable(
                    f"cannot reach {where}: it does not speak https; for http, say --no-https"
                ) from exc
            raise Unreachable(
                f"cannot reach {where}: {_reason(exc)}; check the address, and that it is up"
            ) from exc
        sock.settimeout(self._read_timeout_s)
        if not self._tls:
            # The kernel's time-out, which spares two turns of the thread for each answer.
            microseconds = max(int(self._read_timeout_s * 1e6), 1)
            time = struct.pack("ll", *divmod(microseconds, 1_000_000))
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                sock.setsockopt(socket.SOL_SOCKET, option, time)
            sock.settimeout(None)
        return Connection(sock, self._read_timeout_s * PATIENCE)

    def _socket_to(self, there: tuple[str, int], name: str) -> socket.socket:
        """Connected, wherever that is: the server is asked to prove its ``name``."""
        sock = socket.create_connection(there, self._connect_timeout_s)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return self._tls.wrap_socket(sock, server_hostname=name) if self._tls else sock
        except BaseException:
            sock.close()
            raise

    def _send(
        self,
        method: str,
        path: bytes,
        query: Mapping[str, str | bytes],
        headers: Mapping[str, str],
        body: bytes | Iterator[memoryview] | None,
        size: int | None,
    ) -> tuple[Connection, bool]:
        """The connection by which all of it went, and whether that is an old one."""
        target, arguments = encode_path(path), encode_query(query)
        if isinstance(body, bytes):
            size = len(body)
        elif size is None and method in ("PUT", "POST"):
            size = 0
        signed = {"host": self.host, **headers}
        if credentials := self._credentials():
            signed = sign(credentials, self.region, method, target, arguments, signed)
        idle = self._take()
        connection, reused = idle or self._connect(), idle is not None
        try:
            url = f"{target}?{arguments}" if arguments else target
            self._send_all(connection, method, url, signed, body, size)
        except BaseException as exc:
            self._fail(connection, exc, reused)
        return connection, reused

    def _answer(self, method: str, connection: Connection, reused: bool) -> Answer:
        """The answer that comes by it, of which the body is still to be read."""
        try:
            response = connection.answer(method)
        except BaseException as exc:
            self._fail(connection, exc, reused)
        if len(self.servers) < 10:
            self.servers.add(response.headers.get("server", ""))
        return response

    def _send_all(
        self,
        connection: Connection,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | Iterator[memoryview] | None,
        size: int | None,
    ) -> None:
        try:
            for chunk in connection.send(method, url, headers, body, size):
                connection.sock.sendall(chunk)
        except (BrokenPipeError, ConnectionResetError):
            # A server that refuses a body answers and hangs up: the answer tells why.
            with contextlib.suppress(OSError, BadAnswer):
                response = connection.answer(method)
                if response.status >= 400:
                    answer = Response(response.status, response.headers, response.read(65536))
                    raise self.error(method, answer) from None
            raise

    def _fail(self, connection: Connection, exc: BaseException, reused: bool = False) -> NoReturn:
        """Closes the connection, and raises: of the network's errors, ours."""
        connection.close()
        if isinstance(exc, (OSError, BadAnswer)):
            if reused:
                # The others have been idle for longer. A server that closes what is idle has closed
                # them all, and there may be more of them than there are tries.
                self.close()
            if isinstance(exc, (TimeoutError, BlockingIOError)):
                raise TransientError(
                    f"{self.host} gave no answer in time; check the address, and whether it is well"
                ) from exc
            raise TransientError(
                f"lost the connection to {self.host}: {_reason(exc)}",
                immediate=reused and isinstance(exc, ConnectionError),
            ) from exc
        raise exc


class Asked:
    """A request that is on its way; its one owner reads the answer, or drops it."""

    def __init__(self, wire: Wire, method: str, connection: Connection, reused: bool) -> None:
        self._wire, self._method = wire, method
        self._connection, self._reused = connection, reused

    def answer(self, expect: tuple[int, ...] = (200,)) -> Response:
        """The whole answer; raises as Wire.request does.  Not to be called again."""
        wire, connection = self._wire, self._connection
        response = wire._answer(self._method, connection, self._reused)
        data = wire._read(connection, response)
        wire._keep(connection, response)
        answer = Response(response.status, response.headers, data)
        # Behind a 200 may stand an error, and nothing was stored: an older object of the same
        # size would be taken for what was sent.
        changes = self._method in ("PUT", "DELETE")
        if response.status not in expect or (changes and error_code(data)[0]):
            raise wire.error(self._method, answer)
        return answer

    def open(self, expect: tuple[int, ...] = (200, 206)) -> Stream:
        """The answer, of which the caller reads the body, and closes the Stream; else as
        :meth:`answer`.
        """
        wire, connection = self._wire, self._connection
        response = wire._answer(self._method, connection, self._reused)
        if response.status not in expect:
            data = wire._read(connection, response)
            wire._keep(connection, response)
            raise wire.error(self._method, Response(response.status, response.headers, data))
        return Stream(wire, connection, response)

    @property
    def fd(self) -> int:
        """The descriptor by which the answer comes."""
        return self._connection.sock.fileno()

    def drop(self) -> None:
        """Nobody wants the answer."""
        self._connection.close()


class Stream:
    """The body of a GET, read by its one owner, who closes it (``with``)."""

    def __init__(
        self,
        wire: Wire,
        connection: Connection,
        response: Answer,
    ) -> None:
        self._wire, self._connection, self._response = wire, connection, response
        self.headers = response.headers
        self.status = response.status

    def readinto(self, buffer: memoryview) -> int:
        """Bytes put into ``buffer``; 0 at the end.  TransientError when the connection fails."""
        try:
            return self._response.readinto(buffer)
        except BaseException as exc:
            self._wire._fail(self._connection, exc)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        if self._response.done:
            self._wire._keep(self._connection, self._response)
        else:
            self._connection.close()


def _address(host: str, port: int) -> tuple[str, int]:
    """Name and port of a host that may have a port, else ``port``."""
    name, colon, given = host.rpartition(":")
    if not colon or given.endswith("]"):  # an IPv6 address has colons of its own
        name, given = host, str(port)
    return name.strip("[]"), int(given)


_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")
"""What OpenSSL, of one version or another, calls an answer in plain HTTP."""


def _reason(exc: BaseException) -> str:
    if isinstance(exc, (TimeoutError, BlockingIOError)):
        return "no answer in time"
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror
    return repr(str(exc))[1:-1][:200] or type(exc).__name__
