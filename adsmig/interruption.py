"""What ends a run early: Ctrl-C, a signal that asks for the end, a terminal that is gone."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTED = 130
"""The exit code, as of a shell's command that Ctrl-C ended."""
PATIENCE_S = 10.0
"""How long there is to settle what is in hand."""
ONE_S = 0.5
"""Signals less than this apart are one: timeout(1) sends its own twice, to the process and to the
group."""


@contextlib.contextmanager
def answered(stop: Callable[[], bool], leave: Callable[[], None]) -> Iterator[None]:
    """Answers the signals that ask for the end, if this is the main thread.

    The first calls ``stop``, which tells whether there is something in hand; KeyboardInterrupt
    comes after PATIENCE_S if there is, else at once.  Another one calls ``leave`` and ends the
    process, also after this was left.  Signals that were ignored (nohup, a script's background)
    stay so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    first: float | None = None

    def handle(number: int, frame: object) -> None:
        nonlocal first
        if first is None:
            first = time.monotonic()
            if not stop():
                raise KeyboardInterrupt
            signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)
        elif time.monotonic() - first > ONE_S:
            leave()
            os._exit(INTERRUPTED)  # the workers notice that they are alone, and end too

    def out_of_patience(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {one: signal.getsignal(one) for one in SIGNALS}
    mine = [one for one, handler in before.items() if handler != signal.SIG_IGN]
    for one in mine:
        signal.signal(one, handle)
    alarm = signal.signal(signal.SIGALRM, out_of_patience)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, alarm)
        if first is None:
            for one in mine:
                signal.signal(one, before[one])
