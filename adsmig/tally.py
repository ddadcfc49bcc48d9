"""Objects counted by group, with their bytes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeVar

MOST_NAMES = 50
"""Storage classes, verdicts and kinds of trouble; each."""
OTHER, OTHER_EXTENSIONS = "(other)", b"OTHER"
"""What those beyond the most are tallied as; the latter, in lower case, is no extension."""

MIB = 1 << 20
LARGE_SIZE = 64 * MIB
"""As job.LARGE_SIZE, which stands above this module: copied in parts beyond it."""

_Name = TypeVar("_Name", str, bytes)


class Tally(NamedTuple):
    """Objects of one group; sizes are bytes.  The extremes are known of directories only."""

    objects: int
    size: int
    smallest: int | None = None
    largest: int | None = None

    @property
    def average(self) -> float:
        """Bytes an object; 0 for none."""
        return self.size / self.objects if self.objects else 0.0


def tally_of(tallies: dict[_Name, list[int]], name: _Name, most: int) -> list[int]:
    """The tally of that name, a new one if there is room, or else that of OTHER."""
    tally = tallies.get(name)
    if tally is None:
        if len(tallies) >= most:
            name = OTHER_EXTENSIONS if isinstance(name, bytes) else OTHER
        tally = tallies.setdefault(name, [0, 0])
    return tally


def add_to(tally: list[int], more: list[int]) -> None:
    """Adds objects and bytes."""
    tally[0] += more[0]
    tally[1] += more[1]


def ranked(tallies: Iterable[tuple[_Name, Tally]]) -> list[tuple[_Name, Tally]]:
    """Most bytes first, then most objects, then by name."""
    return sorted(tallies, key=lambda one: (-one[1].size, -one[1].objects, one[0]))


def parts(size: int) -> int:
    """How many parts an object is copied in, if it is large: see storage.base.part_size_for."""
    return -(-size // max(16 * MIB, -(-size // (10_000 * MIB)) * MIB))
