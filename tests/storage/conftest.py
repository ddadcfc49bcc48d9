"""Every kind of storage, each time at an empty place that no other test uses."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import uuid4

import pytest

from adsmig import uri
from adsmig.errors import ObjectError, TransientError
from adsmig.location import Location
from adsmig.storage import open_storage
from adsmig.storage.base import Storage
from adsmig.storage.memory import MemoryStorage
from tests.servers import Server, SftpServer
from tests.storage.support import Options

KINDS = ["memory", "local", "sshd", "seaweedfs", "minio", "moto"]


@dataclass
class Place:
    """A Location of one kind, and what its tests need to know about it."""

    kind: str
    location: Location
    server: Server | None = None
    opened: list[Storage] = field(default_factory=list)

    def open(self, location: Location | None = None, destination: bool = True) -> Storage:
        """A storage of its own for the place, or for another of the same kind."""
        location = location or self.location
        if self.kind == "memory":
            return MemoryStorage(location)
        self.opened.append(open_storage(location, Options(), destination))
        return self.opened[-1]

    @property
    def is_tree(self) -> bool:
        """Whether keys are paths."""
        return self.location.is_path

    @property
    def refusals(self) -> tuple[type[Exception], ...]:
        """What a write raises for a key that cannot be held."""
        # The MinIO gateway answers 500 where a file is in the way of a directory.
        return (ObjectError, TransientError) if self.kind == "minio" else (ObjectError,)

    def close(self) -> None:
        """Closes what was opened."""
        for storage in self.opened:
            storage.close()

    def beside(self, path: bytes) -> Location:
        """The location at ``path`` from the root of the bucket, or from the test's directory."""
        return replace(self.location, path=path)


Shared = dict[str, str]


class Places:
    """Makes a Place of a kind: a directory deep in a bucket that tests share, or a whole bucket."""

    def __init__(self, request: pytest.FixtureRequest, directory: Path, shared: Shared) -> None:
        self._request, self._directory, self._shared = request, directory, shared

    def make(self, kind: str, whole: bool = False) -> Place:
        if kind == "local":
            path = self._directory / uuid4().hex / "deep" / "prefix"
            path.mkdir(parents=True)
            return Place(kind, uri.parse(f"{path}/"))
        if kind in ("sshd", "rclone"):
            ssh: SftpServer = self._request.getfixturevalue(kind)
            ssh.trust(Path(os.environ["HOME"]))
            top = self._directory if kind == "sshd" else ssh.top
            path = top / uuid4().hex / "deep" / "prefix"
            path.mkdir(parents=True)
            return Place(kind, uri.parse(f"{ssh.address(path)}/"))
        prefix = "" if whole else f"{uuid4().hex}/deep/prefix/"
        if kind == "memory":
            bucket = uuid4().hex if whole else "shared"
            return Place(kind, Location("memory", prefix.encode(), bucket=bucket))
        server: Server = self._request.getfixturevalue(kind)
        if whole:
            bucket = server.make_bucket(f"test-{uuid4().hex[:16]}")
        else:
            if kind not in self._shared:
                self._shared[kind] = server.make_bucket(f"test-{uuid4().hex[:16]}")
            bucket = self._shared[kind]
        return Place(kind, uri.parse(server.url(bucket, prefix)), server)


@pytest.fixture(scope="session")
def shared_buckets() -> Shared:
    """By kind.  SeaweedFS takes 0.2 s for the first object in each bucket."""
    return {}


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries again at once."""
    monkeypatch.setattr("adsmig.retry.FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr("adsmig.retry.LONGEST_PAUSE_S", 0.01)


@pytest.fixture
def places(request: pytest.FixtureRequest, tmp_path: Path, shared_buckets: Shared) -> Places:
    return Places(request, tmp_path, shared_buckets)


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, places: Places) -> Iterator[Place]:
    """Each kind in turn, below a prefix."""
    with contextlib.closing(places.make(request.param)) as place:
        yield place


@pytest.fixture(params=[*KINDS, "memory/whole", "seaweedfs/whole", "minio/whole", "moto/whole"])
def either_place(request: pytest.FixtureRequest, places: Places) -> Iterator[Place]:
    """Each kind in turn, below a prefix and as a whole bucket."""
    kind, _, whole = request.param.partition("/")
    with contextlib.closing(places.make(kind, bool(whole))) as place:
        yield place


@pytest.fixture
def storage(place: Place) -> Storage:
    return place.open()


@pytest.fixture
def either(either_place: Place) -> Storage:
    return either_place.open()
