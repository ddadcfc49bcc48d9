"""Small files written at once over SFTP: each as if it were written alone, or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from adsmig.errors import AdsmigError, TransientError, Unreachable
from adsmig.model import Entry, Meta
from adsmig.small import copy_batch
from adsmig.storage import sftpbatch, sftpflushes, sftplogin
from adsmig.storage.base import Body, Storage
from adsmig.storage.localfile import tell_unkept
from adsmig.storage.several import Batching, Whole
from adsmig.storage.sftppacket import (
    EXTENDED,
    FAILURE,
    FSETSTAT,
    FSYNC,
    MKDIR,
    SETSTAT,
    attributes,
    text,
)
from adsmig.storage.sftpwire import SftpWire
from tests.servers import Sshd
from tests.storage.conftest import Place, Places
from tests.storage.support import content_of, entries_of, keys_of, put, send_part
from tests.storage.test_conformance import ODD_KEYS, nasty_keys

MINUTE_NS = 60 * 10**9


@pytest.fixture
def place(places: Places) -> Iterator[Place]:
    with contextlib.closing(places.make("sshd")) as place:
        yield place


@pytest.fixture
def storage(place: Place) -> Storage:
    return place.open()


def batch(storage: Storage, contents: dict[bytes, bytes], meta: Meta | None = None) -> list[bytes]:
    """Writes them at once; the keys that were written, in order."""
    assert isinstance(storage, Batching)
    assert storage.batch_size() > 1
    answers = storage.write_batch(
        [Whole(key, content, meta or Meta()) for key, content in contents.items()]
    )
    for (key, content), answer in zip(contents.items(), answers, strict=True):
        assert answer is None or answer.size == len(content), key
    return [key for key, answer in zip(contents, answers, strict=True) if answer]


def top_of(place: Place) -> Path:
    return Path(os.fsdecode(place.location.path))


def staged(place: Place) -> list[Path]:
    """The files that lie about, not whole or not in their place."""
    for storage in place.opened:
        entries_of(storage)  # answered after all that was asked before
    return [path for path in top_of(place).glob(".adsmig-*/**/*") if not path.is_dir()]


def test_all_that_is_written_at_once_is_there(storage: Storage, place: Place) -> None:
    contents = {key: key * (at % 50) for at, key in enumerate(sorted(nasty_keys()))}
    contents[b"long"] = os.urandom(600_000)
    assert batch(storage, contents) == list(contents)
    assert {one.key: one.size for one in entries_of(storage) if not one.key.endswith(b"/")} == {
        key: len(content) for key, content in contents.items()
    }
    for key, content in contents.items():
        assert content_of(storage, key) == content
    assert not staged(place)


def test_mode_time_and_owner_are_kept(storage: Storage, place: Place) -> None:
    meta = Meta(mode=0o4751, uid=1234, gid=2345, mtime_ns=1_600_000_000 * 10**9)
    assert batch(storage, {b"a": b"1", b"d/b": b""}, meta) == [b"a", b"d/b"]
    for name in ("a", "d/b"):
        there = (top_of(place) / name).stat()
        assert stat.S_IMODE(there.st_mode) == 0o4751
        assert (there.st_uid, there.st_gid, there.st_mtime) == (1234, 2345, 1_600_000_000)


@pytest.mark.parametrize("lacking", [b"", FSYNC])
def test_a_file_that_is_not_given_its_owner_gets_no_set_id_bits(
    storage: Storage, place: Place, lacking: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire, send = storage._wire(), SftpWire.send  # type: ignore[attr-defined]
    wire.extensions.pop(lacking, None)
    giving = attributes(owner=(1234, 2345))

    def sending(wire: SftpWire, kind: int, *parts: bytes | memoryview) -> int:
        if giving in parts:  # only root may
            return send(wire, SETSTAT, text(b"/nowhere/at/all"), giving)
        return send(wire, kind, *parts)

    monkeypatch.setattr(SftpWire, "send", sending)
    meta = Meta(mode=0o6751, uid=1234, gid=2345, mtime_ns=1_600_000_000 * 10**9)
    own = replace(meta, uid=os.getuid(), gid=os.getgid())
    for name, kept in (("own", own), ("another's", meta), ("own too", own)):
        put(storage, name.encode(), b"content", kept)
        if not lacking:
            assert batch(storage, {b"batched " + name.encode(): b"content"}, kept)
    for path in top_of(place).glob("[!.]*"):
        there = path.stat()
        assert stat.S_IMODE(there.st_mode) == (0o6751 if "own" in path.name else 0o751)
        assert there.st_mtime == 1_600_000_000


@pytest.mark.parametrize("lacking", [b"", FSYNC])
def test_a_mode_that_cannot_be_kept_is_left_out(
    storage: Storage,
    place: Place,
    lacking: bytes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As on FAT, of which a server sets the times all the same."""
    wire, send = storage._wire(), SftpWire.send  # type: ignore[attr-defined]
    wire.extensions.pop(lacking, None)
    tell_unkept.cache_clear()

    def sending(wire: SftpWire, kind: int, *parts: bytes | memoryview) -> int:
        if kind in (SETSTAT, FSETSTAT) and parts[1][3] & 4:  # SSH_FILEXFER_ATTR_PERMISSIONS
            return send(wire, SETSTAT, text(b"/"), attributes(size=1))  # refused
        return send(wire, kind, *parts)

    monkeypatch.setattr(SftpWire, "send", sending)
    meta = Meta(mode=0o751, mtime_ns=1_600_000_000 * 10**9)
    put(storage, b"d/a", b"content", meta)
    if not lacking:
        assert batch(storage, {b"d/b": b"content"}, meta)
    storage.set_directory_meta(b"d/", meta)
    for path in (top_of(place) / "d", *top_of(place).glob("d/*")):
        assert path.stat().st_mtime == 1_600_000_000
        assert stat.S_IMODE(path.stat().st_mode) != 0o751
    assert [one.message for one in caplog.records if one.levelname == "WARNING"] == [
        "permissions cannot be kept at the destination; going on without them, as --noperms does"
    ]


def test_what_was_there_is_replaced(storage: Storage, place: Place) -> None:
    for key in (b"a", b"b"):
        put(storage, key, b"as it was")
    (top_of(place) / "link").symlink_to("a")
    assert batch(storage, {b"a": b"1", b"b": b"", b"link": b"2"}) == [b"a", b"b", b"link"]
    assert [content_of(storage, key) for key in (b"a", b"b", b"link")] == [b"1", b"", b"2"]
    assert not (top_of(place) / "link").is_symlink()


def test_what_is_in_the_way_of_one_is_not_in_the_way_of_others(
    storage: Storage, place: Place, tmp_path: Path
) -> None:
    top, outside = top_of(place), tmp_path / "outside"
    outside.mkdir()
    (outside / "x").write_bytes(b"not ours")
    (top / "link").symlink_to(outside)
    (top / "directory").mkdir()
    os.mkfifo(top / "pipe")
    (top / "file").write_bytes(b"a file")
    ways = [b"link/x", b"link/y", b"link/d/z", b"directory", b"pipe", b"file/below"]
    bad = [*ways, b"../up", b"a//b"]
    contents = dict.fromkeys([b"before", *bad, b"file2", b"z/after"], b"content")
    assert batch(storage, contents) == [b"before", b"file2", b"z/after"]
    assert {path.name for path in outside.iterdir()} == {"x"}
    assert (outside / "x").read_bytes() == b"not ours"
    assert (top / "file").read_bytes() == b"a file"
    assert stat.S_ISFIFO((top / "pipe").stat().st_mode)
    assert not (top.parent / "up").exists()
    assert not staged(place)


@pytest.mark.parametrize("key", ODD_KEYS, ids=lambda key: ascii(key.decode("latin-1"))[:30])
def test_an_odd_key_is_held_or_left_to_who_writes_it_alone(
    storage: Storage, place: Place, key: bytes
) -> None:
    contents = {b"a": b"1", key: b"2", b"zz": b"3"}
    if key.endswith(b"/") or not key or key in (b"a", b"zz"):
        return  # never written along with others
    written = batch(storage, contents)
    assert written in ([b"a", b"zz"], list(contents))
    assert [one for one in keys_of(storage) if not one.endswith(b"/")] == sorted(written)
    assert not staged(place)


def test_a_directory_that_became_a_link_is_noticed_by_who_makes_links(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, outside = place.open(), tmp_path / "outside"
    outside.mkdir()
    monkeypatch.setattr(storage, "_staging", storage._staging)  # type: ignore[attr-defined]
    storage._staging.wary = True  # type: ignore[attr-defined]
    put(storage, b"d/old", b"1")
    finish = sftpbatch._finish

    def swap(*arguments: object) -> bool:
        directory = top_of(place) / "d"
        if not directory.is_symlink():
            directory.rename(tmp_path / "moved")
            directory.symlink_to(outside)
        return finish(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(sftpbatch, "_finish", swap)
    assert batch(storage, {b"d/new": b"2", b"e": b"3"}) == [b"e"]
    assert not list(outside.iterdir())
    assert not staged(place)


def test_directories_are_made_once_each(
    storage: Storage, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.prepare()
    asked = list[int]()
    send = SftpWire.send

    def counted(wire: SftpWire, kind: int, *parts: bytes | memoryview) -> int:
        asked.append(kind)
        return send(wire, kind, *parts)

    monkeypatch.setattr(SftpWire, "send", counted)
    put(storage, b"file", b"in the way")
    contents = {b"d%d/e/%02d" % (at % 3, at): b"%d" % at for at in range(30)}
    bad = {b"file/x": b"1", b"file/y": b"2"}
    del asked[:]
    assert batch(storage, contents | bad) == list(contents)
    # Each is tried before what is above it is made; and one that cannot be, for what is in its way.
    assert asked.count(MKDIR) <= 3 * 3 + 2
    assert {key: content_of(storage, key) for key in contents} == contents
    assert content_of(storage, b"file") == b"in the way"
    assert not staged(place)


def test_a_directory_that_cannot_be_flushed_is_told_and_flushed_the_next_time(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.prepare()
    monkeypatch.setattr(sftpflushes, "FLUSHED", 4)
    batch(storage, {b"%02d/x" % at: b"content" for at in range(10)})
    flushing, refused = list[int](), list[int]()
    send, wait = SftpWire.send, SftpWire.wait

    def sending(wire: SftpWire, kind: int, *parts: bytes | memoryview) -> int:
        request = send(wire, kind, *parts)
        if kind == EXTENDED and parts[0] == text(FSYNC):
            flushing.append(request)
        return request

    def waiting(wire: SftpWire, request: int) -> bytes:
        packet = wait(wire, request)
        if request in flushing and len(flushing) == 4 and not refused:
            refused.append(request)
            raise OSError(FAILURE, "no")
        return packet

    monkeypatch.setattr(SftpWire, "send", sending)
    monkeypatch.setattr(SftpWire, "wait", waiting)
    with pytest.raises(AdsmigError):
        storage.sync()
    assert refused
    assert len(flushing) == 4
    del flushing[:]
    storage.sync()
    assert len(flushing) > 10  # and the top, in which they were made
    del flushing[:]
    storage.sync()
    assert not flushing


def test_a_connection_that_is_lost_leaves_the_rest_to_be_written_anew(
    storage: Storage, place: Place
) -> None:
    publish = sftpbatch._publish

    def lose(wire: SftpWire, *arguments: object) -> bool:
        assert publish(wire, *arguments)  # type: ignore[arg-type]
        raise wire._lose("cut, for a test")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sftpbatch, "_publish", lose)
        with pytest.raises(TransientError):
            batch(storage, {b"b": b"2", b"c": b"3"})
    assert content_of(storage, b"b") == b"2"
    assert batch(storage, {b"b": b"4", b"c": b"5"}) == [b"b", b"c"]
    assert [content_of(storage, key) for key in (b"b", b"c")] == [b"4", b"5"]


def test_a_server_that_cannot_flush_is_given_one_file_after_the_other(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(storage, Batching)
    put(storage, b"a", b"1")
    wire = storage._wire()  # type: ignore[attr-defined]
    monkeypatch.delitem(wire.extensions, FSYNC)
    assert storage.batch_size() == 1


# Large files, which are flushed while they are written


def test_a_flush_that_fails_in_between_is_told_of_by_the_next(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.prepare()
    monkeypatch.setattr(sftpflushes, "FLUSH", 1000)
    asked, answers = list[bytes](), [OSError(FAILURE, "no"), None]
    ask = SftpWire.ask

    def refuse(wire: SftpWire, kind: int, *parts: bytes) -> bytes:
        if kind == EXTENDED and parts[0] == text(FSYNC):
            asked.append(parts[1])
            if answers and (error := answers.pop(0)):
                raise error
        return ask(wire, kind, *parts)

    monkeypatch.setattr(SftpWire, "ask", refuse)
    upload = storage.begin_upload(b"large", Entry(b"large", 1800, None, 1), Meta())
    upload = replace(upload, part_size=600)
    send_part(storage, b"large", upload, 1, bytes(1800))
    assert not asked
    with pytest.raises(AdsmigError):
        send_part(storage, b"large", upload, 2, bytes(1800))
    assert len(asked) == 1
    send_part(storage, b"large", upload, 2, bytes(1800))
    with pytest.raises(AdsmigError):  # nobody knows what became of the first part
        storage.sync()
    storage.sync()
    for number in (1, 2, 3):
        send_part(storage, b"large", upload, number, bytes(1800))
    storage.sync()
    storage.complete(b"large", upload, [], Meta())
    assert content_of(storage, b"large") == bytes(1800)


def test_a_connection_that_a_thread_leaves_is_taken_over(storage: Storage, sshd: Sshd) -> None:
    storage.prepare()
    logins = list[object]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sftplogin, "Connection", lambda *_: logins.append(1))
        storage.release()
        thread = threading.Thread(target=lambda: (put(storage, b"a", b"a"), storage.release()))
        thread.start()
        thread.join()
        assert content_of(storage, b"a") == b"a"
        assert not logins
    storage.release()
    storage.close()
    assert sftplogin._key_of(storage.location) not in sftplogin._released


# What a batch of copies comes to


def sources(place: Place, contents: dict[bytes, bytes]) -> tuple[Storage, list[Entry]]:
    """Files that were written a minute ago."""
    src = place.open(place.beside(os.path.join(place.location.path, b"source")))
    at = time.time_ns() - MINUTE_NS
    for key, content in contents.items():
        put(src, key, content, Meta(mtime_ns=at))
    return src, [one for one in entries_of(src) if not one.key.endswith(b"/")]


def under_its_key(entry: Entry) -> tuple[Entry, bytes]:
    return entry, entry.key


@pytest.mark.parametrize("fault", ["changed", "gone", "unreadable", "in the way", "lost"])
def test_what_goes_wrong_with_one_copy_is_of_no_consequence_to_others(
    place: Place, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    src, entries = sources(place, {b"a": b"1", b"b": b"22", b"c": b"333"})
    dst = place.open(place.beside(os.path.join(place.location.path, b"copy")))
    assert isinstance(dst, Batching)
    dst.prepare()
    there = {b"a": b"1", b"b": b"22", b"c": b"333"}
    good = [b"a", b"b", b"c"]
    file = top_of(place) / "source" / "b"
    if fault == "changed":
        there[b"b"] = b"another"
        file.write_bytes(there[b"b"])
        os.utime(file, ns=(at := time.time_ns() - MINUTE_NS // 2, at))
    elif fault == "gone":
        file.unlink()
    elif fault == "unreadable":
        file.unlink()
        file.mkdir()
    elif fault == "in the way":
        (top_of(place) / "copy" / "b").mkdir()
    else:
        lose_once(monkeypatch)
    if fault in ("gone", "unreadable", "in the way"):
        del there[b"b"]
        good.remove(b"b")
    outcomes = list(copy_batch(src, dst, [under_its_key(one) for one in entries], None))
    assert [one.key for one in outcomes] == [b"a", b"b", b"c"]
    assert [one.key for one in outcomes if not one.error] == good
    assert all(one.seconds > 0 and one.checksum for one in outcomes if not one.error)
    for key, content in there.items():
        assert content_of(dst, key) == content
    sizes = {one.key: one.size for one in outcomes if not one.error}
    assert sizes == {key: len(content) for key, content in there.items()}


def test_a_source_that_does_not_answer_is_not_asked_for_each_of_a_batch(place: Place) -> None:
    src, entries = sources(place, {b"%02d" % number: b"1" for number in range(30)})
    dst = place.open(place.beside(os.path.join(place.location.path, b"copy")))
    assert isinstance(dst, Batching)
    asked = list[bytes]()

    def read(entry: Entry, *_: object) -> Body:
        asked.append(entry.key)
        raise Unreachable("nobody answers")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(src, "read", read)
        with pytest.raises(Unreachable):
            list(copy_batch(src, dst, [under_its_key(one) for one in entries], None))
    assert set(asked) == {b"00"}


def lose_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next batch finds its connection lost, in the middle of it."""
    finish: Callable[..., bool] = sftpbatch._finish
    lost = list[bool]()

    def lose(wire: SftpWire, *arguments: object) -> bool:
        if not lost:
            lost.append(True)
            raise wire._lose("cut, for a test")
        return finish(wire, *arguments)

    monkeypatch.setattr(sftpbatch, "_finish", lose)
