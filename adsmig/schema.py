"""The tables of a manifest, and how keys and numbers are kept in them.

Keys are TEXT, which SQLite compares by their bytes; a key that is not UTF-8 is a BLOB.
sqlite-utils, Datasette and the sqlite3 shell open it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from adsmig.model import Counts


class Schema(NamedTuple):
    """What a database of ours looks like."""

    name: str
    """What errors call it."""
    application: int
    """Kept as PRAGMA application_id, by which ``file`` and others tell databases apart."""
    version: int
    """Kept as PRAGMA user_version."""
    first: frozenset[str]
    """The tables that its first version had: those of an older one tell that it is ours."""
    tables: dict[str, tuple[dict[str, Any], Any]]
    """For each table its columns and its key, one column or several."""
    by_key: frozenset[str] = frozenset()
    """The tables that are kept in the order of their keys, instead of beside an index of them
    (sqlite.org/withoutrowid.html): smaller by a fifth, or by a third where keys are long, and a
    fifth sooner written.  Those that were made otherwise stay as they are, and do as well.
    """
    indexes: tuple[tuple[str, str], ...] = ()
    """Names, and what each is on."""

    def creation(self, name: str) -> str:
        """The statement that makes a table."""
        columns, key = self.tables[name]
        keys = key if isinstance(key, tuple) else (key,)
        lines = [f"{column} {_TYPES[kind]}" for column, kind in columns.items()]
        lines.append(f"PRIMARY KEY ({', '.join(keys)})")
        how = " WITHOUT ROWID" if name in self.by_key else ""
        return f"CREATE TABLE {name} ({', '.join(lines)}){how}"


LEAST, MOST = -(2**63), 2**63 - 1
"""The numbers that SQLite can hold."""
_TYPES = {int: "INTEGER", float: "REAL", str: "TEXT"}


VERSION = 5
APPLICATION = 0x41445331
"""``ADS1``."""

SCHEMA: dict[str, tuple[dict[str, Any], Any]] = {
    # One row: what this manifest is about.  `job` is JSON, without secrets.
    "job": (
        {"id": str, "command": str, "src": str, "dst": str, "job": str, "created": float},
        "id",
    ),
    # Every time the job was run from the beginning; a resumed run keeps its row.
    # state: running (or killed), stopped (resumable), refused (it would have removed too much),
    # finished, cancelled.  kind: cp, sync, rm, verify, retry.  manner: the options that it was
    # begun with.
    # places: what tells whether the directories that it is about are still the same.
    "runs": (
        {
            "id": int,
            "kind": str,
            "state": str,
            "started": float,
            "ended": float,
            "resumed": int,
            **dict.fromkeys(Counts._fields, int),
            "message": str,
            "manner": str,
            "places": str,
        },
        "id",
    ),
    # The ranges (after, upto] of a run's keys; settled up to and including cursor.
    "shards": (
        {
            "id": int,
            "run": int,
            "after": str,
            "upto": str,
            "closed": int,
            "cursor": str,
            "done": int,
        },
        "id",
    ),
    # What was committed when, by which worker (a process id): a slice of a shard, or parts of a
    # large object.  Unix time, seconds.
    "slices": (
        {
            "id": int,
            "run": int,
            "shard": int,
            "worker": int,
            "started": float,
            "ended": float,
            "found": int,
            "copied": int,
            "failed": int,
            "bytes": int,
        },
        "id",
    ),
    # Large objects under way.  upload_id is empty until the destination has opened one.  vouched,
    # crc32: as in model.Upload.
    "uploads": (
        {
            "key": str,
            "size": int,
            "mtime_ns": int,
            "stored_ns": int,
            "etag": str,
            "upload_id": str,
            "part_size": int,
            "tries": int,
            "vouched": str,
            "crc32": str,
        },
        "key",
    ),
    "parts": (
        {"key": str, "number": int, "etag": str, "checksum": str, "md5": str, "crc32": str},
        ("key", "number"),
    ),
    # What could not be copied, and has not been since.
    "failures": (
        {"key": str, "run": int, "kind": str, "error": str, "size": int, "at": float},
        "key",
    ),
    # Every object copied, or found equal, as its source was then.  checksum: xxh3:HEX, of a large
    # object xxh3:HEX-PARTSxSIZE (the hash of its parts' hashes), NULL after a server-side copy and
    # where nothing was copied.  seconds: how long it took to copy, NULL where nothing was.
    "objects": (
        {
            "key": str,
            "size": int,
            "mtime_ns": int,
            "etag": str,
            "checksum": str,
            "run": int,
            "seconds": float,
        },
        "key",
    ),
    # What the current run has yet to remove.
    "deletions": (
        {
            "id": int,
            "key": str,
            "size": int,
            "time_ns": int,
            "etag": str,
            "at_source": int,
            "checked": int,
            "implied": int,
        },
        "id",
    ),
    # Directories that are to get the permissions and times of their sources, once all is in them.
    "directories": ({"key": str}, "key"),
    # Symbolic links to directories that the last run did not follow.
    "links": ({"key": str}, "key"),
}

# A key that is not UTF-8 is a BLOB, which LIKE does not take.
IS_DIRECTORY = "ifnull(substr(CAST(key AS BLOB), -1), '') = x'2F'"
"""Of a row with a key."""

MANIFEST = Schema(
    "manifest",
    APPLICATION,
    VERSION,
    frozenset({"job", "runs", "shards", "objects"}),
    SCHEMA,
    frozenset({"objects"}),
    (  # as Ledger.deletions asks
        ("deletions_of_files", f"deletions (at_source) WHERE NOT {IS_DIRECTORY}"),
        (
            "deletions_of_directories",
            f"deletions (at_source, CAST(key AS BLOB)) WHERE {IS_DIRECTORY}",
        ),
    ),
)


def to_db(key: bytes) -> str | bytes:
    """A key as SQLite keeps it."""
    try:
        return key.decode()
    except UnicodeDecodeError:
        return key


def keys_to_db(keys: Sequence[bytes]) -> Sequence[str | bytes]:
    """Many as SQLite keeps them: decoded all in one, but where one is no text, or has a NUL."""
    try:
        texts = b"\0".join(keys).decode().split("\0")
    except UnicodeDecodeError:
        texts = []
    return texts if len(texts) == len(keys) else list(map(to_db, keys))


def from_db(value: str | bytes) -> bytes:
    """The key that :func:`to_db` put away."""
    return value.encode() if isinstance(value, str) else value


def number_to_db(number: int | None) -> int | None:
    """The nearest that SQLite can hold: 64 bits of nanoseconds end in 1677 and in 2262."""
    return None if number is None else max(LEAST, min(number, MOST))


def numbers_to_db(numbers: Sequence[int]) -> Sequence[int]:
    """The same of many, at least one."""
    if min(numbers) >= LEAST and max(numbers) <= MOST:
        return numbers
    return [max(LEAST, min(number, MOST)) for number in numbers]
