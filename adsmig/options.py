"""The options of the command line, in groups; adsmig.asked has what they come to."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from adsmig.errors import UsageError
from adsmig.habits import hinted
from adsmig.words import leading, names_of

F = TypeVar("F", bound=Callable[..., Any])


def together(*options: Callable[[Any], Any], under: str = "") -> Callable[[F], F]:
    """One decorator of several, in the order of help, which shows them ``under`` a heading."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
            if under:
                function.__click_params__[-1].under = under  # type: ignore[attr-defined]
        return function

    return decorate


class Command(click.Command):
    """A command whose help shows its options under their headings."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, but ``-s=KEY`` means ``-s KEY``, not ``-s =KEY``."""
        names = names_of(self.get_params(ctx))
        words: list[str] = []
        rest: Sequence[str] = args
        while rest:
            options, rest = leading(rest, names)
            words += [word for option in options for word in option]
            if rest[:1] == ["--"] or not ctx.allow_interspersed_args:
                break
            words += rest[:1]
            rest = rest[1:]
        with hinted(ctx):
            return super().parse_args(ctx, [*words, *rest])

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As click does, group by group; first what is only of this command."""
        groups: dict[str, list[tuple[str, str]]] = {"Options": []}
        for option in self.get_params(ctx):
            record = option.get_help_record(ctx)
            if record and isinstance(option, click.Option):
                groups.setdefault(getattr(option, "under", "Options"), []).append(record)
        for heading, records in groups.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def _size(_: click.Context, option: click.Parameter, text: str | None) -> int | None:
    from adsmig.filters import parse_size

    return None if text is None else parse_size(text, option.opts[0])


def _pattern(_: click.Context, __: click.Parameter, texts: Sequence[str]) -> tuple[str, ...]:
    """Patterns without the curly quotes that come along when they are copied from a page."""
    return tuple(re.sub(r"^[“”„](.*)[“”]$", r"\1", text) for text in texts)


def _share(_: click.Context, option: click.Parameter, text: str | None) -> float | int | None:
    """A share, up to 1.0, or a number of objects; None for all."""
    if text is None:
        return None
    if re.fullmatch(r"[1-9]\d{0,17}", text):
        return int(text)
    percent = re.fullmatch(r"(\d{1,3}(?:\.\d+)?) ?%", text)
    if not percent or not 0 < float(percent[1]) <= 100:
        raise UsageError(f"{option.opts[0]} {text!r}: write a share, as 1%, or a number of objects")
    return float(percent[1]) / 100


class _Megabits(click.FloatRange):
    """Megabits a second; other tools count bytes, with a unit."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """As click does, but says what is meant."""
        with contextlib.suppress(click.BadParameter):
            number: float = super().convert(value, param, ctx)
            if math.isfinite(number):
                return number
        self.fail(f"{value!r}: write megabits a second, a number alone; 10 MiB/s is 84", param, ctx)


class _File(click.Path):
    """A file, there or not; what ends in a slash is none, whatever Path makes of it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As click does, but not of a directory's name."""
        if str(value).endswith("/"):
            self.fail(f"{str(value)!r} names a directory: add the name of a file", param, ctx)
        return super().convert(value, param, ctx)


FILE = _File(path_type=Path, dir_okay=False)
_FILE_OR_DIRECTORY = click.Path()

LOG = together(
    click.option("-v", "--verbose", count=True, help="Log what happens; -vv logs more."),
    click.option("-q", "--quiet", is_flag=True, help="Print errors only."),
    click.option("--log-file", type=FILE, metavar="FILE",
                 help="Log to FILE, not to the terminal."),
    click.option("--json", "as_json", is_flag=True,
                 help="Print progress and results as JSON, one object a line."),
    under="What is printed",
)  # fmt: skip

MANIFEST = click.option(
    "--manifest", type=FILE, metavar="FILE",
    help="The manifest, if it is not in the state directory.",
)  # fmt: skip

_PACE = (
    click.option("--bwlimit", "bwlimit_mbps", type=_Megabits(0), metavar="MBPS",
                 help="Megabits a second, all processes together; 0 is unlimited [0]."),
    click.option("--conn-timeout", "--connTimeout", "--conntimeout", "connect_timeout_s",
                 type=click.FloatRange(0, min_open=True), metavar="S",
                 help="Seconds to wait for a connection [10]."),
    click.option("--timeout", "read_timeout_s", type=click.FloatRange(0, min_open=True),
                 metavar="S", help="Seconds to wait for an answer [60]."),
)  # fmt: skip

SPEED = together(
    click.option("-p", "--threads", type=click.IntRange(1, 4096), metavar="N",
                 help="Objects and parts in flight, all processes together [as many as help]."),
    click.option("--workers", type=click.IntRange(1, 256), metavar="N",
                 help="Processes [one for each CPU that has time]."),
    *_PACE,
    under="How fast",
)  # fmt: skip

PACE = together(*_PACE, under="How fast")

TLS = together(
    click.option("--ca-bundle", type=_FILE_OR_DIRECTORY, metavar="FILE", envvar="AWS_CA_BUNDLE",
                 help="Authorities that servers' certificates may be of, as PEM [the system's]."),
    click.option("--verify-tls/--no-verify-tls", default=None,
                 help="Check certificates, or believe anybody [check them]."),
    under="The way there",
)  # fmt: skip

PROGRESS = click.option(
    "--manifest", type=FILE, metavar="FILE", help="Where progress is kept [the state directory]."
)

MOUNT = together(
    click.option("--read-only", is_flag=True, help="Nothing can be changed by the mount."),
    click.option("--cache-dir", type=click.Path(path_type=Path, file_okay=False), metavar="D",
                 help="Where what was read, and is not stored yet, is kept [~/.cache/adsmig]."),
    click.option("--cache-size", metavar="N", callback=_size,
                 help="What was read is kept up to this: 500M, 20G [10G]."),
    click.option("--foreground", is_flag=True, help="Return when it is unmounted, not before."),
    click.option("--allow-other", is_flag=True,
                 help="Other users may use it, as far as permissions let them."),
    click.option("--use-server-modtime", is_flag=True,
                 help="Show when files were stored, not the times and modes kept with them."),
)  # fmt: skip

YES = click.option(
    "-y", "--yes", is_flag=True,
    help="Delete at DST even if SRC is empty; do all anew where a directory is another one.",
)  # fmt: skip
SURE = click.option("-y", "--yes", is_flag=True, help="Delete without asking.")

ADDRESS = together(
    TLS,
    click.option("--https/--no-https", default=None,
                 help="Force https, or http [https for public clouds]."),
    click.option("--path-style", is_flag=True, help="HOST/BUCKET in requests, not BUCKET.HOST."),
    *(
        click.option(f"--{side}-{name}", f"{side}_{name}", metavar=value, default="",
                     help=text.format(side.upper()))
        for name, value, text in (
            ("profile", "NAME", "Whose keys to use at {}; see README."),
            ("region", "NAME", "The region to sign for at {}."),
            ("endpoint", "HOST[:PORT]", "Where {} is, whatever its address says."),
        )
        for side in ("src", "dst")
    ),
    *(
        click.option(f"--{side}-set", f"{side}_set", metavar="FIELD=VALUE", multiple=True,
                     help=f"What {side.upper()} makes of S3; see adsmig providers.")
        for side in ("src", "dst")
    ),
    click.option("--resolve", metavar="HOST:PORT:ADDRESS", multiple=True,
                 help="Connect to ADDRESS for HOST:PORT, as with curl."),
    click.option("--connect-to", metavar="HOST1:PORT1:HOST2:PORT2", multiple=True,
                 help="Connect to HOST2:PORT2 for HOST1:PORT1, as with curl."),
    click.option("--anonymous", type=click.Choice(["0", "1"]), multiple=True,
                 help="Send no credentials: 0 to the source, 1 to the destination."),
    click.option("--accept-new-host-key", is_flag=True,
                 help="Trust SFTP servers that are not known yet, and remember their keys."),
    under="The way there",
)  # fmt: skip

SELECTION = together(
    click.option("-s", "--start", metavar="KEY", help="The first key to look at, relative to SRC."),
    click.option("-e", "--end", metavar="KEY", help="The last key to look at."),
    click.option("--include", metavar="RE", multiple=True, callback=_pattern,
                 help="Only keys in which RE is found; of excluded ones, keep these."),
    click.option("--exclude", metavar="RE", multiple=True, callback=_pattern,
                 help="No keys in which RE is found."),
    click.option("--include-dir", metavar="RE", multiple=True, callback=_pattern,
                 help="The same for the directories that a key lies in."),
    click.option("--exclude-dir", metavar="RE", multiple=True, callback=_pattern,
                 help="No directories in whose path RE is found, nor what lies below."),
    click.option("--files-from", metavar="FILE",
                 default="", help="Only the keys that FILE names, one a line."),
    click.option("--min-size", metavar="SIZE", callback=_size, help="No smaller objects: 10k, 5M."),
    click.option("--max-size", metavar="SIZE", callback=_size, help="No larger objects."),
    click.option("--newer-than", "--max-age", metavar="AGE", default="",
                 help="Only what changed, or a store was given, within 12h, 30d, or since"
                      " 2026-01-31."),
    click.option("--older-than", "--min-age", metavar="AGE", default="",
                 help="Only what changed, or was given to a store, before that."),
    under="What to look at",
)  # fmt: skip

SAMPLE = together(
    click.option("--sample", metavar="SHARE", callback=_share,
                 help="Only so many, chosen evenly by their keys: 1%, or 1000 with JOB."),
    click.option("--seed", type=click.IntRange(0, 2**63 - 1), metavar="N", default=0,
                 help="Another number chooses others [0]."),
    under="What to look at",
)  # fmt: skip

LINKS = together(
    click.option("--links", "keep_links", is_flag=True,
                 help="Copy symbolic links as links, to a file system."),
    click.option("--record-name", "--recordName", "-rd", "record", type=_File(), metavar="FILE",
                 default="",
                 help="Skip links to directories, and write their paths to FILE."),
    under="Symbolic links",
)  # fmt: skip

COMPARISON = together(
    click.option("--size-only", is_flag=True, help="Equal is what is of the same size."),
    click.option("-c", "--checksum", is_flag=True, help="Equal is what is of the same content."),
    click.option("--compare", type=click.Choice(["size", "checksum", "manifest"]), default=None,
                 help="With manifest: as when it was copied; DST is not listed."),
    click.option("--existing", is_flag=True, help="Copy only what is at DST already."),
    click.option("--ignore-existing", is_flag=True, help="Copy only what is not at DST."),
    click.option("-u", "--update", is_flag=True, help="Leave alone what is newer at DST."),
    under="When to copy",
)  # fmt: skip

DELETION = together(
    click.option("--delete-src", "--deleteSrc", is_flag=True,
                 help="Remove at SRC what was copied, or is equal at DST."),
    click.option("--delete-dst", "--deleteDst", is_flag=True,
                 help="Remove at DST what SRC does not have."),
    click.option("--max-delete", type=click.IntRange(0), metavar="N",
                 help="Remove nothing at DST if it would be more than N objects."),
    YES,
    under="What to delete",
)  # fmt: skip

STORING = together(
    click.option("--noperms", "--no-perms", is_flag=True,
                 help="Do not keep permissions and owner."),
    click.option("--storage-class", metavar="CLASS", default="",
                 help="The storage class of what is written."),
    click.option("--sse", metavar="KIND", default="",
                 help="Encrypt at DST: AES256, aws:kms or aws:kms:KEY-ID."),
    click.option("--tags", is_flag=True, help="Copy objects' tags too."),
    under="How to keep it",
)  # fmt: skip

REPORT = together(
    click.option("--info", is_flag=True,
                 help="For each directory: count, total, smallest, largest, average."),
    click.option("--depth", type=click.IntRange(0, 64), metavar="N",
                 help="How deep directories are told apart [1]."),
    click.option("--rate", type=_Megabits(0, min_open=True), metavar="MBPS",
                 help="Megabits a second, to say how long it would take."),
    click.option("--prices", type=FILE, metavar="FILE", help="A price list, to say the cost."),
    click.option("--html", type=FILE, metavar="FILE", help="Write the report as one HTML page."),
    click.option("--csv", "as_csv", is_flag=True, help="Print the report as CSV."),
    under="The report of a dry run",
)  # fmt: skip

REBUILD = click.option(
    "--rebuild-manifest", "rebuild", is_flag=True,
    help="If the manifest is lost or damaged, take what is equal at DST for copied.",
)  # fmt: skip


def _dryrun(more: str = "") -> Callable[[F], F]:
    said = "Change nothing anywhere; say what would be done, with -v for each key."
    return click.option("--dryrun", "--dry-run", is_flag=True, help=f"{said}{more}")


DRYRUN = _dryrun(" With --delete-src: delete SRC, and copy nothing.")
DRYRUN_OF_RM = _dryrun()
