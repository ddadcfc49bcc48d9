"""What a job has done so far, in one SQLite file; :mod:`adsmig.ledger` reads it.

Only the coordinator writes it, one transaction a checkpoint, in WAL mode with an fsync for each:
what the file says is done stays done.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from functools import cache, wraps
from itertools import chain, islice
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from adsmig.errors import ManifestError
from adsmig.job import Job
from adsmig.ledger import Ledger, Places, Run
from adsmig.model import (
    Counts,
    Deletion,
    DeletionResult,
    Entry,
    KeyRange,
    Known,
    Outcome,
    PartsResult,
    SliceResult,
    Upload,
)
from adsmig.room import Patience, impatient, patiently
from adsmig.schema import number_to_db, to_db

LEFT = ("shards", "uploads", "parts", "deletions", "directories", "links")
"""The tables of what the current run has left to do, and of what it found to tell."""

TOGETHER = 100
"""Objects that one statement puts on record: each by itself takes half as long again."""

P = ParamSpec("P")
T = TypeVar("T")


def _checkpoint(
    method: Callable[Concatenate[Manifest, P], T],
) -> Callable[Concatenate[Manifest, P], T]:
    """What a method writes becomes durable, all of it or nothing; waits until there is room."""

    @wraps(method)
    def commit(self: Manifest, /, *args: P.args, **named: P.kwargs) -> T:
        def unit() -> T:
            with self._database.errors(), self._database.transaction():
                return method(self, *args, **named)

        return patiently(unit, self.patience)

    return commit


class Manifest(Ledger):
    """An open manifest, to be written to.  That needs :meth:`lock` first."""

    def __init__(
        self, path: Path | None, *, create: bool = False, patience: Patience = impatient
    ) -> None:
        """As :class:`Ledger`."""
        super().__init__(path, create=create, patience=patience)
        self.lock, self.check = self._database.lock, self._database.check

    # Jobs and runs

    @_checkpoint
    def set_job(self, job: Job) -> None:
        """Makes the manifest about ``job``; raises ManifestError if it is about another."""
        row = self._connection.execute("SELECT id, command, src, dst FROM job").fetchone()
        if row and row[0] != job.id:
            raise ManifestError(
                f"{self.path} belongs to another job, {row[1]} {row[2]} {row[3]}:"
                " name another --manifest, or repeat that job's options"
            )
        dst = str(job.dst) if job.dst else ""
        values = (job.id, job.command, str(job.src), dst, job.to_json(), time.time())
        if row:
            self._connection.execute(
                "UPDATE job SET job = ?, command = ?", (job.to_json(), job.command)
            )
        else:
            self._connection.execute("INSERT INTO job VALUES (?, ?, ?, ?, ?, ?)", values)

    @_checkpoint
    def begin_run(self, kind: str, ranges: Iterable[KeyRange], manner: str = "") -> Run:
        """A new run over ``ranges``; nothing of an earlier one is left to do.

        A retry looks at a few keys only, so that the links stay those of the run before.
        """
        for table in LEFT:
            if table != "links" or kind != "retry":
                self._connection.execute(f"DELETE FROM {table}")
        cursor = self._connection.execute(
            "INSERT INTO runs (kind, state, started, resumed, message, manner,"
            f" {', '.join(Counts._fields)}) VALUES (?, 'running', ?, 0, '', ?,"
            f" {', '.join('0' for _ in Counts._fields)})",
            (kind, time.time(), manner),
        )
        assert cursor.lastrowid
        for keys in ranges:
            self._add_shard(cursor.lastrowid, keys)
        return self.runs()[-1]

    @_checkpoint
    def resume_run(self, run: int) -> None:
        """Notes that an unfinished run goes on."""
        self._connection.execute(
            "UPDATE runs SET state = 'running', resumed = resumed + 1, message = '' WHERE id = ?",
            (run,),
        )

    @_checkpoint
    def restart_run(self, run: int, job: Job) -> None:
        """Lists everything of a run anew, because what was listed cannot be trusted; also of one
        that was to retry what had failed.
        """
        self._connection.execute("UPDATE job SET job = ?", (job.to_json(),))
        # Uploads are aborted when begun anew.
        for table in LEFT:
            self._connection.execute(f"DELETE FROM {table}")
        self._connection.execute("DELETE FROM failures WHERE run = ?", (run,))
        zeros = ", ".join(f"{name} = 0" for name in Counts._fields)
        self._connection.execute(
            f"UPDATE runs SET kind = ?, {zeros} WHERE id = ?", (job.command, run)
        )
        self._add_shard(run, job.keys)

    @_checkpoint
    def set_places(self, run: int, places: Places) -> None:
        """Notes what the directories of a run are known by."""
        self._connection.execute(
            "UPDATE runs SET places = ? WHERE id = ?", (json.dumps(places), run)
        )

    @_checkpoint
    def end_run(self, run: int, state: str, message: str = "", complete: bool = True) -> None:
        """``finished``, ``stopped`` or ``refused``, with the reason.

        What had failed in earlier runs, and has not failed in this finished one, is forgotten, if
        that was ``complete``: it looked at all objects of the job, and left none alone.
        """
        self._connection.execute(
            "UPDATE runs SET state = ?, ended = ?, message = ? WHERE id = ?",
            (state, time.time(), message, run),
        )
        if state == "finished" and complete:
            self._connection.execute("DELETE FROM failures WHERE run < ?", (run,))

    # Checkpoints

    @_checkpoint
    def commit_slice(self, run: int, shard: int, result: SliceResult) -> None:
        """Makes durable, in one transaction, all that a worker did with a slice."""
        if result.cursor is not None:
            self._connection.execute(
                "UPDATE shards SET cursor = ? WHERE id = ?", (to_db(result.cursor), shard)
            )
        if result.done:
            self._connection.execute("UPDATE shards SET done = 1 WHERE id = ?", (shard,))
        self._forget_failures(run, result.cleared)
        self._add_outcomes(run, result.outcomes)
        self._add_equal(run, result.equal)
        for entry in result.large:
            self._set_upload(entry, None, 0)
        self._add_deletions(result.deletions)
        self._connection.executemany(
            "INSERT OR REPLACE INTO links VALUES (?)", [(to_db(key),) for key in result.links]
        )
        self._connection.executemany(
            "INSERT OR REPLACE INTO directories VALUES (?)",
            [(to_db(key),) for key in result.directories],
        )
        self._count(run, result.counts)
        counts = result.counts
        self._add_slice(
            run, shard, result, counts.found, counts.copied, counts.failed, counts.copied_bytes
        )

    @_checkpoint
    def adopt(self, outcomes: list[Outcome]) -> None:
        """Takes over what a manifest that was lost says was copied, as of run 0."""
        self._add_outcomes(0, outcomes)

    @_checkpoint
    def commit_parts(self, run: int, key: bytes, result: PartsResult) -> None:
        """Makes durable which parts of a large object are done."""
        self._connection.executemany(
            "INSERT OR REPLACE INTO parts (key, number, etag, checksum, md5, crc32)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            [(to_db(key), *part) for part in result.parts],
        )
        self._add_slice(run, None, result, 0, 0, 0, result.sent)

    @_checkpoint
    def commit_upload(self, entry: Entry, upload: Upload | None, tries: int) -> None:
        """Notes the upload that was opened for a large object, in place of any before."""
        self._connection.execute("DELETE FROM parts WHERE key = ?", (to_db(entry.key),))
        self._set_upload(entry, upload, tries)

    @_checkpoint
    def commit_large(self, run: int, outcome: Outcome, deletions: Iterable[Deletion] = ()) -> None:
        """Notes what became of a large object, which is then no longer under way, and what is to
        be removed therefore.
        """
        counts = Counts(failed=1) if outcome.error else Counts(copied=1, copied_bytes=outcome.size)
        for table in ("uploads", "parts"):
            self._connection.execute(f"DELETE FROM {table} WHERE key = ?", (to_db(outcome.key),))
        self._add_outcomes(run, [outcome])
        self._add_deletions(deletions)
        self._count(run, counts)

    @_checkpoint
    def commit_deletions(
        self, run: int, numbered: dict[int, Deletion], result: DeletionResult
    ) -> Counts:
        """Notes which of some deletions were made; what they come to.

        An object that is gone from the destination is no longer one that was copied.
        """
        by_key = {deletion.key: deletion for deletion in numbered.values()}
        gone = [by_key[key] for key in result.gone]
        counted = [one for one in gone if not one.implied]
        size = sum(one.size for one in counted)
        counts = Counts(failed=len(result.failures), deleted=len(counted), deleted_bytes=size)
        left = set() if result.settled else by_key.keys() - result.gone
        self._connection.executemany(
            "DELETE FROM deletions WHERE id = ?",
            [(id_,) for id_, one in numbered.items() if one.key not in left],
        )
        self._connection.executemany(
            "DELETE FROM objects WHERE key = ?",
            [(to_db(one.key),) for one in gone if not one.at_source],
        )
        self._add_outcomes(run, result.failures)
        self._count(run, counts)
        self._add_slice(run, None, result, 0, 0, counts.failed, 0)
        return counts

    @_checkpoint
    def commit_directories(self, run: int, keys: list[bytes], failures: list[Outcome]) -> None:
        """Notes which directories have their permissions and times."""
        self._connection.executemany(
            "DELETE FROM directories WHERE key = ?", [(to_db(key),) for key in keys]
        )
        self._add_outcomes(run, failures)
        self._count(run, Counts(failed=len(failures)))

    @_checkpoint
    def forget_objects(self) -> None:
        """Forgets what was copied: it is not there."""
        self._connection.execute("DELETE FROM objects")

    @_checkpoint
    def forget_failures(self, run: int, keys: Iterable[bytes]) -> None:
        """Forgets that these failed in runs before ``run``."""
        self._forget_failures(run, keys)

    def _forget_failures(self, run: int, keys: Iterable[bytes]) -> None:
        self._connection.executemany(
            "DELETE FROM failures WHERE key = ? AND run < ?", [(to_db(key), run) for key in keys]
        )

    @_checkpoint
    def drop_deletions(self) -> None:
        """Forgets what was to be removed."""
        self._connection.execute("DELETE FROM deletions")

    @_checkpoint
    def commit_cut(self, run: int, shard: int, keys: KeyRange, cuts: list[bytes]) -> list[int]:
        """Cuts the open range ``keys`` of a shard; the ids of the pieces, in order."""
        first, *others = keys.cut(cuts)
        self._connection.execute(
            "UPDATE shards SET upto = ? WHERE id = ?",
            (None if first.upto is None else to_db(first.upto), shard),
        )
        return [shard, *(self._add_shard(run, piece) for piece in others)]

    def _add_shard(self, run: int, keys: KeyRange) -> int:
        upto = None if keys.upto is None else to_db(keys.upto)
        cursor = self._connection.execute(
            "INSERT INTO shards (run, after, upto, closed, done) VALUES (?, ?, ?, ?, 0)",
            (run, to_db(keys.after), upto, int(keys.closed)),
        )
        assert cursor.lastrowid
        return cursor.lastrowid

    def _add_outcomes(self, run: int, outcomes: list[Outcome]) -> None:
        good = [one for one in outcomes if not one.error]
        self._connection.executemany(
            "INSERT OR REPLACE INTO objects (key, size, mtime_ns, etag, checksum, run, seconds)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (to_db(o.key), o.size, number_to_db(o.mtime_ns), o.etag, o.checksum, run, o.seconds)
                for o in good
            ],
        )
        if self._connection.execute("SELECT 1 FROM failures LIMIT 1").fetchone():
            self._connection.executemany(
                "DELETE FROM failures WHERE key = ?", [(to_db(o.key),) for o in good]
            )
        self._connection.executemany(
            "INSERT OR REPLACE INTO failures (key, run, kind, error, size, at)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            [
                (to_db(o.key), run, o.kind, o.error, o.size, time.time())
                for o in outcomes
                if o.error
            ],
        )

    def _add_equal(self, run: int, equal: Known) -> None:
        """What was copied of the same source, as far as that can be told, keeps its checksum."""
        rows = zip(*equal, strict=True)
        while values := list(chain.from_iterable(islice(rows, TOGETHER))):
            self._connection.execute(_record_equal(run, len(values) // len(equal)), values)

    def _add_deletions(self, deletions: Iterable[Deletion]) -> None:
        self._connection.executemany(
            "INSERT INTO deletions (key, size, time_ns, etag, at_source, checked, implied)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(to_db(one.key), one.size, number_to_db(one.time_ns), *one[3:]) for one in deletions],
        )

    def _set_upload(self, entry: Entry, upload: Upload | None, tries: int) -> None:
        self._connection.execute(
            "INSERT OR REPLACE INTO uploads"
            " (key, size, mtime_ns, stored_ns, etag, upload_id, part_size, tries, vouched, crc32)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                to_db(entry.key),
                entry.size,
                number_to_db(entry.mtime_ns),
                number_to_db(entry.stored_ns),
                entry.etag,
                upload.upload_id if upload else "",
                upload.part_size if upload else 0,
                tries,
                upload.vouched if upload else "",
                upload.crc32 if upload else None,
            ),
        )

    def _count(self, run: int, counts: Counts) -> None:
        sums = ", ".join(f"{name} = {name} + ?" for name in Counts._fields)
        self._connection.execute(f"UPDATE runs SET {sums} WHERE id = ?", (*counts, run))

    def _add_slice(
        self,
        run: int,
        shard: int | None,
        result: SliceResult | PartsResult | DeletionResult,
        *numbers: int,
    ) -> None:
        cursor = self._connection.execute(
            "INSERT INTO slices"
            " (run, shard, worker, started, ended, found, copied, failed, bytes)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (run, shard, result.worker, result.started, result.ended, *numbers),
        )
        self._database.checkpoints = cursor.lastrowid or 0


@cache
def _record_equal(run: int, count: int) -> str:
    """The statement that puts so many objects on record; see Manifest._add_equal."""
    rows = ", ".join([f"(?, ?, ?, ?, {run:d})"] * count)
    return (
        f"INSERT INTO objects (key, size, mtime_ns, etag, run) VALUES {rows}"
        " ON CONFLICT (key) DO UPDATE SET size = excluded.size, mtime_ns = excluded.mtime_ns,"
        " etag = excluded.etag, run = excluded.run, checksum = NULL, seconds = NULL"
        " WHERE size IS NOT excluded.size OR mtime_ns IS NOT excluded.mtime_ns"
        " OR etag IS NOT excluded.etag"
    )
