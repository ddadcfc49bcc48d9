"""Files as they were changed, and what a mount leaves of them that was killed."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

from adsmig.model import Entry, Meta, Part, Upload
from adsmig.mount.draft import Draft, left

MIB = 1 << 20


def upload(key: bytes = b"key") -> Upload:
    return Upload(Entry(key, 100 * MIB, None, 0), "id", MIB)


def test_what_is_filled_in_any_order_is_known_to_be_without_a_gap(tmp_path: Path) -> None:
    draft = Draft(tmp_path, None)
    draft.write(0, b"ab")
    draft.write(4, b"ef")
    assert (draft.filled, draft.size) == (2, 6)
    draft.write(2, b"cd")
    assert draft.filled == 6
    draft.truncate(3)
    assert (draft.filled, draft.size, draft.read(0, 10)) == (3, 3, b"abc")
    draft.remove()
    assert not list(tmp_path.iterdir())


def test_a_part_that_is_written_to_again_is_to_be_stored_again(tmp_path: Path) -> None:
    draft = Draft(tmp_path, None)
    draft.write(0, bytes(4 * MIB))
    draft.upload = upload()
    draft.parts = {number: Part(number, "etag", None, None) for number in (1, 2, 3, 4)}
    draft.write(2 * MIB - 1, b"xy")
    assert set(draft.parts) == {1, 4}
    draft.truncate(3 * MIB + 5)
    assert set(draft.parts) == {1}
    draft.remove()


def test_only_parts_that_are_stored_give_back_their_room(tmp_path: Path) -> None:
    draft = Draft(tmp_path, None)
    draft.write(0, b"x" * (4 * MIB))
    draft.upload = upload()
    draft.parts = {number: Part(number, "etag", None, None) for number in (1, 2, 4)}
    draft.note(b"key", Meta())
    asyncio.run(draft.drop_sent(0))
    assert draft.sent == 2 * MIB
    assert draft.path.stat().st_blocks * 512 < 3 * MIB
    assert draft.read(2 * MIB, 3) == b"xxx"
    draft.remove()


def test_bytes_go_only_when_the_journal_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = Draft(tmp_path, None)
    draft.write(0, b"x" * (2 * MIB))
    draft.upload, draft.parts = upload(), {1: Part(1, "etag", None, None)}
    draft.note(b"key", Meta())
    told = []

    def punch(fd: int, start: int, size: int) -> bool:
        told.append(left(tmp_path)[0].sent)
        return True

    monkeypatch.setattr("adsmig.mount.draft._punch", punch)
    asyncio.run(draft.drop_sent(0))
    assert told == [MIB]
    draft.remove()


def test_bytes_stay_where_the_journal_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = Draft(tmp_path, None)
    draft.write(0, b"x" * (2 * MIB))
    draft.upload, draft.parts = upload(), {1: Part(1, "etag", None, None)}
    draft.note(b"key", Meta())
    monkeypatch.setattr(os, "replace", full)
    asyncio.run(draft.drop_sent(0))
    assert draft.sent == 0
    assert draft.read(0, 3) == b"xxx"
    with pytest.raises(OSError, match="full"):
        draft.write(0, b"y")
    assert draft.read(0, 3) == b"xxx"
    assert 1 in draft.parts
    draft.remove()


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "full")


def test_the_journal_lists_no_part_that_was_written_to_again(tmp_path: Path) -> None:
    draft = Draft(tmp_path, None)
    draft.write(0, bytes(3 * MIB))
    draft.upload = upload()
    draft.parts = {number: Part(number, "etag", None, None) for number in (1, 2, 3)}
    draft.note(b"key", Meta())
    draft.write(MIB, b"new")
    assert set(left(tmp_path)[0].parts) == {1, 3}
    draft.truncate(2 * MIB)
    assert set(left(tmp_path)[0].parts) == {1}
    draft.remove()


def test_a_draft_that_the_store_lacks_is_found_and_others_are_removed(tmp_path: Path) -> None:
    base = Entry(b"dir/\xff", 7, None, 0, "etag")
    meta = Meta(5, 0o600, 1, 2, {"content-type": "text/plain"}, {"a": "b"})
    lacking, stored = Draft(tmp_path, base), Draft(tmp_path, None)
    lacking.write(0, b"content")
    lacking.upload, lacking.parts = upload(), {1: Part(1, "e", None, "m")}
    lacking.note(b"dir/\xff", meta)
    stored.write(0, b"other")
    stored.note(b"stored", Meta())
    stored.settled(base)
    (one,) = left(tmp_path)
    assert (one.key, one.meta, one.base, one.size) == (b"dir/\xff", meta, (7, "etag"), 7)
    assert one.upload
    assert (one.upload.upload_id, one.parts) == ("id", {1: Part(1, "e", None, "m")})
    one.forget()
    assert not list(tmp_path.iterdir())


def test_what_half_a_write_has_left_behind_the_end_is_not_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = Draft(tmp_path, None)
    draft.write(0, b"content")
    write, room = os.pwrite, iter([True])

    def half(fd: int, data: memoryview, at: int) -> int:
        if not next(room, False):
            raise OSError(errno.ENOSPC, "no room")
        return write(fd, data[: len(data) // 2], at)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", half)
        with pytest.raises(OSError, match="no room"):
            draft.write(100, b"never written")
    draft.note(b"key", Meta())
    (found,) = left(tmp_path)
    assert found.size == len(b"content")
    draft.truncate(200)
    assert draft.read(0, 200) == b"content".ljust(200, b"\0")
    draft.remove()
