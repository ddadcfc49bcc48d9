"""Who has a manifest, and how far it had come: a file beside it, locked with flock, which a dead
process cannot keep.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from pathlib import Path

from adsmig.errors import ManifestError, ManifestInUse


class Lock:
    """The lock of the manifest at ``path``, taken for as long as it is not closed.

    Raises ManifestInUse naming who holds it, ManifestError if nobody can.  ``name``: what errors
    call it, if it is another database.
    """

    def __init__(self, path: Path, name: str = "the manifest") -> None:
        self._path = path
        try:
            self._fd = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise ManifestError(f"cannot write {name} {path}: {exc.strerror}") from exc
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            holder = self._text().partition("\n")[0].strip() or "another process"
            os.close(self._fd)
            raise ManifestInUse(f"{path} is in use by {holder}; wait for it, or end it") from exc
        noted = re.search(r"\n(\d+)\n", self._text())
        self.noted = int(noted[1]) if noted else 0
        """What was noted last, perhaps by an earlier process."""
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime())
        text = f"process {os.getpid()} on {os.uname().nodename} since {since}\n".encode()
        self._at = len(text)
        with contextlib.suppress(OSError):  # no room: then nobody is told
            os.truncate(self._fd, 0)
            os.pwrite(self._fd, text, 0)
        self.note(self.noted)

    def note(self, number: int) -> None:
        """Keeps how many checkpoints the manifest holds, by which a lost ``-wal`` shows."""
        self.noted = number
        with contextlib.suppress(OSError):
            os.pwrite(self._fd, b"%020d\n" % number, self._at)

    def close(self) -> None:
        """Lets go of it."""
        os.close(self._fd)

    def _text(self) -> str:
        return os.pread(self._fd, 400, 0).decode(errors="replace")


def holder(path: Path) -> int | None:
    """The process of this machine that has the manifest at ``path`` locked, if one has.

    It takes no lock itself, which a job that is just being started would run into.
    """
    lock = f"{path}.lock"
    try:
        with open(lock, encoding="utf-8") as file:
            match = re.match(r"process (\d+) on (\S+) since ", file.read(200))
            there = os.fstat(file.fileno())
        if not match or match[2] != os.uname().nodename:
            return None
        # The line stays when the process ends, and its number may be another's by now.
        for name in os.listdir(f"/proc/{match[1]}/fd"):
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.stat(f"/proc/{match[1]}/fd/{name}"), there):
                    return int(match[1])
    except OSError:
        pass
    return None
