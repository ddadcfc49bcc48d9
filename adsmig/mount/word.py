"""What a mount leaves word of, for who unmounts it and for the next one."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from typing import Any

from adsmig.ledger import state_directory

STARTING, MOUNTED, ENDED = "starting", "mounted", "ended"


class Word:
    """What a mount leaves word of in the state directory: its process, and how it ended."""

    def __init__(self, directory: str) -> None:
        name = hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]
        base = state_directory().parent / "mounts"
        self.path, self.log = base / f"{name}.json", base / f"{name}.log"
        self._lock = base / f"{name}.lock"

    def hold(self) -> int | None:
        """A file that says, while it is open, that the mount lives; None if another does."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return None
        return fd

    def is_of_the_dead(self) -> bool:
        """Whether there was a mount that was killed."""
        held = self.hold()
        if held is None:
            return False
        os.close(held)
        return self.read().get("state") in (STARTING, MOUNTED)

    def wait(self) -> None:
        """Returns when no mount lives."""
        with contextlib.suppress(FileNotFoundError), open(self._lock, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)

    def leave(self, **facts: Any) -> None:
        """Writes it."""
        name = self.path.with_suffix(".new")
        with open(name, "w", encoding="utf-8", opener=_private) as file:
            json.dump(facts, file)
        os.replace(name, self.path)

    def read(self) -> dict[str, Any]:
        """What was left; nothing, if nothing was."""
        try:
            facts: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return facts


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
