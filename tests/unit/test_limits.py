"""What the processes of a run share: the bandwidth, the wish to stop, the live tallies."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from adsmig import limits as module
from adsmig.errors import AdsmigError, StorageFull
from adsmig.limits import SLOTS, Limits, opened
from adsmig.model import Counts


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "m.db.shared")


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    opened.cache_clear()
    yield
    opened.cache_clear()


def elsewhere(path: str, code: str) -> str:
    """What another process prints, that has the Limits at ``path`` open as ``limits``."""
    program = f"from adsmig.limits import *\nlimits = Limits({path!r})\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=30
    )
    return done.stdout.strip()


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock, which stands still unless a wait moves it."""
    clock = [5000.0]

    def wait(seconds: float, stopping: object) -> None:
        clock[0] += seconds

    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(module, "wait", wait)
    return clock


def test_bytes_are_let_through_at_the_rate_in_megabits(path: str, now: list[float]) -> None:
    limits = Limits.create(path, bwlimit_mbps=8)  # a million bytes a second
    for _ in range(100):
        limits.take(250_000)
    assert now[0] - 5000 == pytest.approx(99 * 0.25)  # the first goes at once
    limits.remove()


def test_time_that_nobody_used_is_not_saved_up(path: str, now: list[float]) -> None:
    limits = Limits.create(path, bwlimit_mbps=8)
    limits.take(1000)
    now[0] += 3600
    for _ in range(5):
        limits.take(1_000_000)
    assert now[0] == pytest.approx(5000 + 3600 + 4)
    limits.remove()


def test_threads_and_openers_share_one_rate(
    path: str, now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[float] = []
    monkeypatch.setattr(module, "wait", lambda seconds, stopping: turns.append(seconds))
    first, second = Limits.create(path, bwlimit_mbps=8), Limits(path)

    def work(limits: Limits) -> None:
        for _ in range(50):
            limits.take(1_000_000)

    threads = [threading.Thread(target=work, args=(one,)) for one in (first, second) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # 200 seconds' worth at a clock that stands still: each has a turn, and none is given twice.
    assert sorted(turns) == pytest.approx([float(turn) for turn in range(1, 200)])
    first.remove()


def test_processes_share_one_rate(path: str) -> None:
    limits = Limits.create(path, bwlimit_mbps=8)
    took = """
import adsmig.limits as module
turns = []
module.wait = lambda seconds, stopping: turns.append(seconds)
module.time.monotonic = lambda: 5000.0
for _ in range(20): limits.take(1_000_000)
print(*turns)
"""
    turns = [float(turn) for _ in range(2) for turn in elsewhere(path, took).split()]
    assert turns == pytest.approx([float(turn) for turn in range(1, 40)])
    limits.remove()


def test_without_a_limit_nothing_waits(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "wait", lambda *_: pytest.fail("waited"))
    limits = Limits.create(path)
    for _ in range(100):
        limits.take(1 << 40)
    limits.remove()


def test_a_turn_far_away_ends_when_the_run_stops(path: str) -> None:
    limits = Limits.create(path, bwlimit_mbps=8)
    limits.take(1 << 50)
    limits.stop()
    limits.take(1)  # or this would take 35 years
    limits.remove()


def test_every_process_sees_that_the_run_stops(path: str) -> None:
    limits = Limits.create(path)
    assert not limits.stopping()
    assert elsewhere(path, "print(limits.stopping()); limits.stop()") == "False"
    assert limits.stopping()
    assert Limits(path).stopping()
    limits.remove()


def test_what_was_begun_before_is_recalled_in_every_process(path: str, now: list[float]) -> None:
    limits = Limits.create(path, bwlimit_mbps=8)
    assert not limits.recalled(now[0])
    limits.recall()
    assert limits.recalled(now[0] - 1)
    assert not limits.recalled(now[0] + 1)
    assert elsewhere(path, f"print(limits.recalled({now[0]}))") == "True"
    assert not limits.stopping()
    limits.take(1)  # the rate is as it was
    assert Limits(path).bytes_per_s == 1e6
    limits.remove()


def test_live_is_the_sum_of_what_the_slots_show(path: str) -> None:
    limits = Limits.create(path)
    assert limits.live() == Counts()
    counts = Counts(1, 2, 3, 4, 5, 6, 7)
    limits.report(0, counts)
    limits.report(SLOTS - 1, counts)
    code = "from adsmig.model import Counts; limits.report(3, Counts(10, 20, 30, 40, 50, 60, 70))"
    elsewhere(path, code)
    assert limits.live() == counts + counts + Counts(10, 20, 30, 40, 50, 60, 70)
    limits.report(0, Counts(copied_bytes=1 << 62))
    assert limits.live().copied_bytes == (1 << 62) + 66
    for slot in (0, 3, SLOTS - 1):
        limits.report(slot, Counts())
    assert limits.live() == Counts()
    limits.remove()


def test_a_tally_does_not_touch_its_neighbours_or_the_rate(path: str) -> None:
    limits = Limits.create(path, bwlimit_mbps=8)
    for slot in range(SLOTS):
        limits.report(slot, Counts(found=slot))
    assert limits.live().found == sum(range(SLOTS))
    assert not limits.stopping()
    assert Limits(path).bytes_per_s == 1e6
    limits.remove()


def test_there_are_as_many_tallies_as_are_asked_for(path: str) -> None:
    limits = Limits.create(path, slots=SLOTS + 100)
    for slot in range(SLOTS + 100):
        limits.report(slot, Counts(found=1))
    assert limits.live().found == Limits(path).live().found == SLOTS + 100
    limits.remove()


def test_a_process_killed_with_the_bucket_in_hand_blocks_nobody(path: str) -> None:
    limits = Limits.create(path, bwlimit_mbps=8e6)
    code = (
        f"from adsmig.limits import *\nlimits = Limits({path!r})\n"
        "fcntl.flock(limits._fd, fcntl.LOCK_EX)\nprint('held', flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        os.kill(holder.pid, signal.SIGKILL)
    taken = threading.Thread(target=limits.take, args=(1,), daemon=True)
    taken.start()
    taken.join(20)
    assert not taken.is_alive()
    limits.remove()


def test_remove_deletes_the_file_and_leaves_those_who_have_it_open_alone(path: str) -> None:
    limits = Limits.create(path)
    other = Limits(path)
    limits.remove()
    assert not os.path.exists(path)
    other.report(1, Counts(found=1))
    assert other.live().found == 1
    other.stop()
    assert other.stopping()


def test_a_file_that_a_killed_run_left_is_replaced_not_shared(path: str) -> None:
    dead = Limits.create(path, bwlimit_mbps=1)
    dead.stop()
    dead.report(1, Counts(found=9))
    limits = Limits.create(path)
    assert not limits.stopping()
    assert limits.live() == Counts()
    assert limits.bytes_per_s == 0
    limits.remove()


def test_nobody_else_may_read_or_write_the_file(path: str) -> None:
    for limits in (Limits.create(path), Limits.create()):
        assert os.stat(limits.path).st_mode & 0o777 == 0o600
        limits.remove()
        assert not os.path.exists(limits.path)


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOSPC, StorageFull), (errno.EROFS, AdsmigError)]
)
def test_a_file_that_cannot_be_made_is_named(
    path: str, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[AdsmigError]
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", fail)
    with pytest.raises(AdsmigError, match="shared") as caught:
        Limits.create(path)
    assert type(caught.value) is kind


def test_the_file_has_all_its_room_from_the_start(path: str) -> None:
    limits = Limits.create(path)
    status = os.stat(path)
    limits.remove()
    assert status.st_blocks * 512 >= status.st_size


def test_a_process_opens_it_once_and_does_without_where_it_is_not(path: str) -> None:
    assert opened(path) is None
    opened.cache_clear()
    limits = Limits.create(path)
    assert opened(path) is opened(path)
    limits.remove()
    assert opened(path) is None
