"""After fsx: random reads, writes, truncations and mappings of a file give what a model gives."""

from __future__ import annotations

import mmap
import os
import random
from collections.abc import Callable
from itertools import count
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import BucketFactory
from tests.mount.conftest import MountFactory
from tests.mount.mounts import EXAMPLES, contents, put
from tests.servers import Server

EDGES = sorted(
    edge + by
    for edge in (0, 4 << 10, 128 << 10, 1 << 20, 5 << 20, 8 << 20)
    for by in (-1, 0, 1)
    if edge + by >= 0
)
"""Where pages, requests of the kernel's, blocks and parts begin."""
NOISE = random.Random(3).randbytes((9 << 20) + 1)

sizes = st.one_of(st.integers(0, 20_000), st.integers(0, 300_000), st.sampled_from(EDGES))
spans = st.tuples(sizes, st.one_of(st.integers(1, 100), st.integers(1, 200_000)))


class File:
    """A file that is open for reading and writing, and what it must hold."""

    def __init__(self, path: Path, model: bytes) -> None:
        self.path, self.model = path, bytearray(model)
        self._fd = self._open()

    def _open(self) -> int:
        return os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)

    def close(self) -> None:
        os.close(self._fd)

    def reopen(self) -> None:
        self.close()
        self._fd = self._open()

    def write(self, at: int, size: int) -> None:
        data = self._noise(at, size)
        assert os.pwrite(self._fd, data, at) == size
        self._put(at, data)

    def append(self, size: int) -> None:
        self.write(len(self.model), size)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)
        self._grow(size)
        del self.model[size:]

    def read(self, at: int, size: int) -> None:
        assert os.pread(self._fd, size, at) == self.model[at : at + size]
        assert os.fstat(self._fd).st_size == len(self.model)

    def map_read(self, at: int, size: int) -> None:
        if self.model:
            with mmap.mmap(self._fd, 0) as mapped:
                assert len(mapped) == len(self.model)
                assert mapped[at : at + size] == self.model[at : at + size]

    def map_write(self, at: int, size: int) -> None:
        if self.model:
            at %= len(self.model)
            data = self._noise(at, size)[: len(self.model) - at]
            with mmap.mmap(self._fd, 0) as mapped:
                mapped[at : at + len(data)] = data
            self._put(at, data)

    def sync(self) -> None:
        os.fsync(self._fd)

    def forget(self) -> None:
        """Has the kernel drop what it has of the file."""
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def check(self) -> None:
        """The whole of it, opened anew."""
        self.close()
        assert self.path.stat().st_size == len(self.model)
        assert self.path.read_bytes() == self.model

    def _noise(self, at: int, size: int) -> bytes:
        start = (at * 31 + size * 17 + len(self.model)) % (len(NOISE) - size)
        return NOISE[start : start + size]

    def _put(self, at: int, data: bytes) -> None:
        self._grow(at + len(data))
        self.model[at : at + len(data)] = data

    def _grow(self, size: int) -> None:
        self.model.extend(bytes(max(0, size - len(self.model))))


Step = Callable[[File], None]


def step(name: str, *arguments: st.SearchStrategy[int]) -> st.SearchStrategy[tuple[object, ...]]:
    return st.tuples(st.just(name), *arguments)


def spanning(name: str) -> st.SearchStrategy[tuple[object, ...]]:
    return spans.map(lambda span: (name, *span))


STEPS = st.one_of(
    *(spanning(name) for name in ("write", "read", "map_write", "map_read", "write", "read")),
    step("truncate", sizes),
    step("append", st.integers(1, 200_000)),
    *(step(name) for name in ("reopen", "sync", "forget")),
)


def test_a_file_holds_what_a_model_of_it_holds(
    store: Server, bucket: BucketFactory, mount: MountFactory
) -> None:
    name = bucket(store)
    # Some begin as objects of which the mount has seen nothing yet.
    there = {f"there/{number}": NOISE[: size + number] for number, size in enumerate(EDGES * 2)}
    put(store, name, there)
    at = mount(store.url(name))
    (at.path / "new").mkdir()
    fresh, waiting, models = count(), iter(list(there)), dict(there)

    @settings(max_examples=EXAMPLES, report_multiple_bugs=False)
    @given(st.booleans(), st.lists(STEPS, min_size=1, max_size=20))
    def example(new: bool, steps: list[tuple[str, int]]) -> None:
        key = f"new/{next(fresh)}"
        if not new:
            key = next(waiting, key)
        file = File(at.path / key, there.get(key, b""))
        try:
            for what, *arguments in steps:
                getattr(file, what)(*arguments)
        except BaseException:
            file.close()
            raise
        file.check()
        models[key] = bytes(file.model)

    example()
    at.again()
    for key, model in models.items():
        assert (at.path / key).read_bytes() == model, key
    at.stop()
    assert contents(store, name) == models


def test_what_is_written_through_a_mapping_after_the_file_was_closed_is_stored(
    some_store: Server, bucket: BucketFactory, mount: MountFactory
) -> None:
    name = bucket(some_store)
    put(some_store, name, {"there": bytes(300_000)})
    at = mount(some_store.url(name))
    with (at.path / "there").open("r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0)
    mapped[100_000:100_005] = b"after"
    mapped.close()
    at.stop()
    assert contents(some_store, name) == {"there": bytes(100_000) + b"after" + bytes(199_995)}
