"""The coordinator with simulated workers, and the measuring of many keys, in small."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from adsmig.model import KeyRange
from scripts import scale
from scripts.simulate import Setup, Skewed, Workers, simulate

SMALL = Setup(keys=300_000, workers=40, prefixes=500, speed=2_000)


def test_ranks_and_keys_are_the_same_in_two_forms() -> None:
    keys = Skewed(1_000, 30, seed=1)
    all_of_them = [keys.key(rank) for rank in range(len(keys))]
    assert all_of_them == sorted(set(all_of_them))
    for rank, key in enumerate(all_of_them):
        assert keys.rank(key) == rank + 1
        assert keys.rank(key[:-1]) == rank
        assert keys.rank(key + b"\0") == rank + 1
    assert keys.rank(b"") == 0
    assert keys.rank(b"\xff") == 1_000


def test_the_largest_directory_has_a_large_share_of_the_keys() -> None:
    keys = Skewed(1_000_000_000, 100_000, seed=7)
    sizes = [end - begin for begin, end in zip([0, *keys.ends], keys.ends, strict=False)]
    assert sum(sizes) == len(keys)
    assert 0.08 < max(sizes) / len(keys) < 0.09
    assert min(sizes) > 0


@pytest.mark.parametrize("copy", [False, True])
def test_every_simulated_key_is_settled_once_by_workers_who_are_all_busy(
    tmp_path: Path, copy: bool
) -> None:
    setup = SMALL if not copy else Setup(60_000, 20, 100, speed=500, copy=True)
    path = tmp_path / "m.db"
    figures = simulate(setup, path)  # which asserts that no key is settled twice, or lent twice
    database = sqlite3.connect(path)
    (found,) = database.execute("SELECT sum(found) FROM slices").fetchone()
    assert found == setup.keys
    assert database.execute("SELECT count(*) FROM slices").fetchone() == (figures.slices,)
    assert database.execute("SELECT count(*) FROM objects").fetchone() == (
        setup.keys if copy else 0,
    )
    last = dict(database.execute("SELECT worker, max(ended) FROM slices GROUP BY worker"))
    assert len(last) == setup.workers
    (longest,) = database.execute("SELECT max(ended - started) FROM slices").fetchone()
    assert max(last.values()) - min(last.values()) <= 4 * longest
    assert figures.slices < 100 * setup.workers
    assert figures.cuts < 100 * setup.workers
    assert figures.settling + figures.cutting + figures.waiting == pytest.approx(1)


def test_a_range_that_is_lent_twice_is_noticed(tmp_path: Path) -> None:
    workers = Workers(SMALL)
    workers.borrow((0, 100))
    workers.borrow((100, 200))
    with pytest.raises(AssertionError, match="both lent"):
        workers.borrow((199, 300))


def test_a_range_of_keys_is_one_of_ranks() -> None:
    workers = Workers(SMALL)
    key = workers.keys.key(1000)
    assert workers.ranks(KeyRange(b"", key, True)) == (0, 1001)
    assert workers.ranks(KeyRange(key)) == (1001, SMALL.keys)


def test_measuring_finds_all_keys_of_a_shape(capsys: pytest.CaptureFixture[str]) -> None:
    code = scale.main(["--keys", "3000", "--shape", "dated", "--workers", "1", "--json"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert code == 0
    assert [(row["what"], row["keys"]) for row in rows] == [
        ("inventory", 3000),
        ("record", 3000),
        ("sync --dryrun, manifest", 3000),
        ("sync --dryrun, listing", 3000),
    ]
    assert all(row["keys_per_s"] > 0 for row in rows)
    assert rows[1]["manifest_bytes"] == rows[2]["manifest_bytes"] > 90_000
