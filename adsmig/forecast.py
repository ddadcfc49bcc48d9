"""What a migration would do, and what will be trouble at its destination, in figures."""

from __future__ import annotations

from bisect import insort

from adsmig.tally import LARGE_SIZE, MOST_NAMES, OTHER, Tally, add_to, parts, ranked, tally_of

MOST_EXAMPLES = 5
"""Keys that are named for a kind of trouble."""


class Forecast:
    """Picklable, mergeable, of bounded size: names beyond MOST_NAMES are tallied as OTHER."""

    def __init__(self) -> None:
        self._verdicts: dict[str, list[int]] = {}
        self._large: dict[str, list[int]] = {}  # by verdict: objects and parts
        self._troubles: dict[str, tuple[list[int], list[bytes]]] = {}

    def verdict(self, name: str, size: int) -> None:
        """Counts what a sync would do: new, changed, unchanged, left, extraneous, unreadable."""
        add_to(tally_of(self._verdicts, name, MOST_NAMES), [1, size])
        if size > LARGE_SIZE:
            add_to(tally_of(self._large, name, MOST_NAMES), [1, parts(size)])

    def trouble(self, kind: str, key: bytes) -> None:
        """Counts a key that will be trouble at the destination; the first few are named."""
        self._add_trouble(kind, 1, [key])

    def merge(self, other: Forecast) -> None:
        """Adds the figures of ``other``, which covers other keys and stays as it is."""
        for mine, theirs in (
            (self._verdicts, other._verdicts),
            (self._large, other._large),
        ):
            for name, more in theirs.items():
                add_to(tally_of(mine, name, MOST_NAMES), more)
        for kind, (count, keys) in other._troubles.items():
            self._add_trouble(kind, count[0], keys)

    def by_verdict(self) -> list[tuple[str, Tally]]:
        """What a sync would do; most bytes first."""
        return ranked((name, Tally(*tally)) for name, tally in self._verdicts.items())

    def large_of(self, *verdicts: str) -> tuple[int, int]:
        """How many objects of these verdicts are beyond LARGE_SIZE, and in how many parts."""
        found = [self._large.get(name, [0, 0]) for name in verdicts]
        return sum(objects for objects, _ in found), sum(count for _, count in found)

    def troubles(self) -> list[tuple[str, int, list[bytes]]]:
        """Kind, count and the first few keys of what will be trouble; most frequent first."""
        found = [(kind, count[0], list(keys)) for kind, (count, keys) in self._troubles.items()]
        return sorted(found, key=lambda one: (-one[1], one[0]))

    def _add_trouble(self, kind: str, count: int, keys: list[bytes]) -> None:
        if kind not in self._troubles and len(self._troubles) >= MOST_NAMES:
            kind = OTHER
        counted, examples = self._troubles.setdefault(kind, ([0], []))
        counted[0] += count
        for key in keys:
            if len(examples) < MOST_EXAMPLES or key < examples[-1]:
                insort(examples, key)
                del examples[MOST_EXAMPLES:]
