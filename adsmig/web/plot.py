"""A rate over time as a small inline SVG, made for a page that is sent anew every second."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from adsmig.timeline import Slice, timeline

WIDTH, HEIGHT, BINS = 600, 96, 80


class Plot(NamedTuple):
    """What the template draws."""

    line: str
    """The path of the line."""
    area: str
    """The same, closed along the bottom."""
    peak: str
    """The largest rate, readable."""
    seconds: float
    """How long the run was at work."""
    pauses: list[float]
    """Where nothing ran for a while, and the time between is left out; units of the plot."""


def rates(slices: Sequence[Slice], of_bytes: bool, written: Callable[[float], str]) -> Plot | None:
    """The rate of a run from its beginning to now; None where there is nothing to draw."""
    line = timeline(slices, BINS)
    if line is None:
        return None
    values = line.rate(line.copied_bytes) if of_bytes else line.rate(_settled(slices))
    top = max(values, default=0.0)
    if not top:
        return None
    step = WIDTH / len(values)
    points = [
        (round((at + 0.5) * step, 1), round(HEIGHT - 2 - value / top * (HEIGHT - 6), 1))
        for at, value in enumerate(values)
    ]
    path = " ".join(f"{x},{y}" for x, y in points)
    drawn = f"M{path.replace(' ', ' L')}"
    area = f"{drawn} L{points[-1][0]},{HEIGHT} L{points[0][0]},{HEIGHT} Z"
    length = line.edges_s[-1]
    pauses = [round(at / length * WIDTH, 1) for at, _ in line.pauses]
    return Plot(drawn, area, written(top), length, pauses)


def _settled(slices: Sequence[Slice]) -> list[float]:
    """Objects that were looked at, in the bins of a timeline."""
    looked_at = [(*one[:4], one[3], *one[5:]) for one in slices]
    line = timeline(looked_at, BINS)
    return line.copied if line else []
