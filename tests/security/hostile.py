"""A server that answers whatever a test wants, byte for byte, and keeps what it was asked."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from urllib.parse import parse_qs, urlsplit


@dataclass
class Asked:
    """A request, without its body."""

    method: str
    target: str
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def query(self) -> dict[str, str]:
        """The first value of each argument."""
        return {k: v[0] for k, v in parse_qs(urlsplit(self.target).query, True).items()}

    @property
    def lists(self) -> bool:
        return self.method == "GET" and "max-keys" in self.query


Answerer = Callable[[Asked], Iterator[bytes]]


class Hostile:
    """Entering starts it, leaving stops it.

    ``answer`` gives the bytes of an answer, piece by piece, each sent at once; it is closed when
    the client has hung up.
    """

    def __init__(self, answer: Answerer) -> None:
        self.asked: list[Asked] = []
        self.hangs_up = False
        """After each answer."""
        asked, hostile = self.asked, self

        class Handler(socketserver.StreamRequestHandler):
            timeout = 60

            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    while self.one():
                        pass

            def one(self) -> bool:
                method, target, *_ = [*self.rfile.readline().decode("latin-1").split(), "", ""]
                if not method:
                    return False
                request = Asked(method, target)
                while line := self.rfile.readline().decode("latin-1").strip():
                    name, _, value = line.partition(":")
                    request.headers[name.lower()] = value.strip()
                left = int(request.headers.get("content-length", "0"))
                while left and (chunk := self.rfile.read(min(left, 1 << 16))):
                    left -= len(chunk)
                asked.append(request)
                self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for piece in answer(request):
                    self.connection.sendall(piece)
                return not hostile.hangs_up

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True
            request_queue_size = 128

        self._server = Server(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Hostile:
        threading.Thread(target=self._server.serve_forever, args=[0.05], daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def whole(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    """An answer as it should be."""
    return (
        f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode("latin-1")
        + body
    )


def page(*keys: str, token: str = "", size: int = 1) -> bytes:
    """A page of a listing; with a ``token``, one that goes on."""
    items = "".join(
        f"<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
        f'<ETag>"0cc175b9c0f1b6a831c399e269772661"</ETag><Size>{size}</Size></Contents>'
        for key in keys
    )
    more = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<IsTruncated>{'true' if token else 'false'}</IsTruncated>{more}{items}"
        "</ListBucketResult>"
    ).encode()
