"""Where the processor time of a program goes, as perf(1) samples it: what it does itself, and what
the kernel does for it, by the calls that asked for that; and what the machine did in the meantime.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from scripts.benchfigures import BenchError

_HERTZ = 1999
"""Samples a second of each processor; a prime one, lest it keep step with something."""

PROGRAM, HASHES, SQLITE = "the program itself", "hashes, and TLS", "SQLite"
NETWORK, KERNEL = "the kernel: network", "the kernel: else"
MEMORY = "the kernel: memory, processes"
_CALLS = {
    "the kernel: files written": "write pwrite64 writev pwritev pwritev2 copy_file_range sendfile64"
    " splice ftruncate fallocate",
    "the kernel: files read": "read pread64 readv preadv preadv2 readahead",
    "the kernel: names of files": "open openat openat2 creat close rename renameat renameat2 link"
    " linkat unlink unlinkat mkdir mkdirat rmdir symlinkat chmod fchmod fchmodat chown fchown"
    " fchownat lchown utimensat setxattr fsetxattr",
    "the kernel: looking at files": "stat fstat lstat newfstatat newstat newfstat newlstat statx"
    " getdents64 access faccessat faccessat2 readlink readlinkat statfs fstatfs lseek",
    "the kernel: flushing": "sync syncfs fsync fdatasync sync_file_range msync fadvise64",
    "the kernel: taking turns": "futex poll ppoll epoll_wait epoll_pwait epoll_ctl select pselect6"
    " nanosleep clock_nanosleep sched_yield",
    MEMORY: "mmap mmap_pgoff munmap mprotect mremap madvise brk clone clone3 fork vfork execve exit"
    " exit_group wait4 waitid",
}
_GROUPS = {call: group for group, calls in _CALLS.items() for call in calls.split()}
GROUPS = (PROGRAM, HASHES, SQLITE, NETWORK, *_CALLS, KERNEL)

_SYSCALL = re.compile(r"(?:__(?:x64|arm64|se|do)_sys_|ksys_|do_(?=p?(?:read|write)v$))(\w+)$")
"""Of what a call is known by, the outermost that is not left as the next begins."""
_SOCKET = re.compile(r"(?:tcp|sock|inet|__sys_(?:send|recv))")
_FAULT = re.compile(r"(?:asm_)?exc_page_fault$|do_user_addr_fault$|el0_da$")
_HASH = re.compile(r"xxh|md5|sha1|sha256|sha512|crc32|aes|gcm|chacha|poly1305", re.IGNORECASE)
_HASHING = re.compile(r"/(?:_xxhash|libcrypto|libssl|_hashlib|libz)[^/]*$")
_FRAME = re.compile(r"\s+[0-9a-f]+ (.*) \((.*)\)$")

Frame = tuple[str, str]
"""A function, and the file that it is in."""


@dataclass(frozen=True)
class Profile:
    """Of one run of a program, in seconds."""

    groups: dict[str, float]
    """Of processor time, by group of :data:`GROUPS`; those that took none are left out."""
    clock: float
    others: float
    """Processor time of all else on the machine: the servers, and perf."""
    idle: float
    """Processor time that nobody used; of all processors together, as the rest is."""
    disk: float
    """That which nobody used while something waited for the disk."""

    @property
    def own(self) -> float:
        """The program's processor time."""
        return sum(self.groups.values())


def profiled(command: Sequence[str], scratch: Path, env: Mapping[str, str]) -> Profile:
    """Of a command and all that it starts; BenchError if it fails, or if there is no perf."""
    if not (perf := shutil.which("perf")):
        raise BenchError("--profile needs perf, which Debian has in the package linux-perf")
    data = scratch / "perf.data"
    record = [perf, "record", "-q", "-e", "cpu-clock", "-F", str(_HERTZ), "-g", "-o", str(data)]
    with (
        (scratch / "perf.errors").open("w+") as errors,
        subprocess.Popen(
            [*record, "--", *command], env=env, stdout=subprocess.DEVNULL, stderr=errors
        ) as process,
    ):
        started, before = time.perf_counter(), psutil.cpu_times()
        _wait_for_child(process)
        clock, after = time.perf_counter() - started, psutil.cpu_times()
        process.wait()
        errors.seek(0)
        said = errors.read()[-500:]
    if process.returncode:
        raise BenchError(f"{' '.join(command)} exited with {process.returncode}: {said}")
    words = [perf, "script", "-i", str(data), "-F", "comm,period,ip,sym,dso"]
    text = subprocess.run(words, check=True, capture_output=True, text=True, errors="replace")
    groups = seconds_by_group(text.stdout.splitlines())
    idle, disk = after.idle - before.idle, after.iowait - before.iowait
    others = (psutil.cpu_count() or 1) * clock - idle - disk - sum(groups.values())
    return Profile(groups, clock, max(others, 0), idle, disk)


def _wait_for_child(perf: subprocess.Popen[bytes]) -> None:
    """Until what perf runs has ended; perf itself ends when a second is full, or later."""
    while perf.poll() is None:
        for child in psutil.Process(perf.pid).children():
            with contextlib.suppress(ProcessLookupError):
                ended = os.pidfd_open(child.pid)
                select.select([ended], [], [])
                os.close(ended)
            return
        time.sleep(0.001)


def seconds_by_group(lines: Iterable[str]) -> dict[str, float]:
    """Of what ``perf script`` prints: samples of cpu-clock, with their nanoseconds and frames."""
    seconds = Counter[str]()
    for nanoseconds, frames in _samples(lines):
        seconds[group_of(frames)] += nanoseconds / 1e9
    return {group: seconds[group] for group in GROUPS if seconds[group]}


def _samples(lines: Iterable[str]) -> Iterator[tuple[int, list[Frame]]]:
    nanoseconds, frames = 0, list[Frame]()
    for line in lines:
        if match := _FRAME.match(line):
            frames.append((match[1], match[2]))
        elif line.strip():
            nanoseconds, frames = int(line.split()[-1].rstrip(":")), []
        elif frames:
            yield nanoseconds, frames
            frames = []
    if frames:
        yield nanoseconds, frames


def group_of(frames: Sequence[Frame]) -> str:
    """What a sample is counted for; its innermost function comes first."""
    function, file = frames[0]
    names = [name for name, where in frames if where.startswith("[kernel") or ".ko" in where]
    if not names:
        if "sqlite3" in file:
            return SQLITE
        return HASHES if _HASHING.search(file) or _HASH.search(function) else PROGRAM
    if any(map(_SOCKET.match, names)):
        return NETWORK
    for name in reversed(names):
        if match := _SYSCALL.search(name):
            return _GROUPS.get(match[1], KERNEL)
    return MEMORY if any(map(_FAULT.match, names)) else KERNEL


def profile_table(workload: str, found: Mapping[str, Profile]) -> Iterator[str]:
    """Lines for people: seconds of each tool, by group."""

    def row(name: str, seconds: Iterable[float]) -> str:
        return f"  {name:32}" + "".join(f"{one:10.2f}" for one in seconds)

    ran = found.values()
    yield f"\n{workload}: seconds of processor time"
    yield f"  {'':32}" + "".join(f"{tool:>10}" for tool in found)
    for group in GROUPS:
        seconds = [one.groups.get(group, 0) for one in ran]
        if max(seconds, default=0) >= 0.005:
            yield row(group, seconds)
    yield row("all", (one.own for one in ran))
    yield row("others: the servers, and perf", (one.others for one in ran))
    yield row("nobody, and waiting for the disk", (one.disk for one in ran))
    yield row("nobody, else", (one.idle for one in ran))
    yield row("by the clock", (one.clock for one in ran))
