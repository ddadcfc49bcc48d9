"""The directory that a local Location names, and whether it is still the same."""

from __future__ import annotations

import contextlib
import os
import threading

from adsmig.errors import AdsmigError
from adsmig.location import Location
from adsmig.storage.base import Identity
from adsmig.storage.localfile import TICKS, sync_file_system


class Root:
    """The directory of ``location``; ``expected`` is its identity, if that is known."""

    def __init__(self, location: Location, expected: Identity | None) -> None:
        self._fd: int | None = None
        self._opening = threading.Lock()
        self._location, self._expected = location, expected
        self.path = location.path

    def __del__(self) -> None:
        if self._fd is not None:
            os.close(self._fd)

    def identity(self) -> Identity | None:
        """What it is known by; None if it cannot be examined."""
        with contextlib.suppress(OSError):
            status = os.stat(self.path)
            return status.st_dev, status.st_ino, os.statvfs(self.path).f_fsid
        return None

    def tick(self) -> int:
        """Nanoseconds between two times that are told apart there, as far as looking at one tells,
        which changes with every change; a larger one than it is does no harm.
        """
        with contextlib.suppress(OSError):
            changed_ns = os.stat(self.path).st_ctime_ns
            return max(one for one in TICKS if changed_ns % one == 0)
        return 1

    def check(self) -> None:
        """Raises if it is no longer the directory that it was."""
        if self._expected and self.identity() != self._expected:
            raise AdsmigError(f"{self._location} is no longer the directory it was: unmounted?")

    def opened(self) -> int:
        """Its descriptor, which stays open; OSError."""
        with self._opening:
            if self._fd is None:
                self.check()
                self._fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            return self._fd

    def sync(self) -> None:
        """Returns when all that was written below is on stable storage; OSError.

        One ``syncfs`` for all that a slice wrote, far cheaper than an fsync for each file.  It
        reports errors since its descriptor was opened, so that is done before the first write.
        """
        sync_file_system(self.opened())
