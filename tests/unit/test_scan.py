"""What a job finds at its two sides: by range, by name, as far as options select it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adsmig import scan, worker
from adsmig.errors import NotFound, ObjectError, Unreachable
from adsmig.filters import Filters
from adsmig.job import Job
from adsmig.keylist import KeyList, sort_keys
from adsmig.limits import Lease
from adsmig.location import Location
from adsmig.manifest import Manifest
from adsmig.model import (
    EVERYTHING,
    UNFLUSHED,
    Action,
    Budget,
    Counts,
    Entry,
    KeyRange,
    Meta,
    Outcome,
    SliceResult,
    What,
)
from adsmig.plan import Past, each
from adsmig.slice import Slice
from adsmig.storage.local import LocalStorage
from adsmig.storage.memory import MemoryStorage
from adsmig.uri import parse
from tests.storage.support import Options

NOW_NS = 1_800_000_000 * 10**9
DAY_NS = 86400 * 10**9


def objects(*keys: bytes) -> MemoryStorage:
    storage = MemoryStorage(Location("memory", b"", bucket=uuid.uuid4().hex))
    for key in keys:
        put(storage, key)
    return storage


def put(storage: Any, key: bytes, content: bytes = b"1") -> None:
    storage.write(key, iter([memoryview(content)]), len(content), Meta())


class Listing:
    """A storage that lists what a test says, and nothing else."""

    keeps_files = True
    etag_is_md5 = False

    def __init__(self, *entries: Entry) -> None:
        self.entries = entries

    def list(self, keys: KeyRange, prune: Any = None) -> Iterator[Entry]:
        return (entry for entry in self.entries if entry.key in keys)

    def stat(self, key: bytes) -> Entry:
        for entry in self.entries:
            if entry.key == key:
                return entry
        raise NotFound("no such object")


Use = Callable[[Any, Any], None]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Iterator[Use]:
    """Has jobs open these two storages."""

    def use(src: Any, dst: Any) -> None:
        def open_storage(location: object, job: object, destination: bool = False) -> Any:
            return dst if destination else src

        monkeypatch.setattr(scan, "open_storage", open_storage)
        scan.forget()

    yield use
    scan.forget()


def job(command: str = "sync", **options: Any) -> Job:
    dst = None if command == "rm" else parse("minio://h/dst/")
    options = {"began_ns": NOW_NS, **options}
    return Job(command, parse("minio://h/src/"), dst, **options)


def planned(job: Job, keys: KeyRange = EVERYTHING) -> list[tuple[bytes, What]]:
    return [(action.src.key, action.what) for action in each(scan.plan_of(job, keys))]


def key_list(tmp_path: Path, *names: bytes) -> str:
    (tmp_path / "names").write_bytes(b"".join(name + b"\n" for name in names))
    path = str(tmp_path / f"{uuid.uuid4().hex}.keys")
    sort_keys(str(tmp_path / "names"), path, False)
    return path


# What is selected


def test_both_sides_are_selected_alike(use: Use) -> None:
    use(objects(b"a.jpg", b"b.tmp", b"d/c.tmp"), objects(b"d/x.jpg", b"d/x.tmp", b"e.tmp"))
    deleting = {"delete_dst": True}
    assert planned(job(filters=Filters(exclude=(r"\.tmp$",)), **deleting)) == [
        (b"a.jpg", What.COPY), (b"d/x.jpg", What.DELETE)
    ]  # fmt: skip
    assert planned(job(filters=Filters(include=("^d/",)), **deleting)) == [
        (b"d/c.tmp", What.COPY), (b"d/x.jpg", What.DELETE), (b"d/x.tmp", What.DELETE)
    ]  # fmt: skip
    for filters in (Filters(exclude_dir=("^d$",)), Filters(exclude=("^d/",))):
        assert planned(job(filters=filters, **deleting)) == [
            (b"a.jpg", What.COPY), (b"b.tmp", What.COPY), (b"e.tmp", What.DELETE)
        ]  # fmt: skip


def test_an_object_of_a_size_that_is_not_selected_keeps_its_copy(use: Use) -> None:
    src, dst = objects(), objects()
    put(src, b"a", b"x" * 10)
    for key, content in ((b"a", b"old"), (b"b", b"x" * 10), (b"c", b"x")):
        put(dst, key, content)
    chosen = job(filters=Filters(max_size=5), delete_dst=True)
    use(src, dst)
    assert planned(chosen) == [(b"a", What.DROP), (b"c", What.DELETE)]


UNREADABLE = Entry(b"d/", 0, None, 0, problem="the directory cannot be listed")


@pytest.mark.parametrize(
    "filters", [Filters(include=(r"\.jpg$",)), Filters(include_dir=("^d/e$",))]
)
def test_a_directory_that_cannot_be_listed_is_told_of_whatever_names_are_selected(
    use: Use, filters: Filters
) -> None:
    use(Listing(UNREADABLE), objects(b"d/e/x.jpg"))
    assert planned(job(filters=filters, delete_dst=True)) == [(b"d/", What.FAIL)]


@pytest.mark.parametrize("filters", [Filters(exclude_dir=("^d$",)), Filters(exclude=("^d/",))])
def test_a_directory_that_is_excluded_need_not_be_readable(use: Use, filters: Filters) -> None:
    use(Listing(UNREADABLE), objects(b"d/x"))
    assert planned(job(filters=filters, delete_dst=True)) == []


@pytest.mark.parametrize("command", ["sync", "rm"])
def test_what_a_range_begins_after_is_not_settled_again(
    use: Use, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    for name in ("a", "z"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "d").mkdir()
    src = LocalStorage(parse(f"{tmp_path}/"), Options())
    read = src._tree._read_directory

    def denied(path: bytes, guess: bool) -> Any:
        if path == os.path.join(os.fsencode(tmp_path), b"d/"):
            raise PermissionError(13, "Permission denied")
        return read(path, guess)

    monkeypatch.setattr(src._tree, "_read_directory", denied)
    use(src, objects())
    assert [key for key, _ in planned(job(command))] == [b"a", b"d/", b"z"]
    assert [key for key, _ in planned(job(command), KeyRange(b"d/"))] == [b"z"]


# The destination


def test_a_destination_that_makes_no_difference_is_not_looked_at(use: Use) -> None:
    src = objects(b"a")
    use(src, None)
    assert planned(job("cp")) == [(b"a", What.COPY)]


@pytest.mark.parametrize(
    "options",
    [{"existing": True}, {"ignore_existing": True}, {"update": True}, {"delete_dst": True},
     {"compare": "size"}, {"compare": "checksum"}],
)  # fmt: skip
def test_cp_looks_at_the_destination_where_an_option_asks_what_is_there(
    use: Use, options: dict[str, Any]
) -> None:
    use(objects(b"a"), objects(b"b"))
    assert job("cp", **options).lists_destination
    what = What.LEAVE if "existing" in options else What.COPY
    assert planned(job("cp", **options))[0] == (b"a", what)


@pytest.mark.parametrize("options", [{"command": "verify"}, {"dryrun": True}])
def test_who_only_looks_takes_a_missing_destination_for_an_empty_one(
    use: Use, tmp_path: Path, options: dict[str, Any]
) -> None:
    use(objects(b"a"), LocalStorage(parse(f"{tmp_path}/nothing/"), Options(), True))
    assert planned(job(**options)) == [(b"a", What.COPY)]
    with pytest.raises(NotFound):
        planned(job())


def test_a_missing_source_is_never_empty(use: Use, tmp_path: Path) -> None:
    use(LocalStorage(parse(f"{tmp_path}/nothing/"), Options()), objects(b"a"))
    for command in ("sync", "verify", "rm"):
        for dryrun in (False, True):
            with pytest.raises(NotFound):
                planned(job(command, dryrun=dryrun))


def test_a_record_stands_in_for_the_destination(use: Use, tmp_path: Path) -> None:
    src = objects(b"a", b"b", b"c")
    use(src, None)
    path = tmp_path / "m.db"
    with Manifest(path, create=True) as manifest:
        run = manifest.begin_run("sync", [EVERYTHING])
        entries = [src.stat(key) for key in (b"a", b"b")]
        outcomes = [
            Outcome(one.key, one.size, one.stored_ns, one.etag, None) for one in entries
        ] + [Outcome(b"gone", 1, 1, None, None)]
        manifest.commit_slice(run.id, 1, SliceResult(b"z", True, Counts(), outcomes))
    put(src, b"b", b"changed")
    by_record = job(compare="manifest", known=str(path))
    assert planned(by_record) == [(b"a", What.SKIP), (b"b", What.COPY), (b"c", What.COPY)]
    assert planned(by_record, KeyRange(b"a", b"b")) == [(b"b", What.COPY)]
    removing = job(compare="manifest", known=str(path), delete_dst=True)
    assert planned(removing)[-1] == (b"gone", What.DELETE)
    # Before the first run, nothing is known.
    assert {what for _, what in planned(job(compare="manifest"))} == {What.COPY}


def test_a_single_object_is_held_against_its_other_name(use: Use) -> None:
    src, dst = objects(b"a"), objects(b"a", b"new")
    put(dst, b"a", b"something else")
    use(src, dst)
    one = job(single=(b"a", b"new"))
    assert planned(one, one.keys) == [(b"a", What.SKIP)]
    dst.delete([b"new"])
    assert planned(one, one.keys) == [(b"a", What.COPY)]


# By name


def named(
    storage: Any, path: str, keys: KeyRange = EVERYTHING, missing: bool = True
) -> list[tuple[bytes, str]]:
    names = KeyList(path)
    return [(one.key, one.problem) for one in scan._named(storage, names, keys, missing)]


def test_names_are_looked_up_in_order_and_those_missing_are_told(tmp_path: Path) -> None:
    storage = objects(*(b"%03d" % number for number in range(0, 300, 2)))
    path = key_list(tmp_path, *(b"%03d" % number for number in range(300)))
    found = named(storage, path)
    assert [key for key, _ in found] == [b"%03d" % number for number in range(300)]
    assert {problem for _, problem in found[::2]} == {""}
    assert {problem for _, problem in found[1::2]} == {"it is not there"}
    assert [key for key, _ in named(storage, path, missing=False)] == [
        b"%03d" % number for number in range(0, 300, 2)
    ]


def test_a_name_that_ends_in_a_slash_stands_for_all_below_it(tmp_path: Path) -> None:
    storage = objects(b"a", b"d-x", b"d/", b"d/e/x", b"d/y", b"d0", b"e/f")
    path = key_list(tmp_path, b"a", b"d-x", b"d/", b"d/y", b"d/not there", b"d0")
    assert named(storage, path) == [
        (b"a", ""), (b"d-x", ""), (b"d/", ""), (b"d/e/x", ""), (b"d/not there", "it is not there"),
        (b"d/y", ""), (b"d0", ""),
    ]  # fmt: skip


def test_a_directory_that_is_named_and_not_there_is_told(tmp_path: Path) -> None:
    path = key_list(tmp_path, b"a", b"nothing/")
    assert named(objects(b"a"), path) == [(b"a", ""), (b"nothing/", "it is not there")]


NAME = st.text("ab-/", min_size=1, max_size=4).map(str.encode)


@given(
    st.sets(NAME, max_size=12),
    st.sets(NAME, min_size=1, max_size=6),
    st.builds(KeyRange, NAME | st.just(b""), st.none() | NAME, st.booleans()),
)
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_range_holds_what_names_select_of_it(
    tmp_path: Path, there: set[bytes], names: set[bytes], within: KeyRange
) -> None:
    storage, path = objects(*there), key_list(tmp_path, *names)
    directories = [name for name in names if name.endswith(b"/")]
    selected = sorted(
        key for key in there if key in names or any(key.startswith(one) for one in directories)
    )
    # The range that was drawn, and every one that begins at a key, as slices do.
    for keys in [EVERYTHING, within, *(KeyRange(key, within.upto) for key in there | names)]:
        found = [key for key, _ in named(storage, path, keys, missing=False)]
        assert found == [key for key in selected if key in keys]
        told = [key for key, problem in named(storage, path, keys) if problem]
        assert told == sorted(key for key in names if key in keys and not is_there(key, there))


def is_there(name: bytes, keys: set[bytes]) -> bool:
    if name.endswith(b"/"):
        return any(key.startswith(name) for key in keys)
    return name in keys


def test_what_cannot_be_looked_up_is_one_failure(tmp_path: Path) -> None:
    class Denied(MemoryStorage):
        def stat(self, key: bytes) -> Entry:
            if key == b"b":
                raise ObjectError("denied", "not allowed")
            return super().stat(key)

    storage = Denied(Location("memory", b"", bucket=uuid.uuid4().hex))
    for key in (b"a", b"b", b"c"):
        put(storage, key)
    path = key_list(tmp_path, b"a", b"b", b"c")
    assert named(storage, path) == [(b"a", ""), (b"b", "not allowed"), (b"c", "")]


def test_names_cannot_be_looked_up_while_nobody_answers(tmp_path: Path) -> None:
    class Silent(MemoryStorage):
        def stat(self, key: bytes) -> Entry:
            raise Unreachable("nobody answers")

    path = key_list(tmp_path, b"a", b"b")
    with pytest.raises(Unreachable):
        named(Silent(Location("memory", b"", bucket="silent")), path)


def test_named_keys_are_what_both_sides_are_asked_for(use: Use, tmp_path: Path) -> None:
    use(objects(b"a", b"b", b"c"), objects(b"a", b"x"))
    put(scan.storages(job())[0], b"a", b"2")
    chosen = job(keys_file=key_list(tmp_path, b"a", b"c", b"missing", b"x"))
    assert planned(chosen) == [
        (b"a", What.COPY), (b"c", What.COPY), (b"missing", What.FAIL), (b"x", What.FAIL)
    ]  # fmt: skip
    assert scan.next_source_key(chosen, b"a") == b"c"
    assert scan.next_source_key(job(), b"a") == b"b"


# rm


def test_rm_removes_what_is_selected_and_the_directories_that_its_content_implies(
    use: Use,
) -> None:
    entries = [
        Entry(b"d/", 0, NOW_NS, 0, implied=True),
        Entry(b"d/new", 5, NOW_NS, 0),
        Entry(b"d/old", 5, NOW_NS - 9 * DAY_NS, 0),
        Entry(b"link", 3, NOW_NS, 0, link=b"abc"),
    ]
    use(Listing(*entries), None)
    assert planned(job("rm")) == [(one.key, What.DELETE) for one in entries]
    assert planned(job("rm", filters=Filters(older_than="1d"))) == [
        (b"d/", What.DROP), (b"d/new", What.DROP), (b"d/old", What.DELETE), (b"link", What.DROP)
    ]  # fmt: skip


def test_rm_removes_what_cannot_be_copied_but_not_what_cannot_be_listed(use: Use) -> None:
    use(Listing(UNREADABLE, Entry(b"pipe", 0, None, 0, problem="not a regular file")), None)
    assert planned(job("rm")) == [(b"d/", What.FAIL), (b"pipe", What.DELETE)]


@pytest.mark.parametrize("filters", [Filters(older_than="30d"), Filters(min_size=1)])
def test_rm_does_not_remove_what_may_not_be_selected(use: Use, filters: Filters) -> None:
    use(Listing(Entry(b"socket", 0, None, 0, problem="not a regular file")), None)
    assert planned(job("rm", filters=filters)) == [(b"socket", What.FAIL)]


def test_rm_does_not_claim_to_remove_what_is_not_there(use: Use, tmp_path: Path) -> None:
    use(objects(b"a"), None)
    chosen = job("rm", keys_file=key_list(tmp_path, b"a", b"missing"))
    assert planned(chosen) == [(b"a", What.DELETE), (b"missing", What.FAIL)]


# Why nothing was found


def test_what_failed_is_planned_key_by_key_and_by_directory(use: Use, tmp_path: Path) -> None:
    names = [b"a", b"b", b"d/m", b"d/\xff/x", b"d0", b"e/x", b"\xfe"]
    use(objects(*names), objects())
    failures = {b"a": "denied", b"d/": "source", b"d/m": "source", b"e/": "denied", b"\xfe": "key"}
    path = str(tmp_path / "m.db")
    with Manifest(tmp_path / "m.db", create=True) as manifest:
        run = manifest.begin_run("cp", [EVERYTHING])
        outcomes = [Outcome(key, 1, 1, None, None, "no", kind) for key, kind in failures.items()]
        manifest.commit_slice(run.id, 1, SliceResult(b"z", True, Counts(), outcomes))
    again = job("cp", known=path, doubts=True, retries=True)

    def keys(after: bytes, upto: bytes | None = None, closed: bool = False) -> list[bytes]:
        return [key for key, _ in planned(again, KeyRange(after, upto, closed))]

    assert keys(b"", closed=True) == [b"a", b"d/m", b"d/\xff/x", b"\xfe"]
    assert keys(b"a", b"d/m") == [b"d/m"]
    assert keys(b"d/m") == [b"d/\xff/x", b"\xfe"]
    assert keys(b"d/m", closed=True) == [b"d/m", b"d/\xff/x", b"\xfe"]
    assert keys(b"d/\xff/x") == keys(b"d0") == [b"\xfe"]
    assert keys(b"e/", closed=True) == [b"\xfe"]
    ranges = list(scan.failed_ranges(again, KeyRange(b"e/", None, True)))
    assert ranges == [
        (KeyRange(b"e/", b"e/", True), "denied"), (KeyRange(b"\xfe", b"\xfe", True), "key")
    ]  # fmt: skip
    for pieces in (2, 3, 16):
        cuts = worker.cut_range(again, EVERYTHING, pieces)
        assert cuts
        parts = [keys(*part) for part in EVERYTHING.cut(cuts)]
        assert [key for part in parts for key in part] == keys(b"", closed=True)
        assert len(list(filter(None, parts))) > 1


def test_a_retry_tells_how_far_it_is_where_all_is_gone(
    use: Use, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(objects(b"c"), objects())
    path = str(tmp_path / "m.db")
    with Manifest(tmp_path / "m.db", create=True) as manifest:
        run = manifest.begin_run("cp", [EVERYTHING])
        outcomes = [Outcome(key, 1, 1, None, None, "no", "denied") for key in (b"a", b"b", b"c")]
        manifest.commit_slice(run.id, 1, SliceResult(b"z", True, Counts(), outcomes))
    again = job("cp", known=path, doubts=True, retries=True)
    found = list(scan.plan_of(again, EVERYTHING))
    assert [one.key if isinstance(one, Past) else type(one) for one in found] == [
        b"a", b"b", Action, b"c"
    ]  # fmt: skip
    monkeypatch.setattr(Slice, "_used_up", lambda self: True)  # as once the run is stopping
    ended = worker.run_slice(again, EVERYTHING, Budget(1.0, 1), Lease("", 0))
    assert (ended.cursor, ended.done) == (b"a", False)


@pytest.mark.parametrize("options", [{"ignore_existing": True}, {"rebuild": True}])
def test_what_may_not_be_on_the_disk_is_stored_again(
    use: Use, tmp_path: Path, options: dict[str, Any]
) -> None:
    src, dst = objects(b"a", b"b"), objects(b"a", b"b")
    use(src, dst)
    path = str(tmp_path / "m.db")
    with Manifest(tmp_path / "m.db", create=True) as manifest:
        run = manifest.begin_run("cp", [EVERYTHING])
        lost = Outcome(b"a", 1, 1, None, None, "no", UNFLUSHED)
        manifest.commit_slice(run.id, 1, SliceResult(b"z", True, Counts(), [lost]))
    again = job("cp", known=path, doubts=True, **options)
    what = dict(planned(again))
    assert what[b"a"] == What.COPY
    assert what[b"b"] in (What.LEAVE, What.SKIP)


def test_what_was_listed_and_what_dropped_it_is_explained(use: Use) -> None:
    src = objects(b"a.tmp", b"b.tmp", b"c")
    use(src, None)
    filters = Filters(exclude=(r"\.tmp$",), min_size=5)
    assert scan.explain(job(filters=filters)) == (
        3, [(r"--exclude '\\.tmp$'", 2, b"a.tmp"), ("--min-size 5", 1, b"c")], True
    )  # fmt: skip
    assert scan.explain(job(start=b"c")) == (1, [], True)
    assert scan.explain(job(start=b"d")) == (0, [], True)


def test_nothing_is_listed_again_where_names_were_given(
    use: Use, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    src, listed = objects(b"a"), list[KeyRange]()
    use(src, None)

    def listing(keys: KeyRange) -> Iterator[Entry]:
        listed.append(keys)
        yield from ()

    monkeypatch.setattr(src, "list", listing)
    assert scan.explain(job(keys_file=key_list(tmp_path, b"x"))) == (0, [], True)
    assert not listed


def test_that_not_all_was_looked_at_again_is_told(use: Use) -> None:
    use(objects(*(b"%04d" % number for number in range(scan.LOOKED_AT + 1))), None)
    told = ("--min-size 5", scan.LOOKED_AT, b"0000")
    assert scan.explain(job(filters=Filters(min_size=5))) == (scan.LOOKED_AT, [told], False)
    assert scan.explain(job(start=b"0001", filters=Filters(min_size=5)))[2]
