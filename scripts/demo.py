"""A migration that is killed half-way and resumed, to see: ``scripts/run demo [DIR]``.

Makes a tree of some 4,000 small files and a large one in DIR (a new temporary directory if none is
given), copies it into an S3 server started for the purpose, kills adsmig with SIGKILL when about
half of the objects are there, and runs the same command again. Then it asks the server whether
anything was sent twice, copies everything back, and compares the trees without adsmig. Needs about
1 GB of disk for a minute, removes all but the manifest. Exits 0 if everything was as it should be,
else 1.
"""

from __future__ import annotations

import hashlib
import os
import random
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

# The tests' server: a real SeaweedFS on loopback, of the same release as the tests run against.
from tests.servers import SeaweedFS, ServerError, program

SMALL_FILES = 4_000
LARGE_SIZE = 300_000_000
BLOCK_SIZE = 1 << 20
HALF_LIMIT_S = 120


class DemoError(Exception):
    """Something was not as it should be; the message says what."""


def main(arguments: Sequence[str]) -> int:
    """Runs the demonstration in the directory named, or in a new one; returns the exit code."""
    if len(arguments) > 1 or any(one.startswith("-") for one in arguments):
        print("usage: scripts/run demo [DIR]", file=sys.stderr)
        return 2
    directory = Path(arguments[0] if arguments else tempfile.mkdtemp(prefix="adsmig-demo-"))
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise DemoError(f"{directory} is not empty")
        demonstrate(directory.resolve())
    except (DemoError, ServerError, OSError) as exc:
        print(f"demo: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def demonstrate(directory: Path) -> None:
    """Does what the module promises; DemoError as soon as something is off."""
    manifest, scratch = directory / "manifest.db", directory / "scratch"
    try:
        say(f"Making {SMALL_FILES:,} small files and one of {LARGE_SIZE // 10**6} MB")
        make_tree(scratch / "tree")
        say("Starting an S3 server on loopback")
        with SeaweedFS(scratch / "server") as server:
            server.make_bucket("demo")
            migrate(scratch, server, manifest)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    say("The manifest stays, to be looked at (the programs are in .venv/bin)")
    run(["status", "--manifest", str(manifest)])
    print()
    name = shlex.quote(str(manifest))
    echo(f"sqlite-utils tables {name} --counts --table")
    echo(f"sqlite-utils rows {name} objects --limit 5 --table")


def migrate(scratch: Path, server: SeaweedFS, manifest: Path) -> None:
    """Copies ``scratch/tree`` to `server` in two attempts, and back; checks every step."""
    tree, back = scratch / "tree", scratch / "back"
    expected = digests(tree)
    bucket = f"s3://{server.host}/demo/tree/"
    for side in ("SRC", "DST"):
        os.environ[f"ADSMIG_{side}_ACCESS_KEY"] = server.access_key
        os.environ[f"ADSMIG_{side}_SECRET_KEY"] = server.secret_key
        echo(
            f'export ADSMIG_{side}_ACCESS_KEY="$ACCESS_KEY" ADSMIG_{side}_SECRET_KEY="$SECRET_KEY"'
        )

    say("Copying, until about half of the objects are recorded; then: kill -9")
    copy = ["cp", f"{tree}/", bucket, "--manifest", str(manifest)]
    run_and_kill_half_way(copy, manifest, len(expected))
    recorded, first = keys_in(manifest), write_times(server)
    say(f"Killed. The manifest records {len(recorded):,} of {len(expected):,} objects as copied")

    say("The same command again: it goes on where it was")
    time.sleep(1.1)  # The server tells times in whole seconds.
    run(copy)
    expect("objects in the manifest", len(keys_in(manifest)), len(expected))
    second = write_times(server)
    twice = [key for key in recorded if first[key] != second[key]]
    expect("recorded objects that were sent again", len(twice), 0)
    print(f"the server says that none of the {len(recorded):,} was written again")

    say("Nothing is left to do for a sync")
    sync_manifest = scratch / "sync.db"
    run(["sync", f"{tree}/", bucket, "--manifest", str(sync_manifest)])
    expect("objects that the sync found equal", len(keys_in(sync_manifest)), len(expected))
    third = write_times(server)
    expect("objects that it sent again", sum(second[key] != third[key] for key in second), 0)

    say("Back again, and a comparison of both trees by SHA-256, made without adsmig")
    run(["cp", bucket, f"{back}/", "--manifest", str(scratch / "back.db")])
    compare(expected, digests(back))
    print(f"{len(expected):,} files, all of them the same")


# ---------------------------------------------------------------------- the tree


def make_tree(top: Path) -> None:
    """Writes the same files each time: nested, 1 to 16 KB and a large one, some names awkward."""
    rng = random.Random(1)
    odd = (" leading blank", "plus+and%25", "naïve ☃", "a#b?c", "quote'\"")
    for number in range(SMALL_FILES):
        folder = top / f"{number % 20:02}" / f"{number // 20 % 10}"
        if number < 200:
            folder.mkdir(parents=True)
        name = f"{number:05}{odd[number % 50] if number % 50 < len(odd) else ''}.bin"
        (folder / name).write_bytes(rng.randbytes(rng.randrange(1_000, 16_000)))
    block = bytearray(rng.randbytes(BLOCK_SIZE))
    with (top / "large.bin").open("wb") as file:
        for start in range(0, LARGE_SIZE, BLOCK_SIZE):
            block[:8] = start.to_bytes(8, "big")
            file.write(block[: LARGE_SIZE - start])


def digests(top: Path) -> dict[bytes, str]:
    """The SHA-256 of every file under `top`, by its path relative to it."""
    found = {}
    for folder, _, names in os.walk(os.fsencode(top)):
        for name in names:
            path = os.path.join(folder, name)
            digest = hashlib.sha256()
            with open(path, "rb") as file:
                while block := file.read(BLOCK_SIZE):
                    digest.update(block)
            found[os.path.relpath(path, os.fsencode(top))] = digest.hexdigest()
    return found


def compare(expected: dict[bytes, str], found: dict[bytes, str]) -> None:
    """DemoError, with some of the names, if the trees differ."""
    differing = sorted(
        path for path in expected.keys() | found.keys() if expected.get(path) != found.get(path)
    )
    if differing:
        names = ", ".join(os.fsdecode(path) for path in differing[:5])
        raise DemoError(f"{len(differing)} files differ or are on one side only: {names} …")


# ---------------------------------------------------------------------- the commands


def run(arguments: Sequence[str]) -> None:
    """Runs adsmig, with its output where ours goes; DemoError unless it exits 0."""
    status = start(arguments).wait()
    if status:
        raise DemoError(f"adsmig {arguments[0]} exited with {status}")


def run_and_kill_half_way(arguments: Sequence[str], manifest: Path, total: int) -> None:
    """Runs adsmig, and kills it and its workers when half of `total` objects are recorded."""
    process = start(arguments, own_group=True)
    try:
        deadline = time.monotonic() + HALF_LIMIT_S
        while len(keys_in(manifest)) < total // 2:
            if process.poll() is not None:
                raise DemoError(f"adsmig exited with {process.returncode} before it was half-way")
            if time.monotonic() > deadline:
                raise DemoError(f"adsmig was not half-way after {HALF_LIMIT_S} s")
            time.sleep(0.05)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if len(keys_in(manifest)) >= total:
        raise DemoError("adsmig was done before it could be killed")


def start(arguments: Sequence[str], own_group: bool = False) -> subprocess.Popen[bytes]:
    """Starts adsmig, if asked as the leader of a process group; the caller waits for it."""
    echo(shlex.join(["adsmig", *arguments]))
    return subprocess.Popen([program("adsmig"), *arguments], start_new_session=own_group)


# ---------------------------------------------------------------------- what became of it


def keys_in(manifest: Path) -> set[str]:
    """The keys that a manifest records as copied; none while it has no such table."""
    try:
        database = sqlite3.connect(f"{manifest.as_uri()}?mode=ro", uri=True)
        try:
            return {key for (key,) in database.execute("SELECT key FROM objects")}
        finally:
            database.close()
    except sqlite3.OperationalError:
        return set()


def write_times(server: SeaweedFS) -> dict[str, datetime]:
    """When each object was last written, by its key relative to the tree: the server's word."""
    pages = server.client().get_paginator("list_objects_v2").paginate(Bucket="demo")
    objects = (one for page in pages for one in page.get("Contents", ()))
    return {one["Key"].removeprefix("tree/"): one["LastModified"] for one in objects}


# ---------------------------------------------------------------------- what is shown


def say(text: str) -> None:
    print(f"\n# {text}", flush=True)


def echo(command: str) -> None:
    print(f"$ {command}", flush=True)


def expect(what: str, found: int, wanted: int) -> None:
    if found != wanted:
        raise DemoError(f"{what}: {found:,}, and not {wanted:,}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
