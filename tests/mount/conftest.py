"""Mounts, which end with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.mount.mounts import Mount, missing
from tests.servers import Server

MountFactory = Callable[..., Mount]


@pytest.fixture(autouse=True)
def _can_mount() -> None:
    if reason := missing():
        pytest.skip(reason)


@pytest.fixture(params=["seaweedfs", "minio"])
def store(request: pytest.FixtureRequest) -> Server:
    """Both in turn."""
    server: Server = request.getfixturevalue(request.param)
    return server


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[MountFactory]:
    """``mount(url, *options, **environment)`` mounts it, in a directory of its own."""
    with ExitStack() as stack:

        def make(url: str, *options: object, **environment: str) -> Mount:
            number = sum(one.name.startswith("mnt") for one in tmp_path.iterdir())
            one = stack.enter_context(
                Mount(url, tmp_path / f"mnt{number}", *options, **environment)
            )
            one.start()
            return one

        yield make
