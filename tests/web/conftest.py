"""The console in this process or as its users start it, manifests to show, and a browser."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from starlette.testclient import TestClient

from adsmig.job import Job
from adsmig.ledger import default_path
from adsmig.manifest import Manifest
from adsmig.model import Counts, KeyRange, Outcome, SliceResult
from adsmig.uri import parse
from adsmig.web.access import Access
from adsmig.web.app import make_app
from adsmig.web.console import Console

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ENDS_WITHIN_S = 60


class Client(TestClient):
    """A browser without pages: logged in, and it sends forms as pages do."""

    access: Access
    csrf = ""

    def log_in(self) -> Client:
        """Comes in with the token."""
        assert self.get("/login", params={"token": self.access.token}).status_code == 200
        self.csrf = csrf_in(self.get("/jobs").text)
        return self

    def submit(self, path: str, **form: str) -> Any:
        """What comes of a form."""
        data = {"csrf": self.csrf, **form}
        return self.post(path, data=data, follow_redirects=False)


ClientFactory = Callable[..., Client]


def csrf_in(html: str) -> str:
    """What the page's forms send along."""
    found = re.search(r'data-csrf="([^"]+)"', html)
    assert found
    return found[1]


@pytest.fixture
def client_of() -> ClientFactory:
    """``client_of(*allowed_paths)``: a console, and who talks to it, not logged in."""

    def make(*allowed: Path, language: str = "") -> Client:
        access = Access()
        client = Client(
            make_app(Console(allowed), access, language),
            base_url="http://127.0.0.1:8080",
            headers={"Accept-Language": "en"},
        )
        client.access = access
        return client

    return make


@pytest.fixture
def client(client_of: ClientFactory) -> Client:
    """A console, and who is logged in."""
    return client_of().log_in()


def make_job(src: str = "/data/photos/", dst: str = "s3://127.0.0.1:9/photos/") -> Job:
    """A job of those places, none of which has to be there."""
    return Job("sync", parse(src), parse(dst), check=False)


def make_manifest(
    job: Job,
    counts: Counts = Counts(found=30, found_bytes=3000, copied=30, copied_bytes=3000),  # noqa: B008
    state: str = "finished",
    failures: dict[bytes, tuple[str, str]] | None = None,
    cuts: tuple[bytes, ...] = (),
) -> Path:
    """The manifest of a job that was run once; ``failures`` are kinds and errors by key."""
    path = default_path(job)
    with Manifest(path, create=True) as manifest:
        manifest.set_job(job)
        run = manifest.begin_run("sync", [KeyRange(closed=True)])
        shards = [shard for shard, _ in manifest.open_shards(run.id)]
        if cuts:
            shards = manifest.commit_cut(run.id, shards[0], KeyRange(closed=True), list(cuts))
        outcomes = [
            Outcome(key, 7, 0, None, None, error, kind)
            for key, (kind, error) in (failures or {}).items()
        ]
        now = time.time()
        result = SliceResult(
            b"m", state == "finished", counts, outcomes, worker=1, started=now - 5, ended=now
        )
        manifest.commit_slice(run.id, shards[0], result)
        if state != "running":
            manifest.end_run(run.id, state)
    return path


class ServedConsole:
    """``adsmig web`` as a process of its own."""

    def __init__(self, log: Path, *options: str) -> None:
        self._log, self._options = log, options
        self.process: subprocess.Popen[str] | None = None
        self.listen = "127.0.0.1:0"

    def start(self) -> str:
        """Starts it; the address to open."""
        with self._log.open("a") as log:
            command = [sys.executable, "-m", "adsmig", "web", "--listen", self.listen]
            self.process = subprocess.Popen(
                [*command, *self._options], stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self.process.stdout
        ready, _, _ = select.select([self.process.stdout], [], [], ENDS_WITHIN_S)
        assert ready, self._log.read_text()
        line = self.process.stdout.readline()
        assert line.startswith("the console: http"), line + self._log.read_text()
        url = line.split()[-1]
        self.listen = url.split("/")[2]
        return url

    def kill(self) -> None:
        """Ends it without a word."""
        if self.process:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(ENDS_WITHIN_S)
            assert self.process.stdout
            self.process.stdout.close()
            self.process = None


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServedConsole]:
    """A console that is not started yet."""
    console = ServedConsole(tmp_path / "console.log")
    yield console
    console.kill()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=["--no-sandbox"] if os.geteuid() == 0 else [],
        )
        yield browser
        browser.close()


def wait_for(what: Callable[[], Any], limit_s: float = ENDS_WITHIN_S) -> Any:
    """What it says, once it says something."""
    until = time.monotonic() + limit_s
    while not (found := what()):
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.05)
    return found
