"""What the console does: starts and signals processes, and finds them again."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from adsmig.errors import AdsmigError, UsageError
from adsmig.launch import launch
from adsmig.ledger import state_directory
from adsmig.lock import holder
from adsmig.web.text import gettext as _

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
"""Of a job: the stem of its manifest's file."""


class Refused(AdsmigError):
    """What was asked for cannot be done with a job as it is now."""


@dataclass
class Process:
    """A process that this console started; forgotten when the console ends, unlike what it does."""

    pid: int
    code: int | None = None
    """Its exit code, once it has ended."""


@dataclass
class Console:
    """Everything that is not on disk: which processes were started, and are being stopped."""

    allowed: tuple[Path, ...] = ()
    """Where local paths of jobs have to lie; empty: anywhere."""
    started: dict[str, Process] = field(default_factory=dict)
    """The last process of each job, and of each preview."""
    stopping: dict[str, int] = field(default_factory=dict)
    """Jobs whose process was asked to end, with its number."""

    def start(
        self, name: str, arguments: Sequence[str], output: Path, secrets: Mapping[str, str]
    ) -> None:
        """Starts ``adsmig ARGUMENTS...`` for a job or a preview."""
        try:
            output.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            process = launch(arguments, output, secrets)
        except OSError as exc:
            raise AdsmigError(f"cannot start a process: {exc.strerror}") from exc
        known = self.started[name] = Process(process.pid)

        def wait() -> None:
            known.code = process.wait()

        threading.Thread(target=wait, daemon=True).start()

    def run(self, name: str, verb: str) -> None:
        """Starts ``adsmig VERB JOB``; Refused if something works on the job."""
        if verb != "cancel" and self.is_busy(name):
            raise Refused(_("The job is running."))
        self.start(name, [verb, "-v", name], log_path(name), {})

    def pause(self, name: str) -> None:
        """Has the job's process settle what it has in hand, and end."""
        pid = holder(manifest_path(name))
        if pid is None or pid == os.getpid():
            raise Refused(_("The job is not running."))
        if self.stopping.get(name) == pid:
            return  # a second signal would end it at once
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)  # a script's shell has its background ignore SIGINT
        self.stopping[name] = pid

    def is_busy(self, name: str) -> bool:
        """Whether a process works on the job, or is about to."""
        return holder(manifest_path(name)) is not None or self.is_starting(name)

    def is_starting(self, name: str) -> bool:
        """Whether a process was started that may not have come to its manifest yet, as one has that
        was asked to end.
        """
        process = self.started.get(name)
        waits = process is not None and process.code is None
        return bool(waits and process and self.stopping.get(name) != process.pid)

    def check_path(self, path: str) -> None:
        """Raises UsageError for a local path that jobs may not have."""
        real = Path(os.path.realpath(path))
        if self.allowed and not any(
            real.is_relative_to(os.path.realpath(one)) for one in self.allowed
        ):
            raise UsageError(
                _("This path is not allowed here; it has to lie in %(places)s.")
                % {"places": ", ".join(map(str, self.allowed))}
            )


def console_directory() -> Path:
    """Where the console keeps what jobs print."""
    return state_directory().parent / "console"


def manifest_path(name: str) -> Path:
    """The manifest of a job, which need not be there; Refused if that is no name of a job."""
    if not NAME.fullmatch(name):
        raise Refused(_("There is no such job."))
    return state_directory() / f"{name}.db"


def log_path(name: str) -> Path:
    """What a job's processes printed, if the console started them."""
    return console_directory() / f"{name}.log"


def tail(path: Path, most: int = 64 << 10) -> str:
    """The end of what was printed, whole lines of ``most`` bytes at the most."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - most))
            data = file.read(most)
    except OSError:
        return ""
    if size > most:
        data = data.partition(b"\n")[2]
    return data.decode("utf-8", "replace")
