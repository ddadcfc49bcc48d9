"""When a slice begins no more, and when it does again."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from adsmig import span as module
from adsmig.span import LEAST_SHARE, LONGEST_S, PATIENCE, PATIENCE_S, SEEK_SHARE, SLOW, Span


@pytest.fixture(name="clock")
def _clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def nobody(since: float) -> bool:
    return False


def everybody(since: float) -> bool:
    return True


def test_it_lasts_as_long_as_was_said(clock: SimpleNamespace) -> None:
    span = Span(5)
    clock.now += 5
    assert not span.used_up(nobody)
    clock.now += 0.1
    assert span.used_up(nobody)


def test_a_far_key_is_worth_some_time(clock: SimpleNamespace) -> None:
    span = Span(1)
    clock.now += 2
    span.reached()
    clock.now += 2 * LEAST_SHARE - 0.1
    assert not span.used_up(everybody)
    clock.now += 0.2
    assert span.used_up(everybody)
    assert not span.used_up(nobody)
    clock.now = 102 + 2 * SEEK_SHARE + 0.1
    assert span.used_up(nobody)


def test_as_long_as_something_comes_it_is_waited_for(clock: SimpleNamespace) -> None:
    span = Span(0.1)
    clock.now += 0.2
    span.end()
    for number in range(100):
        clock.now += PATIENCE_S / 2
        span.done(b"%d" % number, 0.001)
        assert span.patience() == pytest.approx(PATIENCE_S)
    clock.now += 2 * PATIENCE_S
    assert span.patience() < 0


def test_where_all_takes_long_or_the_slice_did_patience_is_longer(clock: SimpleNamespace) -> None:
    slow = Span(1)
    for _ in range(100):
        slow.done(b"a", 3)
    slow.end()
    assert slow.patience() == pytest.approx(SLOW * 3, rel=0.2)
    long = Span(20)
    clock.now += 20
    long.end()
    assert long.patience() == pytest.approx(20 * PATIENCE)


def test_a_few_slow_ones_make_nobody_patient(clock: SimpleNamespace) -> None:
    span = Span(1)
    for number in range(1000):
        span.done(number, 0.001 if number % 10 else 100)
        span.done(number, 0)  # of which nobody knows how long it took
    span.end()
    assert span.patience() == PATIENCE_S


def test_more_is_begun_until_those_that_are_late_are_done(clock: SimpleNamespace) -> None:
    span = Span(1)
    clock.now += 1.1
    span.end()
    span.resume([b"a", b"b"])
    clock.now += 5
    assert not span.used_up(nobody)
    span.done(b"c", 0.1)
    span.done(b"a", 6)
    assert not span.used_up(nobody)
    span.done(b"b", 6)
    assert span.used_up(nobody)


def test_who_recalls_it_while_some_are_late_would_wait_for_them(clock: SimpleNamespace) -> None:
    span = Span(1)
    clock.now += 2
    assert span.used_up(everybody)
    span.end()
    span.resume([b"a"])
    clock.now += 0.1
    assert not span.used_up(everybody)
    span.done(b"a", 2)
    assert span.used_up(everybody)


def test_there_is_an_end_to_it(clock: SimpleNamespace) -> None:
    span = Span(1)
    clock.now += 1.1
    span.end()
    span.resume([b"a"])
    clock.now = 100.1 + LONGEST_S
    assert span.used_up(nobody)
    span.end()
    assert span.patience() == math.inf


def test_who_ends_for_another_reason_waits(clock: SimpleNamespace) -> None:
    assert Span(1).patience() == math.inf
