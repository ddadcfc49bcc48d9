"""The same ground for every tool: memory that is at hand, and no inodes that were just freed."""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path

TOUCHED = 3 << 30
"""Bytes."""
MANY = 500
"""Files of a tree that is not to be removed before the end."""

_count = itertools.count()


def touch_memory(directory: Path) -> None:
    """Has the kernel own as much memory as a tool may fill: that of a file which is then removed.

    A virtual machine gives back what lies idle, and whoever uses it next waits for the host, page
    by page.  To write a gigabyte took 0.2 s or 2.5 s of processor time, as luck would have it.
    """
    path = directory / "touched"
    with path.open("wb") as file:
        for _ in range(TOUCHED >> 20):
            file.write(bytes(1 << 20))
    path.unlink()


def discard(path: Path, kept: Path) -> None:
    """Removes a tree; one of many files is moved into the directory ``kept`` instead.

    ext4 hands out no inode that was freed within the last minutes, and looks at each of them for
    every file that is made (recently_deleted in fs/ext4/ialloc.c): 10,000 small files took s5cmd
    10.3 s where as many had been removed again and again, and 3.6 s where none had been.
    """
    if sum(len(files) for _, _, files in os.walk(path)) < MANY:
        shutil.rmtree(path)
        return
    kept.mkdir(exist_ok=True)
    path.rename(kept / str(next(_count)))
