"""Whether this machine's processors have time to spare for another process."""

from __future__ import annotations

import time

SHARE = 0.7
"""Of one processor, is left unused by who now and then waits for a disk or a server."""
COST_S = 0.5
"""Of a processor's time, that it takes to start processes and have them connect."""
OWN, GAIN = 0.9, 0.5
"""Of one processor, is used by a process that waits for nothing but itself: Python runs one of its
threads at a time.  What others could do meanwhile counts as that much left unused, if as much is.
"""


class SpareTime:
    """What was left of the processors since this was first asked.

    Where somebody else on this machine needs them, perhaps the store itself, more processes only
    take turns with those that there are.
    """

    def __init__(self) -> None:
        self._idle = self._at = self._own = self._unused = 0.0

    def enough(self, busy: bool = False) -> bool:
        """Whether so much was left that other processes could have been started of it; False when
        asked for the first time.

        ``busy``: what this process is busy with, others could do as well.
        """
        idle, own, now = _idle_s(), time.process_time(), time.monotonic()
        if self._at:
            elapsed = now - self._at
            unused = idle - self._idle - SHARE * elapsed
            spare = idle - self._idle > GAIN * elapsed
            if busy and spare and own - self._own > OWN * elapsed:
                unused = max(unused, GAIN * elapsed)
            self._unused = max(self._unused + unused, 0)
        self._idle, self._own, self._at = idle, own, now
        return self._unused >= COST_S


class Idleness:
    """What share of all the processors' time nobody uses."""

    def __init__(self) -> None:
        self._idle, self._at = _idle_s(), time.monotonic()

    def share(self) -> float:
        """Of the time since this was last asked, 0 to 1."""
        import psutil

        idle, now = _idle_s(), time.monotonic()
        elapsed, unused = now - self._at, idle - self._idle
        self._idle, self._at = idle, now
        return unused / elapsed / (psutil.cpu_count() or 1) if elapsed > 0 else 0.0


def _idle_s() -> float:
    """Seconds in which processors had nothing to do but wait for disks, or work of low priority;
    summed up over all of them.
    """
    import psutil  # takes 7 ms, which a job of a moment has no use for

    times = psutil.cpu_times()
    return float(times.idle + getattr(times, "iowait", 0) + getattr(times, "nice", 0))
