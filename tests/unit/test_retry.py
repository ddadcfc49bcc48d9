"""What is tried again, how often, and how long it waits."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from adsmig import retry as module
from adsmig.errors import (
    NotFound,
    ObjectError,
    SourceChanged,
    Throttled,
    TransientError,
    Unreachable,
)
from adsmig.retry import BUSY_TRIES, FIRST_PAUSE_S, LONGEST_PAUSE_S, TOLD_S, TRIES, retry, wait


class Unit:
    """Raises one error after the other, then returns 'done'; counts its calls."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Every pause asked for, none of which is made; jitter is off."""
    made: list[float] = []
    monkeypatch.setattr(module, "wait", lambda seconds, stopping: made.append(seconds))
    monkeypatch.setattr(module.random, "uniform", lambda low, high: (low + high) / 2)
    return made


def going_on() -> bool:
    return False


def lost(count: int = 1) -> list[Exception]:
    return [TransientError("lost") for _ in range(count)]


def test_a_unit_that_works_is_called_once(pauses: list[float]) -> None:
    unit = Unit()
    assert retry(unit, "it") == "done"
    assert unit.calls == 1
    assert pauses == []


def test_a_transient_error_is_tried_again(pauses: list[float]) -> None:
    unit = Unit(*lost(TRIES - 1))
    assert retry(unit, "it") == "done"
    assert unit.calls == TRIES
    assert len(pauses) == TRIES - 1


@pytest.mark.parametrize("tries", [1, 2, TRIES])
def test_the_last_error_is_raised_when_the_tries_are_used_up(
    pauses: list[float], tries: int
) -> None:
    errors = lost(tries + 1)
    last = errors[tries - 1]
    unit = Unit(*errors)
    with pytest.raises(TransientError) as caught:
        retry(unit, "it", tries=tries)
    assert caught.value is last
    assert unit.calls == tries
    assert len(pauses) == tries - 1


@pytest.mark.parametrize("error", [NotFound("x"), ObjectError("k", "x"), ValueError("x")])
def test_what_trying_again_cannot_help_is_raised_at_once(
    pauses: list[float], error: Exception
) -> None:
    unit = Unit(error)
    with pytest.raises(type(error)) as caught:
        retry(unit, "it")
    assert caught.value is error
    assert (unit.calls, pauses) == (1, [])


def test_final_errors_are_raised_at_once_and_others_are_not(pauses: list[float]) -> None:
    unit = Unit(TransientError("lost"), SourceChanged("changed"))
    with pytest.raises(SourceChanged):
        retry(unit, "it", final=(SourceChanged,))
    assert unit.calls == 2
    assert len(pauses) == 1


def test_an_immediate_error_waits_for_nothing_and_leaves_the_next_pause_short(
    pauses: list[float],
) -> None:
    unit = Unit(TransientError("closed", immediate=True), *lost())
    assert retry(unit, "it") == "done"
    assert pauses == [FIRST_PAUSE_S]


def test_pauses_grow_to_a_limit(pauses: list[float]) -> None:
    with pytest.raises(TransientError):
        retry(Unit(*lost(30)), "it", tries=30)
    assert pauses[0] == FIRST_PAUSE_S
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE_S
    assert len(set(pauses)) > 3


def test_a_store_that_asks_for_fewer_requests_is_given_longer(pauses: list[float]) -> None:
    retry(Unit(*lost(3)), "it")
    other, pauses[:] = list(pauses), []
    retry(Unit(*[Throttled("slow down")] * 3), "it")
    assert all(throttled >= plain for throttled, plain in zip(pauses, other, strict=True))
    assert sum(pauses) > sum(other)


def test_who_is_throttled_waits_as_long_as_others_are_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served = 5 * TRIES

    def wait_for_others(seconds: float, stopping: object) -> None:
        nonlocal served
        if served:
            served -= 1
            assert retry(Unit(), "another") == "done"

    monkeypatch.setattr(module, "wait", wait_for_others)
    unit = Unit(*[Throttled("slow down")] * (5 * TRIES))
    assert retry(unit, "it", stopping=going_on) == "done"
    served = TRIES
    unit = Unit(*[Throttled("slow down")] * 5 * TRIES)
    with pytest.raises(Throttled):  # now nobody is
        retry(unit, "it", stopping=going_on)
    assert unit.calls == 2 * TRIES
    served = TRIES
    with pytest.raises(TransientError, match="lost"):
        retry(Unit(*lost(TRIES + 1)), "it", stopping=going_on)


@pytest.mark.parametrize("asked", [True, False])
def test_who_is_throttled_waits_no_longer_for_what_goes_well_in_it(
    pauses: list[float], asked: bool
) -> None:
    """Nor does who cannot be asked to stop meanwhile."""
    calls = 0

    def unit() -> None:
        nonlocal calls
        calls += 1
        retry(Unit(), "a part of it")
        raise Throttled("slow down")

    with pytest.raises(Throttled):
        retry(unit, "it", stopping=going_on) if asked else retry(unit, "it")
    assert calls == TRIES + (BUSY_TRIES if asked else 0)


def test_pauses_differ_from_caller_to_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[float] = []
    monkeypatch.setattr(module, "wait", lambda seconds, stopping: made.append(seconds))
    for _ in range(50):
        retry(Unit(*lost()), "it")
    assert len(set(made)) > 10
    assert all(0 < pause <= 2 * FIRST_PAUSE_S for pause in made)


def test_nothing_is_tried_again_once_stopping(pauses: list[float]) -> None:
    unit = Unit(*lost(3))
    with pytest.raises(TransientError):
        retry(unit, "it", stopping=lambda: True)
    assert (unit.calls, pauses) == (1, [])
    assert retry(Unit(), "it", stopping=lambda: True) == "done"


def test_nothing_is_tried_again_when_stopping_began_in_a_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stopping = [False]
    monkeypatch.setattr(module, "wait", lambda seconds, asked: stopping.__setitem__(0, True))
    unit = Unit(*lost(3))
    with pytest.raises(TransientError):
        retry(unit, "it", stopping=lambda: stopping[0])
    assert unit.calls == 1


@pytest.mark.parametrize("kind", [Unreachable, Throttled, SourceChanged])
def test_every_kind_of_transient_error_is_tried_again(
    pauses: list[float], kind: type[TransientError]
) -> None:
    assert retry(Unit(kind("x")), "it") == "done"
    assert len(pauses) == 1


# Waiting, on a clock that only sleep moves.


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[], float]:
    """The module's own: threads that other tests left behind go on with the real one."""
    now = [1000.0]

    def sleep(seconds: float) -> None:
        assert seconds > 0
        now[0] += seconds

    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    return lambda: now[0] - 1000.0


def test_who_waits_is_told_now_and_then_what_keeps_failing(
    clock: Callable[[], float], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "adsmig.retry")
    monkeypatch.setattr(module._Seen, "told", -TOLD_S)
    errors = lost(6)

    def slow() -> str:
        module.time.sleep(40)
        if errors:
            raise errors.pop()
        return "done"

    assert retry(slow, "listing") == "done"
    told = [one.levelname for one in caplog.records]
    assert (told[0], told.count("WARNING"), len(told)) == ("WARNING", 3, 6)
    assert caplog.records[0].message == "listing: lost; trying again"
    assert retry(Unit(*lost(3)), "it") == "done"  # in a moment: that is no matter
    assert [one.levelname for one in caplog.records[6:]] == ["INFO"] * 3


@pytest.mark.parametrize("seconds", [0.05, 1.0, 20.0])
def test_waits_as_long_as_asked(clock: Callable[[], float], seconds: float) -> None:
    wait(seconds)
    assert clock() == pytest.approx(seconds)


@pytest.mark.parametrize("seconds", [0, -1])
def test_waits_for_nothing_when_the_time_has_come(
    clock: Callable[[], float], seconds: float
) -> None:
    wait(seconds)
    assert clock() == 0


def test_waiting_ends_a_moment_after_stopping(clock: Callable[[], float]) -> None:
    wait(20.0, lambda: clock() >= 1.0)
    assert 1.0 <= clock() <= 1.2
    wait(20.0, lambda: True)
    assert clock() <= 1.2
