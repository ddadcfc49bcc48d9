"""The places in a cache directory, each of which one mount of an address has for itself."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

_MOST = 100


def places(cache: Path, identity: str) -> Iterator[Path]:
    """Where mounts of the address with this identity have what they read and wrote; the first that
    is free is the next mount's.  Not all are there.
    """
    name = hashlib.sha256(identity.encode()).hexdigest()[:16]
    for number in range(_MOST):
        yield cache / (f"{name}-{number}" if number else name)


def drafts_in(place: Path) -> Path:
    """The directory of what was written there and is not stored."""
    return place / "dirty"


def has_unsaved(place: Path) -> bool:
    """Whether there is something that the store lacks, of a mount that lives or was killed."""
    return any(drafts_in(place).glob("*.json"))


def hold(place: Path) -> int | None:
    """A file that keeps the place from other mounts while it is open; None if one has it."""
    fd = os.open(place / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except OSError:
        os.close(fd)
        raise
    return fd
