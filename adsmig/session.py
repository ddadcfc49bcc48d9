"""One command's work on a job, from its manifest to its exit code."""

from __future__ import annotations

import contextlib
import heapq
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

from adsmig import failpoint, pool, report, scan
from adsmig.coordinator import Coordinator
from adsmig.errors import AdsmigError, DamagedManifest, ManifestError, ManifestInUse, UsageError
from adsmig.interruption import INTERRUPTED
from adsmig.inventory import Inventory
from adsmig.job import Job
from adsmig.jobs import failure_event, run_event
from adsmig.keylist import STREAM, check_names, copy_names, sort_keys
from adsmig.large import abandon_lost_uploads, abandon_uploads
from adsmig.launch import tell
from adsmig.ledger import Run, default_path
from adsmig.linkfile import check_file, record_links
from adsmig.location import one_line
from adsmig.lock import holder
from adsmig.log import log_file
from adsmig.manifest import Manifest
from adsmig.model import Counts, KeyRange, Outcome
from adsmig.output import Output, write_file
from adsmig.progress import Progress, progress_event
from adsmig.rebuild import salvage, set_aside
from adsmig.room import Pause
from adsmig.storage import driver_of
from adsmig.storage.paths import below

log = logging.getLogger(__name__)

FAILURES_SHOWN = 20
BESIDE = ("", "-wal", "-shm", "-journal", ".lock", ".shared", ".keys", ".names")
"""What the names of a manifest's files end in."""
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
    with _names_read(job) as job:
        if job.dryrun:
            known = path or default_path(job)
            job = replace(job, known=str(known) if known.exists() else "")
            return _run(job, None, output, _resume_or_begin)
        check_file(job)
        path = path or default_path(job)
        code = _run(job, path, output, _resume_or_begin, rebuild)
        if code == 1 and job.delete_dst and _made_room(path):
            output.note("what was in the way of some was deleted: trying again what failed")
            return _run(job, path, output, _retry)
        return code


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
    with _names_read(job) as job:
        if job.dryrun or not job.yes:
            code, counts = _perform(replace(job, dryrun=True), None, output, _resume_or_begin)
            if job.dryrun or code == INTERRUPTED or not counts.found + counts.deleted:
                return code
            if not sys.stdin.isatty():
                raise AdsmigError(
                    "nothing was deleted: say --yes to delete this without being asked"
                )
            print(f"Delete all this at {job.src}? [y/N] ", end="", file=sys.stderr, flush=True)
            if sys.stdin.readline().strip().lower() not in ("y", "yes"):
                raise AdsmigError("nothing was deleted")
        return _run(job, path or default_path(job), output, _resume_or_begin)


def resume(job: Job, path: Path, output: Output) -> int:
    """Goes on with the unfinished run of a manifest; says so if there is none."""
    with Manifest(path) as manifest:
        if not manifest.unfinished_run():
            output.result(f"nothing to resume: the last run of job {job.id} came to its end")
            if not manifest.failure_kinds(1):
                return 0
            _suggest_retry(job, manifest, output)
            return 1
    check_file(job)
    return _run(job, path, output, _retry)


def retry(job: Job, path: Path, output: Output) -> int:
    """Tries again what failed, and nothing else; an unfinished run comes first."""
    with Manifest(path) as manifest:
        if not manifest.unfinished_run() and not manifest.failure_kinds():
            output.result(f"nothing to retry: no object of job {job.id} has failed")
            return 0
    return _run(job, path, output, _retry)


def cancel(job: Job, path: Path, output: Output) -> int:
    """Gives up the unfinished run of a manifest, whose process is asked to end first.

    Uploads that cannot be removed now are at the next run's beginning.
    """
    end(path)
    with Manifest(path) as manifest:
        manifest.lock()
        run = manifest.unfinished_run()
        if not run:
            output.result(f"nothing to cancel: the last run of job {job.id} came to its end")
            return 0
        try:
            abandon_uploads(job, manifest)
        except AdsmigError as exc:
            log.warning("unfinished uploads stay until the next run: %s", exc)
        manifest.end_run(run.id, "cancelled")
    output.result(f"cancelled run {run.id} of job {job.id}")
    return 0


def end(path: Path) -> None:
    """Has the process that works on a manifest settle what it has in hand, and waits for its end.

    Raises ManifestError if that takes too long.
    """
    pid = holder(path)
    if pid is None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGINT)
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
    manifest.resume_run(run.id)
    if run.kind == "rm":  # what was selected may have changed since: it is looked at again
        manifest.restart_run(run.id, job)
    return manifest.runs()[-1]


def _retry(manifest: Manifest, job: Job) -> Run:
    if run := manifest.unfinished_run():
        return _resume(manifest, job, run)
    return manifest.begin_run("retry", list(_ranges_of(manifest.failures())), job.manner)


def _ranges_of(failures: Iterable[Outcome]) -> Iterator[KeyRange]:
    """A range for each failed key; for a directory that could not be listed, all below it."""
    below: bytes | None = None
    for outcome in failures:
        key = outcome.key
        if below is not None and key.startswith(below):
            continue
        below = key if key.endswith(b"/") and outcome.kind == "source" else None
        yield KeyRange(key, key + b"\xff" * 256 if below else key, closed=True)


@contextlib.contextmanager
def _names_read(job: Job) -> Iterator[Job]:
    """The job with a copy of what ``--files-from`` can read only once; before a manifest is made,
    so that a name that was a mistake is in none.
    """
    if job.names:
        with tempfile.TemporaryDirectory(prefix="adsmig-") as directory:
            copy_names(job.names, f"{directory}/names")
            yield replace(job, names=f"{directory}/names")
        return
    if job.files_from not in ("", STREAM):
        check_names(job.files_from)
    yield job


def _names_kept(job: Job, path: Path | None) -> Job:
    """The job with the copy of those that is kept beside its manifest, for who goes on with it."""
    if job.files_from != STREAM or not path:
        return job
    kept = f"{path}.names"
    if job.names:
        copy_names(job.names, kept)
    elif not os.path.exists(kept):
        raise AdsmigError(
            f"what --files-from named is no longer there, in {kept}: give the whole command again"
        )
    return replace(job, names=kept)


@contextlib.contextmanager
def _readied(job: Job, manifest: Manifest, run: Run, path: Path | None) -> Iterator[Job]:
    """The job with what its workers need to know of the run and of files."""
    job = replace(
        job,
        began_ns=int(run.started * 1e9),
        known=str(path) if path else job.known,
        own=_own_files(str(path or job.known), job.record),
        doubts=bool(path and manifest.failure_kinds()),
    )
    if not job.files_from:
        yield job
        return
    if path:
        keys_file = f"{path}.keys"
    else:
        fd, keys_file = tempfile.mkstemp(prefix="adsmig-", suffix=".keys")
        os.close(fd)
    try:
        names = job.names or job.files_from
        sort_keys(names, keys_file, job.src.is_path, called=job.files_from)
        yield replace(job, keys_file=keys_file)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(keys_file)


def _own_files(manifest: str, record: str) -> tuple[bytes, ...]:
    """The real paths of a manifest and what is kept beside it, of the log, and of ``record``."""
    names = [f"{manifest}{suffix}" for suffix in BESIDE] if manifest else []
    names += filter(None, [log_file(), record])
    return tuple(os.fsencode(os.path.realpath(name)) for name in names)


def _tell_own(job: Job, output: Output) -> None:
    """Says which of the run's own files lie among the data, and are none."""
    for at in (job.src, job.dst):
        told: list[bytes] = []
        if at is None or at.scheme != "file":
            continue
        for key in sorted(below(at.path, job.own)):
            # A manifest's own, and then what is beside it.
            if not any(map(key.startswith, told)):
                told.append(key)
                output.note(
                    f"{one_line(os.path.join(at.path, key))} is this run's, and is left out"
                )


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
    job: Job, path: Path | None, output: Output, begin: Begin, rebuild: bool = False
) -> tuple[int, Counts]:
    """The same, and what the run came to."""
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
        job = _names_kept(replace(job, rebuild=lost), path)
        manifest.set_job(job)
        saved = salvage(aside[0]) if aside else iter(())
        while batch := list(islice(saved, SALVAGED)):
            manifest.adopt(batch)
        run = begin(manifest, job)
        if run.resumed and run.counts.found and not output.quiet:
            output.note(f"resuming run {run.id} of job {job.id}")
        log.info("run %d of job %s: %s %s %s", run.id, job.id, job.command, job.src, job.dst or "")
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

        with _readied(job, manifest, run, path) as ready:
            if not output.quiet:
                _tell_own(ready, output)
            coordinator = Coordinator(ready, manifest, run, watch)
            pause.stopping = lambda: coordinator.interrupted
            coordinator.run()
            run = manifest.runs()[-1]
            unwritten = record_links(job, manifest) if run.kind != "retry" else ""
            seconds = time.monotonic() - began
            log.info("run %d is %s: %s", run.id, run.state, report.summary(job, run, seconds))
            _tell(ready, run, seconds, coordinator.inventory, output)
        return _exit_code(job, manifest, run, coordinator, output, unwritten), run.counts


def _tell(job: Job, run: Run, seconds: float, inventory: Inventory | None, output: Output) -> None:
    """Prints what a run came to, and the report of a dry one."""
    if output.as_json:
        event = {**run_event(run), "command": job.command, "job": job.id, "dryrun": job.dryrun}
        output.event("result", **event, seconds=round(seconds, 3))
    elif (not output.quiet or job.dryrun) and (run.state == "finished" or run.counts.found):
        if not output.as_csv:
            print(report.summary(job, run, seconds))
        nothing = not run.counts.found + run.counts.deleted and run.state == "finished"
        if nothing and run.kind != "retry":
            for line in report.nothing_found(job, *scan.explain(job)):
                print(line)
    if inventory and run.counts.found + run.counts.deleted:
        _report(job, run, inventory, output)


def _report(job: Job, run: Run, inventory: Inventory, output: Output) -> None:
    from adsmig import tables
    from adsmig.estimate import estimate, load_prices

    counts = run.counts
    figures = estimate(
        inventory,
        src_scheme=job.src.scheme,
        dst_scheme=job.dst.scheme if job.dst else None,
        lists_destination=job.lists_destination and job.compare != "manifest",
        to_copy=(counts.copied, counts.copied_bytes),
        large=_large(job, inventory),
        extraneous=counts.deleted,
        rate_mbps=output.rate or job.bwlimit_mbps or None,
        prices=load_prices(output.prices) if output.prices else None,
    )
    if output.html:  # first, for whoever reads what is printed may hang up
        from adsmig.page import inventory_page

        facts = [("Source", str(job.src))]
        if job.dst:
            facts.append(("Destination", str(job.dst)))
        facts += [("Command", f"{job.command}, as a dry run"), ("Made", report.clock(time.time()))]
        page = inventory_page(f"What is at {job.src}", facts, inventory, figures, bool(output.info))
        write_file(output.html, page)
    if output.as_json:
        output.event("inventory", **inventory.to_json(), estimate=figures.to_json())
    elif output.as_csv:
        sys.stdout.writelines(tables.inventory_csv(inventory, figures))
    else:
        for line in tables.inventory_lines(inventory, figures, bool(output.info)):
            print(line)


def _large(job: Job, inventory: Inventory) -> tuple[int, int]:
    """The large objects that would be copied, and their parts."""
    if job.dst:
        return inventory.forecast.large_of("new", "changed")
    # Without a destination, all of them, to any.
    return (0, 0) if job.command == "rm" else (inventory.large_objects, inventory.large_parts)


def _exit_code(
    job: Job,
    manifest: Manifest,
    run: Run,
    coordinator: Coordinator,
    output: Output,
    unwritten: str,
) -> int:
    """Tells what failed and what to do next; raises the error that stopped the run.

    ``unwritten``: what to tell of links that could not be recorded.
    """
    if run.counts.failed:
        for line in report.failure_lines(manifest, FAILURES_SHOWN):
            output.note(line)
        for outcome in manifest.failures() if output.as_json else ():
            output.event("failure", **failure_event(outcome))
    if unwritten:
        output.warn("unwritten", unwritten)
    program = report.program()
    which = report.which(job, manifest)
    if coordinator.refused:
        raise AdsmigError(coordinator.refused)
    if coordinator.stop:
        stop = coordinator.stop
        told = job.dryrun or stop.kind in (DamagedManifest.__name__, UsageError.__name__)
        hint = "" if told else f"; then go on with: {program} resume {which}"
        raise AdsmigError(stop.message + hint)
    if run.state != "finished":
        hint = "" if job.dryrun else f"; go on with: {program} resume {which}"
        output.note(f"interrupted{hint}")
        return INTERRUPTED
    # Of what a retry did not even find, nobody knows more than before.
    failed = run.counts.failed or (run.kind == "retry" and manifest.failure_kinds(1))
    if failed and not job.dryrun:
        _suggest_retry(job, manifest, output)
    if unwritten:
        return AdsmigError.exit_code
    return 1 if failed else 0


def _suggest_retry(job: Job, manifest: Manifest, output: Output) -> None:
    """Says what can be done about what is on record as failed."""
    verb = "compare these again" if job.command == "verify" else "try these again"
    output.note(f"{verb} with: {report.program()} retry {report.which(job, manifest)}")
