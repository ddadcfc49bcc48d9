"""What is called when a run has failed, with a real server and a real shell."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from adsmig import hooks


class Receiver:
    """An HTTP server that gives its ``answers`` in turn, and keeps what it was sent."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.received: list[Any] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.received.append((self.path, self.headers["Content-Type"], body))
                self.send_response(receiver.answers.pop(0) if receiver.answers else 204)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/services/SECRET"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    one = Receiver()
    thread = threading.Thread(target=one.server.serve_forever)
    thread.start()
    yield one
    one.server.shutdown()
    thread.join()
    one.server.server_close()


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "PAUSE_S", 0.0)


def test_a_webhook_gets_json(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    hooks.post(receiver.url, {"schedule": "monthly", "exit_code": 3, "message": "größer"})
    (path, kind, body), *others = receiver.received
    assert (path, kind, others) == ("/services/SECRET", "application/json", [])
    assert json.loads(body) == {"schedule": "monthly", "exit_code": 3, "message": "größer"}
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
    assert len(receiver.received) == requests
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
