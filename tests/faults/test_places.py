"""Places that are not what they seem: one under two names, another than the last time."""

from __future__ import annotations

import errno
import gc
import itertools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adsmig import parts, worker
from adsmig.errors import AdsmigError
from adsmig.storage.local import LocalStorage
from adsmig.storage.localfile import LocalBody
from adsmig.storage.tree import Tree
from tests.e2e.conftest import digest, make_tree
from tests.e2e.inside import COLLECTED, Bucket, Here, put, tree_of
from tests.e2e.inside import here as inside
from tests.e2e.inside import store as store
from tests.servers import program

__all__ = ["inside", "store"]

pytestmark = COLLECTED


@pytest.fixture
def here(inside: Here) -> Here:
    """As ``inside.here``; what a failed run holds open is let go, as when a process ends."""

    def run(*arguments: object, code: int = 0) -> str:
        said = inside(*arguments, code=code)
        gc.collect()
        return said

    return run


FILES = {f"{number:02d}": b"content" for number in range(20)}


# One place under two names


@pytest.fixture
def twice(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A directory that is mounted in two places."""
    one, other = put(tmp_path / "one", FILES), tmp_path / "other"
    other.mkdir()
    if subprocess.run(["mount", "--bind", one, other], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    yield one, other
    subprocess.run(["umount", other], check=True)


@pytest.mark.parametrize("command", [["sync", "--delete-src"], ["cp"]])
def test_a_directory_that_is_mounted_twice_is_no_destination_of_itself(
    here: Here, twice: tuple[Path, Path], command: list[str]
) -> None:
    said = here(*command, *twice, code=2)
    assert "one and the same place" in said
    assert said.count("\n") == 1
    assert tree_of(twice[0]) == FILES
    assert here(*command, twice[0] / "00", twice[1] / "00", code=2)
    here("cp", twice[0] / "00", twice[1] / "new")  # which is another file


def test_a_store_under_two_names_is_not_emptied(here: Here, store: Bucket) -> None:
    store.put(FILES)
    alias = store.url.replace("127.0.0.1", "localhost")
    assert "one and the same place" in here("sync", "--delete-src", store.url, alias, code=2)
    # Nor where one lies inside the other.
    said = here("cp", "--delete-src", store.url, f"{alias}deep/", code=2)
    assert "lie within one another" in said
    assert store.content() == FILES
    other = Bucket(store.server, store.name, "other/")
    here("sync", "--delete-src", store.url, other.url.replace("127.0.0.1", "localhost"))
    assert (store.names(), other.content()) == (set(), FILES)


def test_what_was_not_selected_is_not_removed_under_another_name(here: Here, store: Bucket) -> None:
    """The destination is around the source, and has it under another name."""
    store.put(FILES | {"deep/a": b"a", "deep/not selected": b"b"})
    alias = store.url.replace("127.0.0.1", "localhost")
    words = ["sync", "--delete-dst", "--exclude", "^not"]
    assert "lie within one another" in here(*words, f"{store.url}deep/", alias, code=2)
    assert store.content() == FILES | {"deep/a": b"a", "deep/not selected": b"b"}
    assert "lie within one another" in here("cp", store.url, f"{alias}more/", code=2)
    here("cp", f"{store.url}deep/", f"{alias}more/")  # beside it
    here("sync", "--delete-dst", f"{store.url}deep/", f"{alias}more/")
    assert store.content()["more/not selected"] == b"b"


@pytest.mark.parametrize(
    ("src", "dst", "code"),
    [
        ("outer/inner", "mounted outer", 2),
        ("mounted outer", "outer/inner", 3),
        ("outer", "mounted inner", 3),
        ("mounted inner", "outer", 3),
    ],
)
def test_places_that_lie_within_one_another_by_way_of_a_mount_are_refused(
    here: Here, tmp_path: Path, src: str, dst: str, code: int
) -> None:
    outer = put(tmp_path / "outer", FILES | {f"inner/{key}": b"deep" for key in FILES})
    for name, real in {"mounted outer": outer, "mounted inner": outer / "inner"}.items():
        (tmp_path / name).mkdir()
        if subprocess.run(["mount", "--bind", real, tmp_path / name]).returncode:
            pytest.skip("mounting is not allowed here")
    try:
        before = tree_of(outer).keys()
        words = ["sync", "--delete-dst", "--exclude", "^1", tmp_path / src, tmp_path / dst]
        said = here(*words, code=code)
        assert "lie within one another" in said or "lies within the" in said
        assert "resume" not in said
        assert tree_of(outer).keys() == before
    finally:
        gc.collect()
        for name in ("mounted outer", "mounted inner"):
            subprocess.run(["umount", tmp_path / name], check=True)


def test_a_link_to_the_source_at_the_destination_is_no_harm(here: Here, tmp_path: Path) -> None:
    src, dst = put(tmp_path / "src", FILES), put(tmp_path / "dst", {"old": b"o"})
    (dst / "latest").symlink_to(src)
    here("sync", src, dst)
    here("sync", "--delete-dst", src, dst, code=1)  # which removes nothing through the link
    assert tree_of(src) == FILES


def test_a_link_to_what_is_around_the_destination_is_no_way_into_it(
    here: Here, tmp_path: Path
) -> None:
    src, dst = put(tmp_path / "all" / "src", FILES), tmp_path / "all" / "dst"
    (src / "up").symlink_to("..")
    said = here("cp", src, dst, code=3)
    assert f"the destination lies within the source, which has it as {src}/up/dst/" in said
    assert "--exclude-dir" in said
    here("cp", "--exclude-dir", "^up", src, dst)
    assert tree_of(dst) == FILES


# Another place than the last time


@pytest.fixture
def broken_off(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Path, Path]:
    """Source, destination and manifest of a ``sync`` that ended in the middle."""
    src, dst, manifest = put(tmp_path / "src", FILES), tmp_path / "dst", tmp_path / "m.db"
    put(dst, {"extra": b"e"})
    read = LocalStorage.read
    tries: list[Any] = []

    def reads(storage: Any, entry: Any, *span: Any) -> Any:
        tries.append(entry)
        if len(tries) > 10:
            raise AdsmigError("the disk was pulled out")
        return read(storage, entry, *span)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "read", reads)
        words = ["--delete-dst", "--threads", "1", "--manifest", manifest]
        here("sync", *words, src, dst, code=3)
    assert 0 < len(tree_of(dst)) < len(FILES)
    return src, dst, manifest


@pytest.mark.parametrize("command", ["sync", "resume"])
def test_a_source_that_is_not_mounted_any_more_is_not_the_end_of_the_job(
    here: Here, broken_off: tuple[Path, Path, Path], command: str
) -> None:
    src, dst, manifest = broken_off
    src.rename(src.with_name("away"))
    src.mkdir()
    before = tree_of(dst)
    words = ["sync", "--delete-dst", src, dst] if command == "sync" else ["resume"]
    said = here(*words, "--manifest", manifest, code=3)
    assert "is not the directory that it was" in said.splitlines()[-1]
    assert tree_of(dst) == before
    src.rmdir()
    src.with_name("away").rename(src)
    here(*words, "--manifest", manifest)
    assert tree_of(dst) == FILES


@pytest.mark.parametrize("command", [["cp"], ["sync"], ["sync", "--compare", "manifest"]])
def test_a_job_that_came_to_its_end_notices_that_its_source_is_not_mounted(
    here: Here, tmp_path: Path, command: list[str]
) -> None:
    src, dst = put(tmp_path / "src", FILES), tmp_path / "dst"
    words = [*command, "--manifest", tmp_path / "m.db", src, dst]
    here(*words)
    src.rename(tmp_path / "away")
    src.mkdir()
    for options in (["-q"], ["--dryrun"], []):
        said = here(*words, *options, code=3)
        assert "is not the directory that it was" in said.splitlines()[-1]
    assert tree_of(dst) == FILES
    src.rmdir()
    (tmp_path / "away").rename(src)
    assert "20 found" in here(*words)
    src.rename(tmp_path / "away")
    src.mkdir()
    assert "it is empty" in here(*words, "--yes")
    assert "it is empty" in here(*words)


def test_a_destination_that_was_replaced_gets_all_of_it(
    here: Here, broken_off: tuple[Path, Path, Path]
) -> None:
    src, dst, manifest = broken_off
    dst.rename(dst.with_name("away"))
    dst.mkdir()
    words = ["sync", "--delete-dst", "--manifest", manifest, src, dst]
    assert "is not the directory that it was" in here(*words, code=3)
    here(*words, "--yes")
    assert tree_of(dst) == FILES


def test_what_the_manifest_knows_is_not_believed_of_another_destination(
    here: Here, tmp_path: Path
) -> None:
    src, dst, manifest = put(tmp_path / "src", FILES), tmp_path / "dst", tmp_path / "m.db"
    words = ["sync", "--compare", "manifest", "--manifest", manifest, src, dst]
    here(*words)
    assert "20 unchanged" in here(*words)
    dst.rename(tmp_path / "away")
    assert "is not the directory that it was" in here(*words, code=3)
    assert not dst.exists()  # as below a mount point where nothing is mounted
    (tmp_path / "away").rename(dst)
    assert "20 unchanged" in here(*words)
    dst.rename(tmp_path / "away")
    assert "copied 20 objects" in here(*words, "--yes")
    assert tree_of(dst) == FILES


# A place that is lost in the middle


def lose(patch: pytest.MonkeyPatch, root: Path, number: int) -> None:
    """Has every call fail from now on that is about what lies at or below ``root``: a FUSE daemon
    has died, or a server has taken back what it had exported.
    """

    def failing(real: Any) -> Any:
        def call(at: Any, *rest: Any, **more: Any) -> Any:
            below = at if isinstance(at, int) else more.get("dir_fd")
            path = at if below is None else os.readlink(f"/proc/self/fd/{below}")
            if os.fsencode(path).startswith(os.fsencode(root)):
                raise OSError(number, os.strerror(number))
            return real(at, *rest, **more)

        return call

    for name in ("stat", "lstat", "open", "scandir", "mkdir", "preadv", "write"):
        patch.setattr(os, name, failing(getattr(os, name)))


@pytest.mark.parametrize("number", [errno.ENOTCONN, errno.ESTALE])
@pytest.mark.parametrize("lost", ["src", "dst"])
@pytest.mark.parametrize(
    ("owner", "function", "times"),
    [(Tree, "_read_directory", 6), (LocalStorage, "read", 30), (LocalBody, "readinto", 30)],
)
def test_a_place_that_is_lost_is_no_fault_of_the_objects(
    here: Here,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    lost: str,
    owner: type,
    function: str,
    times: int,
) -> None:
    files = {f"{name}/{sub}/{key}": b"c" for name in "abc" for sub in "xy" for key in FILES}
    put(tmp_path / "src", files)
    real, calls = getattr(owner, function), itertools.count(1)
    with monkeypatch.context() as patch:

        def lose_it(*arguments: Any) -> Any:
            if next(calls) == times:
                lose(patch, tmp_path / lost, number)
            return real(*arguments)

        patch.setattr(owner, function, lose_it)
        words = ["--threads", "1", "--manifest", tmp_path / "m.db"]
        here("cp", tmp_path / "src", tmp_path / "dst", *words, code=3)
    here("resume", *words[2:])
    assert tree_of(tmp_path / "dst") == files


# What an interrupted run leaves behind


def test_a_resumed_rm_looks_again_at_what_it_removes(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    src = put(tmp_path / "src", FILES, age_s=86400 * 9)

    def stop(*_: Any) -> None:
        raise AdsmigError("the machine went down")

    words = ["rm", "--yes", "--older-than", "1d", "--manifest", tmp_path / "m.db", src]
    with monkeypatch.context() as patch:
        patch.setattr(worker, "remove", stop)
        here(*words, code=3)
    (src / "07").write_bytes(b"new and important")
    here(*words)
    assert tree_of(src) == {"07": b"new and important"}


def test_an_upload_that_is_not_gone_on_with_is_aborted(
    here: Here, store: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    src = put(tmp_path / "src", {"small": b"s"})
    with (src / "large").open("wb") as file:
        file.truncate(65 << 20)

    def stop(*_: Any) -> None:
        raise AdsmigError("the machine went down")

    def uploads() -> list[str]:
        client = store.server.client()
        found = client.list_multipart_uploads(Bucket=store.name).get("Uploads", [])
        return [one["Key"] for one in found]

    words = ["--manifest", tmp_path / "m.db", src, store.url]
    with monkeypatch.context() as patch:
        patch.setattr(parts, "put_part", stop)
        here("cp", *words, code=3)
    opened = uploads()
    (src / "large").unlink()
    here("sync", *words)  # which is a new run
    assert uploads() == []
    assert opened == ["p/large"]


def test_nothing_is_run_that_lies_in_the_current_directory(tmp_path: Path) -> None:
    src, here = tmp_path / "src", tmp_path / "here"
    make_tree(src, 3000, most=10)  # enough for worker processes
    here.mkdir()
    for name in ("adsmig", "boto3", "logging", "paramiko", "random", "selectors", "sqlite3"):
        (here / f"{name}.py").write_text("import os\nos.mkdir(os.environ['HOME'] + '/was-run')\n")
    subprocess.run(
        [program("adsmig"), "cp", "--workers", "2", f"{src}/", f"{tmp_path}/dst/"],
        cwd=here, env={**os.environ, "HOME": str(tmp_path)}, check=True,
    )  # fmt: skip
    assert digest(tmp_path / "dst") == digest(src)
    assert not (tmp_path / "was-run").exists()
