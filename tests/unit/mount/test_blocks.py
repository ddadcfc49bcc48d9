"""The cache of what was read."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest

from adsmig.model import Entry
from adsmig.mount.blocks import Blocks, version_of

SIZE = 1 << 20


def version(number: int) -> bytes:
    return version_of(Entry(b"key", SIZE, None, 0, f"etag{number}"))


def test_what_was_put_is_there_after_a_restart(tmp_path: Path) -> None:
    blocks = Blocks(tmp_path, 64 << 20)
    blocks.put(version(1), 3, b"0123456789")
    blocks.close()
    blocks = Blocks(tmp_path, 64 << 20)
    assert blocks.has(version(1), 3)
    assert blocks.get(version(1), 3, 2, 100) == b"23456789"
    assert blocks.get(version(2), 3, 0, 10) is None
    assert blocks.get(version(1), 2, 0, 10) is None
    blocks.close()


def test_what_was_damaged_is_not_there(tmp_path: Path) -> None:
    blocks = Blocks(tmp_path, 64 << 20)
    blocks.put(version(1), 0, b"good content")
    blocks.close()
    (segment,) = (path for path in tmp_path.iterdir() if path.stat().st_size)
    segment.write_bytes(segment.read_bytes().replace(b"good", b"Good"))
    blocks = Blocks(tmp_path, 64 << 20)
    assert blocks.get(version(1), 0, 0, 4) is None
    assert not blocks.has(version(1), 0)
    blocks.close()


def test_it_stays_within_its_size_and_keeps_what_is_used(tmp_path: Path) -> None:
    most = 32 << 20
    blocks = Blocks(tmp_path, most)
    for number in range(100):
        blocks.put(version(number), 0, bytes([number]) * SIZE)
        assert blocks.get(version(0), 0, 0, 1) == b"\0"
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= most
    assert not blocks.has(version(1), 0)
    assert blocks.get(version(99), 0, 5, 2) == b"cc"
    blocks.close()


def test_room_is_given_back(tmp_path: Path) -> None:
    blocks = Blocks(tmp_path, 32 << 20)
    blocks.put(version(1), 0, bytes(SIZE))
    blocks.drop()
    assert not blocks.has(version(1), 0)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == 0
    blocks.put(version(1), 0, b"again")
    assert blocks.get(version(1), 0, 0, 5) == b"again"
    blocks.close()


def test_a_disk_that_fails_only_makes_it_forget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> NoReturn:
        raise OSError(errno.EROFS, "read-only file system")

    blocks = Blocks(tmp_path, 1 << 20)
    blocks.put(version(1), 0, bytes(1 << 16))
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", failing)
        blocks.put(version(1), 1, bytes(1 << 16))
        patch.setattr(os, "pwritev", failing)
        blocks.put(version(1), 2, bytes(1 << 16))
        blocks.drop()
    assert not any(blocks.has(version(1), number) for number in range(3))
    assert blocks.get(version(1), 0, 0, 10) is None
    blocks.close()


@pytest.mark.parametrize("number", [0, 1])
def test_a_segment_may_go_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    blocks = Blocks(tmp_path, 1 << 20)
    for one in range(14):
        blocks.put(version(one), 0, bytes(1 << 16))
    blocks.close()
    blocks = Blocks(tmp_path, 1 << 20)
    calls = 0

    def read(fd: int, size: int, at: int) -> bytes:
        nonlocal calls
        calls += 1
        if calls == (1, 3)[number]:
            raise OSError(errno.EBADF, "closed by another thread")
        return pread(fd, size, at)

    pread = os.pread
    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", read)
        assert blocks.get(version(0), 0, 0, 10) == (None, bytes(10))[number]
    assert calls == (1, 3)[number]
    blocks.close()


def test_who_reads_of_a_segment_that_goes_does_not_keep_it_from_going(tmp_path: Path) -> None:
    class Where(dict[bytes, tuple[int, int, int]]):
        """Looked through by one thread while another one reads."""

        def copy(self) -> dict[bytes, tuple[int, int, int]]:
            found = dict(self)
            assert blocks.get(version(0), 0, 0, 10) is None
            return found

        def items(self) -> Any:
            return self.copy().items()

    blocks = Blocks(tmp_path, 1 << 20)
    blocks.put(version(0), 0, bytes(1 << 15))
    blocks._where = Where(blocks._where)
    for one in range(1, 100):
        if not blocks.has(version(0), 0):
            break
        blocks.put(version(one), 0, bytes(1 << 15))
    assert not blocks.has(version(0), 0)
    assert blocks.has(version(one - 1), 0)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 1 << 20
    blocks.close()
