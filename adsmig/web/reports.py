"""A job's runs and failures in forms that other programs read."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence

from adsmig.job import Job
from adsmig.jobs import run_event
from adsmig.ledger import Run
from adsmig.manifest import Manifest
from adsmig.model import Counts
from adsmig.output import text_of
from adsmig.tables import harmless
from adsmig.web.shown import iso

RUN_COLUMNS = ("run", "kind", "state", "started", "ended", "resumed", *Counts._fields, "message")


def report_json(manifest: Manifest) -> str:
    """The job, its runs, and how much failed for which reason."""
    job = Job.from_json(manifest.job_json() or "")
    return json.dumps(
        {
            "job": job.id,
            "command": job.command,
            "source": str(job.places[0]),
            "destination": job.target or None,
            "runs": [run_event(run) for run in manifest.runs_seen()[0]],
            "failures": [
                {"kind": kind, "objects": count, "example": example}
                for kind, count, example in manifest.failure_kinds()
            ],
        },
        indent=2,
        ensure_ascii=False,
    )


def history_csv(runs: Sequence[Run]) -> str:
    """A line for each run, oldest first."""
    rows = [
        (run.id, run.kind, run.state, iso(run.started), iso(run.ended) if run.ended else "",
         run.resumed, *run.counts, run.message)
        for run in runs
    ]  # fmt: skip
    return "".join(_line(row) for row in (RUN_COLUMNS, *rows))


def failures_csv(manifest: Manifest) -> Iterator[str]:
    """A line for each failure, by key."""
    yield _line(("kind", "key", "size", "error"))
    for one in manifest.failures():
        yield _line((one.kind, text_of(one.key), one.size, one.error))


def _line(cells: Sequence[object]) -> str:
    file = io.StringIO()
    csv.writer(file).writerow([harmless(one) if isinstance(one, str) else one for one in cells])
    return file.getvalue()
