"""Several small files written at once: a round trip, and a turn of the server's, is for all."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from adsmig.errors import ObjectError, TransientError
from adsmig.model import Meta
from adsmig.storage.sftpfile import send_spans
from adsmig.storage.sftpfinisher import Finishing
from adsmig.storage.sftppacket import (
    EXTENDED,
    FSYNC,
    LSTAT,
    POSIX_RENAME,
    REMOVE,
    handle_of,
    status_of,
    text,
)
from adsmig.storage.sftpstaging import SftpStaging, expect_file
from adsmig.storage.sftpwire import SftpWire


@dataclass(slots=True)
class BatchFile:
    """One of them: what is to be there, and how far that is."""

    path: bytes
    staged: bytes
    content: bytes
    meta: Meta
    written: bool = False
    """It is there, whole and flushed."""
    handle: bytes = b""
    opening: int = 0
    looking: int = 0
    writing: list[int] = field(default_factory=list)
    finishing: Finishing | None = None
    renaming: int = 0


_UNFIT = (OSError, EOFError, ObjectError, TransientError)
"""What is wrong with one file only, unless the connection was lost."""


def can_batch(wire: SftpWire) -> bool:
    """Whether a server has all that it takes: OpenSSH's has."""
    return FSYNC in wire.extensions and POSIX_RENAME in wire.extensions


def write_batch(wire: SftpWire, staging: SftpStaging, files: list[BatchFile]) -> None:
    """Writes files as Storage.write does; those that could not be ``written`` leave nothing behind.
    Why not, is found out by who writes them one by one.

    Raises TransientError if the connection was lost.
    """
    opened = _open(wire, staging, files)
    for file in opened:
        chunks = iter([memoryview(file.content)])
        _, file.writing = send_spans(wire, file.handle, chunks)
        file.finishing = staging.finisher.begin(wire, file.handle, file.meta)
    whole = [file for file in opened if _finish(wire, staging, file)]
    if staging.wary:  # so directories are looked at once more, one file after the other
        for file in whole:
            _publish_alone(wire, staging, file)
    else:
        _publish_all(wire, staging, whole)
    for file in opened:
        if file.written:
            staging.flushes.note(os.path.dirname(file.path))
        else:
            wire.forget(wire.send(REMOVE, text(file.staged)))


def _open(wire: SftpWire, staging: SftpStaging, files: list[BatchFile]) -> list[BatchFile]:
    """Those that there is nothing in the way of, each with its handle."""
    for file in files:
        file.opening = staging.begin_create(wire, file.staged, file.meta)
        file.looking = wire.send(LSTAT, text(file.path))
    ways = [staging.way(file.path) for file in files]
    links = staging.links(wire, {directory for way in ways for directory in way})
    missing = [file for file in files if not _take_handle(wire, file)]
    if missing:
        _make(wire, staging, {os.path.dirname(file.staged) for file in missing})
        for file in missing:
            file.opening = staging.begin_create(wire, file.staged, file.meta)
        for file in missing:
            _take_handle(wire, file)
    opened = []
    for file, way in zip(files, ways, strict=True):
        clear = _is_clear(wire, file) and not links.intersection(way)
        if file.handle and clear:
            opened.append(file)
        elif file.handle:
            wire.close(file.handle)
            wire.forget(wire.send(REMOVE, text(file.staged)))
    return opened


def _take_handle(wire: SftpWire, file: BatchFile) -> bool:
    """False if there is no directory for it; if anything else is wrong, there is no handle."""
    try:
        file.handle = handle_of(wire.wait(file.opening))
    except FileNotFoundError:
        return False
    except _UNFIT:
        if wire.lost:
            raise
    return True


def _make(wire: SftpWire, staging: SftpStaging, directories: set[bytes]) -> None:
    """Makes those that can be made."""
    for directory in sorted(directories):
        try:
            staging.make(wire, directory)
        except _UNFIT:
            if wire.lost:
                raise


def _is_clear(wire: SftpWire, file: BatchFile) -> bool:
    """Whether a file can take the place; what cannot be seen is told when it is written."""
    try:
        expect_file(status_of(wire.wait(file.looking)).st_mode)
    except OSError:
        return True
    except ObjectError:
        return False
    return True


def _finish(wire: SftpWire, staging: SftpStaging, file: BatchFile) -> bool:
    assert file.finishing
    size = len(file.content)
    try:
        staging.finisher.end(wire, file.finishing, file.staged, size, file.meta, file.writing)
    except _UNFIT:
        if wire.lost:
            raise
        return False
    return True


def _publish_all(wire: SftpWire, staging: SftpStaging, files: list[BatchFile]) -> None:
    """Renames files to their places, and makes the directories that this takes."""
    for file in files:
        _rename(wire, file)
    missing = [file for file in files if not _publish(wire, file)]
    if missing:
        _make(wire, staging, {os.path.dirname(file.path) for file in missing})
        for file in missing:
            _rename(wire, file)
        for file in missing:
            _publish(wire, file)


def _rename(wire: SftpWire, file: BatchFile) -> None:
    file.renaming = wire.send(EXTENDED, text(POSIX_RENAME), text(file.staged), text(file.path))


def _publish(wire: SftpWire, file: BatchFile) -> bool:
    """False if there is no directory for it; if anything else is wrong, it is not written."""
    try:
        wire.wait(file.renaming)
        file.written = True
    except FileNotFoundError:
        return False
    except _UNFIT:
        if wire.lost:
            raise
    return True


def _publish_alone(wire: SftpWire, staging: SftpStaging, file: BatchFile) -> None:
    try:
        staging.publish(wire, file.staged, file.path)
        file.written = True
    except _UNFIT:
        if wire.lost:
            raise
