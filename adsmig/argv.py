"""What other users of the machine see of the command line: it may hold an address with its keys."""

from __future__ import annotations

import ctypes
import re

_SCHEME = rb"[A-Za-z][\w+.-]*:/{1,2}"
_SECRET = re.compile(rb"\A(--?[\w-]+=)?(%b|(?!%b)).*:.*@" % (_SCHEME, _SCHEME), re.DOTALL)
"""All that stands before the last ``@``, if there is a colon in it as in ``ACCESS_KEY:SECRET_KEY``:
what is hidden without need is only not shown."""


def hide_secrets() -> None:
    """Overwrites the keys and passwords in ``ps`` and ``/proc/PID/cmdline`` with ``***``.

    ``sys.argv`` is a copy, and keeps them.  Linux only: it says in ``/proc/self/stat`` where a
    process has its arguments, the memory of which is the process's own (proc_pid_stat(5)).
    """
    try:
        with open("/proc/self/stat", "rb") as file:
            # The name before the last ')' may hold anything; arg_start is field 48.
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return
    start, end = int(fields[45]), int(fields[46])
    size = end - start
    if not start or size <= 0:
        return
    hidden = redacted(ctypes.string_at(start, size))
    if len(hidden) <= size:
        ctypes.memmove(start, hidden.ljust(size, b"\0"), size)


def redacted(arguments: bytes) -> bytes:
    """Arguments, each with a NUL at its end, without what may be keys or passwords."""
    return b"\0".join(_SECRET.sub(rb"\1\2***@", one) for one in arguments.split(b"\0"))
