"""HTTP/1.1 over one socket (RFC 9110, RFC 9112), as far as object stores need it.

http.client makes a mail message of every answer's headers, which takes longer than all that a small
object needs besides.  Names and values of headers are text of which every character stands for one
byte (ISO 8859-1), so that they pass unchanged.
"""

from __future__ import annotations

import math
import re
import socket
import time
from collections.abc import Iterator, Mapping

Headers = dict[str, str]
"""Names in lower case; the values of a name that came more than once are joined by commas."""

_MOST_HEAD = 64 << 10
"""Bytes of an answer's head; stores allow some kilobytes of metadata."""
_BUFFER = 64 << 10
_AT_ONCE = 1 << 20
"""Bytes that are made room for because an answer announces them; for more, as they come."""
_TOGETHER = 64 << 10
"""Bytes of a body's beginning that go out in one system call with the head."""
_MOST_LINES = 100
"""Of what may come before an answer, and after the last chunk of one."""
_SLOWEST = 100
"""Bytes a second, on the average."""
_STATUS = re.compile(r"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: |$)")
_BLANKS = " \t\r\n\v\f"
UNSAFE = re.compile(r"[\r\n\0]")
"""What no header can carry."""


class BadAnswer(Exception):
    """What came is no HTTP, or is less than was announced."""


class HungUp(ConnectionError):
    """The other side closed the connection before it answered."""


class Connection:
    """A kept-alive connection; one request after the other, each answer read to its end.

    A server that lets us wait for more than ``patience_s`` within one answer has to have sent some
    bytes for each second, however regularly one comes.  Raises OSError, and BadAnswer.  The caller
    closes it, on any error too.
    """

    def __init__(self, sock: socket.socket, patience_s: float = math.inf) -> None:
        self.sock = sock
        # One call for all that is certain to come, as it comes: each takes its turn among the
        # threads.  TLS has its own records.
        self._whole = socket.MSG_WAITALL if type(sock) is socket.socket else 0
        self._patience_s = patience_s
        self._waited_s, self._received = 0.0, 0
        self._buffer = memoryview(bytearray(_BUFFER))
        self._at = self._end = 0

    def close(self) -> None:
        """May be called again."""
        self.sock.close()

    @property
    def clean(self) -> bool:
        """Whether nothing came that belongs to no answer."""
        return self._at == self._end

    def send(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | Iterator[memoryview] | None = None,
        size: int | None = None,
    ) -> Iterator[memoryview]:
        """Sends the head and the first chunk of the body, of ``size`` bytes in all; the other
        chunks, still to be sent.
        """
        lines = [f"{method} {target} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if size is not None:
            lines.append(f"content-length: {size}")
        if UNSAFE.search("".join(lines)):
            raise ValueError("a header with a line break in it")
        head = "\r\n".join([*lines, "\r\n"]).encode("latin-1")
        chunks = iter((memoryview(body),) if isinstance(body, bytes) else body or ())
        first = next(chunks, memoryview(b""))
        if len(first) <= _TOGETHER:
            self.sock.sendall(head + first)
        else:
            self.sock.sendall(head)
            self.sock.sendall(first)
        return chunks

    def answer(self, method: str) -> Answer:
        """The answer to the request that was sent, of which the head is read."""
        self._waited_s, self._received = 0.0, 0
        for _ in range(_MOST_LINES):
            version, status, headers = self._head()
            if status >= 200:
                return Answer(self, method, version, status, headers)
            if status == 101:
                raise BadAnswer("it wants to speak another protocol")
        raise BadAnswer("it goes on saying that it will answer")

    def _head(self) -> tuple[int, int, Headers]:
        head = bytes(self._buffer[self._at : self._end])
        self._at = self._end = 0
        while (end := head.find(b"\r\n\r\n", 0, _MOST_HEAD)) < 0:
            if len(head) >= _MOST_HEAD:
                raise BadAnswer("headers without an end")
            if head and not head.startswith(b"HTTP/"[: len(head)]):
                raise BadAnswer("what answers there does not speak HTTP")
            count = self._receive(self._buffer)
            if not count:
                raise BadAnswer("cut off in its headers") if head else HungUp("it hung up")
            head += self._buffer[:count]
        rest = len(head) - end - 4
        self._buffer[:rest] = head[end + 4 :]
        self._end = rest
        first, *lines = head[:end].decode("latin-1").split("\r\n")
        match = _STATUS.match(first)
        if not match:
            raise BadAnswer("what answers there does not speak HTTP")
        headers: Headers = {}
        name = ""
        for line in lines:
            if line[:1] in (" ", "\t"):  # goes on with the one before, as long ago it might
                headers[name] = f"{headers.get(name, '')} {line.strip(_BLANKS)}"
                continue
            given, colon, value = line.partition(":")
            name = given.lower()
            if not colon or not name:
                raise BadAnswer("a header that is none")
            value = value.strip(" \t")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return int(match[1]), int(match[2]), headers

    def read_some(self, buffer: memoryview, certain: bool = False) -> int:
        """Bytes put into ``buffer``: those at hand, else straight from the socket; 0 at the end.

        ``certain``: at least as many as it holds have been announced, and it is filled, unless the
        connection ends.  TLS gives out 16 KB at a time (RFC 8446, section 5.1), and a file takes
        whole pages sooner than what begins and ends within them.
        """
        count = min(len(buffer), self._end - self._at)
        if count:
            buffer[:count] = self._buffer[self._at : self._at + count]
            self._at += count
        if not certain:
            return count or (self._receive(buffer) if buffer else 0)
        while count < len(buffer):
            received = self._receive(buffer[count:], self._whole)
            if not received:
                break
            count += received
        return count

    def _receive(self, buffer: memoryview, flags: int = 0) -> int:
        began = time.monotonic()
        count = self.sock.recv_into(buffer, 0, flags)
        self._waited_s += time.monotonic() - began
        self._received += count
        if self._waited_s > self._patience_s and self._received < self._waited_s * _SLOWEST:
            raise TimeoutError
        return count

    def read_line(self) -> bytes:
        """A line of a chunked body, without its end."""
        line = b""
        while not line.endswith(b"\r\n"):
            if self._at == self._end:
                self._at, self._end = 0, self._receive(self._buffer)
                if not self._end:
                    raise BadAnswer("cut off between chunks")
            at = bytes(self._buffer[self._at : self._end]).find(b"\n")
            stop = self._end if at < 0 else self._at + at + 1
            line += self._buffer[self._at : stop]
            self._at = stop
            if len(line) > 4096:
                raise BadAnswer("a chunk that is none")
        return line[:-2]


class Answer:
    """Status and headers of an answer, and its body, to be read."""

    def __init__(
        self, connection: Connection, method: str, version: int, status: int, headers: Headers
    ) -> None:
        self.status, self.headers = status, headers
        self._connection = connection
        self.left: int | None = None
        """Bytes of the body, or of the chunk, that were not read yet; None: up to the end of the
        connection."""
        self._chunked = False
        self.done = False
        """Whether all of the body was read."""
        tokens = headers.get("connection", "").lower()
        self.will_close = "close" in tokens or (not version and "keep-alive" not in tokens)
        length = headers.get("content-length")
        if length is not None and not re.fullmatch("[0-9]{1,18}", length):
            raise BadAnswer("a length that is none")
        if method == "HEAD" or status in (204, 304):
            self.left, self.done = 0, True
        elif coding := headers.get("transfer-encoding"):
            if coding.lower() != "chunked":
                raise BadAnswer("a transfer coding that is not known here")
            self._chunked, self.left = True, 0
        elif length is not None:
            self.left = int(length)
            self.done = not self.left
        else:
            self.will_close = True

    def readinto(self, buffer: memoryview) -> int:
        """Bytes put into ``buffer``, at least one if it has room; 0 at the end.

        BadAnswer if the connection ends before the body.
        """
        if self.done or not buffer:
            return 0
        if self._chunked and not self.left and not self._next_chunk():
            return 0
        if self.left is None:
            count = self._connection.read_some(buffer)
            self.done = not count
            return count
        count = self._connection.read_some(buffer[: self.left], certain=True)
        if not count:
            raise BadAnswer(f"it ended {self.left} bytes early")
        self.left -= count
        if self._chunked and not self.left:
            self._end_chunk()
        self.done = not self.left and not self._chunked
        return count

    def _next_chunk(self) -> bool:
        """Whether there is one; if not, what follows the last was read too."""
        size = self._connection.read_line().partition(b";")[0].strip()
        if not re.fullmatch(rb"[0-9a-fA-F]{1,15}", size):
            raise BadAnswer("a chunk that is none")
        self.left = int(size, 16)
        if not self.left:
            for _ in range(_MOST_LINES):
                if not self._connection.read_line():
                    self.done = True
                    break
            else:
                raise BadAnswer("more and more after its end")
        return bool(self.left)

    def _end_chunk(self) -> None:
        if self._connection.read_line():
            raise BadAnswer("a chunk that is longer than it says")

    def read(self, most: int) -> bytes:
        """The rest of the body, but no more than ``most`` bytes of it."""
        known = self.left is not None and not self._chunked
        data, at = bytearray(min(self.left or 0, _AT_ONCE, most) if known else _BUFFER), 0
        while not self.done and at < most:
            if at == len(data):
                data += bytes(at)
            with memoryview(data) as view:
                at += self.readinto(view[at:most])
        with memoryview(data) as view:
            return bytes(view[:at])
