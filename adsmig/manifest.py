"""What a job has done so far, in one SQLite file: see :mod:`adsmig.schema` for its tables.

Only the coordinator writes it, one transaction a checkpoint, in WAL mode with an fsync for each:
what the file says is done stays done.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from heapq import merge
from pathlib import Path
from typing import Any, NamedTuple

from adsmig.database import Database
from adsmig.errors import ManifestError
from adsmig.job import Job
from adsmig.model import (
    Counts,
    Deletion,
    DeletionResult,
    Entry,
    KeyRange,
    Outcome,
    Part,
    PartsResult,
    SliceResult,
    Upload,
)
from adsmig.schema import from_db, to_db

LEFT = ("shards", "uploads", "parts", "deletions", "directories", "links")
"""The tables of what the current run has left to do, and of what it found to tell."""


Places = tuple["tuple[int, ...] | None", "tuple[int, ...] | None"]
"""Source's and destination's ``Storage.identity()``."""


class Run(NamedTuple):
    """A row of ``runs``, as a person asks for it."""

    id: int
    kind: str
    state: str
    started: float
    ended: float | None
    resumed: int
    counts: Counts
    message: str
    manner: str


class PendingUpload(NamedTuple):
    """A large object of an unfinished run."""

    entry: Entry
    upload: Upload | None
    parts: list[Part]
    tries: int


def default_path(job: Job) -> Path:
    """Where a job's manifest is, if the user names no place: the user's state directory."""
    return state_directory() / f"{job.id}.db"


def state_directory() -> Path:
    """``$XDG_STATE_HOME/adsmig/jobs`` (specifications.freedesktop.org/basedir-spec)."""
    home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(home) / "adsmig" / "jobs"


class Manifest:
    """An open manifest.  Close it, or use it in a ``with``; see :class:`Database` for what it
    raises.  Writing needs :meth:`lock` first.
    """

    def __init__(self, path: Path | None, *, create: bool = False) -> None:
        """``path`` None: in memory, forgotten at the end, as a dry run needs it."""
        self._database = Database(path, create=create)
        self._connection = self._database.connection
        self._errors, self._transaction = self._database.errors, self._database.transaction
        self.path = path
        self.lock, self.close = self._database.lock, self._database.close

    def __enter__(self) -> Manifest:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Manifest({self.path})"

    # Jobs and runs

    def job_json(self) -> str | None:
        """The job that the manifest is about, for Job.from_json; None in a new manifest."""
        with self._errors():
            row = self._connection.execute("SELECT job FROM job").fetchone()
        return row[0] if row else None

    def set_job(self, job: Job) -> None:
        """Makes the manifest about ``job``; raises ManifestError if it is about another."""
        with self._errors(), self._transaction():
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

    def runs(self) -> list[Run]:
        """All runs, oldest first."""
        with self._errors():
            rows = self._database.tables.query("SELECT * FROM runs ORDER BY id")
            return [_run(row) for row in rows]

    def unfinished_run(self) -> Run | None:
        """The last run, if it has not come to its end."""
        runs = self.runs()
        return runs[-1] if runs and runs[-1].state in ("running", "stopped") else None

    def begin_run(self, kind: str, ranges: Iterable[KeyRange], manner: str = "") -> Run:
        """A new run over ``ranges``; nothing of an earlier one is left to do.

        A retry looks at a few keys only, so that the links stay those of the run before.
        """
        with self._errors(), self._transaction():
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

    def resume_run(self, run: int) -> None:
        """Notes that an unfinished run goes on."""
        with self._errors(), self._transaction():
            self._connection.execute(
                "UPDATE runs SET state = 'running', resumed = resumed + 1, message = ''"
                " WHERE id = ?",
                (run,),
            )

    def restart_run(self, run: int, job: Job) -> None:
        """Lists everything of a run anew, because what was listed cannot be trusted."""
        with self._errors(), self._transaction():
            self._connection.execute("UPDATE job SET job = ?", (job.to_json(),))
            # Uploads are aborted when begun anew.
            for table in LEFT:
                self._connection.execute(f"DELETE FROM {table}")
            self._connection.execute("DELETE FROM failures WHERE run = ?", (run,))
            zeros = ", ".join(f"{name} = 0" for name in Counts._fields)
            self._connection.execute(f"UPDATE runs SET {zeros} WHERE id = ?", (run,))
            self._add_shard(run, job.keys)

    def places(self, run: int | None = None) -> Places | None:
        """What the directories of a run were known by, or, by default, of the last run of which
        that is known; None if it is of none.
        """
        which = "places IS NOT NULL" if run is None else f"id = {int(run)}"
        with self._errors():
            row = self._connection.execute(
                f"SELECT places FROM runs WHERE {which} ORDER BY id DESC LIMIT 1"
            ).fetchone()
        if not row or not row[0]:
            return None
        src, dst = (None if one is None else tuple(one) for one in json.loads(row[0]))
        return src, dst

    def set_places(self, run: int, places: Places) -> None:
        """Notes what the directories of a run are known by."""
        with self._errors(), self._transaction():
            self._connection.execute(
                "UPDATE runs SET places = ? WHERE id = ?", (json.dumps(places), run)
            )

    def end_run(self, run: int, state: str, message: str = "", complete: bool = True) -> None:
        """``finished``, ``stopped`` or ``refused``, with the reason.

        What had failed in earlier runs, and has not failed in this finished one, is forgotten, if
        that was ``complete``: it looked at all objects of the job, and left none alone.
        """
        with self._errors(), self._transaction():
            self._connection.execute(
                "UPDATE runs SET state = ?, ended = ?, message = ? WHERE id = ?",
                (state, time.time(), message, run),
            )
            if state == "finished" and complete:
                self._connection.execute("DELETE FROM failures WHERE run < ?", (run,))

    # Checkpoints

    def commit_slice(self, run: int, shard: int, result: SliceResult) -> None:
        """Makes durable, in one transaction, all that a worker did with a slice."""
        with self._errors(), self._transaction() as execute:
            if result.cursor is not None:
                execute("UPDATE shards SET cursor = ? WHERE id = ?", (to_db(result.cursor), shard))
            if result.done:
                execute("UPDATE shards SET done = 1 WHERE id = ?", (shard,))
            self._add_outcomes(run, result.outcomes)
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

    def commit_parts(self, run: int, key: bytes, result: PartsResult) -> None:
        """Makes durable which parts of a large object are done."""
        with self._errors(), self._transaction():
            self._connection.executemany(
                "INSERT OR REPLACE INTO parts (key, number, etag, checksum, md5)"
                " VALUES (?, ?, ?, ?, ?)",
                [(to_db(key), *part) for part in result.parts],
            )
            self._add_slice(run, None, result, 0, 0, 0, result.sent)

    def commit_upload(self, entry: Entry, upload: Upload | None, tries: int) -> None:
        """Notes the upload that was opened for a large object, in place of any before."""
        with self._errors(), self._transaction():
            self._connection.execute("DELETE FROM parts WHERE key = ?", (to_db(entry.key),))
            self._set_upload(entry, upload, tries)

    def commit_large(self, run: int, outcome: Outcome, deletions: Iterable[Deletion] = ()) -> None:
        """Notes what became of a large object, which is then no longer under way, and what is to
        be removed therefore.
        """
        counts = Counts(failed=1) if outcome.error else Counts(copied=1, copied_bytes=outcome.size)
        with self._errors(), self._transaction():
            for table in ("uploads", "parts"):
                self._connection.execute(
                    f"DELETE FROM {table} WHERE key = ?", (to_db(outcome.key),)
                )
            self._add_outcomes(run, [outcome])
            self._add_deletions(deletions)
            self._count(run, counts)

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
        with self._errors(), self._transaction():
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

    def commit_directories(self, run: int, keys: list[bytes], failures: list[Outcome]) -> None:
        """Notes which directories have their permissions and times."""
        with self._errors(), self._transaction():
            self._connection.executemany(
                "DELETE FROM directories WHERE key = ?", [(to_db(key),) for key in keys]
            )
            self._add_outcomes(run, failures)
            self._count(run, Counts(failed=len(failures)))

    def forget_objects(self) -> None:
        """Forgets what was copied: it is not there."""
        with self._errors(), self._transaction():
            self._connection.execute("DELETE FROM objects")

    def drop_deletions(self) -> None:
        """Forgets what was to be removed."""
        with self._errors(), self._transaction():
            self._connection.execute("DELETE FROM deletions")

    def commit_cut(self, run: int, shard: int, keys: KeyRange, cuts: list[bytes]) -> list[int]:
        """Cuts the open range ``keys`` of a shard; the ids of the pieces, in order."""
        first, *others = keys.cut(cuts)
        with self._errors(), self._transaction():
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
                (to_db(o.key), o.size, _int64(o.mtime_ns), o.etag, o.checksum, run, o.seconds)
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

    def _add_deletions(self, deletions: Iterable[Deletion]) -> None:
        self._connection.executemany(
            "INSERT INTO deletions (key, size, time_ns, etag, at_source, checked, implied)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(to_db(one.key), one.size, _int64(one.time_ns), *one[3:]) for one in deletions],
        )

    def _set_upload(self, entry: Entry, upload: Upload | None, tries: int) -> None:
        self._connection.execute(
            "INSERT OR REPLACE INTO uploads"
            " (key, size, mtime_ns, stored_ns, etag, upload_id, part_size, tries)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                to_db(entry.key),
                entry.size,
                _int64(entry.mtime_ns),
                _int64(entry.stored_ns),
                entry.etag,
                upload.upload_id if upload else "",
                upload.part_size if upload else 0,
                tries,
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
        self._connection.execute(
            "INSERT INTO slices"
            " (run, shard, worker, started, ended, found, copied, failed, bytes)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (run, shard, result.worker, result.started, result.ended, *numbers),
        )

    # What is left to do, and what is known

    def open_shards(self, run: int) -> list[tuple[int, KeyRange]]:
        """The ids and remaining ranges of the shards that are not done."""
        with self._errors():
            rows = self._connection.execute(
                "SELECT id, after, upto, closed, cursor FROM shards"
                " WHERE run = ? AND NOT done ORDER BY CAST(after AS BLOB)",
                (run,),
            ).fetchall()
        found = []
        for id_, after, upto, closed, cursor in rows:
            keys = KeyRange(from_db(after), None if upto is None else from_db(upto), bool(closed))
            found.append((id_, keys if cursor is None else keys.rest(from_db(cursor))))
        return found

    def pending_uploads(self) -> list[PendingUpload]:
        """The large objects that are not done."""
        pending = []
        with self._errors():
            for row in list(self._database.tables.query("SELECT * FROM uploads ORDER BY key")):
                key = from_db(row["key"])
                entry = Entry(key, row["size"], row["mtime_ns"], row["stored_ns"], row["etag"])
                id_, size = row["upload_id"], row["part_size"]
                parts = self._connection.execute(
                    "SELECT number, etag, checksum, md5 FROM parts WHERE key = ? ORDER BY number",
                    (row["key"],),
                ).fetchall()
                pending.append(
                    PendingUpload(
                        entry,
                        Upload(entry, id_, size) if id_ else None,
                        [Part(*part) for part in parts],
                        row["tries"],
                    )
                )
        return pending

    def part_bytes(self) -> int:
        """How much of large objects is done that no run's counts hold yet."""
        with self._errors():
            (size,) = self._connection.execute(
                "SELECT total(min(uploads.part_size, uploads.size)) FROM parts"
                " JOIN uploads USING (key)"
            ).fetchone()
        return int(size)

    def deletions(
        self, at_source: bool, directories: bool, past: int, most: int
    ) -> dict[int, Deletion]:
        """What is to be removed of one side, by id: up to ``most``.

        Files and objects come in the order of ids, from past ``past``; ``directories`` from the
        last key to the first, so that what lies inside comes before what it lies in.
        """
        # A key that is not UTF-8 is a BLOB, which LIKE does not take.
        ends = "ifnull(substr(CAST(key AS BLOB), -1), '') = x'2F'"
        where = ends if directories else f"NOT {ends} AND id > {int(past)}"
        order = "CAST(key AS BLOB) DESC" if directories else "id"
        with self._errors():
            rows = self._connection.execute(
                "SELECT id, key, size, time_ns, etag, at_source, checked, implied FROM deletions"
                f" WHERE at_source = ? AND {where} ORDER BY {order} LIMIT ?",
                (int(at_source), most),
            ).fetchall()
        return {row[0]: Deletion(from_db(row[1]), *row[2:5], *map(bool, row[5:])) for row in rows}

    def directories(self, most: int) -> list[bytes]:
        """Those that are to get permissions and times, up to ``most``, from the last key on."""
        with self._errors():
            rows = self._connection.execute(
                "SELECT key FROM directories ORDER BY key DESC LIMIT ?", (most,)
            ).fetchall()
        return [from_db(key) for (key,) in rows]

    def count_deletions(self, at_source: bool) -> int:
        """How many objects of one side are to be removed; implied directories do not count."""
        with self._errors():
            (count,) = self._connection.execute(
                "SELECT count(*) FROM deletions WHERE at_source = ? AND NOT implied",
                (int(at_source),),
            ).fetchone()
        return int(count)

    def known(
        self, after: bytes, closed: bool, kind: str, most: int
    ) -> list[tuple[bytes, int, int, str | None]]:
        """Key, size, time and ETag of objects that were copied, past ``after``, or past where it
        ceases to be text; ``kind`` of key: ``text`` or ``blob``.
        """
        try:
            past: str | bytes = after.decode() if kind == "text" else after
        except UnicodeDecodeError as exc:
            past = after[: exc.start].decode()
        with self._errors():
            rows = self._connection.execute(
                f"SELECT key, size, mtime_ns, etag FROM objects WHERE typeof(key) = ?"
                f" AND key {'>=' if closed else '>'} ? ORDER BY key LIMIT ?",
                (kind, past, most),
            ).fetchall()
        return [(from_db(key), *rest) for key, *rest in rows]

    def links(self) -> Iterator[bytes]:
        """The links that the last run did not follow, in the order of their keys."""
        with self._errors():
            for (key,) in self._connection.execute(
                "SELECT key FROM links ORDER BY CAST(key AS BLOB)"
            ):
                yield from_db(key)

    def slices(
        self, run: int, most: int = -1
    ) -> list[tuple[float, float, int, int, int, int, int]]:
        """What was committed in a run, in the order of its beginning: started and ended (Unix time,
        seconds), worker, found, copied, failed, bytes.  The last ``most``, or all.
        """
        with self._errors():
            return self._connection.execute(
                "SELECT started, ended, worker, found, copied, failed, bytes FROM"
                " (SELECT * FROM slices WHERE run = ? ORDER BY id DESC LIMIT ?) ORDER BY started",
                (run, most),
            ).fetchall()

    def slices_summed(
        self, run: int, most: int
    ) -> list[tuple[float, float, int, int, int, int, int]]:
        """As :meth:`slices`, but about ``most`` of them: what was committed one after the other is
        one, from the beginning of the first to the end of the last.
        """
        with self._errors():
            return self._connection.execute(
                "SELECT min(started), max(ended), min(worker), sum(found), sum(copied),"
                " sum(failed), sum(bytes) FROM slices WHERE run = ?1 GROUP BY id /"
                " (SELECT (max(id) - min(id)) / ?2 + 1 FROM slices WHERE run = ?1) ORDER BY 1",
                (run, most),
            ).fetchall()

    def shards(self, run: int) -> list[tuple[bytes, bytes | None, bytes | None, bool]]:
        """After, upto, cursor and whether it is done, of all shards of a run, by key."""
        with self._errors():
            rows = self._connection.execute(
                "SELECT after, upto, cursor, done FROM shards WHERE run = ?"
                " ORDER BY CAST(after AS BLOB)",
                (run,),
            ).fetchall()
        return [
            (*(None if key is None else from_db(key) for key in keys), bool(done))  # type: ignore
            for *keys, done in rows
        ]

    def shard_counts(self, run: int) -> dict[str, int]:
        """How many shards of a run are ``done``, ``begun`` and ``waiting``."""
        with self._errors():
            row = self._connection.execute(
                "SELECT total(done), total(NOT done AND cursor IS NOT NULL),"
                " total(NOT done AND cursor IS NULL) FROM shards WHERE run = ?",
                (run,),
            ).fetchone()
        return dict(zip(("done", "begun", "waiting"), map(int, row), strict=True))

    def slowest(self, run: int, most: int) -> list[tuple[bytes, int, float]]:
        """Key, size and seconds of the objects of a run that took the longest to copy."""
        with self._errors():
            rows = self._connection.execute(
                "SELECT key, size, seconds FROM objects WHERE run = ? AND seconds IS NOT NULL"
                " ORDER BY seconds DESC LIMIT ?",
                (run, most),
            ).fetchall()
        return [(from_db(key), size, seconds) for key, size, seconds in rows]

    def failures(self) -> Iterator[Outcome]:
        """What failed and has not been copied since, by key."""
        with self._errors():
            for row in self._connection.execute(
                "SELECT key, size, kind, error FROM failures ORDER BY CAST(key AS BLOB)"
            ):
                yield Outcome(from_db(row[0]), row[1], 0, None, None, row[3], row[2])

    def failures_like(
        self, kind: str, text: str, after: bytes | None, most: int
    ) -> list[tuple[bytes, str, str, int, float]]:
        """Key, kind, error, size and Unix time of failures, by key, past ``after``: up to ``most``.

        Of that ``kind``, and with that ``text`` in the key or the error; '' for any.
        """
        with self._errors():
            rows = self._connection.execute(
                "SELECT key, kind, error, size, at FROM failures"
                " WHERE (?1 = '' OR kind = ?1)"
                " AND (?2 = '' OR instr(CAST(key AS BLOB), CAST(?2 AS BLOB)) OR instr(error, ?2))"
                " AND (?3 IS NULL OR key > ?3) ORDER BY key LIMIT ?4",
                (kind, text, None if after is None else to_db(after), most),
            ).fetchall()
        return [(from_db(key), *rest) for key, *rest in rows]

    def failure_kinds(self, most: int = -1) -> list[tuple[str, int, str]]:
        """Kind, count and one example message of what failed, most frequent first.

        Of ``most`` failures, or of all.
        """
        with self._errors():
            return self._connection.execute(
                "SELECT kind, count(*), min(error) FROM (SELECT * FROM failures LIMIT ?)"
                " GROUP BY kind ORDER BY 2 DESC",
                (most,),
            ).fetchall()


PAGE = 5000
"""Rows read at once, so that no reader holds up the writer's checkpoints for long."""


def known_objects(path: str, keys: KeyRange) -> Iterator[Entry]:
    """What the manifest at ``path`` says was copied, of a range, in the order of keys.

    Entries have the time of their source, as it was then.  It may be written to meanwhile.
    """
    # Among themselves, both are in the order of their bytes.
    yield from merge(_known(path, keys, "text"), _known(path, keys, "blob"))


def _known(path: str, keys: KeyRange, kind: str) -> Iterator[Entry]:
    after, closed = keys.after, keys.closed
    while True:
        with Manifest(Path(path)) as manifest:
            rows = manifest.known(after, closed, kind, PAGE)
        for key, size, time_ns, etag in rows:
            if keys.ends_before(key):
                return
            if key in keys:
                yield Entry(key, size, time_ns, time_ns, etag)
        if len(rows) < PAGE:
            return
        after, closed = rows[-1][0], False


def jobs() -> Iterator[tuple[Path, Manifest | ManifestError]]:
    """Every manifest of the user's state directory, opened in turn, or why it cannot be."""
    for path in sorted(state_directory().glob("*.db")):
        try:
            with Manifest(path) as manifest:
                yield path, manifest
        except ManifestError as exc:
            yield path, exc


def _run(row: dict[str, Any]) -> Run:
    counts = Counts(*(row[name] for name in Counts._fields))
    state = row["state"]
    return Run(
        row["id"], row["kind"], state, row["started"], row["ended"], row["resumed"], counts,
        row["message"], row["manner"] or "",
    )  # fmt: skip


def _int64(number: int | None) -> int | None:
    """The nearest that SQLite can hold: 64 bits of nanoseconds end in 1677 and in 2262."""
    return None if number is None else max(-(2**63), min(number, 2**63 - 1))
