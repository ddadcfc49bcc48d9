"""Each option does what the specification says, and would be missed if it were ignored.

Deletions are in test_deletion, ``--https`` in test_tls, ``--bwlimit`` in test_directions, owners
and permissions in test_metadata.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adsmig import failpoint
from adsmig.errors import AdsmigError, ObjectError
from adsmig.ledger import Ledger
from adsmig.manifest import Manifest
from adsmig.model import Entry
from adsmig.small import DEPTH
from adsmig.storage import listing
from adsmig.storage.base import Body
from adsmig.storage.files import LocalFiles, Scan
from adsmig.storage.local import LocalStorage
from tests.conftest import BucketFactory
from tests.e2e.conftest import Adsmig, make_tree, write
from tests.e2e.inside import COLLECTED, Bucket, Here, put, tree_of
from tests.e2e.inside import here as here
from tests.e2e.inside import no_pauses as no_pauses
from tests.e2e.inside import store as store
from tests.recorder import Recorder
from tests.servers import MinIOGateway, Moto, SeaweedFS, Server
from tests.storage.fakes3 import FakeS3, Reply, Request, stored

pytestmark = COLLECTED

WAYS = ["local to local", "local to store", "store to local", "store to store"]


@pytest.fixture(params=WAYS)
def copied(
    request: pytest.FixtureRequest, here: Here, moto: Moto, bucket: BucketFactory, tmp_path: Path
) -> Callable[..., set[str]]:
    """``copied(files, *options)``: the keys that ``cp`` takes from one place to another."""

    def run(files: dict[str, bytes], *options: object, command: str = "cp", code: int = 0) -> Any:
        source, _, target = request.param.split()
        src = put(tmp_path / "src", files)
        places: list[object] = [src, tmp_path / "dst"]
        name = bucket(moto)
        if source == "store":
            places[0] = Bucket(moto, name, "src/").put(files).url
        if target == "store":
            places[1] = Bucket(moto, name, "dst/").url
        here(command, *options, *places, code=code)
        if target == "store":
            return Bucket(moto, name, "dst/").names()
        return set(tree_of(tmp_path / "dst")) if (tmp_path / "dst").exists() else set()

    return run


TREE = {
    key: key.encode()
    for key in ("a", "a-b/x", "a/b" if 0 else "aa", "b/a", "b/b/c", "b/x1", "b0", "c1", "é", "日本")
}

# ---------------------------------------------------------------------- what to look at

RANGES: list[tuple[str | None, str | None]] = [
    ("aa", "b0"),
    ("b/", "b/b/c"),
    ("b/b", "b/x"),
    ("c1", "é"),
    ("z", None),
    (None, "a"),
    ("日本", "日本"),
    (None, "b/a"),
    ("A", "Z"),
]


def in_range(start: str | None, end: str | None) -> set[str]:
    return {
        key
        for key in TREE
        if (start is None or key.encode() >= start.encode())
        and (end is None or key.encode() <= end.encode())
    }


def options_of(start: str | None, end: str | None) -> list[str]:
    words = [] if start is None else ["--start", start]
    return words if end is None else [*words, "--end", end]


@pytest.mark.parametrize(("start", "end"), RANGES)
def test_start_and_end_are_both_inclusive_and_by_bytes(
    here: Here, tmp_path: Path, start: str | None, end: str | None
) -> None:
    src, dst = put(tmp_path / "src", TREE), tmp_path / "dst"
    said = here("cp", *options_of(start, end), src, dst)
    assert set(tree_of(dst)) == in_range(start, end)
    if not in_range(start, end):
        assert "no key lies within" in said
    here("verify", *options_of(start, end), src, dst)  # and looks at nothing else


def test_start_and_end_mean_the_same_on_every_store(
    here: Here, store: Bucket, tmp_path: Path
) -> None:
    """One that lists ``a/b`` before ``a-b`` is among them."""
    store.put(TREE | {"a/b": b"beside a"} if store.server.name == "moto" else TREE)
    for number, (start, end) in enumerate(RANGES):
        other = Bucket(store.server, store.name, f"{number}/")
        here("sync", *options_of(start, end), store.url, other.url)
        assert other.names() - {"a/b"} == in_range(start, end), (start, end)


@pytest.mark.parametrize("option", ["-s==b", "-s =b", "--start =b", "-vs==b"])
def test_a_key_may_begin_with_an_equals_sign(here: Here, tmp_path: Path, option: str) -> None:
    src, dst = put(tmp_path / "src", {"=a": b"1", "=b": b"2", "c": b"3"}), tmp_path / "dst"
    here("cp", *option.split(), src, dst)
    assert set(tree_of(dst)) == {"=b", "c"}


@pytest.mark.parametrize("options", ["-qp 5", "-qp5", "-qp=5", "-q -p=5"])
def test_short_options_may_be_combined_before_the_command(
    here: Here, tmp_path: Path, options: str
) -> None:
    src, dst = put(tmp_path / "src", TREE), tmp_path / "dst"
    assert here(*options.split(), "cp", src, dst) == ""
    assert set(tree_of(dst)) == set(TREE)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--dryrun", "Missing command"),
        ("-qp 50", "Missing command"),
        ("--start", "Missing command"),
        ("--dryrun s o", "No such command 's'"),
        ("-q --frob cp s o", "No such option '--frob'"),
        ("-q --frob", "No such option '--frob'"),
        ("-qz", "No such option '-z'"),
    ],
)
def test_what_is_wrong_before_the_command_is_what_is_told(
    adsmig: Adsmig, line: str, message: str
) -> None:
    done = adsmig(*line.split(), code=2)
    assert re.fullmatch(rf"adsmig: {message}[^\n]*\n", done.stderr)


@pytest.mark.parametrize("line", ["-V", "-v -V", "-vV", "-V cp s o", "-p 5 --version", "-q -V -z"])
def test_the_version_is_told_whatever_else_is_asked_for(adsmig: Adsmig, line: str) -> None:
    assert adsmig(*line.split()).stdout.startswith("adsmig 0.")


def test_the_habit_of_other_tools_makes_no_local_directory(
    adsmig: Adsmig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "src", TREE)
    done = adsmig("cp", "src/", "127.0.0.1:x", code=2)
    assert re.fullmatch(r"adsmig: [^\n]*USER@HOST:PATH[^\n]*\./name\n", done.stderr)
    assert os.listdir() == ["src"]
    adsmig("cp", "src/", "./127.0.0.1:x")
    assert tree_of(tmp_path / "127.0.0.1:x") == TREE
    adsmig("sync", "src/", "127.0.0.1:x")  # for now it is there


def with_names(names: str, *arguments: object, at: str = "-", code: int = 0) -> str:
    """The program with names at its standard input; what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "adsmig", *map(str, arguments), "--files-from", at],
        input=names, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("at", ["-", "/dev/stdin"])
def test_names_may_come_from_a_pipe(adsmig: Adsmig, tmp_path: Path, at: str) -> None:
    src, dst = put(tmp_path / "src", TREE), tmp_path / "dst"
    with_names("a\nc1\nlater\n", "cp", src, dst, at=at, code=1)
    assert set(tree_of(dst)) == {"a", "c1"}
    put(src, {"later": b"by now", "more": b"not named"})
    adsmig("retry")
    assert set(tree_of(dst)) == {"a", "c1", "later"}
    (src / "a").write_bytes(b"another content")
    adsmig("again")
    assert tree_of(dst) == {"a": b"another content", "c1": b"c1", "later": b"by now"}
    assert "1 unchanged" in with_names("c1\n", "sync", src, dst)  # other names, and the same job
    assert len(adsmig("jobs", "--json").stdout.splitlines()) == 1
    assert "names no keys" in with_names("", "sync", src, dst, code=2)


def test_names_of_a_shells_pipe_are_read_once(tmp_path: Path) -> None:
    src, dst = put(tmp_path / "src", TREE), tmp_path / "dst"
    line = f"{sys.executable} -m adsmig cp --files-from <(printf 'b/a\\n') {src} {dst}"
    subprocess.run(["bash", "-c", line], check=True, capture_output=True)
    assert set(tree_of(dst)) == {"b/a"}


def test_rm_looks_at_piped_names_twice(tmp_path: Path) -> None:
    src = put(tmp_path / "src", TREE)
    assert "would delete 2 " in with_names("a\naa\n", "rm", src, code=3)
    assert "would delete 2 " in with_names("a\naa\n", "rm", "--dryrun", src)
    assert "deleted 2 " in with_names("a\naa\n", "rm", "--yes", src)
    assert set(tree_of(src)) == set(TREE) - {"a", "aa"}


def test_a_killed_run_goes_on_with_piped_names(
    adsmig: Adsmig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    src, dst, manifest = put(tmp_path / "src", TREE), tmp_path / "dst", tmp_path / "m.db"
    words = ["cp", src, dst, "--manifest", manifest, "--workers", "1"]
    monkeypatch.setenv(failpoint.VARIABLE, f"file.staged:1:kill:{tmp_path}/hits")
    with_names("a\nc1\n", *words, code=-signal.SIGKILL)
    assert not {"a", "c1"} & set(os.listdir(dst))
    adsmig("resume", "--manifest", manifest)
    assert {"a", "c1"} == set(os.listdir(dst))
    Path(f"{manifest}.names").unlink()
    said = adsmig("again", "--manifest", manifest, code=3).stderr
    assert "give the whole command again" in said


def test_a_list_that_is_not_there_leaves_no_job(adsmig: Adsmig, tmp_path: Path) -> None:
    src = put(tmp_path / "src", TREE)
    adsmig("cp", "--files-from", tmp_path / "missing", src, tmp_path / "dst", code=2)
    assert "no jobs" in adsmig("jobs").stdout


def test_an_end_before_the_start_is_refused(here: Here, tmp_path: Path) -> None:
    src = put(tmp_path / "src", TREE)
    said = here("cp", "--start", "b", "--end", "a", src, tmp_path / "dst", code=2)
    assert "--end 'a' comes before --start 'b'" in said


FILTERS: dict[str, tuple[list[str], set[str]]] = {
    "include": (["--include", "^b"], {"b/a", "b/b/c", "b/x1", "b0"}),
    "includes": (["--include", "^c", "--include", "x"], {"a-b/x", "b/x1", "c1"}),
    "exclude": (["--exclude", "b"], {"a", "aa", "c1", "é", "日本"}),
    "excludes": (["--exclude", "b", "--exclude=1$", "--exclude", "本"], {"a", "aa", "é"}),
    "both": (["--exclude", "b", "--include", "x"], {"a", "a-b/x", "aa", "b/x1", "c1", "é", "日本"}),
    "both, the other way round": (
        ["--include", "x", "--exclude", "b"],
        {"a", "a-b/x", "aa", "b/x1", "c1", "é", "日本"},
    ),
    "groups": (["--include", r"^(.)\1$", "--include", r"^(b)/\1/"], {"aa", "b/b/c"}),
    "no letters": (["--include", "^[^a-z]+$"], {"é", "日本"}),
    "include dir": (["--include-dir", "^b$"], {"b/a", "b/b/c", "b/x1"}),
    "include deep dir": (["--include-dir", "b/b"], {"b/b/c"}),
    "exclude dir": (["--exclude-dir", "^b$"], {"a", "a-b/x", "aa", "b0", "c1", "é", "日本"}),
    "exclude deep dir": (["--exclude-dir", "b/b$"], set(TREE) - {"b/b/c"}),
    "both dirs": (["--exclude-dir", "^b$", "--include-dir", "^b/b$"], set(TREE) - {"b/a", "b/x1"}),
    "key and dir": (["--exclude-dir", "b/b", "--include", "b"], {"a-b/x", "b/a", "b/x1", "b0"}),
    "smallest": (["--min-size", "4"], {"a-b/x", "b/b/c", "b/x1", "日本"}),
    "largest": (["--max-size", "1"], {"a"}),
    "sizes": (["--min-size", "2", "--max-size=3"], {"aa", "b/a", "b0", "c1", "é"}),
    "sizes with units": (["--max-size", "0.002k"], {"a", "aa", "b0", "c1", "é"}),
    "everything": (["--min-size", "1k"], set()),
}


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("command", ["cp", "sync"])
def test_only_what_filters_select_is_copied(
    copied: Callable[..., set[str]], name: str, command: str
) -> None:
    options, keys = FILTERS[name]
    assert copied(TREE, *options, command=command) == keys


def test_what_filters_drop_is_not_looked_at_by_other_commands(here: Here, tmp_path: Path) -> None:
    src = put(tmp_path / "src", {"a": b"1", "b": b"2", "secret/s": b"3"})
    dst = put(tmp_path / "dst", {"a": b"1", "other/s": b"4"})
    options = ["--exclude", "^b", "--exclude-dir", "secret|other"]
    assert "1 equal" in here("verify", *options, src, dst)
    here("verify", src, dst, code=1)
    assert "1 found (1 B)" in here("inventory", *options, src)
    assert "3 found (3 B)" in here("inventory", src)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--include", "("), ("--exclude", "*.txt"), ("--exclude-dir", "[a"), ("--min-size", "big"),
        ("--newer-than", "yesterday"), ("--older-than", "2026-13-01"), ("--start", None),
    ],
)  # fmt: skip
def test_a_value_that_makes_no_sense_is_answered_in_one_line(
    here: Here, tmp_path: Path, option: str, value: str | None
) -> None:
    put(tmp_path / "src", TREE)
    words = [tmp_path / "src", tmp_path / "dst", option]
    done = subprocess.run(
        [sys.executable, "-m", "adsmig", "cp", *map(str, words), *([value] if value else [])],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert re.fullmatch(rf"adsmig: [^\n]*{option}[^\n]*\n", done.stderr)
    assert not (tmp_path / "dst").exists()


def test_an_excluded_directory_of_a_store_is_not_listed(
    here: Here,
    moto: Moto,
    seaweedfs: SeaweedFS,
    bucket: BucketFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listing, "PAGE", 5)
    monkeypatch.setattr(listing.flat, "__defaults__", (5, None))
    files = {"a": b"a", "z": b"z"} | {f"skip/{n // 10}/{n:03d}": b"x" for n in range(60)}
    for server in (moto, seaweedfs):
        store = Bucket(server, bucket(server)).put(files)
        with Recorder(server.host) as recorder:
            url = store.url.replace(server.host, recorder.host)
            here("cp", "--exclude-dir", "^skip$", url, tmp_path / server.name)
            lists = [one for one in recorder.requests if "list-type" in one.query]
            assert set(tree_of(tmp_path / server.name)) == {"a", "z"}
            if server is seaweedfs:
                below = {one.query["prefix"][0] for one in lists}
                assert not [prefix for prefix in below if prefix.startswith("p/skip/")]
            assert len(lists) < 60 / 5


def test_only_the_keys_of_a_file_are_copied(
    copied: Callable[..., set[str]], tmp_path: Path
) -> None:
    names = tmp_path / "names"
    names.write_text("# a comment\n; another\n\nc1\nb/\na-b/x\nc1\nb/a\n日本\n")
    keys = {"c1", "a-b/x", "b/a", "b/b/c", "b/x1", "日本"}
    assert copied(TREE, "--files-from", names) == keys


def test_keys_of_a_file_go_with_filters_and_ranges(
    copied: Callable[..., set[str]], tmp_path: Path
) -> None:
    (tmp_path / "names").write_text("b/\nc1\naa\n")
    options = ["--files-from", tmp_path / "names", "--start", "b", "--exclude", "x1"]
    assert copied(TREE, *options, command="sync") == {"b/a", "b/b/c", "c1"}


def test_a_key_of_a_file_that_is_not_there_is_a_failure_by_name(
    here: Here, store: Bucket, tmp_path: Path
) -> None:
    (tmp_path / "names").write_text("a\nno such key\nb/no such\nno/\n")
    src = put(tmp_path / "src", TREE)
    said = here("cp", "--files-from", tmp_path / "names", src, store.url, code=1)
    assert store.names() == {"a"}
    for key in ("no such key", "b/no such"):
        assert re.search(rf"^\S+ +{key}  .*not there", said, re.MULTILINE)
    here("cp", "--files-from", tmp_path / "names", store.url, tmp_path / "back", code=1)
    assert set(tree_of(tmp_path / "back")) == {"a"}


def test_keys_of_a_file_need_no_listing(
    here: Here, moto: Moto, bucket: BucketFactory, tmp_path: Path
) -> None:
    store = Bucket(moto, bucket(moto)).put(TREE)
    (tmp_path / "names").write_text("a\nb/a\n")
    with Recorder(moto.host) as recorder:
        url = store.url.replace(moto.host, recorder.host)
        here("sync", "--files-from", tmp_path / "names", url, tmp_path / "dst")
        limits = {one.query.get("max-keys", [""])[0] for one in recorder.requests}
        assert limits <= {"", "1"}  # one key tells whether the bucket is there
    assert set(tree_of(tmp_path / "dst")) == {"a", "b/a"}


@pytest.mark.parametrize("content", [None, b"", b"# nothing\n\n"])
def test_a_file_of_no_keys_is_refused(here: Here, tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "names").write_bytes(content)
    src = put(tmp_path / "src", TREE)
    here("cp", "--files-from", tmp_path / "names", src, tmp_path / "dst", code=2)
    assert not list(tmp_path.glob("dst/*"))


def test_files_are_selected_by_age(here: Here, tmp_path: Path) -> None:
    src = put(tmp_path / "src", {})
    ages = {"minute": 60, "hour": 3600, "day": 86400, "month": 32 * 86400, "years": 800 * 86400}
    for name, age_s in ages.items():
        write(src / name, name.encode(), age_s)
    day = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() - 2 * 86400))
    for number, (options, keys) in enumerate(
        {
            ("--newer-than", "2h"): {"minute", "hour"},
            ("--max-age", "7200"): {"minute", "hour"},
            ("--older-than", "2h"): {"day", "month", "years"},
            ("--min-age", "1h30m"): {"day", "month", "years"},
            ("--newer-than", "2y", "--older-than=1d"): {"day", "month"},
            ("--newer-than", "1M"): {"minute", "hour", "day"},
            ("--older-than", "2w"): {"month", "years"},
            ("--newer-than", day): {"minute", "hour", "day"},
            ("--older-than", day): {"month", "years"},
            ("--newer-than", "2000-01-01"): set(ages),
        }.items()
    ):
        keys = keys - {"day"} if options[-1] == "--older-than=1d" else keys
        dst = tmp_path / str(number)
        here("sync", *options, src, dst)
        assert set(tree_of(dst)) - {"day"} == keys - {"day"}, options
        if "=1d" not in options[-1]:
            assert ("day" in tree_of(dst)) == ("day" in keys), options


def test_objects_are_selected_by_when_they_were_stored(
    here: Here, store: Bucket, tmp_path: Path
) -> None:
    store.put({"x": b"x"})
    here("cp", "--older-than", "1h", store.url, tmp_path / "old")
    here("cp", "--newer-than", "1h", store.url, tmp_path / "new")
    assert not list(tmp_path.glob("old/*"))
    assert tree_of(tmp_path / "new") == {"x": b"x"}


def test_a_run_that_selected_nothing_says_what_was_listed_and_what_dropped_it(
    here: Here, store: Bucket, tmp_path: Path
) -> None:
    src = put(tmp_path / "src", TREE)
    store.put(TREE)
    for place in (src, store.url):
        for options, told in {
            ("--include", "nowhere"): "--include 'nowhere'",
            ("--exclude", "."): "--exclude '.'",
            ("--include-dir", "nowhere"): "--include-dir 'nowhere'",
            ("--max-size", "0"): "--max-size 0",
            ("--newer-than", "2100-01-01"): "--newer-than 2100-01-01",
        }.items():
            said = here("sync", *options, place, tmp_path / "dst")
            assert re.search("found nothing to sync: .*(src|/p/) was listed to its end", said)
            assert f"{told} dropped {len(TREE)} of {len(TREE)} objects, such as a\n" in said
        said = here("sync", "--start", "zz", "--end", "zzz", place, tmp_path / "dst")
        assert "no key lies within --start 'zz' and --end 'zzz'" in said
    said = here("sync", put(tmp_path / "empty", {}), tmp_path / "dst")
    assert "it is empty" in said


def test_a_prefix_that_nothing_has_is_an_error_and_an_empty_bucket_is_none(
    here: Here, store: Bucket, bucket: BucketFactory, tmp_path: Path
) -> None:
    """A mistyped one would look like success for ever."""
    store.put({"f": b"f"})
    nowhere, dst = Bucket(store.server, store.name, "no/"), tmp_path / "dst"
    for words in (("cp", nowhere.url, dst), ("sync", nowhere.url[:-1], dst),
                  ("verify", nowhere.url, dst), ("inventory", nowhere.url),
                  ("sync", "--dryrun", nowhere.url, dst)):  # fmt: skip
        for _ in range(2):
            said = here(*words, code=3)
            assert said.count("/no/") == said.count("\n") == 1
            assert "nothing is at s3://" in said
    here("rm", "--yes", nowhere.url)
    empty = Bucket(store.server, bucket(store.server), "")
    assert "it is empty" in here("sync", empty.url, dst)
    assert "it is empty" in here("inventory", empty.url)
    # One that became empty is as it ever was.
    here("sync", store.url, tmp_path / "other")
    store.server.client().delete_object(Bucket=store.name, Key="p/f")
    assert "it is empty" in here("sync", store.url, tmp_path / "other")
    assert "it is empty" in here("sync", "--dryrun", store.url, tmp_path / "other")
    assert "nothing was deleted" in here(
        "sync", "--delete-dst", store.url, tmp_path / "other", code=3
    )


def test_an_option_that_drops_a_part_is_told_with_the_result(here: Here, tmp_path: Path) -> None:
    src = put(tmp_path / "src", TREE)
    assert "9 more not selected" in here("cp", "--max-size", "1", src, tmp_path / "dst")


# ---------------------------------------------------------------------- when to copy

BEFORE = {
    # key: content and age at the source, content and age at the destination
    "new": ((b"new", 3600), None),
    "same": ((b"same", 3600), (b"same", 3600)),
    "longer": ((b"longer", 3600), (b"short", 3600)),
    "newer here": ((b"here", 60), (b"HERE", 3600)),
    "newer there": ((b"there", 3600), (b"THERE", 60)),
    "longer, newer there": ((b"1", 3600), (b"22", 60)),
    "touched": ((b"touch", 60), (b"touch", 3600)),
}
COPIED = {
    "plain": ([], {"new", "longer", "newer here", "longer, newer there", "touched"}),
    "existing": (["--existing"], {"longer", "newer here", "longer, newer there", "touched"}),
    "ignore existing": (["--ignore-existing"], {"new"}),
    "update": (["--update"], {"new", "longer", "newer here", "touched"}),
    "size only": (["--size-only"], {"new", "longer", "longer, newer there"}),
    "compare size": (["--compare", "size"], {"new", "longer", "longer, newer there"}),
    "checksum": (
        ["--checksum"], {"new", "longer", "newer here", "newer there", "longer, newer there"},
    ),
    "existing checksum": (
        ["--existing", "-c"], {"longer", "newer here", "newer there", "longer, newer there"},
    ),
    "update size": (["-u", "--size-only"], {"new", "longer"}),
}  # fmt: skip


def written_by(here: Here, tmp_path: Path, *arguments: object) -> set[str]:
    """The keys of BEFORE that ``sync`` or ``cp`` with these arguments writes."""
    src, dst = put(tmp_path / "src", {}), put(tmp_path / "dst", {})
    now = time.time()
    for key, sides in BEFORE.items():
        for root, side in zip((src, dst), sides, strict=True):
            if side:
                (root / key).write_bytes(side[0])
                os.utime(root / key, (now - side[1],) * 2)
    inodes = {path.name: path.stat().st_ino for path in dst.iterdir()}
    here(*arguments, src, dst)
    written = {path.name for path in dst.iterdir() if inodes.get(path.name) != path.stat().st_ino}
    for key in written:
        assert (dst / key).read_bytes() == BEFORE[key][0][0]
    return written


@pytest.mark.parametrize("name", COPIED)
def test_sync_copies_what_an_option_makes_of_changed(here: Here, tmp_path: Path, name: str) -> None:
    options, keys = COPIED[name]
    assert written_by(here, tmp_path, "sync", *options) == keys


def test_cp_copies_everything_unless_an_option_asks_what_is_there(
    here: Here, tmp_path: Path
) -> None:
    assert written_by(here, tmp_path, "cp") == set(BEFORE)
    for number, options in enumerate((["--existing"], ["--ignore-existing"], ["-u"], ["-c"])):
        (tmp_path / str(number)).mkdir()
        keys = {
            "--existing": set(BEFORE) - {"new"},
            "--ignore-existing": {"new"},
            "-u": set(BEFORE) - {"newer there", "longer, newer there"},
            "-c": COPIED["checksum"][1],
        }[options[0]]
        assert written_by(here, tmp_path / str(number), "cp", *options) == keys, options


@pytest.mark.parametrize("name", ["plain", "ignore existing", "existing", "size only", "checksum"])
def test_sync_to_a_store_copies_what_an_option_makes_of_changed(
    here: Here, store: Bucket, tmp_path: Path, name: str
) -> None:
    src = put(tmp_path / "src", {"new": b"1", "same": b"2", "longer": b"33", "other": b"4"})
    store.put({"same": b"2", "longer": b"3", "other": b"x"})
    keys = {
        # Newer there, of the same size: taken for the same, but if the content is looked at.
        "plain": {"new", "longer"},
        "ignore existing": {"new"},
        "existing": {"longer"},
        "size only": {"new", "longer"},
        "checksum": {"new", "longer", "other"},
    }[name]
    with Recorder(store.server.host) as recorder:
        url = store.url.replace(store.server.host, recorder.host)
        here("sync", *COPIED[name][0], src, url)
        assert {path.rpartition("/")[2] for path, _ in recorder.sent()} == keys


def test_update_leaves_alone_what_is_newer_in_a_store(
    here: Here, store: Bucket, tmp_path: Path
) -> None:
    src = put(tmp_path / "src", {"longer": b"11"})
    store.put({"longer": b"3"})
    assert "1 left alone" in here("sync", "-u", src, store.url)
    assert store.content() == {"longer": b"3"}
    os.utime(src / "longer", (time.time() + 60,) * 2)
    here("sync", "-u", src, store.url)
    assert store.content() == {"longer": b"11"}


@pytest.mark.parametrize(
    "options",
    [
        ["--existing", "--ignore-existing"],
        ["--size-only", "--checksum"],
        ["--compare", "manifest", "--size-only"],
        ["--compare", "manifest", "--update"],
        ["--links", "--recordName", "x"],
        ["--max-delete", "3"],
    ],
)
def test_options_that_contradict_one_another_are_refused(
    here: Here, tmp_path: Path, options: list[str]
) -> None:
    put(tmp_path / "src", TREE)
    said = here("sync", *options, tmp_path / "src", tmp_path / "dst", code=2)
    assert said.count("\n") == 1
    assert not (tmp_path / "dst").exists()


# ---------------------------------------------------------------------- --compare manifest


class Compared:
    """A store that is migrated to another every month, with what passes by recorded."""

    def __init__(self, here: Here, src: Bucket, dst: Bucket, two: tuple[Recorder, Recorder]):
        self._here, self.src, self.dst, (self.left, self.right) = here, src, dst, two

    def sync(self, *options: object, code: int = 0) -> tuple[set[str], list[str]]:
        """The keys that were stored, and the methods that the destination was asked with, but for
        the look whether it is there.
        """
        self.left.clear()
        self.right.clear()
        src = self.src.url.replace(self.src.server.host, self.left.host)
        dst = self.dst.url.replace(self.dst.server.host, self.right.host)
        self._here("sync", "--compare", "manifest", *options, src, dst, code=code)
        sent = {path.removeprefix(f"/{self.dst.name}/p/") for path, _ in self.right.sent()}
        # By which the program finds out whether both are one.
        sent = {key for key in sent if not key.startswith(".adsmig-")}
        look = {"list-type": ["2"], "encoding-type": ["url"], "max-keys": ["1"], "prefix": ["p/"]}
        looks = [one for one in self.right.requests if one.query == look]
        assert len(looks) == 1
        return sent, [one.method for one in self.right.requests if one.query != look]


@pytest.fixture
def monthly(
    here: Here, moto: Moto, minio: MinIOGateway, bucket: BucketFactory
) -> Iterator[Compared]:
    with Recorder(moto.host) as left, Recorder(minio.host) as right:
        src, dst = Bucket(moto, bucket(moto)), Bucket(minio, bucket(minio))
        yield Compared(here, src, dst, (left, right))
        gc.collect()  # connections end before the recorders do


def test_compared_with_the_manifest_only_the_source_is_asked(monthly: Compared) -> None:
    monthly.src.put(TREE)
    assert monthly.sync()[0] == set(TREE)
    assert monthly.sync() == (set(), [])
    assert not [one for one in monthly.left.data() if one.path.count("/") > 3]
    assert monthly.left.data() == []
    monthly.src.put({"c1": b"another content", "b/new": b"n"})
    sent, methods = monthly.sync()
    assert sent == {"c1", "b/new"}
    assert methods.count("PUT") == 2
    assert not [one for one in monthly.right.requests if one.query.get("max-keys") == ["1000"]]
    assert monthly.sync() == (set(), [])
    assert monthly.dst.content() == TREE | {"c1": b"another content", "b/new": b"n"}


def test_compared_with_the_manifest_what_was_put_back_is_noticed(monthly: Compared) -> None:
    """Of the same size, at a destination that is not looked at."""
    monthly.src.put(TREE)
    monthly.sync()
    client = monthly.src.server.client()
    client.delete_object(Bucket=monthly.src.name, Key="p/c1")
    assert monthly.sync()[0] == set()
    assert "c1" in monthly.dst.names()  # nobody said that it was to go
    monthly.src.put({"c1": b"XX"})
    assert monthly.sync()[0] == {"c1"}
    assert monthly.dst.content() == TREE | {"c1": b"XX"}


def test_compared_with_the_manifest_what_is_gone_goes_and_comes_back(monthly: Compared) -> None:
    monthly.src.put(TREE)
    monthly.sync("--delete-dst")
    monthly.dst.put({"stranger": b"of somebody else"})  # never copied: not the job's to remove
    client = monthly.src.server.client()
    for key in ("c1", "b/b/c"):
        client.delete_object(Bucket=monthly.src.name, Key=f"p/{key}")
    monthly.sync("--delete-dst")
    assert monthly.dst.names() == (TREE.keys() | {"stranger"}) - {"c1", "b/b/c"}
    monthly.src.put({"c1": TREE["c1"], "b/b/c": TREE["b/b/c"]})
    assert monthly.sync("--delete-dst")[0] == {"c1", "b/b/c"}
    assert monthly.dst.content() == TREE | {"stranger": b"of somebody else"}


def test_compared_with_the_manifest_a_failure_is_tried_again(
    here: Here, moto: Moto, bucket: BucketFactory, tmp_path: Path
) -> None:
    src, store = put(tmp_path / "src", TREE), Bucket(moto, bucket(moto))
    (src / "broken").symlink_to("nowhere")
    here("sync", "--compare", "manifest", src, store.url, code=1)
    (src / "broken").unlink()
    write(src / "broken", b"mended", age_s=7200)
    said = here("sync", "--compare", "manifest", src, store.url)
    assert f"copied 1 object (6 B), {len(TREE)} unchanged" in said
    write(src / "c1", b"XX", age_s=9000)  # older than before, and of the same size
    assert "copied 1 object (" in here("sync", "--compare", "manifest", src, store.url)
    assert store.content()["c1"] == b"XX"


@pytest.mark.parametrize("way", [[], ["--checksum"]], ids=["listed", "read"])
def test_what_was_there_already_is_on_record_as_well(
    here: Here, moto: Moto, bucket: BucketFactory, tmp_path: Path, way: list[str]
) -> None:
    src, store = put(tmp_path / "src", TREE), Bucket(moto, bucket(moto)).put(TREE)
    assert f"{len(TREE)} unchanged" in here("sync", *way, src, store.url)
    assert f"{len(TREE)} unchanged" in here("sync", "--compare", "manifest", src, store.url)
    write(src / "c1", b"XX", age_s=9000)  # older than before, and of the same size
    if not way:
        # That it seems unchanged, must not hide it from who goes by what is on record.
        assert "copied 0 objects" in here("sync", src, store.url)
    assert "copied 1 object (" in here("sync", "--compare", "manifest", src, store.url)
    assert store.content()["c1"] == b"XX"


def test_compared_with_the_manifest_a_dry_run_says_the_same(monthly: Compared) -> None:
    monthly.src.put(TREE)
    monthly.sync()
    monthly.src.put({"c1": b"another content"})
    src, dst = monthly.src.url, monthly.dst.url
    left, right = monthly.left.host, monthly.right.host
    src = src.replace(monthly.src.server.host, left)
    dst = dst.replace(monthly.dst.server.host, right)
    monthly.right.clear()
    said = monthly._here("sync", "--compare", "manifest", "--dryrun", src, dst)
    assert "would copy 1 object (" in said
    assert monthly.right.requests == []
    assert monthly.sync()[0] == {"c1"}


# ---------------------------------------------------------------------- links


def test_links_are_followed_unless_told_otherwise(
    here: Here, store: Bucket, tmp_path: Path
) -> None:
    src, other = put(tmp_path / "src", {"f": b"f"}), put(tmp_path / "other", {"deep/g": b"g"})
    (src / "dir").symlink_to(other)
    (src / "file").symlink_to("f")
    (src / "loop").symlink_to(".")
    (src / "broken").symlink_to("nowhere")
    files = {"f": b"f", "file": b"f", "dir/deep/g": b"g"}
    for number, dst in enumerate((tmp_path / "dst", store.url)):
        said = here("cp", src, dst, code=1)
        assert re.search(r"^\S+ +broken  a broken symbolic link", said, re.MULTILINE)
        assert re.search(r"^\S+ +loop/  a symbolic link to a directory above", said, re.MULTILINE)
        assert (tree_of(tmp_path / "dst"), store.content())[number] == files
    assert not (tmp_path / "dst/dir").is_symlink()
    assert not (tmp_path / "dst/file").is_symlink()


@pytest.mark.parametrize("command", ["cp", "sync"])
def test_links_are_copied_as_links(here: Here, tmp_path: Path, command: str) -> None:
    src, other = put(tmp_path / "src", {"f": b"f"}), put(tmp_path / "other", {"deep/g": b"g"})
    targets = {"dir": str(other), "file": "f", "loop": ".", "broken": "nowhere", "up": "../other"}
    for name, target in targets.items():
        (src / name).symlink_to(target)
    here(command, "--links", src, tmp_path / "dst")
    found = {
        path.name: os.readlink(path) for path in (tmp_path / "dst").iterdir() if path.is_symlink()
    }
    assert found == targets
    assert (tmp_path / "dst/f").read_bytes() == b"f"
    assert tree_of(other) == {"deep/g": b"g"}
    said = here("sync", "--links", src, tmp_path / "dst")
    assert "copied 0 objects" in said
    here("verify", "--links", src, tmp_path / "dst")
    (src / "file").unlink()
    (src / "file").symlink_to("g")
    here("sync", "--links", src, tmp_path / "dst")
    assert os.readlink(tmp_path / "dst/file") == "g"


@pytest.mark.parametrize("option", ["--recordName", "-rd"])
@pytest.mark.parametrize("command", ["cp", "sync"])
def test_links_to_directories_are_skipped_and_recorded(
    here: Here, store: Bucket, tmp_path: Path, option: str, command: str
) -> None:
    src, other = put(tmp_path / "src", {"f": b"f", "sub/x": b"x"}), tmp_path / "other"
    put(other, {"deep/g": b"g"})
    (src / "dir").symlink_to(other)
    (src / "sub/dir").symlink_to("../../other")
    (src / "loop").symlink_to(".")
    (src / "file").symlink_to("f")
    for dst in (tmp_path / "dst", store.url):
        here(command, option, tmp_path / "links.txt", src, dst)
        recorded = (tmp_path / "links.txt").read_text().splitlines()
        assert recorded == [f"{src}/dir", f"{src}/loop", f"{src}/sub/dir"]
    files = {"f": b"f", "sub/x": b"x", "file": b"f"}
    assert tree_of(tmp_path / "dst") == store.content() == files
    (src / "loop").unlink()
    here(command, option, tmp_path / "links.txt", src, tmp_path / "dst")
    assert (tmp_path / "links.txt").read_text() == f"{src}/dir\n{src}/sub/dir\n"


@pytest.mark.parametrize("record", ["no/such/links.txt", "a-directory"])
def test_a_place_that_cannot_take_the_links_is_refused_before_anything_is_copied(
    adsmig: Adsmig, tmp_path: Path, record: str
) -> None:
    src = put(tmp_path / "src", TREE)
    (tmp_path / "a-directory").mkdir()
    done = adsmig("cp", "--recordName", tmp_path / record, src, tmp_path / "dst", code=2)
    assert done.stderr.startswith(f"adsmig: cannot write --recordName {tmp_path / record}: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "dst").exists()


def test_links_recorded_before_are_kept_until_the_run_ends(
    here: Here, adsmig: Adsmig, tmp_path: Path
) -> None:
    src, record = put(tmp_path / "src", {"f": b"f"}), tmp_path / "links.txt"
    record.write_text("of an earlier run\n")
    manifest = tmp_path / "m.db"
    words = ["--manifest", manifest, "--recordName", record, src, tmp_path / "dst"]
    here("cp", "--dryrun", *words)
    with Manifest(manifest, create=True) as other:
        other.lock()
        assert "in use" in adsmig("cp", *words, code=3).stderr
    assert record.read_text() == "of an earlier run\n"
    here("cp", *words)
    assert record.read_text() == ""
    record.unlink()
    here("sync", "--dryrun", *words)
    assert not record.exists()


@pytest.mark.parametrize("side", ["src", "dst"])
def test_the_file_that_takes_the_links_is_no_data(here: Here, tmp_path: Path, side: str) -> None:
    src, dst, record = (
        put(tmp_path / "src", {"f": b"f"}),
        tmp_path / "dst",
        tmp_path / side / "links",
    )
    (src / "dir").symlink_to(tmp_path)
    dst.mkdir()
    for _ in range(2):
        here("sync", "--delete-dst", "--recordName", record, src, dst)
        assert record.read_text() == f"{src}/dir\n"
        record.unlink()
        assert tree_of(dst) == {"f": b"f"}
        record.write_text("of an earlier run\n")


def test_a_pipe_can_take_the_links(adsmig: Adsmig, tmp_path: Path) -> None:
    src, pipe = put(tmp_path / "src", {"f": b"f"}), tmp_path / "pipe"
    (src / "dir").symlink_to(tmp_path)
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE, text=True) as reader:
        adsmig("cp", "--recordName", pipe, src, tmp_path / "dst")
        assert reader.communicate()[0] == f"{src}/dir\n"


def test_links_that_find_no_room_at_the_end_hide_neither_summary_nor_failures(
    adsmig: Adsmig, tmp_path: Path
) -> None:
    src, manifest = put(tmp_path / "src", {"f": b"f"}), tmp_path / "m.db"
    (src / "dir").symlink_to(tmp_path)
    words = ["--manifest", manifest, "--recordName", "/dev/full", src, tmp_path / "dst"]
    done = adsmig("cp", *words, code=3)
    assert "copied 1 object (" in done.stdout
    assert done.stderr == (
        "adsmig: cannot write --recordName /dev/full: No space left on device; the links are on"
        f' record: sqlite3 {manifest} "SELECT key FROM links"\n'
    )
    (src / "broken").symlink_to("nowhere")
    lines = adsmig("sync", *words, code=3).stderr.splitlines()
    said = ["broken", "cannot write --recordName", "try these again with"]
    assert all(word in line for word, line in zip(said, lines, strict=True))
    words = ["--manifest", manifest]
    assert "broken" in adsmig("failures", *words).stdout
    with sqlite3.connect(manifest) as database:
        assert database.execute("SELECT key FROM links").fetchall() == [("dir",)]
    database.close()


def test_a_resume_that_finds_nothing_to_do_still_says_that_something_failed(
    here: Here, tmp_path: Path
) -> None:
    make_tree(tmp_path / "src", 3, most=10)
    (tmp_path / "dst" / "blocked").mkdir(parents=True)
    (tmp_path / "src" / "blocked").write_bytes(b"a file here, a directory there")
    line = ["--manifest", tmp_path / "m.db"]
    here("cp", *line, tmp_path / "src/", tmp_path / "dst/", code=1)
    said = here("resume", *line, code=1)
    assert "nothing to resume" in said
    assert "try these again with: adsmig retry" in said
    (tmp_path / "dst" / "blocked").rmdir()
    here("retry", *line)
    assert "try these again" not in here("resume", *line)


def test_a_run_of_a_list_that_changed_is_not_gone_on_with(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    src, dst = put(tmp_path / "src", dict.fromkeys("abc", b"1")), tmp_path / "dst"
    names, manifest = tmp_path / "names", tmp_path / "m"
    names.write_text("b\nc\n")
    words = ["sync", "--files-from", names, "--manifest", manifest, "--threads", "1", src, dst]

    def breaks(storage: LocalStorage, entry: Entry, *span: int) -> Body:
        raise AdsmigError("the disk was pulled out")

    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "read", breaks)
        here(*words, code=3)
    names.write_text("a\nb\nc\n")
    assert "names other keys" in here("resume", "--manifest", manifest, code=3)
    here(*words)
    assert tree_of(dst) == dict.fromkeys("abc", b"1")


def failed_in(manifest: Path) -> list[bytes]:
    """The keys of failures on record."""
    with Ledger(manifest) as ledger:
        return [one.key for one in ledger.failures()]


def unreadable(monkeypatch: pytest.MonkeyPatch, *keys: bytes) -> None:
    """These cannot be read at a local source."""
    read = LocalStorage.read

    def reads(storage: LocalStorage, entry: Entry, *span: int) -> Body:
        if entry.key in keys:
            raise ObjectError("unreadable", "cannot be read")
        return read(storage, entry, *span)

    monkeypatch.setattr(LocalStorage, "read", reads)


@pytest.mark.parametrize("again", ["retry", "sync", "resume"])
def test_what_failed_is_copied_though_it_has_become_too_old(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: str
) -> None:
    src, dst, manifest = tmp_path / "src", tmp_path / "dst", tmp_path / "m"
    put(src, {"a": b"a", "late": b"l"}, 0)
    words = ["sync", "--newer-than", "1h", "--manifest", manifest, src, dst]
    with monkeypatch.context() as patch:
        unreadable(patch, b"late")
        here(*words, code=1)
    write(src / "a", b"a", age_s=7200)
    write(src / "late", b"l", age_s=7200)
    write(src / "old", b"o", age_s=7200)
    if again == "resume":
        here("resume", "--manifest", manifest, code=1)
        again = "retry"
    here(*(words if again == "sync" else ["retry", "--manifest", manifest]))
    assert tree_of(dst) == {"a": b"a", "late": b"l"}
    assert failed_in(manifest) == []


def test_a_dry_run_tells_of_what_failed_as_a_real_one_copies_it(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it has become too old, or looks equal: it may be what the last try left there."""
    src, dst, manifest = tmp_path / "src", tmp_path / "dst", tmp_path / "m"
    put(src, {"a": b"a", "late": b"l"}, 0)
    put(dst, {"equal": b"e"}, 0)
    put(src, {"equal": b"e"}, 60)
    words = ["--newer-than", "1h", "--manifest", manifest, src, dst]
    with monkeypatch.context() as patch:
        unreadable(patch, b"late", b"equal")
        here("cp", *words, code=1)
    write(src / "late", b"l", age_s=7200)
    told = here("sync", "--dryrun", "-v", *words)
    assert [line.split()[1] for line in told.splitlines() if line.startswith("copy ")] == [
        "equal",
        "late",
    ]
    assert "copied 2 objects" in here("sync", *words)
    assert tree_of(dst) == {"a": b"a", "equal": b"e", "late": b"l"}


def test_what_lies_below_a_directory_that_could_not_be_listed_is_copied_though_too_old(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    src, dst, manifest = tmp_path / "src", tmp_path / "dst", tmp_path / "m"
    put(src, {"d/a": b"a", "d.b": b"b"}, 0)
    words = ["sync", "--newer-than", "1h", "--manifest", manifest, src, dst]
    scan = LocalFiles.scan

    def scans(files: LocalFiles, path: bytes, follow: bool) -> Scan:
        if path.endswith(b"/d/"):
            raise PermissionError(13, "Permission denied")
        return scan(files, path, follow)

    with monkeypatch.context() as patch:
        patch.setattr(LocalFiles, "scan", scans)
        here(*words, code=1)
    write(src / "d" / "a", b"a", age_s=7200)
    here("retry", "--manifest", manifest)
    assert tree_of(dst) == {"d/a": b"a", "d.b": b"b"}


@pytest.mark.parametrize("option", ["--existing", "--ignore-existing", "--update", "--size-only"])
@pytest.mark.parametrize("command", ["retry", "sync"])
def test_a_failure_whose_source_is_gone_is_none_any_more(
    here: Here, tmp_path: Path, option: str, command: str
) -> None:
    src, manifest = put(tmp_path / "src", {"a": b"a"}), tmp_path / "m"
    os.mkfifo(src / "pipe")
    os.mkfifo(src / "stays")
    words = ["sync", option, "--manifest", manifest, src, tmp_path / "dst"]
    here(*words, code=1)
    os.unlink(src / "pipe")
    again = words if command == "sync" else ["retry", "--manifest", manifest]
    here(*again, code=1)
    assert failed_in(manifest) == [b"stays"]
    os.unlink(src / "stays")
    said = here(*again)
    if command == "retry":
        assert said.startswith("found nothing of what had failed")
    assert failed_in(manifest) == []
    here("resume", "--manifest", manifest)


@pytest.mark.parametrize("way", ["to file", "to directory"])
def test_a_file_takes_the_place_of_a_directory_in_one_run_that_deletes(
    here: Here, tmp_path: Path, way: str
) -> None:
    before, after = {"x/y": b"1", "a": b"a"}, {"x": b"2", "a": b"a"}
    if way == "to directory":
        before, after = after, before
    src, dst, manifest = put(tmp_path / "src", after), put(tmp_path / "dst", before), tmp_path / "m"
    said = here("sync", "--delete-dst", "--manifest", manifest, src, dst)
    assert "trying again what failed" in said
    assert tree_of(dst) == after
    assert failed_in(manifest) == []


def test_a_file_takes_the_place_of_a_directory_though_the_run_was_killed(
    here: Here, adsmig: Adsmig, tmp_path: Path
) -> None:
    src, dst, manifest = put(tmp_path / "src", {"x": b"2"}), tmp_path / "dst", tmp_path / "m"
    put(dst, {"x/y": b"1"})
    words = ["sync", "--delete-dst", "--manifest", manifest, src, dst]
    adsmig(*words, code=-9, ADSMIG_FAILPOINT=f"delete.before:1:kill:{tmp_path}/point")
    assert "trying again what failed" in here("resume", "--manifest", manifest)
    assert tree_of(dst) == {"x": b"2"}
    assert failed_in(manifest) == []


@pytest.mark.parametrize("now", [{"a": b"a"}, {"a": b"a", "d": b"file"}])
def test_directories_go_where_the_manifest_tells_what_is_there(
    here: Here, tmp_path: Path, now: dict[str, bytes]
) -> None:
    src, dst, manifest = tmp_path / "src", tmp_path / "dst", tmp_path / "m"
    put(src, {"a": b"a", "d.x": b"x", "d/e/f": b"f", "d/g": b"g"})
    words = ["sync", "--compare", "manifest", "--delete-dst", "--manifest", manifest, src, dst]
    here(*words)
    shutil.rmtree(src / "d")
    (src / "d.x").unlink()
    put(src, now)
    here(*words)
    assert tree_of(dst) == now
    assert sorted(os.listdir(dst)) == sorted(now)


@pytest.mark.parametrize("words", [["verify"], ["cp", "--checksum"]])
@pytest.mark.parametrize("again", ["the same", "retry"])
def test_what_failed_and_is_equal_by_now_is_no_failure_of_a_list(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], again: str
) -> None:
    src, dst, manifest = tmp_path / "src", tmp_path / "dst", tmp_path / "m"
    put(src, {"a": b"a", "b": b"b"})
    put(dst, {"b": b"b"})
    (tmp_path / "names").write_text("a\nb\n")
    words = [*words, "--files-from", tmp_path / "names", "--manifest", manifest, src, dst]
    with monkeypatch.context() as patch:
        unreadable(patch, b"a")
        here(*words, code=1)
    assert failed_in(manifest) == [b"a"]
    put(dst, {"a": b"a"})
    here(*(words if again == "the same" else ["retry", "--manifest", manifest]))
    assert failed_in(manifest) == []


def test_what_lies_in_a_directory_that_failed_is_selected_by_its_age(
    here: Here, tmp_path: Path
) -> None:
    """All in it was listed; only what was not could not be looked at in time."""
    src, dst, manifest = tmp_path / "src", tmp_path / "dst", tmp_path / "m"
    put(src, {"d/old": b"o"}, 9 * 86400)
    put(dst, {"d": b"in the way"})
    words = ["cp", "--older-than", "1d", "--delete-src", "--manifest", manifest, src, dst]
    here(*words, code=1)
    assert set(failed_in(manifest)) == {b"d/", b"d/old"}
    (dst / "d").unlink()
    put(src, {"d/new": b"n"}, 0)
    here(*words)
    assert tree_of(dst) == {"d/old": b"o"}
    assert tree_of(src) == {"d/new": b"n"}


def test_what_failed_and_was_changed_since_is_too_young(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    src, dst, manifest = tmp_path / "src", tmp_path / "dst", tmp_path / "m"
    put(src, {"a": b"a", "b": b"b"}, 9 * 86400)
    words = ["cp", "--older-than", "1d", "--delete-src", "--manifest", manifest, src, dst]
    with monkeypatch.context() as patch:
        unreadable(patch, b"a", b"b")
        here(*words, code=1)
    put(src, {"a": b"in use"}, 0)
    here(*words)
    assert tree_of(dst) == {"b": b"b"}
    assert tree_of(src) == {"a": b"in use"}


def test_what_failed_is_left_alone_where_it_is_newer_by_now(here: Here, tmp_path: Path) -> None:
    src, dst, manifest = tmp_path / "src", tmp_path / "dst", tmp_path / "m"
    put(src, {"a": b"a"})
    put(dst, {"a/in the way": b""})
    words = ["sync", "--update", "--manifest", manifest, src, dst]
    here(*words, code=1)
    shutil.rmtree(dst / "a")
    put(dst, {"a": b"somebody's"}, 60)
    assert "1 left alone" in here(*words)
    assert tree_of(dst) == {"a": b"somebody's"}


def test_a_copy_that_a_killed_run_left_unrecorded_is_on_record_as_what_it_is(
    here: Here, adsmig: Adsmig, tmp_path: Path
) -> None:
    src, dst, manifest = tmp_path / "src", tmp_path / "dst", tmp_path / "m"
    put(src, {"f": b"old"}, 7200)
    words = ["sync", "--manifest", manifest, src, dst]
    here(*words)
    before = (src / "f").stat().st_mtime_ns
    write(src / "f", b"new")
    adsmig(*words, code=-9, ADSMIG_FAILPOINT=f"object.stored:1:kill:{tmp_path}/point")
    assert tree_of(dst) == {"f": b"new"}
    assert "1 unchanged" in here(*words)
    here("verify", manifest)
    (src / "f").write_bytes(b"old")
    os.utime(src / "f", ns=(before, before))
    here("sync", "--compare", "manifest", *words[1:])
    assert tree_of(dst) == {"f": b"old"}


def test_what_a_killed_run_left_in_a_store_is_not_taken_for_what_is_on_record(
    here: Here, adsmig: Adsmig, store: Bucket, tmp_path: Path
) -> None:
    src, manifest = tmp_path / "src", tmp_path / "m"
    put(src, {"f": b"old"}, 7200)
    words = ["sync", "--manifest", manifest, src, store.url]
    keys = {"ADSMIG_DST_ACCESS_KEY": Server.access_key, "ADSMIG_DST_SECRET_KEY": Server.secret_key}
    here(*words)
    before = (src / "f").stat().st_mtime_ns
    time.sleep(1.1)  # a store tells times in seconds
    (src / "f").write_bytes(b"new")
    adsmig(*words, code=-9, ADSMIG_FAILPOINT=f"object.stored:1:kill:{tmp_path}/point")
    for _ in range(2):
        assert "1 unchanged" in here(*words)
    adsmig("verify", manifest, **keys)
    (src / "f").write_bytes(b"old")
    os.utime(src / "f", ns=(before, before))
    assert "copied 1 object" in here("sync", "--compare", "manifest", *words[1:])
    assert "1 unchanged" in here("sync", "--compare", "manifest", *words[1:])
    adsmig("verify", manifest, **keys)


def test_a_retry_does_not_forget_the_links_that_were_recorded(here: Here, tmp_path: Path) -> None:
    src, record, manifest = put(tmp_path / "src", {}), tmp_path / "links.txt", tmp_path / "m.db"
    put(tmp_path / "other", {"x": b"x"})
    (src / "dir").symlink_to(tmp_path / "other")
    (src / "broken").symlink_to("nowhere")
    options = ["--recordName", record, "--manifest", manifest]
    here("cp", *options, src, tmp_path / "dst", code=1)
    assert record.read_text() == f"{src}/dir\n"
    here("retry", "--manifest", manifest, code=1)
    assert record.read_text() == f"{src}/dir\n"


def test_what_failed_is_not_forgotten_by_a_run_that_looked_elsewhere(
    here: Here, adsmig: Adsmig, tmp_path: Path
) -> None:
    src, dst, manifest = put(tmp_path / "src", {"a": b"a"}), tmp_path / "dst", tmp_path / "m.db"
    put(dst, {"a/below": b"b"})
    words = ["--manifest", manifest, src, dst]
    here("cp", *words, code=1)
    here("cp", "--existing", *words)
    assert "a directory is where" in adsmig("failures", "--manifest", manifest).stdout
    (dst / "a/below").unlink()
    (dst / "a").rmdir()
    here("sync", *words)
    assert adsmig("failures", "--manifest", manifest).stdout == ""


def test_a_job_is_named_by_its_manifest_s_file_wherever_that_is(
    here: Here, adsmig: Adsmig, tmp_path: Path
) -> None:
    src, manifest = put(tmp_path / "src", {"a": b"a"}), tmp_path / "m.db"
    (src / "broken").symlink_to("nowhere")
    here("cp", "--manifest", manifest, src, tmp_path / "dst", code=1)
    assert f"manifest  {manifest}" in adsmig("status", manifest).stdout
    assert "broken" in adsmig("failures", manifest).stdout
    assert "nothing to resume" in adsmig("resume", manifest, code=1).stdout
    assert "nothing to cancel" in adsmig("cancel", manifest).stdout
    for command, code in (("resume", 1), ("cancel", 0)):
        said = json.loads(adsmig(command, "--json", manifest, code=code).stdout)
        assert (said["event"], said["message"][:10]) == ("nothing", "nothing to")


def test_the_job_used_last_is_the_one_that_was_killed(
    here: Here, adsmig: Adsmig, tmp_path: Path
) -> None:
    """Whose manifest was last written to in its log only."""
    src = put(tmp_path / "src", {"a": b"a"})
    here("cp", src, tmp_path / "one")
    here("cp", src, tmp_path / "two")
    killed, other = sorted(
        (Path.home() / "state/adsmig/jobs").glob("*.db"), key=lambda path: path.stat().st_mtime
    )
    then = other.stat().st_mtime + 5
    os.utime(f"{killed}.lock", (then, then))
    assert f"manifest  {killed}" in adsmig("status").stdout


# ---------------------------------------------------------------------- the way there


@pytest.mark.parametrize("side", ["0", "1"])
def test_an_anonymous_side_gets_no_signature_and_the_other_does(
    here: Here, moto: Moto, bucket: BucketFactory, tmp_path: Path, side: str
) -> None:
    src, dst = Bucket(moto, bucket(moto)), Bucket(moto, bucket(moto))
    for name in (src.name, dst.name):
        moto.client().put_bucket_acl(Bucket=name, ACL="public-read-write")
    for key, body in TREE.items():
        moto.client().put_object(Bucket=src.name, Key=f"p/{key}", Body=body, ACL="public-read")
    with Recorder(moto.host) as one, Recorder(moto.host) as other:
        urls = src.url.replace(moto.host, one.host), dst.url.replace(moto.host, other.host)
        here("sync", "--anonymous", side, *urls)
        signed = [{request.signed for request in recorder.requests} for recorder in (one, other)]
        gc.collect()
    assert signed == ([{False}, {True}] if side == "0" else [{True}, {False}])
    assert dst.content() == TREE


def test_both_sides_can_be_anonymous(
    here: Here, moto: Moto, bucket: BucketFactory, tmp_path: Path
) -> None:
    store = Bucket(moto, bucket(moto))
    moto.client().put_object(Bucket=store.name, Key="p/x", Body=b"x", ACL="public-read")
    moto.client().put_bucket_acl(Bucket=store.name, ACL="public-read-write")
    with Recorder(moto.host) as recorder:
        at = f"s3://{recorder.host}/{store.name}"
        here("cp", "--anonymous", "0", "--anonymous", "1", f"{at}/p/", f"{at}/q/")
        assert {request.signed for request in recorder.requests} == {False}
        gc.collect()
    assert Bucket(moto, store.name, "q/").content() == {"x": b"x"}


@pytest.mark.usefixtures("no_pauses")
def test_a_store_that_wants_keys_refuses_an_anonymous_side(
    here: Here, minio: MinIOGateway, bucket: BucketFactory, tmp_path: Path
) -> None:
    """Though good keys stand in the address."""
    store = Bucket(minio, bucket(minio)).put({"x": b"x"})
    said = here("cp", "--anonymous", "0", store.url, tmp_path / "dst", code=3)
    assert "AccessDenied" in said
    assert said.count("\n") == 1
    here("cp", store.url, tmp_path / "dst")


def test_anonymous_is_no_way_to_a_local_path(here: Here, store: Bucket, tmp_path: Path) -> None:
    src = put(tmp_path / "src", TREE)
    here("cp", "--anonymous", "0", src, store.url, code=2)
    here("cp", "--anonymous", "1", store.url, tmp_path / "dst", code=2)
    here("cp", "--anonymous", "2", store.url, tmp_path / "dst", code=2)


def test_storage_class_and_encryption_are_chosen_for_what_is_written(
    here: Here, moto: Moto, bucket: BucketFactory, tmp_path: Path
) -> None:
    src, store = put(tmp_path / "src", {"small": b"s"}), Bucket(moto, bucket(moto))
    with (src / "large").open("wb") as file:
        file.truncate(65 << 20)  # in parts
    options = ["--storage-class", "STANDARD_IA", "--sse", "aws:kms:some-key"]
    here("cp", *options, src, store.url)
    # Within the service, where the data do not pass here.
    here("cp", "--storage-class", "ONEZONE_IA", "--sse", "AES256", store.url + "small",
         moto.url(store.name, "q/"))  # fmt: skip
    for key in ("small", "large"):
        head = moto.client().head_object(Bucket=store.name, Key=f"p/{key}")
        assert head["StorageClass"] == "STANDARD_IA"
        assert head["ServerSideEncryption"] == "aws:kms"
        assert head["SSEKMSKeyId"] == "some-key"
    head = moto.client().head_object(Bucket=store.name, Key="q/small")
    assert (head["StorageClass"], head["ServerSideEncryption"]) == ("ONEZONE_IA", "AES256")
    here("cp", src / "small", moto.url(store.name, "r/"))
    assert "StorageClass" not in moto.client().head_object(Bucket=store.name, Key="r/small")


@pytest.mark.parametrize(
    "options", [["--storage-class", "X"], ["--sse", "AES256"], ["--tags"], ["--sse", "ROT13"]]
)
def test_what_a_destination_cannot_have_is_refused(
    here: Here, store: Bucket, tmp_path: Path, options: list[str]
) -> None:
    dst = tmp_path / "dst" if "ROT13" not in options else store.url
    said = here("cp", *options, put(tmp_path / "src", TREE), dst, code=2)
    assert options[0] in said
    assert said.count("\n") == 1


NOTHING = Reply(body=b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")


class Gate:
    """Lets nobody through until ``least`` requests for objects wait; counts the most at once."""

    def __init__(self, least: int) -> None:
        self.most = self._now = 0
        self._least, self._changed = least, threading.Condition()

    def answer(self, request: Request) -> Reply:
        if request.method != "PUT":
            return NOTHING
        with self._changed:
            self._now += 1
            self.most = max(self.most, self._now)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self.most >= self._least, timeout=60)
            self._now -= 1
        return stored(request)


@pytest.mark.parametrize("threads", [1, 6])
def test_so_many_threads_work_at_once(here: Here, tmp_path: Path, threads: int) -> None:
    src = put(tmp_path / "src", {f"{number:02d}": b"x" for number in range(24)})
    gate = Gate(threads)
    with FakeS3(gate.answer) as fake:
        here("cp", f"--threads={threads}", src, f"s3://ak:sk@{fake.host}/bkt/")
        gc.collect()
    assert gate.most == threads


def test_one_thread_has_many_small_objects_in_a_stores_hands(here: Here, tmp_path: Path) -> None:
    src = put(tmp_path / "src", {f"{number:02d}": b"x" for number in range(3 * DEPTH)})
    gate = Gate(DEPTH)
    with FakeS3(gate.answer) as fake:
        here("cp", src, f"s3://ak:sk@{fake.host}/bkt/")
        gc.collect()
    assert gate.most >= DEPTH


def test_no_more_threads_work_than_were_asked_for(adsmig: Adsmig, tmp_path: Path) -> None:
    make_tree(tmp_path / "src", 600, most=10)  # enough to be shared out
    at_once, most, lock = 0, 0, threading.Lock()

    def answer(request: Request) -> Reply:
        nonlocal at_once, most
        if request.method != "PUT":
            return NOTHING
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.01)
        with lock:
            at_once -= 1
        return stored(request)

    with FakeS3(answer) as fake:
        options = ["--threads", "2", "--workers", "5"]
        adsmig("cp", *options, tmp_path / "src", f"s3://ak:sk@{fake.host}/bkt/")
    assert most == 2


@pytest.mark.parametrize("workers", [1, 3])
def test_so_many_processes_work(adsmig: Adsmig, tmp_path: Path, workers: int) -> None:
    make_tree(tmp_path / "src", 240, most=16_000)
    options = ["--workers", workers, "--bwlimit", "8", "--manifest", tmp_path / "m.db"]
    adsmig("cp", *options, tmp_path / "src", tmp_path / "dst")
    query = "SELECT DISTINCT worker FROM slices WHERE copied > 0"
    found = sqlite3.connect(tmp_path / "m.db").execute(query).fetchall()
    # The first slice is tried without processes.
    assert len(found) == 1 if workers == 1 else 2 <= len(found) <= workers + 1


@pytest.mark.usefixtures("no_pauses")
def test_a_store_that_never_answers_is_given_up(here: Here, tmp_path: Path) -> None:
    """Without the option, each of the tries would take a minute."""
    ended = threading.Event()

    def answer(request: Request) -> Reply:
        ended.wait(300)
        return Reply(500)

    with FakeS3(answer) as fake:
        here("cp", "--timeout", "0.1", f"s3://ak:sk@{fake.host}/bkt/x/", tmp_path / "dst", code=3)
        ended.set()
        gc.collect()


@pytest.mark.usefixtures("no_pauses")
def test_a_host_that_never_accepts_is_given_up(here: Here, tmp_path: Path) -> None:
    with socket.socket() as server, contextlib.ExitStack() as stack:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        address = server.getsockname()
        for _ in range(4):  # until there is no room for one more to wait
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)
        probe = stack.enter_context(socket.socket())
        probe.settimeout(0.3)
        try:
            probe.connect(address)
            pytest.skip("this system lets everybody wait")
        except TimeoutError:
            pass
        url = f"s3://ak:sk@127.0.0.1:{address[1]}/bkt/x/"
        said = here("cp", "--connTimeout", "0.1", url, tmp_path / "dst", code=3)
        assert said.count("\n") == 1


# ---------------------------------------------------------------------- what the user sees


@pytest.mark.parametrize("command", ["cp", "sync", "verify", "inventory", "rm"])
def test_json_is_all_that_is_printed(adsmig: Adsmig, tmp_path: Path, command: str) -> None:
    src, dst = put(tmp_path / "src", TREE | {'quo"te\n': b"q"}), put(tmp_path / "dst", {})
    (src / "broken").symlink_to("nowhere")
    words = [src, dst] if command in ("cp", "sync", "verify") else [src]
    words += ["--yes"] if command == "rm" else []
    code = 0 if command == "rm" else 1
    done = adsmig(command, "--json", *words, code=code)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.stderr == ""
    kinds = [event["event"] for event in events]
    assert kinds.count("result") == 1
    result = next(event for event in events if event["event"] == "result")
    found = len(TREE) + 2  # with the odd name and the broken link
    assert result["command"] == command
    assert result["found"] == found
    if command != "rm":
        failures = [event for event in events if event["event"] == "failure"]
        if command == "verify":
            assert len(failures) == found
        else:
            assert [(one["key"], one["kind"]) for one in failures] == [("broken", "source")]
            assert result["failed"] == 1
    assert ("inventory" in kinds) == (command == "inventory")
    if command in ("cp", "sync"):
        assert "progress" in kinds
        assert result["copied"] == found - 1
        assert {"bytes" in name for name in result if name.startswith("copied_")} == {True}


def test_json_tells_what_a_dry_run_would_do(adsmig: Adsmig, tmp_path: Path) -> None:
    src = put(tmp_path / "src", TREE)
    done = adsmig("sync", "--dryrun", "--json", src, tmp_path / "dst")
    events = {one["event"]: one for one in map(json.loads, done.stdout.splitlines())}
    assert events["result"]["dryrun"] is True
    assert events["result"]["copied"] == len(TREE)
    assert events["inventory"]["objects"] == len(TREE)
    assert done.stderr == ""


def test_json_of_jobs_and_failures_is_a_line_for_each(adsmig: Adsmig, tmp_path: Path) -> None:
    src = put(tmp_path / "src", TREE)
    (src / "broken").symlink_to("nowhere")
    adsmig("cp", src, tmp_path / "dst", code=1)
    (job,) = map(json.loads, adsmig("jobs", "--json").stdout.splitlines())
    assert (job["command"], job["copied"], job["failed"]) == ("cp", len(TREE), 1)
    (run,) = map(json.loads, adsmig("status", "--json").stdout.splitlines())
    assert run["copied"] == len(TREE)
    assert run["started"] == job["last_run"]
    (failure,) = map(json.loads, adsmig("failures", "--json").stdout.splitlines())
    assert failure["key"] == "broken"


def test_a_job_that_cannot_run_says_so_on_stderr_even_as_json(
    adsmig: Adsmig, tmp_path: Path
) -> None:
    done = adsmig("cp", "--json", tmp_path / "nowhere", tmp_path / "dst", code=3)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1


def test_the_log_file_has_what_all_processes_log(adsmig: Adsmig, tmp_path: Path) -> None:
    make_tree(tmp_path / "src", 240, most=16_000)
    log = tmp_path / "log.txt"
    options = ["--log-file", log, "-vv", "--workers", "2", "--bwlimit", "8"]
    done = adsmig("cp", *options, tmp_path / "src", tmp_path / "dst")
    assert not re.search(r"^(INFO|DEBUG)", done.stderr, re.MULTILINE)
    text = log.read_text()
    lines = re.findall(
        r"^\S+ \S+ (?:INFO|DEBUG|WARNING) adsmig\S*\[([0-9]+)\]: ", text, re.MULTILINE
    )
    assert len(lines) == len(text.splitlines())
    assert re.search(r"run 1 is finished", text)
    before = len(text)
    adsmig("sync", "--log-file", log, tmp_path / "src", tmp_path / "dst")
    assert log.read_text()[:before] == text  # it goes on at the end
    assert len(log.read_text()) > before


def test_a_log_file_has_what_a_worker_process_logs(
    adsmig: Adsmig, moto: Moto, bucket: BucketFactory, tmp_path: Path
) -> None:
    """Every object's first try fails, and whoever tries it again says so."""
    make_tree(tmp_path / "src", 60, most=100)
    tried: set[bytes] = set()

    def answer(request: Request) -> Reply:
        if request.method != "PUT":
            return NOTHING
        if request.key in tried:
            return stored(request)
        tried.add(request.key)
        time.sleep(0.2)
        return Reply(500)

    with FakeS3(answer) as fake:
        words = ["--workers", "2", "--threads", "2", "--log-file", tmp_path / "log.txt"]
        adsmig("cp", *words, tmp_path / "src", f"s3://ak:sk@{fake.host}/bkt/")
    lines = re.findall(
        r"INFO adsmig.retry\[([0-9]+)\]: .*trying again", (tmp_path / "log.txt").read_text()
    )
    assert len(set(lines)) > 1


def test_a_log_file_that_cannot_be_written_is_refused(adsmig: Adsmig, tmp_path: Path) -> None:
    put(tmp_path / "src", TREE)
    words = ["--log-file", tmp_path / "no/log.txt", tmp_path / "src", tmp_path / "dst"]
    done = adsmig("cp", *words, code=2)
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "dst").exists()


@pytest.mark.parametrize("loud", [[], ["-q"], ["-vv"]])
def test_a_log_file_without_room_is_said_once_and_the_run_goes_on(
    adsmig: Adsmig, tmp_path: Path, loud: list[str]
) -> None:
    make_tree(tmp_path / "src", 100, most=100)
    words = [*loud, "--workers", "2", "--log-file", "/dev/full"]
    done = adsmig("cp", *words, tmp_path / "src", tmp_path / "dst")
    (line,) = (one for one in done.stderr.splitlines() if "the log" in one)
    assert "cannot write the log to /dev/full: No space left on device" in line
    assert "rror" not in done.stderr
    assert tree_of(tmp_path / "dst") == tree_of(tmp_path / "src")


def test_quiet_prints_errors_and_nothing_else(adsmig: Adsmig, tmp_path: Path) -> None:
    src = put(tmp_path / "src", TREE)
    done = adsmig("-q", "cp", src, tmp_path / "dst")
    assert (done.stdout, done.stderr) == ("", "")
    (src / "broken").symlink_to("nowhere")
    done = adsmig("cp", "-q", src, tmp_path / "dst", code=1)
    assert done.stdout == ""
    assert "broken" in done.stderr
    done = adsmig("-q", "cp", tmp_path / "nowhere", tmp_path / "dst", code=3)
    assert done.stderr.count("\n") == 1


def test_verbose_logs_more_and_more(adsmig: Adsmig, tmp_path: Path) -> None:
    src = put(tmp_path / "src", TREE)
    make_tree(src / "more", 10_001, most=0) if 0 else None
    said = [adsmig(*words, "cp", src, tmp_path / "dst").stderr for words in ((), ("-v",), ("-vv",))]
    assert said[0] == ""
    assert re.search(r"^INFO adsmig", said[1], re.MULTILINE)
    assert not re.search(r"^DEBUG", said[1], re.MULTILINE)
    assert len(said[2].splitlines()) >= len(said[1].splitlines())


# ---------------------------------------------------------------------- --dryrun

DRY = {
    "plain": [],
    "delete-dst": ["--delete-dst"],
    "delete-dst, sure": ["--delete-dst", "--yes", "--max-delete", "1"],
    "checksum": ["--checksum"],
    "size": ["--size-only"],
    "existing": ["--existing"],
    "ignore existing": ["--ignore-existing"],
    "update": ["--update"],
    "info": ["--info", "--depth", "2"],
    "filters": ["--exclude", "b", "--min-size", "1"],
    "range": ["--start", "a", "--end", "c"],
    "files from": ["--files-from", "names"],
    "record": ["--recordName", "links"],
    "links": ["--links"],
    "no permissions": ["--noperms"],
    "json": ["--json"],
    "manifest": ["--manifest", "m.db"],
    "retries": ["--threads", "3", "--bwlimit", "100"],
    "quiet": ["-q"],
}


def everything(root: Path) -> dict[str, tuple[int, int, int]]:
    """Every name below, with inode, size and time of each file and directory."""
    found = {}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files, "."):
            status = os.lstat(Path(folder, name))
            key = os.path.normpath(Path(folder, name))
            found[key] = (status.st_ino, status.st_size, status.st_mtime_ns)
    return found


@pytest.mark.parametrize("name", DRY)
@pytest.mark.parametrize("command", ["cp", "sync"])
@pytest.mark.parametrize("way", WAYS)
def test_a_dry_run_writes_nothing(
    here: Here,
    moto: Moto,
    bucket: BucketFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    command: str,
    way: str,
) -> None:
    if name == "delete-dst" and command == "cp" and way != WAYS[0]:
        pytest.skip("as with sync")
    root = tmp_path / "root"
    root.mkdir()
    monkeypatch.chdir(root)
    (root / "names").write_text("a\nb/\n")
    put(root / "src", TREE)
    put(root / "dst", {"a": b"A", "c1": b"longer", "extra/x": b"x"}, age_s=7200)
    (root / "src/link").symlink_to("b")
    options = list(DRY[name])
    if name.startswith("delete-dst") and "files-from" in options:
        pytest.skip("a contradiction")
    one, other = (Bucket(moto, bucket(moto)) for _ in range(2))
    source, _, target = way.split()
    state = Path(os.environ["XDG_STATE_HOME"])
    with Recorder(moto.host) as recorder:
        places = ["src/", "dst/"]
        if source == "store":
            places[0] = one.put(TREE).url.replace(moto.host, recorder.host)
        if target == "store":
            other.put({"a": b"A", "c1": b"longer", "extra/x": b"x"})
            places[1] = other.url.replace(moto.host, recorder.host)
        before = everything(root)
        here(command, "--dryrun", *options, *places)
        assert {one.method for one in recorder.requests} <= {"GET", "HEAD"}
        gc.collect()
    assert everything(root) == before
    assert not state.exists()


@pytest.mark.parametrize(
    "command", [["cp", "--dryrun"], ["sync", "--dryrun"], ["inventory", "--for"], ["inventory"],
                ["verify"], ["rm", "--dryrun"], ["rm", "--dryrun", "--yes"]],
)  # fmt: skip
def test_what_only_looks_needs_no_right_to_write(
    here: Here, tmp_path: Path, command: list[str]
) -> None:
    """The destination need not even be there."""
    src = put(tmp_path / "src", TREE)
    before = everything(src)
    words: list[object] = [*command, src]
    if command == ["inventory", "--for"]:
        words = ["inventory", "--for", tmp_path / "dst", src]
    elif command[0] in ("cp", "sync", "verify"):
        words.append(tmp_path / "dst")
    here(*words, code=1 if command[0] == "verify" else 0)
    assert everything(src) == before
    assert not (tmp_path / "dst").exists()


@pytest.mark.parametrize("command", ["cp", "sync"])
def test_a_dry_run_with_deletion_of_the_source_copies_nothing_and_deletes_when_told(
    here: Here, moto: Moto, bucket: BucketFactory, tmp_path: Path, command: str
) -> None:
    src, store = put(tmp_path / "src", TREE), Bucket(moto, bucket(moto))
    with Recorder(moto.host) as recorder:
        url = store.url.replace(moto.host, recorder.host)
        here(command, "--dryrun", "--delete-src", src, url, code=3)
        assert tree_of(src) == TREE
        said = here(command, "--dryrun", "--delete-src", "--include", "^b", "--yes", src, url)
        assert "deleted 4 " in said
        assert set(tree_of(src)) == {key for key in TREE if key[0] != "b"}
        here(command, "--dryrun", "--delete-src", "--yes", src, url)
        assert recorder.requests == []
    assert list(src.iterdir()) == []
