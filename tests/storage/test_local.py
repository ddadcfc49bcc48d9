"""File systems: odd trees, directories kept in memory, what a write leaves behind."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from adsmig import uri
from adsmig.errors import (
    AdsmigError,
    ListingError,
    NotFound,
    ObjectError,
    SourceChanged,
    StorageFull,
    UsageError,
)
from adsmig.model import EVERYTHING, Entry, KeyRange, Meta, Upload
from adsmig.storage import localfile
from adsmig.storage.local import LocalStorage
from adsmig.storage.localfile import MUCH
from tests.storage.support import (
    Options,
    chunks_of,
    content_of,
    drain,
    get,
    keys_of,
    put,
    send_part,
)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def opened(root: Path, destination: bool = False, links: str = "follow") -> LocalStorage:
    # A source is of another job here: its own destination is never within it.
    staging = Options.staging if destination else ".adsmig-source"
    options = replace(Options(), links=links, staging=staging)
    return LocalStorage(uri.parse(str(root)), options, destination)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    path.mkdir()
    return path


@pytest.fixture
def source(root: Path) -> LocalStorage:
    return opened(root)


@pytest.fixture
def destination(root: Path) -> LocalStorage:
    storage = opened(root, destination=True)
    storage.prepare()
    return storage


@pytest.fixture(params=["copy", "follow"])
def linking(root: Path, request: pytest.FixtureRequest) -> LocalStorage:
    """A destination that has links: of a run that copies them, or that somebody else made."""
    storage = opened(root, destination=True, links=request.param)
    storage.prepare()
    return storage


def make(root: Path, *names: str | bytes) -> None:
    """Files that hold their own name, and directories for names that end in a slash."""
    for name in names:
        path = os.path.join(os.fsencode(root), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if not path.endswith(b"/"):
            with open(path, "wb") as file:
                file.write(os.path.basename(path))


def by_key(storage: LocalStorage, within: KeyRange = EVERYTHING) -> dict[bytes, Entry]:
    entries = list(storage.list(within))
    keys = [entry.key for entry in entries]
    assert keys == sorted(set(keys))
    return {entry.key: entry for entry in entries}


def problems(storage: LocalStorage, within: KeyRange = EVERYTHING) -> dict[bytes, str]:
    return {key: entry.problem for key, entry in by_key(storage, within).items() if entry.problem}


# Listing


def test_directories_are_listed_before_their_content(root: Path, source: LocalStorage) -> None:
    make(root, "a/b/c", "a/d", "e/", "f")
    found = by_key(source)
    assert list(found) == [b"a/", b"a/b/", b"a/b/c", b"a/d", b"e/", b"f"]
    assert [key for key, entry in found.items() if entry.implied] == [b"a/", b"a/b/"]
    assert not any(entry.problem for entry in found.values())


def test_names_are_ordered_as_the_bytes_of_their_keys(root: Path, source: LocalStorage) -> None:
    make(root, "a/x", "a-b", "a.b", "a b", "a+b", "a!", "a0", "A", "é", "z", "a\x01", "a\n", "~")
    make(root, "b/y", "b-/y", "b.d/y", "b0/y")
    keys = list(by_key(source))
    assert keys == sorted(keys)
    assert keys.index(b"a-b") < keys.index(b"a/") < keys.index(b"a0")
    assert [key for key in keys if key.startswith(b"b")] == [
        b"b-/", b"b-/y", b"b.d/", b"b.d/y", b"b/", b"b/y", b"b0/", b"b0/y",
    ]  # fmt: skip


def test_every_range_of_a_tree_is_exact(root: Path, source: LocalStorage) -> None:
    make(root, "a/b/c", "a/b-d", "a/b.e/", "a-/b", "a0", "b/", "c/d/e/f", "c/d-/g")
    every = list(by_key(source))
    points = sorted({*every, *(key.rstrip(b"/") for key in every), b"a/b/", b"c/d/e/", b"0", b"z"})
    for after in (b"", *points):
        for upto in (None, *(point for point in points if point >= after)):
            for closed in (False, True):
                within = KeyRange(after, upto, closed)
                assert list(by_key(source, within)) == [key for key in every if key in within]


def test_an_entry_tells_size_and_times(root: Path, source: LocalStorage) -> None:
    make(root, "file", "directory/")
    os.utime(root / "file", ns=(1, 1_600_000_000_123_456_789))
    status = os.stat(root / "file")
    found = by_key(source)
    assert found[b"file"] == Entry(b"file", 4, 1_600_000_000_123_456_789, status.st_ctime_ns)
    assert found[b"file"] == source.stat(b"file")
    assert found[b"directory/"] == source.stat(b"directory/")
    assert (found[b"directory/"].size, found[b"directory/"].implied) == (0, False)


def test_names_that_are_not_utf_8_are_kept(root: Path, source: LocalStorage) -> None:
    keys = [b"\xff\xfe", b"d\xe9/\x80", b"plain"]
    make(root, *keys)
    assert keys_of(source) == sorted(keys)
    for key in keys:
        assert content_of(source, key) == key.rpartition(b"/")[2]


def test_symbolic_links_are_followed(root: Path, tmp_path: Path, source: LocalStorage) -> None:
    make(tmp_path, "elsewhere/d/file", "elsewhere/one")
    make(root, "a")
    (root / "to-file").symlink_to(tmp_path / "elsewhere" / "one")
    (root / "to-directory").symlink_to(tmp_path / "elsewhere")
    assert keys_of(source) == [b"a", b"to-directory/d/file", b"to-directory/one", b"to-file"]
    assert problems(source) == {}
    assert content_of(source, b"to-file") == b"one"
    assert source.stat(b"to-file").size == 3


def test_two_links_to_one_directory_are_no_loop(root: Path, source: LocalStorage) -> None:
    make(root, "d/file")
    (root / "one").symlink_to("d")
    (root / "two").symlink_to("d")
    assert keys_of(source) == [b"d/file", b"one/file", b"two/file"]
    assert problems(source) == {}


@pytest.mark.parametrize("target", [".", "..", "../.."])
def test_a_link_to_a_directory_above_is_a_problem(
    root: Path, source: LocalStorage, target: str
) -> None:
    make(root, "d/e/file", "z")
    (root / "d" / "e" / "loop").symlink_to(target)
    found = problems(source)
    assert list(found) == [b"d/e/loop/"]
    assert "link" in found[b"d/e/loop/"]
    assert keys_of(source) == [b"d/e/file", b"d/e/loop/", b"z"]


def test_broken_links_and_links_to_themselves_are_problems(
    root: Path, source: LocalStorage
) -> None:
    make(root, "file")
    (root / "broken").symlink_to("nothing")
    (root / "itself").symlink_to("itself")
    (root / "one").symlink_to("other")
    (root / "other").symlink_to("one")
    assert set(problems(source)) == {b"broken", b"itself", b"one", b"other"}
    assert all("link" in text for text in problems(source).values())


def test_sockets_and_pipes_are_problems(
    root: Path, source: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(root, "file")
    os.mkfifo(root / "pipe")
    monkeypatch.chdir(root)  # the name of a socket is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        assert problems(source) == {
            b"pipe": "not a regular file",
            b"socket": "not a regular file",
        }
    assert list(by_key(source)) == [b"file", b"pipe", b"socket"]


def refuse(
    monkeypatch: pytest.MonkeyPatch, function: str, path: Path, number: int = errno.EACCES
) -> None:
    """Lets a function of os fail on one path, as root never sees it do."""
    real = getattr(os, function)

    def refusing(at: bytes, *args: object, **options: object) -> object:
        if isinstance(at, bytes) and at.rstrip(b"/") == os.fsencode(path):
            raise OSError(number, os.strerror(number), at)
        return real(at, *args, **options)

    monkeypatch.setattr(os, function, refusing)


@pytest.mark.parametrize("function", ["scandir", "stat"])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ENAMETOOLONG])
def test_a_directory_that_cannot_be_listed_is_a_problem(
    root: Path, source: LocalStorage, monkeypatch: pytest.MonkeyPatch, function: str, number: int
) -> None:
    make(root, "a", "d/secret", "e/f", "z")
    refuse(monkeypatch, function, root / "d", number)
    assert keys_of(source) == [b"a", b"d/", b"e/f", b"z"]
    assert list(problems(source)) == [b"d/"]
    assert os.strerror(number) in problems(source)[b"d/"]


@pytest.mark.parametrize("within", [KeyRange(b"d/m"), KeyRange(b"d/m", b"d/x", True)])
def test_a_range_inside_a_directory_that_cannot_be_listed_is_not_empty_in_silence(
    root: Path, source: LocalStorage, monkeypatch: pytest.MonkeyPatch, within: KeyRange
) -> None:
    make(root, "a", "d/secret", "z")
    refuse(monkeypatch, "scandir", root / "d")
    try:
        found = list(source.list(within))
    except ListingError:
        return
    assert any(entry.problem for entry in found)
    assert all(entry.key in within for entry in found)


def test_a_range_inside_a_loop_is_empty(root: Path, source: LocalStorage) -> None:
    make(root, "d/file", "z")
    (root / "d" / "loop").symlink_to("..")
    within = KeyRange(b"d/loop/d/file")
    assert [entry.key for entry in source.list(within)] == [b"z"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ENAMETOOLONG])
def test_a_file_that_cannot_be_examined_is_a_problem(
    root: Path, source: LocalStorage, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    make(root, "a", "d/secret", "z")
    refuse(monkeypatch, "stat", root / "d" / "secret", number)
    refuse(monkeypatch, "lstat", root / "d" / "secret", number)
    assert list(problems(source)) == [b"d/secret"]
    assert keys_of(source) == [b"a", b"d/secret", b"z"]


def test_a_tree_deeper_than_any_path_is_a_problem_and_no_end(
    root: Path, source: LocalStorage
) -> None:
    names = ["n" * 200] * 25  # PATH_MAX is 4096
    above = os.open(root, os.O_RDONLY)
    for name in names:
        os.mkdir(name, dir_fd=above)
        below = os.open(name, os.O_RDONLY, dir_fd=above)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=below))
        os.close(above)
        above = below
    os.close(above)
    make(root, "z")
    try:
        found = by_key(source)
        assert b"z" in found
        deepest = max(found.values(), key=lambda entry: len(entry.key))
        assert deepest.problem
        files = [key for key, entry in found.items() if key.endswith(b"file") and not entry.problem]
        assert len(files) in (18, 19, 20)
    finally:
        subprocess.run(["rm", "-rf", str(root)], check=True)


@as_root
def test_without_leave_to_search_a_directory_its_files_are_problems() -> None:
    """A directory of mode r-- tells its names, and nothing about them."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        make(root, "a", "d/one", "d/two")
        root.chmod(0o755)
        (root / "d").chmod(0o744)
        os.seteuid(65534)
        try:
            found = by_key(opened(root))
        finally:
            os.seteuid(0)
    assert list(found) == [b"a", b"d/", b"d/one", b"d/two"]
    assert [key for key, entry in found.items() if entry.problem] == [b"d/one", b"d/two"]


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_root_that_is_no_directory_is_not_found(root: Path, kind: str) -> None:
    make(root, "file")
    storage = opened(root / kind)
    with pytest.raises(NotFound):
        list(storage.list(EVERYTHING))
    with pytest.raises(AdsmigError):
        storage.prepare()


def test_a_root_that_cannot_be_listed_is_an_error(
    root: Path, source: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(root, "a")
    refuse(monkeypatch, "scandir", root)
    with pytest.raises(AdsmigError, match="cannot list"):
        list(source.list(EVERYTHING))
    with pytest.raises(AdsmigError, match="cannot read"):
        source.prepare()


def test_what_is_removed_while_it_is_listed_is_passed_over(
    root: Path, source: LocalStorage
) -> None:
    make(root, *(f"{d}/{n}" for d in "abcde" for n in range(5)), "f")
    listing = source.list(EVERYTHING)
    found = [next(listing).key for _ in range(3)]
    assert found == [b"a/", b"a/0", b"a/1"]
    (root / "a" / "3").unlink()
    shutil.rmtree(root / "c")
    found += [entry.key for entry in listing]
    assert b"a/3" not in found
    assert not any(key.startswith(b"c/") for key in found)
    assert [key for key in found if key[:1] in b"abde" and b"/" in key[:-1]] == [
        b"%c/%d" % (d, n) for d in b"abde" for n in range(5) if (d, n) != (ord("a"), 3)
    ]
    assert problems(source) == {}


def test_a_file_that_takes_the_place_of_a_directory_while_it_is_listed_is_told(
    root: Path, source: LocalStorage
) -> None:
    make(root, "a", "d/file")
    listing = source.list(EVERYTHING)
    assert next(listing).key == b"a"
    shutil.rmtree(root / "d")
    make(root, "d")
    rest = list(listing)
    assert all(entry.problem for entry in rest)


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> set[bytes]:
    """The paths that a listing examined or read."""
    seen = set[bytes]()

    def watched(real: Callable[..., object]) -> Callable[..., object]:
        def watching(path: object, **options: object) -> object:
            if isinstance(path, bytes):
                seen.add(path.rstrip(b"/"))
            return real(path, **options)

        return watching

    for function in ("scandir", "stat", "lstat"):
        monkeypatch.setattr(os, function, watched(getattr(os, function)))
    return seen


@pytest.mark.parametrize("links", ["follow", "copy", "record"])
def test_a_pruned_directory_is_not_looked_at(root: Path, looked_at: set[bytes], links: str) -> None:
    make(root, "a", "d/skip/deep/file", "d/skip-", "d/skip.d/file", "skip/file", "z/", "z-/skip/")
    looked_at.clear()
    asked = []

    def prune(directory: bytes) -> bool:
        asked.append(directory)
        return directory.endswith(b"skip/")

    storage = opened(root, links=links)
    assert [entry.key for entry in storage.list(EVERYTHING, prune)] == [
        b"a", b"d/", b"d/skip-", b"d/skip.d/", b"d/skip.d/file", b"z-/", b"z/",
    ]  # fmt: skip
    assert os.fsencode(root / "d" / "skip.d") in looked_at
    assert not any(path.endswith(b"skip") or b"skip/" in path for path in looked_at)
    assert b"d/skip/" in asked
    assert all(directory.endswith(b"/") for directory in asked)
    assert b"d/skip/deep/" not in asked


def test_a_range_that_begins_in_a_pruned_directory_goes_on_after_it(
    root: Path, source: LocalStorage, looked_at: set[bytes]
) -> None:
    make(root, "d/skip/a", "d/skip/b", "d/skip/c", "d/t", "e")
    within = KeyRange(b"d/skip/a", b"d/t")
    looked_at.clear()
    assert [entry.key for entry in source.list(within, lambda key: key == b"d/skip/")] == [b"d/t"]
    assert os.fsencode(root / "d" / "skip") not in looked_at
    assert [entry.key for entry in source.list(within)] == [b"d/skip/b", b"d/skip/c", b"d/t"]


@as_root
def test_a_pruned_directory_need_not_be_readable() -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        make(root, "a", "secret/file")
        root.chmod(0o755)
        (root / "secret").chmod(0)
        os.seteuid(65534)
        try:
            storage = opened(root)
            assert list(problems(storage)) == [b"secret/"]
            found = list(storage.list(EVERYTHING, lambda key: key == b"secret/"))
        finally:
            os.seteuid(0)
    assert [(entry.key, entry.problem) for entry in found] == [(b"a", "")]


# Links that are not followed


def linked(root: Path, tmp_path: Path) -> None:
    """A tree with links of every kind, with names beside them that sort around a slash."""
    make(root, "d/file", "link-", "link.d/x", "link0", "z")
    make(tmp_path, "elsewhere/one", "elsewhere/sub/two")
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (root / "d" / "up").symlink_to("..")
    (root / "d" / "to-file").symlink_to("file")
    (root / "broken").symlink_to("nothing/at/all")
    (root / "itself").symlink_to("itself")
    (root / "far").symlink_to(tmp_path / "elsewhere" / "one")


def test_links_that_are_copied_are_entries_of_their_own(root: Path, tmp_path: Path) -> None:
    linked(root, tmp_path)
    os.utime(root / "link", ns=(1, 1_600_000_000_123_456_789), follow_symlinks=False)
    found = by_key(opened(root, links="copy"))
    assert list(found) == [
        b"broken", b"d/", b"d/file", b"d/to-file", b"d/up", b"far", b"itself",
        b"link", b"link-", b"link.d/", b"link.d/x", b"link0", b"z",
    ]  # fmt: skip
    assert not any(entry.problem for entry in found.values())
    target = os.fsencode(tmp_path / "elsewhere")
    assert {key: entry.link for key, entry in found.items() if entry.link is not None} == {
        b"broken": b"nothing/at/all",
        b"d/to-file": b"file",
        b"d/up": b"..",
        b"far": target + b"/one",
        b"itself": b"itself",
        b"link": target,
    }
    status = os.lstat(root / "link")
    assert found[b"link"] == Entry(
        b"link", len(target), 1_600_000_000_123_456_789, status.st_ctime_ns, link=target
    )


def test_links_to_directories_that_are_recorded_are_entries_and_not_followed(
    root: Path, tmp_path: Path
) -> None:
    linked(root, tmp_path)
    found = by_key(opened(root, links="record"))
    assert list(found) == [
        b"broken", b"d/", b"d/file", b"d/to-file", b"d/up", b"far", b"itself",
        b"link", b"link-", b"link.d/", b"link.d/x", b"link0", b"z",
    ]  # fmt: skip
    assert {key for key, entry in found.items() if entry.link is not None} == {b"d/up", b"link"}
    assert found[b"link"].link == os.fsencode(tmp_path / "elsewhere")
    assert found[b"link"].mtime_ns == os.lstat(root / "link").st_mtime_ns
    assert {key for key, entry in found.items() if entry.problem} == {b"broken", b"itself"}
    assert (found[b"far"].size, found[b"d/to-file"].size) == (3, 4)


@pytest.mark.parametrize("links", ["copy", "record"])
def test_every_range_of_a_tree_with_links_is_exact(root: Path, tmp_path: Path, links: str) -> None:
    linked(root, tmp_path)
    storage = opened(root, links=links)
    every = list(by_key(storage))
    points = sorted({*every, *(key.rstrip(b"/") for key in every), b"link/", b"link/x", b"d/up/d"})
    for after in (b"", *points):
        for upto in (None, *(point for point in points if point >= after)):
            for closed in (False, True):
                within = KeyRange(after, upto, closed)
                assert list(by_key(storage, within)) == [key for key in every if key in within]


def test_only_a_source_tells_of_links_that_are_recorded(root: Path, tmp_path: Path) -> None:
    linked(root, tmp_path)
    (root / "d" / "up").unlink()
    recording, following = opened(root, True, "record"), opened(root, True)
    assert list(by_key(recording).values()) == list(by_key(following).values())
    assert b"link/sub/two" in by_key(recording)
    copying = by_key(opened(root, True, "copy"))
    assert copying[b"link"].link == os.fsencode(tmp_path / "elsewhere")
    assert b"link/sub/two" not in copying


@pytest.mark.parametrize("destination", [False, True])
@pytest.mark.parametrize("links", ["follow", "copy", "record"])
def test_a_root_that_is_a_link_is_followed(root: Path, links: str, destination: bool) -> None:
    make(root, "a", "d/file")
    (root.parent / "name").symlink_to(root)
    storage = opened(root.parent / "name", destination, links)
    storage.prepare()
    assert list(by_key(storage)) == [b"a", b"d/", b"d/file"]
    assert storage.stat(b"d/file").size == 4
    assert content_of(storage, b"a") == b"a"
    assert storage.delete([b"d/file", b"d/"]) == {}
    assert list(by_key(storage)) == [b"a"]
    if destination:
        put(storage, b"e/new", b"content")
        assert (root / "e" / "new").read_bytes() == b"content"


@pytest.mark.parametrize("links", ["follow", "copy", "record"])
def test_an_entry_looked_up_is_the_entry_listed(root: Path, tmp_path: Path, links: str) -> None:
    linked(root, tmp_path)
    (root / "d" / "up").unlink()
    os.mkfifo(root / "pipe")
    storage = opened(root, links=links)
    listed = by_key(storage)
    for key, entry in listed.items():
        if entry.problem and "link" in entry.problem:
            continue
        assert storage.stat(key) == entry._replace(implied=False)
    for key in (b"link", b"link/", b"link/one", b"link/sub/", b"d/to-file/", b"far/", b"z/", b""):
        if key not in listed:
            with pytest.raises(NotFound):
                storage.stat(key)


def test_a_link_has_a_time_and_an_owner_and_no_content(root: Path, tmp_path: Path) -> None:
    linked(root, tmp_path)
    storage = opened(root, links="copy")
    entry = by_key(storage)[b"link"]
    status = os.lstat(root / "link")
    assert storage.meta(entry) == Meta(status.st_mtime_ns, None, status.st_uid, status.st_gid)
    with pytest.raises(ObjectError) as error:
        storage.read(entry)
    assert error.value.kind == "link"
    (root / "link").unlink()
    with pytest.raises(SourceChanged):
        storage.meta(entry)
    for target in ("other", "d"):
        (root / "link").symlink_to(target)
        with pytest.raises(SourceChanged):
            storage.meta(entry)
        (root / "link").unlink()
    make(root, "link")
    with pytest.raises(SourceChanged):
        storage.meta(entry)


def test_a_link_that_takes_the_place_of_a_file_or_directory_is_not_followed(
    root: Path, tmp_path: Path
) -> None:
    make(root, "a", "d/file", "z")
    make(tmp_path, "elsewhere/secret")
    storage = opened(root, links="copy")
    entry = storage.stat(b"a")
    listing = storage.list(EVERYTHING)
    assert next(listing).key == b"a"
    shutil.rmtree(root / "d")
    (root / "d").symlink_to(tmp_path / "elsewhere")
    shutil.copy2(root / "a", root / "twin")  # of the same size and time
    (root / "a").unlink()
    (root / "a").symlink_to("twin")
    assert [(entry.key, bool(entry.problem)) for entry in listing] == [(b"d/", True), (b"z", False)]
    with pytest.raises(SourceChanged):
        storage.read(entry)
    assert storage.stat(b"a").link == b"twin"


# The directory that is kept in memory


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How often a directory was read since it was last asked."""
    count = [0]
    real = os.scandir

    def counting(path: bytes) -> object:
        count[0] += 1
        return real(path)

    monkeypatch.setattr(os, "scandir", counting)
    monkeypatch.setattr("adsmig.storage.tree.BIG_DIRECTORY", 10)

    def asked() -> int:
        count[0], told = 0, count[0]
        return told

    return asked


def age(path: Path, seconds: float = 60) -> None:
    """Makes a directory's last change long past, so that an equal time proves that it is equal."""
    then = time.time_ns() - int(seconds * 1e9)
    os.utime(path, ns=(then, then))


def slices(storage: LocalStorage, size: int) -> list[bytes]:
    """All keys, in slices of a few, each a listing of its own."""
    found: list[bytes] = []
    within = EVERYTHING
    while True:
        part = []
        for entry in storage.list(within):
            part.append(entry.key)
            if len(part) == size:
                break
        if not part:
            return found
        found += part
        within = within.rest(part[-1])


def test_what_is_still_to_come_of_a_large_directory(
    root: Path, source: LocalStorage, reads: Callable[[], int]
) -> None:
    make(root, "a", *(f"d/{number:02d}" for number in range(20)), "e/f", "g")
    ahead = [source.names_ahead for _ in source.list(EVERYTHING)]
    assert ahead == [0, 0, *range(19, -1, -1), 0, 0, 0]  # a, d/, those in it, e/, e/f, g
    listing = source.list(KeyRange(b"d/", b"d/14"))
    assert [source.names_ahead for _ in listing] == list(range(14, -1, -1))


def test_nobody_knows_how_much_is_still_to_come_of_a_directory_of_directories(
    root: Path, source: LocalStorage, reads: Callable[[], int]
) -> None:
    make(root, *(f"{number:02d}/a" for number in range(20)), "90", "91")
    assert {source.names_ahead for _ in source.list(EVERYTHING)} == {0}


def test_a_large_directory_is_read_once_for_many_slices(
    root: Path, source: LocalStorage, reads: Callable[[], int]
) -> None:
    names = [f"d/{number:03d}" for number in range(100)]
    make(root, *names)
    age(root / "d")
    keys = slices(source, 7)
    assert keys == [b"d/", *(name.encode() for name in names)]
    times = reads()
    assert times <= 2 + 16  # the root for each of 16 slices, which is small; the directory once
    assert times > 100 / 7  # so it was the directory that was not read


def test_a_small_directory_is_not_kept(
    root: Path, source: LocalStorage, reads: Callable[[], int]
) -> None:
    make(root, "d/1", "d/2")
    age(root / "d")
    list(source.list(EVERYTHING))
    assert reads() == 2
    list(source.list(EVERYTHING))
    assert reads() == 2


def test_a_large_directory_that_changed_is_read_again(
    root: Path, source: LocalStorage, reads: Callable[[], int]
) -> None:
    make(root, *(f"{number:03d}" for number in range(50)))
    age(root)
    assert len(keys_of(source)) == 50
    make(root, "new")
    assert len(keys_of(source)) == 51
    age(root, 30)
    assert len(keys_of(source)) == 51
    assert reads() == 3
    assert len(keys_of(source)) == 51
    assert reads() == 0
    (root / "new").unlink()
    assert keys_of(source, KeyRange(b"04")) == [b"%03d" % number for number in range(40, 50)]


def test_a_directory_changed_just_now_is_not_believed_to_be_the_same(
    root: Path, source: LocalStorage, reads: Callable[[], int]
) -> None:
    """Within one tick of the file system's clock, a change leaves the time as it was."""
    make(root, *(f"{number:03d}" for number in range(50)))
    assert len(keys_of(source)) == 50
    status = root.stat()
    make(root, "new")
    os.utime(root, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert len(keys_of(source)) == 51


def test_where_a_directory_changed_just_now_is_cut_is_guessed(
    root: Path, source: LocalStorage, reads: Callable[[], int]
) -> None:
    make(root, *(f"{number:03d}" for number in range(50)))
    assert len(keys_of(source)) == 50
    (root / "005").unlink()
    make(root, "006-new")
    reads()
    assert source.probe(b"004", guess=True) in (b"005", b"006")
    assert source.probe(b"040", guess=True) == b"041"
    assert reads() == 0
    assert source.probe(b"004") == b"006"
    assert source.probe(b"006") == b"006-new"
    assert reads() == 2


def test_a_destination_is_read_once_though_the_run_changes_it(
    root: Path, destination: LocalStorage, reads: Callable[[], int]
) -> None:
    make(root, *(f"{number:03d}" for number in range(50)))
    assert len(keys_of(destination)) == 50
    put(destination, b"new", b"content")
    (root / "010").unlink()
    assert b"010" not in keys_of(destination)
    assert reads() == 1


# Reading


def test_a_file_that_grows_or_shrinks_or_ages_while_it_is_read_is_a_changed_source(
    root: Path, source: LocalStorage
) -> None:
    def truncate(size: int) -> Callable[[], None]:
        return lambda: os.truncate(root / "file", size)

    for change in (truncate(2000), truncate(100), truncate(0), lambda: os.utime(root / "file")):
        (root / "file").write_bytes(bytes(1000))
        age(root / "file")
        entry = source.stat(b"file")
        buffer = memoryview(bytearray(400))
        with source.read(entry) as body:
            assert body.readinto(buffer) == 400
            change()
            with pytest.raises(SourceChanged):
                drain(body)


def test_a_file_that_cannot_be_opened_is_unreadable(
    root: Path, source: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(root, "file")
    entry = source.stat(b"file")
    refuse(monkeypatch, "open", root / "file")
    with pytest.raises(ObjectError) as error:
        source.read(entry)
    assert error.value.kind == "unreadable"


def test_a_disk_error_while_reading_is_unreadable(
    root: Path, source: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    make(root, "file")
    with source.read(source.stat(b"file")) as body:
        monkeypatch.setattr(os, "preadv", broken)
        with pytest.raises(ObjectError) as error:
            body.readinto(memoryview(bytearray(10)))
    assert error.value.kind == "unreadable"


def test_a_pipe_is_never_read_as_an_empty_file(root: Path, source: LocalStorage) -> None:
    os.mkfifo(root / "pipe")
    entry = source.stat(b"pipe")
    assert entry == by_key(source)[b"pipe"]
    assert entry.problem
    status = (root / "pipe").stat()
    for seen in (entry, Entry(b"pipe", 0, status.st_mtime_ns, status.st_ctime_ns)):
        with pytest.raises(ObjectError) as error:
            source.read(seen)
        assert error.value.kind == "unreadable"


@pytest.mark.skipif(not os.path.exists("/proc/sys/kernel/ostype"), reason="needs /proc")
def test_a_file_that_says_that_it_is_empty_and_is_not_is_no_empty_file() -> None:
    source = opened(Path("/proc/sys/kernel"))
    entry = source.stat(b"ostype")
    assert entry.size == 0
    with pytest.raises(ObjectError, match="says that it is empty, and is not"):
        source.read(entry)


def test_an_empty_file_that_grows_as_it_is_opened_is_a_changed_source(
    root: Path, source: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "file").touch()
    entry, real = source.stat(b"file"), os.pread

    def grown(fd: int, *span: int) -> bytes:
        (root / "file").write_bytes(b"more")
        return real(fd, *span)

    monkeypatch.setattr(os, "pread", grown)
    with pytest.raises(SourceChanged):
        source.read(entry)
    assert content_of(source, b"file") == b"more"


def test_a_file_whose_directory_is_gone_is_a_changed_source(
    root: Path, source: LocalStorage
) -> None:
    make(root, "d/file")
    entry = source.stat(b"d/file")
    shutil.rmtree(root / "d")
    for _ in range(2):
        with pytest.raises(SourceChanged):
            source.read(entry)
        make(root, "d")


def test_a_pipe_that_took_the_place_of_a_file_does_not_hold_up_the_run(
    root: Path, source: LocalStorage
) -> None:
    make(root, "file")
    entry = source.stat(b"file")
    (root / "file").unlink()
    os.mkfifo(root / "file")
    errors: list[BaseException] = []

    def read() -> None:
        try:
            get(source, entry)
        except AdsmigError as exc:
            errors.append(exc)

    reader = threading.Thread(target=read)
    reader.start()
    reader.join(1)
    waits = reader.is_alive()
    if waits:
        os.close(os.open(root / "file", os.O_WRONLY | os.O_NONBLOCK))  # lets it go
        reader.join()
    assert not waits
    assert errors


def test_no_file_stays_open(root: Path, source: LocalStorage, destination: LocalStorage) -> None:
    make(root, *(f"d{number}/file" for number in range(5)))
    before = 0
    for number in range(4):
        for entry in list(source.list(EVERYTHING)):
            if not entry.implied:
                get(source, entry)
        put(destination, b"new", b"content")
        with pytest.raises(ObjectError):
            put(destination, b"d0", b"content")
        with pytest.raises(SourceChanged):
            source.read(source.stat(b"new")._replace(size=1))
        destination.sync()
        gc.collect()
        if not number:  # what stays open for as long as the storage lives is open now
            before = len(os.listdir("/proc/self/fd"))
    assert len(os.listdir("/proc/self/fd")) == before


# Writing


def staged(root: Path) -> list[str]:
    """The files in the staging directory and in those of its threads."""
    path = root / Options().staging
    files = [one for one in path.rglob("*") if one.is_symlink() or not one.is_dir()]
    return sorted(str(one.relative_to(path)) for one in files)


def test_a_file_takes_the_place_of_another_by_rename(root: Path, destination: LocalStorage) -> None:
    make(root, "d/file")
    os.link(root / "d" / "file", root / "other-name")
    with open(root / "d" / "file", "rb") as old:
        put(destination, b"d/file", b"new content")
        assert old.read() == b"file"
    assert (root / "d" / "file").read_bytes() == b"new content"
    assert (root / "other-name").read_bytes() == b"file"
    assert staged(root) == []


def test_a_link_is_replaced_and_what_it_leads_to_is_left_alone(
    root: Path, tmp_path: Path, destination: LocalStorage
) -> None:
    make(tmp_path, "elsewhere")
    (root / "link").symlink_to(tmp_path / "elsewhere")
    put(destination, b"link", b"new content")
    assert not (root / "link").is_symlink()
    assert (root / "link").read_bytes() == b"new content"
    assert (tmp_path / "elsewhere").read_bytes() == b"elsewhere"


@pytest.mark.parametrize("content", ["", "inner"])
def test_a_file_does_not_take_the_place_of_a_directory(
    root: Path, destination: LocalStorage, content: str
) -> None:
    make(root, f"d/{content}")
    with pytest.raises(ObjectError, match="directory") as error:
        put(destination, b"d", b"content")
    assert error.value.kind == "key"
    assert (root / "d").is_dir()
    assert os.listdir(root / "d") == [content][: bool(content)]
    assert staged(root) == []


@pytest.mark.parametrize("key", [b"a/b", b"a/b/c/d", b"a/", b"a/b/"])
def test_a_directory_does_not_take_the_place_of_a_file(
    root: Path, destination: LocalStorage, key: bytes
) -> None:
    make(root, "a")
    with pytest.raises(ObjectError, match="file") as error:
        put(destination, key, b"" if key.endswith(b"/") else b"content")
    assert error.value.kind == "key"
    assert (root / "a").read_bytes() == b"a"
    assert staged(root) == []


def test_an_upload_over_a_directory_is_refused(root: Path, destination: LocalStorage) -> None:
    upload = destination.begin_upload(b"d", Entry(b"d", 3, 1, 1), Meta())
    make(root, "d/inner")
    with pytest.raises(ObjectError):
        destination.begin_upload(b"d", Entry(b"d", 3, 1, 1), Meta())
    send_part(destination, b"d", upload, 1, b"abc")
    with pytest.raises(ObjectError):
        destination.complete(b"d", upload, [], Meta(mtime_ns=1))
    destination.abort(b"d", upload.upload_id)
    assert (root / "d" / "inner").exists()
    assert staged(root) == []


@pytest.mark.parametrize(
    "key",
    [b"n" * 255, "é".encode() * 127, b"d/" + b"n" * 255 + b"/" + b"m" * 255],
    ids=["255", "254 of UTF-8", "two of 255"],
)
def test_names_of_255_bytes_are_held(destination: LocalStorage, key: bytes) -> None:
    put(destination, key, b"content")
    assert keys_of(destination) == [key]
    assert content_of(destination, key) == b"content"


@pytest.mark.parametrize(
    "key",
    [
        b"n" * 256,
        b"n" * 256 + b"/file",
        b"d/" + b"n" * 256,
        b"n" * 256 + b"/",
        b"/".join([b"n" * 250] * 17),
        b"/".join([b"n" * 250] * 17) + b"/",
        b"a\0b",
        b"d/../../outside",
    ],
    ids=["name", "directory", "below", "marker", "path", "path of a marker", "NUL", "outside"],
)
def test_what_is_no_path_is_refused(root: Path, destination: LocalStorage, key: bytes) -> None:
    with pytest.raises(ObjectError) as error:
        put(destination, key, b"" if key.endswith(b"/") else b"content")
    assert error.value.kind == "key"
    assert staged(root) == []
    assert not (root.parent / "outside").exists()


def untouched() -> Iterator[memoryview]:
    """Content that nobody may ask for."""
    raise AssertionError("it took a chunk")
    yield


def test_a_directory_with_content_is_refused(root: Path, destination: LocalStorage) -> None:
    with pytest.raises(ObjectError, match="content"):
        destination.write(b"d/", untouched(), 3, Meta())
    assert list(destination.list(EVERYTHING)) == []


def test_new_files_and_directories_respect_the_umask(root: Path) -> None:
    before = os.umask(0o027)
    try:
        storage = opened(root, destination=True)
        put(storage, b"d/plain", b"content")
        put(storage, b"d/moded", b"content", Meta(mode=0o666))
        assert (root / "d").stat().st_mode & 0o7777 == 0o750
        assert (root / "d" / "plain").stat().st_mode & 0o7777 == 0o640
        assert (root / "d" / "moded").stat().st_mode & 0o7777 == 0o666
    finally:
        os.umask(before)


def test_a_file_is_not_open_to_others_before_it_has_its_mode(
    root: Path, destination: LocalStorage
) -> None:
    seen = []

    def looking() -> Iterator[memoryview]:
        for chunk in chunks_of(b"secret"):
            (name,) = staged(root)
            seen.append((root / Options().staging / name).stat().st_mode & 0o7777)
            yield chunk

    destination.write(b"file", looking(), 6, Meta(mode=0o400))
    assert seen == [0o600]
    assert (root / "file").stat().st_mode & 0o7777 == 0o400


@as_root
def test_owner_mode_and_time_are_kept(root: Path, destination: LocalStorage) -> None:
    meta = Meta(mtime_ns=1_234_567_890_123_456_789, mode=0o6755, uid=1234, gid=2345)
    put(destination, b"d/file", b"content", meta)
    status = (root / "d" / "file").stat()
    assert (status.st_uid, status.st_gid) == (1234, 2345)
    assert status.st_mode & 0o7777 == 0o6755
    assert status.st_mtime_ns == 1_234_567_890_123_456_789
    with destination.read(destination.stat(b"d/file")) as body:
        assert body.meta == meta


@as_root
def test_owner_mode_and_time_of_an_upload_are_kept(root: Path, destination: LocalStorage) -> None:
    meta = Meta(mtime_ns=1_234_567_890_123_456_789, mode=0o640, uid=1234, gid=2345)
    upload = destination.begin_upload(b"file", Entry(b"file", 3, 1, 1), meta)
    send_part(destination, b"file", upload, 1, b"abc")
    destination.complete(b"file", upload, [], meta)
    with destination.read(destination.stat(b"file")) as body:
        assert body.meta == meta
        assert destination.stat(b"file").mtime_ns == meta.mtime_ns


def full(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_stops_the_run_and_leaves_nothing_staged(
    root: Path, destination: LocalStorage, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    make(root, "file")
    real, calls = os.write, []

    def failing(fd: int, data: memoryview) -> int:
        calls.append(len(data))
        if len(calls) == 3:
            raise OSError(number, os.strerror(number))
        return real(fd, data[: 1 + len(data) // 2])  # short writes, as near a full disk

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", failing)
        with pytest.raises(StorageFull, match="room"):
            put(destination, b"file", bytes(1000), size=100)
    assert len(calls) == 3
    assert staged(root) == []
    assert (root / "file").read_bytes() == b"file"
    content = bytes(range(250)) * 4
    put(destination, b"file", content)
    assert (root / "file").read_bytes() == content


@contextlib.contextmanager
def disk(path: Path, size: str) -> Iterator[None]:
    """Mounts a small file system of its own on an empty directory; skips where that is not allowed.

    Not below pytest's directories, which another session tidies up.
    """
    path.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("not allowed to mount here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@as_root
def test_a_disk_that_is_really_full_stops_the_run() -> None:
    with tempfile.TemporaryDirectory() as name, disk(small := Path(name) / "small", "256k"):
        storage = opened(small, destination=True)
        storage.prepare()
        put(storage, b"fits", bytes(100_000))
        with pytest.raises(StorageFull):
            put(storage, b"does-not", bytes(1_000_000))
        assert staged(small) == []
        assert keys_of(storage) == [b"fits"]
        upload = storage.begin_upload(b"large", Entry(b"large", 1_000_000, 1, 1), Meta())
        with pytest.raises(StorageFull):
            send_part(storage, b"large", upload, 1, bytes(1_000_000))
        storage.abort(b"large", upload.upload_id)
        put(storage, b"fits-too", bytes(100_000))
        storage.sync()


def test_much_that_is_written_is_on_its_way_to_the_disk_before_the_flush(
    destination: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    advised: list[tuple[int, int, int]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda _, *advice: advised.append(advice))
    put(destination, b"small", bytes(MUCH - 1), size=MUCH)
    assert advised == []
    put(destination, b"file", bytes(MUCH + 5), size=MUCH)
    entry = Entry(b"large", 3 * MUCH, 1, 1)
    begun = destination.begin_upload(b"large", entry, Meta())
    upload = Upload(entry, begun.upload_id, MUCH)
    send_part(destination, b"large", upload, 2, bytes(3 * MUCH))
    assert advised == [
        (0, MUCH + 5, os.POSIX_FADV_DONTNEED),
        (MUCH, MUCH, os.POSIX_FADV_DONTNEED),
    ]


def test_a_part_on_a_full_disk_stops_the_run_and_can_be_sent_later(
    root: Path, destination: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = Upload(Entry(b"file", 10, 1, 1), "", 6)
    begun = destination.begin_upload(b"file", upload.entry, Meta())
    upload = Upload(upload.entry, begun.upload_id, 6)
    send_part(destination, b"file", upload, 2, b"0123456789")
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(StorageFull):
            send_part(destination, b"file", upload, 1, b"0123456789")
    send_part(destination, b"file", upload, 1, b"0123456789")
    destination.complete(b"file", upload, [], Meta(mtime_ns=5))
    assert (root / "file").read_bytes() == b"0123456789"


@pytest.mark.parametrize("function", ["rename", "fchmod", "utime", "mkdir"])
def test_a_write_that_fails_at_its_end_leaves_nothing_staged(
    root: Path, destination: LocalStorage, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patch:
        patch.setattr(os, function, failing)
        with pytest.raises(ObjectError) as error:
            put(destination, b"d/file", b"content", Meta(mtime_ns=1, mode=0o600))
    assert error.value.kind == "denied"
    assert staged(root) == []
    assert [key for key in keys_of(destination) if key != b"d/"] == []


@pytest.mark.parametrize(
    "number",
    [
        errno.EROFS, errno.EIO, errno.EMFILE, errno.ENOTCONN, errno.ESTALE, errno.ENODEV,
        errno.ENXIO, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ESHUTDOWN, errno.EUCLEAN, errno.ENOMEM,
    ],
)  # fmt: skip
def test_what_is_no_fault_of_the_object_stops_the_run(
    destination: LocalStorage, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def failing(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "write", failing)
    with pytest.raises(AdsmigError) as error:
        put(destination, b"file", b"content")
    assert not isinstance(error.value, (ObjectError, NotFound))
    assert os.strerror(number) in str(error.value)


def test_a_staging_directory_that_vanishes_is_made_again(
    root: Path, destination: LocalStorage
) -> None:
    destination.tidy()
    assert os.listdir(root) == []
    put(destination, b"file", b"content")
    assert (root / "file").read_bytes() == b"content"


def test_a_staging_directory_that_vanishes_midway_is_one_of_our_errors(
    root: Path, destination: LocalStorage
) -> None:
    def vanishing() -> Iterator[memoryview]:
        yield memoryview(b"con")
        destination.tidy()
        yield memoryview(b"tent")

    with pytest.raises(AdsmigError):
        destination.write(b"file", vanishing(), 7, Meta())
    assert keys_of(destination) == []


def test_a_root_that_vanishes_midway_is_one_of_our_errors(
    root: Path, destination: LocalStorage
) -> None:
    def vanishing() -> Iterator[memoryview]:
        yield memoryview(b"content")
        shutil.rmtree(root)

    with pytest.raises(AdsmigError):
        destination.write(b"d/file", vanishing(), 7, Meta())


def test_a_root_that_is_another_than_it_was_is_an_error(root: Path) -> None:
    """As a file system is that was unmounted: empty, and the wrong place to write to."""
    make(root, "a")
    identity = opened(root).identity()
    options = replace(Options(), identities=(identity, identity))
    where = uri.parse(str(root))
    source, destination = LocalStorage(where, options), LocalStorage(where, options, True)
    put(destination, b"b", b"content")
    assert keys_of(destination) == [b"a", b"b"]
    destination.sync()
    root.rename(root.parent / "elsewhere")
    root.mkdir()
    for listing in (source.list(EVERYTHING), destination.list(EVERYTHING)):
        with pytest.raises(AdsmigError, match="no longer"):
            list(listing)
    with pytest.raises(AdsmigError, match="no longer"):
        destination.sync()
    with pytest.raises(AdsmigError, match="no longer"):
        put(LocalStorage(where, options, True), b"c", b"content")
    assert os.listdir(root) == []


@as_root
def test_a_file_crosses_into_a_file_system_mounted_below() -> None:
    with tempfile.TemporaryDirectory() as name, disk((root := Path(name)) / "mounted", "1m"):
        destination = opened(root, destination=True)
        meta = Meta(mtime_ns=1_234_567_890_123_456_789, mode=0o640, uid=1234, gid=2345)
        put(destination, b"mounted/d/file", b"content", meta)
        assert keys_of(destination) == [b"mounted/d/file"]
        with destination.read(destination.stat(b"mounted/d/file")) as body:
            assert body.meta == meta
        assert staged(root) == []
        with pytest.raises(StorageFull):
            put(destination, b"mounted/large", bytes(2_000_000))
        assert keys_of(destination) == [b"mounted/d/file"]
        assert staged(root) == []


@pytest.mark.parametrize("above", ["", "d/e/"])
def test_a_source_that_holds_its_destination_is_not_listed(root: Path, above: str) -> None:
    make(root, "a", f"{above}.adsmig-test/staged", f"{above}b")
    own = LocalStorage(uri.parse(str(root)), Options())
    with pytest.raises(UsageError, match=f"the destination lies within .*/root/{above}:"):
        list(own.list(EVERYTHING))
    if above:  # what is left out is not looked into
        assert [one.key for one in own.list(EVERYTHING, lambda key: key == b"d/")] == [b"a"]
    else:  # as by who leaves out all that is hidden
        with pytest.raises(UsageError):
            list(own.list(EVERYTHING, lambda key: key == b".adsmig-test/"))


def test_staging_directories_belong_to_no_destination(
    root: Path, source: LocalStorage, destination: LocalStorage
) -> None:
    make(root, "a", ".adsmig-test/left-by-a-killed-run", ".adsmig-other/file", "d/.adsmig-x/file")
    assert keys_of(destination) == [b"a", b"d/.adsmig-x/file"]
    assert len(keys_of(source)) == 4
    for key in (b".adsmig-test/x", b".adsmig-other/file", b".adsmig-new", b".adsmig-/"):
        with pytest.raises(ObjectError) as error:
            put(destination, key)
        assert error.value.kind == "key"
    put(destination, b"d/.adsmig-x/file", b"content")
    destination.tidy()
    assert sorted(os.listdir(root)) == [".adsmig-other", "a", "d"]


def test_one_run_at_a_time_writes_to_a_destination(root: Path) -> None:
    one, other = opened(root, destination=True), opened(root, destination=True)
    one.prepare()
    with pytest.raises(AdsmigError, match="another run"):
        other.prepare()
    one.prepare()  # its own lock is no hindrance
    del one
    gc.collect()
    other.prepare()


def test_prepare_makes_a_destination_and_never_a_source(root: Path) -> None:
    opened(root / "d" / "new", destination=True).prepare()
    assert (root / "d" / "new").is_dir()
    with pytest.raises(AdsmigError):
        opened(root / "missing").prepare()
    assert not (root / "missing").exists()
    make(root, "file")
    with pytest.raises(AdsmigError):
        opened(root / "file", destination=True).prepare()


@pytest.mark.parametrize("closing", ["abort", "complete"])
def test_a_staged_upload_has_its_full_size_and_is_gone_in_the_end(
    root: Path, destination: LocalStorage, closing: str
) -> None:
    upload = destination.begin_upload(b"d/file", Entry(b"d/file", 1000, 1, 1), Meta())
    (name,) = staged(root)
    assert (root / Options().staging / name).stat().st_size == 1000
    assert keys_of(destination) == []
    if closing == "abort":
        destination.abort(b"d/file", upload.upload_id)
    else:
        send_part(destination, b"d/file", upload, 1, bytes(1000))
        destination.complete(b"d/file", upload, [], Meta())
        assert content_of(destination, b"d/file") == bytes(1000)
    assert staged(root) == []


def test_a_staged_file_of_another_size_is_not_completed(
    root: Path, destination: LocalStorage
) -> None:
    upload = destination.begin_upload(b"file", Entry(b"file", 1000, 1, 1), Meta())
    (name,) = staged(root)
    os.truncate(root / Options().staging / name, 999)
    with pytest.raises(NotFound):
        destination.complete(b"file", upload, [], Meta())
    assert keys_of(destination) == []


def test_a_file_below_a_file_is_refused_before_its_content_is_taken(
    root: Path, destination: LocalStorage
) -> None:
    make(root, "a")
    for key in (b"a/b", b"a/b/c", b"/".join([b"n" * 250] * 17)):
        with pytest.raises(ObjectError) as error:
            destination.write(key, untouched(), 7, Meta())
        assert error.value.kind == "key"


def test_a_path_that_is_too_long_leaves_no_directories_behind(
    root: Path, destination: LocalStorage
) -> None:
    for end in (b"", b"/"):
        with pytest.raises(ObjectError):
            put(destination, b"/".join([b"n" * 250] * 17) + end)
    assert os.listdir(root) == [Options().staging]


def test_an_upload_begun_again_by_another_process_leaves_no_stray(
    root: Path, destination: LocalStorage
) -> None:
    entry = Entry(b"file", 10, 1, 1)
    opened(root, destination=True).begin_upload(b"file", entry, Meta())
    other = opened(root, destination=True).begin_upload(b"other", entry, Meta())
    assert len(staged(root)) == 2
    upload = destination.begin_upload(b"file", entry, Meta())
    assert len(staged(root)) == 2
    for key, one in ((b"file", upload), (b"other", other)):
        part = send_part(destination, key, one, 1, b"0123456789")
        destination.complete(key, one, [part], Meta(mtime_ns=1))
    assert staged(root) == []


@pytest.mark.parametrize("destination", [False, True])
def test_problem_tells_what_a_write_refuses_without_looking(
    tmp_path: Path, destination: bool
) -> None:
    storage = opened(tmp_path / "nowhere", destination)
    fine = [b"a", b"d/e/f", b"d/", b"n" * 255, b"\xff", b"a\nb", b" ", b"..a", b"d/.adsmig-x", b""]
    wrong = [b"/", b"/a", b"a//b", b"d//", b".", b"a/./b", b"../x", b"x/..", b"n" * 256, b"a\0b"]
    wrong += [b"n" * 256 + b"/", b"/".join([b"n" * 250] * 17)]
    staging = [b".adsmig-test/x", b".adsmig-"]
    assert [storage.problem(key) for key in fine] == [""] * len(fine)
    for key in wrong + staging * destination:
        reason = storage.problem(key)
        assert reason
        assert "\n" not in reason
        with pytest.raises(ObjectError) as error:
            put(storage, key)
        assert (error.value.kind, str(error.value)) == ("key", reason)
    if not destination:
        assert [storage.problem(key) for key in staging] == ["", ""]
    assert not (tmp_path / "nowhere").exists()


def test_a_source_is_prepared_only_while_it_is_the_directory_that_it_was(root: Path) -> None:
    make(root, "a")
    options = replace(Options(), identities=(opened(root).identity(), None))
    source = LocalStorage(uri.parse(str(root)), options)
    source.prepare()
    root.rename(root.parent / "elsewhere")
    with pytest.raises(AdsmigError, match="cannot read"):
        source.prepare()
    root.mkdir()
    with pytest.raises(AdsmigError, match="no longer"):
        source.prepare()
    opened(root).prepare()


# Directories


@as_root
@pytest.mark.parametrize("links", ["follow", "copy"])
def test_an_empty_directory_keeps_mode_owner_and_time(root: Path, links: str) -> None:
    meta = Meta(mtime_ns=1_234_567_890_123_456_789, mode=0o2750, uid=1234, gid=2345)
    destination = opened(root, destination=True, links=links)
    for _ in range(2):
        put(destination, b"d/e/", meta=meta)
        entry = by_key(destination)[b"d/e/"]
        assert entry.mtime_ns == meta.mtime_ns
        with destination.read(entry) as body:
            assert (body.meta, body.md5, drain(body)) == (meta, None, b"")
        assert destination.meta(entry) == meta
        os.chmod(root / "d" / "e", 0o700)
    assert (root / "d").stat().st_mode & 0o7777 == 0o777 & ~umask()


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_directory_without_meta_is_made_as_the_umask_says(
    root: Path, destination: LocalStorage
) -> None:
    put(destination, b"d/")
    assert (root / "d").stat().st_mode & 0o7777 == 0o777 & ~umask()
    age(root / "d")
    before = (root / "d").stat()
    put(destination, b"d/")
    assert (root / "d").stat() == before


def test_a_marker_at_the_root_changes_nothing_about_it(
    root: Path, destination: LocalStorage
) -> None:
    root.chmod(0o711)
    put(destination, b"", meta=Meta(mtime_ns=1, mode=0o700))
    assert root.stat().st_mode & 0o7777 == 0o711
    assert root.stat().st_mtime_ns != 1


def test_a_directory_that_is_gone_or_no_directory_any_more_is_a_changed_source(
    root: Path, source: LocalStorage
) -> None:
    make(root, "d/")
    entry = source.stat(b"d/")
    make(root, "d/new")
    assert source.meta(entry).mtime_ns == (root / "d").stat().st_mtime_ns
    shutil.rmtree(root / "d")
    for _ in range(2):
        with pytest.raises(SourceChanged):
            source.read(entry)
        with pytest.raises(SourceChanged):
            source.meta(entry)
        make(root, "d")


@as_root
@pytest.mark.parametrize("links", ["follow", "copy"])
def test_a_directory_with_content_is_given_its_meta_in_the_end(root: Path, links: str) -> None:
    destination = opened(root, destination=True, links=links)
    meta = Meta(mtime_ns=1_234_567_890_123_456_789, mode=0o555, uid=1234, gid=2345)
    put(destination, b"d/e/file", b"content")
    destination.set_directory_meta(b"d/e/", meta)
    destination.set_directory_meta(b"d/", meta)
    assert destination.meta(destination.stat(b"d/e/")) == meta
    assert destination.meta(destination.stat(b"d/")) == meta
    destination.set_directory_meta(b"d/", Meta(mode=0o700))
    assert destination.meta(destination.stat(b"d/")) == replace(meta, mode=0o700)
    destination.set_directory_meta(b"missing/", meta)
    destination.set_directory_meta(b"missing/too/", meta)
    assert not (root / "missing").exists()


@pytest.mark.parametrize("links", ["follow", "copy"])
def test_what_is_no_directory_gets_no_meta_of_one(root: Path, links: str) -> None:
    destination = opened(root, destination=True, links=links)
    make(root, "file")
    before = (root / "file").stat()
    for key in (b"file/", b"../x/", b".adsmig-test/"):
        with pytest.raises(ObjectError):
            destination.set_directory_meta(key, Meta(mtime_ns=1, mode=0o700))
    assert (root / "file").stat() == before


def test_a_directory_that_refuses_its_meta_is_a_failure(
    destination: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(*_: object, **__: object) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    put(destination, b"d/")
    monkeypatch.setattr(os, "fchmod", refusing)
    for act in (destination.set_directory_meta, lambda key, meta: put(destination, key, b"", meta)):
        with pytest.raises(ObjectError) as error:
            act(b"d/", Meta(mode=0o700))
        assert error.value.kind == "denied"


@pytest.fixture
def unkept(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A file system that keeps neither owners nor permissions, and says so with an errno."""

    def refusing(*_: object, **__: object) -> None:
        raise OSError(request.param, os.strerror(request.param))

    for function in ("chown", "fchown", "fchmod"):
        monkeypatch.setattr(os, function, refusing)
    localfile.tell_unkept.cache_clear()


@as_root
@pytest.mark.parametrize("unkept", [errno.EPERM, errno.EINVAL, errno.ENOTSUP], indirect=True)
@pytest.mark.usefixtures("unkept")
def test_an_owner_or_a_mode_that_cannot_be_kept_is_a_warning(
    root: Path, destination: LocalStorage, caplog: pytest.LogCaptureFixture
) -> None:
    meta = Meta(mtime_ns=1_234_567_890_123_456_789, mode=0o4755, uid=1234, gid=2345)
    for key in (b"d/one", b"d/two"):
        put(destination, key, b"content", meta)
        assert content_of(destination, key) == b"content"
    destination.write_link(b"d/link", b"one", meta)
    destination.set_directory_meta(b"d/", meta)
    upload = destination.begin_upload(b"large", Entry(b"large", 5, 1, 1), meta)
    send_part(destination, b"large", upload, 1, b"large")
    destination.complete(b"large", upload, [], meta)
    for name in ("d", "d/one", "d/two", "d/link", "large"):
        assert os.lstat(root / name).st_mtime_ns == meta.mtime_ns
    assert [message.split(" cannot")[0] for message in caplog.messages] == ["owners", "permissions"]
    assert all("--noperms" in message for message in caplog.messages)


@as_root
def test_who_is_given_no_file_gets_no_set_id_bits_with_it(
    root: Path, destination: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    put(destination, b"good", b"x", Meta(mode=0o6755, uid=1234, gid=2345))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fchown", refusing)
        put(destination, b"refused", b"x", Meta(mode=0o6755, uid=1234, gid=2345))
        put(destination, b"d/")
        destination.set_directory_meta(b"d/", Meta(mode=0o3755, uid=1234, gid=2345))
        put(destination, b"own", b"x", Meta(mode=0o6755, uid=0, gid=0))
    modes = {name: (root / name).stat().st_mode & 0o7777 for name in os.listdir(root)}
    del modes[Options.staging]
    assert modes == {"good": 0o6755, "refused": 0o755, "d": 0o3755, "own": 0o6755}


@as_root
def test_who_is_not_root_makes_no_program_of_anothers_his_own_for_all_to_run() -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o777)
        os.seteuid(65534)
        try:
            destination = opened(root, destination=True)
            destination.prepare()
            put(destination, b"theirs", b"x", Meta(mode=0o4755, uid=0, gid=os.getegid()))
            put(destination, b"mine", b"x", Meta(mode=0o4755, uid=65534, gid=os.getegid()))
        finally:
            os.seteuid(0)
        modes = [(root / one).stat().st_mode & 0o7777 for one in ("theirs", "mine")]
        assert modes == [0o755, 0o4755]


@as_root
def test_anothers_directory_that_is_as_it_should_be_is_left_alone() -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        make(root, "d/")
        os.utime(root / "d", ns=(1, 1))
        os.seteuid(65534)
        try:
            destination = opened(root, destination=True)
            there = destination.meta(destination.stat(b"d/"))
            put(destination, b"d/", meta=there)
            with pytest.raises(ObjectError) as error:
                put(destination, b"d/", meta=replace(there, mode=0o700))
        finally:
            os.seteuid(0)
    assert error.value.kind == "denied"


@contextlib.contextmanager
def as_nobody() -> Iterator[Path]:
    """A directory of the user nobody, who is at work."""
    with tempfile.TemporaryDirectory() as name:
        os.chown(name, 65534, 65534)
        os.seteuid(65534)
        try:
            yield Path(name)
        finally:
            os.seteuid(0)


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o7777


@as_root
def test_what_an_earlier_run_made_read_only_is_written_to_and_stays_so() -> None:
    with as_nobody() as root:
        destination = opened(root, destination=True, links="copy")
        destination.prepare()
        put(destination, b"d/old", b"old")
        destination.set_directory_meta(b"d/", Meta(mode=0o555))
        put(destination, b"d/old", b"content")
        put(destination, b"d/new", b"content")
        put(destination, b"d/e/deep", b"content")
        destination.write_link(b"d/link", b"old", Meta())
        upload = destination.begin_upload(b"d/large", Entry(b"d/large", 5, 1, 1), Meta())
        send_part(destination, b"d/large", upload, 1, b"large")
        destination.complete(b"d/large", upload, [], Meta())
        files = [b"d/e/deep", b"d/large", b"d/link", b"d/new", b"d/old"]
        assert keys_of(destination) == files
        assert content_of(destination, b"d/old") == b"content"
        assert mode_of(root / "d") == 0o555
        assert destination.delete([*files, b"d/e/"]) == {}
        assert os.listdir(root / "d") == []
        assert mode_of(root / "d") == 0o555


@as_root
def test_many_write_to_what_is_read_only_at_once() -> None:
    with as_nobody() as root:
        ones = [opened(root, destination=True) for _ in range(4)]  # as processes have them
        ones[0].prepare()
        put(ones[0], b"d/first")
        (root / "d").chmod(0o555)

        def write(one: LocalStorage, number: int) -> None:
            for count in range(100):
                put(one, b"d/%d-%d" % (number, count), b"content")

        with ThreadPoolExecutor(8) as pool:
            work = [pool.submit(write, ones[at % 4], at) for at in range(8)]
        assert [one.exception() for one in work] == [None] * 8
        assert len(os.listdir(root / "d")) == 801
        assert mode_of(root / "d") == 0o555


@as_root
def test_what_is_read_only_and_anothers_or_a_source_is_not_written_to() -> None:
    with as_nobody() as root:
        destination, source = opened(root, destination=True), opened(root)
        destination.prepare()
        for key in (b"mine/file", b"theirs/file"):
            put(destination, key, b"content")
        for name in ("mine", "theirs"):
            (root / name).chmod(0o555)
        os.seteuid(0)
        os.chown(root / "theirs", 0, 0)
        os.seteuid(65534)
        with pytest.raises(ObjectError) as error:
            put(destination, b"theirs/file", b"other")
        assert error.value.kind == "denied"
        assert list(destination.delete([b"theirs/file"])) == [b"theirs/file"]
        assert list(source.delete([b"mine/file"])) == [b"mine/file"]  # as rm(1) leaves it alone
        assert [mode_of(root / name) for name in ("mine", "theirs")] == [0o555] * 2
        assert content_of(source, b"theirs/file") == b"content"


# Making links


@pytest.mark.parametrize("links", ["follow", "copy"])
@pytest.mark.parametrize("target", [b"file", b"../x", b"/etc", b"nothing", b"\xff\n ", b"t" * 4000])
def test_a_link_is_made_with_its_time(root: Path, links: str, target: bytes) -> None:
    destination = opened(root, destination=True, links=links)
    destination.write_link(b"d/e/link", target, Meta(mtime_ns=1_234_567_890_123_456_789))
    assert os.readlink(os.fsencode(root / "d" / "e" / "link")) == target
    assert os.lstat(root / "d" / "e" / "link").st_mtime_ns == 1_234_567_890_123_456_789
    assert staged(root) == []
    destination.sync()
    entry = by_key(opened(root, links="copy"))[b"d/e/link"]
    assert (entry.link, entry.size, entry.mtime_ns) == (
        target, len(target), 1_234_567_890_123_456_789,
    )  # fmt: skip


@as_root
def test_a_link_has_its_owner_and_what_it_leads_to_keeps_its_own(
    root: Path, linking: LocalStorage
) -> None:
    make(root, "file")
    before = (root / "file").stat()
    linking.write_link(b"link", b"file", Meta(1, 0o600, 1234, 2345))
    status = os.lstat(root / "link")
    assert (status.st_uid, status.st_gid, status.st_mtime_ns) == (1234, 2345, 1)
    looking = opened(root, links="copy")
    assert looking.meta(looking.stat(b"link")) == Meta(1, None, 1234, 2345)
    assert (root / "file").stat() == before


def test_a_link_takes_the_place_of_a_file_or_a_link_and_a_file_that_of_a_link(
    root: Path, tmp_path: Path, linking: LocalStorage
) -> None:
    make(root, "a")
    make(tmp_path, "elsewhere/one")
    linking.write_link(b"a", os.fsencode(tmp_path / "elsewhere"), Meta())
    linking.write_link(b"a", b"b", Meta())
    assert os.readlink(root / "a") == "b"
    linking.write_link(b"a", os.fsencode(tmp_path / "elsewhere" / "one"), Meta())
    put(linking, b"a", b"content")
    assert not (root / "a").is_symlink()
    assert (root / "a").read_bytes() == b"content"
    assert (tmp_path / "elsewhere" / "one").read_bytes() == b"one"


@pytest.mark.parametrize("links", ["follow", "copy"])
@pytest.mark.parametrize("content", ["", "inner"])
def test_a_link_does_not_take_the_place_of_a_directory(
    root: Path, links: str, content: str
) -> None:
    destination = opened(root, destination=True, links=links)
    make(root, f"d/{content}")
    with pytest.raises(ObjectError, match="directory") as error:
        destination.write_link(b"d", b"target", Meta())
    assert error.value.kind == "key"
    assert os.listdir(root / "d") == [content][: bool(content)]
    assert staged(root) == []


@pytest.mark.parametrize(
    ("key", "target"),
    [(b"d/", b"x"), (b"", b"x"), (b"../x", b"x"), (b".adsmig-test/x", b"/etc"), (b"a/b", b"x"),
     (b"pipe", b"x"), (b"x", b""), (b"x", b"a\0b"), (b"x", b"t" * 4096)],
)  # fmt: skip
def test_what_is_no_link_is_refused(
    root: Path, linking: LocalStorage, key: bytes, target: bytes
) -> None:
    make(root, "a")
    os.mkfifo(root / "pipe")
    with pytest.raises(ObjectError):
        linking.write_link(key, target, Meta())
    assert sorted(os.listdir(root)) == [".adsmig-test", "a", "pipe"]
    assert staged(root) == []


@pytest.mark.parametrize("function", ["rename", "utime", "symlink", "mkdir"])
def test_a_link_that_fails_at_its_end_leaves_nothing_staged(
    root: Path, linking: LocalStorage, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    make(root, "link")

    def failing(*_: object, **__: object) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patch:
        patch.setattr(os, function, failing)
        for key in (b"link", b"new/link"):
            if function != "mkdir" or key != b"link":
                with pytest.raises(ObjectError):
                    linking.write_link(key, b"target", Meta(mtime_ns=1))
    assert staged(root) == []
    assert (root / "link").read_bytes() == b"link"
    assert not (root / "new" / "link").is_symlink()


def test_a_link_is_made_though_the_staging_directory_vanished(
    root: Path, linking: LocalStorage
) -> None:
    linking.tidy()
    linking.write_link(b"d/link", b"target", Meta())
    assert os.readlink(root / "d" / "link") == "target"


@as_root
def test_what_crosses_into_another_file_system_is_durable_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flushed = []
    monkeypatch.setattr(
        "adsmig.storage.staging.sync_file_system", lambda fd: flushed.append(os.fstat(fd).st_dev)
    )
    with tempfile.TemporaryDirectory() as name, disk((root := Path(name)) / "mounted", "1m"):
        destination = opened(root, destination=True)
        put(destination, b"file", b"content")
        assert flushed == []
        put(destination, b"mounted/file", b"content")
        assert flushed == [(root / "mounted").stat().st_dev]


@as_root
@pytest.mark.parametrize("links", ["follow", "copy"])
def test_files_and_links_cross_into_a_file_system_mounted_below(links: str) -> None:
    with tempfile.TemporaryDirectory() as name, disk((root := Path(name)) / "mounted", "1m"):
        destination = opened(root, destination=True, links=links)
        meta = Meta(mtime_ns=1_234_567_890_123_456_789, mode=0o6640, uid=1234, gid=2345)
        destination.write_link(b"mounted/link", b"target", meta)
        destination.write_link(b"mounted/d/link", b"target", meta)
        put(destination, b"mounted/d/file", b"content", meta)
        put(destination, b"mounted/e/", b"", meta)
        looking = opened(root, True, links="copy")
        assert keys_of(looking) == [
            b"mounted/d/file", b"mounted/d/link", b"mounted/e/", b"mounted/link",
        ]  # fmt: skip
        for key in (b"mounted/link", b"mounted/d/link"):
            assert looking.stat(key).link == b"target"
            assert looking.meta(looking.stat(key)) == replace(meta, mode=None)
        for key in (b"mounted/d/file", b"mounted/e/"):
            assert looking.meta(looking.stat(key)) == meta
        assert staged(root) == []
        with pytest.raises(StorageFull):
            put(destination, b"mounted/large", bytes(2_000_000))
        assert sorted(os.listdir(root / "mounted")) == ["d", "e", "link"]


# Nothing is written through a link below the root


def writes(storage: LocalStorage) -> list[Callable[[bytes], object]]:
    """Every way to write below a directory."""

    def upload(key: bytes) -> None:
        begun = storage.begin_upload(key, Entry(key, 3, 1, 1), Meta())
        part = send_part(storage, key, begun, 1, b"abc")
        storage.complete(key, begun, [part], Meta())

    return [
        lambda key: put(storage, key, b"content"),
        lambda key: put(storage, key + b"/", b"", Meta(mode=0o777)),
        lambda key: put(storage, key + b"/deeper/file", b"content"),
        lambda key: storage.write_link(key, b"target", Meta()),
        lambda key: storage.set_directory_meta(key + b"/", Meta(mode=0o777)),
        upload,
    ]


@pytest.mark.parametrize("way", range(6))
def test_nothing_is_written_below_a_link(
    root: Path, tmp_path: Path, linking: LocalStorage, way: int
) -> None:
    make(tmp_path, "elsewhere/sub/old")
    make(root, "real/")
    before = (tmp_path / "elsewhere" / "sub").stat()
    linking.write_link(b"a", os.fsencode(tmp_path / "elsewhere"), Meta())
    linking.write_link(b"real/in", b"../real", Meta())
    linking.write_link(b"real/broken", b"../nothing", Meta())
    for key in (b"a/new", b"a/sub/new", b"a/sub", b"real/in/new", b"real/broken/new"):
        with pytest.raises(ObjectError) as error:
            writes(linking)[way](key)
        assert "symbolic link" in str(error.value)
        assert error.value.kind == "link"
    assert sorted(os.listdir(tmp_path / "elsewhere")) == ["sub"]
    assert sorted(os.listdir(root / "real")) == ["broken", "in"]
    assert not (root / "nothing").exists()
    assert (tmp_path / "elsewhere" / "sub").stat() == before
    assert staged(root) == []


def test_a_directory_that_is_a_link_gets_no_meta(
    root: Path, tmp_path: Path, linking: LocalStorage
) -> None:
    make(tmp_path, "elsewhere/")
    linking.write_link(b"a", os.fsencode(tmp_path / "elsewhere"), Meta())
    before = (tmp_path / "elsewhere").stat()
    for write in (linking.set_directory_meta, lambda key, meta: put(linking, key, b"", meta)):
        with pytest.raises(ObjectError):
            write(b"a/", Meta(mtime_ns=1, mode=0o777))
    assert (tmp_path / "elsewhere").stat() == before


def test_a_key_below_a_link_is_refused_before_its_content_is_taken(
    tmp_path: Path, linking: LocalStorage
) -> None:
    linking.write_link(b"a", os.fsencode(tmp_path), Meta())
    with pytest.raises(ObjectError) as error:
        linking.write(b"a/file", untouched(), 7, Meta())
    assert error.value.kind == "link"


def test_a_link_that_appears_while_a_file_is_written_is_not_written_through(
    root: Path, tmp_path: Path, linking: LocalStorage
) -> None:
    make(tmp_path, "elsewhere/")
    make(root, "there/")

    def meddling() -> Iterator[memoryview]:
        yield memoryview(b"con")
        linking.write_link(b"new", os.fsencode(tmp_path / "elsewhere"), Meta())
        linking.delete([b"there/"])
        linking.write_link(b"there", os.fsencode(tmp_path / "elsewhere"), Meta())
        yield memoryview(b"tent")

    for key in (b"new/file", b"there/file"):
        with pytest.raises(ObjectError) as error:
            linking.write(key, meddling(), 7, Meta())
        assert error.value.kind == "link"
        (root / "new").unlink()
        (root / "there").unlink()
        make(root, "there/")
    assert os.listdir(tmp_path / "elsewhere") == []
    assert staged(root) == []


def test_the_root_itself_may_be_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    storage = opened(tmp_path / "link", destination=True)
    storage.prepare()
    put(storage, b"d/file", b"content")
    assert (root / "d" / "file").read_bytes() == b"content"


# Deleting


SIDES = [("follow", False), ("follow", True), ("copy", False), ("copy", True), ("record", False)]


@pytest.fixture(params=SIDES, ids=lambda side: f"{side[0]}-{('source', 'destination')[side[1]]}")
def deleting(root: Path, request: pytest.FixtureRequest) -> LocalStorage:
    """A storage to delete from, for every treatment of links and on both sides."""
    links, destination = request.param
    return opened(root, destination, links)


def test_deleting_tells_of_nothing_when_all_went_well(root: Path, deleting: LocalStorage) -> None:
    make(root, "a", "d/a", "d/b", "e/", "f/g/h/i", "z")
    os.mkfifo(root / "pipe")
    (root / "broken").symlink_to("nothing")
    keys = [b"a", b"missing", b"missing/too", b"a/below", b"d/a", b"e/", b"z/", b"", b"pipe", b"a"]
    assert deleting.delete([*keys, b"broken"]) == {}
    assert sorted(os.listdir(root)) == ["d", "f", "z"]
    assert os.listdir(root / "d") == ["b"]


def test_a_directory_with_content_stays_and_is_no_error(root: Path, deleting: LocalStorage) -> None:
    make(root, "d/a", "d/b")
    assert deleting.delete([b"d/"]) == {}
    assert deleting.delete([b"d/a", b"d/"]) == {}
    assert os.listdir(root / "d") == ["b"]


def test_directories_are_removed_after_what_is_in_them_in_whatever_order_they_come(
    root: Path, deleting: LocalStorage
) -> None:
    keys = [b"d/", b"d/a", b"d/e/", b"d/e/f", b"d/e-/", b"d/e-/x", b"d/g/", b"z"]
    for order in (keys, keys[::-1], sorted(keys, key=len)):
        make(root, *keys)
        assert deleting.delete(order) == {}
        assert [name for name in os.listdir(root) if not name.startswith(".")] == []


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.EIO])
@pytest.mark.parametrize("function", ["unlink", "rmdir"])
def test_what_cannot_be_removed_is_told_with_the_reason(
    root: Path,
    destination: LocalStorage,
    monkeypatch: pytest.MonkeyPatch,
    function: str,
    number: int,
) -> None:
    make(root, "d/a", "d/e/", "d/stays", "d/stays-/", "z")
    real = getattr(os, function)

    def refusing(path: bytes, **options: int) -> None:
        if path in (b"stays", b"stays-"):
            raise OSError(number, os.strerror(number), path)
        real(path, **options)

    stays = b"d/stays" if function == "unlink" else b"d/stays-/"
    with monkeypatch.context() as patch:
        patch.setattr(os, function, refusing)
        reasons = destination.delete([b"d/a", b"d/e/", b"d/stays", b"d/stays-/", b"z"])
    assert list(reasons) == [stays]
    assert os.strerror(number) in reasons[stays]
    assert "\n" not in reasons[stays]
    assert keys_of(destination) == [stays]


def test_a_file_that_became_a_directory_is_gone_and_the_directory_stays(
    root: Path, deleting: LocalStorage
) -> None:
    make(root, "d/a", "e/")
    assert deleting.delete([b"d", b"e"]) == {}
    assert sorted(os.listdir(root)) == ["d", "e"]


@as_root
def test_deleting_without_leave_or_on_a_mount_point_is_told() -> None:
    with tempfile.TemporaryDirectory() as name, disk((root := Path(name)) / "mounted", "1m"):
        root.chmod(0o755)
        make(root, "d/a", "e/b", "open/c")
        (root / "open").chmod(0o777)
        (root / "e").chmod(0)
        os.seteuid(65534)
        try:
            reasons = opened(root).delete([b"d/a", b"e/b", b"open/c", b"e/", b"missing"])
        finally:
            os.seteuid(0)
        assert sorted(reasons) == [b"d/a", b"e/", b"e/b"]
        assert all(os.strerror(errno.EACCES) in reason for reason in reasons.values())
        assert (root / "d" / "a").exists()
        assert os.listdir(root / "open") == []
        (reason,) = opened(root).delete([b"mounted/"]).values()
        assert os.strerror(errno.EBUSY) in reason


def test_deleting_what_is_no_key_is_told(root: Path, deleting: LocalStorage) -> None:
    make(root.parent, "outside")
    make(root, "a", ".adsmig-other/file")
    wrong = [b"../outside", b"..", b"./a", b"a//b", b"/a", b"n" * 256, b"a\0b", b"d/../../outside"]
    staging = [b".adsmig-other/file", b".adsmig-other/"] * deleting.destination
    reasons = deleting.delete([*wrong, *staging])
    assert list(reasons) == [*wrong, *staging]
    assert all(reasons[key] == deleting.problem(key) for key in reasons)
    assert (root.parent / "outside").exists()
    assert sorted(os.listdir(root)) == [".adsmig-other", "a"]


def test_nothing_is_deleted_behind_a_link(
    root: Path, tmp_path: Path, deleting: LocalStorage
) -> None:
    make(tmp_path, "elsewhere/file", "elsewhere/sub/file", "elsewhere/empty/")
    make(root, "d/file", "d/empty/", "z")
    (root / "out").symlink_to(tmp_path / "elsewhere")
    (root / "inside").symlink_to("d")
    behind = [b"out/file", b"out/sub/file", b"out/empty/", b"out/sub/", b"inside/file"]
    behind.append(b"inside/empty/")
    reasons = deleting.delete([*behind, b"out/missing", b"inside/missing/", b"out/sub/missing"])
    assert reasons == dict.fromkeys(behind, "it lies behind a symbolic link")
    assert sorted(os.listdir(tmp_path / "elsewhere")) == ["empty", "file", "sub"]
    assert sorted(os.listdir(root / "d")) == ["empty", "file"]


@pytest.mark.parametrize("content", ["", "file"])
def test_a_link_to_a_directory_is_no_directory_to_delete(
    root: Path, tmp_path: Path, deleting: LocalStorage, content: str
) -> None:
    make(tmp_path, f"elsewhere/{content}")
    make(root, "file")
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (root / "broken").symlink_to("nothing")
    (root / "to-file").symlink_to("file")
    reasons = deleting.delete([b"link/", b"broken/", b"to-file/"])
    assert reasons == {b"link/": "it is a symbolic link to a directory"}
    assert (root / "link").is_symlink()
    assert os.listdir(tmp_path / "elsewhere") == [content][: bool(content)]


def test_deleting_a_link_leaves_what_it_leads_to(
    root: Path, tmp_path: Path, deleting: LocalStorage
) -> None:
    make(tmp_path, "elsewhere/file")
    (root / "file").symlink_to(tmp_path / "elsewhere" / "file")
    (root / "directory").symlink_to(tmp_path / "elsewhere")
    assert deleting.delete([b"file", b"directory"]) == {}
    assert [name for name in os.listdir(root) if not name.startswith(".")] == []
    assert os.listdir(tmp_path / "elsewhere") == ["file"]


def test_nothing_is_deleted_in_a_root_that_is_another_than_it_was(root: Path) -> None:
    make(root, "a")
    identity = opened(root).identity()
    options = replace(Options(), identities=(identity, identity))
    sides = [LocalStorage(uri.parse(str(root)), options, side) for side in (False, True)]
    assert [side.delete([b"missing"]) for side in sides] == [{}, {}]
    root.rename(root.parent / "elsewhere")
    make(root, "a")
    for side in sides:
        with pytest.raises(AdsmigError, match="no longer"):
            side.delete([b"a"])
    assert (root / "a").exists()
    assert (root.parent / "elsewhere" / "a").exists()


def test_no_directory_stays_open_when_links_are_copied(root: Path, linking: LocalStorage) -> None:
    make(root, "a/b/c/file", "file")
    before = 0
    for number in range(4):
        put(linking, b"a/b/c/new", b"content")
        linking.write_link(b"a/b/link", b"/etc", Meta(1, None, 0, 0))
        put(linking, b"a/b/d/", b"", Meta(mode=0o700))
        for key in (b"a/b/link/file", b"file/x", b"a/b"):
            with pytest.raises(ObjectError):
                put(linking, key, b"content")
        keys = [b"a/b/link/passwd", b"a/b/c/new", b"a/b/link", b"missing/x", b"file/x", b"a/b/d/"]
        assert list(linking.delete(keys)) == [b"a/b/link/passwd"]
        gc.collect()
        if not number:
            before = len(os.listdir("/proc/self/fd"))
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_range_that_begins_at_a_directory_that_cannot_be_listed_tells_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slice before may have ended there, and have told; or have come before it was so."""
    for name in ("a/x", "b/x", "c/x"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("x")
    scandir = os.scandir

    def refuse(path: object) -> object:
        if isinstance(path, bytes) and path.rstrip(b"/").endswith(b"/b"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(path)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "scandir", refuse)
    storage = LocalStorage(uri.parse(f"{tmp_path}/"), Options())
    found = [(entry.key, bool(entry.problem)) for entry in storage.list(KeyRange(b"b/"))]
    assert found == [(b"b/", True), (b"c/", False), (b"c/x", False)]
