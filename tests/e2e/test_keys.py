"""Keys are bytes that belong to the user: from any storage to any other, each is copied under
exactly that key, or is a failure by name.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from adsmig.output import text_of
from tests.conftest import BucketFactory
from tests.e2e.inside import COLLECTED, Here
from tests.e2e.inside import here as here
from tests.servers import Server, Sshd

pytestmark = COLLECTED

KEYS = [
    b"plain", b"a//b", b"//", b"/leading", b"dir/", b"full/", b"./x", b"d/./x", b"../x", b"d/../y",
    b" leading blank", b"trailing blank ", b"d / e", b"%2F", b"a+b", b"a b", b"a&b=c?d#e",
    b"%2f%20", b"back\\slash", b"quote'\"<>", b"semi;colon:",
    b"tab\there", b"line\nbreak", b"bell\x07",
    b"delete\x7f", b"return\r", b"\xc2\x85next line", "😀/🎉".encode(), "é".encode(),
    "e\u0301".encode(), "\u202eevil".encode(), "\ufeffbom".encode(), "\ufffe".encode(), b"~",
    b".hidden", b"...", b"CON", b"-rf", b"*", b"{}", b"n" * 255, b"n" * 256,
    b"/".join([b"m" * 100] * 10) + b"/" + b"e" * 14, b"k" * 1024, b"both", b"both/below",
    b"a", b"a-b", b"a.b/c", b"a/b", b"a0", b"\xff not UTF-8", b"\xed\xa0\x80 half a pair",
    b".adsmig-mine",
]  # fmt: skip


class Place(Protocol):
    """Somewhere that objects are, looked at without adsmig."""

    url: object

    def put(self, key: bytes, content: bytes) -> None:
        """Stores an object, if it can hold one of that key."""
        ...

    def content(self) -> dict[bytes, bytes]:
        """All objects, by key; empty directories end in a slash."""
        ...


@dataclass
class Directory:
    root: Path
    url: object

    def put(self, key: bytes, content: bytes) -> None:
        path = os.path.join(os.fsencode(self.root), key)
        if not os.path.normpath(path).startswith(os.fsencode(self.root) + b"/"):
            return
        with contextlib.suppress(OSError):
            if key.endswith(b"/"):
                os.makedirs(path)
                return
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "xb") as file:
                file.write(content)

    def content(self) -> dict[bytes, bytes]:
        found = {}
        for folder, folders, files in os.walk(os.fsencode(self.root)):
            for name in files:
                path = os.path.join(folder, name)
                with open(path, "rb") as file:
                    found[os.path.relpath(path, os.fsencode(self.root))] = file.read()
            if not folders and not files and folder != os.fsencode(self.root):
                found[os.path.relpath(folder, os.fsencode(self.root)) + b"/"] = b""
        return found


@dataclass
class InBucket:
    server: Server
    name: str

    @property
    def url(self) -> object:
        return self.server.url(self.name)

    def put(self, key: bytes, content: bytes) -> None:
        with contextlib.suppress(UnicodeDecodeError, BotoCoreError, ClientError):
            body = b"" if key.endswith(b"/") and key != b"full/" else content
            self.server.client().put_object(Bucket=self.name, Key=key.decode(), Body=body)

    def content(self) -> dict[bytes, bytes]:
        client, found = self.server.client(), {}
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=self.name):
            for item in page.get("Contents", ()):
                with contextlib.suppress(ClientError):
                    body = client.get_object(Bucket=self.name, Key=item["Key"])["Body"].read()
                    found[item["Key"].encode()] = body
        return found


Make = Callable[[str], Place]


@pytest.fixture
def make(request: pytest.FixtureRequest, bucket: BucketFactory, tmp_path: Path) -> Make:
    """``make(kind)``: an empty place of that kind."""

    def place(kind: str) -> Place:
        root = tmp_path / uuid4().hex
        if kind in ("local", "sftp"):
            root.mkdir()
        if kind == "local":
            return Directory(root, root)
        if kind == "sftp":
            sshd: Sshd = request.getfixturevalue("sshd")
            sshd.trust(Path(os.environ["HOME"]))
            return Directory(root, sshd.address(root))
        server: Server = request.getfixturevalue(kind)
        return InBucket(server, bucket(server))

    return place


KINDS = ["local", "sftp", "seaweedfs", "minio", "moto"]


@pytest.mark.parametrize("target", KINDS)
@pytest.mark.parametrize("source", KINDS)
def test_every_key_is_copied_as_it_is_or_fails_by_name(
    here: Here, make: Make, source: str, target: str
) -> None:
    src, dst = make(source), make(target)
    for number, key in enumerate(KEYS):
        src.put(key, b"%d" % number)
    held = src.content()
    assert len(held) > 25
    said = _run(here, src.url, dst.url)
    events: list[dict[str, Any]] = [json.loads(line) for line in said.splitlines()]
    failed = {one["key"]: one["error"] for one in events if one["event"] == "failure"}
    there = dst.content()
    lost = {
        key
        for key, content in held.items()
        if there.get(key) != content and not failed.get(text_of(key))
    }
    assert not lost
    assert there.keys() <= held.keys() | {key + b"/" for key in _directories(held)}
    (result,) = [one for one in events if one["event"] == "result"]
    assert result["state"] == "finished"
    assert result["failed"] == len(failed)
    assert result["copied"] + result["failed"] == result["found"]
    # A second run has nothing left to do but what failed; all is of this very second.
    said = _run(here, src.url, dst.url, "sync", "--size-only")
    again = [json.loads(line) for line in said.splitlines()]
    (result,) = [one for one in again if one["event"] == "result"]
    assert (result["copied"], result["failed"]) == (0, len(failed))


def _run(here: Here, src: object, dst: object, *command: str) -> str:
    try:
        return here(*(command or ("cp",)), "--json", src, dst, code=1)
    except AssertionError as exc:
        if not str(exc).startswith("0: "):
            raise
        return str(exc)[3:].partition("\nassert")[0]


def _directories(keys: dict[bytes, bytes]) -> set[bytes]:
    return {key[:at] for key in keys for at, byte in enumerate(key) if byte == ord("/")}
