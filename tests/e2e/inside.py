"""The command line run in the test's own process, for speed, and what is at its places."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from adsmig import program
from tests.conftest import BucketFactory
from tests.e2e.conftest import write
from tests.servers import Server

# A process of its own ends with its connections; in this one they are left to be collected.
COLLECTED = pytest.mark.filterwarnings("ignore:unclosed <s:ResourceWarning")

Here = Callable[..., str]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Here]:
    """``here(*arguments, code=0)``: the program in this process; what it printed."""
    monkeypatch.setattr("adsmig.output.begin_log", lambda *_: None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()  # what tests before this one left is not for this one to answer for

    def run(*arguments: object, code: int = 0) -> str:
        capfd.readouterr()
        got = program.run([*map(str, arguments), "--workers", "1"])
        said = "".join(capfd.readouterr())
        assert got == code, f"{got}: {said}"
        return said

    yield run
    gc.collect()


def put(root: Path, files: dict[str, bytes], age_s: float = 3600) -> Path:
    """Makes these files below ``root``; a key that ends in ``/`` is an empty directory."""
    root.mkdir(parents=True, exist_ok=True)
    for key, content in files.items():
        if key.endswith("/"):
            (root / key).mkdir(parents=True, exist_ok=True)
        else:
            (root / key).parent.mkdir(parents=True, exist_ok=True)
            write(root / key, content, age_s)
    return root


def tree_of(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


@dataclass
class Bucket:
    """A prefix in a bucket."""

    server: Server
    name: str
    prefix: str = "p/"

    @property
    def url(self) -> str:
        return self.server.url(self.name, self.prefix)

    def put(self, files: dict[str, bytes]) -> Bucket:
        for key, content in files.items():
            self.server.client().put_object(Bucket=self.name, Key=self.prefix + key, Body=content)
        return self

    def names(self) -> set[str]:
        listed = self.server.client().list_objects_v2(Bucket=self.name, Prefix=self.prefix)
        return {item["Key"][len(self.prefix) :] for item in listed.get("Contents", [])}

    def content(self) -> dict[str, bytes]:
        get = self.server.client().get_object
        return {k: get(Bucket=self.name, Key=self.prefix + k)["Body"].read() for k in self.names()}


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried again, is at once."""
    for pause in ("FIRST_PAUSE_S", "LONGEST_PAUSE_S"):
        monkeypatch.setattr(f"adsmig.retry.{pause}", 0.001)


@pytest.fixture
def store(s3_server: Server, bucket: BucketFactory) -> Bucket:
    return Bucket(s3_server, bucket(s3_server))
