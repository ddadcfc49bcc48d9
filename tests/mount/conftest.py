"""Mounts, which end with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.mount.mounts import FULL, Mount, missing
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


@pytest.fixture(params=["seaweedfs", "minio"] if FULL else ["minio"])
def some_store(request: pytest.FixtureRequest) -> Server:
    """Both as well, but of the small sizes one is enough."""
    server: Server = request.getfixturevalue(request.param)
    return server


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[MountFactory]:
    """``mount(url, *options)`` mounts it, in a directory of its own; see Mount for more."""
    with ExitStack() as stack:
        numbers = count()

        def make(url: str, *options: object, start: bool = True, **more: Any) -> Mount:
            path = tmp_path / f"mnt{next(numbers)}"
            one = stack.enter_context(Mount(url, path, *options, **more))
            if start:
                one.start()
            return one

        yield make
