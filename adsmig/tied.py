"""Ties the process that imports it to the one that started it: when that ends, the kernel kills it.

For the process that workers are forked from, which imports what it is told to; and the kernel does
so also with one that is stopped, and could notice nothing itself.
"""

from __future__ import annotations

import ctypes
import signal

_libc = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def tie() -> None:
    """See prctl(2); it is the end of the thread that started the process that counts."""
    if hasattr(_libc, "prctl"):
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


tie()
