"""What a person sees while a run goes on: one live line, or a plain line now and then."""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections import deque
from typing import TextIO

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
        line = self.line(counts, listed)
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            self._write(f"\r{line[:width]}\x1b[K")
        else:
            self._write(line + "\n")
        self._shown = True

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

    def line(self, counts: Counts, listed: bool = True) -> str:
        """The line for ``counts``, with rates over the last seconds.

        Percentage and remaining time are left out while nobody knows how much there is.
        """
        (before, old), (now, new) = self._samples[0], self._samples[-1]
        seconds = max(now - before, 1e-3)
        settled = _settled(counts) - _settled(old)
        rate = (new.copied_bytes - old.copied_bytes) / seconds
        if self._dryrun:
            text = (
                f"found {counts.found:,} ({size(counts.found_bytes)}), {settled / seconds:,.0f}/s"
            )
            return f"{text}, {counts.failed:,} failed" if counts.failed else text
        done_bytes = counts.copied_bytes + counts.unchanged_bytes
        total = max(self._expected.found_bytes, counts.found_bytes)
        done, of = (done_bytes, total) if total else (_settled(counts), counts.found)
        known = listed or self._expected.found > 0
        share = f"{100 * done // of if of else 0}%" if known else "listing"
        text = (
            f"found {counts.found:,}, unchanged {counts.unchanged:,}, copied {counts.copied:,},"
            f"{f' deleted {counts.deleted:,},' if counts.deleted else ''}"
            f" failed {counts.failed:,}, {share}, {settled / seconds:,.0f}/s, {size(rate)}/s"
        )
        if known and rate > 0 and total > done_bytes:
            text += f", ETA {duration((total - done_bytes) / rate)}"
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


def duration(seconds: float) -> str:
    """``0:07``, ``12:34``, ``3:04:05``, ``2d 03:04:05``."""
    whole = int(seconds)
    days, rest = divmod(whole, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, left = divmod(rest, 60)
    if days:
        return f"{days}d {hours:02}:{minutes:02}:{left:02}"
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"
