"""A bucket as a folder, mounted by the program as its users do it; what the tests of that share."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil

from tests.servers import Server

PROGRAM = [sys.executable, "-m", "adsmig"]
FULL = bool(os.environ.get("ADSMIG_TEST_FULL"))
"""Sizes as large as the promises are; without it, smaller ones that every change can afford."""
EXAMPLES = int(os.environ.get("ADSMIG_TEST_FUZZ", "200" if FULL else "10"))
"""How many of hypothesis's."""
LIMIT_S = 100
"""No single step may take so long, on any machine."""
LIFE_S = 3000 if FULL else 500

_MARK = "WHOSE_MOUNT"


def missing() -> str:
    """Why nothing can be mounted here; '' if something can."""
    if not os.path.exists("/dev/fuse"):
        return "no /dev/fuse here: the kernel's FUSE module is missing, or the container's device"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse may not be opened here"
    if not shutil.which("fusermount3"):
        return "no fusermount3 here: apt-get install fuse3"
    return ""


class Mount:
    """``adsmig mount URL PATH OPTIONS...``, and all there is to be done to it.

    Leaving kills what still runs of it, and takes the mount away.
    """

    def __init__(
        self, url: str, path: Path, *options: object, cache: Path | None = None, **environment: str
    ) -> None:
        """Mounts nothing yet; `path` is made, and a cache directory beside it."""
        self.url, self.path, self.options = url, path, [*map(str, options)]
        self.cache = cache or path.with_name(f"{path.name}.cache")
        self.said = ""
        """All that the commands have printed."""
        self._mark = uuid4().hex
        self.environment = {**os.environ, **environment, _MARK: self._mark}
        path.mkdir()
        # Who waits for a file system that hangs cannot be killed; not even a test that is too slow.
        self._end = threading.Timer(LIFE_S, self.kill)
        self._end.daemon = True
        self._end.start()

    def __enter__(self) -> Mount:
        return self

    def __exit__(self, *_: object) -> None:
        self._end.cancel()
        self._end.join()
        self.kill()
        self.detach()

    def start(self, code: int | tuple[int, ...] = 0) -> str:
        """Mounts it; what the command said."""
        return self._run(self.command(), code)

    def command(self) -> list[str]:
        """The words of ``adsmig mount``."""
        cache = ["--cache-dir", str(self.cache)]
        return ["mount", self.url, str(self.path), *cache, *self.options]

    def stop(self, code: int | tuple[int, ...] = 0) -> str:
        """``adsmig umount``; what it said.  If it could do it, no process is left."""
        said = self._run(["umount", str(self.path)], code)
        if code == 0:
            assert not self.mounted()
            assert not self.processes()
        return said

    def again(self, forget: bool = True) -> None:
        """Unmounts and mounts, so that the kernel knows nothing any more; nor, with ``forget``,
        does the cache.
        """
        self.stop()
        if forget:
            shutil.rmtree(self.cache, ignore_errors=True)
        self.start()

    def processes(self) -> list[psutil.Process]:
        """Those that serve it."""
        found = []
        for one in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if one.environ().get(_MARK) == self._mark and one.status() != "zombie":
                    found.append(one)
        return found

    def signal(self, number: signal.Signals) -> None:
        """To those; returns when they have ended."""
        found = self.processes()
        for one in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.send_signal(number)
        _, alive = psutil.wait_procs(found, LIMIT_S)
        assert not alive

    def kill(self) -> None:
        """``kill -9``: what was mounted stays, with nobody behind it."""
        self.signal(signal.SIGKILL)

    def detach(self) -> None:
        """Takes away a mount that nobody serves, as often as it was mounted."""
        while self.mounted():
            subprocess.run(["umount", "-l", self.path], check=True)

    def mounted(self) -> bool:
        """Whether it is in the kernel's table; asks nobody who might not answer."""
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        return any(line.split()[4] == str(self.path) for line in lines)

    def popen(self) -> subprocess.Popen[str]:
        """``adsmig mount``, not waited for."""
        return subprocess.Popen(
            [*PROGRAM, *self.command()],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def _run(self, words: list[str], code: int | tuple[int, ...]) -> str:
        done = subprocess.run(
            [*PROGRAM, *words],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
        said = done.stdout + done.stderr
        self.said += said
        assert "Traceback" not in said, said
        codes = code if isinstance(code, tuple) else (code,)
        assert done.returncode in codes, f"{words[0]} gave {done.returncode}: {said}"
        return said


def only_line(said: str) -> str:
    """The one line that an error is."""
    assert len(said.splitlines()) == 1, said
    return said


def contents(server: Server, bucket: str, markers: bool = False) -> dict[str, bytes]:
    """What the store itself holds; of keys that end in a slash, with ``markers``, those with
    content.
    """
    client, found = server.client(), {}
    for item in objects(server, bucket):
        key = item["Key"]
        if not key.endswith("/") or (markers and item["Size"]):
            found[key] = client.get_object(Bucket=bucket, Key=key)["Body"].read()
    return found


def objects(server: Server, bucket: str) -> Iterator[dict[str, Any]]:
    """As the store lists them."""
    for page in server.client().get_paginator("list_objects_v2").paginate(Bucket=bucket):
        yield from page.get("Contents", [])


def put(server: Server, bucket: str, objects: dict[str, bytes]) -> None:
    """Objects that did not come through a mount."""
    for key, content in objects.items():
        server.client().put_object(Bucket=bucket, Key=key, Body=content)


def until(condition: Callable[[], object], limit_s: float = LIMIT_S) -> None:
    """Waits until something is so."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)


def error_of(call: Callable[[], object]) -> int:
    """The errno of what must fail."""
    try:
        result = call()
    except OSError as exc:
        return exc.errno or 0
    raise AssertionError(f"it worked: {result!r}")


def run(*words: object, code: int = 0, **more: Any) -> str:
    """A command of the system's; what it printed."""
    done = subprocess.run(
        [*map(str, words)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIFE_S,
        **more,
    )
    assert done.returncode == code, f"{words} gave {done.returncode}: {done.stdout}"
    return done.stdout
