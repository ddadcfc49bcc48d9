"""What gets another name, alone or with all that is in it, and what of that the store then has."""

from __future__ import annotations

import asyncio
import errno
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from adsmig.errors import ObjectError
from adsmig.model import Entry, Meta, Upload
from adsmig.mount import store
from adsmig.mount.nodes import Directory
from adsmig.mount.protocol import NOREPLACE
from tests.unit.mount.mounted import PAGE, At, Bucket, During, Gate, errno_of


def test_what_an_unstored_file_replaced_goes_with_its_name(bucket: Bucket, during: During) -> None:
    async def work(at: At) -> None:
        bucket.put(b"removed", b"old")
        bucket.put(b"renamed", b"old")
        for name in (b"removed", b"renamed"):
            _, number = at.create(b"new")
            await at.write(number, b"content")
            await at.rename(b"new", name)
            if name == b"removed":
                await at.changes.unlink(at.root, name)
            else:
                await at.rename(name, b"final")
            await at.close_file(number)
        assert bucket.contents() == {"final": b"content"}

    during(work)


def test_what_is_written_while_a_directory_gets_another_name_goes_along(
    bucket: Bucket, during: During, gate: Gate, tmp_path: Path
) -> None:
    async def work(at: At) -> None:
        bucket.put(b"old/log", b"first")
        bucket.put(b"old/sub/file", b"content")
        old = await at.node(b"old")
        assert isinstance(old, Directory)
        log = await at.node(b"log", old)
        sub = await at.node(b"sub", old)
        assert isinstance(sub, Directory)
        number = at.files.open(log, True)
        await at.write(number, b"FIRST")
        await at.files.saver.save(log)
        bucket.before_copy = gate.stop
        renaming = asyncio.ensure_future(at.rename(b"old", b"new"))
        await gate.reached()
        await at.write(number, b"second", 5)
        _, other = at.create(b"created", sub)
        await at.write(other, b"content")
        tasks = [
            asyncio.ensure_future(one)
            for one in (
                at.files.saver.save(log),
                at.close_file(other),
                at.changes.mkdir(sub, b"made", 0o755, 0, 0),
                at.changes.unlink(sub, b"file"),
            )
        ]
        await asyncio.sleep(0.1)
        gate.open()
        await asyncio.gather(renaming, *tasks)
        stored = {"new/log": b"FIRSTsecond", "new/sub/created": b"content"}
        assert bucket.contents() == stored
        assert not list((tmp_path / "drafts").glob("*.json"))
        at.files.release(number)
        at.doubt()
        with pytest.raises(FileNotFoundError):
            await at.node(b"old")
        assert await at.node(b"log", old) is log

    during(work)


def test_what_others_replace_while_its_directory_gets_another_name_is_copied_again(
    bucket: Bucket, during: During
) -> None:
    async def work(at: At) -> None:
        for name in (b"old/a", b"old/b", b"old/c"):
            bucket.put(name, b"first")
        others = [(b"old/a", b"another"), (b"old/late", b"later")]

        def replaced(key: bytes) -> None:
            if key == b"old/a" and others:
                bucket.put(*others.pop())
                bucket.put(*others.pop())
            elif key == b"old/c":
                bucket.delete([key])

        bucket.before_copy = replaced
        await at.rename(b"old", b"new")
        stored = {"new/a": b"another", "new/b": b"first", "new/late": b"later"}
        assert bucket.contents() == stored

    during(work)


def test_a_directory_that_cannot_be_renamed_leaves_no_copies(
    bucket: Bucket, during: During
) -> None:
    async def work(at: At) -> None:
        for name in (b"old/a", b"old/b", b"old/c"):
            bucket.put(name, b"content")

        def refused(key: bytes) -> None:
            if key == b"old/b":
                raise ObjectError("denied", "it may not be read")

        bucket.before_copy = refused
        assert await errno_of(at.rename(b"old", b"new")) == errno.EACCES
        assert list(bucket.contents()) == ["old/a", "old/b", "old/c"]
        bucket.before_copy = lambda _key: None
        await at.rename(b"old", b"new")
        assert list(bucket.contents()) == ["new/a", "new/b", "new/c"]

    during(work)


@pytest.mark.parametrize("name", [b"dir", b"file"])
def test_what_could_not_be_removed_under_its_old_name_has_not_got_another_one(
    bucket: Bucket, during: During, monkeypatch: pytest.MonkeyPatch, name: bytes
) -> None:
    async def work(at: At) -> None:
        bucket.put(b"dir/file", b"content")
        bucket.put(b"file", b"content")
        directory = await at.node(b"dir")
        assert isinstance(directory, Directory)
        node = await at.node(b"file", directory if name == b"dir" else None)
        with monkeypatch.context() as patch:
            patch.setattr(bucket, "delete", lambda keys: dict.fromkeys(keys, "access denied"))
            assert await errno_of(at.rename(name, b"new")) == errno.EACCES
        number = at.files.open(node, True)  # as the kernel does, which knows no other name
        await at.write(number, b"changed")
        await at.close_file(number)
        copy = "new/file" if name == b"dir" else "new"
        stored = {"dir/file": b"content", "file": b"content", copy: b"content"}
        stored["dir/file" if name == b"dir" else "file"] = b"changed"
        assert bucket.contents() == stored
        assert await at.node(b"file", node.parent) is node
        await at.changes.unlink(at.root, b"file")

    during(work)


def test_who_has_a_file_open_in_a_directory_that_gets_another_name_is_not_disturbed(
    bucket: Bucket, during: During, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_within = bucket.copy_within

    def copied(entry: Entry, key: bytes, meta: Meta | None) -> Entry:
        """As one object what came in parts, which has another ETag then."""
        copy_within(entry, key, meta)
        objects = bucket._bucket.objects
        objects[key] = objects[key]._replace(etag="another-1")
        return bucket.stat(key)

    async def work(at: At) -> None:
        bucket.put(b"old/read", b"content")
        bucket.put(b"old/written", b"content")
        old = await at.node(b"old")
        assert isinstance(old, Directory)
        nodes = [await at.node(name, old) for name in (b"read", b"written")]
        reader, writer = at.files.open(nodes[0], False), at.files.open(nodes[1], True)
        monkeypatch.setattr(bucket, "copy_within", copied)
        await at.rename(b"old", b"new")
        at.doubt()
        for node in nodes:
            assert await at.node(node.name, old) is node
        assert await at.read(reader, 100) == b"content"
        await at.write(writer, b"CON")
        await at.close_file(writer)
        assert bucket.contents() == {"new/read": b"content", "new/written": b"CONtent"}

    during(work)


def test_a_directory_takes_the_place_of_none_that_others_have_just_made(
    bucket: Bucket, during: During
) -> None:
    async def work(at: At) -> None:
        bucket.put(b"old/file", b"ours")
        await at.node(b"old")
        bucket.put(b"new/file", b"theirs")
        assert await errno_of(at.rename(b"old", b"new")) == errno.ENOTEMPTY
        assert bucket.contents() == {"old/file": b"ours", "new/file": b"theirs"}

    during(work)


@pytest.mark.parametrize("renamed", [False, True])
def test_a_file_that_was_stored_without_an_answer_leaves_nothing_under_its_name(
    bucket: Bucket, during: During, monkeypatch: pytest.MonkeyPatch, renamed: bool
) -> None:
    write = bucket.write

    def unanswered(*arguments: Any) -> NoReturn:
        write(*arguments)
        raise ObjectError("answer", "what is that")

    async def work(at: At) -> None:
        node, number = at.create(b"file")
        await at.write(number, b"content")
        with monkeypatch.context() as patch:
            patch.setattr(bucket, "write", unanswered)
            assert await errno_of(at.files.saver.save(node)) == errno.EIO
        if renamed:
            await at.rename(b"file", b"final")
            await at.close_file(number)
        else:
            await at.changes.unlink(at.root, b"file")
            at.files.release(number)
        assert bucket.contents() == ({"final": b"content"} if renamed else {})

    during(work)


def test_what_a_renaming_that_was_given_up_still_does_costs_nothing(
    bucket: Bucket, during: During, gate: Gate
) -> None:
    waiting = iter([True])

    def wait(_key: bytes) -> None:
        if next(waiting, False):
            gate.stop()

    async def work(at: At) -> None:
        bucket.put(b"old/file", b"content")
        await at.node(b"old")
        bucket.before_copy = wait
        first = asyncio.ensure_future(at.rename(b"old", b"new"))
        await gate.reached()
        first.cancel()  # as when a signal comes; the kernel is told so at once
        second = asyncio.ensure_future(at.rename(b"old", b"new"))
        await asyncio.sleep(0.2)
        gate.open()
        await asyncio.gather(first, second, return_exceptions=True)
        assert bucket.contents() == {"new/file": b"content"}

    during(work)


def test_a_copy_that_was_given_up_does_not_take_the_place_of_what_is_stored_since(
    bucket: Bucket, during: During, gate: Gate
) -> None:
    async def work(at: At) -> None:
        bucket.put(b"old", b"old content")
        await at.node(b"old")
        bucket.before_copy = gate.stop
        renaming = asyncio.ensure_future(at.rename(b"old", b"new"))
        await gate.reached()
        renaming.cancel()
        _, number = at.create(b"new")
        await at.write(number, b"new content")
        closing = asyncio.ensure_future(at.close_file(number))
        await asyncio.sleep(0.2)
        gate.open()
        await asyncio.gather(renaming, closing, return_exceptions=True)
        assert bucket.contents() == {"old": b"old content", "new": b"new content"}

    during(work)


def test_who_wants_nothing_replaced_replaces_nothing_that_others_have_just_made(
    bucket: Bucket, during: During
) -> None:
    async def work(at: At) -> None:
        bucket.put(b"file", b"ours")
        await at.node(b"file")
        bucket.put(b"new", b"theirs")
        renaming = at.renames.rename(at.root, b"file", at.root, b"new", NOREPLACE)
        assert await errno_of(renaming) == errno.EEXIST
        assert bucket.contents() == {"file": b"ours", "new": b"theirs"}
        await at.renames.rename(at.root, b"file", at.root, b"newer", NOREPLACE)
        assert bucket.contents() == {"newer": b"ours", "new": b"theirs"}

    during(work)


@pytest.mark.parametrize("parts", [True, False])
def test_what_is_too_large_to_be_copied_with_one_request_is_copied_in_parts(
    bucket: Bucket, during: During, monkeypatch: pytest.MonkeyPatch, parts: bool
) -> None:
    content, reads = bytes(range(256)) * (5 * PAGE // 256) + b"end", list[bytes]()
    begin_upload, read = bucket.begin_upload, bucket.read

    def begun(*arguments: Any) -> Upload:
        return replace(begin_upload(*arguments), part_size=PAGE)

    def copied(_src: object, key: bytes, upload: Upload, number: int) -> object:
        start, size = upload.span(number)
        if not parts and number == 6:
            return None
        data = memoryview(content)[start : start + size]
        return bucket.put_part(key, upload, number, iter([data]))

    def counted(entry: Entry, *arguments: Any) -> Any:
        reads.append(entry.key)
        return read(entry, *arguments)

    async def work(at: At) -> None:
        bucket.put(b"old", content)
        await at.node(b"old")
        bucket.profile.max_part, bucket.profile.max_copy = 1 << 30, PAGE
        for name, size in {"SINGLE": PAGE, "PART": PAGE, "_COPIED": PAGE}.items():
            monkeypatch.setattr(store, name, size)
        for name, function in {
            "copy_within": lambda *_: None, "begin_upload": begun, "copy_part": copied,
            "read": counted,
        }.items():  # fmt: skip
            monkeypatch.setattr(bucket, name, function)
        await at.rename(b"old", b"new")
        assert bucket.contents() == {"new": content}
        assert not list(bucket.uploads())
        assert bool(reads) != parts

    during(work)
