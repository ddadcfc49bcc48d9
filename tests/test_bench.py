"""The benchmark still runs, and counts nothing that was not done."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
WORKLOADS = ["small-up", "noop-manifest", "list-nested", "local-small"]


def test_a_short_benchmark_gives_figures_and_ratios(tmp_path: Path) -> None:
    chosen = [word for name in WORKLOADS for word in ("--workload", name)]
    command = [
        sys.executable,
        TOP / "scripts" / "bench.py",
        "--short",
        "--json",
        "--tool",
        "rclone",
    ]
    done = subprocess.run(
        [*command, *chosen], capture_output=True, text=True, env={"TMPDIR": str(tmp_path)}
    )
    assert done.returncode == 0, done.stderr
    told = {one["workload"]: one for one in map(json.loads, done.stdout.splitlines())}
    assert set(told) == set(WORKLOADS)
    for one in told.values():
        assert set(one["tools"]) == {"adsmig", "rclone"}
        for figures in one["tools"].values():
            assert all(len(figures[name]) == 1 for name in ("wall_s", "cpu_s", "peak_bytes"))
            assert min(figures["peak_bytes"]) > 1e6
        assert all(ratio > 0 and peer == "rclone" for ratio, peer in one["ratios"].values())
