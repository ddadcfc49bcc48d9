"""What is read of open files and written to them, whoever else changes them meanwhile."""

from __future__ import annotations

import errno
from typing import NoReturn

import pytest

from adsmig.errors import ObjectError
from adsmig.model import Meta
from adsmig.mount.draft import Draft
from tests.unit.mount.mounted import PAGE, At, Bucket, During, change, disk_is_full, errno_of


@pytest.mark.parametrize("content", [b"", b"first"])
def test_nobody_writes_to_what_was_replaced_elsewhere_without_a_word(
    bucket: Bucket, during: During, content: bytes
) -> None:
    async def work(at: At) -> None:
        bucket.put(b"log", content)
        old = await at.node(b"log")
        number = at.files.open(old, True)
        bucket.put(b"log", b"another version")
        at.doubt()
        new = await at.node(b"log")
        assert new is not old
        assert await errno_of(at.write(number, b"more", len(content))) == errno.ESTALE
        assert await errno_of(at.files.truncate(old, 0)) == errno.ESTALE
        assert await errno_of(at.files.saver.restate(old, Meta(mode=0o600))) == errno.ESTALE
        await at.close_file(number)
        assert bucket.contents() == {"log": b"another version"}

    during(work)


def test_who_writes_to_what_was_removed_here_is_not_disturbed(
    bucket: Bucket, during: During
) -> None:
    async def work(at: At) -> None:
        bucket.put(b"log", b"first")
        node = await at.node(b"log")
        number = at.files.open(node, True)
        await at.changes.unlink(at.root, b"log")
        await at.write(number, b"more", 5)
        await at.close_file(number)
        assert bucket.contents() == {}

    during(work)


def test_who_reads_what_was_stored_here_keeps_nobody_from_what_others_stored_since(
    bucket: Bucket, during: During
) -> None:
    async def work(at: At) -> None:
        old, writer = at.create(b"file")
        reader = at.files.open(old, False)
        await at.write(writer, b"ours")
        await at.close_file(writer)
        assert await at.node(b"file") is old
        at.doubt()
        assert await at.node(b"file") is old
        bucket.put(b"file", b"theirs, later")
        at.doubt()
        new = await at.node(b"file")
        assert new is not old
        number = at.files.open(new, False)
        assert await at.read(number, 100) == b"theirs, later"
        assert await at.read(reader, 100) == b"ours"

    during(work)


@pytest.mark.parametrize("opened", [False, True])
def test_a_file_that_could_not_be_cut_off_is_not_cut_off_later(
    bucket: Bucket, during: During, monkeypatch: pytest.MonkeyPatch, opened: bool
) -> None:
    def refused(*_: object) -> NoReturn:
        raise ObjectError("denied", "it may not be written")

    async def work(at: At) -> None:
        bucket.put(b"file", b"content")
        node = await at.node(b"file")
        number = at.files.open(node, True)  # as open(2) with O_TRUNC does first
        with monkeypatch.context() as patch:
            if opened:
                patch.setattr(Draft, "note", disk_is_full)
            else:
                patch.setattr(bucket, "write", refused)
            error = await errno_of(at.changes.change(node, change(size=3), opened))
            assert error == (errno.ENOSPC if opened else errno.EACCES)
            assert await at.read(number, 100) == b"content"
        at.files.release(number)
        assert await at.files.saver.save_all()
        assert bucket.contents() == {"file": b"content"}
        await at.changes.change(node, change(size=3), False)
        assert bucket.contents() == {"file": b"con"}

    during(work)


def test_what_is_written_over_the_end_on_a_full_disk_leaves_no_zeros(
    bucket: Bucket, during: During, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = b"x" * (2 * PAGE), b"y" * 20

    async def work(at: At) -> None:
        node, number = at.create(b"file")
        await at.write(number, first)
        write = Draft.write
        full = iter([True, True])  # for the second time when the cache has given its room up

        def no_room(draft: Draft, start: int, data: bytes | memoryview) -> None:
            if next(full, False):
                disk_is_full()
            write(draft, start, data)

        monkeypatch.setattr(Draft, "write", no_room)
        await at.write(number, second, 2 * PAGE - 10)
        assert node.draft
        assert node.draft.sent
        await at.close_file(number)
        assert bucket.contents() == {"file": first[:-10] + second}

    during(work)


@pytest.mark.parametrize("content", [b"", b"content"])
def test_what_is_kept_beside_a_file_stays_when_nobody_has_asked_for_it_before_it_is_written_to(
    bucket: Bucket, during: During, content: bytes
) -> None:
    kept = Meta(mode=0o600, headers={"content-type": "text/csv"}, user={"colour": "blue"})

    async def work(at: At) -> None:
        bucket.write(b"file", iter([memoryview(content)] if content else ()), len(content), kept)
        node = await at.node(b"file")
        assert not node.known
        number = at.files.open(node, True)
        await at.write(number, b"more", len(content))
        await at.close_file(number)
        assert bucket.contents() == {"file": content + b"more"}
        meta = bucket.look(b"file")[1]
        assert (meta.mode, meta.headers, meta.user) == (kept.mode, kept.headers, kept.user)

    during(work)


@pytest.mark.parametrize("content", [b"", b"first"])
@pytest.mark.parametrize("removed", [False, True])
def test_who_begins_to_write_to_what_was_replaced_long_ago_is_told_so(
    bucket: Bucket, during: During, content: bytes, removed: bool
) -> None:
    async def work(at: At) -> None:
        bucket.put(b"log", content)
        node = await at.node(b"log")
        number = at.files.open(node, True)
        assert await at.read(number, 100) == content  # and it is in the cache from now on
        await at.tree.learn(node)
        if removed:
            bucket.delete([b"log"])
        else:
            bucket.put(b"log", b"another version")
        at.doubt()  # but nobody asks for the name any more
        assert await errno_of(at.write(number, b"more", len(content))) == errno.ESTALE
        await at.close_file(number)
        assert bucket.contents() == ({} if removed else {"log": b"another version"})

    during(work)


def test_a_file_is_not_made_larger_than_the_store_could_hold(
    bucket: Bucket, during: During
) -> None:
    async def work(at: At) -> None:
        node, number = at.create(b"file")
        await at.write(number, b"content")
        most = bucket.profile.max_size
        assert await errno_of(at.files.truncate(node, most + 1)) == errno.EFBIG
        assert await errno_of(at.write(number, b"more", most - 1)) == errno.EFBIG
        await at.close_file(number)
        assert bucket.contents() == {"file": b"content"}

    during(work)


@pytest.mark.parametrize("size", [3, 100])
def test_who_cannot_cut_off_what_was_replaced_elsewhere_reads_on_as_before(
    bucket: Bucket, during: During, size: int
) -> None:
    async def work(at: At) -> None:
        bucket.put(b"log", b"first content")
        node = await at.node(b"log")
        number = at.files.open(node, True)
        assert await at.read(number, 100) == b"first content"
        bucket.put(b"log", b"another version")
        at.doubt()
        assert await at.node(b"log") is not node
        assert await errno_of(at.files.truncate(node, size)) == errno.ESTALE
        assert await at.read(number, 100) == b"first content"

    during(work)
