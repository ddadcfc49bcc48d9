"""Whether this machine's processors have time to spare for another process."""

from __future__ import annotations

import os
import time
from typing import NamedTuple

BUSY = 0.6
"""Of one processor, is used at least by a process that others could help."""


class Terms(NamedTuple):
    """What has to be left of the processors' time before more processes are worth it."""

    share: float
    """Of one processor, is left unused in any case, by who now and then waits for a disk or a
    server."""
    cost_s: float
    """Of a processor's time, that it takes to start them."""
    waiting: float
    """What a time counts in which this process was not busy: it waited for something else, which
    others may have to wait for as well."""


USUAL = Terms(0.5, 0.03, 0.06)
LOGINS = Terms(0.7, 0.5, 0.0)
"""Where each process has to log in anew, for each of its threads.  Who waits for an answer is
helped by more threads."""
LISTING = Terms(0.7, 0.5, 1.0)
"""Where nothing is copied: that is done in a moment, mostly, and takes little memory as long as it
is one process; but what one waits for far away, others need not."""


class SpareTime:
    """What was left of the processors since this was made.

    Where somebody else on this machine needs them, perhaps the store itself, more processes only
    take turns with those that there are.
    """

    def __init__(self, terms: Terms = USUAL) -> None:
        self._terms = terms
        self._unused = 0.0
        self.begin()

    def enough(self) -> bool:
        """Whether so much was left that other processes could have been started of it."""
        idle, own, at = self._idle, self._own, self._at
        self.begin()
        elapsed = self._at - at
        unused = self._idle - idle - self._terms.share * elapsed
        if self._own - own < BUSY * elapsed:
            unused *= self._terms.waiting
        # What was left a while ago, is no longer: little more is remembered than is asked for, so
        # that who is told of room, and then waits for a slice to be given back, is told so again.
        self._unused = min(max(self._unused + unused, 0), 1.5 * self._terms.cost_s)
        return self._unused >= self._terms.cost_s

    def begin(self) -> None:
        """Counts nothing of what was left unused since this was last asked."""
        self._idle, self._own, self._at = _idle_s(), time.process_time(), time.monotonic()


class Idleness:
    """What share of all the processors' time nobody uses."""

    def __init__(self) -> None:
        self._idle, self._at = _idle_s(), time.monotonic()

    def share(self) -> float:
        """Of the time since this was last asked, 0 to 1."""
        idle, now = _idle_s(), time.monotonic()
        elapsed, unused = now - self._at, idle - self._idle
        self._idle, self._at = idle, now
        return unused / elapsed / (os.cpu_count() or 1) if elapsed > 0 else 0.0


def _idle_s() -> float:
    """Seconds in which processors had nothing to do, nor waited for a disk, or had work of low
    priority; summed up over all of them.  Where nobody tells: as if one had nothing else to do.
    """
    try:
        with open("/proc/stat", "rb", buffering=0) as file:  # proc(5)
            fields = file.read(4096).split(None, 6)
        nice, idle = int(fields[2]), int(fields[4])
    except (OSError, ValueError, IndexError):
        return time.monotonic()
    return (nice + idle) / os.sysconf("SC_CLK_TCK")
