"""The directory that something is mounted on: whether it can be, whether it is, and its end."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from adsmig.errors import AdsmigError, UsageError
from adsmig.mount import channel
from adsmig.mount.draft import damaged, left
from adsmig.mount.places import drafts_in, has_unsaved, hold
from adsmig.mount.word import ENDED, STARTING, Word

_ESCAPED = re.compile(rb"\\([0-7]{3})")
_END_S = 3.0
"""For a process that has let go of one file to let go of the others."""
_MOST_LINKS = 40
"""As the kernel has it."""


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
    # As bytes: others' mount points need not be UTF-8, and text has more ends of lines.
    table = Path("/proc/self/mountinfo").read_bytes()
    for line in table.removesuffix(b"\n").split(b"\n"):
        _, _, device, _, place, *_ = line.split(b" ")
        yield device.decode(), os.fsdecode(_ESCAPED.sub(_unescaped, place))


def _unescaped(code: re.Match[bytes]) -> bytes:
    return bytes([int(code[1], 8)])


def place_of(directory: str) -> str:
    """The absolute path of a mount point, also if a link leads to it, without asking it."""
    place = directory
    for _ in range(_MOST_LINKS):
        above, name = os.path.split(os.path.abspath(place))
        above = os.path.realpath(above)
        place = os.path.join(above, name)
        try:
            place = os.path.join(above, os.readlink(place))
        except OSError:  # no link; of a directory the kernel says so itself
            return place
    raise UsageError(f"too many links lead on from {directory}")


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


def check_outside(directory: str, option: str, path: Path) -> None:
    """Raises UsageError if ``path``, which need not be there, lies in the mount point, by whatever
    links: a mount that waits for what it is to answer itself cannot even be killed.
    """
    above = os.path.realpath(path)
    while not os.path.exists(above):
        above = os.path.dirname(above)
    if os.path.samefile(above, directory):  # which is empty, so all below it is missing
        raise UsageError(f"{option} {path} lies in {directory}: choose one that does not")


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
        return _left_in(Path(facts["drafts"]).parent) if "drafts" in facts else []
    word.wait()
    facts = word.read()
    if facts.get("state") != ENDED:  # it was killed meanwhile, or could not leave word
        return _left_in(Path(facts["drafts"]).parent, _END_S) if "drafts" in facts else []
    unsaved: list[str] = facts["unsaved"]
    return unsaved


def _left_in(place: Path, wait_s: float = 0) -> list[str]:
    """A line for each file that a mount left there that was killed, and may take so long to end.
    None if another has the place by now: it has seen to that, and what is there is its own.
    """
    if not has_unsaved(place):
        return []
    until = time.monotonic() + wait_s
    while (held := hold(place)) is None and time.monotonic() < until:
        time.sleep(0.05)
    if held is None:
        return []
    killed = "the mount was killed before it was stored"
    drafts = drafts_in(place)
    try:
        lines = [
            f"{one.key.decode('utf-8', 'backslashreplace')}: {killed}; the next mount of the same"
            " address stores it"
            for one in left(drafts)
        ]
        return lines + [
            f"a file: {killed}, and its journal is damaged: it is in {path}"
            for path in damaged(drafts)
        ]
    finally:
        os.close(held)
