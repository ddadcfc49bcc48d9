"""The log is written for as long as it can be, and what is logged about goes on without it."""

from __future__ import annotations

import logging

import pytest

from adsmig.log import _LogFile


def log_three(told: bool) -> None:
    handler = _LogFile("/dev/full", told)
    for text in ("one", "two", "three"):
        handler.handle(logging.LogRecord("adsmig.x", logging.INFO, "x.py", 1, text, None, None))
    with pytest.raises(OSError, match="No space left"):
        handler.close()


def test_a_full_disk_under_the_log_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    log_three(told=False)
    said = capsys.readouterr().err
    assert said == (
        "adsmig: cannot write the log to /dev/full: No space left on device; going on without it\n"
    )


def test_workers_leave_that_to_the_process_that_started_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log_three(told=True)
    assert capsys.readouterr().err == ""
