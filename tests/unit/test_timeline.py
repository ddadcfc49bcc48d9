"""A run in bins."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsmig.timeline import Slice, timeline


def one(started: float, ended: float, copied: int = 10, size: int = 1000, worker: int = 1) -> Slice:
    return (started, ended, worker, copied, copied, 0, size)


def test_no_slices_are_no_timeline() -> None:
    assert timeline([]) is None


def test_what_was_done_is_spread_over_its_slice() -> None:
    found = timeline([one(1000, 1100), one(1000, 1050, 0, 0)], bins=10)
    assert found
    assert found.edges_s == pytest.approx([10 * at for at in range(11)])
    assert found.rate(found.copied_bytes) == pytest.approx([10] * 10)
    assert found.running(found.copied) == pytest.approx(range(1, 11))
    assert found.busy == pytest.approx([2] * 5 + [1] * 5)
    assert found.pauses == []


def test_the_time_between_interruption_and_resumption_is_cut_out() -> None:
    found = timeline([one(0, 100), one(10_000, 10_100), one(10_110, 10_210)], bins=31)
    assert found
    assert found.pauses == [(100, 9900)]
    assert found.edges_s[-1] == pytest.approx(310)
    assert found.busy[20] == 0
    assert found.busy[21] == pytest.approx(1)


def test_a_clock_that_was_set_back_does_no_harm() -> None:
    found = timeline([one(100, 50), one(60, 61), one(100, 100)])
    assert found
    assert sum(found.copied) == pytest.approx(30)
    assert all(value >= 0 for value in found.copied + found.busy)


@given(
    st.lists(
        st.tuples(
            st.floats(0, 10**5), st.floats(0, 10**4), st.integers(0, 10**5), st.integers(0, 10**12)
        ),
        min_size=1,
        max_size=30,
    ),
    st.integers(1, 100),
)
def test_nothing_is_lost_or_counted_twice(
    found: list[tuple[float, float, int, int]], bins: int
) -> None:
    slices = [one(start, start + seconds, *rest) for start, seconds, *rest in found]
    made = timeline(slices, bins)
    assert made
    assert len(made.edges_s) == bins + 1
    assert sum(made.copied) == pytest.approx(sum(one[2] for one in found), abs=1e-3)
    assert sum(made.copied_bytes) == pytest.approx(sum(one[3] for one in found), rel=1e-6, abs=1)
    worked = sum(seconds for _, seconds, *_ in found)
    assert sum(made.busy) * made.bin_s == pytest.approx(worked, rel=1e-6, abs=1e-3)
