"""Jobs that live on their own."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from adsmig.launch import launch


def test_a_job_is_in_a_session_of_its_own_and_writes_to_a_private_file(tmp_path: Path) -> None:
    output = tmp_path / "output"
    process = launch(["jobs"], output, {"XDG_STATE_HOME": f"{tmp_path}/secret"})
    command = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    assert os.getsid(process.pid) == process.pid
    assert process.wait(60) == 0
    assert b"secret" not in command
    assert output.read_text() == f"no jobs in {tmp_path}/secret/adsmig/jobs\n"
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
