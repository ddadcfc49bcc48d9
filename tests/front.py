"""A front for a real HTTP server: it speaks to clients, and a subclass says what it does to what
passes.
"""

from __future__ import annotations

import contextlib
import http.client
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeVar

CHUNK = 64 * 1024

F = TypeVar("F", bound="Front")


class Exchange(BaseHTTPRequestHandler):
    """One client's connection; its requests come one after the other, each with ``upstream`` to
    pass it on.
    """

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = CHUNK
    front: Front
    upstream: http.client.HTTPConnection

    def setup(self) -> None:
        super().setup()
        self.upstream = http.client.HTTPConnection(self.front.upstream, timeout=60)

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # a client that hangs up
            super().handle()

    def finish(self) -> None:
        self.upstream.close()
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, *_: object) -> None:
        pass

    def handle_it(self) -> None:
        try:
            self.front.answer(self)
        except (OSError, http.client.HTTPException):
            self.close_connection = True

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_it

    def read(self, size: int) -> bytes:
        """So many bytes of the request's body, or up to a chunk of them; OSError at its end."""
        data: bytes = self.rfile.read(size)
        if len(data) < size:
            raise OSError("the client hung up")
        return data


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # who comes to a full queue waits for a second


class Front:
    """Entering starts it, on a free loopback port unless ``address`` says otherwise; leaving stops
    it.  ``upstream`` is HOST:PORT; with ``tls``, clients are answered over https.
    """

    def __init__(
        self,
        upstream: str,
        tls: ssl.SSLContext | None = None,
        address: tuple[str, int] = ("127.0.0.1", 0),
    ) -> None:
        self.upstream = upstream
        exchange = type("Exchange", (Exchange,), {"front": self})
        self._httpd = _Server(address, exchange)
        self._httpd.daemon_threads = True
        if tls:
            self._httpd.socket = tls.wrap_socket(self._httpd.socket, server_side=True)
        self.address, self.port = address[0], self._httpd.server_address[1]
        self.host = f"{self.address}:{self.port}"

    def __enter__(self: F) -> F:
        threading.Thread(target=self._httpd.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._httpd.shutdown()
        self._httpd.server_close()

    def answer(self, exchange: Exchange) -> None:
        """Answers a request, of which the head was read.  OSError hangs up."""
        raise NotImplementedError
