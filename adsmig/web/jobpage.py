"""What the page of one job shows, gathered from its manifest."""

from __future__ import annotations

import binascii
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from adsmig.errors import AdsmigError
from adsmig.ledger import Run
from adsmig.manifest import Manifest
from adsmig.model import Counts
from adsmig.progress import size
from adsmig.web.console import Console, log_path, manifest_path, tail
from adsmig.web.jobs import PLOTTED, Summary
from adsmig.web.plot import Plot, rates
from adsmig.web.strip import segments

SHOWN_FAILURES = 50
COUNTED_FAILURES = 10_000
"""More than so many are not told apart by their reasons."""
SHOWN_RUNS = 60
SHOWN_LOG = 8 << 10

job_pieces = ("head", "figures", "strip", "plots", "failures", "history", "log")
"""The parts of the page that change; each has a template."""


class Filter(NamedTuple):
    """Which failures to show."""

    kind: str = ""
    q: str = ""
    after: str = ""
    """A key, in hexadecimal digits: those past it."""


def job_view(job: Summary, console: Console, chosen: Filter) -> dict[str, Any]:
    """What the templates of the page use.  An unreadable manifest leaves most of it empty."""
    process = console.started.get(job.name)
    lines = tail(log_path(job.name), SHOWN_LOG)
    view: dict[str, Any] = {
        "job": job,
        "segments": [],
        "plots": [],
        "kinds": [],
        "failures": [],
        "more": "",
        "chosen": chosen,
        "bars": _bars(job.runs[-SHOWN_RUNS:], job.counts),
        "log": lines,
        "has_log": bool(lines),
        "exit_code": process.code if process else None,
        "last_line": _last_line(lines),
    }
    try:
        with Manifest(manifest_path(job.name)) as manifest:
            view.update(_from_manifest(job, manifest, chosen))
    except AdsmigError:
        pass  # it is not there yet, or the summary tells why it cannot be read
    return view


def _from_manifest(job: Summary, manifest: Manifest, chosen: Filter) -> dict[str, Any]:
    if not job.run:
        return {}
    after = _key(chosen.after)
    failures = manifest.failures_like(chosen.kind, chosen.q, after, SHOWN_FAILURES + 1)
    first = manifest.failures_like("", "", None, 500)
    more = failures[SHOWN_FAILURES - 1][0].hex() if len(failures) > SHOWN_FAILURES else ""
    slices = manifest.slices_summed(job.run.id, PLOTTED)
    drawn: list[tuple[str, Plot]] = []
    for name, of_bytes, written in (
        ("bytes", True, lambda value: f"{size(value)}/s"),
        ("objects", False, lambda value: f"{value:,.0f}/s"),
    ):
        if plot := rates(slices, of_bytes, written):
            drawn.append((name, plot))
    return {
        "segments": segments(manifest.shards(job.run.id), [one[0] for one in first]),
        "plots": drawn,
        "kinds": manifest.failure_kinds(COUNTED_FAILURES) if first else [],
        "failures": failures[:SHOWN_FAILURES],
        "more": more,
    }


def _key(digits: str) -> bytes | None:
    try:
        return binascii.unhexlify(digits) if digits else None
    except ValueError:
        return None


def _bars(runs: Sequence[Run], live: Counts) -> list[tuple[Run, float]]:
    """The last runs, newest first, each with its share of the largest number of bytes.

    ``live``: the counts of the last one, with what is not committed yet.
    """
    runs = [*runs[:-1], *(run._replace(counts=live) for run in runs[-1:])]
    most = max((run.counts.copied_bytes for run in runs), default=0) or 1
    return [(run, run.counts.copied_bytes / most) for run in reversed(runs)]


def _last_line(lines: str) -> str:
    """What the last process said at its end."""
    said = [line for line in lines.splitlines() if line.startswith(("adsmig: ", "ads-cli: "))]
    return said[-1].partition(": ")[2] if said else os.linesep.join(lines.splitlines()[-1:])
