"""What is there, in figures that stay small."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone
from heapq import nsmallest
from itertools import repeat
from typing import Any

from adsmig.forecast import Forecast
from adsmig.tally import (
    LARGE_SIZE,
    MOST_NAMES,
    OTHER,
    OTHER_EXTENSIONS,
    Tally,
    add_to,
    parts,
    ranked,
    tally_of,
)

MOST_DIRECTORIES = 10_000
"""More than these, and they are told apart one level less deep."""
MOST_EXTENSIONS = 1_000
MOST_LARGEST = 20
LONGEST_EXTENSION = 16

_DAY_NS = 86400 * 10**9
_SIZE_BOUNDS = (1, *(10**power for power in range(3, 13)))
SIZES = ("empty", "under 1 kB", "1–10 kB", "10–100 kB", "100 kB–1 MB", "1–10 MB", "10–100 MB",
         "100 MB–1 GB", "1–10 GB", "10–100 GB", "100 GB–1 TB", "over 1 TB")  # fmt: skip
"""Classes of sizes; the lower bound is part of a class, the upper is not; kB is 1,000 bytes."""
_AGE_BOUNDS_NS = (0, *(days * _DAY_NS for days in (1, 7, 30, 90, 365, 3 * 365, 10 * 365)))
AGES = ("in the future", "under a day", "1–7 days", "7–30 days", "30–90 days", "90 days–1 year",
        "1–3 years", "3–10 years", "over 10 years")  # fmt: skip
"""Classes of ages; a year has 365 days."""
NO_EXTENSION = "(none)"
_NO_EXTENSION = b""


class Inventory:
    """Tallies of any number of objects: picklable, mergeable, of bounded size whatever the keys.

    A directory marker, an empty object whose key ends in ``/``, is counted in
    ``directories_marked`` and nowhere else.  Ages are relative to ``now_ns`` (Unix time).

    Where there are more than MOST_DIRECTORIES directories at ``depth``, ``depth`` is lowered and
    the figures are folded.  Extensions beyond MOST_EXTENSIONS, and names beyond MOST_NAMES, are
    tallied together as OTHER: those that came first are kept.
    """

    def __init__(self, now_ns: int, depth: int = 1) -> None:
        """``depth``: a key's first so many directories make up its directory's name."""
        self.now_ns, self.depth = now_ns, depth
        self.wanted_depth = depth
        self.directories_marked = 0
        self.large_objects = 0
        """Beyond LARGE_SIZE."""
        self.large_parts = 0
        """That these are copied in."""
        self.forecast = Forecast()
        self._first_ns, self._last_ns = 1 << 127, -(1 << 127)
        self._sizes = [[0, 0] for _ in SIZES]
        self._ages = [[0, 0] for _ in AGES]
        self._directories: dict[bytes, list[int]] = {}
        self._extensions = {_NO_EXTENSION: [0, 0]}
        self._storage_classes: dict[str, list[int]] = {}
        self._largest: list[tuple[int, bytes]] = []  # sizes negative: the largest is the first
        self._least = 0  # of what may be among the largest
        # The directory entered last; keys mostly stay in it.  Nothing starts with one of ().
        self._here = [0, 0, 0, 0]
        self._at: bytes | tuple[bytes, ...] = ()

    def __repr__(self) -> str:
        return f"Inventory({self.objects} objects, {self.size} bytes, depth {self.depth})"

    # Filling it.  Each figure is kept once, and `add` is flat, for it is called for every object.

    def add(self, key: bytes, size: int, time_ns: int, storage_class: str) -> None:
        """Counts one object."""
        if not size and key[-1:] == b"/":
            self.directories_marked += 1
            return
        tally = self._here if key.startswith(self._at) else self._enter(key, size)
        tally[0] += 1
        tally[1] += size
        if size < tally[2]:
            tally[2] = size
        if size > tally[3]:
            tally[3] = size
        dot = key.rfind(b".")
        extension = key[dot + 1 :].lower() if dot > key.rfind(b"/") + 1 else b""
        tally = self._extensions.get(extension) or self._extension(extension)
        tally[0] += 1
        tally[1] += size
        tally = self._sizes[bisect_right(_SIZE_BOUNDS, size)]
        tally[0] += 1
        tally[1] += size
        tally = self._ages[bisect_right(_AGE_BOUNDS_NS, self.now_ns - time_ns)]
        tally[0] += 1
        tally[1] += size
        tally = self._storage_classes.get(storage_class) or tally_of(
            self._storage_classes, storage_class, MOST_NAMES
        )
        tally[0] += 1
        tally[1] += size
        if time_ns < self._first_ns:
            self._first_ns = time_ns
        if time_ns > self._last_ns:
            self._last_ns = time_ns
        if size >= self._least:
            self._keep(size, key)
        if size > LARGE_SIZE:
            self.large_objects += 1
            self.large_parts += parts(size)

    def add_all(
        self,
        keys: Sequence[bytes],
        sizes: Sequence[int],
        times: Sequence[int],
        classes: Sequence[str],
    ) -> None:
        """As :meth:`add`, for objects in the order of their keys; a column each, of equal length.

        Made a figure at a time, not an object at a time, as most of it is then done by one call.
        """
        if not keys:
            return
        if 0 in sizes and any(map(bytes.endswith, keys, repeat(b"/"))):  # may be markers
            for one in zip(keys, sizes, times, classes, strict=True):
                self.add(*one)
            return
        self._add_directories(keys, sizes)
        self._add_extensions(keys, sizes)
        largest, first_ns, last_ns = max(sizes), min(times), max(times)
        _spread(self._sizes, _SIZE_BOUNDS, (min(sizes), largest), sizes, sizes)
        ages = (self.now_ns - time_ns for time_ns in times)
        extremes = self.now_ns - last_ns, self.now_ns - first_ns
        _spread(self._ages, _AGE_BOUNDS_NS, extremes, ages, sizes)
        for name in dict.fromkeys(classes):
            of_name = sizes
            if len(of_name) != classes.count(name):
                of_name = [size for one, size in zip(classes, sizes, strict=True) if one == name]
            tally = tally_of(self._storage_classes, name, MOST_NAMES)
            tally[0] += len(of_name)
            tally[1] += sum(of_name)
        self._first_ns = min(self._first_ns, first_ns)
        self._last_ns = max(self._last_ns, last_ns)
        if largest >= self._least:
            found = ((-size, key) for size, key in zip(sizes, keys, strict=True))
            for negative, key in nsmallest(MOST_LARGEST, found):
                self._keep(-negative, key)
        if largest > LARGE_SIZE:
            large = [size for size in sizes if size > LARGE_SIZE]
            self.large_objects += len(large)
            self.large_parts += sum(map(parts, large))

    def _add_directories(self, keys: Sequence[bytes], sizes: Sequence[int]) -> None:
        at, end = 0, len(keys)
        while at < end:
            key = keys[at]
            tally = self._here if key.startswith(self._at) else self._enter(key, sizes[at])
            until = at + 1
            if self._at == b"":
                until = end
            elif isinstance(self._at, bytes):
                until = bisect_left(keys, self._at[:-1] + b"0", until)  # "0" comes after "/"
            else:
                name = _directory(key, self.depth)
                while until < end and _directory(keys[until], self.depth) == name:
                    until += 1
            these = sizes[at:until]
            tally[0] += len(these)
            tally[1] += sum(these)
            tally[2] = min(tally[2], min(these))
            tally[3] = max(tally[3], max(these))
            at = until

    def _add_extensions(self, keys: Sequence[bytes], sizes: Sequence[int]) -> None:
        if b"." not in b"".join(keys):
            tally = self._extensions[_NO_EXTENSION]
            tally[0] += len(keys)
            tally[1] += sum(sizes)
            return
        for key, size in zip(keys, sizes, strict=True):
            dot = key.rfind(b".")
            name = key[dot + 1 :].lower() if dot > key.rfind(b"/") + 1 else b""
            tally = self._extensions.get(name) or self._extension(name)
            tally[0] += 1
            tally[1] += size

    def merge(self, other: Inventory) -> None:
        """Adds the figures of ``other``, which covers other keys and stays as it is.

        However the keys are split and merged, the figures are the same, directories included.
        Only what OTHER has swallowed on one side is not told apart again.
        """
        self.directories_marked += other.directories_marked
        self.large_objects += other.large_objects
        self.large_parts += other.large_parts
        self._first_ns = min(self._first_ns, other._first_ns)
        self._last_ns = max(self._last_ns, other._last_ns)
        for mine, theirs in ((self._sizes, other._sizes), (self._ages, other._ages)):
            for tally, more in zip(mine, theirs, strict=True):
                add_to(tally, more)
        for name, more in other._extensions.items():
            add_to(tally_of(self._extensions, name, MOST_EXTENSIONS), more)
        for text, more in other._storage_classes.items():
            add_to(tally_of(self._storage_classes, text, MOST_NAMES), more)
        self.forecast.merge(other.forecast)
        for negative, key in other._largest:
            self._keep(-negative, key)
        self.wanted_depth = min(self.wanted_depth, other.wanted_depth)
        self._fold(min(self.depth, other.depth))
        _merge(self._directories, other._directories, self.depth)
        self._shrink()

    def _enter(self, key: bytes, size: int) -> list[int]:
        """The tally of the directory of ``key``."""
        tally = self._directories.get(name := _directory(key, self.depth))
        if tally is None:
            tally = self._directories[name] = [0, 0, size, size]
            if len(self._directories) > MOST_DIRECTORIES:
                self._shrink()
                return self._enter(key, size)
        # In a directory less deep than may be, what begins with its name can be of another.
        self._here, self._at = tally, name if name.count(b"/") == self.depth else ()
        return tally

    def _shrink(self) -> None:
        while len(self._directories) > MOST_DIRECTORIES:
            self._fold(self.depth - 1)

    def _fold(self, depth: int) -> None:
        if depth < self.depth:
            deep, self._directories, self.depth = self._directories, {}, depth
            _merge(self._directories, deep, depth)
        self._at = ()

    def _extension(self, name: bytes) -> list[int]:
        """The tally of a lower-case extension that has none yet, or is none."""
        if len(name) > LONGEST_EXTENSION or not name.isalnum():
            name = _NO_EXTENSION
        return tally_of(self._extensions, name, MOST_EXTENSIONS)

    def _keep(self, size: int, key: bytes) -> None:
        """Among the largest, if it is; of equal ones the first keys are."""
        if len(self._largest) == MOST_LARGEST:
            if (-size, key) > self._largest[-1]:
                return
            self._largest.pop()
        insort(self._largest, (-size, key))
        if len(self._largest) == MOST_LARGEST:
            self._least = -self._largest[-1][0]

    # Reading it

    @property
    def objects(self) -> int:
        """How many were added, without directory markers."""
        return sum(count for count, _ in self._sizes)

    @property
    def size(self) -> int:
        """Bytes of all objects."""
        return sum(size for _, size in self._sizes)

    @property
    def empty(self) -> int:
        """Objects without content."""
        return self._sizes[0][0]

    @property
    def total(self) -> Tally:
        """Everything, as one group."""
        tallies = self._directories.values()
        smallest = min((tally[2] for tally in tallies), default=None)
        largest = max((tally[3] for tally in tallies), default=None)
        return Tally(self.objects, self.size, smallest, largest)

    @property
    def first_ns(self) -> int | None:
        """The oldest object's time; None where there is no object."""
        return self._first_ns if self.objects else None

    @property
    def last_ns(self) -> int | None:
        """The newest object's time."""
        return self._last_ns if self.objects else None

    def by_directory(self) -> list[tuple[bytes, Tally]]:
        """Directories, ending in ``/``, with all that is in and below them; most bytes first.

        ``b""`` is for the objects in no directory; at depth 0, for everything.
        """
        return ranked((name, Tally(*tally)) for name, tally in self._directories.items())

    def by_extension(self) -> list[tuple[str, Tally]]:
        """Lower-case extensions of letters and digits, without the dot; most bytes first."""
        names = {_NO_EXTENSION: NO_EXTENSION, OTHER_EXTENSIONS: OTHER}
        return ranked(
            (names.get(name) or name.decode(), Tally(*tally))
            for name, tally in self._extensions.items()
            if tally[0]
        )

    def by_size(self) -> list[tuple[str, Tally]]:
        """All of SIZES, in this order."""
        return [(name, Tally(*tally)) for name, tally in zip(SIZES, self._sizes, strict=True)]

    def by_age(self) -> list[tuple[str, Tally]]:
        """All of AGES, in this order."""
        return [(name, Tally(*tally)) for name, tally in zip(AGES, self._ages, strict=True)]

    def by_storage_class(self) -> list[tuple[str, Tally]]:
        """Most bytes first; stores give no name to the usual one, STANDARD."""
        tallies: dict[str, list[int]] = {}
        for name, tally in self._storage_classes.items():
            add_to(tallies.setdefault(name or "STANDARD", [0, 0]), tally)
        return ranked((name, Tally(*tally)) for name, tally in tallies.items())

    def largest(self) -> list[tuple[bytes, int]]:
        """Keys and sizes of the largest objects, largest first."""
        return [(key, -negative) for negative, key in self._largest]

    def to_json(self) -> dict[str, Any]:
        """Everything, for json.dumps: sizes in bytes, times as of :func:`when`, keys as text."""
        directories = [(text(name), tally) for name, tally in self.by_directory()]
        return {
            **_json(self.total),
            "empty": self.empty,
            "directories_marked": self.directories_marked,
            "large_objects": self.large_objects,
            "large_parts": self.large_parts,
            "first": when(self.first_ns),
            "last": when(self.last_ns),
            "now": when(self.now_ns),
            "depth": self.depth,
            "directories": [{"name": name, **_json(tally)} for name, tally in directories],
            **{
                section: [{"name": name, **_json(tally)} for name, tally in tallies]
                for section, tallies in (
                    ("sizes", self.by_size()),
                    ("ages", self.by_age()),
                    ("extensions", self.by_extension()),
                    ("storage_classes", self.by_storage_class()),
                    ("verdicts", self.forecast.by_verdict()),
                )
            },
            "largest": [{"key": text(key), "bytes": size} for key, size in self.largest()],
            "troubles": [
                {"kind": kind, "objects": count, "examples": [text(key) for key in keys]}
                for kind, count, keys in self.forecast.troubles()
            ],
        }


def text(key: bytes) -> str:
    """A key for a machine to read; what is not UTF-8 is written as ``\\xNN``."""
    return key.decode("utf-8", "backslashreplace")


def when(time_ns: int | None) -> str | None:
    """ISO 8601 in UTC, to the second; the bare seconds for what no calendar reaches."""
    if time_ns is None:
        return None
    seconds = time_ns // 10**9
    try:
        time = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=seconds)
    except OverflowError:
        return str(seconds)
    return time.strftime("%Y-%m-%dT%H:%M:%SZ") if time.year >= 1000 else str(seconds)


def _spread(
    tallies: list[list[int]],
    bounds: Sequence[int],
    extremes: tuple[int, int],
    values: Iterable[int],
    sizes: Sequence[int],
) -> None:
    """Tallies objects by which of the classes between ``bounds`` their ``values`` are in, of which
    the least and the greatest are ``extremes``; mostly one class has all.
    """
    first, last = (bisect_right(bounds, value) for value in extremes)
    if first == last:
        tallies[first][0] += len(sizes)
        tallies[first][1] += sum(sizes)
        return
    for value, size in zip(values, sizes, strict=True):
        tally = tallies[bisect_right(bounds, value)]
        tally[0] += 1
        tally[1] += size


def _directory(key: bytes, depth: int) -> bytes:
    """The first ``depth`` directories of a key, or of a directory's name."""
    return key[: len(key) - len(key.split(b"/", depth)[-1])] if depth else b""


def _merge(into: dict[bytes, list[int]], directories: dict[bytes, list[int]], depth: int) -> None:
    for name, more in directories.items():
        tally = into.setdefault(_directory(name, depth), [0, 0, more[2], more[3]])
        add_to(tally, more)
        tally[2], tally[3] = min(tally[2], more[2]), max(tally[3], more[3])


def _json(tally: Tally) -> dict[str, Any]:
    known = {"objects": tally.objects, "bytes": tally.size}
    if tally.smallest is None:
        return known
    return {**known, "min": tally.smallest, "max": tally.largest, "average": tally.average}
