"""Places at which a test can have the program die, as ``kill -9`` or a power cut might.

``ADSMIG_FAILPOINT=NAME:COUNT:ACTION:FILE`` has the process that comes to the point NAME as the
COUNT-th, of all processes and since FILE was new, carry out ACTION: ``kill`` ends that process,
``group`` its whole process group, ``stop`` stops it.  It happens once: a run that goes on with the
same FILE gets past it.  Processes take the variable from the one that started them.

Without it, :func:`reach` does nothing, for as little time as a call takes.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

VARIABLE = "ADSMIG_FAILPOINT"

POINTS = {
    # In the process that has the manifest:
    "run.locked": "the manifest is this process's, and the run not yet begun or gone on with",
    "commit.before": "a transaction of the manifest is complete but for its COMMIT",
    "commit.after": "a transaction of the manifest is durable, and nothing was done about it",
    "run.settled": "all is done; the staging directory is there, the run not yet finished",
    "run.tidied": "the staging directory is gone, the run not yet finished",
    # In a worker:
    "slice.begun": "a range was lent, and nothing done about it",
    "object.begun": "the source's object is open, and nothing of it written",
    "file.staged": "a file is whole, but not in its place",
    "object.stored": "the destination has the object",
    "flush.before": "all of a slice, or of some parts, is written, and perhaps only in memory",
    "flush.after": "it is on stable storage, and nobody was told",
    "upload.begun": "the destination has opened a multipart upload, and nobody was told",
    "part.stored": "the destination has a part",
    "upload.completing": "all parts are there, and the object is not",
    "upload.completed": "the object is there, and nobody was told",
    "delete.before": "objects are about to be removed, at either side",
    "delete.after": "they are gone, and nobody was told",
    "directory.before": "a directory is about to get its permissions and times",
    "directory.after": "it has them, and nobody was told",
}
"""Every point, and what is so when it is reached."""

ACTIONS: dict[str, Callable[[], None]] = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "group": lambda: os.killpg(0, signal.SIGKILL),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
}


def _nothing(name: str) -> None:
    """No point is named."""


def _armed(text: str) -> Callable[[str], None]:
    point, count, action, path = text.split(":", 3)
    number, act = int(count), ACTIONS[action]
    if point not in POINTS:
        raise ValueError(f"{VARIABLE} names no point: {point}")

    def reach(name: str) -> None:
        if name != point:
            return
        # A byte for each time; where one's own byte lies, tells how many there were before.
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, b".")
            times = os.lseek(fd, 0, os.SEEK_CUR)
        finally:
            os.close(fd)
        if times == number:
            act()

    return reach


reach: Callable[[str], None] = _armed(os.environ[VARIABLE]) if VARIABLE in os.environ else _nothing
"""``reach(name)`` is called where the program comes to a point."""
