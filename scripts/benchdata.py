"""What the benchmark moves: trees of files, the same at each call, and how copies are compared."""

from __future__ import annotations

import hashlib
import os
import random
from dataclasses import dataclass, replace
from pathlib import Path

OLD = 1_500_000_000
"""When all files were last changed: before what a store of tests.synthetic says of its objects."""


@dataclass(frozen=True)
class Tree:
    """Files to be made, or keys of a synthetic store."""

    name: str
    count: int
    least: int = 0
    most: int = 0
    """Bytes of each file, drawn evenly; or, if ``median``, log-normally up to ``most``."""
    median: int = 0
    shape: str = ""
    """A shape of tests.synthetic, whose keys they have."""
    short: int = 0
    """How many in a short run."""
    short_most: int = 0

    def scaled(self, short: bool) -> Tree:
        """The tree for a short run, or as it is."""
        if not short:
            return self
        most = self.short_most or self.most
        return replace(self, count=self.short or self.count, most=most, least=min(self.least, most))


TREES = {
    one.name: one
    for one in (
        Tree("small", 10_000, 1_000, 16_000, short=1_000),
        Tree("large", 4, 256 << 20, 256 << 20, short=2, short_most=70 << 20),
        Tree("few", 2_000, 1_000, 16_000, short=200),
        Tree("gigabyte", 1, 1 << 30, 1 << 30, short_most=100 << 20),
        Tree("huge", 1, 2 << 30, 2 << 30, short_most=100 << 20),
        Tree("mixed", 2_000, 0, 100_000_000, median=64_000, short=300, short_most=10_000_000),
        Tree("empty", 100_000, shape="flat", short=5_000),
        Tree("flat", 200_000, shape="flat", short=10_000),
        Tree("dated", 200_000, shape="dated", short=10_000),
        Tree("nested", 200_000, shape="nested", short=10_000),
        Tree("one", 1, 1_000, 1_000),
        Tree("mounted", 1, 1 << 30, 1 << 30, short_most=24 << 20),
        Tree("epoch", 5_000, 4_000, 60_000, short=200),
        Tree("entries", 20_000, 0, 100, short=500),
    )
}


def make_tree(top: Path, tree: Tree) -> None:
    """Writes the files below ``top``."""
    chance = random.Random(7)
    block = chance.randbytes(1 << 20)
    top.mkdir(parents=True)
    if tree.shape:
        from tests.synthetic import SHAPES

        names = list(SHAPES[tree.shape](tree.count))
    else:
        names = [f"d{number % 100:02d}/{number:06d}.bin" for number in range(tree.count)]
    for number, name in enumerate(names):
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if tree.median:
            size = min(int(chance.lognormvariate(0, 2) * tree.median), tree.most)
            if number % 1000 == 1:
                size = tree.most
        else:
            size = chance.randint(tree.least, tree.most)
        with path.open("wb") as file:
            start = chance.randrange(1 << 19)
            file.write(number.to_bytes(8, "big")[:size])
            left = size - min(8, size)
            while left:
                piece = block[start : start + left]
                file.write(piece)
                left, start = left - len(piece), 0
        os.utime(path, (OLD, OLD))


def lists_equal(tree: Path, copy: str | None, listing: dict[str, tuple[int, str]] | None) -> str:
    """What is wrong with a copy of ``tree``: a directory, or what a store lists; '' if nothing.

    Contents are compared, for a store by the MD5 in its ETags, where they are such.
    """
    wanted = {path.relative_to(tree).as_posix(): path for path in tree.rglob("*") if path.is_file()}
    if copy is not None:
        root = Path(copy)
        found = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
        if found != wanted.keys():
            return f"{len(found)} of {len(wanted)} files"
        different = [name for name, path in wanted.items() if not _same(path, root / name)]
        return f"{len(different)} files that differ, as {different[0]}" if different else ""
    assert listing is not None
    if listing.keys() != wanted.keys():
        return f"{len(listing)} of {len(wanted)} objects"
    for name, (size, etag) in listing.items():
        if size != wanted[name].stat().st_size:
            return f"{name} with another size"
        if len(etag) == 32 and etag != _md5(wanted[name]):
            return f"{name} with another content"
    return ""


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _same(one: Path, other: Path) -> bool:
    with one.open("rb") as left, other.open("rb") as right:
        while True:
            chunk = left.read(1 << 20)
            if chunk != right.read(1 << 20):
                return False
            if not chunk:
                return True
