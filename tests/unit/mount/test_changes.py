"""What a mount stores, removes and renames, and what of that the store then has."""

from __future__ import annotations

import asyncio
import errno
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn, cast
from uuid import uuid4

import pytest

from adsmig.errors import NotFound, ObjectError
from adsmig.location import Location
from adsmig.model import Entry, Meta, Part, Upload
from adsmig.mount import sender, store
from adsmig.mount.blocks import Blocks
from adsmig.mount.changes import Changes
from adsmig.mount.draft import Draft, left
from adsmig.mount.files import Files
from adsmig.mount.names import spelled
from adsmig.mount.nodes import Defaults, Directory, Node, Nodes
from adsmig.mount.protocol import NOREPLACE, Change
from adsmig.mount.reader import Reader
from adsmig.mount.renames import Renames
from adsmig.mount.sender import Sender
from adsmig.mount.store import Store
from adsmig.mount.tree import FEW, Tree
from adsmig.providers import OPAQUE
from adsmig.storage.memory import MemoryStorage
from adsmig.storage.s3 import S3Storage

PAGE = 4096


class Bucket(MemoryStorage):
    """What the mount asks of a store beyond what copies need."""

    def __init__(self) -> None:
        super().__init__(Location("memory", b"", bucket=uuid4().hex))
        self.profile = SimpleNamespace(min_part=PAGE, max_parts=10_000, max_size=1 << 40)
        self.before_copy: Callable[[bytes], None] = lambda _key: None

    def put(self, key: bytes, content: bytes) -> None:
        """As another mount would."""
        self.write(key, iter([memoryview(content)]), len(content), Meta())

    def look(self, key: bytes) -> tuple[Entry, Meta]:
        return self.stat(key), self._bucket.objects[key].meta

    def children(self, key: bytes) -> Iterator[tuple[bytes, Entry | None]]:
        found = dict[bytes, "Entry | None"]()
        for one in [one for one in self._bucket.keys if one.startswith(key)]:
            name, slash, _ = one[len(key) :].partition(b"/")
            found[key + name + slash] = None if slash else self.stat(one)
        return iter(found.items())

    def holds_below(self, key: bytes) -> bool:
        return any(one.startswith(key) for one in self._bucket.keys)

    def begin_beside(self, key: bytes, entry: Entry, meta: Meta) -> Upload:
        return self.begin_upload(key, entry, meta)

    def copy_within(self, entry: Entry, key: bytes, meta: Meta | None) -> Entry:
        self.before_copy(entry.key)
        found = self._bucket.objects.get(entry.key)
        if not found:
            raise NotFound("no such object")
        self.read(entry)
        self._put(key, found.content, found.etag, found.meta if meta is None else meta)
        return self.stat(key)

    def contents(self) -> dict[str, bytes]:
        """All but the markers of directories."""
        objects = self._bucket.objects.items()
        return {key.decode(): one.content for key, one in objects if key[-1:] != b"/"}


class At:
    """A mount of a Bucket, without the kernel."""

    def __init__(self, path: Path, bucket: Bucket) -> None:
        self.store = Store(cast(S3Storage, bucket))
        self.nodes = Nodes(Defaults(0, 0, 0))
        self.root = self.nodes.root
        self.tree = Tree(self.nodes, self.store)
        (path / "drafts").mkdir()
        self._blocks = Blocks(path, 1 << 30)
        reader = Reader(self.store, self._blocks)
        self.files = Files(self.tree, self.store, reader, path / "drafts", 0)
        self.changes = Changes(self.tree, self.files, self.store)
        self.renames = Renames(self.changes)
        self.renames = Renames(self.changes)

    def close(self) -> None:
        self._blocks.close()
        self.store.close()

    async def node(self, name: bytes, directory: Directory | None = None) -> Node:
        node = await self.tree.current(directory or self.root, name)
        node.lookups += 1
        return node

    def create(self, name: bytes, directory: Directory | None = None) -> tuple[Node, int]:
        """A new file, open to be written."""
        node = self.changes.create(directory or self.root, name, 0o644, 0, 0)
        node.lookups += 1
        return node, self.files.open(node, True)

    async def write(self, number: int, data: bytes, start: int = 0) -> None:
        done = self.files.write(self.files.handles[number], start, memoryview(data))
        if not isinstance(done, int):
            await done

    async def read(self, number: int, size: int) -> bytes:
        found = self.files.read(self.files.handles[number], 0, size)
        return b"".join(found if isinstance(found, list) else await found)

    async def close_file(self, number: int) -> None:
        await self.files.save(self.files.handles[number].node)
        self.files.release(number)

    async def rename(self, name: bytes, new_name: bytes) -> None:
        await self.renames.rename(self.root, name, self.root, new_name, 0)

    def doubt(self) -> None:
        """As when what the store said is too old to be believed."""
        for node in [self.root, *self.nodes.below(self.root)]:
            node.fresh_until = 0.0
            if isinstance(node, Directory):
                node.doubt()


Work = Callable[[At], Coroutine[Any, Any, None]]


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


@pytest.fixture
def during(tmp_path: Path, bucket: Bucket) -> Callable[[Work], None]:
    """``during(work)`` has it done with a mount of the bucket."""

    def doing(work: Work) -> None:
        async def mounted() -> None:
            at = At(tmp_path, bucket)
            try:
                await asyncio.wait_for(work(at), 30)
            finally:
                at.close()

        asyncio.run(mounted())

    return doing


async def errno_of(work: Coroutine[Any, Any, Any]) -> int:
    """The errno of what must fail."""
    try:
        await work
    except OSError as exc:
        return exc.errno or 0
    raise AssertionError("it worked")


@pytest.mark.parametrize("content", [b"", b"first"])
def test_nobody_writes_to_what_was_replaced_elsewhere_without_a_word(
    bucket: Bucket, during: Callable[[Work], None], content: bytes
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
        assert await errno_of(at.files.restate(old, Meta(mode=0o600))) == errno.ESTALE
        await at.close_file(number)
        assert bucket.contents() == {"log": b"another version"}

    during(work)


def test_who_writes_to_what_was_removed_here_is_not_disturbed(
    bucket: Bucket, during: Callable[[Work], None]
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


def test_what_an_unstored_file_replaced_goes_with_its_name(
    bucket: Bucket, during: Callable[[Work], None]
) -> None:
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


@pytest.mark.parametrize("removed", [True, False])
def test_a_file_that_went_in_parts_leaves_nothing_under_its_old_name(
    bucket: Bucket, during: Callable[[Work], None], removed: bool
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
    bucket: Bucket, during: Callable[[Work], None]
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


def test_what_is_written_while_a_directory_gets_another_name_goes_along(
    bucket: Bucket, during: Callable[[Work], None], tmp_path: Path
) -> None:
    copying, go_on = threading.Event(), threading.Event()

    def wait(_key: bytes) -> None:
        copying.set()
        assert go_on.wait(20)

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
        await at.files.save(log)
        bucket.before_copy = wait
        renaming = asyncio.ensure_future(at.rename(b"old", b"new"))
        await asyncio.to_thread(copying.wait)
        await at.write(number, b"second", 5)
        _, other = at.create(b"created", sub)
        await at.write(other, b"content")
        tasks = [
            asyncio.ensure_future(one)
            for one in (
                at.files.save(log),
                at.close_file(other),
                at.changes.mkdir(sub, b"made", 0o755, 0, 0),
                at.changes.unlink(sub, b"file"),
            )
        ]
        await asyncio.sleep(0.1)
        go_on.set()
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
    bucket: Bucket, during: Callable[[Work], None]
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
    bucket: Bucket, during: Callable[[Work], None]
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


def test_who_reads_what_was_stored_here_keeps_nobody_from_what_others_stored_since(
    bucket: Bucket, during: Callable[[Work], None]
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


CONTENT = b".adsmig~content"


def change(**fields: int) -> Change:
    """A SETATTR of these."""
    nothing = dict.fromkeys(("mode", "uid", "gid", "size", "mtime_ns"))
    return Change(**{**nothing, "mtime_now": False, **fields})  # type: ignore[arg-type]


def test_what_is_stored_under_the_key_of_a_directory_stays_whatever_is_done_to_that(
    bucket: Bucket, during: Callable[[Work], None]
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
    bucket: Bucket, during: Callable[[Work], None]
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
    bucket: Bucket, during: Callable[[Work], None], removed: bool
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


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page is a part, and no more than four of them stay here."""
    for name, size in {"SINGLE": PAGE, "PART": PAGE, "LOCAL": 4 * PAGE}.items():
        monkeypatch.setattr(sender, name, size)
    monkeypatch.setattr(Sender._open_upload, "__defaults__", (PAGE,))


async def write_pages(at: At, number: int, first: int, upto: int) -> bytes:
    """Pages of a file, each of its own bytes; the file's content."""
    for page in range(first, upto):
        await at.write(number, bytes([page + 1]) * PAGE, page * PAGE)
        await asyncio.sleep(0.01)
    return b"".join(bytes([page + 1]) * PAGE for page in range(upto))


@pytest.mark.usefixtures("small_parts")
def test_an_upload_that_goes_on_under_another_name_takes_nobodys_place(
    bucket: Bucket, during: Callable[[Work], None]
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
    bucket: Bucket, during: Callable[[Work], None]
) -> None:
    copying, go_on = threading.Event(), threading.Event()

    def wait(_key: bytes) -> None:
        copying.set()
        assert go_on.wait(20)

    async def work(at: At) -> None:
        bucket.put(b"old/file", b"content")
        old = await at.node(b"old")
        assert isinstance(old, Directory)
        node, number = at.create(b"log", old)
        bucket.before_copy = wait
        renaming = asyncio.ensure_future(at.rename(b"old", b"new"))
        await asyncio.to_thread(copying.wait)
        await write_pages(at, number, 0, 20)
        go_on.set()
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


@pytest.mark.parametrize("opened", [False, True])
def test_a_file_that_could_not_be_cut_off_is_not_cut_off_later(
    bucket: Bucket, during: Callable[[Work], None], monkeypatch: pytest.MonkeyPatch, opened: bool
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
        assert await at.files.save_all()
        assert bucket.contents() == {"file": b"content"}
        await at.changes.change(node, change(size=3), False)
        assert bucket.contents() == {"file": b"con"}

    during(work)


def disk_is_full(*_: object) -> NoReturn:
    raise OSError(errno.ENOSPC, "no room")


def test_what_is_written_over_the_end_on_a_full_disk_leaves_no_zeros(
    bucket: Bucket, during: Callable[[Work], None], monkeypatch: pytest.MonkeyPatch
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


@pytest.mark.parametrize("name", [b"dir", b"file"])
def test_what_could_not_be_removed_under_its_old_name_has_not_got_another_one(
    bucket: Bucket, during: Callable[[Work], None], monkeypatch: pytest.MonkeyPatch, name: bytes
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
    bucket: Bucket, during: Callable[[Work], None], monkeypatch: pytest.MonkeyPatch
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


@pytest.mark.usefixtures("small_parts")
def test_who_reads_the_beginning_of_a_large_file_that_is_just_being_stored_gets_it(
    bucket: Bucket, during: Callable[[Work], None]
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
    bucket: Bucket, during: Callable[[Work], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sending, go_on = threading.Event(), threading.Event()
    put_part = bucket.put_part

    def wait(*arguments: Any) -> object:
        sending.set()
        assert go_on.wait(20)
        return put_part(*arguments)

    async def work(at: At) -> None:
        monkeypatch.setattr(bucket, "put_part", wait)
        _, number = at.create(b"file")
        await write_pages(at, number, 0, 3)
        await asyncio.to_thread(sending.wait)
        await at.changes.unlink(at.root, b"file")
        go_on.set()
        await asyncio.sleep(0.1)
        assert not left(tmp_path / "drafts")
        at.files.release(number)

    during(work)


def test_a_directory_takes_the_place_of_none_that_others_have_just_made(
    bucket: Bucket, during: Callable[[Work], None]
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
    bucket: Bucket, during: Callable[[Work], None], monkeypatch: pytest.MonkeyPatch, renamed: bool
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
            assert await errno_of(at.files.save(node)) == errno.EIO
        if renamed:
            await at.rename(b"file", b"final")
            await at.close_file(number)
        else:
            await at.changes.unlink(at.root, b"file")
            at.files.release(number)
        assert bucket.contents() == ({"final": b"content"} if renamed else {})

    during(work)


def test_what_a_renaming_that_was_given_up_still_does_costs_nothing(
    bucket: Bucket, during: Callable[[Work], None]
) -> None:
    copying, go_on, waiting = threading.Event(), threading.Event(), iter([True])

    def wait(_key: bytes) -> None:
        if next(waiting, False):
            copying.set()
            assert go_on.wait(20)

    async def work(at: At) -> None:
        bucket.put(b"old/file", b"content")
        await at.node(b"old")
        bucket.before_copy = wait
        first = asyncio.ensure_future(at.rename(b"old", b"new"))
        await asyncio.to_thread(copying.wait)
        first.cancel()  # as when a signal comes; the kernel is told so at once
        second = asyncio.ensure_future(at.rename(b"old", b"new"))
        await asyncio.sleep(0.2)
        go_on.set()
        await asyncio.gather(first, second, return_exceptions=True)
        assert bucket.contents() == {"new/file": b"content"}

    during(work)


def test_a_copy_that_was_given_up_does_not_take_the_place_of_what_is_stored_since(
    bucket: Bucket, during: Callable[[Work], None]
) -> None:
    copying, go_on = threading.Event(), threading.Event()

    def wait(_key: bytes) -> None:
        copying.set()
        assert go_on.wait(20)

    async def work(at: At) -> None:
        bucket.put(b"old", b"old content")
        await at.node(b"old")
        bucket.before_copy = wait
        renaming = asyncio.ensure_future(at.rename(b"old", b"new"))
        await asyncio.to_thread(copying.wait)
        renaming.cancel()
        _, number = at.create(b"new")
        await at.write(number, b"new content")
        closing = asyncio.ensure_future(at.close_file(number))
        await asyncio.sleep(0.2)
        go_on.set()
        await asyncio.gather(renaming, closing, return_exceptions=True)
        assert bucket.contents() == {"old": b"old content", "new": b"new content"}

    during(work)


@pytest.mark.usefixtures("small_parts")
def test_a_large_file_that_is_emptied_is_stored_empty(
    bucket: Bucket, during: Callable[[Work], None], monkeypatch: pytest.MonkeyPatch
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


def test_a_file_for_which_there_is_no_room_leaves_nothing(
    during: Callable[[Work], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def work(at: At) -> None:
        monkeypatch.setattr(Draft, "note", disk_is_full)
        with pytest.raises(OSError, match="no room"):
            at.changes.create(at.root, b"file", 0o644, 0, 0)
        assert not list((tmp_path / "drafts").iterdir())
        assert list(at.nodes.by_ino.values()) == [at.root]

    during(work)


def test_what_is_given_other_metadata_while_it_is_closed_is_not_kept_for_ever(
    bucket: Bucket, during: Callable[[Work], None], tmp_path: Path
) -> None:
    copying, go_on = threading.Event(), threading.Event()

    def wait(_key: bytes) -> None:
        copying.set()
        assert go_on.wait(20)

    async def work(at: At) -> None:
        node, number = at.create(b"file")
        await at.write(number, b"content")
        reader = at.files.open(node, False)
        await at.close_file(number)
        bucket.before_copy = wait
        changing = asyncio.ensure_future(at.changes.change(node, change(mode=0o600), False))
        await asyncio.to_thread(copying.wait)
        at.files.release(reader)
        go_on.set()
        await changing
        assert not list((tmp_path / "drafts").iterdir())

    during(work)


@pytest.mark.parametrize("content", [b"", b"content"])
def test_what_is_kept_beside_a_file_stays_when_nobody_has_asked_for_it_before_it_is_written_to(
    bucket: Bucket, during: Callable[[Work], None], content: bytes
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


def test_what_is_kept_beside_a_directory_of_many_names_stays_when_one_goes(
    bucket: Bucket, during: Callable[[Work], None]
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
    bucket: Bucket, during: Callable[[Work], None]
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


@pytest.mark.parametrize("content", [b"", b"first"])
@pytest.mark.parametrize("removed", [False, True])
def test_who_begins_to_write_to_what_was_replaced_long_ago_is_told_so(
    bucket: Bucket, during: Callable[[Work], None], content: bytes, removed: bool
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
    bucket: Bucket, during: Callable[[Work], None]
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


def test_who_wants_nothing_replaced_replaces_nothing_that_others_have_just_made(
    bucket: Bucket, during: Callable[[Work], None]
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
    bucket: Bucket, during: Callable[[Work], None], monkeypatch: pytest.MonkeyPatch, parts: bool
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


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("replaced", [False, True])
def test_a_large_file_of_which_the_answer_was_lost_is_known_by_its_bytes_where_no_etag_tells(
    bucket: Bucket, during: Callable[[Work], None], monkeypatch: pytest.MonkeyPatch, replaced: bool
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
        assert await errno_of(at.files.save(node)) == errno.EIO
        if replaced:
            assert await errno_of(at.files.save(node)) == errno.EIO
        else:
            await at.close_file(number)
            assert bucket.contents() == {"file": content}

    during(work)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("pages", [1, 3])
@pytest.mark.parametrize("renamed", [False, True])
def test_what_the_store_has_refused_can_be_removed_and_renamed_without_it(
    bucket: Bucket, during: Callable[[Work], None], monkeypatch: pytest.MonkeyPatch,
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
            assert await errno_of(at.files.save(node)) == errno.EACCES
            if renamed:
                await at.renames.rename(directory, b"file", at.root, b"final", 0)
            else:
                await at.changes.unlink(directory, b"file")
        await at.close_file(number)
        there = {"dir/file": b"content"}
        assert bucket.contents() == (there | {"final": content} if renamed else there)

    during(work)


@pytest.mark.parametrize("size", [3, 100])
def test_who_cannot_cut_off_what_was_replaced_elsewhere_reads_on_as_before(
    bucket: Bucket, during: Callable[[Work], None], size: int
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


@pytest.mark.usefixtures("small_parts")
def test_who_is_in_need_of_room_waits_for_the_upload_that_is_being_opened(
    bucket: Bucket, during: Callable[[Work], None], monkeypatch: pytest.MonkeyPatch
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
        async with at.files._own(node):
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
    bucket: Bucket, during: Callable[[Work], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, opening, go_on = bucket.begin_beside, threading.Event(), threading.Event()

    def slow(*arguments: Any) -> Upload:
        opening.set()
        assert go_on.wait(20)
        return begin(*arguments)

    async def work(at: At) -> None:
        monkeypatch.setattr(bucket, "begin_beside", slow)
        _, number = at.create(b"file")
        await at.write(number, bytes(3 * PAGE))
        await asyncio.to_thread(opening.wait)
        await at.changes.unlink(at.root, b"file")
        at.files.release(number)
        await asyncio.sleep(0.05)
        go_on.set()
        await at.files.end(20)
        await asyncio.sleep(0.1)
        await at.files.end(20)
        assert bucket.contents() == {}
        assert not list(bucket.uploads())

    during(work)
