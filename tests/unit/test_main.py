"""The end of the program: what is registered for it is done, and who is at work is waited for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def ended(before: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The program, run with these arguments in an interpreter that did something before."""
    code = f"import sys; {before}; from adsmig.__main__ import main; main()"
    words = [sys.executable, "-c", code, *arguments]
    return subprocess.run(words, capture_output=True, text=True, timeout=60)


def test_what_is_registered_for_the_end_is_done() -> None:
    done = ended("import atexit; atexit.register(print, 'at the end')", "--version")
    assert done.returncode == 0
    assert done.stdout.startswith("adsmig")
    assert done.stdout.endswith("at the end\n")
    assert done.stderr == ""


def test_a_thread_that_is_at_work_is_waited_for() -> None:
    work = "lambda: (time.sleep(0.5), print('done'))"
    done = ended(f"import threading, time; threading.Thread(target={work}).start()", "--version")
    assert done.returncode == 0
    assert done.stdout.endswith("done\n")


@pytest.mark.parametrize(("argument", "code"), [("--version", 0), ("--no-such", 2)])
def test_the_exit_code_is_the_commands(argument: str, code: int) -> None:
    done = ended("import atexit; atexit.register(lambda: 1 / 0)", argument)
    assert done.returncode == code
    assert "ZeroDivisionError" in done.stderr  # which is the interpreter's to tell


def test_an_interruption_at_the_end_changes_nothing() -> None:
    stop = "lambda: signal.raise_signal(signal.SIGINT)"
    done = ended(f"import signal, threading; threading.active_count = {stop}", "--version")
    assert done.returncode == 0
    assert done.stderr == ""


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_where_output_is_not_utf_8_nothing_is_lost(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "é…😀").write_text("x")
    for words in (["--help"], ["inventory", tmp_path], ["inventory", "--json", tmp_path]):
        done = subprocess.run(
            [sys.executable, "-m", "adsmig", *map(str, words)],
            capture_output=True,
            timeout=60,
            env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
        )
        assert (done.returncode, done.stderr) == (0, b"")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    (found,) = [one for one in events if one["event"] == "inventory"]
    assert found["largest"] == [{"key": "é…😀", "bytes": 1}]
    words = ["cp", "--dryrun", "-v", "--json", f"{tmp_path}/", f"{tmp_path}.new/"]
    done = subprocess.run(
        [sys.executable, "-m", "adsmig", *words],
        capture_output=True,
        timeout=60,
        env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
    )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["key"] for one in events if one["event"] == "planned"] == ["é…😀"]


@pytest.mark.parametrize(("option", "shown"), [("-q", False), ("-v", False), ("-vv", True)])
def test_where_an_error_came_from_is_for_who_wants_to_know_all(
    tmp_path: Path, option: str, shown: bool
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "adsmig", "inventory", option, tmp_path / "nothing"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 3
    assert ("Traceback" in done.stderr) is shown
