"""Worker processes of a pool that was closed under them."""

from __future__ import annotations

import pytest

from adsmig import pool


def lose_the_pipe() -> None:
    raise EOFError


def be_wrong() -> None:
    raise ValueError("a fault of ours")


def test_a_worker_whose_pool_is_gone_ends_in_silence(capfd: pytest.CaptureFixture[str]) -> None:
    process = pool._clean_processes().Process(target=lose_the_pipe)  # type: ignore[attr-defined]
    process.start()
    process.join()
    assert process.exitcode == 0
    assert capfd.readouterr().err == ""


def test_what_else_goes_wrong_there_is_told() -> None:
    process = pool._clean_processes().Process(target=be_wrong)  # type: ignore[attr-defined]
    process.start()
    process.join()
    assert process.exitcode == 1
