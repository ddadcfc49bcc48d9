"""A SQLite file with one writer: opened, locked, brought up to date, its errors made ours."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from adsmig import failpoint
from adsmig.errors import DamagedManifest, ManifestError, ManifestInUse, StorageFull
from adsmig.lock import Lock
from adsmig.schema import MANIFEST, Schema

log = logging.getLogger(__name__)

ALONE_TRIES = 50
"""A tenth of a second each: to make the tables takes far less."""
SMALL = 32 << 20
"""Bytes; a file up to this is looked through in less than a second."""
VITAL = ("job", "runs", "shards", "uploads", "parts")
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
ROOM = 64 << 10
"""Bytes; twice what SQLite's index of its log grows by."""
DAMAGE = ("malformed", "not a database", "Could not decode", "no such table", "no such column")
"""What SQLite says of a damaged file."""
UNWRITABLE = ("unable to open", "readonly")


class Database:
    """An open manifest's file, or that of another ``schema``.  Close it.

    Raises DamagedManifest for a file that is torn, overwritten or empty (ManifestError if it is no
    manifest's), ManifestError for one of a newer schema or of something else, StorageFull when its
    file system is.  ``path`` None: in memory, forgotten at the end.
    """

    def __init__(
        self, path: Path | None, *, create: bool = False, schema: Schema = MANIFEST
    ) -> None:
        self.path = path
        self._schema = schema
        self._name = f"the {schema.name}"
        self._lock: Lock | None = None
        self.checkpoints = 0
        """How many were committed, if this process committed any."""
        if path and not path.exists():
            if Path(f"{path}-wal").exists():
                raise self._damaged(f"it is gone, but {path}-wal is there")
            if not create:
                raise ManifestError(f"no {schema.name} at {path}")
            self._make(path)
        if path and path.is_file() and not path.stat().st_size:
            raise self._damaged("it is empty")
        if path and create:
            _keep_others_from_writing(path, self._name)
        self._open(path)
        with self.errors():
            if not path:
                self._make_tables()
            version = self._pragma("user_version")
            if version > schema.version:
                raise ManifestError(
                    f"{path} was written by a newer adsmig (schema {version}, this one knows"
                    f" {schema.version}): upgrade adsmig{self._or(', or name another --manifest')}"
                )
            current = schema.version, schema.application
            if (version, self._pragma("application_id")) != current:
                self._bring_up_to_date()
            self.connection.execute("PRAGMA synchronous=FULL")
            self.connection.execute("PRAGMA busy_timeout=10000")

    def _open(self, path: Path | None) -> None:
        with self.errors():
            self.connection = sqlite3.connect(
                path or ":memory:", isolation_level=None, check_same_thread=False
            )

    def _make(self, path: Path) -> None:
        """Makes a new one beside its place, so that there is never one without its tables."""
        new = Path(f"{path}.new")
        try:
            for one in (*reversed(path.parent.parents), path.parent):
                if not one.exists():
                    one.mkdir(mode=0o700, exist_ok=True)
            with self._alone():
                if path.exists():
                    return
                flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
                os.close(os.open(new, flags, 0o600))
                self._open(new)
                try:
                    with self.errors():
                        # It is nothing before it has its name: to flush it once is enough.
                        self.connection.execute("PRAGMA synchronous=OFF")
                        self._make_tables()
                        self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                finally:
                    self.connection.close()
                _flush(new)
                assert self._lock
                self._lock.note(0)
                os.rename(new, path)
                _flush(path.parent)
        except OSError as exc:
            if exc.errno in NO_ROOM:
                raise self._full(str(exc.strerror)) from exc
            raise ManifestError(f"cannot write {self._name} {path}: {exc.strerror}") from exc

    def _pragma(self, name: str) -> int:
        value: int = self.connection.execute(f"PRAGMA {name}").fetchone()[0]
        return value

    def check(self, lock: Lock | None = None, *, thoroughly: bool = False) -> None:
        """Raises DamagedManifest if the manifest is; of a large one, the tables are looked at that
        tell what is left to do, unless ``thoroughly``.  ``lock``: if this does not hold it.
        """
        lock = lock or self._lock
        if not self.path or not lock:
            return
        small = self.path.stat().st_size <= SMALL
        names = ("",) if small or thoroughly else tuple(f"('{name}')" for name in VITAL)
        with self.errors():
            for name in names:
                (found,) = self.connection.execute(f"PRAGMA quick_check{name}").fetchone()
                if found != "ok":
                    raise DamagedManifest(self.path, " ".join(found.split())[:100])
            (last,) = self.connection.execute("SELECT ifnull(max(id), 0) FROM slices").fetchone()
        if lock.noted > last:
            raise DamagedManifest(
                self.path,
                f"its last {lock.noted - last} checkpoints are missing, because {self.path}-wal was"
                " removed or it is an older copy",
            )

    def _bring_up_to_date(self) -> None:
        """Makes the tables, columns and indexes that are not there yet."""
        with self._alone():
            there = self._tables()
            if not there:
                raise self._damaged("it has no tables")
            version = self._pragma("user_version")
            if not (0 < version <= self._schema.version and there >= self._schema.first):
                raise ManifestError(f"{self.path} is a database of something else than adsmig")
            self._make_tables()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keeps others from doing the same: SQLite has no patience with who changes the journal.

        Raises ManifestInUse if a run of an older adsmig has the manifest.
        """
        if not self.path:
            yield
            return
        for left in reversed(range(ALONE_TRIES)):
            try:
                self.lock()
                break
            except ManifestInUse:
                if not left:
                    raise
                time.sleep(0.1)
        try:
            yield
        finally:
            self._unlock()

    def _make_tables(self) -> None:
        there = self._tables()
        self.connection.execute("PRAGMA journal_mode=WAL")
        with self.transaction() as execute:
            for name in self._schema.tables:
                if name in there:
                    self._add_columns(name)
                else:
                    execute(self._schema.creation(name))
            for name, on in self._schema.indexes:
                execute(f"CREATE INDEX IF NOT EXISTS {name} ON {on}")
            execute(f"PRAGMA application_id={self._schema.application}")
            execute(f"PRAGMA user_version={self._schema.version}")

    def _tables(self) -> set[str]:
        rows = self.connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        return {name for (name,) in rows}

    def _add_columns(self, name: str) -> None:
        """Those that a table of an older schema lacks."""
        from sqlite_utils import Database as Tables  # 60 ms, which who makes a new file is spared

        table = Tables(self.connection, execute_plugins=False).table(name)
        columns, _ = self._schema.tables[name]
        for column in columns.keys() - table.columns_dict.keys():
            kind = columns[column]
            table.add_column(column, kind, not_null_default=0 if kind is int else None)

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """What a query finds, by the names of the columns."""
        cursor = self.connection.execute(query, values)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    def __repr__(self) -> str:
        return f"Database({self.path})"

    def close(self) -> None:
        """Closes the file and lets go of the lock."""
        with contextlib.suppress(sqlite3.Error):
            self.connection.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock:
            self._lock.close()
            self._lock = None

    def lock(self) -> None:
        """Takes the manifest for this process, until it is closed or the process ends.

        Raises ManifestInUse naming who holds it.
        """
        if self.path:
            self._lock = Lock(self.path, self._name)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Any]:
        """All or nothing; gives the connection's ``execute``."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield self.connection.execute
            failpoint.reach("commit.before")
            self.connection.execute("COMMIT")
        except BaseException:
            self.checkpoints = 0
            with contextlib.suppress(sqlite3.Error):
                self.connection.execute("ROLLBACK")
            raise
        failpoint.reach("commit.after")
        if self._lock and self.checkpoints > self._lock.noted:
            self._lock.note(self.checkpoints)

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Makes SQLite's errors ours."""
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as exc:
            text = " ".join(repr(str(exc))[1:-1].split())[:200]
            if "full" in text or ("disk I/O" in text and not self._has_room()):
                raise self._full(text) from exc
            if isinstance(exc, UnicodeDecodeError) or any(sign in text for sign in DAMAGE):
                raise self._damaged(text) from exc
            if any(sign in text for sign in UNWRITABLE):
                raise ManifestError(
                    f"cannot write {self._name} {self.path} ({text}), as is needed to read it, too:"
                    f" allow it{self._or(', or copy the manifest elsewhere')}"
                ) from exc
            raise ManifestError(f"{self._name} {self.path} cannot be used: {text}") from exc

    def _damaged(self, why: str) -> ManifestError:
        if self._schema is MANIFEST:
            return DamagedManifest(self.path, why)
        return ManifestError(
            f"{self._name} {self.path} cannot be used ({why}): restore it, or move it away, and its"
            " -wal, and begin anew"
        )

    def _full(self, text: str) -> StorageFull:
        return StorageFull(f"no room for {self._name} {self.path} ({text}); free some room")

    def _or(self, advice: str) -> str:
        """What else can be done about a manifest, which may be anywhere."""
        return advice if self._schema is MANIFEST else ""

    def _has_room(self) -> bool:
        """Whether a file can be written beside it: about its own index of the log, SQLite does not
        tell a disk that is full, or a quota that is used up, from one that is broken.
        """
        probe = f"{self.path}.room"
        try:
            with open(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600), "wb") as file:
                file.write(bytes(ROOM))
                file.flush()
                os.fsync(file.fileno())
        except OSError as exc:
            return exc.errno not in NO_ROOM
        finally:
            with contextlib.suppress(OSError):
                os.unlink(probe)
        return True


def _keep_others_from_writing(path: Path, name: str) -> None:
    """Who can write to a manifest says where data and credentials go; to schedules, what runs.
    To let others read it is the user's own choice.
    """
    mode = path.stat().st_mode
    if mode & 0o022:
        with contextlib.suppress(OSError):
            path.chmod(mode & 0o755)
        log.warning("others could write to %s %s; see who did", name, path)


def _flush(path: Path) -> None:
    """Returns when a file, or the names in a directory, are on stable storage.  Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
