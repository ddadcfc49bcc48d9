"""Whether this machine's processors have time to spare for another process."""

from __future__ import annotations

import time

WINDOW_S = 0.35
"""The least time over which they are looked at."""
ENOUGH = 0.7
"""Of one processor; a process that gets less of it than that is not worth its start."""


class SpareTime:
    """What was left of the processors since this was last asked.

    Where somebody else on this machine needs them, perhaps the store itself, more processes only
    take turns with those that there are.
    """

    def __init__(self) -> None:
        self._idle = self._at = 0.0

    def enough(self) -> bool:
        """Whether another process would have something to run on; False when asked for the first
        time, and as long as it is too early to tell.
        """
        now = time.monotonic()
        if self._at and now - self._at < WINDOW_S:
            return False
        idle, before = _idle_s(), self._idle
        seconds, first = now - self._at, not self._at
        self._idle, self._at = idle, now
        return not first and (idle - before) / seconds >= ENOUGH


def _idle_s() -> float:
    """Seconds in which processors had nothing to do but wait for disks, or work of low priority;
    summed up over all of them.
    """
    import psutil  # takes 7 ms, which a job of a moment has no use for

    times = psutil.cpu_times()
    return float(times.idle + getattr(times, "iowait", 0) + getattr(times, "nice", 0))
