"""Worker processes: whom they are forked from, and what becomes of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adsmig import pool


def lose_the_pipe() -> None:
    raise EOFError


def be_wrong() -> None:
    raise ValueError("a fault of ours")


def test_a_worker_whose_pool_is_gone_ends_in_silence(capfd: pytest.CaptureFixture[str]) -> None:
    process = pool._clean_processes().Process(target=lose_the_pipe)  # type: ignore[attr-defined]
    process.start()
    process.join()
    assert process.exitcode == 0
    assert capfd.readouterr().err == ""


def test_what_else_goes_wrong_there_is_told() -> None:
    process = pool._clean_processes().Process(target=be_wrong)  # type: ignore[attr-defined]
    process.start()
    process.join()
    assert process.exitcode == 1


PREPARED = """
import os, signal, threading, time
from adsmig import pool

def server():
    return pool._server._forkserver_pid

def parents():
    members = pool.processes(2)
    found = {members.submit(os.getppid).result() for _ in range(4)}
    pool.close(members)
    return found
"""


def run(code: str, tmp_path: Path) -> None:
    """Runs it in a process of its own, that has no other thread."""
    subprocess.run(
        [sys.executable, "-c", PREPARED + code],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        check=True,
        timeout=60,
    )


def test_workers_are_forked_off_a_copy_of_this_process(tmp_path: Path) -> None:
    code = """
import adsmig.filters
adsmig.filters.mark = "seen before"

with pool.prepared():
    copied = server()
    assert copied and os.listdir(os.environ["TMPDIR"]) == []
    assert parents() == parents() == {copied}
    members = pool.processes(1)
    seen = members.submit(eval, "__import__('adsmig.filters').filters.mark").result()
    assert seen == adsmig.filters.mark
    held = members.submit(os.getpid).result()
    pool.close(members)
assert server() is None
for pid in (copied, held):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        continue
    assert 0, "it is still there"
assert len(parents()) == 1  # of a server that is started anew
"""
    run(code, tmp_path)


def test_what_counts_semaphores_is_a_copy_too_and_outlives_whoever_is_killed(
    tmp_path: Path,
) -> None:
    code = """
import pathlib, sys
with pool.prepared():
    counter = pool._tracker._pid
    command = [pathlib.Path(f"/proc/{pid}/cmdline").read_bytes() for pid in (counter, os.getpid())]
    assert command[0] == command[1], "a new interpreter"
    members = pool.processes(2)
    members.submit(os.getpid).result()
    assert pool._tracker._pid == counter
    lock = members._mp_context.Lock()
    assert os.path.exists(f"/dev/shm/sem.{lock._semlock.name[1:]}")
    print(counter, f"/dev/shm/sem.{lock._semlock.name[1:]}", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    words = [sys.executable, "-c", PREPARED + code]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, "")
    counter, semaphore = done.stdout.split()
    for _ in range(100):
        if not os.path.exists(semaphore) and not runs(int(counter)):
            return
        time.sleep(0.1)
    raise AssertionError(f"{semaphore} and process {counter} are left")


def test_a_process_that_is_stopped_before_it_is_a_worker_does_not_outlive_the_first() -> None:
    code = """
with pool.prepared():
    child = pool._clean_processes().Process(target=time.sleep, args=(600,))
    child.start()
    while open(f"/proc/{child.pid}/stat").read().rpartition(")")[2].split()[0] != "S":
        time.sleep(0.01)  # until it waits for something
    os.kill(child.pid, signal.SIGSTOP)
    print(child.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    words = [sys.executable, "-c", PREPARED + code]
    child = int(subprocess.run(words, stdout=subprocess.PIPE, timeout=60).stdout)
    for _ in range(100):
        if not runs(child):
            return
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    raise AssertionError("it is still there")


def runs(pid: int) -> bool:
    """Whether there is such a process, that has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_process_with_threads_is_not_copied(tmp_path: Path) -> None:
    code = """
ended = threading.Event()
threading.Thread(target=ended.wait).start()
with pool.prepared():
    assert server() is None
    assert len(parents()) == 1
ended.set()
"""
    run(code, tmp_path)


def test_a_copy_that_was_killed_is_replaced(tmp_path: Path) -> None:
    code = """
with pool.prepared():
    copied = server()
    os.kill(copied, signal.SIGKILL)
    time.sleep(0.2)
    (other,) = parents()
    assert other not in (copied, os.getpid())
    assert other == server()
"""
    run(code, tmp_path)


def test_where_no_copy_can_be_made_there_are_workers_all_the_same(tmp_path: Path) -> None:
    code = """
import tempfile

def full(*_, **__):
    raise OSError(28, "No space left on device")

tempfile.TemporaryDirectory = full
with pool.prepared():
    assert server() is None
    assert len(parents()) == 1
"""
    run(code, tmp_path)


def test_where_no_process_can_be_forked_signals_still_end_the_run(tmp_path: Path) -> None:
    code = """
def full():
    raise BlockingIOError(11, "Resource temporarily unavailable")

fork, os.fork = os.fork, full
files = set(os.listdir("/proc/self/fd"))
with pool.prepared():
    assert server() is None
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
    assert set(os.listdir("/proc/self/fd")) == files
"""
    run(code, tmp_path)


def test_who_is_told_of_no_children_ends_well(tmp_path: Path) -> None:
    code = """
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
with pool.prepared():
    copied = server()
    assert parents() == {copied}
assert server() is None
"""
    run(code, tmp_path)


def test_a_copy_holds_no_files_of_ours(tmp_path: Path) -> None:
    code = """
import fcntl
held = open(os.environ["TMPDIR"] + "/held", "w")
fcntl.flock(held, fcntl.LOCK_EX)
with pool.prepared():
    members = pool.processes(1)
    for pid in (server(), members.submit(os.getpid).result()):
        files = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        assert held.name not in files and "/dev/null" in files
    held.close()
    other = open(os.environ["TMPDIR"] + "/held", "w")
    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    pool.close(members)
"""
    run(code, tmp_path)


def test_a_copy_needs_no_output(tmp_path: Path) -> None:
    code = """
os.close(1)
sys.stdout = None
with pool.prepared():
    assert server()
    assert parents() == {server()}
"""
    run("import sys" + code, tmp_path)


def test_within_a_run_there_is_one_copy(tmp_path: Path) -> None:
    code = """
with pool.prepared():
    copied = server()
    with pool.prepared():
        assert server() == copied
    assert parents() == {copied}
"""
    run(code, tmp_path)
