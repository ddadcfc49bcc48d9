"""The directory that something is mounted on: whether it can be, whether it is, and its end."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from adsmig.errors import AdsmigError, UsageError
from adsmig.mount import channel
from adsmig.mount.draft import damaged, left
from adsmig.mount.word import STARTING, Word


def read_far_ahead(directory: str) -> None:
    """Has the kernel read ahead by more than 128 KiB, if it lets us, as it does root."""
    for device, place in _mounts():
        if place == directory:
            with contextlib.suppress(OSError):
                Path(f"/sys/class/bdi/{device}/read_ahead_kb").write_text("2048")


def is_mounted(directory: str) -> bool:
    """Whether something is mounted right there; asks the kernel's table, not what is mounted."""
    return any(place == directory for _, place in _mounts())


def _mounts() -> Iterator[tuple[str, str]]:
    """The device and the place of all that is mounted; proc_pid_mountinfo(5)."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        _, _, device, _, place, *_ = line.split(" ")
        yield device, _unescaped(place)


def _unescaped(text: str) -> str:
    for code in ("\\040", "\\011", "\\012", "\\134"):
        text = text.replace(code, chr(int(code[1:], 8)))
    return text


def place_of(directory: str) -> str:
    """The absolute path of a mount point, without asking it."""
    above, name = os.path.split(os.path.abspath(directory))
    return os.path.join(os.path.realpath(above), name)


def check_directory(directory: str) -> None:
    """Raises UsageError for what cannot be mounted on; takes a mount away that was killed."""
    if is_mounted(directory) and Word(directory).is_of_the_dead():
        channel.unmount(directory, lazily=True)
    if is_mounted(directory):
        raise UsageError(f"{directory} is mounted already: adsmig umount {directory}")
    try:
        if os.listdir(directory):
            raise UsageError(f"{directory} is not empty: mount on an empty directory")
    except FileNotFoundError as exc:
        raise UsageError(f"{directory} is not there: mkdir {directory}") from exc
    except NotADirectoryError as exc:
        raise UsageError(f"{directory} is not a directory") from exc
    except OSError as exc:
        raise UsageError(f"cannot mount on {directory}: {exc.strerror}") from exc


def umount(directory: str) -> Sequence[str]:
    """Unmounts, and returns when all is stored and the process has ended; a line for each file that
    could not be stored.  Raises AdsmigError.
    """
    word = Word(directory)
    facts = word.read()
    held = word.hold()
    lives = held is None
    if held is not None:
        os.close(held)
    if is_mounted(directory):
        if not facts:
            raise UsageError(f"{directory} was not mounted by adsmig, or by another user")
        if why := channel.unmount(directory, lazily=not lives):
            if "busy" in why:
                why = f"it is in use; see who uses it: fuser -vm {directory}"
            raise AdsmigError(f"cannot unmount {directory}: {why}")
    elif not lives:
        raise UsageError(f"nothing is mounted on {directory}")
    elif facts.get("state") == STARTING:
        raise AdsmigError(f"{directory} is only just being mounted; wait for that, or end it")
    if not lives:
        return _left_lines(Path(facts["drafts"])) if "drafts" in facts else []
    word.wait()
    unsaved: list[str] = word.read().get("unsaved", [])
    return unsaved


def _left_lines(drafts: Path) -> list[str]:
    killed = "the mount was killed before it was stored"
    lines = [
        f"{one.key.decode('utf-8', 'backslashreplace')}: {killed}; the next mount of the same"
        " address stores it"
        for one in left(drafts)
    ]
    return lines + [
        f"a file: {killed}, and its journal is damaged: it is in {path}" for path in damaged(drafts)
    ]
