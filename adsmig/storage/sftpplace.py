"""Where an address leads at an SFTP server: found out before anything is opened there."""

from __future__ import annotations

import os
from dataclasses import replace

from adsmig.errors import AdsmigError, NotFound
from adsmig.location import Location
from adsmig.storage.base import Settings
from adsmig.storage.descent import MISSING
from adsmig.storage.paths import above
from adsmig.storage.sftpfiles import SftpFiles
from adsmig.storage.sftplogin import wire_to, with_login
from adsmig.storage.sftppacket import Status
from adsmig.storage.sftpwire import SftpWire


def ready(location: Location, settings: Settings) -> Location:
    """The location with its path made absolute, and with a password if one was asked for.

    ``..`` is looked up, for the parent of what a link names is another place.
    """
    location = with_login(location, settings)
    files = SftpFiles(lambda: wire_to(location, settings))
    names = location.path.split(b"/")
    known = names[: len(names) - names[::-1].index(b"..")] if b".." in names else []
    relative = not location.path.startswith(b"/")
    if not known and not relative:
        return location
    head = b"/".join(known) or b"."
    try:
        real = files.retried(lambda wire: wire.realpath(head), "looking up a directory")
    except OSError as exc:
        raise NotFound(f"{location} cannot be looked up: {exc.strerror}") from exc
    rest = [name for name in names[len(known) :] if name != b"."]
    return replace(location, path=os.path.join(real, *rest))


def status_at(location: Location, settings: Settings, follow: bool = True) -> Status | None:
    """What is at a location itself; None if nothing is."""
    files = SftpFiles(lambda: wire_to(location, settings))
    try:
        return (files.stat if follow else files.lstat)(location.path)
    except OSError as exc:
        if exc.errno in MISSING:
            return None
        raise AdsmigError(f"cannot look at {location}: {exc.strerror}") from exc


def is_below(location: Location, settings: Settings, name: bytes) -> bool:
    """Whether a directory above ``location`` has an entry of this name.  Two round trips."""
    files = SftpFiles(lambda: wire_to(location, settings))

    def unit(wire: SftpWire) -> bool:
        found = wire.lstats(
            [os.path.join(one, name) for one in above(wire.realpath(location.path))]
        )
        return any(isinstance(status, Status) for status in found)

    try:
        return files.retried(unit, "looking above a directory")
    except OSError as exc:
        raise AdsmigError(f"cannot look above {location}: {exc.strerror}") from exc
