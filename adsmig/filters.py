"""Which objects a job is about: by key, directory, size, age, or a list of names."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import lru_cache

from adsmig.comparison import time_of
from adsmig.errors import UsageError
from adsmig.model import Entry

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400, "M": 30 * 86400,
            "y": 365 * 86400}  # fmt: skip
_LOOKS_AHEAD = re.compile(r"\(\?[=!>(]|\$|\\[bBZ]|[*+?}]\+")
"""Ends, word boundaries, assertions, and repetitions that give nothing back."""


@dataclass(frozen=True, slots=True)
class Filters:
    """What the user wrote; checks itself, and raises UsageError for what cannot be understood.

    Patterns are regular expressions of Python's ``re``, searched in the key relative to the source,
    or in the paths of the directories that it lies in, without their last slash.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    include_dir: tuple[str, ...] = ()
    exclude_dir: tuple[str, ...] = ()
    min_size: int | None = None
    max_size: int | None = None
    """Bytes, inclusive."""
    newer_than: str = ""
    older_than: str = ""
    """An age before the beginning of the run (``30d``), or a time (``2026-01-31``)."""

    def __post_init__(self) -> None:
        for name in ("include", "exclude", "include_dir", "exclude_dir"):
            for pattern in getattr(self, name):
                try:
                    re.compile(pattern)
                except (re.error, RecursionError, OverflowError) as exc:
                    option = "--" + name.replace("_", "-")
                    raise UsageError(
                        f"{option} {pattern!r} is no regular expression: {exc}; a literal"
                        " '.', '*' or '(' needs a '\\' before it"
                    ) from exc
        for option, text in (("--newer-than", self.newer_than), ("--older-than", self.older_than)):
            if text:
                parse_time(text, 0, option)
        if None not in (self.min_size, self.max_size) and self.min_size > self.max_size:  # type: ignore[operator]
            raise UsageError(f"--min-size {self.min_size} is more than --max-size {self.max_size}")

    def __bool__(self) -> bool:
        return self != Filters()


class Selection:
    """Filters at work, for a run that began at ``began_ns`` (Unix time, nanoseconds)."""

    def __init__(self, filters: Filters, began_ns: int) -> None:
        self.filters = filters
        self._include, self._exclude = _any(filters.include), _any(filters.exclude)
        self._include_dir, self._exclude_dir = _any(filters.include_dir), _any(filters.exclude_dir)
        self._by_key = self._include or self._exclude
        self._by_directory = self._include_dir or self._exclude_dir
        self._newer_ns, self._older_ns = (
            parse_time(text, began_ns) if text else None
            for text in (filters.newer_than, filters.older_than)
        )
        self._last = (b"", True)  # the directory asked about last, and the answer

    def keeps_key(self, key: bytes) -> bool:
        """Whether an object of this key can be selected; the same at source and destination."""
        return not self._key_dropped(key) and not self._directory_dropped(key)

    def drops_below(self, directory: bytes) -> bool:
        """Whether it is certain that no key below ``directory``, which ends in ``/``, is selected.

        What a pattern finds in the directory's own path it finds in every key below, unless it
        looks at what follows.
        """
        if self.prune and self._directory_dropped(directory):
            return True
        text = directory.decode("utf-8", "surrogateescape")
        sure = (one for one in self.filters.exclude if not _LOOKS_AHEAD.search(one))
        return not self._include and any(re.search(one, text) for one in sure)

    @property
    def looks_at_entries(self) -> bool:
        """Whether size or age make a difference."""
        filters = self.filters
        sizes = filters.min_size is not None or filters.max_size is not None
        return sizes or self.looks_at_age

    @property
    def looks_at_age(self) -> bool:
        """Whether it makes a difference when an object was last changed."""
        return bool(self.filters.newer_than or self.filters.older_than)

    def keeps(self, entry: Entry) -> bool:
        """Whether the object is selected, its key being so."""
        return not self._entry_dropped(entry)

    def kept_once(self, entry: Entry) -> bool:
        """The same, had it been looked at in time: it may have become too old since, not too young,
        unless it was changed.
        """
        return not (self._size_dropped(entry) or self._young_dropped(entry))

    def reason(self, entry: Entry) -> str:
        """The options that drop the entry; '' if it is selected."""
        if self._directory_dropped(entry.key):
            return _said(self.filters, "include_dir", "exclude_dir")
        if self._key_dropped(entry.key):
            return _said(self.filters, "include", "exclude")
        return self._entry_dropped(entry)

    @property
    def prune(self) -> Callable[[bytes], bool] | None:
        """Tells of a directory, ending in ``/``, whether nothing below it can be selected."""
        if self._exclude_dir and not self._include_dir:
            return lambda directory: self._directory_dropped(directory)
        return None

    def _key_dropped(self, key: bytes) -> bool:
        if not self._by_key:
            return False
        return _dropped(key.decode("utf-8", "surrogateescape"), self._include, self._exclude)

    def _directory_dropped(self, key: bytes) -> bool:
        """Every directory that the key lies in counts, and a directory's own key counts as one."""
        if not self._by_directory:
            return False
        directory = key.rpartition(b"/")[0]
        known, dropped = self._last  # read once: other threads may ask as well
        if directory != known or not directory:
            text = directory.decode("utf-8", "surrogateescape")
            ends = [at for at, character in enumerate(text) if character == "/"] + [len(text)]
            above = [text[:end] for end in ends] if text else []
            included = any(map(self._include_dir, above)) if self._include_dir else False
            excluded = any(map(self._exclude_dir, above)) if self._exclude_dir else False
            keeps = included or (not excluded if self._exclude_dir else False)
            dropped = not keeps
            self._last = directory, dropped
        return dropped

    def _size_dropped(self, entry: Entry) -> str:
        filters = self.filters
        if filters.min_size is not None and entry.size < filters.min_size:
            return f"--min-size {filters.min_size}"
        if filters.max_size is not None and entry.size > filters.max_size:
            return f"--max-size {filters.max_size}"
        return ""

    def _entry_dropped(self, entry: Entry) -> str:
        if dropped := self._size_dropped(entry):
            return dropped
        filters = self.filters
        if self._newer_ns is not None and time_of(entry) <= self._newer_ns:
            return f"--newer-than {filters.newer_than}"
        return self._young_dropped(entry)

    def _young_dropped(self, entry: Entry) -> str:
        if self._older_ns is not None and time_of(entry) >= self._older_ns:
            return f"--older-than {self.filters.older_than}"
        return ""


def parse_size(text: str, option: str = "") -> int:
    """Bytes of ``1000``, ``10k``, ``1.5MiB``, ``2G``: powers of 1,024, as rclone reads them."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(?:i?b)?", text.strip(), re.IGNORECASE)
    if not match:
        raise UsageError(f"{option} {text!r} is no size; write bytes, or 100k, 5M, 1.5G, 2T")
    return int(float(match[1]) * _UNITS[match[2].lower()]) if match[2] else int(float(match[1]))


def parse_time(text: str, now_ns: int, option: str = "") -> int:
    """Unix nanoseconds of an age before ``now_ns`` (``90s``, ``1d12h``, ``2w``), or of a time.

    Units are s, m, h, d, w, M (30 days) and y (365), a bare number is seconds; times are ISO 8601
    in local time, unless they say otherwise.
    """
    ages = re.findall(r"(\d+(?:\.\d+)?)([smhdwMy])", text)
    if re.fullmatch(r"\d+(?:\.\d+)?", text):
        ages = [(text, "s")]
    elif "".join(number + unit for number, unit in ages) != text:
        ages = []
    if ages:
        return now_ns - int(sum(float(number) * _SECONDS[unit] for number, unit in ages) * 1e9)
    try:
        when = datetime.fromisoformat(text.replace("Z", "+00:00"))
        return int(when.timestamp()) * 1_000_000_000 + when.microsecond * 1000
    except (ValueError, OverflowError, OSError) as exc:
        raise UsageError(
            f"{option} {text!r} is neither an age (90s, 12h, 30d, 2w, 6M, 1y) nor a time"
            f" ({datetime.now(timezone.utc):%Y-%m-%d}, {datetime.now(timezone.utc):%Y-%m-%dT%H:%M})"
        ) from exc


@lru_cache(maxsize=16)
def _any(patterns: tuple[str, ...]) -> Callable[[str], object] | None:
    """A search for any of the patterns; None for no patterns."""
    if not patterns:
        return None
    if len(patterns) == 1:
        return re.compile(patterns[0]).search
    searches = [re.compile(pattern).search for pattern in patterns]  # joined, groups would clash
    return lambda text: any(search(text) for search in searches)


def _dropped(
    text: str,
    include: Callable[[str], object] | None,
    exclude: Callable[[str], object] | None,
) -> bool:
    if include and include(text):
        return False
    return bool(exclude(text)) if exclude else True


def _said(filters: Filters, *names: str) -> str:
    """The options as the user gave them."""
    return " ".join(
        f"--{name.replace('_', '-')} {os.fsdecode(pattern)!r}"
        for name in names
        for pattern in getattr(filters, name)
    )
