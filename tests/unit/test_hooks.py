"""What is called when a run has failed, with a real server and a real shell."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from adsmig import hooks
from tests.receiver import Receiver


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "PAUSE_S", 0.0)


def test_a_webhook_gets_json(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    hooks.post(receiver.url, {"schedule": "monthly", "exit_code": 3, "message": "größer"})
    assert receiver.paths == ["/services/SECRET"]
    (body,) = map(json.loads, receiver.bodies)
    assert body == {"schedule": "monthly", "exit_code": 3, "message": "größer"}
    assert not caplog.records


@pytest.mark.parametrize(
    ("answers", "requests", "trouble"),
    [
        ([500, 429, 200], 3, ""),
        ([503, 503, 503, 200], 3, "HTTP 503"),
        ([404, 200], 1, "HTTP 404"),
    ],
)
def test_it_is_tried_a_few_times_where_that_can_help(
    receiver: Receiver,
    caplog: pytest.LogCaptureFixture,
    answers: list[int],
    requests: int,
    trouble: str,
) -> None:
    receiver.answers = answers
    hooks.post(receiver.url, {})
    assert len(receiver.bodies) == requests
    assert trouble in caplog.text
    assert bool(trouble) == bool(caplog.text)
    assert "SECRET" not in caplog.text


def test_nobody_there_is_logged_without_the_path(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        hooks.post(f"http://127.0.0.1:{deaf.getsockname()[1]}/SECRET", {})
    assert caplog.text.count("was not told") == 1
    assert "SECRET" not in caplog.text


def test_a_command_gets_its_variables_from_the_shell(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hooks.run_command(f'printf %s "$ADSMIG_SCHEDULE" > {tmp_path}/said', {"ADSMIG_SCHEDULE": "a b"})
    assert (tmp_path / "said").read_text() == "a b"
    assert not caplog.records
    hooks.run_command("exit 7", {})
    assert "ended with 7" in caplog.text
    hooks.run_command("no-such-command-here 2>/dev/null", {"X": "nul\0"})
    assert "cannot be run" in caplog.text
