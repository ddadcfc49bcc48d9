"""When schedules are due, above all on the days on which clocks are put forward and back."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
import tzlocal
from hypothesis import given
from hypothesis import strategies as st

from adsmig.errors import UsageError
from adsmig.triggers import local_timezone, next_time, short_months


def times(cron: str, zone: str, after: str) -> Iterator[str]:
    """The times at which it is due, with their offsets, from ``after`` on, which is local time."""
    at = datetime.fromisoformat(after).replace(tzinfo=ZoneInfo(zone)).timestamp()
    while True:
        at = next_time(cron, zone, at)
        yield f"{datetime.fromtimestamp(at, ZoneInfo(zone)):%m-%d %H:%M%z}"


def first(count: int, cron: str, zone: str, after: str) -> list[str]:
    return list(itertools.islice(times(cron, zone, after), count))


@pytest.mark.parametrize(
    ("zone", "day", "expected"),
    [
        # 02:00 became 03:00.
        ("Europe/Berlin", "2026-03-28",
         ["03-28 02:30+0100", "03-29 03:00+0200", "03-30 02:30+0200"]),
        ("America/New_York", "2026-03-07",
         ["03-07 02:30-0500", "03-08 03:00-0400", "03-09 02:30-0400"]),
    ],
)  # fmt: skip
def test_a_time_that_does_not_exist_comes_right_after_the_gap(
    zone: str, day: str, expected: list[str]
) -> None:
    assert first(3, "30 2 * * *", zone, day) == expected


@pytest.mark.parametrize(
    ("zone", "cron", "day", "expected"),
    [
        # 03:00 became 02:00.
        ("Europe/Berlin", "30 2 * * *", "2026-10-24",
         ["10-24 02:30+0200", "10-25 02:30+0200", "10-26 02:30+0100"]),
        # 02:00 became 01:00.
        ("America/New_York", "30 1 * * *", "2026-10-31",
         ["10-31 01:30-0400", "11-01 01:30-0400", "11-02 01:30-0500"]),
    ],
)  # fmt: skip
def test_a_time_that_exists_twice_comes_once(
    zone: str, cron: str, day: str, expected: list[str]
) -> None:
    assert first(3, cron, zone, day) == expected


def test_shanghai_has_neither_today_but_had_both_once() -> None:
    assert first(2, "30 2 29 3,10 *", "Asia/Shanghai", "2026-01-01") == [
        "03-29 02:30+0800", "10-29 02:30+0800",
    ]  # fmt: skip
    # 1991: 02:00 became 03:00 on 14 April, and 02:00 became 01:00 on 15 September.
    assert first(2, "30 2 * * *", "Asia/Shanghai", "1991-04-14") == [
        "04-14 03:00+0900", "04-15 02:30+0900",
    ]  # fmt: skip
    assert first(2, "30 1 * * *", "Asia/Shanghai", "1991-09-15") == [
        "09-15 01:30+0900", "09-16 01:30+0800",
    ]  # fmt: skip


def test_what_was_run_is_not_due_again_in_the_second_half_of_the_double_hour() -> None:
    zone = ZoneInfo("Europe/Berlin")
    at = datetime(2026, 10, 25, 2, 10, tzinfo=zone, fold=1).timestamp()
    due = datetime.fromtimestamp(next_time("30 2 * * *", "Europe/Berlin", at), zone)
    assert due == datetime(2026, 10, 26, 2, 30, tzinfo=zone)


def test_hourly_goes_by_hours_that_pass() -> None:
    for cron in ("0 * * * *", "0 */1 * * *", "0 0-23 * * *"):
        assert first(4, cron, "Europe/Berlin", "2026-10-25 00:30") == [
            "10-25 01:00+0200", "10-25 02:00+0200", "10-25 02:00+0100", "10-25 03:00+0100",
        ]  # fmt: skip
        assert first(3, cron, "Europe/Berlin", "2026-03-29 00:30") == [
            "03-29 01:00+0100", "03-29 03:00+0200", "03-29 04:00+0200",
        ]  # fmt: skip


def test_a_star_with_a_step_goes_by_the_clock_as_well() -> None:
    assert first(3, "0 */2 * * *", "Europe/Berlin", "2026-10-25 00:30") == [
        "10-25 02:00+0200", "10-25 04:00+0100", "10-25 06:00+0100",
    ]  # fmt: skip
    assert first(2, "*/30 2 * * *", "Europe/Berlin", "2026-03-29 00:30") == [
        "03-29 03:00+0200", "03-30 02:00+0200",
    ]  # fmt: skip
    assert first(3, "*/30 2 * * *", "Europe/Berlin", "2026-10-25 00:30") == [
        "10-25 02:00+0200", "10-25 02:30+0200", "10-26 02:00+0100",
    ]  # fmt: skip


def test_months_have_their_lengths() -> None:
    assert first(3, "0 2 31 * *", "Asia/Shanghai", "2026-01-31 02:00") == [
        "03-31 02:00+0800", "05-31 02:00+0800", "07-31 02:00+0800",
    ]  # fmt: skip
    assert first(2, "0 2 L 2 *", "UTC", "2027-01-01") == ["02-28 02:00+0000", "02-29 02:00+0000"]


@given(
    minute=st.sampled_from(["0", "30", "*/15", "5,35", "*"]),
    hour=st.sampled_from(["*", "1", "2", "3", "*/2", "1-3", "0,12"]),
    zone=st.sampled_from(["Europe/Berlin", "America/New_York", "Asia/Shanghai", "UTC",
                          "Australia/Lord_Howe"]),
    after=st.floats(1.7e9, 2e9),
)  # fmt: skip
def test_times_are_later_and_each_is_found_from_any_moment_before_it(
    minute: str, hour: str, zone: str, after: float
) -> None:
    cron = f"{minute} {hour} * * *"
    due = next_time(cron, zone, after)
    assert after < due <= after + 26 * 3600
    assert next_time(cron, zone, (after + due) / 2) == due
    assert next_time(cron, zone, due) > due


@pytest.mark.parametrize(
    ("cron", "zone", "message"),
    [
        ("0 2 * *", "UTC", "five fields"),
        ("0 0 2 1 * *", "UTC", "five fields"),
        ("@reboot", "UTC", "five fields"),
        ("0 24 * * *", "UTC", "bad hour"),
        ("0 2 30 2 *", "UTC", "day-of-month"),
        ("0 2 29 2 MON#1", "Nowhere/Land", "time zone"),
        ("0 2 1 * *", "../../etc/passwd", "time zone"),
        ("0 2 1 * *", "Europe", "time zone"),
        ("0 2 31 4,6 1,x", "UTC", "bad day-of-week"),
    ],
)
def test_what_is_wrong_is_refused(cron: str, zone: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        next_time(cron, zone, time.time())


def test_the_machines_time_zone_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Shanghai")
        tzlocal.reload_localzone()  # it remembers
        assert local_timezone() == "Asia/Shanghai"
    tzlocal.reload_localzone()
    assert next_time("0 2 1 * *", local_timezone(), 0) > 0


@pytest.mark.parametrize(
    ("word", "fields"),
    [
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
    ],
)
def test_the_words_of_crontab_mean_the_same(word: str, fields: str) -> None:
    for after in (0.0, 1_790_000_000.0):
        assert next_time(word, "Europe/Berlin", after) == next_time(fields, "Europe/Berlin", after)


@pytest.mark.parametrize(
    ("cron", "short"),
    [
        ("0 2 31 * *", ["February", "April", "June", "September", "November"]),
        ("0 2 29-31 * *", ["February"]),
        ("0 2 30,31 2,3 *", ["February"]),
        ("0 2 31 1,12 *", []),
        ("0 2 28,31 * *", []),
        ("0 2 L * *", []),
        ("0 2 LW * *", []),
        ("0 2 31 * MON", []),
        ("0 2 * * *", []),
        ("@monthly", []),
    ],
)
def test_months_that_end_before_the_day_that_is_named(cron: str, short: list[str]) -> None:
    assert short_months(cron) == short
