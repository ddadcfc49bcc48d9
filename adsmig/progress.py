"""What a person sees while a run goes on: one live line, or a plain line now and then."""

from __future__ import annotations

import math
import os
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TextIO

from adsmig.model import Counts

LIVE_S, PLAIN_S = 0.2, 5.0
"""Between two updates, on a terminal and elsewhere."""
EVENT_S = 1.0
"""Between two JSON lines."""
WINDOW_S = 15.0
"""Rates are averages over so long."""


class Progress:
    """Call it with what is done so far; it prints to ``stream`` when it is time to.

    ``expected`` is what an earlier run of the job found, for a percentage before the listing has
    come to its end.
    """

    def __init__(
        self,
        expected: Counts | None = None,
        stream: TextIO | None = None,
        silent: bool | None = False,
        dryrun: bool = False,
    ) -> None:
        """``silent``: nothing is printed; only :meth:`due` is of interest."""
        self._dryrun = dryrun
        self._silent = silent
        self._due_at = time.monotonic() + LIVE_S
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._expected = expected or Counts()
        self._samples: deque[tuple[float, Counts]] = deque()
        self._printed_at = time.monotonic()
        self._shown = False

    def __call__(self, counts: Counts, last: bool, listed: bool = True) -> None:
        """``last`` ends the live line; ``listed``: all that there is to copy has been found."""
        now = time.monotonic()
        if self._silent:
            return
        if not self._samples:
            self._samples.append((now, counts))
        if last:
            if self._live and self._shown:
                self._write("\r\x1b[K")
            return
        if now - self._printed_at < (LIVE_S if self._live else PLAIN_S):
            return
        self._printed_at = now
        self._samples.append((now, counts))
        while len(self._samples) > 2 and now - self._samples[0][0] > WINDOW_S:
            self._samples.popleft()
        if self._live:
            self._write(f"\r{self.line(counts, listed, self._columns() - 1)}\x1b[K")
        else:
            self._write(self.line(counts, listed) + "\n")
        self._shown = True

    def _columns(self) -> int:
        """Of the terminal that it prints to, unless COLUMNS says otherwise."""
        try:
            columns = os.get_terminal_size(self._stream.fileno()).columns
        except OSError:
            columns = 0
        given = os.environ.get("COLUMNS", "")
        return int(given) if given.isdecimal() and int(given) else columns or 80

    def erase(self) -> None:
        """Makes room for something else that is printed to the same terminal."""
        if self._live and self._shown and not self._silent:
            self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        """Prints it; falls silent for good once there is nobody to print to, as after a hang-up."""
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            self._silent = True

    def due(self, last: bool) -> bool:
        """Whether it is time for one more JSON line: about every second, and at the end."""
        now = time.monotonic()
        if now < self._due_at and not last:
            return False
        self._due_at = now + EVENT_S
        return True

    def line(self, counts: Counts, listed: bool = True, width: int | None = None) -> str:
        """The line for ``counts``, with rates over the last seconds, in ``width`` columns.

        Percentage and remaining time are left out while nobody knows how much there is.
        """
        return _fitted(self._fields(counts, listed), width)

    def _fields(self, counts: Counts, listed: bool) -> Iterator[_Field]:
        (before, old), (now, new) = self._samples[0], self._samples[-1]
        seconds = max(now - before, 1e-3)
        settled = _settled(counts) - _settled(old)
        rate = (new.copied_bytes - old.copied_bytes) / seconds
        per_second = settled / seconds
        if self._dryrun:
            found = f" ({size(counts.found_bytes)})"
            yield _Field(0, f"found {counts.found:,}{found}", f"found {counts.found:,}")
            yield _Field(8, f"{per_second:,.0f}/s", f"{_short(per_second)}/s")
            if counts.failed:
                yield _Field(1, f"{counts.failed:,} failed")
            return
        done_bytes = counts.copied_bytes + counts.unchanged_bytes
        total = max(self._expected.found_bytes, counts.found_bytes)
        done, of = (done_bytes, total) if total else (_settled(counts), counts.found)
        known = listed or self._expected.found > 0
        share = f"{100 * done // of if of else 0}%" if known else "listing"
        yield _Field(0, f"found {counts.found:,}")
        yield _counted(7, "unchanged", counts.unchanged)
        yield _counted(5, "copied", counts.copied)
        if counts.deleted:
            yield _counted(6, "deleted", counts.deleted)
        yield _counted(1, "failed", counts.failed)
        yield _Field(2, share)
        yield _Field(8, f"{per_second:,.0f}/s", f"{_short(per_second)}/s")
        yield _Field(4, f"{size(rate)}/s")
        if known and rate > 0 and total > done_bytes:
            yield _Field(3, f"ETA {duration((total - done_bytes) / rate)}")


class _Field(NamedTuple):
    """A figure of the line."""

    rank: int
    """Where there is no room, the highest goes first."""
    text: str
    short: str = ""
    nothing: bool = False
    """It says that there is none of something."""


def _counted(rank: int, word: str, count: int) -> _Field:
    return _Field(rank, f"{word} {count:,}", f"{word} {_short(count)}", not count)


def _short(count: float) -> str:
    return f"{count:,.0f}" if count < 999_950 else f"{count / 1e6:,.1f}M"


def _fitted(fields: Iterable[_Field], width: int | None) -> str:
    """The fields in so many columns: without zeros, with short figures, or with fewer fields, each
    of them whole; for a number that was cut is another number.
    """
    shown = list(fields)
    text = ", ".join(one.text for one in shown)
    if width is None or len(text) <= width:
        return text
    shown = [one for one in shown if not one.nothing]
    text = ", ".join(one.text for one in shown)
    while len(text) > width and shown:
        text = ", ".join(one.short or one.text for one in shown)
        if len(text) > width:
            shown.remove(max(shown))
            text = ", ".join(one.short or one.text for one in shown)
    return text


def progress_event(counts: Counts, listing: bool) -> dict[str, object]:
    """What is done so far, as JSON has it; ``listing``: more may be found."""
    return {**counts._asdict(), "listing": listing}


def _settled(counts: Counts) -> int:
    return counts.copied + counts.unchanged + counts.failed + counts.left


_UNITS = ("kB", "MB", "GB", "TB", "PB")


def size(count: float) -> str:
    """Bytes as people write them: ``0 B``, ``1.5 MB``, powers of 1,000."""
    if count < 1000:
        return f"{count:.0f} B"
    power = min(int(math.log(count, 1000)), len(_UNITS))
    return f"{count / 1000**power:.1f} {_UNITS[power - 1]}"


def several(count: int, noun: str) -> str:
    """``0 objects``, ``1 object``, ``2,000 objects``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """``0:07``, ``12:34``, ``3:04:05``, ``2d 03:04:05``."""
    whole = int(seconds)
    days, rest = divmod(whole, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, left = divmod(rest, 60)
    if days:
        return f"{days}d {hours:02}:{minutes:02}:{left:02}"
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"
