"""Mounts beside each other: adsmig's, rclone's and s3fs's, of the same bucket, in the same steps.

A step is *cold* in a fresh mount with an empty cache directory, and *warm* when it is the second
pass in the same mount.  The kernel's cache of a file system goes with its mount; what the server
reads lies in memory for all.  What was read is compared with the input, what was written with what
the store then holds, and only then a time counts.  Processor time and memory are those of the
mount's processes.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from xxhash import xxh3_64, xxh3_64_hexdigest

from scripts.benchfigures import BenchError
from scripts.benchground import discard, touch_memory
from scripts.benchtools import THREADS
from scripts.measure import TICK_S, descendants, proportional_size
from tests.mount.mounts import missing
from tests.servers import Server, ServerError, program

WAIT_S = 120
READ_SIZE = 1 << 20
PAGE = 4096
RANDOM_READS = 2_000
SHORT_READS = 100
CLOCK_HZ = os.sysconf("SC_CLK_TCK")

Figures = dict[str, float]
T = TypeVar("T")


@dataclass(frozen=True)
class Mounter:
    """A program that mounts a bucket, and how it is called."""

    name: str
    command: Callable[[str, str, Path, Path], list[str]]
    """Of the server's HOST:PORT, ``BUCKET/PREFIX``, where to mount it and an empty cache directory;
    runs in the foreground.
    """
    settings: str

    def found(self) -> bool:
        """Whether it is there."""
        with contextlib.suppress(ServerError):
            return bool(program(self.name))
        return False


def adsmig(host: str, place: str, path: Path, cache: Path) -> list[str]:
    words = [program("adsmig"), "mount", f"s3://{host}/{place}/", str(path)]
    return [*words, "--use-server-modtime", "--cache-dir", str(cache), "--foreground"]


def rclone(host: str, place: str, path: Path, cache: Path) -> list[str]:
    keys = f"access_key_id={Server.access_key},secret_access_key={Server.secret_key}"
    remote = f":s3,provider=Other,{keys},list_version=2,endpoint='http://{host}':{place}"
    words = [program("rclone"), "--config", "/dev/null", "--s3-no-check-bucket", "mount"]
    words += ["--vfs-cache-mode", "full", "--vfs-fast-fingerprint", "--use-server-modtime"]
    words += ["--vfs-write-back", "0s", "--transfers", str(THREADS), "--cache-dir", str(cache)]
    return [*words, remote, str(path)]


def s3fs(host: str, place: str, path: Path, cache: Path) -> list[str]:
    bucket, _, prefix = place.partition("/")
    options = ["use_path_request_style", f"url=http://{host}", f"endpoint={Server.region}"]
    options += [f"use_cache={cache}", f"multireq_max={THREADS}", f"parallel_count={THREADS}"]
    options += ["enable_noobj_cache", "max_stat_cache_size=1000000"]
    return [program("s3fs"), f"{bucket}:/{prefix}", str(path), "-f", "-o", ",".join(options)]


MOUNTERS = [
    Mounter("adsmig", adsmig, "mount --use-server-modtime"),
    Mounter(
        "rclone",
        rclone,
        "mount --vfs-cache-mode full --vfs-fast-fingerprint --use-server-modtime"
        f" --vfs-write-back 0s --transfers {THREADS}",
    ),
    Mounter(
        "s3fs",
        s3fs,
        f"use_cache multireq_max={THREADS} parallel_count={THREADS} enable_noobj_cache"
        " max_stat_cache_size=1000000",
    ),
]


def steps(
    tool: Mounter, server: Server, trees: Path, scratch: Path, environment: Mapping[str, str]
) -> Iterator[tuple[str, Figures]]:
    """Each step's name and figures.  The server's buckets hold ``trees`` as Bench puts them there.

    BenchError for a mount that does not come up, or shows or stores something else than it should.
    """
    if reason := missing():
        raise BenchError(reason)
    large = next(path for path in (trees / "mounted").rglob("*") if path.is_file())
    name = large.relative_to(trees / "mounted")
    short = large.stat().st_size < 1 << 30

    def mounted(place: str) -> _Mounted:
        much = not short and "epoch" not in place and "entries" not in place
        return _Mounted(tool, server.host, place, scratch, environment, much)

    with mounted("bench-mounted/src") as at:
        digest, figures = at.timed(lambda: read_through(at.path / name))
        expect(tool, digest == read_through(large), "read other bytes")
        yield "mount-read", figures
    with mounted("bench-mounted/src") as at:
        spots = spots_within(large, SHORT_READS if short else RANDOM_READS)
        wanted = read_at(large, spots)
        for step in ("mount-random-cold", "mount-random-warm"):
            pages, figures = at.timed(lambda: read_at(at.path / name, spots))
            expect(tool, pages == wanted, "read other bytes at random places")
            yield step, figures
    with mounted("bench-epoch/src") as at:
        for step, order in (("mount-epoch-cold", 1), ("mount-epoch-warm", 2)):
            names = shuffled(trees / "epoch", order)
            digests, figures = at.timed(lambda names=names: read_each(at.path, names))
            expect(tool, digests == read_each(trees / "epoch", names), "read other files")
            yield step, figures
    with mounted("bench-entries/src") as at:
        listing, figures = at.timed(lambda: list_all(at.path))
        expect(tool, sizes_in(listing) == sizes_in(list_all(trees / "entries")), "listed others")
        yield "mount-ls", figures
    bucket = f"bench-mount-{tool.name}-{time.time_ns()}"
    with mounted(f"{server.make_bucket(bucket)}/dst") as at:
        stored = {"Bucket": bucket, "Key": "dst/large"}
        _, figures = at.timed(
            lambda: write_until_stored(large, at.path / "large", lambda: size_of(server, stored))
        )
    body = server.client().get_object(**stored)["Body"]
    digest = xxh3_of(iter(lambda: body.read(READ_SIZE), b""))
    expect(tool, digest == read_through(large), "stored other bytes")
    yield "mount-write", figures
    server.client().delete_object(**stored)


def expect(tool: Mounter, condition: bool, complaint: str) -> None:
    if not condition:
        raise BenchError(f"{tool.name} {complaint}")


class _Mounted:
    """A bucket mounted by a tool, with an empty cache, while it is entered."""

    def __init__(
        self, tool: Mounter, host: str, place: str, scratch: Path, environment: Mapping[str, str],
        much: bool,
    ) -> None:  # fmt: skip
        """``much``: what is read or written fills memory."""
        self.path, self._cache = scratch / "mnt", scratch / "cache"
        self._kept, self._much = scratch.parent / "done", much
        self._tool, self._log = tool, scratch / "log"
        self._environment = {**environment, "HOME": str(scratch), "XDG_STATE_HOME": str(scratch)}
        self._command = tool.command(host, place, self.path, self._cache)

    def __enter__(self) -> _Mounted:
        for path in (self.path, self._cache):
            path.mkdir()
        os.sync()  # what others wrote shall not be paid for by this one
        if self._much:
            touch_memory(self._kept.parent)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log,
            )  # fmt: skip
        try:
            self._await(lambda: os.path.ismount(self.path), "did not mount it")
        except BaseException:
            self._process.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            subprocess.run(["fusermount3", "-u", self.path], check=True, timeout=WAIT_S)
            self._process.wait(WAIT_S)
        except subprocess.SubprocessError:
            self._process.kill()
            self._process.wait()
            subprocess.run(["umount", "-l", self.path])
            raise
        self.path.rmdir()
        discard(self._cache, self._kept)

    def _await(self, condition: Callable[[], bool], complaint: str) -> None:
        deadline = time.monotonic() + WAIT_S
        while not condition():
            if self._process.poll() is not None or time.monotonic() > deadline:
                tail = self._log.read_text(errors="replace")[-500:]
                raise BenchError(f"{self._tool.name} {complaint}: {tail}")
            time.sleep(0.02)

    def _family(self) -> list[int]:
        return [self._process.pid, *descendants(self._process.pid)]

    def timed(self, work: Callable[[], T]) -> tuple[T, Figures]:
        """What the work gives, and what it took."""
        peak, ended = 0, threading.Event()

        def watch() -> None:
            nonlocal peak
            while not ended.is_set():
                peak = max(peak, sum(map(proportional_size, self._family())))
                ended.wait(TICK_S)

        watcher = threading.Thread(target=watch)
        cpu_s = sum(map(cpu_of, self._family()))
        watcher.start()
        try:
            began = time.monotonic()
            result = work()
            wall_s = time.monotonic() - began
        except OSError as exc:
            raise BenchError(f"{self._tool.name}: {exc}") from exc
        finally:
            ended.set()
            watcher.join()
        cpu_s = sum(map(cpu_of, self._family())) - cpu_s
        # Where the kernel knew all, less than it counts in; a ratio to nothing is none.
        cpu_s = max(cpu_s, 1 / CLOCK_HZ)
        return result, {"wall_s": wall_s, "cpu_s": cpu_s, "peak_bytes": peak}


def cpu_of(pid: int) -> float:
    """Seconds of the processor's that a process has used; 0 for one that is gone."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / CLOCK_HZ
    return 0


# ---------------------------------------------------------------------- what is done in a step


def xxh3_of(chunks: Iterator[bytes]) -> str:
    digest = xxh3_64()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def read_through(path: Path) -> str:
    """Reads a file from beginning to end; the hash of it."""
    with path.open("rb", buffering=0) as file:
        return xxh3_of(iter(lambda: file.read(READ_SIZE), b""))


def spots_within(path: Path, count: int) -> list[int]:
    """Where pages begin, chosen at random, the same ones each time."""
    return random.Random(1).sample(range(path.stat().st_size // PAGE), count)


def read_at(path: Path, spots: list[int]) -> list[bytes]:
    """A page at each of the spots, in a file that is opened once."""
    with path.open("rb", buffering=0) as file:
        return [os.pread(file.fileno(), PAGE, spot * PAGE) for spot in spots]


def shuffled(tree: Path, seed: int) -> list[str]:
    """The files below, in random order, the same one for a seed."""
    names = sorted(str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file())
    random.Random(seed).shuffle(names)
    return names


def read_each(top: Path, names: list[str]) -> list[str]:
    """Opens, reads and closes one file after the other; their hashes."""
    return [xxh3_64_hexdigest((top / name).read_bytes()) for name in names]


def list_all(top: Path) -> str:
    """What ``ls -lR`` prints."""
    words = ["ls", "-lR", "--time-style=+%s"]
    done = subprocess.run(words, cwd=top, env={"LC_ALL": "C"}, capture_output=True, text=True)
    if done.returncode:
        raise BenchError(f"ls: {done.stderr[-500:]}")
    return done.stdout


def sizes_in(listing: str) -> dict[str, int]:
    """The files of an ``ls -lR`` with their sizes."""
    found, folder = {}, ""
    for line in listing.splitlines():
        if line.startswith("-"):
            fields = line.split(None, 6)
            found[f"{folder}/{fields[6]}"] = int(fields[4])
        elif line.endswith(":"):
            folder = line[:-1]
    return found


def write_until_stored(src: Path, dst: Path, size_there: Callable[[], int | None]) -> None:
    """Writes a file from beginning to end; returns when it is closed and the store has all of it.

    Some tools store a file only after it was closed.
    """
    with src.open("rb", buffering=0) as source, dst.open("wb", buffering=0) as target:
        while chunk := source.read(READ_SIZE):
            target.write(chunk)
    deadline, size = time.monotonic() + WAIT_S, src.stat().st_size
    while size_there() != size:
        if time.monotonic() > deadline:
            raise BenchError(f"{dst.name} was not stored within {WAIT_S} s")
        time.sleep(0.02)


def size_of(server: Server, where: dict[str, str]) -> int | None:
    """Of an object; None while there is none."""
    client = server.client()
    try:
        return int(client.head_object(**where)["ContentLength"])
    except client.exceptions.ClientError:
        return None
