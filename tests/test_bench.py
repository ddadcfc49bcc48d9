"""The benchmark still runs, and counts nothing that was not done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.mount.mounts import missing

TOP = Path(__file__).resolve().parents[1]
WORKLOADS = ["small-up", "noop-manifest", "list-nested", "durable-small"]
STEPS = [
    *("read", "write", "ls"),
    *(f"{what}-{how}" for what in ("random", "epoch") for how in ("cold", "warm")),
]


def told(tmp_path: Path, workloads: list[str]) -> dict[str, dict[str, Any]]:
    """What a short run prints of each workload."""
    chosen = [word for name in workloads for word in ("--workload", name)]
    command = [sys.executable, TOP / "scripts" / "bench.py", "--short", "--json"]
    done = subprocess.run(
        [*command, "--tool", "rclone", *chosen],
        capture_output=True,
        text=True,
        env={"TMPDIR": str(tmp_path), "PATH": os.environ["PATH"]},
    )
    assert done.returncode == 0, done.stderr
    return {one["workload"]: one for one in map(json.loads, done.stdout.splitlines())}


def check(one: dict[str, Any]) -> None:
    """Both tools' figures are there, and their ratios."""
    assert set(one["tools"]) == {"adsmig", "rclone"}
    for figures in one["tools"].values():
        assert all(len(figures[name]) == 1 for name in ("wall_s", "cpu_s", "peak_bytes"))
        assert min(figures["peak_bytes"]) > 1e6
    assert all(peer == "rclone" for _, peer in one["ratios"].values())


def test_a_short_benchmark_gives_figures_and_ratios(tmp_path: Path) -> None:
    found = told(tmp_path, WORKLOADS)
    assert set(found) == set(WORKLOADS)
    for one in found.values():
        check(one)
        assert all(ratio > 0 for ratio, _ in one["ratios"].values())


@pytest.mark.skipif(bool(missing()), reason=missing())
def test_a_short_benchmark_of_mounts_gives_them_for_each_step(tmp_path: Path) -> None:
    found = told(tmp_path, ["mount"])
    assert set(found) == {f"mount-{step}" for step in STEPS}
    for one in found.values():
        check(one)
        assert one["ratios"]["wall_s"][0] > 0
