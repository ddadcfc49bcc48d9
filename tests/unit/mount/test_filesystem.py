"""Requests that end in another way than the kernel thought."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import Any, NoReturn, cast

import pytest

from adsmig.errors import ObjectError
from adsmig.links import LINK, link_meta
from adsmig.model import Meta
from adsmig.mount import protocol as p
from adsmig.mount.channel import Request
from adsmig.mount.filesystem import Filesystem
from tests.unit.mount.mounted import At, Bucket, Gate, errno_of


def test_who_could_not_open_what_others_have_just_made_has_it_not_open(
    at: At, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> NoReturn:
        raise ObjectError("denied", "it may not be written")

    async def work() -> None:
        system = Filesystem(at.nodes, at.tree, at.files, at.changes)
        bucket.put(b"file", b"content")
        bucket.write(b"link", iter([memoryview(LINK)]), len(LINK), link_meta(b"file", Meta()))
        monkeypatch.setattr(bucket, "write", refused)
        for name, error in ((b"file", errno.EACCES), (b"link", errno.ESTALE)):
            opening = system._open_instead(at.root, name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            assert await errno_of(opening) == error
        assert not at.files.handles
        assert await at.files.saver.save_all()
        opened = await system._open_instead(at.root, b"file", os.O_WRONLY | os.O_CREAT)
        assert at.files.handles
        system.abandoned(p.CREATE, opened)
        assert not at.files.handles

    asyncio.run(work())


@pytest.mark.parametrize("soon", [True, False])
@pytest.mark.parametrize("how", ["create", "exclusive", "link", "node"])
def test_a_renaming_that_was_stopped_leaves_no_name_that_somebody_takes_for_free(
    at: At, bucket: Bucket, gate: Gate, monkeypatch: pytest.MonkeyPatch, soon: bool, how: str
) -> None:
    delete = bucket.delete

    def slow(keys: Any) -> dict[bytes, str]:
        gate.stop()
        return delete(keys)

    def request(opcode: int, body: bytes) -> Request:
        return Request((0, opcode, 1, p.ROOT, 0, 0, 0, 0, 0), memoryview(body))

    async def take(system: Filesystem) -> None:
        """The kernel believes that there is no such name."""
        handlers = system.handlers(True)
        if how == "link":
            answer = handlers[p.SYMLINK](request(p.SYMLINK, b"new\0target\0"))
        elif how == "node":
            answer = handlers[p.MKNOD](request(p.MKNOD, bytes(16) + b"new\0"))
        else:
            flags = os.O_WRONLY | (os.O_EXCL if how == "exclusive" else 0)
            body = p.OPEN_FLAGS.pack(flags, 0o644) + bytes(8) + b"new\0"
            answer = handlers[p.CREATE](request(p.CREATE, body))
        if not isinstance(answer, (bytes, list)):
            await cast(Any, answer)
        for number in list(at.files.handles):
            await at.close_file(number)

    async def work() -> None:
        system = Filesystem(at.nodes, at.tree, at.files, at.changes)
        bucket.put(b"old", b"content")
        await at.node(b"old")
        monkeypatch.setattr(bucket, "delete", slow)
        rename = system.handlers(True)[p.RENAME]
        body = memoryview(p.ROOT.to_bytes(8, "little") + b"old\0new\0")
        renaming = asyncio.ensure_future(cast(Any, rename(request(p.RENAME, bytes(body)))))
        await gate.reached()
        renaming.cancel()
        if not soon:
            gate.open()
            await asyncio.wait([renaming])
        taking = asyncio.ensure_future(take(system))
        await asyncio.sleep(0.05)
        gate.open()
        if how == "create":
            await taking
        else:
            assert await errno_of(cast(Any, taking)) == errno.EEXIST
        assert bucket.contents() == {"new": b"content"}

    asyncio.run(work())
