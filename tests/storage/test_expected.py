"""Small files, and directories, read at once over SFTP: each as if it were read alone."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from adsmig import retry, transfer, uri, worker
from adsmig.errors import ObjectError, SourceChanged
from adsmig.job import Job
from adsmig.limits import Lease
from adsmig.model import EVERYTHING, Budget, Entry, KeyRange, Meta
from adsmig.storage import open_storage, sftpfiles, sftpwire
from adsmig.storage.base import Storage
from adsmig.storage.several import Expecting
from adsmig.storage.sftppacket import (
    CLOSE,
    DATA,
    FSTAT,
    LSTAT,
    NAME,
    OPEN,
    OPENDIR,
    READ,
    READDIR,
    STAT,
    Named,
    handle_of,
    number,
)
from adsmig.storage.sftpwire import SftpWire
from tests.servers import Sshd
from tests.storage.conftest import Place
from tests.storage.support import Options, drain, entries_of, get, put
from tests.storage.test_batch import place as place
from tests.storage.test_batch import top_of
from tests.storage.test_conformance import nasty_keys

MINUTE_NS = 60 * 10**9


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """How many requests of each kind were made."""
    kinds = Counter[int]()
    send = SftpWire.send

    def counted(wire: SftpWire, kind: int, *parts: bytes | memoryview) -> int:
        kinds[kind] += 1
        return send(wire, kind, *parts)

    monkeypatch.setattr(SftpWire, "send", counted)
    return kinds


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The requests for names of directories, in order."""
    requests = list[int]()
    send = SftpWire.send

    def sending(wire: SftpWire, kind: int, *parts: bytes | memoryview) -> int:
        request = send(wire, kind, *parts)
        if kind == READDIR:
            requests.append(request)
        return request

    monkeypatch.setattr(SftpWire, "send", sending)
    return requests


def filled(place: Place, contents: dict[bytes, bytes], links: str = "follow") -> Storage:
    storage = open_storage(place.location, Options(links=links), True)
    place.opened.append(storage)
    storage.prepare()
    at = time.time_ns() - MINUTE_NS
    for key, content in contents.items():
        put(storage, key, content, Meta(mtime_ns=at))
    return storage


def expected(storage: Storage) -> list[Entry]:
    """All that is there, asked for at once."""
    assert isinstance(storage, Expecting)
    entries = [one for one in entries_of(storage) if not one.key.endswith(b"/")]
    storage.expect(entries)
    return entries


def test_each_is_what_it_is_when_read_alone(place: Place, sent: Counter[int]) -> None:
    contents = {key: key * (at % 50) for at, key in enumerate(sorted(nasty_keys()))}
    contents[b"empty"], contents[b"long"] = b"", os.urandom(600_000)
    storage = filled(place, contents)
    entries = expected(storage)
    opened = sent[OPEN]
    for entry in entries:
        with storage.read(entry) as body:
            assert body.meta.mtime_ns == entry.mtime_ns
            assert drain(body) == contents[entry.key]
    assert {one.key for one in entries} == contents.keys()
    assert sent[OPEN] == opened


def test_all_is_asked_before_any_of_it_is_waited_for(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = filled(place, {b"%02d" % at: b"content" for at in range(16)})
    entries = entries_of(storage)
    asked, waited = list[int](), list[int]()
    send, fill = SftpWire.send, SftpWire._fill

    def sending(wire: SftpWire, kind: int, *parts: bytes | memoryview) -> int:
        asked.append(kind)
        return send(wire, kind, *parts)

    def filling(wire: SftpWire) -> None:
        waited.append(len(asked))
        fill(wire)

    monkeypatch.setattr(SftpWire, "send", sending)
    monkeypatch.setattr(SftpWire, "_fill", filling)
    storage.expect(entries)  # type: ignore[attr-defined]
    assert asked == [OPEN] * 16 + [FSTAT, READ, FSTAT] * 16
    assert set(waited) == {16}
    assert [get(storage, entry) for entry in entries] == [b"content"] * 16
    assert asked[64:] == [CLOSE] * 16


@pytest.mark.parametrize("links", ["follow", "copy"])
def test_what_is_wrong_with_one_is_told_by_reading_that_one(
    place: Place, tmp_path: Path, links: str
) -> None:
    names = [b"a", b"changed", b"gone", b"link", b"pipe", b"z"]
    storage, top = filled(place, dict.fromkeys(names, b"content"), links), top_of(place)
    entries = {one.key: one for one in entries_of(storage)}
    (tmp_path / "other").write_bytes(b"another")
    for name in ("changed", "gone", "link", "pipe"):
        (top / name).unlink()
    (top / "changed").write_bytes(b"changed")
    (top / "link").symlink_to(tmp_path / "other")
    (top / "pipe").mkdir()
    storage.expect(list(entries.values()))  # type: ignore[attr-defined]
    for name in (b"changed", b"gone", b"link"):
        with pytest.raises(SourceChanged):
            get(storage, entries[name])
    with pytest.raises((ObjectError, SourceChanged)):
        get(storage, entries[b"pipe"])
    assert get(storage, entries[b"a"]) == get(storage, entries[b"z"]) == b"content"


def test_one_that_changes_before_it_is_read_has_changed(place: Place) -> None:
    storage = filled(place, {b"a": b"content", b"b": b"content"})
    first, second = expected(storage)
    (top_of(place) / "b").write_bytes(b"another")
    assert get(storage, first) == b"content"
    with pytest.raises(SourceChanged):
        get(storage, second)


def test_those_that_are_not_read_are_let_go_of(place: Place, sent: Counter[int]) -> None:
    storage = filled(place, {b"%02d" % at: b"content" for at in range(10)})
    entries = entries_of(storage)
    sent.clear()
    for _ in range(3):
        storage.expect(entries)  # type: ignore[attr-defined]
        get(storage, entries[4])
    storage.release()
    assert sent[OPEN] == sent[CLOSE] == 30


def test_who_leaves_a_connection_to_others_leaves_nothing_to_be_sent(place: Place) -> None:
    storage = filled(place, {b"%02d" % at: b"content" for at in range(10)})
    for entry in expected(storage):
        assert get(storage, entry) == b"content"
    wire = storage._wire()  # type: ignore[attr-defined]
    assert wire._out
    storage.release()
    assert not wire._out


@pytest.mark.parametrize("delete_src", [False, True])
def test_one_that_changed_a_moment_ago_is_read_when_it_cannot_change_again(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, delete_src: bool
) -> None:
    """Times are whole seconds: what is read before the second is over, may be another version of
    the same time and size.
    """
    filled(place, {b"%02d" % at: b"content" for at in range(4)}).tidy()
    changed, now = top_of(place) / "02", time.time_ns() // 10**9 * 10**9
    changed.write_bytes(b"earlier")
    os.utime(changed, ns=(now, now))
    monkeypatch.setattr(transfer, "SETTLED_S", 60.0)
    waited = list[float]()

    def waiting(seconds: float, *_: object) -> None:
        if seconds > 50:
            waited.append(seconds)
            changed.write_bytes(b"another")
            os.utime(changed, ns=(now, now))

    monkeypatch.setattr(retry, "wait", waiting)
    monkeypatch.setattr(transfer, "wait", waiting)
    dst = uri.parse(f"{tmp_path}/copy/")
    job = Job("cp", place.location, dst, workers=1, threads=2, delete_src=delete_src)
    worker.storages(job)[1].prepare()
    result = worker.run_slice(job, EVERYTHING, Budget(600, 100), Lease("", 0))
    worker.forget()
    assert (result.counts.copied, result.counts.failed) == (4, 0)
    assert len(waited) == 1
    assert (tmp_path / "copy" / "02").read_bytes() == b"another"


@pytest.mark.parametrize("sftp", ["source", "destination"])
@pytest.mark.parametrize("command", ["verify", "sync"])
def test_what_is_compared_is_asked_for_together(
    place: Place,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    sftp: str,
) -> None:
    contents = {b"%02d" % at: b"content %02d" % at for at in range(20)}
    filled(place, contents).tidy()
    here = tmp_path / "here"
    shutil.copytree(top_of(place), here)
    kept = (here / "07").stat()
    (here / "07").write_bytes(b"CONTENT 07")  # same size, same time
    os.utime(here / "07", ns=(kept.st_atime_ns, kept.st_mtime_ns))
    opened, send, fill = [0], SftpWire.send, SftpWire._fill

    def sending(wire: SftpWire, kind: int, *parts: bytes | memoryview) -> int:
        opened[-1] += kind == OPEN
        return send(wire, kind, *parts)

    def filling(wire: SftpWire) -> None:
        opened.append(0)
        fill(wire)

    monkeypatch.setattr(SftpWire, "send", sending)
    monkeypatch.setattr(SftpWire, "_fill", filling)
    sides = [place.location, uri.parse(f"{here}/")]
    if sftp == "destination":
        sides.reverse()
    job = Job(command, *sides, workers=1, threads=1, compare="checksum")
    if command == "sync":
        worker.storages(job)[1].prepare()
    result = worker.run_slice(job, EVERYTHING, Budget(600, 100), Lease("", 0))
    worker.forget()
    assert max(opened) >= 20
    told = result.counts
    if command == "verify":
        assert (told.unchanged, told.failed) == (19, 1)
        assert [(one.key, one.kind) for one in result.outcomes if one.error] == [(b"07", "differs")]
    else:
        assert (told.unchanged, told.copied, told.failed) == (19, 1, 0)
        assert (here / "07").read_bytes() == (top_of(place) / "07").read_bytes()


def test_a_link_that_took_the_place_leaves_nothing_open(
    place: Place, tmp_path: Path, sent: Counter[int]
) -> None:
    storage = filled(place, {b"a": b"content"}, "copy")
    (entry,) = entries_of(storage)
    (tmp_path / "other").write_bytes(b"another")
    (top_of(place) / "a").unlink()
    (top_of(place) / "a").symlink_to(tmp_path / "other")
    sent.clear()
    with pytest.raises(SourceChanged):
        get(storage, entry)
    assert sent[OPEN] == sent[CLOSE] == 1


@pytest.mark.parametrize("backwards", [False, True])
def test_a_server_that_holds_few_files_open_is_asked_for_the_others_one_by_one(
    place: Place, monkeypatch: pytest.MonkeyPatch, backwards: bool
) -> None:
    storage = filled(place, {b"%02d" % at: b"content" for at in range(10)})
    entries = entries_of(storage)
    handles = set[bytes]()
    wait, close = SftpWire.wait, SftpWire.close

    def limited(wire: SftpWire, request: int) -> bytes:
        packet = wait(wire, request)
        if packet[:1] == b"f":  # SSH_FXP_HANDLE
            if len(handles) == 4:
                close(wire, handle_of(packet))
                raise OSError(4, "too many open files")
            handles.add(handle_of(packet))
        return packet

    def closed(wire: SftpWire, handle: bytes) -> None:
        handles.discard(handle)
        close(wire, handle)

    monkeypatch.setattr(SftpWire, "wait", limited)
    monkeypatch.setattr(SftpWire, "close", closed)
    storage.expect(entries)  # type: ignore[attr-defined]
    assert len(handles) == 4
    if backwards:  # so that those that are open are not read before another is to be opened
        entries.reverse()
    assert [get(storage, entry) for entry in entries] == [b"content"] * 10


@pytest.mark.skipif(not os.path.exists("/proc/sys/kernel/ostype"), reason="needs /proc")
@pytest.mark.parametrize("together", [False, True])
def test_a_file_that_says_that_it_is_empty_and_is_not_is_no_empty_file(
    place: Place, sshd: Sshd, together: bool
) -> None:
    storage = open_storage(uri.parse(sshd.address("/proc/sys/kernel") + "/"), Options(), False)
    place.opened.append(storage)
    assert isinstance(storage, Expecting)
    entry = storage.stat(b"ostype")
    assert not entry.size
    if together:
        storage.expect([entry])
    with pytest.raises(ObjectError, match="says that it is empty, and is not"):
        storage.read(entry)


@pytest.mark.parametrize("together", [False, True])
def test_a_file_of_which_an_answer_is_cut_off_is_no_empty_file(
    place: Place, together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = filled(place, {b"a": b""})
    (entry,) = entries_of(storage)
    send, awaited, reading = SftpWire.send, SftpWire._await, set[int]()

    def sending(wire: SftpWire, kind: int, *parts: bytes | memoryview) -> int:
        request = send(wire, kind, *parts)
        reading.update({request} if kind == READ else ())
        return request

    def answered(wire: SftpWire, request: int) -> bytes:
        packet = awaited(wire, request)
        return bytes((DATA,)) + packet[1:5] + number(1) if request in reading else packet

    monkeypatch.setattr(SftpWire, "send", sending)
    monkeypatch.setattr(SftpWire, "_await", answered)
    if together:
        storage.expect([entry])  # type: ignore[attr-defined]
    with pytest.raises(ObjectError, match="malformed"):
        storage.read(entry)


def test_an_empty_file_that_grows_as_it_is_opened_is_a_changed_source(place: Place) -> None:
    storage = filled(place, {b"a": b""})
    (entry,) = entries_of(storage)
    assert isinstance(storage, Expecting)
    storage.expect([entry])
    with storage.read(entry) as body:
        assert drain(body) == b""
    top_of(place).joinpath("a").write_bytes(b"more")
    with pytest.raises(SourceChanged):
        storage.read(entry)


@pytest.mark.parametrize("kind", [OPEN, FSTAT, STAT])
@pytest.mark.parametrize("together", [False, True])
def test_the_end_of_what_has_none_is_an_error_of_the_file(
    place: Place, kind: int, together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Go's servers say of a file whose store has hung up."""
    storage = filled(place, {b"a": b"content", b"b": b"content"})
    entries = entries_of(storage)
    send, awaited, ending = SftpWire.send, SftpWire._await, set[int]()

    def sending(wire: SftpWire, asked: int, *parts: bytes | memoryview) -> int:
        request = send(wire, asked, *parts)
        ending.update({request} if asked == kind else ())
        return request

    def answered(wire: SftpWire, request: int) -> bytes:
        packet = awaited(wire, request)
        return b"e" + request.to_bytes(4, "big") + b"\0\0\0\1" if request in ending else packet

    monkeypatch.setattr(SftpWire, "send", sending)
    monkeypatch.setattr(SftpWire, "_await", answered)
    if together:
        storage.expect(entries)  # type: ignore[attr-defined]
    if kind in (OPEN, FSTAT):
        with pytest.raises(ObjectError, match="end of file"):
            storage.read(entries[0])
    else:
        with pytest.raises(ObjectError, match="end of file"):
            storage.stat(b"a")
    assert not storage._wire().lost  # type: ignore[attr-defined]


def test_no_more_are_held_open_than_the_server_says_it_can(
    place: Place, sent: Counter[int]
) -> None:
    storage = filled(place, {b"%02d" % at: b"content" for at in range(10)})
    entries = entries_of(storage)
    storage._wire().handles = 8  # type: ignore[attr-defined]
    sent.clear()
    storage.expect(entries)  # type: ignore[attr-defined]
    assert sent[OPEN] == 4


@pytest.mark.parametrize("after", [False, True])
def test_a_connection_that_is_lost_is_made_anew_by_who_reads(place: Place, after: bool) -> None:
    storage = filled(place, {b"%02d" % at: b"content" for at in range(10)})
    entries = entries_of(storage)
    wire = storage._wire()  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        if not after:
            lose = lambda wire, *_: (_ for _ in ()).throw(wire._lose("cut, for a test"))  # noqa: E731
            patch.setattr(SftpWire, "settle", lose)
        storage.expect(entries)  # type: ignore[attr-defined]
    if after:
        wire._lose("cut, for a test")
    assert wire.lost
    assert [get(storage, entry) for entry in entries] == [b"content"] * 10
    assert storage._wire() is not wire  # type: ignore[attr-defined]


def test_what_one_thread_expects_is_no_other_threads(place: Place, sshd: Sshd) -> None:
    storage = filled(place, {b"%02d" % at: b"%02d" % at for at in range(20)})
    entries = expected(storage)
    found = list[bytes]()

    def read() -> None:
        storage.expect(entries[10:])  # type: ignore[attr-defined]
        found.extend(get(storage, entry) for entry in entries)
        storage.close()

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    assert found == [get(storage, entry) for entry in entries] == [one.key for one in entries]


# Directories


def test_small_directories_next_to_one_another_are_read_together(
    place: Place, sent: Counter[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {b"%02d/%03d" % (at, n): b"1" for at in range(20) for n in range(3)}
    keys |= {b"07/d/e/%d" % n: b"2" for n in range(3)} | {b"file": b"3", b"04-": b"4"}
    storage = filled(place, keys)
    sent.clear()
    assert [one.key for one in entries_of(storage)] == sorted(keys)
    assert sent[OPENDIR] == 23  # each once
    read = list[Sequence[bytes]]()
    together = SftpWire.small_directories

    def reading(wire: SftpWire, paths: Sequence[bytes], follow: bool) -> Any:
        read.append(paths)
        return together(wire, paths, follow)

    monkeypatch.setattr(SftpWire, "small_directories", reading)
    assert [one.key for one in entries_of(storage)] == sorted(keys)
    assert [len(paths) for paths in read] == [8, 8, 3]
    del read[:]
    within = KeyRange(b"03/001", b"06/001")
    assert [one.key for one in entries_of(storage, within)] == [
        key for key in sorted(keys) if key in within
    ]
    assert [[path.rsplit(b"/", 2)[1] for path in paths] for paths in read] == [
        [b"04", b"05", b"06"]
    ]
    del read[:]
    assert storage.probe(b"03/001") == b"03/002"
    assert not read


def test_what_a_directory_holds_beyond_a_few_answers_is_not_left_out(place: Place) -> None:
    keys = {b"%02d/%03d" % (at, n): b"" for at in (0, 1, 3) for n in range(2)}
    top = top_of(place)
    storage = filled(place, keys)
    for name, count in (("2", 350), ("4", 200), ("5", 201), ("6", 98)):
        (top / f"0{name}").mkdir()
        for n in range(count):
            (top / f"0{name}" / f"{n:03}").touch()
            keys[b"0%s/%03d" % (name.encode(), n)] = b""
    assert [one.key for one in entries_of(storage)] == sorted(keys)


@pytest.mark.parametrize("links", ["follow", "copy", "record"])
def test_links_in_and_to_directories_that_are_read_together(
    place: Place, tmp_path: Path, links: str
) -> None:
    storage, top = filled(place, {b"%02d/x" % at: b"1" for at in range(8)}, links), top_of(place)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "y").touch()
    (top / "03" / "link").symlink_to(tmp_path / "outside")
    (top / "03" / "broken").symlink_to("nowhere")
    (top / "04-link").symlink_to(tmp_path / "outside")
    storage.tidy()
    alone = open_storage(place.location, Options(links=links))
    place.opened += [alone, storage := open_storage(place.location, Options(links=links))]
    alone._files.ahead = 0  # type: ignore[attr-defined]
    assert entries_of(storage) == entries_of(alone)


def test_what_changed_since_it_was_read_ahead(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, top = filled(place, {b"%02d/x" % at: b"1" for at in range(8)}, "copy"), top_of(place)
    monkeypatch.setattr(sftpfiles, "FRESH_S", 0.0)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "y").touch()
    found = list[bytes]()
    for entry in storage.list(EVERYTHING):
        found.append(entry.key)
        if entry.key == b"01/x":  # the others were read along with it
            shutil.rmtree(top / "03")
            shutil.rmtree(top / "04")
            (top / "04").symlink_to(tmp_path / "outside")
            (top / "05" / "new").touch()
    files = [key for key in found if not key.endswith(b"/")]
    assert files == [b"00/x", b"01/x", b"02/x", b"05/new", b"05/x", b"06/x", b"07/x"]


@pytest.mark.parametrize("links", ["follow", "copy"])
def test_a_name_that_cannot_be_looked_at_is_told_of(
    place: Place, monkeypatch: pytest.MonkeyPatch, links: str
) -> None:
    """Some servers list names without all that there is to know."""
    storage = filled(place, dict.fromkeys([b"a", b"d/secret", b"d/z", b"secret"], b"1"), links)
    names_of = sftpwire.names_of
    secret = set[int]()
    send, wait = SftpWire.send, SftpWire.wait

    def bare(packet: bytes) -> list[Named]:
        return [Named(one.name, None) for one in names_of(packet)] + [Named(b"gone", None)]

    def sending(wire: SftpWire, kind: int, *parts: bytes | memoryview) -> int:
        request = send(wire, kind, *parts)
        if kind in (STAT, LSTAT) and bytes(parts[0]).endswith(b"/secret"):
            secret.add(request)
        return request

    def waiting(wire: SftpWire, request: int) -> bytes:
        packet = wait(wire, request)
        if request in secret:
            raise PermissionError(errno.EACCES, "Permission denied")
        return packet

    monkeypatch.setattr(sftpwire, "names_of", bare)
    monkeypatch.setattr(SftpWire, "send", sending)
    monkeypatch.setattr(SftpWire, "wait", waiting)
    found = {one.key: one.problem for one in storage.list(EVERYTHING)}
    assert list(found) == [b"a", b"d/", b"d/secret", b"d/z", b"secret"]
    assert [key for key, problem in found.items() if problem] == [b"d/secret", b"secret"]
    assert found[b"secret"] == found[b"d/secret"] == "cannot be examined: Permission denied"


def test_a_connection_that_is_lost_while_directories_are_read_together(place: Place) -> None:
    storage = filled(place, keys := {b"%02d/x" % at: b"1" for at in range(20)})
    settle, lost = SftpWire.settle, list[SftpWire]()

    def lose(wire: SftpWire, *requests: int | None) -> None:
        if not lost:
            lost.append(wire)
            raise wire._lose("cut, for a test")
        settle(wire, *requests)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SftpWire, "settle", lose)
        assert [one.key for one in entries_of(storage)] == sorted(keys)
    assert lost


def test_a_server_that_answers_in_another_order_hides_no_names(
    place: Place, pages: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {b"%03d" % at: b"" for at in range(50)}
    storage = filled(place, {})
    for key in keys:
        (top_of(place) / os.fsdecode(key)).touch()
    del pages[:]
    wait = SftpWire.wait

    def waiting(wire: SftpWire, request: int) -> bytes:
        if request in pages[:3]:  # the first is told that there are no more, the third has them
            request = pages[2 - pages.index(request)]
        return wait(wire, request)

    monkeypatch.setattr(SftpWire, "wait", waiting)
    wire = storage._wire()  # type: ignore[attr-defined]
    names = {one.name for one in wire.names(place.location.path)}
    assert names >= keys.keys()
    assert not wire._answers


def test_a_directory_that_cannot_be_read_leaves_no_answers_behind(
    place: Place, pages: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = filled(place, {b"%02d/x" % at: b"1" for at in range(4)})
    wire = storage._wire()  # type: ignore[attr-defined]
    paths = [os.path.join(place.location.path, b"%02d" % at) for at in range(4)]
    del pages[:]
    wait = SftpWire.wait

    def waiting(wire: SftpWire, request: int) -> bytes:
        packet = wait(wire, request)
        if request in pages[3:4]:  # the first of the second directory
            raise OSError(4, "failure")
        return packet

    monkeypatch.setattr(SftpWire, "wait", waiting)
    found = wire.small_directories(paths, True)
    assert [path for path, _, _ in found] == [paths[0], *paths[2:]]
    assert not wire._answers


@pytest.mark.parametrize("together", [False, True])
def test_names_that_are_cut_off_are_not_left_out_because_another_answer_says_it_is_the_end(
    place: Place, pages: list[int], together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = filled(place, {b"d/x": b"1"})
    wire, path = storage._wire(), os.path.join(place.location.path, b"d")  # type: ignore[attr-defined]
    del pages[:]
    awaited = SftpWire._await

    def answered(wire: SftpWire, request: int) -> bytes:
        packet = awaited(wire, request)
        if request in pages[2:3]:  # the second is told that there are no more
            return bytes((NAME,)) + packet[1:5] + number(1) + number(7) + b"na"
        return packet

    monkeypatch.setattr(SftpWire, "_await", answered)
    if together:
        assert wire.small_directories([path], True) == []
    else:
        with pytest.raises(OSError, match="malformed"):
            wire.names(path)
    assert wire.lstat(path)
    assert not wire._answers
