"""Whether this machine's processors have time to spare for another process."""

from __future__ import annotations

import os
import time

SHARE, DEAR_SHARE = 0.5, 0.7
"""Of one processor, is left unused by who now and then waits for a disk or a server."""
COST_S, DEAR_COST_S = 0.03, 0.5
"""Of a processor's time, that it takes to start processes; and where it costs more than that."""
BUSY, WAITING = 0.6, 0.06
"""Of one processor, is used at least by a process that others could help; and what a time counts in
which it waited for something else, which others may have to wait for as well.
"""


class SpareTime:
    """What was left of the processors since this was made.

    Where somebody else on this machine needs them, perhaps the store itself, more processes only
    take turns with those that there are.  ``dear``: each costs the store, or memory, more besides.
    """

    def __init__(self, dear: bool = False) -> None:
        self._share, self._cost_s = (DEAR_SHARE, DEAR_COST_S) if dear else (SHARE, COST_S)
        self._unused = 0.0
        self._dear = dear
        self.begin()

    def enough(self) -> bool:
        """Whether so much was left that other processes could have been started of it."""
        idle, own, at = self._idle, self._own, self._at
        self.begin()
        elapsed = self._at - at
        unused = self._idle - idle - self._share * elapsed
        if not self._dear and self._own - own < BUSY * elapsed:
            unused *= WAITING
        # What was left a while ago, is no longer: little more is remembered than is asked for, so
        # that who is told of room, and then waits for a slice to be given back, is told so again.
        self._unused = min(max(self._unused + unused, 0), 1.5 * self._cost_s)
        return self._unused >= self._cost_s

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
