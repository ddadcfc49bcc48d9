"""What the benchmark counts, and how it is shown: figures, ratios, tables."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from scripts.benchtools import OURS


class BenchError(Exception):
    """A tool that did not do its work, or a server that does not start."""


@dataclass
class Figures:
    """What one tool took for one workload, a value a round."""

    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    peak_bytes: list[float] = field(default_factory=list)

    def add(self, figures: dict[str, float]) -> None:
        """Those of one more round."""
        for name in NAMES:
            getattr(self, name).append(figures[name])


NAMES = ("wall_s", "cpu_s", "peak_bytes")


def ratio(found: dict[str, Figures], name: str) -> tuple[float, str] | None:
    """adsmig's figure by the best peer's, the median over rounds, and which peer that mostly is."""
    peers = [tool for tool in found if tool != OURS.name]
    if not peers or OURS.name not in found:
        return None
    ours = getattr(found[OURS.name], name)
    ratios = [
        value / min(getattr(found[peer], name)[at] for peer in peers)
        for at, value in enumerate(ours)
    ]
    best = min(peers, key=lambda peer: statistics.median(getattr(found[peer], name)))
    return statistics.median(ratios), best


def table(workload: str, found: dict[str, Figures]) -> Iterator[str]:
    """Lines for people: each tool's medians, and the ratios."""
    yield f"\n{workload}"
    yield f"  {'':10} {'wall s':>9} {'CPU s':>9} {'memory MB':>10}"
    for tool, figures in found.items():
        wall, cpu, peak = (statistics.median(getattr(figures, name)) for name in NAMES)
        yield f"  {tool:10} {wall:9.2f} {cpu:9.2f} {peak / 1e6:10.1f}"
    told = [ratio(found, name) for name in NAMES]
    if all(told):
        cells = [f"{one[0]:.2f}" for one in told if one]
        peers = ", ".join(one[1] for one in told if one)
        yield f"  {'ratio':10} {cells[0]:>9} {cells[1]:>9} {cells[2]:>10}   to {peers}"


def as_json(found: dict[str, Figures]) -> dict[str, Any]:
    """The same for machines, with the figures of each round."""
    return {
        "tools": {
            tool: {name: getattr(one, name) for name in NAMES} for tool, one in found.items()
        },
        "ratios": {name: ratio(found, name) for name in NAMES},
    }


def machine() -> str:
    """What it runs on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return (
        f"{os.cpu_count()} CPUs, {memory / 2**30:.0f} GiB, Linux {platform.release()},"
        f" Python {platform.python_version()}"
    )
