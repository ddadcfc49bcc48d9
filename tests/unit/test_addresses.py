"""Files and directories told apart, as SPEC's table says; nothing is changed by looking."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from adsmig import addresses
from adsmig.addresses import Places, resolve
from adsmig.errors import NotFound, ObjectError, UsageError
from adsmig.location import Location
from adsmig.model import Entry
from adsmig.uri import parse

SETTINGS: Any = SimpleNamespace(
    connect_timeout_s=1, read_timeout_s=1, staging=".adsmig-x", by_directory=False
)
STORE = "minio://ak:sk@h:1/b"


class Store:
    """An object store that is asked for single objects, and nothing else."""

    def __init__(self, *objects: bytes) -> None:
        self.objects = objects
        self.asked: list[bytes] = []

    def open(self, location: Location, settings: object, destination: bool = False) -> Any:
        assert settings is SETTINGS
        assert not destination
        return SimpleNamespace(stat=lambda key: self.stat(location.path + key))

    def stat(self, full: bytes) -> Entry:
        self.asked.append(full)
        if full == b"forbidden":
            raise ObjectError("denied", "h answered HEAD with AccessDenied")
        if full not in self.objects:
            raise NotFound("no such object")
        return Entry(full, 1, None, 0)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    store = Store(b"one", b"dir/two", b"dir", b"odd//", b"d//x", b".", b"d/..")
    monkeypatch.setattr(addresses, "open_storage", store.open)
    return store


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "dir" / "sub").mkdir(parents=True)
    (tmp_path / "dir" / "file").write_bytes(b"1")
    (tmp_path / "file").write_bytes(b"22")
    (tmp_path / "to_dir").symlink_to("dir")
    (tmp_path / "to_file").symlink_to("file")
    (tmp_path / "broken").symlink_to("nowhere")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def resolved(src: str, dst: str) -> Places:
    return resolve(parse(src), parse(dst), SETTINGS)


def roots(places: Places) -> tuple[bytes, bytes, tuple[bytes, bytes] | None]:
    return places.src.path, places.dst.path, places.single


@pytest.mark.parametrize("src", ["dir", "dir/", "to_dir", "to_dir/", "./dir/."])
@pytest.mark.parametrize("dst", ["new", "new/", "dir2/deeper", "dir/sub"])
def test_a_local_directorys_content_goes_under_dst(
    here: Path, store: Store, src: str, dst: str
) -> None:
    places = resolved(src, dst)
    name = b"to_dir" if "to_" in src else b"dir"
    below = os.fsencode(dst.rstrip("/"))
    root = os.fsencode(here)
    assert roots(places) == (root + b"/" + name, root + b"/" + below, None)
    assert places.src.trailing_slash
    assert places.dst.trailing_slash
    assert not os.path.exists("new")
    assert store.asked == []


@pytest.mark.parametrize(
    ("src", "dst", "single"),
    [
        ("file", "new", (b"file", b"new")),  # under a new name
        ("file", "deep/er/new", (b"file", b"new")),
        ("file", "new/", (b"file", b"file")),  # DST/basename
        ("file", "dir", (b"file", b"file")),  # into a directory that is there
        ("file", "to_dir", (b"file", b"file")),
        ("file", "dir/", (b"file", b"file")),
        ("file", "to_file", (b"file", b"to_file")),
        ("dir/file", "file", (b"file", b"file")),  # over a file that is there
        ("to_file", "new", (b"to_file", b"new")),
        ("broken", "new", (b"broken", b"new")),  # listed, and found to be broken
    ],
)
def test_a_local_file_is_copied_to_dst_or_into_it(
    here: Path, store: Store, src: str, dst: str, single: tuple[bytes, bytes]
) -> None:
    places = resolved(src, dst)
    assert places.single == single
    assert places.src.path == os.fsencode((here / src).parent)
    into = dst.endswith("/") or (here / dst).is_dir()
    wanted = here / dst if into else (here / dst).parent
    assert places.dst.path == os.fsencode(wanted)
    assert store.asked == []


def test_a_file_right_below_the_root_is_relative_to_the_root(store: Store) -> None:
    place = parse("/new")
    assert addresses._parent(place) == parse("/")
    assert roots(resolved("/etc/passwd", "/new")) == (b"/etc", b"/", (b"passwd", b"new"))


@pytest.mark.parametrize("src", ["nothing", "nothing/", "dir/nothing", "file/nothing"])
def test_a_local_src_that_is_not_there_is_an_error(here: Path, src: str) -> None:
    with pytest.raises(NotFound, match="no such file or directory"):
        resolved(src, "new")


def test_a_slash_after_a_local_file_is_an_error(here: Path) -> None:
    with pytest.raises(UsageError, match="without the slash"):
        resolved("file/", "new")


def test_a_directory_does_not_go_into_a_file(here: Path, store: Store) -> None:
    for src in ("dir", f"{STORE}/prefix/"):
        for dst in ("file", "file/", "to_file", "broken"):
            with pytest.raises(UsageError, match="is a directory, but"):
                resolved(src, dst)


@pytest.mark.parametrize(
    ("src", "root", "name"),
    [
        ("one", b"", b"one"),
        ("dir/two", b"dir/", b"two"),
        ("dir", b"", b"dir"),  # an object, though there are keys below dir/ as well
        ("d//x", b"d//", b"x"),
        (".", b"", b"."),
        ("d/..", b"d/", b".."),
    ],
)
def test_the_object_of_exactly_this_name_is_that_object(
    here: Path, store: Store, src: str, root: bytes, name: bytes
) -> None:
    places = resolved(f"{STORE}/{src}", "new")
    assert roots(places) == (root, os.fsencode(here), (name, b"new"))
    assert roots(resolved(f"{STORE}/{src}", "dir"))[1:] == (
        os.fsencode(here / "dir"), (name, name)
    )  # fmt: skip
    assert roots(resolved(f"{STORE}/{src}", f"{STORE}2/p/")) == (root, b"p/", (name, name))
    assert roots(resolved(f"{STORE}/{src}", f"{STORE}2/p/n")) == (root, b"p/", (name, b"n"))
    assert roots(resolved(f"{STORE}/{src}", f"{STORE}2/n")) == (root, b"", (name, b"n"))
    assert roots(resolved(f"{STORE}/{src}", f"{STORE}2")) == (root, b"", (name, name))
    assert set(store.asked) == {root + name}
    assert places.src.trailing_slash
    assert places.dst.trailing_slash


@pytest.mark.parametrize(
    ("src", "root"),
    [
        ("on", b"on/"),  # never a prefix of names such as "one"
        ("dir/", b"dir/"),
        ("one/", b"one/"),
        ("odd//", b"odd//"),
        ("dir/tw", b"dir/tw/"),
        ("", b""),
        ("/", b"/"),
        ("./", b"./"),
    ],
)
def test_any_other_name_in_a_store_is_a_directory(
    here: Path, store: Store, src: str, root: bytes
) -> None:
    places = resolved(f"{STORE}/{src}", "dir")
    assert roots(places) == (root, os.fsencode(here / "dir"), None)
    assert store.asked == ([] if src in ("", "/") or src.endswith("/") else [src.encode()])
    assert roots(resolved("dir", f"{STORE}/{src}")) == (os.fsencode(here / "dir"), root, None)


def test_a_file_goes_into_a_store_under_its_own_name_or_another(here: Path, store: Store) -> None:
    assert roots(resolved("file", f"{STORE}/p/"))[1:] == (b"p/", (b"file", b"file"))
    assert roots(resolved("file", f"{STORE}/p"))[1:] == (b"", (b"file", b"p"))
    assert roots(resolved("file", STORE))[1:] == (b"", (b"file", b"file"))
    assert store.asked == []  # nothing at the destination is looked at


def test_a_store_that_refuses_to_say_is_an_error_not_a_directory(store: Store) -> None:
    with pytest.raises(ObjectError, match="AccessDenied"):
        resolved(f"{STORE}/forbidden", "/new")


def test_nothing_but_the_path_of_a_location_changes(here: Path, store: Store) -> None:
    src, dst = parse(f"{STORE}/dir/two"), parse("s3://a:b@c.d/x")
    places = resolve(src, dst, SETTINGS)
    for before, after in ((src, places.src), (dst, places.dst)):
        assert after.credentials == before.credentials
        assert (after.scheme, after.host, after.bucket, after.https, after.path_style) == (
            before.scheme, before.host, before.bucket, before.https, before.path_style
        )  # fmt: skip
