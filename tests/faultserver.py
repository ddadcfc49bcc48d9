"""A way to a real S3 server on which a Plan's faults happen, and one to a real SFTP server."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from urllib.parse import parse_qs, unquote, urlsplit

from tests.faultplan import Plan, Trigger
from tests.front import Exchange, Front

_ITEMS = re.compile(rb"<Contents>.*?</Contents>|<CommonPrefixes>.*?</CommonPrefixes>", re.DOTALL)

Change = Callable[[str], bool]
"""Gives the source's object of a path, ``/BUCKET/KEY``, another content; False if it does not."""


@dataclass(frozen=True)
class Request:
    """What is asked for."""

    operation: str
    path: str
    """Unescaped, with the bucket."""
    query: dict[str, str]

    @classmethod
    def of(cls, exchange: Exchange) -> Request:
        """The one whose head was just read."""
        place = urlsplit(exchange.path)
        query = {
            name: values[0]
            for name, values in parse_qs(place.query, keep_blank_values=True).items()
        }
        path = unquote(place.path, errors="surrogateescape")
        named = path.strip("/").count("/") > 0 or path.count("/") > 2
        copies = "x-amz-copy-source" in exchange.headers
        return cls(_operation(exchange.command, named, query, copies), path, query)

    @property
    def identity(self) -> tuple[str, ...]:
        """What it is about, the same in every run of a seed."""
        names = ("partNumber", "prefix", "start-after", "marker", "delimiter", "max-keys")
        return (self.path, *(self.query.get(name, "") for name in names))


def _operation(method: str, named: bool, query: dict[str, str], copies: bool) -> str:
    if method == "GET" and not named:
        return "uploads" if "uploads" in query else "list" if "prefix" in query else "other"
    if method == "PUT" and named:
        return "copy" if copies else "part" if "partNumber" in query else "put"
    if method == "POST":
        known = {"uploads": "open", "uploadId": "complete", "delete": "delete-many"}
        return next((known[name] for name in known if name in query), "other")
    if method == "DELETE" and named:
        return "abort" if "uploadId" in query else "delete"
    return {"GET": "get", "HEAD": "head"}.get(method, "other") if named else "other"


class FaultServer(Front):
    """In front of ``upstream``, HOST:PORT; clients wait ``timeout_s`` for an answer."""

    def __init__(
        self,
        upstream: str,
        plan: Plan,
        timeout_s: float,
        change: Change = lambda path: False,
        trigger: Trigger | None = None,
    ) -> None:
        super().__init__(upstream)
        self.plan, self.timeout_s, self.change, self._trigger = plan, timeout_s, change, trigger
        self._pages: dict[tuple[str, ...], bytes] = {}
        self._at_work = 0
        self._idle = threading.Condition()

    def settle(self) -> None:
        """Returns when no request is on its way to the server."""
        with self._idle:
            self._idle.wait_for(lambda: not self._at_work)

    def answer(self, exchange: Exchange) -> None:
        """Passes a request on, or does to it what the plan says."""
        if self._trigger:
            self._trigger.tick()
        with self._idle:
            self._at_work += 1
        try:
            _Passage(self, exchange).go()
        finally:
            with self._idle:
                self._at_work -= 1
                self._idle.notify_all()

    def page_before(self, asked: Request, page: bytes) -> bytes | None:
        """The last page of the same listing that was given out; keeps this one as that."""
        which = (asked.path, asked.query["prefix"], asked.query.get("delimiter", ""))
        before = self._pages.get(which)
        self._pages[which] = page
        return before


class _Passage:
    """One request on its way, and its answer."""

    def __init__(self, front: FaultServer, exchange: Exchange) -> None:
        self.front, self.exchange = front, exchange
        self.asked = Request.of(exchange)
        self.size = int(exchange.headers.get("Content-Length", "0"))
        self.before: bytes | None = None
        """The page that was given out before, of a listing."""

    def go(self) -> None:
        asked, plan = self.asked, self.front.plan
        kind, chance = plan.draw(asked.operation, *asked.identity)
        if kind in ("changed", "stored-late"):
            self.change(kind)
        elif kind in ("page-again", "page-halved", "page-last"):
            self.spoil_page(kind)
        elif not kind:
            self.reply(*self.ask(self.body()))
        else:
            plan.met(kind)
            {
                "500": lambda: self.refuse(500, "InternalError"),
                "503": lambda: self.refuse(503, "SlowDown"),
                "expired": lambda: self.refuse(403, "ExpiredToken"),
                "200-error": lambda: self.refuse(200, "InternalError"),
                "reset-before": self.reset,
                "reset-during": lambda: self.break_off(chance),
                "answer-lost": lambda: (self.ask(self.body()), self.reset()),
                "stall": lambda: self.stall(chance),
                "hang": lambda: self.hang(),
                "late": lambda: self.act_late(),
                "sent-short": lambda: self.send_short(chance),
                "sent-flipped": lambda: self.reply(*self.ask(flipped(self.body(), chance))),
                "got-short": lambda: self.give(kind, chance),
                "got-flipped": lambda: self.give(kind, chance),
            }[kind]()

    # What passes

    def body(self) -> bytes:
        return self.exchange.read(self.size)

    def ask(self, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
        """The server's answer, read to its end."""
        exchange = self.exchange
        self.send_head(len(body))
        if body:
            exchange.upstream.send(body)
        answer = exchange.upstream.getresponse()
        text = answer.read()
        if self.asked.operation == "list" and answer.status == 200:
            self.before = self.front.page_before(self.asked, text)
        return answer, text

    def send_head(self, size: int) -> None:
        upstream, exchange = self.exchange.upstream, self.exchange
        upstream.putrequest(
            exchange.command, exchange.path, skip_host=True, skip_accept_encoding=True
        )
        for name, value in exchange.headers.items():
            if name.lower() != "content-length":
                upstream.putheader(name, value)
        if "Content-Length" in exchange.headers:
            upstream.putheader("Content-Length", str(size))
        upstream.endheaders()

    def reply(self, answer: http.client.HTTPResponse, body: bytes, told: int | None = None) -> None:
        """Sends an answer; ``told`` is the length that it is said to have, if it has another."""
        exchange = self.exchange
        exchange.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                exchange.send_header(name, value)
        length = len(body) if told is None else told
        if exchange.command == "HEAD":
            length = int(answer.getheader("Content-Length", "0"))
        if answer.status != 204:
            exchange.send_header("Content-Length", str(length))
        exchange.end_headers()
        exchange.wfile.write(body)

    # What goes wrong

    def refuse(self, status: int, code: str) -> None:
        self.body()
        text = b"" if self.exchange.command == "HEAD" else (
            f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>seeded</Message></Error>'
        ).encode()  # fmt: skip
        self.exchange.send_response_only(status)
        self.exchange.send_header("Content-Length", str(len(text)))
        self.exchange.end_headers()
        self.exchange.wfile.write(text)

    def reset(self) -> None:
        """Ends the client's connection with a reset, not in the orderly way."""
        exchange = self.exchange
        linger = struct.pack("ii", 1, 0)
        exchange.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        exchange.close_connection = True
        exchange.rfile.close()
        exchange.connection.close()

    def break_off(self, chance: Random) -> None:
        """In the middle of the request's body, or else of the answer's."""
        if self.size:
            part = self.exchange.read(chance.randrange(self.size))
            self.send_head(self.size)
            self.exchange.upstream.send(part)
            self.exchange.upstream.close()
        else:
            answer, body = self.ask(b"")
            self.reply(answer, body[: chance.randrange(len(body) + 1)], len(body))
            self.exchange.wfile.flush()
        self.reset()

    def stall(self, chance: Random) -> None:
        body = self.body()
        time.sleep(self.front.timeout_s * chance.uniform(0.1, 0.5))
        self.reply(*self.ask(body))

    def hang(self) -> None:
        self.ask(self.body())
        time.sleep(self.front.timeout_s * 1.3)
        self.reset()

    def act_late(self) -> None:
        body = self.body()
        time.sleep(self.front.timeout_s * 1.3)
        self.ask(body)
        self.reset()

    def send_short(self, chance: Random) -> None:
        body = self.body()
        self.reply(*self.ask(body[: chance.randrange(len(body))] if body else body))

    def give(self, kind: str, chance: Random) -> None:
        answer, body = self.ask(self.body())
        if answer.status >= 300:
            self.reply(answer, body)
        elif kind == "got-short":
            self.reply(answer, body[: chance.randrange(len(body))] if body else body)
        else:
            self.reply(answer, flipped(body, chance))

    def spoil_page(self, kind: str) -> None:
        """A page that was given out before; one that lacks half of its entries; one that lacks them
        all and says that it is the last.
        """
        answer, page = self.ask(self.body())
        items = _ITEMS.findall(page)
        spoilt = page
        if kind == "page-again":
            spoilt = self.before or page
        elif kind == "page-halved" and len(items) > 1:
            lost = iter(range(len(items)))
            spoilt = _ITEMS.sub(lambda one: b"" if next(lost) % 2 else one[0], page)
        elif kind == "page-last":
            spoilt = _ITEMS.sub(b"", page).replace(b"<IsTruncated>true", b"<IsTruncated>false")
        if spoilt != page and answer.status == 200:
            self.front.plan.met(kind)
            self.reply(answer, spoilt)
        else:
            self.reply(answer, page)

    def change(self, kind: str) -> None:
        """Another content for the source's object: while it is read; or after that, but before the
        server has stored it, in another second.
        """
        front = self.front
        if self.asked.operation == "put":
            half = self.size if kind == "stored-late" else self.size // 2
            body = self.exchange.read(half)
            if kind == "stored-late":
                time.sleep(0.05)  # the client has read the file to its end
            if front.change(self.asked.path):
                front.plan.met(kind)
                if kind == "stored-late":
                    time.sleep(1)
            answer, text = self.ask(body + self.exchange.read(self.size - half))
        else:
            answer, text = self.ask(self.body())
            if answer.status < 300 and front.change(self.asked.path):
                front.plan.met(kind)
        self.reply(answer, text)


def flipped(data: bytes, chance: Random) -> bytes:
    """The same with one bit changed."""
    if not data:
        return data
    at = chance.randrange(len(data))
    return data[:at] + bytes((data[at] ^ 1 << chance.randrange(8),)) + data[at + 1 :]


class FaultLink:
    """A way to a server of any protocol, HOST and port, by which each connection may meet a fault
    of the plan's.
    """

    def __init__(
        self,
        target: tuple[str, int],
        plan: Plan,
        timeout_s: float,
        trigger: Trigger | None = None,
        longest: int = 4 << 20,
    ) -> None:
        """``longest``: bytes after which, at the latest, a connection meets its fault."""
        self.plan = plan
        self._target, self._timeout_s, self._trigger = target, timeout_s, trigger
        self._longest = longest
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._listener.getsockname()[1]
        self._count = 0

    def __enter__(self) -> FaultLink:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                here, _ = self._listener.accept()
            except OSError:
                return
            self._count += 1
            connection = _Connection(self, here, str(self._count))
            threading.Thread(target=connection.run, daemon=True).start()


class _Connection:
    def __init__(self, link: FaultLink, here: socket.socket, number: str) -> None:
        self._link, self._here = link, here
        self._kind, self._chance = link.plan.draw("connection", number)
        # As many early in a connection's life, where it is being made, as late.
        self._left = int(self._chance.lognormvariate(0, 2) * link._longest / 20)
        self._left = min(self._left, link._longest)
        self._lock = threading.Lock()

    def run(self) -> None:
        """Returns when it is at its end."""
        try:
            self._there = socket.create_connection(self._link._target)
        except OSError:
            self._here.close()
            return
        for one in (self._here, self._there):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        back = threading.Thread(target=self._pump, args=(self._there, self._here), daemon=True)
        back.start()
        self._pump(self._here, self._there)
        back.join()
        for one in (self._here, self._there):
            one.close()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        link = self._link
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if link._trigger:
                    link._trigger.tick()
                with self._lock:
                    self._left -= len(data)
                    kind = self._kind if self._left < 0 else ""
                    self._kind = "" if kind else self._kind
                if kind and link.plan.active:
                    link.plan.met(kind)
                    if kind == "link-cut":
                        break
                    if kind == "link-flipped":
                        data = flipped(data, self._chance)
                    elif kind == "link-stalled":
                        time.sleep(link._timeout_s * 0.5)
                    else:
                        time.sleep(link._timeout_s * 1.5)
                sink.sendall(data)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
