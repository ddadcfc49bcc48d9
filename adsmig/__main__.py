"""``python -m adsmig`` and the console scripts; imports little, for workers import it too."""

from __future__ import annotations

import contextlib
import os
import signal
import sys

from adsmig.interruption import INTERRUPTED


def main() -> None:
    """Runs the command line and exits with its code."""
    from adsmig.argv import hide_secrets

    hide_secrets()  # first: what follows takes a moment
    code = INTERRUPTED
    with contextlib.suppress(KeyboardInterrupt):
        for one in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(one) == signal.SIG_DFL:
                signal.signal(one, signal.default_int_handler)
        from adsmig.cli import run

        code = run(sys.argv[1:])
    if code == INTERRUPTED:
        # Threads may still wait for a server that says nothing. Nobody waits for them.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
