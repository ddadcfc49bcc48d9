"""Files that go to the store in parts: while they are written, renamed, removed and closed."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest

from adsmig.errors import NotFound, ObjectError
from adsmig.model import Meta, Part, Upload
from adsmig.mount.draft import left
from adsmig.mount.nodes import Directory
from adsmig.providers import OPAQUE
from tests.unit.mount.mounted import PAGE, At, Bucket, During, Gate, errno_of, write_pages


@pytest.mark.parametrize("removed", [True, False])
def test_a_file_that_went_in_parts_leaves_nothing_under_its_old_name(
    bucket: Bucket, during: During, removed: bool
) -> None:
    content = b"x" * (3 * PAGE)

    async def work(at: At) -> None:
        node, number = at.create(b"new")
        await at.write(number, content)
        assert node.draft
        await at.files._sender.send_off(node, node.draft, node.draft.size)
        assert node.draft.sent
        if removed:
            await at.changes.unlink(at.root, b"new")
            assert await at.read(number, len(content)) == content
        else:
            await at.write(number, b"head")
            await at.rename(b"new", b"final")
        await at.close_file(number)
        assert bucket.contents() == ({} if removed else {"final": b"head" + content[4:]})

    during(work)


def test_an_upload_under_way_does_not_take_the_place_of_who_has_the_name_now(
    bucket: Bucket, during: During
) -> None:
    async def work(at: At) -> None:
        node, number = at.create(b"log")
        await at.write(number, b"x" * (2 * PAGE))
        assert node.draft
        await at.files._sender.send_off(node, node.draft, node.draft.size)
        await at.rename(b"log", b"log.1")
        _, other = at.create(b"log")
        await at.write(other, b"later")
        await at.close_file(other)
        await at.write(number, b"end", 2 * PAGE)
        await at.close_file(number)
        assert bucket.contents() == {"log": b"later", "log.1": b"x" * (2 * PAGE) + b"end"}

    during(work)


@pytest.mark.usefixtures("small_parts")
def test_an_upload_that_goes_on_under_another_name_takes_nobodys_place(
    bucket: Bucket, during: During
) -> None:
    async def work(at: At) -> None:
        node, number = at.create(b"log")
        await write_pages(at, number, 0, 3)
        assert node.draft
        assert node.draft.upload
        assert node.draft.sent == 0
        await at.rename(b"log", b"log.1")
        _, other = at.create(b"log")
        await at.write(other, b"later")
        await at.close_file(other)
        content = await write_pages(at, number, 3, 20)
        assert node.draft.sent
        await at.close_file(number)
        assert bucket.contents() == {"log": b"later", "log.1": content}

    during(work)


@pytest.mark.usefixtures("small_parts")
def test_an_upload_in_a_directory_that_gets_another_name_takes_nobodys_place(
    bucket: Bucket, during: During, gate: Gate
) -> None:
    async def work(at: At) -> None:
        bucket.put(b"old/file", b"content")
        old = await at.node(b"old")
        assert isinstance(old, Directory)
        node, number = at.create(b"log", old)
        bucket.before_copy = gate.stop
        renaming = asyncio.ensure_future(at.rename(b"old", b"new"))
        await gate.reached()
        await write_pages(at, number, 0, 20)
        gate.open()
        await renaming
        made = await at.changes.mkdir(at.root, b"old", 0o755, 0, 0)
        _, other = at.create(b"log", made)
        await at.write(other, b"later")
        await at.close_file(other)
        content = await write_pages(at, number, 20, 40)
        assert node.draft
        assert node.draft.sent
        await at.close_file(number)
        stored = {"old/log": b"later", "new/log": content, "new/file": b"content"}
        assert bucket.contents() == stored

    during(work)


@pytest.mark.usefixtures("small_parts")
def test_who_reads_the_beginning_of_a_large_file_that_is_just_being_stored_gets_it(
    bucket: Bucket, during: During
) -> None:
    async def work(at: At) -> None:
        node, number = at.create(b"file")
        content = await write_pages(at, number, 0, 20)
        assert node.draft
        assert node.draft.sent
        closing = asyncio.ensure_future(at.close_file(number))
        reader = at.files.open(node, False)
        while not node.is_locked:
            await asyncio.sleep(0)
        assert await at.read(reader, 100) == content[:100]
        await closing

    during(work)


@pytest.mark.usefixtures("small_parts")
def test_a_part_that_arrives_late_does_not_bring_a_removed_file_back(
    bucket: Bucket, during: During, gate: Gate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    put_part = bucket.put_part

    def wait(*arguments: Any) -> object:
        gate.stop()
        return put_part(*arguments)

    async def work(at: At) -> None:
        monkeypatch.setattr(bucket, "put_part", wait)
        _, number = at.create(b"file")
        await write_pages(at, number, 0, 3)
        await gate.reached()
        await at.changes.unlink(at.root, b"file")
        gate.open()
        await asyncio.sleep(0.1)
        assert not left(tmp_path / "drafts")
        at.files.release(number)

    during(work)


@pytest.mark.usefixtures("small_parts")
def test_a_large_file_that_is_emptied_is_stored_empty(
    bucket: Bucket, during: During, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete = bucket.complete

    def checked(key: bytes, upload: Upload, parts: Sequence[Part], meta: Meta) -> str | None:
        """As all stores do."""
        if not parts:
            raise ObjectError("MalformedXML", "you must specify at least one part")
        return complete(key, upload, parts, meta)

    async def work(at: At) -> None:
        monkeypatch.setattr(bucket, "complete", checked)
        node, number = at.create(b"file")
        await write_pages(at, number, 0, 3)
        assert node.draft
        assert node.draft.upload
        await at.files.truncate(node, 0)
        await at.close_file(number)
        assert bucket.contents() == {"file": b""}
        for _ in range(1000):  # it is given up beside the rest
            if not list(bucket.uploads()):
                return
            await asyncio.sleep(0.01)
        pytest.fail("the upload is left")

    during(work)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("replaced", [False, True])
def test_a_large_file_of_which_the_answer_was_lost_is_known_by_its_bytes_where_no_etag_tells(
    bucket: Bucket, during: During, monkeypatch: pytest.MonkeyPatch, replaced: bool
) -> None:
    complete = bucket.complete

    def unanswered(key: bytes, upload: Upload, parts: Sequence[Part], meta: Meta) -> NoReturn:
        if any(there == upload.upload_id for _, there in bucket.uploads()):
            complete(key, upload, parts, meta)
            if replaced:
                size = len(bucket.contents()["file"])
                bucket.put(b"file", b"theirs".ljust(size))
            raise ObjectError("answer", "what is that")
        raise NotFound("no such upload")

    async def work(at: At) -> None:
        bucket.profile.etag = OPAQUE
        node, number = at.create(b"file")
        content = await write_pages(at, number, 0, 20)
        assert node.draft
        assert node.draft.sent
        monkeypatch.setattr(bucket, "complete", unanswered)
        assert await errno_of(at.files.saver.save(node)) == errno.EIO
        if replaced:
            assert await errno_of(at.files.saver.save(node)) == errno.EIO
        else:
            await at.close_file(number)
            assert bucket.contents() == {"file": content}

    during(work)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("pages", [1, 3])
@pytest.mark.parametrize("renamed", [False, True])
def test_what_the_store_has_refused_can_be_removed_and_renamed_without_it(
    bucket: Bucket, during: During, monkeypatch: pytest.MonkeyPatch,
    pages: int, renamed: bool,
) -> None:  # fmt: skip
    def refused(*_: object) -> NoReturn:
        raise ObjectError("denied", "AccessDenied")

    async def work(at: At) -> None:
        bucket.put(b"dir/file", b"content")
        directory = await at.node(b"dir")
        assert isinstance(directory, Directory)
        node, number = at.create(b"file", directory)
        with monkeypatch.context() as patch:
            for name in ("write", "begin_upload"):
                patch.setattr(bucket, name, refused)
            patch.setattr(bucket, "delete", lambda keys: dict.fromkeys(keys, "AccessDenied"))
            content = await write_pages(at, number, 0, pages)
            assert await errno_of(at.files.saver.save(node)) == errno.EACCES
            if renamed:
                await at.renames.rename(directory, b"file", at.root, b"final", 0)
            else:
                await at.changes.unlink(directory, b"file")
        await at.close_file(number)
        there = {"dir/file": b"content"}
        assert bucket.contents() == (there | {"final": content} if renamed else there)

    during(work)


@pytest.mark.usefixtures("small_parts")
def test_who_is_in_need_of_room_waits_for_the_upload_that_is_being_opened(
    bucket: Bucket, during: During, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, begun = bucket.begin_beside, list[bytes]()

    def slow(key: bytes, *arguments: Any) -> Upload:
        begun.append(key)
        if len(begun) == 1:
            time.sleep(0.3)
        return begin(key, *arguments)

    async def work(at: At) -> None:
        monkeypatch.setattr(bucket, "begin_beside", slow)
        node, number = at.create(b"file")
        for page in range(3):
            await at.write(number, bytes([page + 1]) * PAGE, page * PAGE)
        assert node.draft
        async with at.files.turns.own(node):
            await at.files._sender.send_off(node, node.draft, node.draft.size)
        await asyncio.sleep(0.5)
        await at.write(number, b"end", 3 * PAGE)
        await at.close_file(number)
        content = b"".join(bytes([page + 1]) * PAGE for page in range(3)) + b"end"
        assert bucket.contents() == {"file": content}
        assert len(begun) == 1
        assert not list(bucket.uploads())

    during(work)


@pytest.mark.usefixtures("small_parts")
def test_an_upload_that_nobody_wants_when_it_is_open_is_given_up(
    bucket: Bucket, during: During, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = bucket.begin_beside

    def slow(*arguments: Any) -> Upload:
        gate.stop()
        return begin(*arguments)

    async def work(at: At) -> None:
        monkeypatch.setattr(bucket, "begin_beside", slow)
        _, number = at.create(b"file")
        await at.write(number, bytes(3 * PAGE))
        await gate.reached()
        await at.changes.unlink(at.root, b"file")
        at.files.release(number)
        await asyncio.sleep(0.05)
        gate.open()
        await at.files.background.end(20)
        await asyncio.sleep(0.1)
        await at.files.background.end(20)
        assert bucket.contents() == {}
        assert not list(bucket.uploads())

    during(work)
