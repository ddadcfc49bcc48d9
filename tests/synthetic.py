"""An S3 server that holds millions of objects without storing any, for scale and for speed.

``python -m tests.synthetic PORT COUNT SHAPE`` serves COUNT keys in a bucket of any name, and prints
its HOST:PORT (PORT 0 takes a free one).  A listing page is rendered once and kept.  PUT and
server-side copies are accepted and forgotten.  Signatures are not looked at.
"""

from __future__ import annotations

import hashlib
import sys
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

EMPTY = hashlib.md5(b"").hexdigest()


class Flat(Sequence[str]):
    """``file-000000000000`` and so on."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        if index >= self._count:
            raise IndexError
        return f"file-{index:012d}"


class Dated(Flat):
    """``2026/11/22/000000``: a thousand objects a day, from 2000 on."""

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        if index >= self._count:
            raise IndexError
        day, number = divmod(index, 1000)
        year, rest = divmod(day, 360)
        return f"{2000 + year}/{rest // 30 + 1:02d}/{rest % 30 + 1:02d}/{number:06d}"


class Hashed(Flat):
    """Hexadecimal, evenly spread, in order."""

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        if index >= self._count:
            raise IndexError
        return f"{index * (16**12 // self._count):012x}"


class Nested(Flat):
    """``d0/e3/f1/000000``: ten objects in each of as many directories, four deep."""

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        if index >= self._count:
            raise IndexError
        folder = f"{index // 10:06d}"
        return f"d{folder[:2]}/e{folder[2]}/f{folder[3]}/g{folder[4:]}/{index % 10:06d}"


SHAPES: dict[str, Callable[[int], Sequence[str]]] = {
    "flat": Flat,
    "dated": Dated,
    "hashed": Hashed,
    "nested": Nested,
}


def handler(keys: Sequence[str]) -> type[BaseHTTPRequestHandler]:
    """A request handler that serves ``keys``, which ascend."""

    @lru_cache(maxsize=200_000)
    def page(first: int, limit: int) -> bytes:
        last = min(first + limit, len(keys))
        rows = "".join(
            f"<Contents><Key>{keys[at]}</Key><LastModified>2020-01-02T03:04:05.000Z</LastModified>"
            f"<ETag>&quot;{EMPTY}&quot;</ETag><Size>0</Size></Contents>"
            for at in range(first, last)
        )
        more = "true" if last < len(keys) else "false"
        token = f"<NextContinuationToken>{last}</NextContinuationToken>" if more == "true" else ""
        return (
            f"<ListBucketResult><IsTruncated>{more}</IsTruncated>{token}{rows}</ListBucketResult>"
        ).encode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self, body: bytes, etag: str = EMPTY) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", f'"{etag}"')
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            if "list-type" not in query:
                return self._answer(b"")
            limit = int(query.get("max-keys", ["1000"])[0])
            if token := query.get("continuation-token"):
                first = int(token[0])
            else:
                first = bisect_right(keys, unquote(query.get("start-after", [""])[0]))
            self._answer(page(first, limit))

        def do_HEAD(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.send_header("ETag", f'"{EMPTY}"')
            self.end_headers()

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            if "x-amz-copy-source" in self.headers:
                return self._answer(
                    f"<CopyObjectResult><ETag>{EMPTY}</ETag></CopyObjectResult>".encode()
                )
            self._answer(b"", hashlib.md5(body).hexdigest())

    return Handler


class Server(ThreadingHTTPServer):
    """Listens on the loopback interface; ``port`` 0 takes a free one."""

    daemon_threads = True
    request_queue_size = 128  # who comes to a full queue waits for a second

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients may hang up when they like."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    def __init__(self, keys: Sequence[str], port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), handler(keys))


if __name__ == "__main__":
    server = Server(SHAPES[sys.argv[3]](int(sys.argv[2])), int(sys.argv[1]))
    print(f"127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()
