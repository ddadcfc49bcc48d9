"""What a person reads after a run, or about one: plain text, ready to print."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence

from adsmig.job import Job
from adsmig.ledger import Ledger, Run, default_path
from adsmig.location import one_line
from adsmig.model import Counts, Outcome
from adsmig.progress import duration, several, size
from adsmig.tables import printable as printable
from adsmig.tables import table as table

REASONS_SHOWN = 5
"""Of each kind of failure."""

_NOTHING = Counts()
_WOULD = {"copied": "would copy", "deleted": "would delete"}


def summary(
    job: Job,
    run: Run,
    seconds: float,
    before: Counts = _NOTHING,
    kinds: Iterable[tuple[str, int, str]] = (),
) -> str:
    """A run's result in one line; ``before``: what of that was done before the run was resumed,
    which was ``seconds`` ago; ``kinds``: as Ledger.failure_kinds, of a job that compares.
    """
    counts = run.counts
    if not counts.found and not counts.deleted:
        if run.kind == "retry":
            return "found nothing of what had failed: it is gone, or not selected any more"
        return f"found nothing to {_VERBS[job.command]}: {job.origin} was listed to its end"

    def verb(done: str) -> str:
        return _WOULD[done] if job.dryrun else done

    parts = []
    if job.command in ("cp", "sync"):
        parts.append(
            f"{verb('copied')} {several(counts.copied, 'object')} ({size(counts.copied_bytes)})"
        )
    elif job.command == "inventory" and job.dst:
        would = f"a sync would copy {several(counts.copied, 'object')}"
        parts.append(f"{would} ({size(counts.copied_bytes)})")
    if job.command not in ("rm", "inventory") or job.dst:
        word = "equal" if job.command == "verify" else "unchanged"
        parts.append(f"{counts.unchanged:,} {word}")
    if counts.left:
        parts.append(f"{counts.left:,} {'of equal size' if job.against else 'left alone'}")
    if counts.deleted or job.command == "rm" or job.delete_dst or job.delete_src:
        what = "only at the destination" if job.command == "inventory" else verb("deleted")
        parts.append(f"{what} {counts.deleted:,} ({size(counts.deleted_bytes)})")
    if job.command != "inventory" or counts.failed:
        word = "failed"
        if job.command == "verify":
            each = ", ".join(f"{count:,} {one_line(kind)}" for kind, count, _ in kinds)
            word = f"different ({each})" if each else "different"
        parts.append(f"{counts.failed:,} {word}")
    found = f"{counts.found:,} found ({size(counts.found_bytes)})"
    parts.append(f"of {found}" if parts else found)
    if counts.dropped:
        parts.append(f"{counts.dropped:,} more not selected")
    moved = job.command in ("cp", "sync") and not job.dryrun
    copied = counts.copied_bytes - before.copied_bytes
    rate = f", {size(max(copied, 0) / max(seconds, 1e-3))}/s" if moved else ""
    since = " since it was resumed" if any(before) else ""
    return f"{', '.join(parts)} in {duration(seconds)}{since}{rate}"


_VERBS = {
    "cp": "copy", "sync": "sync", "rm": "delete", "verify": "compare", "inventory": "count",
}  # fmt: skip


def nothing_found(
    job: Job, listed: int, reasons: Sequence[tuple[str, int, bytes]], whole: bool = True
) -> Iterator[str]:
    """Why a run found nothing: what was listed, and which option dropped it.

    ``listed`` objects were looked at again, which were all if ``whole``; ``reasons`` are options,
    with how many objects each dropped, and the first of those.
    """
    if job.start is not None or job.end is not None:
        limits = [
            f"{name} {(value or b'').decode(errors='replace')!r}"
            for name, value in (("--start", job.start), ("--end", job.end))
            if value is not None
        ]
        if not listed:
            yield f"no key lies within {' and '.join(limits)}"
            return
    if not listed:
        yield "it is empty" if not job.files_from else "it has none of the keys in --files-from"
    for option, count, first in reasons:
        of = f"{'' if whole else 'the first '}{several(listed, 'object')}"
        yield f"{option} dropped {count:,} of {of}, such as {printable(first)}"


def failure_lines(manifest: Ledger, most: int) -> Iterator[str]:
    """A line for each failed key, at most ``most``, and one that tells of the others."""
    for shown, outcome in enumerate(manifest.failures()):
        if shown == most:
            total = sum(count for _, count, _ in manifest.failure_kinds())
            yield f"… and {total - most:,} more"
            return
        yield failure_line(outcome)


def failure_line(outcome: Outcome) -> str:
    """``kind  key  reason``; the key printable, whatever it holds."""
    return f"{one_line(outcome.kind):<10} {printable(outcome.key)}  {one_line(outcome.error)}"


def program() -> str:
    """What the user called this program."""
    name = os.path.basename(sys.argv[0])
    return name if name in ("adsmig", "ads-cli") else "adsmig"


def which(job: Job, manifest: Ledger) -> str:
    """How the user names a job to a command: its id, or its manifest's place."""
    return job.id if manifest.path == default_path(job) else f"--manifest {manifest.path}"


def status(manifest: Ledger, job: Job) -> Iterator[str]:
    """What ``adsmig status`` prints: the job, its runs, what is left, what failed."""
    yield f"job       {job.id}: {job.command} {job.origin} {job.target}".rstrip()
    yield f"manifest  {manifest.path}"
    runs, pid = manifest.runs_seen()
    if not runs:
        yield "it has not been run yet"
        return
    yield ""
    yield from table([RUN_COLUMNS, *(_run_row(run) for run in runs)])
    last = runs[-1]
    if last.state == "refused":
        yield ""
        yield last.message
    elif last.state not in ("finished", "cancelled"):
        left = len(manifest.open_shards(last.id))
        large = manifest.pending_uploads()
        yield ""
        why = f" ({last.message})" if last.message else ""
        yield f"unfinished: {several(left, 'range')} left{why}"
        for pending in large:
            total = pending.upload.parts if pending.upload else 0
            of = f"{len(pending.parts)} of {total} parts" if total else "not begun"
            yield f"  large object {printable(pending.entry.key)}: {of}"
        if pid is None:
            yield f"go on with: {program()} resume {which(job, manifest)}"
    if pid is not None:
        yield f"process {pid} is at work on it"
    kinds = manifest.failure_kinds()
    if kinds:
        yield ""
        yield "failed:"
        for kind, count, _ in kinds:
            reasons = manifest.failure_reasons(kind, REASONS_SHOWN)
            for reason, of_it in reasons:
                yield f"  {of_it:>8,}  {one_line(kind)}: {one_line(reason)}"
            others = count - sum(of_it for _, of_it in reasons)
            if others > 0:
                yield f"  {others:>8,}  {one_line(kind)}, for other reasons"
        name = which(job, manifest)
        retry = f"; try again: {program()} retry {name}" if pid is None else ""
        yield f"see them: {program()} failures {name}{retry}"


RUN_COLUMNS = (
    "run", "kind", "state", "started", "took", "found", "unchanged", "copied", "bytes", "deleted",
    "failed"
)  # fmt: skip


def _run_row(run: Run) -> tuple[str, ...]:
    counts: Counts = run.counts
    state = run.state + (f" (resumed {run.resumed}×)" if run.resumed else "")
    return (
        str(run.id), run.kind, state, clock(run.started),
        duration(run.ended - run.started) if run.ended else "",
        f"{counts.found:,}", f"{counts.unchanged:,}", f"{counts.copied:,}",
        size(counts.copied_bytes), f"{counts.deleted:,}", f"{counts.failed:,}",
    )  # fmt: skip


def clock(seconds: float) -> str:
    """Local time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


JOB_COLUMNS: tuple[str, ...] = (
    "job", "command", "state", "last run", "copied", "failed", "from", "to"
)  # fmt: skip


def job_row(job: Job, runs: list[Run]) -> tuple[str, ...]:
    """A job's line in ``adsmig jobs``."""
    facts = job_facts(job, runs)
    if not runs:
        return tuple(str(fact or "") for fact in facts.values())
    counts = runs[-1].counts
    shown = {
        **facts, "last run": clock(runs[-1].started),
        "copied": f"{counts.copied:,}", "failed": f"{counts.failed:,}",
    }  # fmt: skip
    return tuple(str(fact) for fact in shown.values())


def job_facts(job: Job, runs: list[Run]) -> dict[str, str | int | float | None]:
    """What ``adsmig jobs`` tells of a job, by column; times are Unix times, and what only a run has
    is None before there was one.
    """
    run = runs[-1] if runs else None
    facts = (
        job.id, job.command, run.state if run else "new", run.started if run else None,
        run.counts.copied if run else None, run.counts.failed if run else None,
        job.origin, job.target,
    )  # fmt: skip
    return dict(zip(JOB_COLUMNS, facts, strict=True))
