"""One command's work on a job, from its manifest to its exit code."""

from __future__ import annotations

import contextlib
import heapq
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from adsmig import failpoint, pool, report, scan
from adsmig.coordinator import Coordinator
from adsmig.errors import AdsmigError, ManifestError, ManifestInUse, UsageError
from adsmig.interruption import INTERRUPTED
from adsmig.job import Job
from adsmig.large import abandon_lost_uploads, abandon_uploads
from adsmig.launch import tell
from adsmig.ledger import Run, default_path
from adsmig.linkfile import check_file, record_links
from adsmig.lock import holder
from adsmig.manifest import Manifest
from adsmig.model import Counts, Planned
from adsmig.output import Output
from adsmig.progress import Progress, progress_event
from adsmig.ready import keep_names, names_known, names_read, readied, tell_own
from adsmig.rebuild import salvage, set_aside
from adsmig.result import check_report, exit_code, partial_of, suggest_retry, tell_result
from adsmig.room import Pause
from adsmig.storage import driver_of

log = logging.getLogger(__name__)

ALL = 2**64
"""The sample that leaves out none."""
SALVAGED = 10_000
"""Objects of a lost manifest that are taken over at once."""
LONGEST_END_S = 300
"""How long a process may take to settle what it has in hand."""

Begin = Callable[[Manifest, Job], Run]


def start(job: Job, path: Path | None, output: Output, rebuild: bool = False) -> int:
    """Goes on with the job's unfinished run, or begins a new one.  The exit code.

    ``path`` None: the manifest's usual place.  A dry run keeps none.  ``rebuild``: a manifest that
    is damaged is set aside, and, without one, what is equal at the destination is taken for copied.
    """
    with names_read(job) as job:
        if job.dryrun:
            check_report(output)
            known = path or default_path(job)
            job = replace(job, known=str(known) if known.exists() else "")
            return _run(job, None, output, _resume_or_begin)
        check_file(job)
        path = _place_of(path, job)
        return _run_twice(job, path, output, _resume_or_begin, rebuild)


def _run_twice(job: Job, path: Path, output: Output, begin: Begin, rebuild: bool = False) -> int:
    """Runs the job, and then tries again what failed, if what it deleted was in the way of that."""
    code = _run(job, path, output, begin, rebuild)
    by_paths = job.dst is not None and job.dst.is_path
    if code == 1 and job.delete_dst and by_paths and _made_room(path):
        output.note("what was in the way of some was deleted: trying again what failed")
        return _perform(job, path, output, _retry, name="retry")[0]
    return code


def _place_of(path: Path | None, job: Job) -> Path:
    """Where the job's manifest is, or is to be; UsageError for a directory that is not there, which
    may be that of a disk that is not mounted.
    """
    if path and not path.parent.is_dir():
        raise UsageError(f"cannot write --manifest {path}: there is no directory {path.parent}")
    return path or default_path(job)


def _made_room(path: Path) -> bool:
    """Whether the last run removed objects at the destination, and could not store others because
    of what was there: a directory where there has to be a file, or the reverse.
    """
    with Manifest(path) as manifest:
        deleted = manifest.runs()[-1].counts.deleted
        return bool(deleted) and any(kind == "key" for kind, *_ in manifest.failure_kinds())


def remove(job: Job, path: Path | None, output: Output) -> int:
    """Deletes what the job selects, once the user agreed to it.

    Without a terminal to ask at, and without ``job.yes``, says what would go, and raises.  Where
    there is nothing to delete, there is nothing to agree to.
    """
    with names_read(names_known(job, path)) as job:
        if job.dryrun or not job.yes:
            told = replace(output, brief=not job.dryrun)
            code, counts = _perform(replace(job, dryrun=True), None, told, _resume_or_begin)
            if job.dryrun or code == INTERRUPTED or not counts.found + counts.deleted:
                return code
            if not sys.stdin.isatty():
                raise AdsmigError(
                    "nothing was deleted: say --yes to delete this without being asked"
                )
            print(f"Delete all this at {job.origin}? [y/N] ", end="", file=sys.stderr, flush=True)
            if sys.stdin.readline().strip().lower() not in ("y", "yes"):
                raise AdsmigError("nothing was deleted")
        return _run(job, _place_of(path, job), output, _resume_or_begin)


def resume(job: Job, path: Path, output: Output) -> int:
    """Goes on with the unfinished run of a manifest; says so if there is none."""
    with Manifest(path) as manifest:
        if not manifest.unfinished_run():
            _tell_nothing(f"nothing to resume: {_how(job, manifest)}", job, output)
            if not manifest.failure_kinds(1):
                return 0
            suggest_retry(job, manifest, output)
            return 1
    if job.command == "rm":  # of what is there by now
        return remove(job, path, output)
    check_file(job)
    return _run_twice(job, path, output, _retry)


def _how(job: Job, manifest: Manifest) -> str:
    """How the last run ended, which is over."""
    runs = manifest.runs()
    how = "was cancelled" if runs and runs[-1].state == "cancelled" else "came to its end"
    return f"the last run of job {job.id} {how}"


def _tell_nothing(line: str, job: Job, output: Output) -> None:
    """Says that there was nothing to do, and why."""
    output.event("nothing", job=job.id, message=line)
    output.result(line)


def retry(job: Job, path: Path, output: Output) -> int:
    """Tries again what failed, and nothing else; an unfinished run comes first."""
    with Manifest(path) as manifest:
        unfinished = manifest.unfinished_run()
        if not unfinished and not manifest.failure_kinds():
            _tell_nothing(f"nothing to retry: job {job.id} has no failures on record", job, output)
            return 0
    if unfinished and job.command == "rm":
        return remove(job, path, output)
    return _run(job, path, output, _retry)


def cancel(job: Job, path: Path, output: Output) -> int:
    """Gives up the unfinished run of a manifest, whose process is asked to end first.

    Uploads that cannot be removed now are at the next run's beginning.
    """
    end(path, output)
    with Manifest(path) as manifest:
        manifest.lock()
        run = manifest.unfinished_run()
        if not run:
            _tell_nothing(f"nothing to cancel: {_how(job, manifest)}", job, output)
            return 0
        try:
            abandon_uploads(job, manifest)
        except AdsmigError as exc:
            log.warning("unfinished uploads stay until the next run: %s", exc)
        manifest.end_run(run.id, "cancelled")
    output.event("cancelled", job=job.id, run=run.id)
    output.result(f"cancelled run {run.id} of job {job.id}")
    return 0


def end(path: Path, output: Output) -> None:
    """Has the process that works on a manifest settle what it has in hand, and waits for its end,
    which it says.  Raises ManifestError if that takes too long.
    """
    pid = holder(path)
    if pid is None:
        return
    output.note(f"process {pid} is told to end; waiting until it has settled what it has in hand")
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)  # a script's shell has its background ignore SIGINT
    until = time.monotonic() + LONGEST_END_S
    while holder(path) == pid:
        if time.monotonic() > until:
            raise ManifestError(f"process {pid} does not end; kill it, then try again")
        time.sleep(0.1)


def sample_of(job: Job, share: float | int) -> int:
    """The ``Job.sample`` that comes to a share, up to 1.0, or to so many objects on record."""
    if isinstance(share, float):
        return int(share * ALL)
    job = replace(job, began_ns=time.time_ns())
    keeps = scan.keeps_of(job)
    ranks = (scan.rank(job, one.key) for one in scan.source_entries(job, job.keys) if keeps(one))
    lowest = heapq.nsmallest(share, ranks)
    return lowest[-1] + 1 if len(lowest) == share else ALL


def _resume_or_begin(manifest: Manifest, job: Job) -> Run:
    run = manifest.unfinished_run()
    if run and run.kind != "retry" and run.manner == job.manner:
        return _resume(manifest, job, run)
    if run and run.kind != "retry":  # which looked at a few keys only
        log.warning("the unfinished run %d had other options; beginning a new one", run.id)
    abandon_uploads(job, manifest)
    if job.rebuild:
        abandon_lost_uploads(job)
    return manifest.begin_run(job.command, [job.keys], job.manner)


def _resume(manifest: Manifest, job: Job, run: Run) -> Run:
    if run.manner and json.loads(run.manner)["files"] != json.loads(job.manner)["files"]:
        raise AdsmigError(
            f"{job.files_from} names other keys than when the run began, and those before what is"
            " done would be left out: give the whole command again, which looks at all of them"
        )
    manifest.resume_run(run.id)
    if run.kind == "rm":  # what was selected may have changed since: it is looked at again
        manifest.restart_run(run.id, job)
    return manifest.runs()[-1]


def _retry(manifest: Manifest, job: Job) -> Run:
    if run := manifest.unfinished_run():
        return _resume(manifest, job, run)
    abandon_uploads(job, manifest)
    return manifest.begin_run("retry", [job.keys], job.manner)


@contextlib.contextmanager
def _word_of(job: Job, path: Path | None) -> Iterator[None]:
    """Leaves word of whether another process has the manifest that is taken meanwhile."""
    facts = {"job": job.id, "manifest": str(path or "")}
    try:
        yield
    except ManifestInUse:
        tell(**facts, busy=True)
        raise
    tell(**facts, busy=False)


def _run(job: Job, path: Path | None, output: Output, begin: Begin, rebuild: bool = False) -> int:
    """Runs the job; the exit code."""
    return _perform(job, path, output, begin, rebuild)[0]


def _perform(
    job: Job,
    path: Path | None,
    output: Output,
    begin: Begin,
    rebuild: bool = False,
    name: str = "result",
) -> tuple[int, Counts]:
    """The same, and what the run came to, which is told as of result.tell_result."""
    which = job.id if path == default_path(job) else f"--manifest {path}"
    pause = Pause(output.warn, f"{report.program()} resume {which}")
    with contextlib.ExitStack() as stack:
        if job.processes > 1:
            for at in (job.dst if job.against else job.src, job.dst):
                if at:
                    driver_of(at)  # so that workers have it, too
            stack.enter_context(pool.prepared())
        with _word_of(job, path):
            aside = set_aside(path) if rebuild and path else None
            if aside:
                output.note(f"{aside[1].partition(':')[0]}: it is kept as {aside[0]}")
            manifest = stack.enter_context(Manifest(path, create=True, patience=pause))
            manifest.lock()
        failpoint.reach("run.locked")
        manifest.check()
        text = manifest.job_json()
        stored = Job.from_json(text) if text else None
        if stored and stored.by_directory:
            job = job.sorted_by_directory()
        finished = [run for run in manifest.runs() if run.state == "finished"]
        if not job.verify_tls and any(at.https for at in (job.src, job.dst) if at):
            output.warn(
                "unverified", "with --no-verify-tls, anybody on the way can pretend to be the store"
            )
        lost = not finished and (stored.rebuild if stored else rebuild)
        job = names_known(replace(job, rebuild=lost), path)
        manifest.set_job(job)
        saved = salvage(aside[0]) if aside else iter(())
        while batch := list(islice(saved, SALVAGED)):
            manifest.adopt(batch)
        run = begin(manifest, job)
        before = run.counts
        keep_names(job, path)
        if run.resumed:
            tell(resumed=run.started)
        if run.resumed and run.counts.found and not output.quiet:
            output.note(f"resuming run {run.id} of job {job.id}")
        places = f"{job.origin} {job.target}".rstrip()
        log.info("run %d of job %s: %s %s", run.id, job.id, job.command, places)
        expected = finished[-1].counts if finished else None
        progress = Progress(expected, silent=output.as_json, dryrun=job.dryrun)
        began = time.monotonic()
        asked_to_wait = False

        def watch(counts: Counts, last: bool) -> None:
            nonlocal asked_to_wait
            if output.quiet:
                return
            if coordinator.interrupted and not (last or asked_to_wait):
                asked_to_wait = True
                progress(counts, True)
                output.note("settling what is in hand; Ctrl-C again ends at once")
            progress(counts, last, listed=not coordinator.listing)
            if output.as_json and progress.due(last):
                try:
                    output.event("progress", **progress_event(counts, coordinator.listing))
                except OSError:  # nobody reads any more, or the disk that it goes to is full
                    coordinator.interrupt()

        def tell_planned(planned: Sequence[Planned]) -> None:
            try:
                progress.erase()
                output.planned(planned)
            except OSError:  # as above
                coordinator.interrupt()

        with readied(job, manifest, run, path) as ready:
            if not output.quiet:
                tell_own(ready, output)
            coordinator = Coordinator(ready, manifest, run, watch, tell=tell_planned)
            pause.stopping = lambda: coordinator.interrupted
            coordinator.run()
            run = manifest.runs()[-1]
            unwritten = record_links(job, manifest) if run.kind != "retry" else ""
            seconds = time.monotonic() - began
            kinds = manifest.failure_kinds() if job.command == "verify" else ()
            told = report.summary(job, run, seconds, before, kinds)
            log.info("run %d is %s: %s", run.id, run.state, told)
            partial = partial_of(coordinator.job, manifest, run)
            tell_result(ready, run, seconds, told, coordinator.inventory, output, name, partial)
        return exit_code(job, manifest, run, coordinator, output, unwritten), run.counts
