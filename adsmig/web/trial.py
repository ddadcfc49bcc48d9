"""Before anything moves: whether a side can be reached, and what a job would do."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from adsmig.credentials import with_credentials
from adsmig.errors import AdsmigError
from adsmig.job import Job
from adsmig.location import Location
from adsmig.model import Entry, Meta
from adsmig.progress import size
from adsmig.report import printable
from adsmig.storage import open_storage
from adsmig.uri import parse
from adsmig.web.console import Console, console_directory, tail
from adsmig.web.forms import NewJob, address
from adsmig.web.text import gettext as _

MOST_PRINTED = 64 << 20
"""Bytes of what a dry run printed: its inventory is one line, of many directories perhaps."""
OLDEST_S = 7 * 86400
"""Previews are removed after so long."""


def try_side(job: NewJob, name: str, console: Console) -> str:
    """Reaches for ``src`` or ``dst``, and says what was found.

    A source has to let itself be listed.  A destination need not be there, if it is a directory;
    in a bucket, an upload is begun and aborted, so that nothing is left.  Raises AdsmigError, which
    says what is wrong.
    """
    side = dict(job.sides())[name]
    at = parse(address(side, name, console), https=job.https)
    region = job.region if name == "src" else job.destination_region
    at = replace(at, region=region or at.region, account=side.account)
    given = side.credentials() or at.credentials
    at = with_credentials(replace(at, credentials=given), name.upper())
    settings = Job(
        "sync", at, connect_timeout_s=5, read_timeout_s=10, check=False,
        accept_new_host_key=job.accept_new_host_key,
    )  # fmt: skip
    if name == "dst" and at.scheme == "file":
        return _try_directory(at)
    if at.scheme == "sftp":
        from adsmig.storage import sftpplace

        at = sftpplace.ready(at, settings)
        if name == "dst" and sftpplace.status_at(at, settings) is None:
            return _("The server lets you in; the directory will be made.")
    storage = open_storage(at, settings)
    try:
        storage.prepare()
        first = storage.probe(b"")
        if name == "dst" and not at.is_path:
            key = f".adsmig-trial-{secrets.token_hex(6)}".encode()
            entry = Entry(key, 1, time.time_ns(), time.time_ns())
            upload = storage.begin_upload(key, entry, Meta())
            storage.abort(key, upload.upload_id)
            return _("It can be listed, and written to.")
    finally:
        storage.close()
    if first is None:
        return _("It can be listed. It is empty.")
    return _("It can be listed. The first key is %(key)s") % {"key": printable(first)}


def _try_directory(at: Location) -> str:
    path = os.fsdecode(at.path)
    there = path
    while not os.path.lexists(there) and there != "/":
        there = os.path.dirname(there)
    if not os.path.isdir(there):
        raise AdsmigError(_("%(path)s is not a directory.") % {"path": there})
    if not os.access(there, os.W_OK | os.X_OK):
        raise AdsmigError(_("%(path)s cannot be written to.") % {"path": there})
    free = shutil.disk_usage(there).free
    text = _("It can be written to.") if there == path else _("It will be made.")
    left = _("Free: %(size)s") % {"size": size(free)}
    return f"{text} {left}"


@dataclass
class Preview:
    """A dry run, finished or not."""

    name: str
    words: list[str]
    """The command line of the job that it tries, without ``adsmig``."""
    running: bool = False
    progress: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    inventory: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    """What it printed beside, such as why it could not run."""


def begin_preview(words: list[str], console: Console) -> str:
    """Starts a dry run of a command line; its name."""
    directory = console_directory() / "previews"
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    for old in directory.iterdir():
        if time.time() - old.stat().st_mtime > OLDEST_S:
            old.unlink(missing_ok=True)
    name = secrets.token_hex(8)
    path = directory / f"{name}.json"
    with open(path, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        json.dump(words, file)
    console.start(name, _dry(words), path.with_suffix(".out"), {})
    return name


def _dry(words: list[str]) -> list[str]:
    """The command line that tries another one; ``verify``, which reads all, becomes a listing.

    Without ``--delete-src``: beside ``--dryrun``, that means to delete, and to copy nothing.
    """
    if words[0] != "verify":
        end = words.index("--")
        options = [one for one in words[1:end] if one != "--delete-src"]
        return [words[0], "--json", "--dryrun", *options, *words[end:]]
    *options, _, src, dst = words[1:]
    return ["inventory", "--json", *options, f"--for={dst}", "--", src]


def preview(name: str, console: Console) -> Preview | None:
    """What has come of a dry run so far; None if there is none of that name."""
    path = console_directory() / "previews" / f"{name}.json"
    if not re.fullmatch(r"[0-9a-f]{16}", name) or not path.exists():
        return None
    found = Preview(name, json.loads(path.read_text()), console.is_starting(name))
    for event in _events(path.with_suffix(".out")):
        kind = event.pop("event")
        if kind == "progress":
            found.progress = event
        elif kind == "result":
            found.result = event
        elif kind == "inventory":
            found.inventory = event
        elif kind == "problem":
            found.problems.append(event["text"])
    return found


def _events(path: Path) -> Iterator[dict[str, Any]]:
    for line in tail(path, MOST_PRINTED).split("\n"):
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if isinstance(event, dict) and "event" in event:
            yield event
        elif line.strip():
            yield {"event": "problem", "text": line.removeprefix("adsmig: ")}
