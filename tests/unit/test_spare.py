"""Whether more processes would find something to run on."""

from __future__ import annotations

from types import SimpleNamespace

import psutil
import pytest

from adsmig import spare


class Machine:
    """Two processors, and a clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.idle, self.nice, self.own = 100.0, 5.0, 1.0, 3.0
        own = SimpleNamespace(monotonic=lambda: self.now, process_time=lambda: self.own)
        monkeypatch.setattr(spare, "time", own)
        monkeypatch.setattr(psutil, "cpu_times", self._times)

    def _times(self) -> SimpleNamespace:
        return SimpleNamespace(user=9.0, idle=self.idle, nice=self.nice, iowait=0.0)

    def work(
        self, seconds: float, *, idle: float = 0.0, nice: float = 0.0, own: float = 0.0
    ) -> None:
        self.now += seconds
        self.own += own
        self.idle += idle
        self.nice += nice


def test_what_is_left_unused_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, time = Machine(monkeypatch), spare.SpareTime()
    assert not time.enough()  # nobody can tell yet
    machine.work(0.5, idle=0.8)
    assert not time.enough()
    machine.work(0.5, idle=0.8)
    assert time.enough()


def test_the_share_that_nobody_used_since_it_was_last_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda: 2)
    machine = Machine(monkeypatch)
    idleness = spare.Idleness()
    machine.work(10, idle=15)
    assert idleness.share() == pytest.approx(0.75)
    machine.work(1)
    assert idleness.share() == 0
    assert idleness.share() == 0  # no time has passed


def test_two_processors_that_are_busy_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, time = Machine(monkeypatch), spare.SpareTime()
    for _ in range(100):
        assert not time.enough()
        machine.work(1, idle=0.6)


def test_many_that_idle_are_used_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, time = Machine(monkeypatch), spare.SpareTime()
    time.enough()
    machine.work(0.1, idle=6)
    assert time.enough()


def test_a_process_that_is_busy_all_the_time_wants_others(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, time = Machine(monkeypatch), spare.SpareTime()
    time.enough(busy=True)
    for _ in range(10):  # as busy as one can be, with what it alone can do
        machine.work(1, idle=0.6, own=0.95)
        assert not time.enough()
    machine.work(1, idle=0.6, own=0.7)  # with the right thing, and waiting
    assert not time.enough(busy=True)
    machine.work(1, idle=0.3, own=0.95)  # where others have the rest
    assert not time.enough(busy=True)
    machine.work(1, idle=0.6, own=0.95)
    assert time.enough(busy=True)


def test_work_of_low_priority_makes_way(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, time = Machine(monkeypatch), spare.SpareTime()
    time.enough()
    machine.work(1, nice=1.5)
    assert time.enough()
