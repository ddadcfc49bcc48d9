"""Runs one command and prints what it took, its whole family of processes together.

``python scripts/measure.py OUTPUT COMMAND...`` prints a JSON object: ``wall_s`` until the command
ended, ``cpu_s`` of it and all its descendants (user and system), ``peak_bytes`` of them together
(proportional set size, so that shared pages count once, looked at ten times a second), and its exit
``code``.  What the command prints goes to the file OUTPUT.

A descendant that outlives its parent becomes this process's child (PR_SET_CHILD_SUBREAPER of
prctl(2)), so that the kernel's own account at the end holds everybody.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence

PR_SET_CHILD_SUBREAPER = 36
TICK_S = 0.1


def main(output: str, command: Sequence[str]) -> int:
    """Measures the command, prints what came out, and returns 0."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    peak, ended = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(TICK_S):
            peak = max(peak, sum(map(proportional_size, descendants(os.getpid()))))

    watcher = threading.Thread(target=watch)
    watcher.start()
    with open(output, "wb") as file:
        began = time.monotonic()
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        code = child.wait()
        wall_s = time.monotonic() - began
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    ended.set()
    watcher.join()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    figures = {"wall_s": wall_s, "cpu_s": used.ru_utime + used.ru_stime, "code": code}
    # A command that was over before the first look had at most what its largest process had.
    print(json.dumps({**figures, "peak_bytes": peak or used.ru_maxrss * 1024}))
    return 0


def descendants(pid: int) -> Iterator[int]:
    """The processes below ``pid``, as far as they can be seen."""
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as file:
                for child in map(int, file.read().split()):
                    yield child
                    yield from descendants(child)


def proportional_size(pid: int) -> int:
    """Bytes; 0 for a process that is gone."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup", "rb") as file:
        for line in file:
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
