"""A SQLite file with one writer: opened, locked, brought up to date, its errors made ours."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from adsmig.errors import ManifestError, StorageFull
from adsmig.schema import APPLICATION, SCHEMA, VERSION

ALONE_TRIES = 50
"""A tenth of a second each: to make the tables takes far less."""


class Database:
    """An open manifest's file.  Close it.

    Raises ManifestError for a file that is damaged, of a newer schema, or no manifest; StorageFull
    when its file system is.  ``path`` None: in memory, forgotten at the end.
    """

    def __init__(self, path: Path | None, *, create: bool = False) -> None:
        self.path = path
        self._lock_file: IO[str] | None = None
        if path and create:
            self._make_file(path)
        elif path and not path.exists():
            raise ManifestError(f"no manifest at {path}")
        with self.errors():
            self.connection = sqlite3.connect(
                path or ":memory:", isolation_level=None, check_same_thread=False
            )
            self.tables = _sqlite_utils().Database(self.connection, execute_plugins=False)
            version = self._pragma("user_version")
            if path and not create and not version and not self.tables.table_names():
                # Whoever makes it does not want anybody else to have the lock meanwhile.
                raise ManifestError(f"{path} is empty: its job is just being started, or never was")
            if version > VERSION:
                raise ManifestError(
                    f"{path} was written by a newer adsmig (schema {version}, this one knows"
                    f" {VERSION}): upgrade adsmig, or name another --manifest"
                )
            if version != VERSION or self._pragma("application_id") != APPLICATION:
                self._bring_up_to_date()
            self.connection.execute("PRAGMA synchronous=FULL")
            self.connection.execute("PRAGMA busy_timeout=10000")

    def _make_file(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as exc:
            raise ManifestError(f"cannot write the manifest {path}: {exc.strerror}") from exc

    def _pragma(self, name: str) -> int:
        value: int = self.connection.execute(f"PRAGMA {name}").fetchone()[0]
        return value

    def _bring_up_to_date(self) -> None:
        """Makes the tables and columns that are not there yet."""
        with self._alone():
            self._make_tables(self._pragma("user_version"))

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keeps others from doing the same: SQLite has no patience with who changes the journal.

        Raises ManifestError if a run of an older adsmig has the manifest.
        """
        if not self.path:
            yield
            return
        for left in reversed(range(ALONE_TRIES)):
            try:
                self.lock()
                break
            except ManifestError:
                if not left:
                    raise
                time.sleep(0.1)
        try:
            yield
        finally:
            self._unlock()

    def _make_tables(self, version: int) -> None:
        there = set(self.tables.table_names())
        ours = 0 < version <= VERSION and there >= {"job", "runs", "shards", "objects"}
        if there and not ours:
            raise ManifestError(f"{self.path} is a database of something else than adsmig")
        self.connection.execute("PRAGMA journal_mode=WAL")
        with self.transaction():
            for name, (columns, key) in SCHEMA.items():
                table = self.tables.table(name)
                if name not in there:
                    table.create(columns, pk=key)
                    continue
                for column in columns.keys() - table.columns_dict.keys():
                    kind = columns[column]
                    table.add_column(column, kind, not_null_default=0 if kind is int else None)
            self.connection.execute(f"PRAGMA application_id={APPLICATION}")
            self.connection.execute(f"PRAGMA user_version={VERSION}")

    def __repr__(self) -> str:
        return f"Database({self.path})"

    def close(self) -> None:
        """Closes the file and lets go of the lock."""
        with contextlib.suppress(sqlite3.Error):
            self.connection.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock_file:
            self._lock_file.close()
            self._lock_file = None

    def lock(self) -> None:
        """Takes the manifest for this process, until it is closed or the process ends.

        Raises ManifestError naming who holds it.  A file beside the manifest is locked, with
        flock, which a dead process cannot keep.
        """
        if not self.path:
            return
        try:
            file = open(f"{self.path}.lock", "a+", opener=_private)  # noqa: SIM115
        except OSError as exc:
            raise ManifestError(f"cannot lock the manifest {self.path}: {exc.strerror}") from exc
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            file.seek(0)
            holder = file.read(200).strip() or "another process"
            file.close()
            raise ManifestError(
                f"{self.path} is in use by {holder}; wait for it, or end it"
            ) from exc
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime())
        file.truncate(0)
        file.write(f"process {os.getpid()} on {os.uname().nodename} since {since}\n")
        file.flush()
        self._lock_file = file

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Any]:
        """All or nothing; gives the connection's ``execute``."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield self.connection.execute
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Makes SQLite's errors ours."""
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as exc:
            text = " ".join(repr(str(exc))[1:-1].split())[:200]
            if "full" in text or "disk I/O" in text:
                raise StorageFull(
                    f"no room for the manifest {self.path} ({text}); free some room"
                ) from exc
            raise ManifestError(
                f"the manifest {self.path} cannot be used ({text}): if it is damaged, restore it"
                " or move it away and start the job anew"
            ) from exc


def holder(path: Path) -> int | None:
    """The process of this machine that has the manifest at ``path`` locked, if one has.

    It takes no lock itself, which a job that is just being started would run into.
    """
    lock = f"{path}.lock"
    try:
        with open(lock, encoding="utf-8") as file:
            match = re.match(r"process (\d+) on (\S+) since ", file.read(200))
            there = os.fstat(file.fileno())
        if not match or match[2] != os.uname().nodename:
            return None
        # The line stays when the process ends, and its number may be another's by now.
        for name in os.listdir(f"/proc/{match[1]}/fd"):
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.stat(f"/proc/{match[1]}/fd/{name}"), there):
                    return int(match[1])
    except OSError:
        pass
    return None


def _sqlite_utils() -> Any:
    """The module.  It would import NumPy where that is installed, to know its types: 60 ms."""
    if "sqlite_utils" in sys.modules or "numpy" in sys.modules:
        import sqlite_utils
    else:
        sys.modules["numpy"] = None  # type: ignore[assignment]
        try:
            import sqlite_utils
        finally:
            del sys.modules["numpy"]
    return sqlite_utils


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
