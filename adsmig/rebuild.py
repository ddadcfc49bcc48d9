"""A manifest that was lost: it is set aside, and what can still be read in it is taken over."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from itertools import starmap
from pathlib import Path
from typing import Any

from adsmig.database import Database
from adsmig.errors import DamagedManifest, ManifestError
from adsmig.job import Job
from adsmig.lock import Lock
from adsmig.model import Outcome


def set_aside(path: Path) -> tuple[Path, str] | None:
    """Renames a manifest that is damaged, with what belongs to it; its new name, and what is wrong
    with it.  None if it is sound, or there is none.

    Raises ManifestError for one that is in use, of a newer adsmig, or of something else.
    """
    files = [Path(f"{path}{end}") for end in ("", "-wal", "-shm")]
    if not any(file.exists() for file in files):
        return None
    why = None
    database = None
    try:
        database = Database(path)
    except DamagedManifest as exc:
        why = exc
    lock = Lock(path)
    try:
        if database:
            why = _damage(database, lock)
        if not why:
            return None
        aside = Path(f"{path}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
        for file in files:
            with contextlib.suppress(FileNotFoundError):
                os.rename(file, f"{aside}{str(file)[len(str(path)) :]}")
        lock.note(0)
        return aside, str(why)
    finally:
        lock.close()


def _damage(database: Database, lock: Lock) -> DamagedManifest | None:
    """What is wrong with one that could be opened; closes it."""
    try:
        database.check(lock, thoroughly=True)
        with database.errors():
            row = database.connection.execute("SELECT job FROM job").fetchone()
    except DamagedManifest as exc:
        return exc
    finally:
        database.close()
    try:
        if row:
            Job.from_json(row[0])
    except ManifestError:
        return DamagedManifest(database.path, "it holds no job that can be read")
    return None


def salvage(path: Path) -> Iterator[Outcome]:
    """What a damaged manifest still says was copied: all that can be read from its beginning on up
    to the damage, and from its end on back to it.
    """
    for order in ("ASC", "DESC"):
        try:
            connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        except sqlite3.Error:
            return
        connection.text_factory = bytes  # it may no longer be text
        try:
            # Without this, nothing can be read of a file that is shorter than it says.
            connection.execute("PRAGMA writable_schema = ON")
            by = _order(connection)
            yield from filter(
                None,
                starmap(
                    _outcome,
                    connection.execute(
                        "SELECT key, size, mtime_ns, etag, checksum, seconds FROM objects"
                        f" WHERE checksum IS NOT NULL ORDER BY {by} {order}"
                    ),
                ),
            )
            return
        except sqlite3.Error:
            continue
        finally:
            connection.close()


def _order(connection: sqlite3.Connection) -> str:
    """The column in whose order the objects lie in the file: another order would need an index,
    which may be damaged otherwise than the table.
    """
    try:
        connection.execute("SELECT rowid FROM objects LIMIT 0")
    except sqlite3.OperationalError:
        return "key"
    return "rowid"  # which only tables of earlier versions have


def _outcome(
    key: Any, size: Any, time_ns: Any, etag: Any, checksum: Any, seconds: Any
) -> Outcome | None:
    """A row as it was written; None for what cannot be one: copying takes time, so that the last
    value of a row that was torn off, and is zeros from there on, tells.
    """
    numbers = isinstance(size, int) and isinstance(time_ns, int) and isinstance(seconds, float)
    if not (numbers and isinstance(key, bytes) and isinstance(etag, bytes | None) and seconds > 0):
        return None
    try:
        texts = None if etag is None else etag.decode(), checksum.decode()
    except (AttributeError, UnicodeDecodeError):
        return None
    return Outcome(key, size, time_ns, *texts, seconds=seconds)
