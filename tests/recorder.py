"""A proxy that counts what passes: in front of a real S3 server, it tells what a client sent.

``with Recorder(server.host) as recorder`` listens on a free loopback port; ``recorder.host``
stands in for the server's in addresses.  Bodies pass unchanged and are not kept.
"""

from __future__ import annotations

import ssl
import threading
from collections import Counter
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from tests.front import CHUNK, Exchange, Front


class Request(NamedTuple):
    """One that was answered with a success."""

    method: str
    path: str
    """Unescaped, with the bucket."""
    query: dict[str, list[str]]
    signed: bool = True

    @property
    def is_data(self) -> bool:
        """Reads or writes an object, or a part of one."""
        named = self.path.strip("/").count("/") > 0
        return named and self.method in ("GET", "PUT") and "list-type" not in self.query


class Recorder(Front):
    """Keeps a Request for each that succeeded; entering starts it, leaving stops it.

    ``upstream`` is HOST:PORT; with ``tls``, clients are answered over https; ``server`` is what the
    store is said to be, in place of its own word.
    """

    def __init__(self, upstream: str, tls: ssl.SSLContext | None = None, server: str = "") -> None:
        super().__init__(upstream, tls)
        self.requests: list[Request] = []
        self._server, self._lock = server, threading.Lock()

    def answer(self, exchange: Exchange) -> None:
        """Passes a request on, and the answer back."""
        upstream = exchange.upstream
        upstream.putrequest(
            exchange.command, exchange.path, skip_host=True, skip_accept_encoding=True
        )
        for name, value in exchange.headers.items():
            upstream.putheader(name, value)
        upstream.endheaders()
        left = int(exchange.headers.get("Content-Length", "0"))
        while left:
            data = exchange.read(min(left, CHUNK))
            left -= len(data)
            upstream.send(data)
        answer = upstream.getresponse()
        if answer.status < 300:
            place = urlsplit(exchange.path)
            query = parse_qs(place.query, keep_blank_values=True)
            signed = "Authorization" in exchange.headers
            with self._lock:
                self.requests.append(Request(exchange.command, unquote(place.path), query, signed))
        exchange.send_response_only(answer.status, answer.reason)
        chunked = answer.getheader("Transfer-Encoding") == "chunked"
        body = answer.read() if chunked else None
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection"):
                named = self._server if self._server and name.lower() == "server" else value
                exchange.send_header(name, named)
        if body is not None:
            exchange.send_header("Content-Length", str(len(body)))
        exchange.end_headers()
        if body is not None:
            exchange.wfile.write(body)
        else:
            while data := answer.read(CHUNK):
                exchange.wfile.write(data)

    def clear(self) -> None:
        """Forgets what has passed so far."""
        self.requests.clear()

    def data(self) -> list[Request]:
        """The requests that read or wrote objects or parts."""
        return [one for one in list(self.requests) if one.is_data]

    def sent(self) -> Counter[tuple[str, str]]:
        """How often each object, or part of one, was stored: by path and part number."""
        return Counter(
            (one.path, one.query.get("partNumber", [""])[0])
            for one in self.data()
            if one.method == "PUT"
        )
