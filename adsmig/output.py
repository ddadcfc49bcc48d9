"""How results are printed: for people, or as JSON lines for machines."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adsmig.errors import AdsmigError, UsageError
from adsmig.log import begin_log

if TYPE_CHECKING:
    from adsmig.model import Planned


@dataclass(frozen=True, slots=True)
class Output:
    """What the user asked for.  Results go to stdout, all else to stderr."""

    quiet: bool = False
    as_json: bool | None = None
    as_csv: bool | None = None
    info: bool | None = None
    brief: bool | None = None
    """Of a report, only what fits on a screen."""
    html: Path | None = None
    prices: Path | None = None
    rate: float | None = None
    """Megabits a second, for an estimate."""

    def result(self, line: str) -> None:
        """Prints a line for people."""
        if not self.as_json:
            print(line)

    def note(self, line: str) -> None:
        """Prints what is no result, and may be left out, as it is where a terminal is gone."""
        if not self.as_json:
            with contextlib.suppress(OSError):
                print(line, file=sys.stderr, flush=True)

    def warn(self, name: str, line: str) -> None:
        """Prints what the user has to act on, whatever was asked for; ``name`` is for machines."""
        print(f"adsmig: {line}", file=sys.stderr, flush=True)
        self.event(name, message=line)

    def planned(self, planned: Iterable[Planned]) -> None:
        """Prints what a dry run found is to be done about some keys, a line each."""
        from adsmig.tables import printable

        for one in planned:
            if self.as_json:
                facts = {"action": one.action, "key": text_of(one.key), "size": one.size}
                print(_json("planned", facts))
            elif not self.as_csv:
                print(f"{one.action:<7} {printable(one.key)}")
        sys.stdout.flush()

    def event(self, name: str, /, **values: Any) -> None:
        """Prints a JSON line, if the user asked for such."""
        if self.as_json:
            print(_json(name, values), flush=True)


def _json(name: str, values: dict[str, Any]) -> str:
    plain = sys.stdout.encoding.lower() != "utf-8"  # which JSON is in
    return json.dumps({"event": name, **values}, ensure_ascii=plain)


def begin(options: dict[str, Any]) -> Output:
    """Begins the log as the options say; how results are to be printed."""
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(options["verbose"], 2)]
    if options["quiet"]:
        level = logging.ERROR
    file = options["log_file"]
    begin_log(min(level, logging.INFO) if file else level, str(file) if file else None)
    names = ("as_json", "as_csv", "info", "html", "prices", "rate")
    return Output(bool(options["quiet"]), **{name: options.get(name) for name in names})


def print_lines(lines: Iterable[str]) -> int:
    """Prints a command's result; its exit code."""
    for line in lines:
        click.echo(line)
    return 0


def text_of(key: bytes) -> str:
    """A key in JSON: bytes that are not UTF-8 as ``\\\\xNN``."""
    return key.decode("utf-8", "backslashreplace")


def check_writable(path: Path, option: str) -> None:
    """Raises UsageError if the file that ``option`` names cannot be written; leaves it as it is."""
    place = path if path.exists() else path.parent
    if place is not path and not place.is_dir():
        raise UsageError(f"cannot write {option} {path}: there is no directory {place}")
    if not os.access(place, os.W_OK):
        raise UsageError(f"cannot write {option} {path}: no permission to write {place}")


def write_report(path: Path, text: str, output: Output) -> None:
    """Writes the text to a file that the user named, and says so; AdsmigError if it cannot be."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise AdsmigError(f"cannot write {path}: {exc.strerror}") from exc
    if not output.quiet:
        output.note(f"the report is in {path}")
