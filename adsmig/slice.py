"""A range of keys being worked on by the threads of one process."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Iterable, Iterator
from functools import partial

from adsmig import failpoint
from adsmig.content import same_content, same_link, same_time
from adsmig.crew import Crew, Stay
from adsmig.errors import AdsmigError, TransientError
from adsmig.findings import Findings, done
from adsmig.job import LARGE_SIZE, Job
from adsmig.limits import Lease, opened
from adsmig.model import (
    Action,
    Budget,
    Counts,
    Entry,
    KeyRange,
    Outcome,
    SliceResult,
    Stop,
    What,
)
from adsmig.plan import Past, Run
from adsmig.proof import holds
from adsmig.retry import never
from adsmig.scan import plan_of, storages
from adsmig.small import (
    MOST_BATCHED,
    MOST_BYTES,
    Copies,
    copy_batch,
    is_batched,
    is_brief,
    is_small,
    may_overlap,
)
from adsmig.span import Span
from adsmig.storage.several import Batching, Expecting
from adsmig.transfer import Manner, copy, failure, settled, unsettled_s

log = logging.getLogger(__name__)

CLOSE_S = 1.0
"""How long to wait for threads to let go of what they share; all but a listing takes far less."""

EXPECTED, EXPECTED_BY_OVERLAP = 32, 16
"""Small objects that a source is asked for at once; of those of which a thread copies several at a
time, half as many as that, so that there are always some in the destination's hands.
"""

_WORK = (What.COPY, What.CHECK)
"""What threads carry out; all else is settled as it is listed."""


class Slice:
    """A range being worked on; call :meth:`run` once.  Threads pull actions from it."""

    def __init__(self, job: Job, keys: KeyRange, budget: Budget, lease: Lease) -> None:
        self._job, self._keys, self._budget, self._lease = job, keys, budget, lease
        self._limits = opened(lease.path)
        self._stopping = self._limits.stopping if self._limits else never
        self._recalled = self._limits.recalled if self._limits else lambda _: False
        self._src, self._dst = storages(job)
        self._manner = Manner(job.perms, job.delete_src, job.links == "copy")
        self._lock = threading.RLock()  # an error may come while it is held
        self._started, self._span = time.time(), Span(budget.seconds)
        # Who says how many threads, says how much is in a store's hands.
        self._overlapping = not job.threads and may_overlap(self._src, self._dst)
        reads = [self._src, self._dst] if job.by_content else [self._src]
        self._expecting = any(isinstance(side, Expecting) for side in reads)
        self._actions: Iterator[Action | Run | Past] | None = None
        self._batch: int | None = None
        self._writes_batches = False
        self._cursor: bytes | None = None
        self._dispatched = 0
        self._ended = self._done = self._closed = False
        self._stop: AdsmigError | None = None
        self._findings = Findings(job, keys, self._src, self._dst)
        # Keys being worked on: the cursor and the tallies as they were just before each.
        self._in_hand: dict[bytes, tuple[bytes | None, Counts]] = {}

    def run(self, crew: Crew) -> SliceResult:
        """Settles keys in order until all are or the budget is used up; see worker.run_slice."""
        failpoint.reach("slice.begun")
        if self._job.dryrun:
            self._work(crew, lambda size, pieces=1: True)  # which only lists
        else:
            work = partial(self._work, crew)
            left = crew.run(work, self._stopping, self._release, self._resume)
            if not left and not self._close():
                return SliceResult(
                    None, False, Counts(), [],
                    worker=os.getpid(), started=self._started, ended=time.time(),
                )  # fmt: skip
        try:
            if self._findings.rests_on_destination and not self._job.dryrun and self._job.dst:
                failpoint.reach("flush.before")
                self._dst.sync()
                failpoint.reach("flush.after")
        except AdsmigError as exc:
            return self._findings.unflushed(stop_of(exc), self._started)
        cursor, counts, done = self._cursor, self._findings.counts(), self._done
        if self._in_hand:
            # Some keys were left unsettled: only what comes before the first of them counts.
            done = False
            cursor, counts = self._in_hand[min(self._in_hand)]
            self._findings.forget_past(cursor)
            counts += self._findings.settled_counts()
        return self._result(cursor, counts, done, self._stop)

    def _result(
        self, cursor: bytes | None, counts: Counts, done: bool, stop: AdsmigError | None
    ) -> SliceResult:
        why = stop_of(stop) if stop else None
        return self._findings.result(cursor, counts, done, why, self._started)

    def _release(self) -> None:
        self._src.release()
        self._dst.release()

    def _close(self) -> bool:
        """Keeps threads that are late from changing anything more; False if one of them is just at
        it, waiting for a listing.
        """
        if not self._lock.acquire(timeout=CLOSE_S):
            return False
        self._ended = self._closed = True
        self._lock.release()
        return True

    def _work(self, crew: Crew, stay: Stay) -> None:
        """What each thread does: works on one object, or a few, after the other, until there are no
        more.  Of small ones, it has begun several before it finishes the first.
        """
        copies = Copies(self._src, self._dst, self._limits, self._manner)
        more = stays = True
        late = 0  # of those, waited for in vain: they are not in the way of others
        results: Iterable[tuple[Action, bool, Outcome | None]]
        try:
            while more or copies:
                room = crew.depth - (len(copies) - late)
                if not more or room < min(self._batch or 1, crew.depth):
                    if not (more or copies.ready(self._patience() if stays else math.inf)):
                        self._resume()
                        more, late = not self._ended, len(copies)
                        continue
                    copied, outcome_of = copies.finish()
                    results = [(copied, False, outcome_of)]
                else:
                    actions = self._next(crew.depth if self._overlapping else None)
                    more = bool(actions)
                    self._expect(actions)
                    if self._overlapping:
                        actions = self._begin_small(actions, copies)
                        if not actions:
                            continue
                    results = self._carry_out(actions)
                    if self._overlapping and any(one.src.size > MOST_BYTES for one in actions):
                        with crew.aside():
                            results = list(results)
                size = pieces = 0
                for action, equal, outcome in results:
                    size += action.src.size if outcome else 0
                    pieces += 1
                    if not self._keep(action, equal, outcome):
                        return
                if more and not stay(size, pieces):
                    more = stays = False
        except Exception as exc:
            self._end(exc)
        finally:
            copies.drop()

    def _begin_small(self, actions: list[Action], copies: Copies) -> list[Action]:
        """Has the small ones among them copied along with others; the rest."""
        rest = []
        for action in actions:
            if is_small(action):
                copies.begin(action, self._job.dst_key(action.src.key))
            else:
                rest.append(action)
        return rest

    def _expect(self, actions: list[Action]) -> None:
        """Lets each side know which small objects are about to be read there, if it wants to.

        One that may yet change within the same second is read when it cannot any more, not before.
        """
        if len(actions) < 2 or not self._expecting:
            return
        brief = [one for one in actions if is_brief(one)]
        checked = [one for one in brief if one.what == What.CHECK and self._job.by_content]
        read = [one.src for one in brief if one.what == What.COPY]
        if not self._job.against:
            read += [one.src for one in checked]
        for side, entries in ((self._src, read), (self._dst, list(map(self._there, checked)))):
            settled = [one for one in entries if not unsettled_s(self._src, self._dst, one)]
            if len(settled) > 1 and isinstance(side, Expecting):
                side.expect(settled)

    def _end(self, exc: Exception) -> None:
        """Notes what went wrong with more than an object; nothing more is begun."""
        if not isinstance(exc, AdsmigError):
            log.info("internal error", exc_info=exc)
            exc = AdsmigError(f"internal error: {type(exc).__name__}: {exc}")
        with self._lock:
            self._ended = True
            if not self._closed and not (isinstance(exc, TransientError) and self._stopping()):
                self._stop = self._stop or exc

    def _keep(self, action: Action, equal: bool, outcome: Outcome | None) -> bool:
        """Counts what became of an object; False if it is too late for that."""
        with self._lock:
            if self._closed:
                return False
            del self._in_hand[action.src.key]
            self._span.done(action.src.key, outcome.seconds if outcome else 0.0)
            if outcome is None:
                self._findings.add_large(action.src)
            elif equal:
                self._findings.add_equal(outcome)
            else:
                self._findings.add(outcome)
            self._show()
            return True

    def _carry_out(self, actions: list[Action]) -> Iterator[tuple[Action, bool, Outcome | None]]:
        """Works on objects: each with whether it was found equal, and what became of it."""
        small = [action for action in actions if is_batched(action)]
        if len(small) > 1 and self._writes_batches and isinstance(self._dst, Batching):
            objects = [(action.src, self._job.dst_key(action.src.key)) for action in small]
            outcomes = copy_batch(self._src, self._dst, objects, self._limits, self._manner)
            for action, outcome in zip(small, outcomes, strict=True):
                yield action, False, outcome
            actions = [action for action in actions if not is_batched(action)]
        for action in actions:
            yield action, *self._carry_out_one(action)

    def _carry_out_one(self, action: Action) -> tuple[bool, Outcome | None]:
        """Works on one object: whether it was found equal, and what became of it.

        No outcome: it is to be copied, in parts.
        """
        entry, job = action.src, self._job
        key = job.dst_key(entry.key)
        if action.what == What.CHECK:
            there = self._there(action)

            def compare() -> Outcome:
                return done(entry, "" if self._same(entry, there) else "differs")

            found = settled(compare, entry, self._stopping)
            if found.kind != "differs":
                return not found.error, found
            if job.command == "verify":
                what = "what was copied" if job.against else "the same"
                return False, failure(entry, "differs", f"the content is not {what}")
            if entry.size > min(LARGE_SIZE, job.max_put):
                return False, None
        return False, copy(self._src, self._dst, entry, key, self._limits, self._manner)

    def _there(self, action: Action) -> Entry:
        """What an object is to be compared with."""
        assert action.dst
        return action.dst._replace(key=self._job.dst_key(action.src.key))

    def _same(self, entry: Entry, there: Entry) -> bool:
        """Whether what could not be told from the listings is equal."""
        if there.link is not None:
            return same_link(self._src, entry, there)
        if self._job.against:
            return holds(self._dst, there, entry.etag or "", self._limits)
        if not self._job.by_content:
            return same_time(self._src, entry, there)
        return same_content(self._src, entry, self._dst, there, self._limits)

    def _next(self, most: int | None) -> list[Action]:
        """What to work on next: one object, or some small ones, where they are better read or
        written at once, but no more than ``most``; everything that needs no work is settled on the
        way.  Nothing: there is no more, or there can be no more.
        """
        with self._lock:
            if self._batch is None:
                self._batch = self._batch_size()  # by the first thread, which needs to connect
            most = min(self._batch, most or self._batch)
            actions, size = list[Action](), 0
            try:
                while action := self._advance():
                    actions.append(action)
                    size += action.src.size
                    if len(actions) == most or size > MOST_BATCHED or not is_brief(action):
                        break
            except Exception as exc:
                self._end(exc)
            return actions

    def _batch_size(self) -> int:
        """How many objects are to be read or written at once."""
        if self._job.dryrun:
            return 1
        if isinstance(self._dst, Batching) and (size := self._dst.batch_size()) > 1:
            self._writes_batches = True
            return size
        if self._expecting:
            return EXPECTED_BY_OVERLAP if self._overlapping else EXPECTED
        return 1

    def _advance(self) -> Action | None:
        """The next object to work on."""
        listed = 0
        if self._actions is None:
            self._actions = plan_of(self._job, self._keys)
        while not self._ended:
            # At the end of the range, which mostly is a key, little is left to do: to be told so.
            if self._cursor not in (None, self._keys.upto) and self._used_up():
                self._span.end()
                break
            try:
                action = next(self._actions, None)
            except BaseException:
                # Still under the lock: to the next thread, a generator that raised would look
                # like one that has come to its end, and the range like one that is done.
                self._ended = True
                raise
            if action is None:
                self._done = True
                break
            if self._cursor is None:
                self._span.reached()
            if isinstance(action, Past):
                self._cursor = action.key
                continue
            if isinstance(action, Run):  # mostly, and by the million objects
                self._findings.add_run(action)
                self._cursor = action.entries[-1].key
                self._show()
                continue
            if self._findings.foreseen:
                self._findings.foresee(action, self._same)
            elif action.what in _WORK and not self._budget.objects:
                break
            else:
                before, counts = self._cursor, self._findings.listed_counts()
                if self._findings.settle(action):
                    self._in_hand[action.src.key] = before, counts
                    self._cursor = action.src.key
                    self._dispatched += 1
                    return action
            self._cursor = action.src.key
            listed += 1
            if not listed & 1023:
                self._show()
        self._ended = True
        return None

    def _patience(self) -> float:
        """For how many seconds nothing need come of what is in hand, now that no more is begun."""
        with self._lock:
            if not self._ended:
                return 0.0
            final = self._stop or self._done or self._closed or self._full() or self._stopping()
            return math.inf if final else self._span.patience()

    def _resume(self) -> bool:
        """Has more begun, if nothing has come of what is in hand for long enough.

        Waits for nobody: whoever lists for the others has the lock for as long as that takes.
        """
        if not self._ended or not self._lock.acquire(blocking=False):
            return False
        try:
            if not self._ended or self._patience() > 0 or not self._in_hand:
                return False
            log.debug("a slice goes on: %d objects in hand take long", len(self._in_hand))
            self._span.resume(self._in_hand)
            self._ended = False
            return True
        finally:
            self._lock.release()

    def _show(self) -> None:
        if self._limits:
            self._limits.report(self._lease.slot, self._findings.counts())

    def _used_up(self) -> bool:
        return self._span.used_up(self._recalled) or self._stopping() or self._full()

    def _full(self) -> bool:
        return self._dispatched >= (self._budget.objects or 1) or self._findings.full


def stop_of(exc: AdsmigError) -> Stop:
    """An error that ends a run, in a form that crosses processes."""
    return Stop(str(exc), exc.exit_code, type(exc).__name__)
