"""Many who read, and much to be listed."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import BucketFactory
from tests.mount.conftest import MountFactory
from tests.mount.mounts import FULL, LIFE_S, contents, put, run, until
from tests.servers import Server

READERS = 100
WRITERS = 8 if FULL else 4
ENTRIES = 100_000 if FULL else 2_300
NAMES = 1_000_000 if FULL else 110_000
MOST_MORE = 60 << 20
"""Bytes of memory that the longest of listings may cost."""

# Compares spans of both files, in an order of its own; prints where they differ.
READER = """
import os, random, sys
one, other, seed = sys.argv[1:]
chance, size = random.Random(seed), os.path.getsize(other)
with open(one, "rb", buffering=0) as left, open(other, "rb", buffering=0) as right:
    assert os.fstat(left.fileno()).st_size == size
    for _ in range(15):
        start, length = chance.randrange(size), chance.choice([1, 4096, 200_000])
        if os.pread(left.fileno(), length, start) != os.pread(right.fileno(), length, start):
            sys.exit(f"{one} differs between {start} and {start + length}")
"""


def test_a_hundred_readers_at_once_read_what_is_there(
    some_store: Server, bucket: BucketFactory, mount: MountFactory, tmp_path: Path
) -> None:
    chance, name, local = random.Random(2), bucket(some_store), tmp_path / "local"
    local.mkdir()
    files = {f"small{number}": chance.randbytes(30_000 + number) for number in range(20)}
    files["large"] = chance.randbytes(40 << 20 if FULL else 12 << 20)
    put(some_store, name, files)
    for key, content in files.items():
        (local / key).write_bytes(content)
    # A cache that cannot hold it all.
    at = mount(some_store.url(name), "--cache-size", "8M")
    keys = [*list(files)[: READERS // 2], *["large"] * READERS][:READERS]
    # -S and -E: a hundred of them are to begin at once, on two processors.
    readers = [
        subprocess.Popen(
            [sys.executable, "-ISE", "-c", READER, at.path / key, local / key, str(seed)],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed, key in enumerate(keys)
    ]
    said = [one.communicate(timeout=LIFE_S)[1] for one in readers]
    assert [one.returncode for one in readers] == [0] * READERS, [one for one in said if one]
    at.stop()


# Makes files under other names, renames them and changes some of them, beside others who do so.
WORKER = """
import os, sys
top, mine = sys.argv[1:]
for number in range(12):
    content = f"{mine} {number}".encode() * 2000
    with open(f"{top}/{mine}.part", "wb") as file:
        file.write(content)
    os.rename(f"{top}/{mine}.part", f"{top}/{mine}-{number}")
    with open(f"{top}/{mine}-{number}", "r+b") as file:
        file.seek(100)
        file.write(b"changed")
    with open(f"{top}/{mine}-log", "ab") as file:
        file.write(b"%d\\n" % number)
    if number % 3 == 0:
        os.unlink(f"{top}/{mine}-{number}")
"""


def test_writers_in_one_directory_do_not_disturb_each_other(
    some_store: Server, bucket: BucketFactory, mount: MountFactory
) -> None:
    name = bucket(some_store)
    at = mount(some_store.url(name))
    (at.path / "d").mkdir()
    writers = [
        subprocess.Popen([sys.executable, "-ISE", "-c", WORKER, at.path / "d", f"w{number}"])
        for number in range(WRITERS)
    ]
    assert [one.wait(LIFE_S) for one in writers] == [0] * len(writers)
    wanted = {}
    for writer in range(len(writers)):
        wanted[f"d/w{writer}-log"] = b"".join(b"%d\n" % number for number in range(12))
        for number in range(12):
            content = f"w{writer} {number}".encode() * 2000
            if number % 3:
                wanted[f"d/w{writer}-{number}"] = content[:100] + b"changed" + content[107:]
    found = {f"d/{path.name}": path.read_bytes() for path in (at.path / "d").iterdir()}
    assert found == wanted
    at.stop()
    assert contents(some_store, name) == wanted


@pytest.fixture
def entries(some_store: Server, bucket: BucketFactory, tmp_path: Path) -> tuple[str, set[str]]:
    """A bucket with a directory of more than a page or two, and a few deep ones; its keys."""
    name, tree = bucket(some_store), tmp_path / "tree"
    keys = {
        f"flat/{number:06d}" if number % 10 else f"deep/d{number % 30}/e{number % 70}/{number:06d}"
        for number in range(ENTRIES)
    }
    for key in keys:
        path = tree / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(key.encode())
        path.chmod(0o640 if "7" in key else 0o644)
    run(sys.executable, "-m", "adsmig", "cp", "-q", f"{tree}/", some_store.url(name))
    return name, keys


def test_find_finds_all_of_many_entries_once(
    some_store: Server, entries: tuple[str, set[str]], mount: MountFactory
) -> None:
    name, keys = entries
    at = mount(some_store.url(name))
    found = run("find", at.path, "-type", "f").splitlines()
    assert len(found) == len(keys)
    assert set(found) == {f"{at.path}/{key}" for key in keys}
    wanted = {f"{key} {len(key)} {640 if '7' in key else 644}" for key in keys}
    for _ in range(2):  # the second time from what is remembered, if it is
        found = run("find", at.path, "-type", "f", "-printf", "%P %s %m\n").splitlines()
        assert len(found) == len(keys)
        assert set(found) == wanted
    # A listing that others change while it is read neither repeats nor leaves out the rest.
    seen = []
    with os.scandir(at.path / "flat") as listing:
        for number, entry in enumerate(listing):
            seen.append(entry.name)
            if number % 500 == 0:
                (at.path / "flat" / f"another{number}").touch()
                os.unlink(at.path / "flat" / entry.name)
    old = [one for one in seen if not one.startswith("another")]
    assert sorted(old) == sorted(key[5:] for key in keys if key.startswith("flat/"))
    at.stop()


@pytest.fixture
def wide() -> Iterator[str]:
    """The address of a bucket with very many names in one directory."""
    words = [sys.executable, "-m", "tests.synthetic", "0", str(NAMES), "flat"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        yield f"s3://k:s@{process.stdout.readline().strip()}/bucket/"
        process.kill()


def test_a_directory_of_very_many_names_passes_through(wide: str, mount: MountFactory) -> None:
    at = mount(wide, "--read-only")
    (process,) = at.processes()
    before = process.memory_info().rss
    for _ in range(2):
        last, count = "", 0
        with os.scandir(at.path) as listing:
            for entry in listing:
                assert entry.name > last
                last, count = entry.name, count + 1
        assert count == NAMES
    assert process.memory_info().rss - before < MOST_MORE
    at.stop()


def test_a_directory_gets_another_name_while_files_in_it_are_written(
    store: Server, bucket: BucketFactory, mount: MountFactory
) -> None:
    name, ended, made, lines = bucket(store), threading.Event(), list[str](), list[bytes]()
    put(store, name, {f"d/f{number}": b"content" for number in range(60)})
    at = mount(store.url(name))
    top = os.open(at.path / "d", os.O_RDONLY)
    log = os.open(at.path / "d" / "log", os.O_CREAT | os.O_WRONLY)

    def write() -> None:
        while not ended.is_set():
            lines.append(b"%d\n" % len(lines))
            os.write(log, lines[-1])
            os.fsync(log)

    def create() -> None:
        while not ended.is_set():
            new = f"new{len(made)}"
            fd = os.open(new, os.O_CREAT | os.O_WRONLY, dir_fd=top)
            os.write(fd, b"new")
            os.close(fd)
            made.append(new)

    with ThreadPoolExecutor(2) as pool:
        threads = [pool.submit(write), pool.submit(create)]
        until(lambda: len(made) > 2 and len(lines) > 2)
        (at.path / "d").rename(at.path / "e")
        (at.path / "e").rename(at.path / "f")
        ended.set()
        for thread in threads:
            thread.result()
    os.close(log)
    os.close(top)
    at.stop()
    expected = {f"f/f{number}": b"content" for number in range(60)}
    expected |= {f"f/{new}": b"new" for new in made} | {"f/log": b"".join(lines)}
    assert contents(store, name) == expected
