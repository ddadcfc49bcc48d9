"""Has the workers carry out a run: lends what there is to do, and commits what comes back.

It owns the manifest and nothing else does; the workers are any ``concurrent.futures.Executor``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import replace

from adsmig import failpoint, worker
from adsmig.deletions import Deletions
from adsmig.directories import Directories
from adsmig.errors import AdsmigError
from adsmig.interruption import answered
from adsmig.inventory import Inventory
from adsmig.job import Job
from adsmig.large import LargeObjects, abandon_uploads
from adsmig.ledger import Places, Run
from adsmig.limits import SLOTS, Lease, Limits
from adsmig.manifest import Manifest
from adsmig.model import (
    Budget,
    Counts,
    KeyRange,
    Planned,
    SliceResult,
    Stop,
)
from adsmig.place import elsewhere, has_links, refuse_overlap, same_place, why_emptied, why_nowhere
from adsmig.ranges import LONG_S, SHORT_S, Ranges
from adsmig.room import patiently
from adsmig.scan import holds_objects
from adsmig.storage.base import Identity
from adsmig.tasks import Tasks
from adsmig.workforce import Workforce

log = logging.getLogger(__name__)

GROWTH = 1.2
"""How much longer slices last, with each one that was committed."""
RECALL_S = 0.3
"""The least between two times that slices are recalled."""
TICK_S = 0.03
SHOW_S = 0.1
"""The least between two calls of the watch: it takes its time to add up what many have done."""

Watch = Callable[[Counts, bool], None]
"""Told every so often what is done so far, and whether this is the last time."""
Tell = Callable[[Sequence[Planned]], None]
"""Told what a dry run found is to be done, as its slices are committed: each in order."""


class Coordinator:
    """Runs one Run of a job to its end, or as far as it gets.

    ``executor`` is a pool of the caller's, who shuts it down; without one, the first short slice
    runs in this process, and processes are started only if that was not all, or if earlier runs
    had much to do.
    """

    def __init__(
        self,
        job: Job,
        manifest: Manifest,
        run: Run,
        watch: Watch,
        executor: Executor | None = None,
        tell: Tell = lambda _: None,
    ) -> None:
        self.job, self.manifest, self.run_id = job, manifest, run.id
        self.counts = run.counts
        self.stop: Stop | None = None
        self.refused = ""
        """Why what only the destination has was not removed."""
        self.would_refuse = ""
        """The same of the run that a dry one tells of."""
        self.interrupted = False
        self._driving = False
        self._keeps_until_copied = False
        """Nothing goes at the source before all was copied, for links may lead to it."""
        self.inventory = Inventory(job.began_ns, job.depth) if job.dryrun else None
        self._watch, self._tell = watch, tell
        known = [one.counts.found for one in manifest.runs() if one.state == "finished"]
        self._workforce = Workforce(job, executor, max(known, default=0))
        # Whatever ended a resumed run, may have been in this process.
        self._tried = self._resumed = run.resumed > 0
        self._shown_at = 0.0
        self._seconds = SHORT_S
        self._recalled_at = 0.0
        self._slots = max(SLOTS, job.processes + 1)  # the last is this process's own
        self._limits = self._new_limits(f"{manifest.path}.shared" if manifest.path else None)
        self._begin_parts()

    def run(self) -> None:
        """Returns when the run is finished, stopped or interrupted, all of it committed.

        Raises AdsmigError when it cannot even begin, and what a broken manifest raises.
        """
        try:
            with answered(self.interrupt, self._leave):
                with contextlib.suppress(KeyboardInterrupt):
                    self._prepare()
                    self._drive()
                    while self._is_out_of_order():
                        self._begin_by_directory()
                        self._drive()
                self._finish()
        finally:
            self._limits.stop()
            self._dismiss()
            self._limits.remove()
            worker.forget()

    def interrupt(self) -> bool:
        """Has nothing more begun; tells whether there was anything, which is to be settled."""
        self.interrupted = True
        self._limits.stop()
        return self._driving

    def _leave(self) -> None:
        """Removes what this process alone would remove."""
        with contextlib.suppress(OSError):
            os.unlink(self._limits.path)

    def _is_out_of_order(self) -> bool:
        kind = self.stop.kind if self.stop else ""
        return kind == "OrderError" and not self.job.by_directory

    def _begin_by_directory(self) -> None:
        """Begins anew, for a listing that was in no order is in order within each directory."""
        assert self.stop
        log.warning("%s; listing it one directory at a time", self.stop.message)
        self.job = self.job.sorted_by_directory()
        self._begin_again()
        self.stop = None
        if self.inventory:
            self.inventory = Inventory(self.job.began_ns, self.job.depth)
        self._dismiss()
        self._limits.remove()
        self._limits = self._new_limits(self._limits.path)

    def _new_limits(self, path: str | None) -> Limits:
        mbps, slots = self.job.bwlimit_mbps, self._slots
        return patiently(lambda: Limits.create(path, mbps, slots), self.manifest.patience)

    def _prepare(self) -> None:
        try:
            src, dst = worker.storages(self.job)
            src.prepare()
            if self._writes:
                _, before = self._places_before() or (None, None)
                if before and not (dst.identity() or self.job.yes):
                    raise AdsmigError(elsewhere(dst.location))  # before it is made
                dst.prepare()
                refuse_overlap(self.job, src, dst)
            there = dst.identity() if self._writes else None
            self._check_places((src.identity(), there))
            # Stores are told neither, lest they be opened anew, and asked again who they are.
            ticks = src.tick_ns if src.is_local else 0, dst.tick_ns if dst.is_local else 0
            self.job = replace(self.job, identities=(src.identity(), there), ticks=ticks)
            moves = self._writes and self.job.delete_src
            if moves and self.job.follows_links and not self.job.single:
                self._keeps_until_copied = has_links(self.job, lambda: self.interrupted)
        except AdsmigError as exc:
            self.manifest.end_run(self.run_id, "stopped", str(exc))
            raise

    def _check_places(self, now: tuple[Identity | None, Identity | None]) -> None:
        """Refuses to go on in directories that are not those of the run: a disk that is not mounted
        seems to hold nothing, and what was copied is not in another one.
        """
        if not (self._writes or self.job.command == "rm"):
            return
        before = self._places_before() or ()
        places = zip((self.job.src, self.job.dst), before, now, strict=False)
        others = [at for at, one, other in places if one and other and not same_place(one, other)]
        if others and not self.job.yes:
            if self.job.dst in others:
                worker.storages(self.job)[1].tidy()  # of what was just made there
            raise AdsmigError(elsewhere(others[0]))
        if others:
            self._begin_again()
        if self.job.dst in others:
            self.manifest.forget_objects()
        self.manifest.set_places(self.run_id, now)

    def _places_before(self) -> Places | None:
        """What source and destination were known by when the job was last at work, if that is known
        and matters.
        """
        before = self.manifest.places(self.run_id)
        if before is None and self.job.compare == "manifest":
            before = self.manifest.places()
        return before

    def _begin_again(self) -> None:
        """Forgets what the run settled."""
        abandon_uploads(self.job, self.manifest)
        self.job = replace(self.job, retries=False)  # all that was copied may be elsewhere
        self.manifest.restart_run(self.run_id, self.job)
        self.counts = Counts()

    @property
    def _writes(self) -> bool:
        """Whether the destination is written to."""
        return self.job.command in ("cp", "sync") and not self.job.dryrun

    def _finish(self) -> None:
        done = not (self.refused or self.stop or self.interrupted)
        if done and not (any(self.counts) or self.job.retries):
            job = self.job
            self.refused = why_nowhere(job, self.manifest) or why_emptied(job, self.manifest)
        if self.stop:
            self.manifest.end_run(self.run_id, "stopped", self.stop.message)
        elif self.interrupted:
            self.manifest.end_run(self.run_id, "stopped", "interrupted")
        elif self.refused:
            if self._writes:
                worker.storages(self.job)[1].tidy()
            self.manifest.end_run(self.run_id, "refused", self.refused)
            self.manifest.drop_deletions()
        else:
            if self.manifest.open_shards(self.run_id) or self.manifest.pending_uploads():
                raise AdsmigError("internal error: the run ended before all was settled; resume it")
            failpoint.reach("run.settled")
            if self._writes:
                self._large.tidy()
                worker.storages(self.job)[1].tidy()
            failpoint.reach("run.tidied")
            job = self.job
            partly = job.existing or job.ignore_existing or job.update or job.files_from
            if partly:
                self._forget_gone()
            if job.dryrun and job.delete_dst:
                with contextlib.suppress(AdsmigError):  # all was listed, and is told of
                    self.would_refuse = self._refusal(self.counts.deleted)
            self.manifest.end_run(self.run_id, "finished", complete=not partly)
        self._watch(self.counts, True)

    def _forget_gone(self) -> None:
        """Of what failed in earlier runs, what is not at the source any more is no failure."""
        failed = [one.key for one in self.manifest.failures(self.run_id)]
        try:
            gone = worker.gone_from_source(self.job, failed, lambda: self.interrupted)
        except AdsmigError as exc:
            log.warning("what had failed stays on record: %s", exc)
            return
        self.manifest.forget_failures(self.run_id, gone)

    @property
    def listing(self) -> bool:
        """Whether there may be objects that were not found yet."""
        return self._ranges.listing

    # The loop

    def _drive(self) -> None:
        """Lends, waits and commits until nothing is left, or nothing more may be begun."""
        self._driving = True
        self._begin_parts()
        self._deletions.released &= not self._keeps_until_copied
        self._ranges.load()
        self._large.load()
        while True:
            self._lend_all()
            if not (self._tasks or self._ranges.uncommitted):
                if not self._release_deletions():
                    return
                continue
            if not self._tasks.settle(0 if self._ranges.uncommitted else TICK_S):
                if self._ranges.uncommitted:
                    self._ranges.commit()
                else:
                    self._look_for_help()
            self._show()

    def _show(self) -> None:
        """Tells the watch how far the run is, if it was not told a moment ago."""
        if time.monotonic() - self._shown_at >= SHOW_S:
            self._shown_at = time.monotonic()
            self._watch(self.counts + self._large.progress() + self._limits.live(), False)

    def _begin_parts(self) -> None:
        """What is in hand, and those who know what there is to lend."""
        slots = range(self._slots - 1)
        self._tasks = Tasks(self.job, self._workforce, self._limits, slots, self._halt)
        args = self.job, self.manifest, self.run_id, self._tasks.submit, self._committed
        self._large, self._deletions = LargeObjects(*args), Deletions(*args)
        self._directories = Directories(*args)
        self._ranges = Ranges(*args[:4], self._received, self._slice_committed, self._run_here)

    def _release_deletions(self) -> bool:
        """Once all was listed and copied: whether there is now something to remove, or, if nothing
        may be removed, something else to do.
        """
        ready = self._deletions.released or self.refused
        if ready or self.interrupted or self.stop or self.job.dryrun:
            return False
        if not self._deletions.at_source:
            try:
                self.refused = self._refusal(self.manifest.count_deletions(False))
            except AdsmigError as exc:
                self._committed(Counts(), Stop(str(exc), exc.exit_code, type(exc).__name__))
                return False
        self._deletions.released = not self.refused
        return True

    def _refusal(self, count: int) -> str:
        """Why so many objects may not be removed at the destination; '' if they may."""
        # A retry is about single keys, each looked up at the source.
        found = self.job.retries or self.counts.found_bytes or self.counts.dropped
        return self._deletions.refusal(not (found or holds_objects(self.job)), count)

    def _committed(self, counts: Counts, stop: Stop | None) -> None:
        """Work was committed: what it came to, and why no more can be done, if so."""
        self.counts += counts
        self._seconds = min(self._seconds * GROWTH, LONG_S)
        if stop:
            self._halt(stop)

    def _halt(self, stop: Stop) -> None:
        self.stop = self.stop or stop
        self._limits.stop()

    def _received(self, result: SliceResult) -> None:
        """A slice came back, and is to be committed."""
        self.counts += result.counts
        if result.stop:
            self._halt(result.stop)

    def _slice_committed(self, result: SliceResult) -> None:
        self._large.add(result.large)
        if self.inventory and result.inventory:
            self.inventory.merge(result.inventory)
        if result.planned:
            self._tell(result.planned)
        self._committed(Counts(), None)

    # Lending

    def _lend_all(self) -> None:
        if self.interrupted or self.stop:
            return
        if self._ranges.suspects:
            if not (self._tasks or self._ranges.uncommitted):
                self._ranges.lend_suspect()
            return
        most = self._most_at_once()
        # They fill memory; and what works in this process is in the way of who commits.
        if self._ranges.uncommitted > (self._workforce.size if self._workforce.pooled else 0):
            return
        while len(self._tasks) < most and not self.stop:
            if not self._lend_one(most - len(self._tasks)):
                return

    def _most_at_once(self) -> int:
        """How many tasks to have out: one a worker process, or one in this process."""
        if self._workforce.may_grow and not self._tasks:
            # A job of a moment needs no processes: one range is tried here first, once, and what
            # it found to remove is removed here.
            if self._tried and not (self._resumed or self._ranges.waiting or self._large):
                return 1
            if self._wants_processes():
                self._workforce.grow()
            self._tried = True
        return self._workforce.size

    def _lend_one(self, idle: int) -> bool:
        """Lends the next piece of work to one of ``idle`` workers; False if there is none."""
        if self._large.lend(self._seconds, self._workforce.size):
            return True
        last = not (self.listing or self._large or self._tasks)  # by now: one may just have failed
        if self._deletions.lend(
            not self.listing, last and (not self._deletions.at_source or self._directories.done)
        ):
            return True
        if not self._ranges.waiting:
            ready = self._deletions.released or self.refused
            return bool(last and ready) and self._lend_directories()
        self._ranges.lend(idle, self._seconds, self._workforce.pooled)
        return True

    def _lend_directories(self) -> bool:
        """Directories get their permissions before those at the source go, if they are to go."""
        if self._directories.lend():
            return True
        return self._deletions.at_source and self._deletions.lend(True, True)

    def _run_here(self, keys: KeyRange, budget: Budget) -> SliceResult:
        """A slice that is done at once, in this process."""
        lease = Lease(self._limits.path, self._slots - 1)
        try:
            return worker.run_slice(self.job, keys, budget, lease)
        finally:
            self._limits.report(lease.slot, Counts())

    # Processes

    def _look_for_help(self) -> None:
        """Recalls what is in hand, if others who could do some of it wait, or could be had."""
        if self._workforce.pooled:
            wanted = len(self._tasks) < self._workforce.size and self._ranges.divisible
        else:
            more = self.listing or self._large.waiting
            wanted = self._workforce.may_grow and self._has_room() and more
        now = time.monotonic()
        if wanted and now - self._recalled_at > RECALL_S:
            self._recalled_at = now
            self._limits.recall()

    def _wants_processes(self) -> bool:
        if self._ranges.waiting > 1 or self._resumed or self._workforce.eager:
            return True
        if self._workforce.told:
            return bool(self._tried or self._large or not self._ranges.waiting)
        more = self.listing or self._large.waiting
        return self._tried and more and self._has_room()

    def _has_room(self) -> bool:
        sides = worker.storages(self.job)
        ahead = max(side.names_ahead for side in sides)
        return self._workforce.has_room(self.counts + self._limits.live(), ahead)

    def _dismiss(self) -> None:
        self._workforce.close(self.interrupted or self.stop is not None, bool(self._tasks))
