"""``python -m adsmig`` and the console scripts; imports little, for workers import it too."""

from __future__ import annotations

import atexit
import contextlib
import gc
import io
import os
import signal
import sys
import threading
from typing import NoReturn

from adsmig.interruption import INTERRUPTED


def occupy_streams() -> None:
    """Has standard streams that whoever started us closed lead nowhere.

    Else the first file that is opened would get such a stream's number, and whatever is said there.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def main() -> None:
    """Runs the command line and exits with its code."""
    # What is imported, and listed later on, makes very many objects, and hardly any garbage.
    gc.set_threshold(50_000)
    occupy_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # nothing is lost where it is not UTF-8
    from adsmig.argv import hide_secrets

    hide_secrets()  # first: what follows takes a moment
    code = INTERRUPTED
    with contextlib.suppress(KeyboardInterrupt):
        for one in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(one) == signal.SIG_DFL:
                signal.signal(one, signal.default_int_handler)
        from adsmig.program import run

        code = run(sys.argv[1:])
    if code == INTERRUPTED:
        # Threads may still wait for a server that says nothing. Nobody waits for them.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(code)
    _end(code)


def _end(code: int) -> NoReturn:
    """Ends this process, as sys.exit does at last.

    Without threads to wait for, all that an interpreter does after its exit functions is to take
    itself apart, for 10 ms and more.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # of a terminal that is gone: tried again at last, it would change the code
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    with contextlib.suppress(OSError, KeyboardInterrupt):
        if threading.active_count() == 1:
            atexit._run_exitfuncs()
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
