"""What a manifest says: of its job and runs, of what is left to do, of what was copied and failed.

It can be read by anybody at any time; see :mod:`adsmig.schema` for its tables.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from adsmig.database import Database
from adsmig.errors import ManifestError
from adsmig.job import Job
from adsmig.lock import holder
from adsmig.model import Counts, Deletion, Entry, KeyRange, Outcome, Part, Upload
from adsmig.room import Patience, impatient, patiently
from adsmig.schema import IS_DIRECTORY, from_db, to_db

S = TypeVar("S", bound="Ledger")

_KEY = "CAST(key AS BLOB)"  # as schema.from_db has it

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


class Ledger:
    """An open manifest, to be read.  Close it, or use it in a ``with``; see :class:`Database` for
    what it raises.
    """

    def __init__(
        self, path: Path | None, *, create: bool = False, patience: Patience = impatient
    ) -> None:
        """``path`` None: in memory, forgotten at the end, as a dry run needs it.

        ``patience`` waits for room, to open it and to commit.
        """
        if create and path and path.parent == state_directory():
            _close(path.parent)
        self._database = patiently(lambda: Database(path, create=create), patience)
        self._connection, self._errors = self._database.connection, self._database.errors
        self.path, self.patience = path, patience
        self.close = self._database.close

    def __enter__(self: S) -> S:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path})"

    def job_json(self) -> str | None:
        """The job that the manifest is about, for Job.from_json; None in a new manifest."""
        with self._errors():
            row = self._connection.execute("SELECT job FROM job").fetchone()
        return row[0] if row else None

    def runs(self) -> list[Run]:
        """All runs, oldest first."""
        with self._errors():
            rows = self._database.rows("SELECT * FROM runs ORDER BY id")
            return [_run(row) for row in rows]

    def runs_seen(self) -> tuple[list[Run], int | None]:
        """All runs, as who looks on is told of them, and the process that has the manifest, if any.

        A run on record as ``running`` that nobody is at work on is ``interrupted``: its process was
        killed, and could not note that.
        """
        pid = holder(self.path) if self.path else None  # first, for a run may end meanwhile
        runs = self.runs()
        live = runs[-1].id if runs and pid is not None else None
        return [
            run._replace(state="interrupted") if run.state == "running" and run.id != live else run
            for run in runs
        ], pid

    def unfinished_run(self) -> Run | None:
        """The last run, if it has not come to its end."""
        runs = self.runs()
        return runs[-1] if runs and runs[-1].state in ("running", "stopped") else None

    def places(self, run: int | None = None) -> Places | None:
        """What the directories of a run were known by, or, by default, of the last run of which
        that is known; None if it is of none.
        """
        # One that was refused has looked at them, and no more.
        known = "places IS NOT NULL AND state != 'refused'"
        return self._places(known if run is None else f"id = {int(run)}")

    def places_of_last(self) -> Places | None:
        """What they were known by in the last run that came to its end; None if nobody knows."""
        return self._places("places IS NOT NULL AND state = 'finished'")

    def _places(self, which: str) -> Places | None:
        with self._errors():
            row = self._connection.execute(
                f"SELECT places FROM runs WHERE {which} ORDER BY id DESC LIMIT 1"
            ).fetchone()
        if not row or not row[0]:
            return None
        src, dst = (None if one is None else tuple(one) for one in json.loads(row[0]))
        return src, dst

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
            for row in self._database.rows("SELECT * FROM uploads ORDER BY key"):
                key = from_db(row["key"])
                entry = Entry(key, row["size"], row["mtime_ns"], row["stored_ns"], row["etag"])
                id_, size = row["upload_id"], row["part_size"]
                vouched, crc32 = row["vouched"] or "", row["crc32"]
                parts = self._connection.execute(
                    "SELECT number, etag, checksum, md5, crc32 FROM parts"
                    " WHERE key = ? ORDER BY number",
                    (row["key"],),
                ).fetchall()
                pending.append(
                    PendingUpload(
                        entry,
                        Upload(entry, id_, size, vouched, crc32) if id_ else None,
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
        where = IS_DIRECTORY if directories else f"NOT {IS_DIRECTORY} AND id > {int(past)}"
        order = f"{_KEY} DESC" if directories else "id"
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
        return self._page(f"{_KEY}, size, mtime_ns, etag", "objects", after, closed, kind, most)

    def known_checksums(
        self, after: bytes, closed: bool, kind: str, most: int
    ) -> list[tuple[bytes, int, int, str | None]]:
        """As :meth:`known`, with checksums for ETags."""
        return self._page(f"{_KEY}, size, mtime_ns, checksum", "objects", after, closed, kind, most)

    def failed(self, after: bytes, closed: bool, kind: str, most: int) -> list[tuple[bytes, str]]:
        """Key and kind of failure of what has not been copied since; as :meth:`known`."""
        return self._page(f"{_KEY}, kind", "failures", after, closed, kind, most)

    def _page(
        self, columns: str, table: str, after: bytes, closed: bool, kind: str, most: int
    ) -> list[tuple[Any, ...]]:
        try:
            past: str | bytes = after.decode() if kind == "text" else after
        except UnicodeDecodeError as exc:
            past = after[: exc.start].decode()
        with self._errors():
            return self._connection.execute(
                f"SELECT {columns} FROM {table} WHERE typeof(key) = ?"
                f" AND key {'>=' if closed else '>'} ? ORDER BY key LIMIT ?",
                (kind, past, most),
            ).fetchall()

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

    def failures(self, before: int | None = None) -> Iterator[Outcome]:
        """What failed and has not been copied since, by key; in runs ``before`` that, if given."""
        with self._errors():
            for row in self._connection.execute(
                "SELECT key, size, kind, error FROM failures WHERE ?1 IS NULL OR run < ?1"
                " ORDER BY CAST(key AS BLOB)",
                (before,),
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

    def failure_reasons(self, kind: str, most: int) -> list[tuple[str, int]]:
        """Message and count of what failed of a kind, most frequent first: up to ``most``."""
        with self._errors():
            return self._connection.execute(
                "SELECT error, count(*) FROM failures WHERE kind = ?"
                " GROUP BY error ORDER BY 2 DESC, 1 LIMIT ?",
                (kind, most),
            ).fetchall()


def jobs() -> Iterator[tuple[Path, Ledger | ManifestError]]:
    """Every manifest of the user's state directory, opened in turn, or why it cannot be."""
    for path in sorted(state_directory().glob("*.db")):
        try:
            with Ledger(path) as manifest:
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


def _close(directory: Path) -> None:
    """Makes the state directory, if it is there, and the one above it the user's alone."""
    for one in (directory.parent, directory):
        with contextlib.suppress(OSError):
            one.chmod(0o700)
