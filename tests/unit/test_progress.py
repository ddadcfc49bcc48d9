"""The line that people watch, and how sizes and durations are written."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsmig import progress as module
from adsmig.model import Counts
from adsmig.progress import LIVE_S, PLAIN_S, Progress, duration, size


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def shown(self) -> str:
        """What stands in the terminal's last line."""
        return self.getvalue().rpartition("\r")[2].replace("\x1b[K", "")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def copied(objects: int, size_each: int = 1_000_000, found: int | None = None) -> Counts:
    found = objects if found is None else found
    return Counts(
        found=found, found_bytes=found * size_each, copied=objects,
        copied_bytes=objects * size_each,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1499, "1.5 kB"),
        (999_900, "999.9 kB"),
        (10**6, "1.0 MB"),
        (123_456_789, "123.5 MB"),
        (10**9, "1.0 GB"),
        (5 * 10**12, "5.0 TB"),
        (10**15, "1.0 PB"),
        (10**18, "1000.0 PB"),
        (0.4, "0 B"),
    ],
)
def test_sizes_are_powers_of_a_thousand(count: float, text: str) -> None:
    assert size(count) == text


@given(st.integers(0, 10**17))
def test_a_size_tells_the_count_within_a_tenth(count: int) -> None:
    number, unit = size(count).split()
    power = ["B", "kB", "MB", "GB", "TB", "PB"].index(unit)
    assert abs(float(number) * 1000**power - count) <= 0.0501 * 1000**power
    assert len(number) <= 6


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (7.9, "0:07"),
        (59, "0:59"),
        (60, "1:00"),
        (12 * 60 + 34, "12:34"),
        (3599, "59:59"),
        (3 * 3600 + 4 * 60 + 5, "3:04:05"),
        (86_399, "23:59:59"),
        (86_400, "1d 00:00:00"),
        (2 * 86_400 + 3 * 3600 + 4 * 60 + 5, "2d 03:04:05"),
    ],
)
def test_durations_are_written_as_clocks(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_line_tells_all_that_was_asked_for(clock: Clock) -> None:
    progress = Progress(stream=io.StringIO())
    progress(Counts(), False)
    clock.now += 10
    counts = Counts(10_000, 4 * 10**9, 1000, 10**9, 2000, 2 * 10**9, 5)
    progress(counts, False)
    assert progress.line(counts) == (
        "found 10,000, unchanged 1,000, copied 2,000, failed 5, 75%, 300/s, 200.0 MB/s, ETA 0:05"
    )


def test_an_earlier_run_tells_how_much_there_is(clock: Clock) -> None:
    progress = Progress(copied(1000), io.StringIO())
    progress(Counts(), False)
    clock.now += 10
    progress(copied(100), False)
    line = progress.line(copied(100))
    assert ", 10%, " in line
    assert line.endswith("ETA 1:30")
    assert ", 100%, " in progress.line(copied(2000))


def test_nothing_found_or_copied_makes_no_rate_and_no_eta(clock: Clock) -> None:
    progress = Progress(stream=io.StringIO())
    progress(Counts(), False)
    clock.now += 10
    progress(Counts(), False)
    assert progress.line(Counts()) == ("found 0, unchanged 0, copied 0, failed 0, 0%, 0/s, 0 B/s")
    assert ", 50%, " in progress.line(Counts(found=10, copied=5))  # empty objects


def test_rates_are_of_the_last_seconds(clock: Clock) -> None:
    progress = Progress(stream=io.StringIO())
    progress(Counts(), False)
    for second in range(1, 101):
        clock.now += 10
        progress(copied(1000 if second < 50 else 1000 + (second - 50) * 50), False)
    assert ", 5/s, 5.0 MB/s" in progress.line(copied(1000 + 50 * 50))


def test_elsewhere_a_plain_line_comes_every_few_seconds(clock: Clock) -> None:
    stream = io.StringIO()
    progress = Progress(stream=stream)
    for _ in range(100):
        progress(copied(7), False)
        clock.now += PLAIN_S / 10
    progress(copied(8), True)
    lines = stream.getvalue().splitlines()
    assert 8 <= len(lines) <= 10
    assert all(line.startswith("found 7, ") and line.isprintable() for line in lines)
    assert stream.getvalue().endswith("\n")


@pytest.mark.parametrize("columns", [20, 80, 300])
def test_on_a_terminal_one_line_is_drawn_anew_and_fits(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    terminal = Terminal()
    progress = Progress(stream=terminal)
    for number in range(100):
        progress(copied(number * 10**6, 10**9), False)
        clock.now += LIVE_S
    assert "\n" not in terminal.getvalue()
    drawn = terminal.getvalue().split("\r")[1:]
    assert 90 <= len(drawn) <= 100
    for line in drawn:
        assert line.endswith("\x1b[K")
        assert len(line.removesuffix("\x1b[K")) < columns
    assert terminal.shown().startswith("found 99,000,000"[: columns - 1])


@pytest.mark.parametrize("columns", range(18, 130))
def test_a_line_that_is_too_long_has_fewer_fields_not_half_of_one(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    terminal = Terminal()
    progress = Progress(stream=terminal)
    progress(Counts(), False)
    clock.now += 10
    progress(Counts(99_000_000, 10**15, 0, 0, 23_456_789, 10**14, 12_345), False)
    fields = terminal.shown().split(", ")
    whole = {"found 99,000,000", "unchanged 0", "copied 23,456,789", "failed 12,345", "10%",
             "2,346,913/s", "10.0 TB/s", "ETA 1:30"}  # fmt: skip
    short = {"found 99,000,000", "copied 23.5M", "failed 12,345", "10%", "2.3M/s", "10.0 TB/s",
             "ETA 1:30"}  # fmt: skip
    assert set(fields) <= whole or set(fields) <= short
    assert len(terminal.shown()) < columns
    assert len(fields) >= {80: 7, 60: 5, 40: 3, 20: 1}.get(columns, 1)


def test_the_live_line_goes_when_the_run_ends(clock: Clock) -> None:
    terminal = Terminal()
    progress = Progress(stream=terminal)
    progress(copied(1), False)
    clock.now += 1
    progress(copied(2), False)
    assert terminal.shown()
    progress(copied(3), True)
    assert terminal.shown() == ""


def test_a_run_of_a_moment_draws_nothing(clock: Clock) -> None:
    for stream in (Terminal(), io.StringIO()):
        progress = Progress(stream=stream)
        progress(copied(1), False)
        progress(copied(2), True)
        assert stream.getvalue() == ""


def test_before_all_is_found_there_is_no_percentage(clock: Clock) -> None:
    progress = Progress(stream=io.StringIO())
    progress(Counts(), False)
    clock.now += 10
    progress(copied(99, found=100), False, listed=False)
    line = progress.line(copied(99, found=100), listed=False)
    assert ", listing, " in line
    assert "%" not in line
    assert "ETA" not in line
