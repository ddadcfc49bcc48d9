"""Whatever ends a mount: what a close or an fsync has answered for is there, byte for byte."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import BucketFactory
from tests.mount.conftest import MountFactory
from tests.mount.mounts import (
    FULL,
    LIMIT_S,
    PROGRAM,
    Mount,
    contents,
    error_of,
    only_line,
    put,
    run,
    until,
)
from tests.mount.test_outages import Refusing
from tests.servers import MinIOGateway, SeaweedFS, Server

KILLS = 15 if FULL else 2

# Writes, replaces, changes, renames and removes files for ever.  Before each it prints what it
# begins, and after each what it was promised: a name and the SHA-256 of its content, or "gone".
WRITER = """
import hashlib, os, random, sys
top, chance, names = sys.argv[1], random.Random(sys.argv[2]), {}

def say(*words):
    print(*words, flush=True)

def write(name, content, sync):
    with open(f"{top}/{name}", "wb", buffering=0) as file:
        half = len(content) // 2
        file.write(content[:half])
        if sync:
            os.fsync(file.fileno())
            say("begins-with", name, half, hashlib.sha256(content[:half]).hexdigest())
        file.write(content[half:])
    names[name] = bytearray(content)

def promised(name):
    say("is", name, hashlib.sha256(names[name]).hexdigest())

number = 0
kinds = ["new", "new", "again", "change", "rename", "remove"]
while True:
    number += 1
    kind = chance.choice(kinds) if names else "new"
    content = chance.randbytes(chance.choice([0, 100, 5000, 300_000, 300_000, 6_000_000]))
    name = f"f{number}" if kind == "new" else chance.choice(list(names))
    digest = hashlib.sha256(content).hexdigest()
    if kind in ("new", "again"):
        say("begin", name)
        write(name, content, chance.random() < 0.3)
        promised(name)
    elif kind == "change":
        say("begin", name)
        at = chance.randrange(len(names[name]) + 1)
        names[name][at:at + len(content)] = content
        fd = os.open(f"{top}/{name}", os.O_WRONLY)
        os.pwrite(fd, content, at)
        if chance.random() < 0.5:
            os.fsync(fd)
            promised(name)
        os.close(fd)
        promised(name)
    elif kind == "rename":
        say("begin", "temporary")
        write("temporary", content, True)
        promised("temporary")
        say("either", name, hashlib.sha256(names[name]).hexdigest(), digest)
        os.rename(f"{top}/temporary", f"{top}/{name}")
        names[name] = names.pop("temporary")
        say("gone", "temporary")
        promised(name)
    else:
        say("begin", name)
        os.unlink(f"{top}/{name}")
        del names[name]
        say("gone", name)
"""


def test_a_mode_that_an_open_file_got_is_kept(
    seaweedfs: SeaweedFS, bucket: BucketFactory, mount: MountFactory
) -> None:
    at = mount(seaweedfs.url(bucket(seaweedfs)))
    fd = os.open(at.path / "secret", os.O_CREAT | os.O_WRONLY, 0o644)
    os.write(fd, b"once")
    os.fsync(fd)
    os.fchmod(fd, 0o600)
    at.kill()
    with contextlib.suppress(OSError):
        os.close(fd)
    at.stop(code=(0, 1))
    at.start()
    assert (at.path / "secret").stat().st_mode & 0o777 == 0o600
    assert (at.path / "secret").read_bytes() == b"once"
    at.stop()


class Promises:
    """What a writer was promised."""

    def __init__(self) -> None:
        self.allowed: dict[str, set[str] | None] = {}
        """The digests that a file may have, '' for none there; None where nothing is known."""
        self.beginnings: dict[str, tuple[int, str]] = {}
        """Size and digest of the least that a file has."""
        self.kept = 0

    def hear(self, line: str) -> None:
        what, name, *rest = line.split()
        self.kept += what in ("is", "gone")
        self.beginnings.pop(name, None)
        if what == "begin":
            self.allowed[name] = None
        elif what == "gone":
            self.allowed[name] = {""}
        elif what == "begins-with":
            self.beginnings[name] = int(rest[0]), rest[1]
        elif what == "either":
            self.allowed[name] = set(rest)
            self.allowed["temporary"] = {"", rest[1]}
        else:
            self.allowed[name] = set(rest)

    def check(self, found: dict[str, bytes]) -> None:
        for name, allowed in self.allowed.items():
            content = found.get(name)
            digest = "" if content is None else hashlib.sha256(content).hexdigest()
            assert allowed is None or digest in allowed, f"{name} is another"
        for name, (size, digest) in self.beginnings.items():
            assert name in found, f"{name} is not there"
            assert hashlib.sha256(found[name][:size]).hexdigest() == digest, name


def writing(top: Path, seed: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-ISE", "-c", WRITER, top, str(seed)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def heard(process: subprocess.Popen[str], promises: Promises, enough: int) -> Iterator[None]:
    """Takes in what the writer says; yields once, when it was promised enough."""
    assert process.stdout
    asked = False
    for line in process.stdout:
        if line.endswith("\n"):
            promises.hear(line)
        if promises.kept >= enough and not asked:
            asked = True
            yield


def files(top: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in top.iterdir()}


def test_what_was_promised_is_there_after_kills(
    store: Server, bucket: BucketFactory, mount: MountFactory
) -> None:
    seed = os.environ.get("ADSMIG_TEST_SEED", "1")
    name, chance = bucket(store), random.Random(seed)
    at = mount(store.url(name))
    everything: dict[str, Promises] = {}
    for number in range(KILLS):
        folder = f"round{number}"
        (at.path / folder).mkdir()
        promises = everything[folder] = Promises()
        process = writing(at.path / folder, f"{seed}-{number}")
        for _ in heard(process, promises, chance.randrange(5, 40)):
            time.sleep(chance.random() * 0.3)
            at.kill()
        assert "Error" in process.communicate(timeout=LIMIT_S)[1]
        at.start()  # in the place of what is dead there
        promises.check(files(at.path / folder))
    for folder, promises in everything.items():
        promises.check(files(at.path / folder))
    at.stop()
    stored = contents(store, name)
    for folder, promises in everything.items():
        start = f"{folder}/"
        mine = {key.removeprefix(start): one for key, one in stored.items() if start in key}
        promises.check(mine)
    uploads = store.client().list_multipart_uploads(Bucket=name).get("Uploads", [])
    assert not uploads


def test_who_unmounts_is_told_of_what_a_kill_meanwhile_has_left(
    minio: MinIOGateway, bucket: BucketFactory, mount: MountFactory
) -> None:
    name = bucket(minio)
    with Refusing(minio.host) as front:
        at = mount(minio.url(name).replace(minio.host, front.host))
        assert not list(at.path.iterdir())
        front.refuses = True
        assert error_of(lambda: (at.path / "file").write_bytes(b"content")) == errno.EACCES
        words = [*PROGRAM, "umount", str(at.path)]
        with subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as unmounting:
            until(lambda: not at.mounted())
            at.kill()
            said, _ = unmounting.communicate(timeout=LIMIT_S)
    assert unmounting.returncode == 1
    assert "file: the mount was killed before it was stored" in said


def test_a_draft_with_a_damaged_journal_is_kept_and_named(
    seaweedfs: SeaweedFS, bucket: BucketFactory, mount: MountFactory
) -> None:
    name = bucket(seaweedfs)
    at = mount(seaweedfs.url(name))
    fds = [os.open(at.path / key, os.O_WRONLY | os.O_CREAT) for key in ("one", "two")]
    for fd in fds:
        os.write(fd, b"content")
    at.kill()
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)
    path, _ = at.cache.glob("*/dirty/*.json")
    path.write_bytes(b"")
    assert f"its journal is damaged: it is in {path.with_suffix('')}" in at.stop(code=1)
    said = at.start()
    (kept,) = at.cache.glob(f"*/kept/{path.stem}")
    assert f"an earlier mount is in {kept}" in said
    assert kept.read_bytes() == b"content"
    at.stop()
    assert list(contents(seaweedfs, name).values()) == [b"content"]


def test_what_a_power_cut_has_left_of_a_change_does_not_replace_what_was_stored(
    seaweedfs: SeaweedFS, bucket: BucketFactory, mount: MountFactory
) -> None:
    name = bucket(seaweedfs)
    put(seaweedfs, name, {"file": b"content"})
    at = mount(seaweedfs.url(name))
    killed_in_writing(at, "file")
    (path,) = at.cache.glob("*/dirty/*.json")
    # As another run of the machine, before which the journal had come to the disk, and no more.
    path.write_text(json.dumps(json.loads(path.read_text()) | {"boot": "another"}))
    os.truncate(path.with_suffix(""), 0)
    said = at.start()
    (kept,) = at.cache.glob("*/kept/*")
    assert "file was not stored when the machine stopped" in said
    assert str(kept) in said
    at.stop()
    assert contents(seaweedfs, name) == {"file": b"content"}


def test_a_directory_that_was_being_renamed_is_whole_between_its_two_names(
    some_store: Server, bucket: BucketFactory, mount: MountFactory
) -> None:
    name, chance = bucket(some_store), random.Random(4)
    inside = {f"d{number % 5}/{number}": b"content %d" % number for number in range(60)}
    put(some_store, name, {f"old/{key}": content for key, content in inside.items()})
    at = mount(some_store.url(name))
    paths = old, new = at.path / "old", at.path / "new"
    for _ in range(KILLS):
        words = ["mv", "-T", old, new] if old.exists() else ["mv", "-T", new, old]
        process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
        time.sleep(chance.random() * 0.3)
        at.kill()
        process.wait(LIMIT_S)
        at.start()
        found: dict[str, set[bytes]] = {}
        for path in paths:
            for file in path.rglob("*") if path.exists() else ():
                if file.is_file():
                    found.setdefault(str(file.relative_to(path)), set()).add(file.read_bytes())
        assert found == {key: {content} for key, content in inside.items()}
        if old.exists() and new.exists():  # as after a crash of mv between file systems
            run("cp", "-r", "-T", new, old)
            run("rm", "-r", new)
    at.stop()


def test_a_dead_mount_can_be_unmounted(
    seaweedfs: SeaweedFS, bucket: BucketFactory, mount: MountFactory
) -> None:
    at = mount(seaweedfs.url(bucket(seaweedfs)))
    (at.path / "file").write_bytes(b"content")
    at.kill()
    assert at.mounted()
    at.stop()
    at.start()
    assert (at.path / "file").read_bytes() == b"content"
    at.stop()


def killed_in_writing(at: Mount, name: str) -> None:
    """Leaves the mount dead, and the store without the file."""
    fd = os.open(at.path / name, os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"content of %s" % name.encode())
    at.kill()
    with contextlib.suppress(OSError):  # nobody is behind it any more
        os.close(fd)


def test_one_mount_stores_what_several_left_of_the_same_address(
    seaweedfs: SeaweedFS, bucket: BucketFactory, mount: MountFactory, tmp_path: Path
) -> None:
    name = bucket(seaweedfs)
    one, two, three = (mount(seaweedfs.url(name), cache=tmp_path / "cache") for _ in range(3))
    killed_in_writing(two, "two")
    killed_in_writing(three, "three")
    one.stop()
    assert contents(seaweedfs, name) == {}
    said = one.start()
    assert "two" in said
    assert "three" in said
    one.stop()
    assert contents(seaweedfs, name) == {"two": b"content of two", "three": b"content of three"}
    two.stop()  # with nothing to tell of, any more


def test_a_mount_that_is_read_only_leaves_what_is_not_stored_to_one_that_is_not(
    seaweedfs: SeaweedFS, bucket: BucketFactory, mount: MountFactory, tmp_path: Path
) -> None:
    name = bucket(seaweedfs)
    at = mount(seaweedfs.url(name), cache=tmp_path / "cache")
    killed_in_writing(at, "file")
    reading = mount(seaweedfs.url(name), "--read-only", cache=tmp_path / "cache")
    assert contents(seaweedfs, name) == {}
    assert "file" in at.start()
    assert contents(seaweedfs, name) == {"file": b"content of file"}
    reading.stop()
    at.stop()


# Has a file open, and starts no process, which would close it, too: and a close stores it.
HOLDER = """
import sys
with open(sys.argv[1], "wb", buffering=0) as file:
    file.write(b"content")
    print("written", flush=True)
    sys.stdin.read()
"""


def test_what_a_living_mount_writes_is_left_alone_by_who_unmounts_a_dead_one(
    seaweedfs: SeaweedFS, bucket: BucketFactory, mount: MountFactory, tmp_path: Path
) -> None:
    name = bucket(seaweedfs)
    dead, living = (
        mount(seaweedfs.url(name), cache=tmp_path / "cache", start=False) for _ in range(2)
    )
    dead.start()
    dead.kill()
    living.start()  # in the same place of the cache
    words = [sys.executable, "-c", HOLDER, living.path / "file"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"written\n"
        assert dead.stop() == ""
    living.stop()
    assert contents(seaweedfs, name) == {"file": b"content"}


def test_sigterm_stores_what_is_dirty_and_unmounts(
    seaweedfs: SeaweedFS, bucket: BucketFactory, mount: MountFactory
) -> None:
    name = bucket(seaweedfs)
    put(seaweedfs, name, {"there": bytes(200_000)})
    at = mount(seaweedfs.url(name))
    (at.path / "closed").write_bytes(b"closed")
    fds = [os.open(at.path / key, os.O_RDWR | os.O_CREAT) for key in ("there", "open", "synced")]
    for fd in fds:
        os.pwrite(fd, b"changed", 0)
    os.fsync(fds[2])
    at.signal(signal.SIGTERM)
    for fd in fds:
        with contextlib.suppress(OSError):  # nobody is behind it any more
            os.close(fd)
    assert not at.mounted()
    assert contents(seaweedfs, name) == {
        "closed": b"closed",
        "there": b"changed" + bytes(199_993),
        "open": b"changed",
        "synced": b"changed",
    }


def test_a_mount_in_use_is_not_taken_from_its_users(
    seaweedfs: SeaweedFS, bucket: BucketFactory, mount: MountFactory
) -> None:
    name = bucket(seaweedfs)
    at = mount(seaweedfs.url(name))
    with (at.path / "file").open("wb", buffering=0) as file:
        file.write(b"one, ")
        assert "use" in only_line(at.stop(code=(1, 3)))
        file.write(b"two")
    at.stop()
    assert contents(seaweedfs, name) == {"file": b"one, two"}
