"""Where a test can have the program die; tests/faults has it die there."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from adsmig import failpoint

REACH_THRICE = "from adsmig.failpoint import reach\nfor _ in range(3): reach('object.begun')"


def run(setting: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", REACH_THRICE]
    environment = {failpoint.VARIABLE: setting}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_nothing_happens_where_no_point_is_named() -> None:
    assert failpoint.reach is failpoint._nothing


def test_hits_are_counted_over_all_processes_and_one_of_them_acts(tmp_path: Path) -> None:
    hits = tmp_path / "hits"
    for code, count in ((0, 3), (-signal.SIGKILL, 5), (0, 8)):
        assert run(f"object.begun:5:kill:{hits}").returncode == code
        assert hits.stat().st_size == count


def test_another_point_is_passed(tmp_path: Path) -> None:
    assert run(f"object.stored:1:kill:{tmp_path / 'hits'}").returncode == 0
    assert not (tmp_path / "hits").exists()


def test_a_point_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "names no point: object.stord" in run(f"object.stord:1:kill:{tmp_path}/h").stderr
