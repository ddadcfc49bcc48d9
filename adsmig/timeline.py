"""What a run did when, in bins to be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

Slice = tuple[float, float, int, int, int, int, int]
"""As manifest.slices has them: started, ended, worker, found, copied, failed, bytes."""


class Timeline(NamedTuple):
    """A run in bins of equal length, over the time when something ran."""

    edges_s: list[float]
    """Of the bins, from 0: seconds of running."""
    copied_bytes: list[float]
    copied: list[float]
    """Objects, without large ones."""
    busy: list[float]
    """Workers at work, on average."""
    pauses: list[tuple[float, float]]
    """Where in running time nothing ran, and for how many seconds."""

    @property
    def bin_s(self) -> float:
        """How long a bin is."""
        return self.edges_s[1] - self.edges_s[0]

    def rate(self, amounts: list[float]) -> list[float]:
        """Of each bin, a second."""
        return [amount / self.bin_s for amount in amounts]

    def running(self, amounts: list[float]) -> list[float]:
        """Of each bin and all before it."""
        return list(accumulate(amounts))


def timeline(slices: Sequence[Slice], bins: int = 96) -> Timeline | None:
    """What was done when, evenly over each slice; None without slices.

    Gaps of a minute and more, if they are 1 % of the time or more, are cut out: they are the time
    between an interruption and the resumption.
    """
    if not slices:
        return None
    segments: list[list[float]] = []
    for started, ended, *_ in sorted(slices, key=lambda one: one[0]):
        if segments and started <= segments[-1][1]:
            segments[-1][1] = max(segments[-1][1], ended)
        else:
            segments.append([started, max(started, ended)])
    least = max(60.0, 0.01 * sum(end - start for start, end in segments))
    # Where each stretch begins, in the time of clocks and in running time.
    starts = [(segments[0][0], 0.0)]
    pauses: list[tuple[float, float]] = []
    for (_, before), (after, _) in pairwise(segments):
        if after - before >= least:
            at = before - starts[-1][0] + starts[-1][1]
            pauses.append((at, after - before))
            starts.append((after, at))
    length = max(segments[-1][1] - starts[-1][0] + starts[-1][1], 1e-3)
    width = length / bins
    sums = [[0.0] * bins for _ in range(3)]
    stretch = 0
    for started, ended, _, _, copied, _, copied_bytes in sorted(slices, key=lambda one: one[0]):
        while stretch + 1 < len(starts) and starts[stretch + 1][0] <= started:
            stretch += 1
        clock, base = starts[stretch]
        start = started - clock + base
        seconds = max(ended - started, 1e-6)
        first = min(int(start / width), bins - 1)
        last = min(int((start + seconds) / width), bins - 1)
        for at in range(first, last + 1):
            over = min(start + seconds, (at + 1) * width) - max(start, at * width)
            part = 1.0 if first == last else max(over, 0) / seconds
            sums[0][at] += copied_bytes * part
            sums[1][at] += copied * part
            sums[2][at] += seconds * part / width
    return Timeline([width * at for at in range(bins + 1)], sums[0], sums[1], sums[2], pauses)
