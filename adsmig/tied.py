"""Ties the process that imports it to the one that started it: when that ends, the kernel kills it.

For the process that workers are forked from, which imports what it is told to, and for whom it
forks, from the first moment on; the kernel does so also with one that is stopped, and could notice
nothing itself.
"""

from __future__ import annotations

import ctypes
import os
import signal

_libc = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def tie(told: signal.Signals = signal.SIGKILL) -> None:
    """See prctl(2); it is the end of the thread that started the process that counts.  ``told``:
    what the kernel sends then, in place of what was asked for before.
    """
    if hasattr(_libc, "prctl"):
        _libc.prctl(_PR_SET_PDEATHSIG, told)


tie()
os.register_at_fork(after_in_child=tie)
