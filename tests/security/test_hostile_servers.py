"""A server that means harm costs some time and memory, and is told of in one line.

Each case runs in a process with little address space: what is without bounds dies of that.
"""

from __future__ import annotations

import itertools
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adsmig.retry import TRIES
from tests.e2e.inside import put
from tests.security.hostile import Asked, Hostile, page, whole

MEMORY = 1 << 30
"""Bytes of address space; a run without an enemy takes 250 MB, most of it mapped libraries."""

RUN = """
import sys
from adsmig import program, retry
retry.FIRST_PAUSE_S = retry.LONGEST_PAUSE_S = 0.001
sys.argv[0] = "adsmig"
sys.exit(program.run(sys.argv[1:]))
"""


def run(*arguments: object) -> tuple[int, str]:
    """The program without pauses between tries; its exit code and what it said on stderr."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, *map(str, arguments), "--workers", "1"],
        capture_output=True,
        text=True,
        timeout=500,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    return done.returncode, done.stderr


LAUGHS = b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "ha">%b]><ListBucketResult>&t;%b'
ENTITIES = b"".join(
    b'<!ENTITY %b "%b">' % (name, (b"&%b;" % before) * 10)
    for before, name in itertools.pairwise([b"a", *(b"x%d" % n for n in range(12)), b"t"])
)
TAIL = b"<IsTruncated>false</IsTruncated></ListBucketResult>"
EXTERNAL = (
    b'<!DOCTYPE x [<!ENTITY passwd SYSTEM "file:///etc/passwd">]><ListBucketResult><Contents>'
    b"<Key>&passwd;</Key><Size>1</Size></Contents>" + TAIL
)
HEAD = b"HTTP/1.1 200 OK\r\n"


def for_ever(piece: bytes, head: bytes = b"") -> Iterator[bytes]:
    yield head
    while True:
        yield piece


def slowly(piece: bytes, head: bytes = b"") -> Iterator[bytes]:
    for one in for_ever(piece, head):
        yield one
        time.sleep(0.05)


def length(size: object) -> bytes:
    return HEAD + f"Content-Length: {size}\r\n\r\n".encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
KEYS = b"<Contents><Key>a</Key><Size>1</Size></Contents>" * 1000

LISTINGS: dict[str, tuple[Callable[[], Iterator[bytes]], str]] = {
    "a billion laughs": (lambda: iter([whole(LAUGHS % (ENTITIES, TAIL))]), "document type"),
    "an external entity": (lambda: iter([whole(EXTERNAL)]), "document type"),
    "laughs in UTF-16": (
        lambda: iter([whole((LAUGHS % (ENTITIES, TAIL)).decode().encode("utf-16"))]),
        "not in UTF-8",
    ),
    "a page of 10 GB": (
        lambda: for_ever(KEYS * 20, length(10**10) + b"<ListBucketResult>"),
        "answer of over",
    ),
    "a page of unknown length": (
        lambda: for_ever(KEYS * 20, HEAD + b"\r\n<ListBucketResult>"), "answer of over",
    ),
    "a page in chunks without end": (
        lambda: for_ever(chunk(KEYS * 20), CHUNKED), "answer of over",
    ),
    "tags without end": (
        lambda: iter([whole(b"<ListBucketResult>" + b"<a/>" * 3_000_000)]), "tags without end",
    ),
    "attributes without end": (
        lambda: iter([whole(b"<L " + b"a=''" * 3_000_000)]), "tags without end",
    ),
    "tags within tags": (lambda: iter([whole(b"<a>" * 1_000_000)]), "broken XML"),
    "a key of 10 MB": (lambda: iter([whole(page("k" * 10_000_000))]), "beyond all bounds"),
    "a size of 30 digits": (lambda: iter([whole(page("k", size=10**30))]), "beyond all bounds"),
    "a negative size": (lambda: iter([whole(page("k", size=-5))]), "beyond all bounds"),
    "a page that goes on at itself": (
        lambda: iter([whole(page("a", "b", token="same"))]), "order",
    ),
    "an empty page that goes on at itself": (
        lambda: iter([whole(page(token="same"))]), "goes on, but not where",
    ),
    "headers without end": (lambda: for_ever(b"X-A: b\r\n" * 1000, HEAD), "without an end"),
    "a header without end": (lambda: for_ever(b"b" * 5000, HEAD + b"X-A: "), "without an end"),
    "interim answers without end": (
        lambda: for_ever(b"HTTP/1.1 100 Continue\r\n\r\n"), "it goes on saying",
    ),
    "trailers without end": (lambda: for_ever(b"X-A: b\r\n", CHUNKED + b"0\r\n"), "after its end"),
    "a length of 5,000 digits": (
        lambda: iter([length("9" * 5000)]), "length that is none",
    ),
    "less than announced": (
        lambda: iter([HEAD + b"Connection: close\r\nContent-Length: 99\r\n\r\n<a/>", b""]),
        "lost the connection",
    ),
    "more than announced": (lambda: iter([whole(b"<a/>") + b"more"]), "with <a>"),
    "a head, byte by byte": (lambda: slowly(b"X", HEAD + b"X-A: "), "no answer in time"),
    "a page, byte by byte": (
        lambda: slowly(b" ", length(10**6) + b"<L>"), "no answer in time",
    ),
    "no answer at all": (lambda: slowly(b""), "no answer in time"),
    "no HTTP": (lambda: iter([b"220 ftp.example.com\r\n"]), "does not speak HTTP"),
}  # fmt: skip


@pytest.mark.parametrize("what", LISTINGS)
def test_a_listing_that_means_harm(tmp_path: Path, what: str) -> None:
    answer, says = LISTINGS[what]
    with Hostile(lambda asked: answer()) as server:
        if what == "less than announced":
            server.hangs_up = True
        source = f"minio://ak:sk@{server.host}/bucket/"
        timeout_s = 0.1 if says == "no answer in time" else 60
        code, said = run("cp", "--timeout", timeout_s, source, tmp_path / "dst")
        asked = len(server.asked)
    assert code == 3
    assert says in said
    assert said.splitlines()[-1].startswith("adsmig: ")
    assert said.count("\n") <= 1 + ("order" in says)
    assert asked <= 4 * TRIES


def test_a_listing_that_goes_in_a_circle_or_nowhere(tmp_path: Path) -> None:
    numbers = itertools.count()

    def circle(asked: Asked) -> Iterator[bytes]:
        at = asked.query.get("continuation-token", "1")
        yield whole(page("a", token="2") if at == "1" else page("b", token="1"))

    def nowhere(asked: Asked) -> Iterator[bytes]:
        yield whole(page(token=f"t{next(numbers)}"))

    for answer in (circle, nowhere):
        with Hostile(answer) as server:
            source = f"minio://ak:sk@{server.host}/bucket/"
            code, said = run("inventory", source)
            assert code == 3
            assert said.splitlines()[-1].startswith("adsmig: ")
            assert said.count("\n") <= 2, "with the warning that it lists out of order"
            assert len(server.asked) < 5000


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ("Content-Length: 99\r\n", b"a" * 99),
        ("Content-Length: 2\r\n", b"ab"),
        ("Content-Length: 0\r\n", b""),
        ("", b"ab"),
        ("Transfer-Encoding: chunked\r\n", chunk(b"abc") + b"0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\nContent-Length: x\r\n", chunk(b"a") + b"0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", b"ffffffffffffffff\r\n" + b"a" * 1000),
        ("Transfer-Encoding: gzip\r\n", b"abc"),
    ],
)
def test_an_object_that_lies_about_its_length(tmp_path: Path, header: str, body: bytes) -> None:
    """It is a failure, or exactly what the listing said."""

    def answer(asked: Asked) -> Iterator[bytes]:
        head = f"HTTP/1.1 200 OK\r\nConnection: close\r\n{header}\r\n".encode()
        if asked.method == "HEAD":
            yield length(1)
        else:
            yield whole(page("k")) if asked.lists else head + body

    with Hostile(answer) as server:
        server.hangs_up = True
        source = f"minio://ak:sk@{server.host}/bucket/"
        code, said = run("cp", source, tmp_path / "dst")
    assert code in (0, 1), said
    assert (tmp_path / "dst" / "k").exists() == (code == 0)
    if not code:
        assert (tmp_path / "dst" / "k").read_bytes() == b"a"


@pytest.mark.parametrize(
    ("method", "status"), [("GET", 307), ("PUT", 307), ("HEAD", 301), ("POST", 308), ("GET", 302)]
)
def test_credentials_do_not_follow_a_redirect(tmp_path: Path, method: str, status: int) -> None:
    secrets = ("authorization", "x-amz-security-token", "x-amz-copy-source")
    with Hostile(lambda asked: iter([whole(page("k"))])) as other:

        def answer(asked: Asked) -> Iterator[bytes]:
            if asked.method == method:
                where = f"Location: http://{other.host}/bucket/?max-keys=1\r\n"
                yield whole(b"", f"{status} Elsewhere", where)
            else:
                yield whole(page("k") if asked.lists else b"a", headers='ETag: "x"\r\n')

        with Hostile(answer) as server:
            place = f"minio://ak:sk:to%2Fken@{server.host}/bucket/"
            src = put(tmp_path / "src", {"f": b"1"})
            (src / "large").touch()
            os.truncate(src / "large", 65 << 20)
            for one in (("cp", place, tmp_path / "dst"), ("cp", f"{place}k", tmp_path / "dst"),
                        ("cp", src, place)):  # fmt: skip
                code, _ = run(*one)
                assert code in (0, 1, 3)
            assert any(one.method == method for one in server.asked)
            assert any("x-amz-security-token" in one.headers for one in server.asked)
    assert [one for one in other.asked if any(name in one.headers for name in secrets)] == []
    assert other.asked == []
