"""Finds jobs by their names, and tells what their manifests hold."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from adsmig import report
from adsmig.errors import AdsmigError, ManifestError, UsageError
from adsmig.job import Job
from adsmig.ledger import Ledger, Run, jobs, state_directory
from adsmig.location import one_line
from adsmig.manifest import Manifest
from adsmig.model import Outcome
from adsmig.output import Output, check_writable, text_of, write_report


def open_job(name: str | None, path: Path | None) -> tuple[Job, Path]:
    """The job of an id (or the beginning of one), or of a manifest, without credentials; by default
    the last used, but for a ``verify`` that came to its end: who has compared, and then tries again
    or goes on, means what was copied.

    ``name`` may also be a manifest's.  Raises UsageError if there is no such job, or more than one.
    """
    path = _path_of(name, path, passing=True)
    with Manifest(path) as manifest:
        return _job_of(manifest), path


def job_lines(output: Output) -> Iterator[str]:
    """The jobs of the state directory and what their last runs came to, as a table; the one that
    was run last comes last.
    """
    found: list[tuple[Job, list[Run]]] = []
    troubles = []
    for _, manifest in jobs():
        try:
            if isinstance(manifest, ManifestError):
                raise manifest
            found.append((_job_of(manifest), manifest.runs_seen()[0]))
        except ManifestError as exc:
            troubles.append(str(exc))
    found.sort(key=lambda one: one[1][-1].started if one[1] else 0)
    if output.as_json:
        for job, runs in found:
            facts = report.job_facts(job, runs)
            yield json.dumps({name.replace(" ", "_"): fact for name, fact in facts.items()})
        for trouble in troubles:
            print(f"adsmig: {trouble}", file=sys.stderr)
        return
    if found:
        rows = (report.job_row(job, runs) for job, runs in found)
        yield from report.table([report.JOB_COLUMNS, *rows])
    else:
        yield f"no jobs in {state_directory()}"
    yield from troubles


def status_lines(
    name: str | None, path: Path | None, html: Path | None, output: Output
) -> Iterator[str]:
    """What ``adsmig status`` prints; ``html`` takes a page with plots."""
    with Manifest(_path_of(name, path)) as manifest:
        job = _job_of(manifest)
        if html:
            check_writable(html, "--html")
            from adsmig.page import run_page

            write_report(html, run_page(job, manifest), output)
        if output.as_json:
            runs, _ = manifest.runs_seen()
            yield from (json.dumps(run_event(run)) for run in runs)
        else:
            yield from report.status(manifest, job)


def failure_lines(name: str | None, path: Path | None, output: Output) -> Iterator[str]:
    """What ``adsmig failures`` prints: a line for each."""
    with Manifest(_path_of(name, path)) as manifest:
        one = None
        for one in manifest.failures():
            yield json.dumps(failure_event(one)) if output.as_json else report.failure_line(one)
        if not (one or output.quiet):
            output.note(f"job {_job_of(manifest).id} has no failures on record")


def run_event(run: Run) -> dict[str, object]:
    """A run as JSON has it."""
    return {
        "run": run.id,
        "kind": run.kind,
        "state": run.state,
        "started": run.started,
        "ended": run.ended,
        "resumed": run.resumed,
        **run.counts._asdict(),
        "message": run.message,
    }


def failure_event(outcome: Outcome) -> dict[str, object]:
    """A failure as JSON has it."""
    return {
        "kind": outcome.kind,
        "key": text_of(outcome.key),
        "size": outcome.size,
        "error": outcome.error,
    }


def _job_of(manifest: Ledger) -> Job:
    text = manifest.job_json()
    if text is None:
        raise ManifestError(f"{manifest.path} holds no job yet")
    try:
        return Job.from_json(text)
    except AdsmigError as exc:
        raise ManifestError(f"{manifest.path}: {exc}") from exc


def _path_of(name: str | None, path: Path | None, passing: bool = False) -> Path:
    """The manifest that is meant: ``name`` is the beginning of an id, or a manifest's file.

    ``passing``: the last one used is none of a comparison that is over, if there is another.
    """
    if name and os.path.isfile(name):
        return Path(name)
    return path or _find(name, passing)


def _find(name: str | None, passing: bool) -> Path:
    directory = state_directory()
    paths = sorted(directory.glob("*.db"), key=_last_used)
    if name is None:
        if not paths:
            raise UsageError(f"no job in {directory}; see adsmig jobs, or name a --manifest")
        others = (one for one in reversed(paths) if not (passing and _is_compared(one)))
        return next(others, paths[-1])
    # A whole name first, as another may begin with it; an empty one, as of a variable that is not
    # set, is nobody's.
    found = [one for one in paths if one.stem == name]
    found = found or [one for one in paths if name and one.stem.startswith(name)]
    said = one_line(name) or "''"
    if not found:
        raise UsageError(
            f"no job {said} in {directory}, and no such file: JOB is the beginning of an id from"
            " adsmig jobs, or a manifest's file"
        )
    if len(found) > 1:
        raise UsageError(f"{said} could be any of {', '.join(path.stem for path in found)}")
    return found[0]


def _is_compared(path: Path) -> bool:
    """Whether that is the manifest of a ``verify`` that came to its end."""
    with contextlib.suppress(ManifestError), Manifest(path) as manifest:
        command = _job_of(manifest).command
        return command == "verify" and not manifest.unfinished_run()
    return False


def _last_used(path: Path) -> float:
    """When a job's manifest was last written to.  The database itself is not, before a checkpoint
    of its log, which a killed process does not get to; so the lock's file tells as well.
    """
    files = (path, path.with_name(f"{path.name}.lock"))
    return max(one.stat().st_mtime for one in files if one.exists())
