"""Requests that end in another way than the kernel thought."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from adsmig.errors import ObjectError
from adsmig.links import LINK, link_meta
from adsmig.model import Meta
from adsmig.mount import protocol as p
from adsmig.mount.filesystem import Filesystem
from tests.unit.mount.test_changes import At, Bucket, errno_of


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


@pytest.fixture
def at(tmp_path: Path, bucket: Bucket) -> Iterator[At]:
    """To be used in one event loop."""
    at = At(tmp_path, bucket)
    yield at
    at.close()


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
        assert await at.files.save_all()
        opened = await system._open_instead(at.root, b"file", os.O_WRONLY | os.O_CREAT)
        assert at.files.handles
        system.abandoned(p.CREATE, opened)
        assert not at.files.handles

    asyncio.run(work())
