"""The strip shows each range of keys where it belongs."""

from __future__ import annotations

from itertools import pairwise

import pytest

from adsmig.web.strip import MOST, WIDTH, between, segments


def test_shards_stand_in_the_order_of_their_keys_and_fill_the_strip() -> None:
    shards = [(b"", b"g", b"c", True), (b"g", b"p", b"k", False), (b"p", None, None, False)]
    found = segments(shards)
    assert [one.state for one in found] == ["done", "begun", "waiting"]
    assert [one.left for one in found] == [0, 400, 800]
    assert found[0].filled == found[0].width == 400
    assert 0 < found[1].filled < 400
    assert found[2].filled == 0
    assert (found[1].first, found[1].last, found[1].cursor) == (b"g", b"p", b"k")


@pytest.mark.parametrize(
    ("low", "key", "high", "least", "most"),
    [
        (b"a", b"b", b"c", 0.49, 0.51),
        (b"2026/01/", b"2026/06/15", b"2026/12/", 0.4, 0.6),
        (b"", b"", None, 0, 0),
        (b"", b"m", None, 0.7, 0.9),
        (b"\xff", b"\xff\x01", None, 0, 1),
        (b"same", b"same", b"same", 0, 0),
    ],
)
def test_a_cursor_is_between_the_ends(
    low: bytes, key: bytes, high: bytes | None, least: float, most: float
) -> None:
    assert least <= between(low, key, high) <= most


def test_many_shards_share_segments_and_none_is_left_out() -> None:
    keys = [f"{number:05d}".encode() for number in range(10_000)]
    shards = [(key, other, None, True) for key, other in pairwise(keys)]
    found = segments(shards)
    assert len(found) == MOST
    assert sum(one.shards for one in found) == len(shards)
    assert round(found[-1].left + found[-1].width) == WIDTH
    assert all(one.state == "done" for one in found)


def test_failures_are_marked_where_they_are() -> None:
    shards = [(b"", b"g", b"g", True), (b"g", b"p", b"p", True), (b"p", None, None, True)]
    assert [one.failed for one in segments(shards, [b"h"])] == [False, True, False]
    assert [one.failed for one in segments(shards, [b"g"])] == [True, False, False]
    assert [one.failed for one in segments(shards, [b"", b"z"])] == [True, False, True]
    assert segments([]) == []
