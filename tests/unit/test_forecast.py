"""What a dry run says would be done, and would be trouble."""

from __future__ import annotations

from adsmig.forecast import MOST_EXAMPLES, Forecast
from adsmig.tally import parts


def decided(*verdicts: tuple[str, int]) -> Forecast:
    made = Forecast()
    for name, size in verdicts:
        made.verdict(name, size)
    return made


def test_large_objects_are_known_by_verdict() -> None:
    made = decided(("new", 10**8), ("changed", 10**9), ("unchanged", 10**8))
    made.merge(decided(("new", 10**8), ("new", 1)))
    new, changed = parts(10**8), parts(10**9)
    assert made.large_of("new", "changed") == (3, 2 * new + changed)
    assert made.large_of("left") == (0, 0)


def test_trouble_is_counted_and_its_first_keys_are_named() -> None:
    made = Forecast()
    for number in reversed(range(10)):
        made.trouble("long name", b"%d" % number)
    made.trouble("not UTF-8", b"\xff")
    assert made.troubles() == [
        ("long name", 10, [b"0", b"1", b"2", b"3", b"4"]),
        ("not UTF-8", 1, [b"\xff"]),
    ]


def test_merged_examples_are_the_first_of_both() -> None:
    made, other = Forecast(), Forecast()
    for number in range(MOST_EXAMPLES):
        made.trouble("long name", b"%d" % (2 * number))
        other.trouble("long name", b"%d" % (2 * number + 1))
    made.merge(other)
    assert made.troubles() == [("long name", 10, [b"0", b"1", b"2", b"3", b"4"])]
