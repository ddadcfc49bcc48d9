"""A server that answers as the test says, and remembers what it was asked."""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, quote, unquote_to_bytes

from adsmig.location import Credentials, Location
from adsmig.storage.s3 import S3Storage
from tests.storage.support import Options


@dataclass
class Request:
    method: str
    key: bytes
    """Decoded, without the bucket."""
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes = b""

    def __str__(self) -> str:
        return f"{self.method} {self.key.decode('latin-1')}"


@dataclass
class Reply:
    """What the server sends; a Content-Length is added unless ``headers`` has one."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    hang_up: str = ""
    """``before``: at once, with no answer; ``after``: though the connection was to be kept."""
    read_body: bool = True
    """Whether the request's body is read before the answer."""


def error(status: int, code: str, message: str = "something about it") -> Reply:
    text = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return Reply(status, f'<?xml version="1.0"?>\n{text}'.encode())


def listing_of(keys: Iterable[bytes]) -> Callable[[Request], Reply]:
    """Answers as a store does that holds these full keys: in pages of at most 1,000."""
    held = sorted(keys)

    def answer(request: Request) -> Reply:
        query = request.query
        prefix, after = (
            query.get(name, "").encode("latin-1") for name in ("prefix", "start-after")
        )
        after = bytes.fromhex(query.get("continuation-token", "")) or after
        names = [key for key in held if key.startswith(prefix)]
        if "delimiter" in query:
            cut = len(prefix)
            names = sorted({prefix + b"".join(key[cut:].partition(b"/")[:2]) for key in names})
        names = [name for name in names if name > after]
        shown = names[: min(1000, int(query["max-keys"]))]
        items = "".join(
            f"<CommonPrefixes><Prefix>{quote(name)}</Prefix></CommonPrefixes>"
            if "delimiter" in query and name.endswith(b"/") and name != prefix
            else f"<Contents><Key>{quote(name)}</Key><Size>1</Size></Contents>"
            for name in shown
        )
        more = len(names) > len(shown)
        if more:
            items += f"<NextContinuationToken>{shown[-1].hex()}</NextContinuationToken>"
        text = f"<IsTruncated>{str(more).lower()}</IsTruncated><EncodingType>url</EncodingType>"
        for name, tag in (
            ("continuation-token", "ContinuationToken"),
            ("start-after", "StartAfter"),
        ):
            if name in query:
                text += f"<{tag}>{quote(query[name].encode('latin-1'))}</{tag}>"
        return Reply(200, f"<ListBucketResult>{text}{items}</ListBucketResult>".encode())

    return answer


def stored(request: Request) -> Reply:
    """Answers a PUT as a store does that has kept all of the body."""
    return Reply(headers={"ETag": f'"{hashlib.md5(request.body).hexdigest()}"'})


DROPPED = Reply(hang_up="before")

Answer = Reply | Callable[[Request], Reply]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # of 5, most of who connect at once would have to try again

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class FakeS3:
    """Gives the ``answers`` in turn; the last again and again."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[Request] = []
        self._lock = threading.Lock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 1 << 16  # else head and body are two packets, 40 ms apart

            def handle_one(self) -> None:
                fake._answer(self)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_one

            def log_message(self, *_: Any) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._storages: list[S3Storage] = []

    def __enter__(self) -> FakeS3:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        for storage in self._storages:
            storage.close()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def storage(
        self,
        prefix: bytes = b"",
        options: Options | None = None,
        credentials: Credentials | None = None,
        destination: bool = False,
        anonymous: bool = False,
        server: str = "fake",
    ) -> S3Storage:
        """A storage on this server that has already been told who serves."""
        credentials = credentials or Credentials("the-key", "the-secret", "the-token")
        location = Location(
            "s3",
            prefix,
            "bkt",
            self.host,
            path_style=True,
            credentials=credentials,
            anonymous=anonymous,
        )
        storage = S3Storage(location, options or Options(), destination)
        storage._wire.servers.add(server)
        self._storages.append(storage)
        return storage

    def told(self) -> list[str]:
        """The requests so far, as text."""
        return [str(request) for request in self.requests]

    def _answer(self, handler: Any) -> None:
        path, _, query = handler.path.partition("?")
        key = unquote_to_bytes(path).removeprefix(b"/bkt/")
        arguments = {
            name: values[0]
            for name, values in parse_qs(query, keep_blank_values=True, encoding="latin-1").items()
        }
        headers = {name.lower(): value for name, value in handler.headers.items()}
        request = Request(handler.command, key, arguments, headers)
        with self._lock:
            self.requests.append(request)
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if not isinstance(answer, Reply) or answer.read_body:
            request.body = handler.rfile.read(int(headers.get("content-length", 0)))
        reply = answer if isinstance(answer, Reply) else answer(request)
        if reply.hang_up == "before":
            handler.close_connection = True
            return
        handler.send_response(reply.status)
        sent = {"Content-Length": str(len(reply.body)), **reply.headers}
        for name, value in sent.items():
            if value:
                handler.send_header(name, value)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(reply.body)
        if reply.hang_up or not reply.read_body:
            handler.close_connection = True
