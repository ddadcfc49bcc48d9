"""A bucket, and mounts of it without the kernel."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from adsmig.mount import sender
from adsmig.mount.sender import Sender
from tests.unit.mount.mounted import PAGE, At, Bucket, During, Gate, Work


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def at(tmp_path: Path, bucket: Bucket) -> Iterator[At]:
    """To be used in one event loop."""
    at = At(tmp_path, bucket)
    yield at
    at.close()


@pytest.fixture
def during(tmp_path: Path, bucket: Bucket) -> During:
    """``during(work)`` has it done with a mount of the bucket."""

    def doing(work: Work) -> None:
        async def mounted() -> None:
            at = At(tmp_path, bucket)
            try:
                await asyncio.wait_for(work(at), 30)
            finally:
                at.close()

        asyncio.run(mounted())

    return doing


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page is a part, and no more than four of them stay here."""
    for name, size in {"SINGLE": PAGE, "PART": PAGE, "LOCAL": 4 * PAGE}.items():
        monkeypatch.setattr(sender, name, size)
    monkeypatch.setattr(Sender._open_upload, "__defaults__", (PAGE,))
