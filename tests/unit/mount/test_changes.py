"""What a mount makes and removes, and gives other metadata; what of that the store then has."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest

from adsmig.model import Meta
from adsmig.mount.draft import Draft
from adsmig.mount.names import spelled
from adsmig.mount.nodes import Directory
from adsmig.mount.tree import FEW
from tests.unit.mount.mounted import At, Bucket, During, Gate, change, disk_is_full, errno_of

CONTENT = b".adsmig~content"


def test_what_is_stored_under_the_key_of_a_directory_stays_whatever_is_done_to_that(
    bucket: Bucket, during: During
) -> None:
    async def work(at: At) -> None:
        for key in (b"d/", b"d/sub/", b"other/"):
            bucket.put(key, b"content of " + key)
        bucket.put(b"from/file", b"content")
        node = await at.node(b"d")
        await at.changes.change(node, change(mode=0o700), False)
        assert bucket.look(b"d/")[1].mode == 0o700
        assert await errno_of(at.changes.rmdir(at.root, b"other")) == errno.ENOTEMPTY
        assert await errno_of(at.rename(b"from", b"other")) == errno.ENOTEMPTY
        await at.rename(b"d", b"e")
        found = {key: one.content for key, one in bucket._bucket.objects.items()}
        assert found == {
            b"e/": b"content of d/",
            b"e/sub/": b"content of d/sub/",
            b"other/": b"content of other/",
            b"from/file": b"content",
        }
        assert bucket.look(b"e/")[1].mode == 0o700

    during(work)


def test_what_is_stored_under_the_key_of_a_directory_of_many_names_stays_when_one_goes(
    bucket: Bucket, during: During
) -> None:
    async def work(at: At) -> None:
        for number in range(FEW + 2):
            bucket.put(b"d/%d" % number, b"")
        bucket.put(b"d/", b"content")
        node = await at.node(b"d")
        assert isinstance(node, Directory)
        await at.node(b"0", node)
        assert node.wide
        await at.changes.unlink(node, b"0")
        assert bucket._bucket.objects[b"d/"].content == b"content"

    during(work)


@pytest.mark.parametrize("removed", [True, False])
def test_a_directory_stays_when_what_is_stored_under_its_key_goes(
    bucket: Bucket, during: During, removed: bool
) -> None:
    async def work(at: At) -> None:
        bucket.put(b"d/", b"content")
        node = await at.node(b"d")
        assert isinstance(node, Directory)
        await at.node(CONTENT, node)
        if removed:
            await at.changes.unlink(node, CONTENT)
        else:
            await at.renames.rename(node, CONTENT, at.root, b"file", 0)
        found = {key: one.content for key, one in bucket._bucket.objects.items()}
        assert found == ({b"d/": b""} if removed else {b"d/": b"", b"file": b"content"})
        at.doubt()
        assert await at.node(b"d") is node
        await at.changes.rmdir(at.root, b"d")
        assert b"d/" not in bucket._bucket.objects

    during(work)


def test_a_file_for_which_there_is_no_room_leaves_nothing(
    during: During, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def work(at: At) -> None:
        monkeypatch.setattr(Draft, "note", disk_is_full)
        with pytest.raises(OSError, match="no room"):
            at.changes.create(at.root, b"file", 0o644, 0, 0)
        assert not list((tmp_path / "drafts").iterdir())
        assert list(at.nodes.by_ino.values()) == [at.root]

    during(work)


def test_what_is_given_other_metadata_while_it_is_closed_is_not_kept_for_ever(
    bucket: Bucket, during: During, gate: Gate, tmp_path: Path
) -> None:
    async def work(at: At) -> None:
        node, number = at.create(b"file")
        await at.write(number, b"content")
        reader = at.files.open(node, False)
        await at.close_file(number)
        bucket.before_copy = gate.stop
        changing = asyncio.ensure_future(at.changes.change(node, change(mode=0o600), False))
        await gate.reached()
        at.files.release(reader)
        gate.open()
        await changing
        assert not list((tmp_path / "drafts").iterdir())

    during(work)


def test_what_is_kept_beside_a_directory_of_many_names_stays_when_one_goes(
    bucket: Bucket, during: During
) -> None:
    async def work(at: At) -> None:
        for number in range(FEW + 2):
            bucket.put(b"d/%d" % number, b"")
        bucket.write(b"d/", iter(()), 0, Meta(mode=0o700))
        node = await at.node(b"d")
        assert isinstance(node, Directory)
        await at.node(b"0", node)
        assert node.wide
        await at.changes.unlink(node, b"0")
        assert bucket.look(b"d/")[1].mode == 0o700

    during(work)


def test_a_very_long_name_among_many_leads_to_its_file_also_when_no_listing_is_believed(
    bucket: Bucket, during: During
) -> None:
    async def work(at: At) -> None:
        for number in range(FEW + 2):
            bucket.put(b"%d" % number, b"")
        bucket.put(b"y" * 300, b"content")
        await at.node(b"0")
        assert at.root.wide
        for _ in range(2):
            node = await at.node(spelled(b"y" * 300))
            assert node.key == b"y" * 300
            at.doubt()
        assert await errno_of(at.node(spelled(b"n" * 300))) == errno.ENOENT

    during(work)
