"""Whether more processes would find something to run on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import SimpleNamespace

import psutil
import pytest

from adsmig import spare


class Machine:
    """Processors, and a clock."""

    def __init__(self) -> None:
        self.now, self.idle, self.own = 100.0, 5.0, 3.0

    def work(self, seconds: float, idle: float = 0.0, own: float = 1.0) -> None:
        """``idle``: of all processors together; ``own``: the share of one that we use."""
        self.now += seconds
        self.idle += idle
        self.own += own * seconds


@pytest.fixture(name="machine")
def _machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    machine = Machine()
    clock = SimpleNamespace(monotonic=lambda: machine.now, process_time=lambda: machine.own)
    monkeypatch.setattr(spare, "time", clock)
    monkeypatch.setattr(spare, "_idle_s", lambda: machine.idle)
    return machine


def test_a_processor_that_idles_is_used_at_once(machine: Machine) -> None:
    time = spare.SpareTime()
    assert not time.enough()
    machine.work(0.07, idle=0.07)
    assert time.enough()


def test_who_waits_for_something_else_wants_others_after_a_while(machine: Machine) -> None:
    time = spare.SpareTime()
    machine.work(0.1, idle=0.2, own=0.1)  # as everybody does for a moment
    assert not time.enough()
    machine.work(0.1, idle=0.05, own=0.7)
    assert not time.enough()
    machine.work(1, idle=2, own=0)
    assert time.enough()


def test_where_it_costs_much_what_is_left_unused_adds_up(machine: Machine) -> None:
    for terms in (spare.LOGINS, spare.LISTING):
        time = spare.SpareTime(terms)
        machine.work(0.5, idle=0.8)
        assert not time.enough()
        machine.work(0.5, idle=0.8)
        assert time.enough()


def test_who_waits_for_answers_has_others_list_and_none_log_in(machine: Machine) -> None:
    listing, logged_in = spare.SpareTime(spare.LISTING), spare.SpareTime(spare.LOGINS)
    machine.work(1, idle=2, own=0.1)
    assert listing.enough()
    machine.work(100, idle=200, own=0.1)
    assert not logged_in.enough()


def test_who_is_told_of_room_is_told_so_again_a_moment_later(machine: Machine) -> None:
    time = spare.SpareTime()
    machine.work(0.07, idle=0.07)
    assert time.enough()
    machine.work(0.006)  # less than the kernel counts in
    assert time.enough()


def test_what_was_left_a_while_ago_is_no_longer(machine: Machine) -> None:
    time = spare.SpareTime()
    machine.work(10, idle=20)
    assert time.enough()
    machine.work(0.1, idle=0.02)
    assert not time.enough()


@pytest.mark.parametrize(
    ("terms", "idle"), [(spare.USUAL, 0.45), (spare.LOGINS, 0.65), (spare.LISTING, 0.65)]
)
def test_processors_that_are_busy_are_left_alone(
    machine: Machine, terms: spare.Terms, idle: float
) -> None:
    time = spare.SpareTime(terms)
    for _ in range(100):
        machine.work(1, idle)
        assert not time.enough()


def test_a_time_in_which_nothing_was_done_does_not_count(machine: Machine) -> None:
    time = spare.SpareTime()
    machine.work(10, idle=20)
    time.begin()
    assert not time.enough()


def test_the_share_that_nobody_used_since_it_was_last_asked(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    idleness = spare.Idleness()
    machine.work(10, idle=15)
    assert idleness.share() == pytest.approx(0.75)
    machine.work(1)
    assert idleness.share() == 0
    assert idleness.share() == 0  # no time has passed


def test_what_the_kernel_says_of_idle_processors() -> None:
    def known() -> float:
        times = psutil.cpu_times()
        return times.nice + times.idle

    before = known()
    here = spare._idle_s()
    after = known()
    assert before - 0.05 <= here <= after + 0.05


def test_where_nobody_tells_a_processor_is_taken_to_idle(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()

    def missing(*_: object, **__: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", missing)
    first = spare._idle_s()
    assert first > 0
    assert spare._idle_s() >= first
