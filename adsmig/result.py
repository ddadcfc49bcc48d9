"""What a run came to, as its user is told, and the exit code."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict

from adsmig import report, scan
from adsmig.coordinator import Coordinator
from adsmig.errors import AdsmigError, DamagedManifest, UsageError
from adsmig.interruption import INTERRUPTED
from adsmig.inventory import Inventory
from adsmig.job import Job
from adsmig.jobs import failure_event, run_event
from adsmig.ledger import Run
from adsmig.manifest import Manifest
from adsmig.model import UNLISTED
from adsmig.output import Output, check_writable, write_report
from adsmig.progress import several

FAILURES_SHOWN = 20
BRIEF = 5
"""Directories that are named before it is asked whether to delete them."""


def check_report(output: Output) -> None:
    """Raises what would keep the report from being made once all is listed."""
    if output.prices:
        from adsmig.estimate import load_prices

        load_prices(output.prices)
    if output.html:
        from adsmig.plots import check_drawing

        check_writable(output.html, "--html")
        check_drawing()


def tell_result(
    job: Job,
    run: Run,
    seconds: float,
    summary: str,
    inventory: Inventory | None,
    output: Output,
    name: str,
    partial: str,
) -> None:
    """Prints what a run came to, for people the ``summary``, for machines an event of that
    ``name``, and the report of a dry one; ``partial``: what to tell first of that, if it is not of
    everything.
    """
    if output.as_json:
        event = {**run_event(run), "command": job.command, "job": job.id, "dryrun": job.dryrun}
        output.event(name, **event, seconds=round(seconds, 3))
    nothing = not run.counts.found + run.counts.deleted
    ended = run.state == "finished"
    told = (not output.quiet or job.dryrun) and not output.as_json
    if told and (ended or run.counts.found):
        if not output.as_csv:
            if partial:
                print(f"PARTIAL: {partial}")
            print(summary)
        if nothing and ended and run.kind != "retry":
            for line in report.nothing_found(job, *scan.explain(job)):
                print(line, file=sys.stderr if output.as_csv else sys.stdout)
    # A file, or a program, is told of nothing, too: else an older report would seem to be of now.
    if inventory and (not nothing or (ended and (output.html or output.as_csv or output.as_json))):
        _report(job, run, inventory, output, partial)


def partial_of(job: Job, manifest: Manifest, run: Run) -> str:
    """Of what keys a dry run can tell that did not come to its end, or could not list all; '' if of
    all.
    """
    if not job.dryrun:
        return ""
    if run.state == "finished":
        failed = manifest.failures() if run.counts.failed else iter(())
        unlisted = [one.key for one in failed if one.error.startswith(UNLISTED)]
        if not unlisted:
            return ""
        count = "a directory" if len(unlisted) == 1 else f"{len(unlisted):,} directories"
        first = report.printable(unlisted[0])
        return f"{count} could not be listed, {first} first, and what is there is not in this"
    left = [keys for _, keys in manifest.open_shards(run.id)]
    if not left:
        return ""
    if left[0].after == job.keys.after:
        return "the run did not come to its end, and this is only some of what is there"
    up_to = report.printable(left[0].after)
    return (
        f"the run did not come to its end: all up to {up_to} is in this, and of what comes after"
        " that, some at most"
    )


def _report(job: Job, run: Run, inventory: Inventory, output: Output, partial: str) -> None:
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
        # A listing removes nothing, nor does what it is for, unless told to.
        extraneous=0 if job.command == "inventory" else counts.deleted,
        rate_mbps=output.rate or job.bwlimit_mbps or None,
        prices=load_prices(output.prices) if output.prices else None,
    )
    if output.html:  # first, for whoever reads what is printed may hang up
        from adsmig.page import inventory_page

        facts = [("Partial", partial)] if partial else []
        facts.append(("Source", job.origin))
        if job.dst:
            facts.append(("Destination", job.target))
        if selected := " ".join(_selection(job)):
            left_out = f" ({several(counts.dropped, 'object')} were not)" if counts.dropped else ""
            facts.append(("Selected by", selected + left_out))
        facts += [("Command", f"{job.command}, as a dry run"), ("Made", report.clock(time.time()))]
        title = f"{'PARTIAL: some of what' if partial else 'What'} is at {job.origin}"
        page = inventory_page(title, facts, inventory, figures, bool(output.info))
        write_report(output.html, page, output)
    if output.as_json:
        output.event(
            "inventory", partial=partial, **inventory.to_json(), estimate=figures.to_json()
        )
    elif output.as_csv:
        sys.stdout.writelines(tables.inventory_csv(inventory, figures, partial))
    elif output.brief:
        for line in tables.section_lines(tables.directories(inventory, False, BRIEF)):
            print(line)
    else:
        for line in tables.inventory_lines(inventory, figures, bool(output.info)):
            print(line)


def _selection(job: Job) -> Iterator[str]:
    """The options by which a run looks at some of what is there only."""
    options = {"start": job.start, "end": job.end, **asdict(job.filters)}
    for name, values in {**options, "files_from": job.files_from}.items():
        for value in values if isinstance(values, tuple) else (values,):
            if value not in (None, ""):
                text = os.fsdecode(value) if isinstance(value, bytes) else str(value)
                yield f"--{name.replace('_', '-')} {shlex.quote(text)}"


def _large(job: Job, inventory: Inventory) -> tuple[int, int]:
    """The large objects that would be copied, and their parts."""
    if job.dst:
        return inventory.forecast.large_of("new", "changed")
    # Without a destination, all of them, to any.
    return (0, 0) if job.command == "rm" else (inventory.large_objects, inventory.large_parts)


def exit_code(
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
    if coordinator.would_refuse:
        output.warn("refusal", coordinator.would_refuse)
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
        suggest_retry(job, manifest, output)
    if unwritten:
        return AdsmigError.exit_code
    return 1 if failed else 0


def suggest_retry(job: Job, manifest: Manifest, output: Output) -> None:
    """Says what can be done about what is on record as failed."""
    verb = "compare these again" if job.command == "verify" else "try these again"
    output.note(f"{verb} with: {report.program()} retry {report.which(job, manifest)}")
