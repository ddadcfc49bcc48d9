"""What has to be on disk before what: nothing is recorded, or removed, before that is durable."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import pytest

from tests.e2e.conftest import Adsmig, digest, write
from tests.e2e.conftest import adsmig as adsmig

CALLS = "fsync,fdatasync,syncfs,rename,renameat,renameat2,unlink,unlinkat"


def traced(top: Path, *arguments: object) -> list[str]:
    """What a run over ``top``/src and ``top``/dst did, in the order in which the kernel was asked.

    ``published``: a file came to its place at the destination; ``flushed``: that file system was;
    ``removed``: a source's file; ``made``, ``placed``, ``named``: a new manifest was flushed, got
    its name, and the directory was flushed; ``committed``: its log was.
    """
    strace = shutil.which("strace")
    if not strace or subprocess.run([strace, "true"], capture_output=True).returncode:
        pytest.skip("looking on needs strace, and leave to trace")
    trace = top / "trace"
    command = [strace, "-f", "-y", "-e", f"trace={CALLS}", "-o", str(trace)]
    command += [sys.executable, "-m", "adsmig", *map(str, arguments), "--workers", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    kinds = {
        "published": re.compile(rf'rename.* \d+<{top}/dst>, "(?!\.adsmig)[^"]+"'),
        "flushed": re.compile(rf"syncfs\(\d+<{top}/dst>\) += 0$"),
        "removed": re.compile(rf"unlink.*{top}/src.* = 0$"),
        "committed": re.compile(rf"sync\(\d+<{top}/m\.db-wal>\) += 0$"),
        "made": re.compile(rf"sync\(\d+<{top}/m\.db\.new>\) += 0$"),
        "placed": re.compile(rf'rename\("{top}/m\.db\.new", '),
        "named": re.compile(rf"sync\(\d+<{top}>\) += 0$"),
    }
    events = []
    for line in trace.read_text().splitlines():
        events += [kind for kind, pattern in kinds.items() if pattern.search(line)]
    return [kind for kind, _ in groupby(events)]


def test_small_files_are_flushed_before_they_are_recorded_and_removed_after_that(
    tmp_path: Path,
) -> None:
    (tmp_path / "src").mkdir()
    for number in range(20):
        write(tmp_path / "src" / str(number), b"content")
    there = digest(tmp_path / "src")
    events = traced(
        tmp_path, "sync", "--delete-src", tmp_path / "src", tmp_path / "dst",
        "--manifest", tmp_path / "m.db",
    )  # fmt: skip
    assert events[:3] == ["made", "placed", "named"]  # the manifest itself
    first = events.index("published")
    assert "committed" in events[:first]
    assert events[first:] == ["published", "flushed", "committed", "removed", "committed"]
    assert digest(tmp_path / "dst") == there


def test_a_large_object_is_flushed_before_its_parts_are_recorded_and_before_it_is_removed(
    tmp_path: Path,
) -> None:
    (tmp_path / "src").mkdir()
    write(tmp_path / "src" / "large", b"")
    with (tmp_path / "src" / "large").open("r+b") as file:
        file.truncate(66 << 20)
    events = traced(
        tmp_path, "cp", "--delete-src", tmp_path / "src", tmp_path / "dst",
        "--manifest", tmp_path / "m.db",
    )  # fmt: skip
    published = events.index("published")
    assert events[published - 2 : published] == ["flushed", "committed"]  # of the parts
    assert events[published:] == ["published", "flushed", "committed", "removed", "committed"]


def test_what_is_found_equal_is_flushed_before_it_is_removed_at_the_source(tmp_path: Path) -> None:
    """Whoever wrote it, perhaps a run that was killed just before its own flush."""
    for side in ("src", "dst"):
        (tmp_path / side).mkdir()
        write(tmp_path / side / "one", b"content")
        os.utime(tmp_path / side / "one", (1_600_000_000, 1_600_000_000))
    events = traced(
        tmp_path, "sync", "--delete-src", tmp_path / "src", tmp_path / "dst",
        "--manifest", tmp_path / "m.db",
    )  # fmt: skip
    assert events[-4:] == ["flushed", "committed", "removed", "committed"]
    assert "published" not in events


def test_what_is_on_record_already_needs_no_flush(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    write(tmp_path / "src" / "one", b"content")
    words = "sync", tmp_path / "src", tmp_path / "dst", "--manifest", tmp_path / "m.db"
    assert "flushed" in traced(tmp_path, *words)
    assert "flushed" not in traced(tmp_path, *words)


BROKEN = """
import errno, os, sys
from adsmig import program
from adsmig.storage import root
def fail(fd):
    raise OSError(errno.EIO, os.strerror(errno.EIO))
root.sync_file_system = fail
sys.exit(program.run(sys.argv[1:]))
"""


def test_what_could_not_be_flushed_is_written_again(adsmig: Adsmig, tmp_path: Path) -> None:
    """After an error the kernel takes what it could not write for written, and tells nobody again:
    what is read then comes from memory, and is whole.
    """
    src, dst = tmp_path / "src", tmp_path / "dst"
    src.mkdir()
    for name in ("equal", "new"):
        write(src / name, name.encode())
    shutil.copytree(src, dst)  # with the times
    (dst / "new").unlink()
    words = ["sync", "--delete-src", "--workers", "1", "--manifest", str(tmp_path / "m.db")]
    words += [f"{src}/", f"{dst}/"]
    broken = subprocess.run(
        [sys.executable, "-c", BROKEN, *words], capture_output=True, text=True, timeout=120
    )
    assert broken.returncode == 3
    assert "flushing" in broken.stderr
    assert {path.name for path in src.iterdir()} == {"equal", "new"}
    before = {name: (dst / name).stat().st_ino for name in ("equal", "new")}
    adsmig(*words)
    assert not any((dst / name).stat().st_ino == inode for name, inode in before.items())
    assert {path.name: path.read_bytes() for path in dst.iterdir()} == {
        "equal": b"equal", "new": b"new",
    }  # fmt: skip
    assert not list(src.iterdir())
