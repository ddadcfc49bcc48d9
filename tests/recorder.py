"""A proxy that counts what passes: in front of a real S3 server, it tells what a client sent.

``with Recorder(server.host) as recorder`` listens on a free loopback port; ``recorder.host``
stands in for the server's in addresses.  Bodies pass unchanged and are not kept.
"""

from __future__ import annotations

import http.client
import ssl
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

CHUNK = 64 * 1024


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


class Recorder:
    """Keeps a Request for each that succeeded; entering starts it, leaving stops it.

    ``upstream`` is HOST:PORT; with ``tls``, clients are answered over https; ``server`` is what the
    store is said to be, in place of its own word.
    """

    def __init__(self, upstream: str, tls: ssl.SSLContext | None = None, server: str = "") -> None:
        self.requests: list[Request] = []
        requests, lock = self.requests, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                self.upstream = http.client.HTTPConnection(upstream, timeout=60)

            def finish(self) -> None:
                self.upstream.close()
                super().finish()

            def log_message(self, *_: object) -> None:
                pass

            def _forward(self) -> None:
                try:
                    self._pass_on()
                except (OSError, http.client.HTTPException):
                    self.close_connection = True

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _forward

            def _pass_on(self) -> None:
                self.upstream.putrequest(
                    self.command, self.path, skip_host=True, skip_accept_encoding=True
                )
                for name, value in self.headers.items():
                    self.upstream.putheader(name, value)
                self.upstream.endheaders()
                left = int(self.headers.get("Content-Length", "0"))
                while left:
                    data = self.rfile.read(min(left, CHUNK))
                    if not data:
                        raise OSError("the client hung up")
                    left -= len(data)
                    self.upstream.send(data)
                answer = self.upstream.getresponse()
                if answer.status < 300:
                    place = urlsplit(self.path)
                    query = parse_qs(place.query, keep_blank_values=True)
                    with lock:
                        signed = "Authorization" in self.headers
                        requests.append(Request(self.command, unquote(place.path), query, signed))
                self.send_response_only(answer.status, answer.reason)
                chunked = answer.getheader("Transfer-Encoding") == "chunked"
                body = answer.read() if chunked else None
                for name, value in answer.getheaders():
                    if name.lower() not in ("transfer-encoding", "connection"):
                        named = server if server and name.lower() == "server" else value
                        self.send_header(name, named)
                if body is not None:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if body is not None:
                    self.wfile.write(body)
                else:
                    while data := answer.read(CHUNK):
                        self.wfile.write(data)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.host = f"127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Recorder:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

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
