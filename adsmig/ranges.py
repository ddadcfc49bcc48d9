"""What is left of a run's ranges of keys: lent as slices, committed, and cut where workers wait."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from adsmig import worker
from adsmig.errors import AdsmigError
from adsmig.job import Job
from adsmig.manifest import Manifest
from adsmig.model import Budget, Counts, KeyRange, SliceResult, What
from adsmig.plan import each
from adsmig.scan import plan_of
from adsmig.slice import stop_of
from adsmig.tasks import Submit
from adsmig.transfer import failure

SHORT_S, LONG_S = 0.5, 5.0
"""How long slices last at first, so that even a job killed every few seconds gets on; and later."""
HUNGRY_S = 1.0
"""How long slices last while there are workers who wait for something to be cut off, or when there
may soon be room for them."""
OBJECTS = 20_000
"""The most objects that a slice copies."""
PIECES = 16
"""The most that a range is asked to be cut into at once, by one worker."""
STRIKES = 3
"""A slice whose worker died so often is looked at alone, and in ever smaller pieces."""


@dataclass(slots=True, eq=False)
class _Range:
    """What is left of a shard, waiting to be lent."""

    shard: int
    keys: KeyRange
    whole: bool = False
    """It was tried, and cannot be cut."""
    fresh: bool = False
    """It was just cut off, and nobody knows how much it holds: most are done in a moment."""
    strikes: int = 0
    objects: int = OBJECTS


class Ranges:
    """Those of one run.

    ``received`` is told of each slice as soon as it is done, ``committed`` once it is in the
    manifest.  ``run_here`` does one in this process.
    """

    def __init__(
        self,
        job: Job,
        manifest: Manifest,
        run: int,
        submit: Submit,
        received: Callable[[SliceResult], None],
        committed: Callable[[SliceResult], None],
        run_here: Callable[[KeyRange, Budget], SliceResult],
    ) -> None:
        self._job, self._manifest, self._run = job, manifest, run
        self._submit, self._run_here = submit, run_here
        self._received, self._committed = received, committed
        self._waiting = deque[_Range]()
        self._suspects = deque[_Range]()
        self._lent: list[_Range] = []
        self._to_be_cut = 0
        """How many of those are lent only to find out where."""
        # Each with its shard, the oldest first.
        self._uncommitted = deque[tuple[int, SliceResult]]()

    def load(self) -> None:
        """Takes up those that the manifest holds open."""
        open_shards = self._manifest.open_shards(self._run)
        self._waiting.extend(_Range(shard, keys) for shard, keys in open_shards)

    @property
    def listing(self) -> bool:
        """Whether there may be objects that were not found yet."""
        return bool(self._waiting or self._suspects or self._lent or self._uncommitted)

    @property
    def waiting(self) -> int:
        """How many could be lent."""
        return len(self._waiting)

    @property
    def suspects(self) -> int:
        """How many are to be lent when nothing else is in hand, nor uncommitted: they may hold what
        kills whoever works on it.
        """
        return len(self._suspects)

    @property
    def uncommitted(self) -> int:
        """How many slices are done and not committed yet; what is left of their ranges may be lent
        again meanwhile, so that nobody waits for the manifest.
        """
        return len(self._uncommitted)

    @property
    def divisible(self) -> bool:
        """Whether all are being worked on, and there are some that others could do a part of."""
        busy = not (self._waiting or self._to_be_cut)
        return busy and not all(piece.whole for piece in self._lent)

    # Lending

    def lend(self, idle: int, seconds: float, shared: bool) -> None:
        """Lends the next to one of ``idle`` workers, for a slice of so many seconds, or to be cut.

        ``shared``: there may be several workers.
        """
        hungry = len(self._waiting) < idle
        share = -(-idle // len(self._waiting))
        piece = self._waiting.popleft()
        if shared and hungry and not (piece.whole or piece.fresh):
            self._lend_cut(piece, min(share, PIECES))
        else:
            self._lend_slice(piece, min(seconds, HUNGRY_S) if hungry or not shared else seconds)

    def lend_suspect(self) -> None:
        """Lends one of those, for a short slice."""
        self._lend_slice(self._suspects.popleft(), SHORT_S)

    def _lend_slice(self, piece: _Range, seconds: float) -> None:
        def settle(result: SliceResult) -> None:
            self._lent.remove(piece)
            self._done(piece, result)

        def died() -> None:
            self._lent.remove(piece)
            self._died(piece)

        self._lent.append(piece)
        budget = Budget(seconds, piece.objects)
        self._submit(worker.run_slice, (piece.keys, budget), settle, died)

    def _lend_cut(self, piece: _Range, pieces: int) -> None:
        def settle(cuts: list[bytes]) -> None:
            self._lent.remove(piece)
            self._to_be_cut -= 1
            if not cuts:
                piece.whole = True
                self._waiting.appendleft(piece)
                return
            shards = self._manifest.commit_cut(self._run, piece.shard, piece.keys, cuts)
            parts = zip(shards, piece.keys.cut(cuts), strict=True)
            self._waiting.extendleft(_Range(shard, keys, fresh=True) for shard, keys in parts)

        def died() -> None:
            self._lent.remove(piece)
            self._to_be_cut -= 1
            piece.whole = True  # lest it kill the next one too
            self._waiting.appendleft(piece)

        self._lent.append(piece)
        self._to_be_cut += 1
        self._submit(worker.cut_range, (piece.keys, pieces), settle, died, leased=False)

    # What comes back

    def commit(self) -> None:
        """Commits the slice that has waited for longest."""
        shard, result = self._uncommitted.popleft()
        self._manifest.commit_slice(self._run, shard, result)
        self._committed(result)

    def _done(self, piece: _Range, result: SliceResult) -> None:
        self._uncommitted.append((piece.shard, result))
        self._received(result)
        if result.done:
            return
        rest = piece.keys if result.cursor is None else piece.keys.rest(result.cursor)
        left = _Range(piece.shard, rest)
        if piece.objects < OBJECTS:  # a suspect: trusted again little by little
            left.objects, left.strikes = max(1, piece.objects * 4), STRIKES
            if left.objects < OBJECTS:
                self._suspects.append(left)
                return
            left = _Range(piece.shard, rest)
        self._waiting.append(left)

    def _died(self, piece: _Range) -> None:
        piece.strikes += 1
        if piece.strikes < STRIKES:
            self._waiting.appendleft(piece)
        elif piece.objects > 1:
            piece.objects = max(1, piece.objects // 30)
            self._suspects.append(piece)
        else:
            self._condemn(piece)

    def _condemn(self, piece: _Range) -> None:
        """The first object to copy kills whoever copies it: a failure, and on to the next.

        What comes before it and needs no copying is settled here, in this process.
        """
        before = self._run_here(piece.keys, Budget(LONG_S, 0))
        self._done(piece, before)
        if before.done or before.stop:
            return
        left, now = self._suspects.pop(), time.time()
        nothing = SliceResult(None, False, Counts(), [], worker=os.getpid(), started=now, ended=now)
        try:
            action = next(each(plan_of(self._job, left.keys)), None)
        except AdsmigError as exc:
            self._done(left, replace(nothing, stop=stop_of(exc)))
            return
        if action is None or action.what not in (What.COPY, What.CHECK):
            self._suspects.append(left)
            return
        entry = action.src
        outcome = failure(entry, "killed", "every worker that copied it died")
        counts = Counts(found=1, found_bytes=entry.size, failed=1)
        condemned = replace(nothing, cursor=entry.key, counts=counts, outcomes=[outcome])
        self._done(left, condemned)
