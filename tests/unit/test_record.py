"""What is to be put on record of what was found equal, and what can still be read of it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from adsmig.comparison import time_of
from adsmig.manifest import Manifest
from adsmig.model import Counts, Entry, KeyRange, Outcome, SliceResult
from adsmig.rebuild import salvage
from adsmig.record import known_objects, to_be_known
from adsmig.schema import SCHEMA, to_db

TIMES = st.none() | st.integers(-(2**70), 2**70)
ENTRIES = st.builds(
    Entry,
    st.binary(min_size=1, max_size=9),
    st.integers(0, 2**50),
    TIMES,
    st.integers(-(2**70), 2**70),
    st.none() | st.just("etag"),
)


@given(st.lists(ENTRIES))
@example([Entry(b"a", 1, None, 5, "e"), Entry(b"\xff", 2, None, 6)])
@example([Entry(b"a", 1, 7, 5), Entry(b"b", 2, None, 6)])
@example([Entry(b"a", 1, 0, 5), Entry(b"b", 2, 2**63, 6)])
def test_columns_of_many_hold_what_is_known_of_each(entries: list[Entry]) -> None:
    def nearest(time_ns: int) -> int:
        return max(-(2**63), min(time_ns, 2**63 - 1))

    assert list(zip(*to_be_known(entries, []), strict=True)) == [
        (to_db(one.key), one.size, nearest(time_of(one)), one.etag) for one in entries
    ]


def test_what_was_read_comes_after_what_was_listed() -> None:
    read = [Outcome(b"\xfe", 3, 2**63, None, "xxh3:00"), Outcome(b"c", 4, 9, "etag", None)]
    assert list(zip(*to_be_known([Entry(b"a", 1, 2, 3)], read), strict=True)) == [
        ("a", 1, 2, None),
        (b"\xfe", 3, 2**63 - 1, None),
        ("c", 4, 9, "etag"),
    ]


def filled(path: Path, count: int, with_rowid: bool) -> list[bytes]:
    """A manifest at ``path`` with so many objects, and their keys."""
    keys = [b"%06d-%s" % (number, b"x" * 60) for number in range(count)]
    with Manifest(path, create=True) as manifest:
        if with_rowid:  # as those of earlier versions
            columns = ", ".join(SCHEMA["objects"][0])
            manifest._connection.execute("DROP TABLE objects")
            manifest._connection.execute(f"CREATE TABLE objects ({columns}, PRIMARY KEY (key))")
        run = manifest.begin_run("cp", [KeyRange()])
        outcomes = [Outcome(key, 1, 2, "etag", "xxh3:00", seconds=0.1) for key in keys]
        manifest.commit_slice(run.id, 1, SliceResult(keys[-1], True, Counts(), outcomes))
    return keys


@pytest.mark.parametrize("with_rowid", [False, True])
def test_a_manifest_made_with_or_without_rowids_is_read_and_written_alike(
    tmp_path: Path, with_rowid: bool
) -> None:
    path = tmp_path / "m.db"
    keys = filled(path, 100, with_rowid)
    with Manifest(path) as manifest:
        equal = to_be_known([Entry(keys[0], 1, 2, 2, "etag"), Entry(b"new", 5, 6, 6)], [])
        result = SliceResult(keys[0], True, Counts(), [], equal=equal)
        manifest.commit_slice(1, 1, result)
    assert list(known_objects(str(path), KeyRange())) == [
        *(Entry(key, 1, 2, 2, "etag") for key in keys),
        Entry(b"new", 5, 6, 6),
    ]


@pytest.mark.parametrize("with_rowid", [False, True])
def test_what_lies_before_and_after_a_damage_is_saved(tmp_path: Path, with_rowid: bool) -> None:
    path = tmp_path / "m.db"
    keys = filled(path, 5000, with_rowid)
    assert {one.key for one in salvage(path)} == set(keys)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    content = bytearray(path.read_bytes())
    # The page that one of the middle lies in, and which holds no other than such.
    page = content.index(keys[2500]) // 4096 * 4096
    content[page : page + 4096] = b"\xa5" * 4096
    path.write_bytes(content)
    saved = {one.key for one in salvage(path)}
    assert set(keys[:2400]) | set(keys[2600:]) <= saved <= set(keys)
    assert keys[2500] not in saved
