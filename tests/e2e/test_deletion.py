"""What a run removes, and what it must never remove.

Most of it runs in this process, with one worker, for speed; the command line is the same.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import pty
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from adsmig import coordinator, deletions, program, removal, worker
from adsmig.deletions import Deletions
from adsmig.errors import AdsmigError
from adsmig.manifest import Manifest
from tests.conftest import BucketFactory
from tests.e2e.conftest import Adsmig, digest, make_tree, write
from tests.e2e.inside import COLLECTED, Bucket, Here, put, tree_of
from tests.e2e.inside import here as here
from tests.e2e.inside import no_pauses as no_pauses
from tests.e2e.inside import store as store
from tests.servers import MinIOGateway, Moto, SeaweedFS
from tests.storage.fakes3 import DROPPED, FakeS3, Reply, Request, error

pytestmark = COLLECTED

Change = Callable[[Callable[[], None]], None]


FILES = {key: key.encode() for key in ("a", "b/x", "b/y/z", "c")}

# ---------------------------------------------------------------------- --delete-src


@pytest.mark.parametrize("command", ["cp", "sync"])
def test_what_was_copied_goes_at_the_source(
    here: Here, store: Bucket, tmp_path: Path, command: str
) -> None:
    src, back = put(tmp_path / "src", FILES | {"empty/": b""}), tmp_path / "back"
    said = here(command, "--delete-src", src, store.url)
    assert re.search(r"copied 5 objects .* deleted 5 ", said)
    assert store.content() == FILES | {"empty/": b""}
    assert list(src.iterdir()) == []
    here(command, "--delete-src", store.url, back)
    assert store.names() == set()
    assert tree_of(back) == FILES
    assert (back / "empty").is_dir()
    other = Bucket(store.server, store.name, "q/")
    store.put(FILES)
    here(command, "--delete-src", store.url, other.url)
    assert store.names() == set()
    assert other.content() == FILES


@pytest.mark.usefixtures("no_pauses")
def test_an_empty_directory_goes_from_place_to_place_within_a_service(
    here: Here, store: Bucket
) -> None:
    """Some stores cannot copy it."""
    store.put({"empty/": b""})
    other = Bucket(store.server, store.name, "q/")
    here("cp", "--delete-src", store.url, other.url)
    assert store.names() == set()
    assert other.names() == {"empty/"}


def test_a_tree_that_went_leaves_nothing_for_the_next_run(
    here: Here, moto: Moto, bucket: BucketFactory, tmp_path: Path
) -> None:
    src, store = put(tmp_path / "src", FILES), Bucket(moto, bucket(moto))
    for _ in range(2):
        here("cp", "--delete-src", src, store.url)
    assert store.content() == FILES


def test_all_of_a_run_of_many_slices_goes_at_the_source(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinator, "SHORT_S", 0)
    monkeypatch.setattr(coordinator, "LONG_S", 0)
    files = {f"{number:03d}": b"x" for number in range(60)}
    src, dst = put(tmp_path / "src", files), tmp_path / "dst"
    here("cp", "--delete-src", "--threads", "1", src, dst)
    assert tree_of(dst) == files
    assert tree_of(src) == {}


def test_an_object_on_its_own_goes_at_the_source(here: Here, store: Bucket, tmp_path: Path) -> None:
    src = put(tmp_path / "src", {"a": b"one", "a.txt": b"other"})
    here("cp", "--delete-src", src / "a", store.url + "b")
    assert store.content() == {"b": b"one"}
    assert tree_of(src) == {"a.txt": b"other"}
    here("cp", "--delete-src", store.url + "b", tmp_path / "c")
    assert store.names() == set()
    assert (tmp_path / "c").read_bytes() == b"one"


def test_a_large_object_goes_at_the_source(here: Here, tmp_path: Path) -> None:
    src, dst = put(tmp_path / "src", {}), tmp_path / "dst"
    with (src / "large").open("wb") as file:
        file.truncate(70 << 20)
    here("cp", "--delete-src", src, dst)
    assert (dst / "large").stat().st_size == 70 << 20
    assert list(src.iterdir()) == []


def test_what_is_equal_goes_only_if_its_content_is(here: Here, tmp_path: Path) -> None:
    """Not by size and time, which are what a sync goes by otherwise."""
    src = put(tmp_path / "src", {"same": b"1234", "other": b"1234"})
    dst = put(tmp_path / "dst", {"same": b"1234", "other": b"abcd"}, age_s=60)
    said = here("sync", "--delete-src", src, dst)
    assert re.search(r"copied 1 object .* 1 unchanged, deleted 2 ", said)
    assert tree_of(src) == {}
    assert tree_of(dst) == {"same": b"1234", "other": b"1234"}


def test_what_is_equal_in_a_store_goes_only_if_its_content_is(
    here: Here, store: Bucket, tmp_path: Path
) -> None:
    src = put(tmp_path / "src", {"same": b"1234", "other": b"1234"})
    store.put({"same": b"1234", "other": b"abcd"})
    here("sync", "--delete-src", src, store.url)
    assert tree_of(src) == {}
    assert store.content() == {"same": b"1234", "other": b"1234"}


@pytest.mark.parametrize("command", ["cp", "sync"])
def test_what_could_not_be_copied_stays_at_the_source(
    here: Here, tmp_path: Path, command: str
) -> None:
    src = put(tmp_path / "src", {"a": b"a", "b": b"b"})
    put(tmp_path / "dst", {"a/in the way": b""})
    (src / "broken").symlink_to("nowhere")
    said = here(command, "--delete-src", src, tmp_path / "dst", code=1)
    assert re.search(r"\ba\b.*directory", said)
    assert tree_of(src) == {"a": b"a"}
    assert (src / "broken").is_symlink()
    assert tree_of(tmp_path / "dst") == {"a/in the way": b"", "b": b"b"}


def test_what_the_destination_cannot_name_stays_at_the_source(
    here: Here, moto: Moto, bucket: BucketFactory, tmp_path: Path
) -> None:
    store = Bucket(moto, bucket(moto)).put({"../x": b"1", "a//b": b"2", "good": b"3"})
    here("cp", "--delete-src", store.url, tmp_path / "dst", code=1)
    assert store.names() == {"../x", "a//b"}
    assert tree_of(tmp_path / "dst") == {"good": b"3"}


@pytest.fixture
def before_removal(monkeypatch: pytest.MonkeyPatch) -> Change:
    """``before_removal(act)``: calls ``act`` once, when removing is about to begin."""

    def prepare(act: Callable[[], None]) -> None:
        acts = [act]

        def remove(*arguments: Any) -> Any:
            while acts:
                acts.pop()()
            return removal.remove(*arguments)

        monkeypatch.setattr(worker, "remove", remove)

    return prepare


def test_a_file_that_changed_after_it_was_copied_stays(
    here: Here, tmp_path: Path, before_removal: Change
) -> None:
    src, dst = put(tmp_path / "src", FILES), tmp_path / "dst"

    def change() -> None:
        write(src / "a", b"A", age_s=1)  # of the same size
        (src / "b/new").write_bytes(b"came meanwhile")

    before_removal(change)
    said = here("sync", "--delete-src", src, dst, code=1)
    assert re.search(r"\ba\b.*changed after it had been copied", said)
    assert tree_of(src) == {"a": b"A", "b/new": b"came meanwhile"}
    assert tree_of(dst) == FILES
    here("sync", "--delete-src", src, dst)
    assert tree_of(src) == {}
    assert tree_of(dst) == FILES | {"a": b"A", "b/new": b"came meanwhile"}


def test_an_object_that_changed_after_it_was_copied_stays(
    here: Here, store: Bucket, tmp_path: Path, before_removal: Change
) -> None:
    store.put(FILES)

    def change() -> None:
        store.put({"a": b"A"})
        store.server.client().delete_object(Bucket=store.name, Key="p/c")  # by somebody else

    before_removal(change)
    said = here("sync", "--delete-src", store.url, tmp_path / "dst", code=1)
    assert "changed after it had been copied" in said
    assert store.content() == {"a": b"A"}
    assert tree_of(tmp_path / "dst") == FILES


LEFT_ALONE = {
    "existing": (["--existing"], {"new", "sub/new"}),
    "ignore existing": (["--ignore-existing"], {"there", "newer"}),
    "update": (["--update"], {"newer"}),
    "exclude": (["--exclude", "new"], {"new", "newer", "sub/new"}),
    "include": (["--include", "^there$"], {"new", "newer", "sub/new"}),
    "exclude dir": (["--exclude-dir", "sub"], {"sub/new"}),
    "start": (["--start", "newer"], {"new"}),
    "end": (["--end", "newer"], {"sub/new", "there"}),
    "size": (["--min-size", "5"], {"new", "sub/new"}),
    "age": (["--newer-than", "60"], {"new", "newer", "sub/new", "there"}),
}


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_what_was_left_alone_stays_at_the_source(here: Here, tmp_path: Path, name: str) -> None:
    options, stays = LEFT_ALONE[name]
    files = {"new": b"1", "newer": b"newer", "sub/new": b"2", "there": b"there"}
    src = put(tmp_path / "src", files)
    dst = put(tmp_path / "dst", {"there": b"before"}, age_s=7200)
    put(dst, {"newer": b"from elsewhere"}, age_s=60)
    here("sync", "--delete-src", *options, src, dst)
    assert set(tree_of(src)) == stays
    there = tree_of(dst)
    assert {key: there.get(key) for key in files.keys() - stays} == {
        key: files[key] for key in files.keys() - stays
    }


def test_links_that_were_recorded_stay_and_what_they_lead_to(here: Here, tmp_path: Path) -> None:
    src, other = put(tmp_path / "src", FILES), put(tmp_path / "other", {"f": b"f"})
    (src / "link").symlink_to(other)
    here("sync", "--delete-src", "-rd", tmp_path / "links", src, tmp_path / "dst")
    assert os.listdir(src) == ["link"]
    assert tree_of(other) == {"f": b"f"}
    assert tree_of(tmp_path / "dst") == FILES


@pytest.mark.parametrize("to_store", [False, True])
def test_what_links_lead_to_goes_only_when_all_was_copied(
    here: Here, store: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to_store: bool
) -> None:
    monkeypatch.setattr(coordinator, "SHORT_S", 0)  # slices of few keys
    monkeypatch.setattr(deletions, "BATCH", 2)
    files = {f"a/{at:02d}": b"%02d" % at for at in range(20)}
    src = put(tmp_path / "src", files)
    (src / "z").mkdir()
    for at in range(20):
        (src / f"z/{at:02d}").symlink_to(f"../a/{at:02d}")
    (src / "linked").symlink_to("a")
    dst = store.url if to_store else tmp_path / "dst"
    here("cp", "--delete-src", "--threads", "1", src, dst, code=1)
    assert (store.content() if to_store else tree_of(tmp_path / "dst")) == files | {
        f"{top}/{at:02d}": b"%02d" % at for top in ("z", "linked") for at in range(20)
    }
    assert os.listdir(src) == ["linked"]  # named as what could not be removed


@pytest.mark.parametrize("way", ["links", "directory link", "single", "recorded"])
def test_what_is_at_the_destination_by_way_of_a_link_only_stays_at_the_source(
    here: Here, tmp_path: Path, way: str
) -> None:
    src, dst = put(tmp_path / "src", {"d/f": b"precious"}), tmp_path / "dst"
    dst.mkdir()
    if way == "directory link":
        (dst / "d").symlink_to(src / "d")
    else:
        (dst / "d").mkdir()
        (dst / "d" / "f").symlink_to(src / "d" / "f")
    sides = [src / "d" / "f", dst / "d" / "f"] if way == "single" else [src, dst]
    words = ["-rd", tmp_path / "links"] if way == "recorded" else []
    assert "a link" in here("sync", "--delete-src", *words, *sides, code=1)
    assert tree_of(src) == {"d/f": b"precious"}
    (dst / "d" / "f").unlink() if way != "directory link" else (dst / "d").unlink()
    here("sync", "--delete-src", *words, *sides)
    assert (tree_of(src), tree_of(dst)) == ({}, {"d/f": b"precious"})


@pytest.mark.parametrize("linked", [False, True])
def test_what_is_mounted_at_the_destination_stays_at_the_source(
    here: Here, tmp_path: Path, linked: bool
) -> None:
    src, dst = put(tmp_path / "src", {"d/f": b"precious", "g": b"g"}), tmp_path / "dst"
    if linked:
        (tmp_path / "elsewhere").hardlink_to(src / "d" / "f")
    (dst / "d").mkdir(parents=True)
    if subprocess.run(["mount", "--bind", src / "d", dst / "d"]).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        assert "this very file" in here("sync", "--delete-src", src, dst, code=1)
        assert tree_of(src) == {"d/f": b"precious"}
    finally:
        gc.collect()
        subprocess.run(["umount", dst / "d"], check=True)


def test_what_the_destination_has_a_hard_link_to_goes_from_the_source(
    here: Here, tmp_path: Path
) -> None:
    src, dst = put(tmp_path / "src", {"d/f": b"precious", "g": b"g"}), tmp_path / "dst"
    for key in ("d/f", "g"):
        (dst / key).parent.mkdir(parents=True, exist_ok=True)
        (dst / key).hardlink_to(src / key)
    here("sync", "--delete-src", src, dst)
    assert (tree_of(src), tree_of(dst)) == ({}, {"d/f": b"precious", "g": b"g"})


@pytest.mark.parametrize("to_store", [False, True])
def test_what_has_no_copy_any_more_stays_at_the_source(
    here: Here, store: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to_store: bool
) -> None:
    """Copied, and then the destination was emptied, before the run went on."""
    src, dst = put(tmp_path / "src", FILES), tmp_path / "dst"
    (src / "link").symlink_to("a")  # so that all that goes, goes at the end
    words = ["sync", "--delete-src", "--manifest", tmp_path / "m.db", src]
    words.append(store.url if to_store else dst)

    def stop(*_: Any) -> None:
        raise AdsmigError("the machine went down")

    with monkeypatch.context() as patch:
        patch.setattr(worker, "remove", stop)
        here(*words, code=3)
    if to_store:
        here("rm", "--yes", store.url)
    else:
        for path in sorted(dst.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
    assert "its copy is not there any more" in here(*words, code=1)
    assert tree_of(src) == FILES | {"link": b"a"}
    here(*words)
    assert tree_of(src) == {}
    assert (store.content() if to_store else tree_of(dst)) == FILES | {"link": b"a"}


def test_a_source_killed_while_it_is_emptied_loses_nothing(tmp_path: Path) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    make_tree(src, 400, most=5000)
    whole = digest(src)
    chance = random.Random(7)
    command = [sys.executable, "-m", "adsmig", "sync", "--delete-src", str(src), str(dst)]
    kills = 0
    for limit in (["--bwlimit", "4"],) * 4 + ([],):
        left = len(tree_of(src))
        process = subprocess.Popen(
            [*command, *limit],
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while limit and process.poll() is None:
            time.sleep(0.02)
            if len(tree_of_names(src)) < left - chance.randint(1, 40):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                kills += 1
                break
        process.wait(300)
        there = {key: value for key, value in digest(dst).items() if not key.startswith(".adsmig")}
        here = {key: value for key, value in digest(src).items() if not key.endswith("/")}
        for key, value in whole.items():
            assert value in (here.get(key), there.get(key)), key
    assert process.returncode == 0
    assert kills
    assert digest(dst) == whole


def tree_of_names(root: Path) -> list[str]:
    return [name for _, _, names in os.walk(root) for name in names]


# ---------------------------------------------------------------------- --delete-dst

EXTRA = {"0": b"0", "b/extra": b"1", "gone/deep/x": b"2", "gone/y": b"3"}


def test_what_the_source_does_not_have_goes_at_the_destination(here: Here, tmp_path: Path) -> None:
    src = put(tmp_path / "src", FILES | {"kept/": b""})
    dst = put(tmp_path / "dst", EXTRA | {"a": b"old", "left over/": b"", "kept/": b""})
    said = here("sync", "--delete-dst", src, dst)
    assert re.search(r"copied 4 objects .* deleted 5 ", said)
    assert digest(dst) == digest(src)


def test_what_the_source_does_not_have_goes_in_a_store(
    here: Here, store: Bucket, tmp_path: Path
) -> None:
    src = put(tmp_path / "src", FILES)
    store.put(EXTRA | {"gone/marker/": b""})
    outside = Bucket(store.server, store.name, "q/").put({"x": b"x"})
    here("sync", "--delete-dst", src, store.url)
    assert store.content() == FILES
    assert outside.names() == {"x"}
    back = put(tmp_path / "back", EXTRA)
    here("sync", "--delete-dst", store.url, back)
    assert tree_of(back) == FILES
    other = Bucket(store.server, store.name, "r/").put(EXTRA)
    here("cp", "--delete-dst", store.url, other.url)
    assert other.content() == FILES


def test_more_than_max_delete_removes_nothing(here: Here, tmp_path: Path) -> None:
    src, dst = put(tmp_path / "src", FILES), put(tmp_path / "dst", EXTRA)
    said = here("sync", "--delete-dst", "--max-delete", "3", src, dst, code=3)
    assert re.search(r"nothing was deleted: .*\b4 objects.*--max-delete 3", said)
    assert tree_of(dst) == EXTRA | FILES  # what was to be copied, was
    here("sync", "--delete-dst", "--max-delete", "0", src, dst, code=3)
    assert tree_of(dst) == EXTRA | FILES
    here("sync", "--delete-dst", "--max-delete", "4", src, dst)
    assert tree_of(dst) == FILES


def page(keys: Sequence[str], token: str = "") -> str:
    items = "".join(
        f"<Contents><Key>{key}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified>"
        f'<ETag>"{"0" * 32}"</ETag><Size>1</Size></Contents>'
        for key in keys
    )
    more = (
        f"<IsTruncated>true</IsTruncated>{token}" if token else "<IsTruncated>false</IsTruncated>"
    )
    return (
        '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>bkt</Name><Prefix></Prefix><MaxKeys>1000</MaxKeys>{more}{items}</ListBucketResult>"
    )


TOKEN = "<NextContinuationToken>next</NextContinuationToken>"
BREAKS = {
    "an error of the server": error(500, "InternalError"),
    "a lost connection": DROPPED,
    "a refusal": error(403, "AccessDenied"),
    "half a page": Reply(body=page(["c", "d"]).encode()[:-40]),
    "a page that is no list": Reply(body=b"<html>maintenance</html>"),
    "a page without an end": Reply(body=page(["c", "d"], " ").encode()),
    "the same page again": Reply(body=page(["a", "b"], TOKEN).encode()),
    "no page": Reply(body=b""),
}


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize("name", BREAKS)
def test_a_source_listing_that_breaks_off_removes_nothing(
    here: Here, tmp_path: Path, name: str
) -> None:
    """The copy has long been made, so nothing but the listing is asked of the source."""
    dst = put(tmp_path / "dst", {"a": b"a", "b": b"b", "c": b"c", "extra": b"x"}, age_s=1)
    asked: list[str] = []

    def answer(request: Request) -> Reply:
        past = request.query.get("start-after") or request.query.get("continuation-token", "")
        past = past or request.query.get("marker", "")
        asked.append(past)
        if request.query.get("max-keys") == "1":
            return Reply(body=page(["a"], TOKEN).encode())
        return BREAKS[name] if past else Reply(body=page(["a", "b"], TOKEN).encode())

    with FakeS3(answer) as fake:
        url = f"s3://ak:sk@{fake.host}/bkt/"
        said = here("sync", "--size-only", "--delete-dst", url, dst, code=3)
        assert any(asked), said
        assert tree_of(dst).keys() >= {"a", "b", "c", "extra"}
        said = here("sync", "--size-only", "--delete-dst", "--yes", url, dst, code=3)
        assert tree_of(dst).keys() >= {"a", "b", "c", "extra"}
    assert "deleted 0 (0 B)" in said or "deleted" not in said


@pytest.mark.parametrize("more", [[], ["--yes"]])
def test_a_source_that_is_not_there_removes_nothing(
    here: Here, moto: Moto, tmp_path: Path, more: list[str]
) -> None:
    dst = put(tmp_path / "dst", EXTRA)
    here("sync", "--delete-dst", *more, tmp_path / "nowhere", dst, code=3)
    here("sync", "--delete-dst", *more, moto.url("no-such-bucket", "p/"), dst, code=3)
    assert tree_of(dst) == EXTRA


def test_an_empty_source_removes_nothing_unless_told_to(
    here: Here, store: Bucket, tmp_path: Path
) -> None:
    """As a mount point is, where nothing is mounted, or a prefix with a slip of the pen."""
    src, dst = put(tmp_path / "src", {}), put(tmp_path / "dst", EXTRA)
    for source in (src, store.url):
        said = here("sync", "--delete-dst", source, dst, code=3)
        assert re.search(r"nothing was deleted: .*holds nothing.*--yes", said)
        assert tree_of(dst) == EXTRA
    here("sync", "--delete-dst", "--yes", src, dst)
    assert tree_of(dst) == {}
    store.put(EXTRA)
    here("sync", "--delete-dst", src, store.url, code=3)
    assert store.content() == EXTRA
    here("sync", "--delete-dst", "--yes", src, store.url)
    assert store.names() == set()


@pytest.mark.parametrize("only", ["directory", "link"])
def test_a_source_without_any_file_removes_nothing_unless_told_to(
    here: Here, tmp_path: Path, only: str
) -> None:
    """As a fresh disk, which has its ``lost+found``."""
    src, dst = put(tmp_path / "src", {}), put(tmp_path / "dst", FILES)
    if only == "directory":
        (src / "lost+found").mkdir()
    else:
        (src / "link").symlink_to("nowhere")
    assert "nothing was deleted" in here("sync", "--delete-dst", src, dst, code=3)
    assert tree_of(dst) == FILES
    here("sync", "--delete-dst", "--yes", src, dst, code=int(only == "link"))
    assert tree_of(dst) == {}
    # A file without content is a file.
    put(src, {"empty": b""}), put(dst, FILES)
    here("sync", "--delete-dst", src, dst, code=int(only == "link"))
    assert tree_of(dst) == {"empty": b""}


def test_a_deletion_that_failed_can_be_tried_again(here: Here, tmp_path: Path) -> None:
    src, dst = put(tmp_path / "src", {"a": b"a"}), put(tmp_path / "dst", {})
    put(tmp_path / "outside", {"x": b"x"})
    (dst / "link").symlink_to(tmp_path / "outside")
    here("sync", "--delete-dst", "--manifest", tmp_path / "m.db", src, dst, code=1)
    (dst / "link").unlink()
    put(dst, {"link/x": b"x"})
    here("retry", "--manifest", tmp_path / "m.db")
    assert tree_of(dst) == {"a": b"a"}


def test_directories_whose_deletion_failed_go_at_the_next_try(here: Here, tmp_path: Path) -> None:
    src, dst = put(tmp_path / "src", {"a": b"a"}), put(tmp_path / "dst", {})
    put(tmp_path / "outside", {"empty/": b"", "full/x": b"x"})
    (dst / "link").symlink_to(tmp_path / "outside")
    here("sync", "--delete-dst", "--manifest", tmp_path / "m.db", src, dst, code=1)
    (dst / "link").unlink()
    put(dst, {"link/empty/": b"", "link/full/x": b"x"})
    here("retry", "--manifest", tmp_path / "m.db")
    assert os.listdir(dst) == ["a"]
    assert sorted(os.listdir(tmp_path / "outside")) == ["empty", "full"]


def test_what_could_not_go_at_the_source_is_not_copied_again(here: Here, tmp_path: Path) -> None:
    src, dst = put(tmp_path / "src", {"a": b"a"}), tmp_path / "dst"
    put(tmp_path / "outside", FILES)
    (src / "link").symlink_to(tmp_path / "outside")
    words = "--delete-src", "--manifest", tmp_path / "m.db"
    assert "copied 5 objects" in here("sync", *words, src, dst, code=1)
    for command in (["sync", *words, src, dst], ["retry", *words[1:]]):
        assert "copied 0 objects" in here(*command, code=1)
        with Manifest(tmp_path / "m.db") as manifest:
            assert {one.kind for one in manifest.failures()} == {"not deleted"}
    assert tree_of(tmp_path / "outside") == FILES


def test_a_refused_deletion_leaves_nothing_behind(here: Here, tmp_path: Path) -> None:
    src, dst = put(tmp_path / "src", {}), put(tmp_path / "dst", {"x": b"x"})
    here("sync", "--delete-dst", src, dst, code=3)
    assert os.listdir(dst) == ["x"]


def test_a_source_that_is_replaced_meanwhile_removes_nothing(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when it is unmounted after it was listed, and each key seems to be gone."""
    src, dst = put(tmp_path / "src", FILES), put(tmp_path / "dst", EXTRA)
    real = Deletions.refusal

    def late(deletions: Deletions, empty: bool, count: int) -> str:
        src.rename(tmp_path / "elsewhere")
        src.mkdir()
        return real(deletions, empty, count)

    monkeypatch.setattr(Deletions, "refusal", late)
    said = here("sync", "--delete-dst", src, dst, code=3)
    assert "no longer the directory it was" in said
    assert tree_of(dst) == EXTRA | FILES


def test_a_source_unmounted_before_the_end_removes_nothing(
    here: Here, tmp_path: Path, before_removal: Change
) -> None:
    src, dst = put(tmp_path / "src", {}), put(tmp_path / "dst", EXTRA)
    mount = ["mount", "-t", "tmpfs", "none", str(src)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a file system needs root and CAP_SYS_ADMIN")
    put(src, FILES)
    unmount = ["umount", "-l", str(src)]
    before_removal(lambda: subprocess.run(unmount, check=True) and None)
    said = here("sync", "--delete-dst", src, dst, code=3)
    assert "no longer the directory it was" in said
    assert tree_of(dst) == EXTRA | FILES


NOBODY = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory that any user reaches, and owns."""
    path = Path(tempfile.mkdtemp(prefix="adsmig-test-"))
    path.chmod(0o777)
    yield path
    for folder, _, _ in os.walk(path):
        os.chmod(folder, 0o700)
    shutil.rmtree(path)


def without_privileges(*arguments: object, home: Path) -> subprocess.CompletedProcess[str]:
    """The program as a user to whom permissions mean something."""
    command = [sys.executable, "-m", "adsmig"]
    if os.geteuid() == 0:
        command = [*NOBODY, *command]
        if not shutil.which("setpriv") or subprocess.run([*command, "-V"]).returncode:
            pytest.skip("the program cannot be started as another user")
    env = {**os.environ, "HOME": str(home), "XDG_STATE_HOME": str(home / "state")}
    return subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, timeout=100, env=env
    )


@pytest.mark.parametrize("excluded", [False, True])
def test_what_lies_below_an_unreadable_directory_stays_at_the_destination(
    open_path: Path, excluded: bool
) -> None:
    src = put(open_path / "src", {"a": b"a", "locked/in": b"in", "z": b"z"})
    dst = put(open_path / "dst", {"locked/in": b"in", "locked/deep/er": b"e", "locker": b"l"})
    for folder, _, names in os.walk(open_path):
        os.chmod(folder, 0o777)
        for name in names:
            os.chmod(Path(folder, name), 0o666)
    (src / "locked").chmod(0)
    options = ["--exclude-dir", "^locked$"] if excluded else []
    done = without_privileges("sync", "--delete-dst", *options, src, dst, home=open_path / "home")
    if excluded:  # it is not even looked at
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode == 1, done.stderr
        assert re.search(r"locked/ .*Permission denied", done.stderr)
    # What the source could be seen not to have, is gone.
    assert set(tree_of(dst)) == {"a", "locked/in", "locked/deep/er", "z"}


KEPT_AT_DESTINATION = {
    "exclude": (["--exclude", "extra"], {"0", "gone/deep/x", "gone/y"}),
    "include": (["--include", "^gone/|^a$"], {"gone/deep/x", "gone/y"}),
    "include and exclude": (["--exclude", "x", "--include", "^b"], {"0", "b/extra", "gone/y"}),
    "exclude dir": (["--exclude-dir", "^gone$"], {"0", "b/extra"}),
    "include dir": (["--include-dir", "deep"], {"gone/deep/x"}),
    "start": (["--start", "b/f"], {"gone/deep/x", "gone/y"}),
    "start itself": (["--start", "b/extra"], {"b/extra", "gone/deep/x", "gone/y"}),
    "end": (["--end", "gone/f"], {"0", "b/extra", "gone/deep/x"}),
    "end itself": (["--end", "b/extra"], {"0", "b/extra"}),
    "start and end": (["-s", "b", "-e", "gone/x"], {"b/extra", "gone/deep/x"}),
    "smallest": (["--min-size", "2"], {"gone/y"}),
    "largest": (["--max-size", "1"], {"0", "b/extra", "gone/deep/x"}),
    "older": (["--older-than", "1h"], {"gone/y"}),
    "newer": (["--newer-than", "1h"], {"0", "b/extra", "gone/deep/x"}),
}


@pytest.mark.parametrize("name", KEPT_AT_DESTINATION)
def test_only_what_is_selected_goes_at_the_destination(
    here: Here, tmp_path: Path, name: str
) -> None:
    options, goes = KEPT_AT_DESTINATION[name]
    src = put(tmp_path / "src", FILES, age_s=60)
    dst = put(tmp_path / "dst", EXTRA, age_s=60)
    put(dst, {"gone/y": b"longer"}, age_s=86400)
    here("sync", "--delete-dst", "--yes", *options, src, dst)
    assert EXTRA.keys() - tree_of(dst).keys() == goes


@pytest.mark.parametrize("name", [n for n in KEPT_AT_DESTINATION if n not in ("older", "newer")])
def test_only_what_is_selected_goes_in_a_store(
    here: Here, store: Bucket, tmp_path: Path, name: str
) -> None:
    options, goes = KEPT_AT_DESTINATION[name]
    src = put(tmp_path / "src", FILES)
    store.put(EXTRA | {"gone/y": b"longer"})
    here("sync", "--delete-dst", "--yes", *options, src, store.url)
    assert EXTRA.keys() - store.names() == goes


def test_what_comes_back_at_the_source_meanwhile_stays_at_the_destination(
    here: Here, store: Bucket, tmp_path: Path, before_removal: Change
) -> None:
    src, dst = put(tmp_path / "src", FILES), put(tmp_path / "dst", EXTRA | {"left/": b""})
    before_removal(lambda: put(src, {"gone/y": b"back", "left/new": b"back"}) and None)
    said = here("sync", "--delete-dst", src, dst)
    assert "deleted 3 " in said
    assert tree_of(dst) == FILES | {"gone/y": EXTRA["gone/y"]}
    assert (dst / "left").is_dir()
    shutil.rmtree(src / "gone")
    store.put(FILES)
    other = Bucket(store.server, store.name, "q/").put(EXTRA)
    before_removal(lambda: store.put({"gone/y": b"back"}) and None)
    here("sync", "--delete-dst", store.url, other.url)
    assert other.names() == FILES.keys() | {"gone/y"}


def test_what_lies_behind_links_stays_at_the_destination(here: Here, tmp_path: Path) -> None:
    src, dst = put(tmp_path / "src", FILES), put(tmp_path / "dst", {})
    other = put(tmp_path / "other", {"f": b"f"})
    (dst / "file link").symlink_to(other / "f")
    (src / "linked").symlink_to(other)
    put(dst, {"linked/extra": b"e"})
    here("sync", "--delete-dst", "-rd", tmp_path / "links", src, dst)
    assert tree_of(other) == {"f": b"f"}
    assert not (dst / "file link").is_symlink()
    assert (dst / "linked/extra").read_bytes() == b"e"
    (dst / "dir link").symlink_to(other)
    here("sync", "--delete-dst", "-rd", tmp_path / "links", src, dst, code=1)
    assert tree_of(other) == {"f": b"f"}


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--delete-src"], "--delete-src and --delete-dst"),
        (["--files-from", "names"], "--files-from"),
    ],
)
def test_deletions_that_contradict_something_are_refused(
    here: Here, tmp_path: Path, options: list[str], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "src", FILES)
    put(tmp_path / "dst", EXTRA)
    (tmp_path / "names").write_text("a\n")
    said = here("sync", "--delete-dst", *options, "src", "dst", code=2)
    assert why in said
    assert said.count("\n") == 1
    assert tree_of(tmp_path / "src") == FILES
    assert tree_of(tmp_path / "dst") == EXTRA


# ---------------------------------------------------------------------- rm


@pytest.mark.parametrize("most", [3, 20_000])
def test_a_dry_run_names_each_key_if_asked_to(
    here: Here, store: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr("adsmig.findings.MOST_NAMED", most)
    new = {f"new {number}": b"n" for number in range(7)} | {"a\nb": b"odd"}
    src = put(tmp_path / "src", {"same": b"same", "changed": b"longer", **new}, 0)
    gone = {f"z/{number}": b"z" for number in range(5)}
    dst = put(tmp_path / "dst", {"same": b"same", "changed": b"short", **gone}, -60)
    words = ["sync", "--delete-dst", "--size-only", "--dryrun"]
    copied = ["copy    'a\\nb'", "copy    changed", *(f"copy    new {one}" for one in range(7))]
    deleted = [f"delete  z/{one}" for one in range(5)]

    def named(said: str) -> list[str]:
        return [line for line in said.splitlines() if re.match("(copy|delete) ", line)]

    for side in (str(dst), store.put({"same": b"same", "changed": b"short", **gone}).url):
        assert sorted(named(here(*words, "-v", src, side))) == copied + deleted
        assert named(here(*words, src, side)) == []
        events = map(json.loads, here(*words, "-v", "--json", src, side).splitlines()[:-1])
        planned = [one for one in events if one["event"] == "planned"]
        assert len(planned) == 14
        first = min(planned, key=lambda one: str(one["key"]))
        assert first == {"event": "planned", "action": "copy", "key": "a\nb", "size": 3}
    assert named(here("rm", "--dryrun", "-v", dst / "z")) == [f"delete  {one}" for one in range(5)]
    assert tree_of(src).keys() == {"same", "changed", *new}
    assert tree_of(dst).keys() == {"same", "changed", *gone}


def test_a_reader_of_the_names_may_hang_up(tmp_path: Path) -> None:
    src = put(tmp_path / "src", {f"{number:05d}": b"" for number in range(20_000)})
    command = [sys.executable, "-m", "adsmig", "cp", "--dryrun", "-v", src, tmp_path / "dst"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout
        assert running.stderr
        assert running.stdout.readline() == b"copy    00000\n"
        running.stdout.close()
        assert b"Traceback" not in running.stderr.read()
        assert running.wait(60) == 141


def on_terminal(answer: bytes, *arguments: object) -> tuple[int, str]:
    """The program with a terminal to ask at, where ``answer`` was typed; exit code and words."""
    ours, theirs = pty.openpty()
    try:
        os.write(ours, answer)
        done = subprocess.run(
            [sys.executable, "-m", "adsmig", *map(str, arguments)],
            stdin=theirs, capture_output=True, text=True, timeout=100,
        )  # fmt: skip
    finally:
        os.close(ours)
        os.close(theirs)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("answer", [b"n\n", b"\n", b"yesterday\n", b"\x04"])
def test_rm_asks_and_any_answer_but_yes_removes_nothing(tmp_path: Path, answer: bytes) -> None:
    src = put(tmp_path / "src", FILES)
    code, said = on_terminal(answer, "rm", src)
    assert code == 3
    assert f"would delete {len(FILES)} " in said
    # What it says before it asks fits on the screen.
    assert "DIRECTORIES" in said
    assert not any(word in said for word in ("EXTENSIONS", "AGES", "SIZES", "LARGEST"))
    assert "[y/N]" in said
    assert "nothing was deleted" in said
    assert tree_of(src) == FILES


@pytest.mark.parametrize("answer", [b"y\n", b"YES\n"])
@pytest.mark.parametrize("command", [["rm"], ["cp", "--dryrun", "--delete-src"]])
def test_rm_asks_and_yes_removes(tmp_path: Path, answer: bytes, command: list[str]) -> None:
    src, dst = put(tmp_path / "src", FILES), put(tmp_path / "dst", EXTRA)
    code, said = on_terminal(answer, *command, src, *([dst] if command[0] == "cp" else []))
    assert code == 0, said
    assert f"deleted {len(FILES)} " in said
    assert src.is_dir()
    assert list(src.iterdir()) == []
    assert tree_of(dst) == EXTRA


def test_rm_removes_nothing_where_nobody_can_be_asked(adsmig: Adsmig, tmp_path: Path) -> None:
    src = put(tmp_path / "src", FILES)
    assert "--yes" in adsmig("rm", src, code=3).stderr
    assert "LARGEST" in adsmig("rm", "--dryrun", src).stdout
    adsmig("rm", "--dryrun", "--yes", src)
    assert tree_of(src) == FILES
    adsmig("rm", "-y", src)
    assert list(src.iterdir()) == []


def test_a_dry_run_says_that_the_real_one_would_delete_nothing(
    adsmig: Adsmig, tmp_path: Path
) -> None:
    src, dst = put(tmp_path / "src", {}), put(tmp_path / "dst", FILES)
    words = ["sync", "--delete-dst", src, dst]
    for options in ([], ["--max-delete", "1", "--yes"]):
        told = adsmig(*words, *options, "--dryrun").stderr
        assert told.startswith("adsmig: nothing would be deleted: ")
        done = adsmig(*words, *options, code=3).stderr
        assert told.replace("would be deleted", "was deleted") in done
    said = [json.loads(line) for line in adsmig(*words, "--dryrun", "--json").stdout.splitlines()]
    assert [one["event"] for one in said if "nothing would be" in str(one)] == ["refusal"]
    assert adsmig(*words, "--dryrun", "--yes").stderr == ""


@pytest.mark.parametrize("command", ["resume", "retry"])
def test_a_deletion_that_was_broken_off_is_not_gone_on_with_without_being_asked(
    adsmig: Adsmig, tmp_path: Path, command: str
) -> None:
    src = put(tmp_path / "src", FILES)
    fail = f"delete.before:1:group:{tmp_path / 'fail'}"
    words = [sys.executable, "-m", "adsmig", "rm", "--yes", "--workers", "1", str(src)]
    env = {**os.environ, "ADSMIG_FAILPOINT": fail}
    assert subprocess.run(words, env=env, start_new_session=True).returncode == -signal.SIGKILL
    write(src / "new", b"the only copy")
    assert "nothing was deleted" in adsmig(command, code=3).stderr
    assert (src / "new").exists()
    adsmig(command, "--yes")
    assert list(src.iterdir()) == []


def test_a_deletion_is_not_repeated_without_being_asked(adsmig: Adsmig, tmp_path: Path) -> None:
    old, names = tmp_path / "src" / "old", tmp_path / "names"
    new = put(tmp_path / "src", {"old": b"1"}) / "new"
    names.write_text("old\nnew\n")
    for options in ([], ["--files-from", names]):
        write(old, b"1")
        adsmig("rm", "--yes", *options, tmp_path / "src")
        write(new, b"the only copy")
        assert "nothing was deleted" in adsmig("again", code=3).stderr
        assert new.exists()
    adsmig("again", "--yes", code=1)  # for one of the names is not there
    assert not new.exists()


@pytest.mark.parametrize("command", [["rm"], ["cp", "--dryrun", "--delete-src"]])
def test_rm_does_not_ask_where_there_is_nothing_to_delete(
    adsmig: Adsmig, tmp_path: Path, command: list[str]
) -> None:
    src = put(tmp_path / "src", FILES)
    words = [*command, "--include", "nothing", src, *([tmp_path / "dst"] if command[1:] else [])]
    code, said = on_terminal(b"n\n", *words)
    assert code == 0
    assert "found nothing to delete" in said
    assert "[y/N]" not in said
    assert "--yes" not in adsmig(*words).stderr
    assert tree_of(src) == FILES


def test_rm_asks_for_directories_alone(adsmig: Adsmig, tmp_path: Path) -> None:
    src = put(tmp_path / "src", {"a/b/": b""})
    assert "--yes" in adsmig("rm", src, code=3).stderr
    adsmig("rm", "--yes", src)
    assert list(src.iterdir()) == []


REMOVED = {
    "nothing else": ([], set(FILES)),
    "include": (["--include", "^b/"], {"b/x", "b/y/z"}),
    "exclude": (["--exclude", "^b/"], {"a", "c"}),
    "exclude dir": (["--exclude-dir", "y"], {"a", "b/x", "c"}),
    "include dir": (["--include-dir", "y"], {"b/y/z"}),
    "range": (["--start", "b/x", "--end", "b/y/z"], {"b/x", "b/y/z"}),
    "size": (["--min-size", "3"], {"b/x", "b/y/z"}),
    "files from": (["--files-from", "names"], {"b/x", "b/y/z", "c"}),
}


@pytest.mark.parametrize("name", REMOVED)
def test_rm_removes_what_filters_select(
    here: Here, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "names").write_text("b/\nc\n")
    options, goes = REMOVED[name]
    src = put(tmp_path / "src", FILES)
    said = here("rm", "--yes", *options, src)
    assert f"deleted {len(goes)} " in said
    assert FILES.keys() - tree_of(src).keys() == goes
    assert src.is_dir()


@pytest.mark.parametrize("name", REMOVED)
def test_rm_removes_what_filters_select_from_a_store(
    here: Here, store: Bucket, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "names").write_text("b/\nc\n")
    options, goes = REMOVED[name]
    store.put(FILES)
    beside = Bucket(store.server, store.name, "p-old/").put({"x": b"x"})
    here("rm", "--yes", *options, store.url)
    assert FILES.keys() - store.names() == goes
    assert beside.names() == {"x"}


def test_rm_of_a_name_without_a_slash_is_that_object_or_that_directory(
    here: Here, store: Bucket
) -> None:
    store.put({"data/x": b"x", "data-old/x": b"x", "data2": b"x"})
    here("rm", "--yes", store.url + "data")
    assert store.names() == {"data-old/x", "data2"}
    here("rm", "--yes", store.url + "data2")
    assert store.names() == {"data-old/x"}


def test_rm_of_one_file_removes_that(here: Here, tmp_path: Path) -> None:
    src = put(tmp_path / "src", {"a": b"a", "a.txt": b"b"})
    here("rm", "--yes", src / "a")
    assert tree_of(src) == {"a.txt": b"b"}
    here("rm", "--yes", src / "a", code=3)


def test_rm_never_follows_links(here: Here, tmp_path: Path) -> None:
    src, other = put(tmp_path / "src", FILES), put(tmp_path / "other", {"f": b"f", "d/g": b"g"})
    for name, target in {
        "to dir": other, "b/to file": other / "f", "broken": "nowhere", "loop": "..",
    }.items():  # fmt: skip
        (src / name).symlink_to(target)
    here("rm", "--yes", src)
    assert list(src.iterdir()) == []
    assert tree_of(other) == {"f": b"f", "d/g": b"g"}
    put(src, FILES)
    (src / "to dir").symlink_to(other)
    here("cp", "--dryrun", "--delete-src", "--yes", src, tmp_path / "dst")
    assert list(src.iterdir()) == []
    assert not (tmp_path / "dst").exists()
    assert tree_of(other) == {"f": b"f", "d/g": b"g"}


def test_rm_through_a_link_named_on_the_command_line_empties_what_it_names(
    here: Here, tmp_path: Path
) -> None:
    other = put(tmp_path / "other", FILES)
    (tmp_path / "link").symlink_to(other)
    here("rm", "--yes", f"{tmp_path}/link/")
    assert list(other.iterdir()) == []
    assert (tmp_path / "link").is_symlink()


def test_rm_of_a_link_removes_the_link(here: Here, tmp_path: Path) -> None:
    other = put(tmp_path / "other", FILES)
    for name, target in {"link": other, "to file": other / "a", "broken": "nowhere"}.items():
        (tmp_path / name).symlink_to(target)
        here("rm", "--yes", tmp_path / name)
        assert not (tmp_path / name).is_symlink()
        assert tree_of(other) == FILES


@pytest.mark.parametrize(
    "span", [["--start", "b"], ["--end", "Z"], ["--start", "a0", "--end", "b"]]
)
def test_an_object_outside_of_start_and_end_is_not_selected(
    here: Here, store: Bucket, tmp_path: Path, span: list[str]
) -> None:
    src = put(tmp_path / "src", {"a": b"1"})
    assert "found no" in here("rm", "--yes", *span, src / "a")
    here("cp", "--delete-src", *span, src / "a", tmp_path / "copy")
    here("cp", "--delete-src", *span, src / "a", store.url)
    assert tree_of(src) == {"a": b"1"}
    assert not (tmp_path / "copy").exists()
    assert store.names() == set()
    here("rm", "--yes", "--start", "a", "--end", "a", src / "a")
    assert tree_of(src) == {}


@pytest.mark.parametrize(
    "words",
    [
        ["sync", "--delete-src", "TREE", "OTHER"],
        ["sync", "--delete-dst", "OTHER", "TREE"],
        ["cp", "--links", "LINK", "OTHER"],
        ["rm", "--yes", "TREE"],
    ],
)
def test_the_files_of_the_run_itself_are_no_data(
    adsmig: Adsmig, tmp_path: Path, words: list[str]
) -> None:
    tree, other = put(tmp_path / "tree", FILES), put(tmp_path / "other", FILES)
    (tmp_path / "link").symlink_to(tree)
    named = {"TREE": tree, "OTHER": other, "LINK": tmp_path / "link"}
    places = [str(named.get(word, word)) for word in words]
    manifest, log = tree / "state" / "job.db", tree / "log"
    manifest.parent.mkdir()
    command = [*places, "--manifest", str(manifest), "--log-file", str(log)]
    for _ in range(2):
        said = adsmig(*command)
        assert "is left out" in said.stderr
        assert manifest.exists()
        assert log.exists()
        assert "finished" in adsmig("status", "--manifest", str(manifest)).stdout
    own = {path.name for path in tree.rglob("*") if "job.db" in path.name} | {"log"}
    assert not own & {path.name for path in other.rglob("*")}


def test_what_is_called_as_the_runs_own_files_at_the_destination_stays(
    adsmig: Adsmig, tmp_path: Path
) -> None:
    src, dst = put(tmp_path / "src", {"a": b"a"}), put(tmp_path / "dst", {"log": b"1", "m": b"2"})
    own = ["--manifest", src / "m", "--log-file", src / "log"]
    adsmig("sync", "--delete-dst", src, dst, *own)
    assert tree_of(dst) == {"a": b"a", "log": b"1", "m": b"2"}


def test_what_is_too_old_stays_at_the_destination_though_it_failed_once(
    here: Here, tmp_path: Path
) -> None:
    src, dst = put(tmp_path / "src", {"k": b"k"}, 0), put(tmp_path / "dst", {"f": b"f"}, 9 * 86400)
    (src / "f").symlink_to("nowhere")
    words = ["sync", "--newer-than", "1d", "--delete-dst", "--manifest", tmp_path / "m", src, dst]
    here(*words, code=1)
    (src / "f").unlink()
    here(*words)
    assert tree_of(dst) == {"k": b"k", "f": b"f"}


def test_a_retry_removes_no_more_than_max_delete(here: Here, tmp_path: Path) -> None:
    src, dst = put(tmp_path / "src", {"a": b"a"}), tmp_path / "dst"
    put(dst, {f"d/{at}": b"x" for at in range(6)})
    (src / "d").symlink_to(".")  # a loop: what it holds is not known
    words = ["--manifest", tmp_path / "m"]
    here("sync", "--delete-dst", "--max-delete", "2", *words, src, dst, code=1)
    (src / "d").unlink()
    (src / "d").mkdir()
    assert "more than --max-delete" in here("retry", *words, code=3)
    assert len(tree_of(dst)) == 7


def test_nothing_is_written_over_the_runs_own_manifest(adsmig: Adsmig, tmp_path: Path) -> None:
    src, dst = put(tmp_path / "src", FILES | {"job.db": b"theirs"}), tmp_path / "dst"
    dst.mkdir()
    done = adsmig("cp", src, dst, "--manifest", dst / "job.db", code=1)
    assert "this is a file of this very job" in done.stderr
    assert done.stderr.count("is left out") == 1
    assert "finished" in adsmig("status", "--manifest", dst / "job.db").stdout
    assert tree_of(dst).keys() >= FILES.keys()


def test_rm_of_all_keys_a_store_can_hold(
    here: Here, moto: Moto, seaweedfs: SeaweedFS, minio: MinIOGateway, bucket: BucketFactory
) -> None:
    keys = {
        moto: ["dir/", "a//b", "./x", " blank ", "tab\t", "%2F", "a+b", "日本/é", "🎈", "q?#&<>"],
        seaweedfs: ["dir/", " blank ", "%2F", "a+b", "日本/é", "🎈", "q?#&<>"],
        minio: ["dir/", "%2F", "a+b", "日本/é", "🎈", "q?#&<>"],
    }
    for server, names in keys.items():
        place = Bucket(server, bucket(server)).put(dict.fromkeys(names, b""))
        assert place.names() == set(names)
        here("rm", "--yes", place.url)
        assert place.names() == set()


# ---------------------------------------------------------------------- against a model

NAMES = ["a", "a-", "b", "c1", "é"]
AGES = [10, 100, 1000, 10_000, 100_000]


@dataclass(frozen=True)
class File:
    content: bytes
    age_s: int


Trees = dict[str, File]
"""By key; a key that ends in ``/`` is an empty directory."""


@dataclass(frozen=True)
class Chosen:
    """Options, as the specification has them."""

    include: tuple[str, ...]
    exclude: tuple[str, ...]
    include_dir: tuple[str, ...]
    exclude_dir: tuple[str, ...]
    start: str | None
    end: str | None
    min_size: int | None
    max_size: int | None
    newer_than: int | None
    older_than: int | None
    how: str
    max_delete: int | None
    yes: bool

    def arguments(self) -> list[str]:
        words = [f"--{self.how}"] if self.how else []
        words += ["--yes"] if self.yes else []
        for name in ("include", "exclude", "include_dir", "exclude_dir"):
            words += [f"--{name.replace('_', '-')}={one}" for one in getattr(self, name)]
        for name in ("start", "end", "min_size", "max_size", "newer_than", "older_than",
                     "max_delete"):  # fmt: skip
            if getattr(self, name) is not None:
                words.append(f"--{name.replace('_', '-')}={getattr(self, name)}")
        return words

    def by_name(self, key: str) -> bool:
        """Whether a key is selected, as far as its name tells."""
        raw = key.encode()
        if self.start is not None and raw < self.start.encode():
            return False
        if self.end is not None and raw > self.end.encode():
            return False
        parts = key.split("/")[:-1]
        above = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        return passes([key], self.include, self.exclude) and passes(
            above, self.include_dir, self.exclude_dir
        )

    def by_look(self, file: File) -> bool:
        """Whether a file is selected, as far as its size and age tell."""
        size, age = len(file.content), file.age_s
        return (
            (self.min_size is None or size >= self.min_size)
            and (self.max_size is None or size <= self.max_size)
            and (self.newer_than is None or age < self.newer_than)
            and (self.older_than is None or age > self.older_than)
        )


def passes(texts: list[str], include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Only includes: what matches one. Only excludes: what matches none. Both: what matches an
    exclude and no include is dropped.
    """

    def any_of(patterns: Sequence[str]) -> bool:
        return any(re.search(pattern, text) for pattern in patterns for text in texts)

    if include and exclude:
        return any_of(include) or not any_of(exclude)
    if include:
        return any_of(include)
    return not any_of(exclude)


def foreseen(src: Trees, dst: Trees, chosen: Chosen) -> tuple[int, Trees]:
    """The exit code, and the files of the destination, after ``sync --delete-dst``."""

    def is_copied(key: str) -> bool:
        here, there = src[key], dst.get(key)
        if not (chosen.by_name(key) and chosen.by_look(here)):
            return False
        if there is None:
            return chosen.how != "existing"
        if chosen.how == "ignore-existing":
            return False
        if chosen.how == "size-only":
            return len(here.content) != len(there.content)
        if chosen.how == "checksum":
            return here.content != there.content
        differs = len(here.content) != len(there.content) or here.age_s < there.age_s
        return differs and not (chosen.how == "update" and there.age_s < here.age_s)

    files = {key for key in src if not key.endswith("/")}
    result = dict(dst) | {key: src[key] for key in files if is_copied(key)}
    extraneous = {
        key for key in dst if key not in src and chosen.by_name(key) and chosen.by_look(dst[key])
    }
    directories = {
        key for key in extraneous if key.endswith("/") and any(k.startswith(key) for k in src)
    }
    extraneous -= directories  # it is there at the source, with something in it
    listed = any(chosen.by_name(key) for key in files)
    refused = (not listed and not chosen.yes) or (
        chosen.max_delete is not None and len(extraneous) > chosen.max_delete
    )
    if extraneous and refused:
        return 3, result
    return 0, {key: file for key, file in result.items() if key not in extraneous}


keys = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join)
files_ = st.builds(File, st.binary(max_size=3), st.sampled_from(AGES))


@st.composite
def two_trees(draw: st.DrawFn) -> tuple[Trees, Trees]:
    """Trees in which nothing is a file here and a directory there."""
    taken: set[str] = set()
    used: set[str] = set()

    def tree() -> Trees:
        made: Trees = {}
        for key, file in draw(st.dictionaries(keys, files_, max_size=8)).items():
            parts = key.split("/")
            above = {"/".join(parts[:n]) for n in range(1, len(parts))}
            if above & taken or key in used:
                continue
            taken.add(key)
            used.update(above)
            made[key] = file
        return made

    src, dst = tree(), tree()
    for tree_ in (src, dst):
        name = draw(st.sampled_from(["", "", "d", "b/d"]))
        if name and not any(part in taken for part in (name, name.split("/")[0])):
            used.update({name, name.split("/")[0]})
            if not any(key.startswith(name + "/") for key in tree_):
                tree_[name + "/"] = File(b"", 10_000)
    assume(not used & taken)
    return src, dst


patterns = st.lists(
    st.sampled_from(["a", "^a", "b$", "^b/", "1$", "-", "é", "/", "x", "d"]), max_size=2
).map(tuple)
rarely = st.one_of(st.just(()), st.just(()), patterns)
limits = st.one_of(st.none(), st.none(), st.integers(0, 3))
spans = st.one_of(st.none(), st.none(), st.none(), st.sampled_from([50, 500, 5000, 50_000]))
ends = st.one_of(st.none(), st.none(), keys, st.sampled_from(["a/", "b0", "", "é"]))
options_ = st.builds(
    Chosen,
    include=rarely,
    exclude=rarely,
    include_dir=rarely,
    exclude_dir=rarely,
    start=ends,
    end=ends,
    min_size=limits,
    max_size=limits,
    newer_than=spans,
    older_than=spans,
    how=st.sampled_from(["", "", "existing", "ignore-existing", "update", "size-only", "checksum"]),
    max_delete=limits,
    yes=st.booleans(),
)


def lay_out(root: Path, tree: Trees, now: float) -> None:
    root.mkdir()
    for key, file in tree.items():
        path = root / key
        if key.endswith("/"):
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.content)
        os.utime(path, (now - file.age_s, now - file.age_s))
    for key in tree:  # a directory that has got an entry since has got another time, too
        if key.endswith("/"):
            os.utime(root / key, (now - tree[key].age_s,) * 2)


@settings(
    max_examples=300,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(two_trees(), options_, st.booleans())
def test_sync_with_deletion_does_what_the_specification_says(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    trees: tuple[Trees, Trees],
    chosen: Chosen,
    short: bool,
) -> None:
    monkeypatch.setattr("adsmig.output.begin_log", lambda *_: None)
    monkeypatch.setattr(coordinator, "SHORT_S", 0 if short else 0.5)  # slices of few keys
    assume(
        chosen.start is None or chosen.end is None or chosen.start.encode() <= chosen.end.encode()
    )
    assume(chosen.min_size is None or chosen.max_size is None or chosen.min_size <= chosen.max_size)
    src, dst = trees
    code, after = foreseen(src, dst, chosen)
    with tempfile.TemporaryDirectory() as name:
        root, now = Path(name), time.time()
        lay_out(root / "src", src, now)
        lay_out(root / "dst", dst, now)
        arguments = ["sync", "--delete-dst", "--workers=1", *chosen.arguments()]
        places = [f"--manifest={root / 'm.db'}", str(root / "src"), str(root / "dst")]
        got = program.run([*arguments, *places])
        said = "".join(capfd.readouterr())
        assert got == code, said
        expected = {key: file.content for key, file in after.items() if not key.endswith("/")}
        assert tree_of(root / "dst") == expected, said
        assert tree_of(root / "src") == {k: f.content for k, f in src.items() if k[-1] != "/"}
        for key in after:
            if key.endswith("/"):
                assert (root / "dst" / key).is_dir()
