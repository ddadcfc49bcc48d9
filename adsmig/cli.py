"""The command line: builds a Job, and prints what became of it."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from adsmig import __version__
from adsmig.asked import against, fields_of, job_of, logged_in, place_to_mount
from adsmig.commandline import (
    INVENTORY,
    MIGRATION,
    VERIFICATION,
    Commands,
    check_migration,
    check_sample,
)
from adsmig.errors import AdsmigError, UsageError
from adsmig.options import (
    ADDRESS,
    DRYRUN_OF_RM,
    FILE,
    LOG,
    MANIFEST,
    MOUNT,
    PACE,
    PROGRESS,
    SELECTION,
    SPEED,
    SURE,
    TLS,
    YES,
    Command,
    together,
)
from adsmig.output import begin, print_lines
from adsmig.scheduling import schedule_group, scheduler_command

JOB = click.argument("job", required=False)

EPILOG = """\b
Examples:
  adsmig cp ./photos/ s3://AK:SK@bucket.s3.eu-west-1.amazonaws.com/photos/
  adsmig sync minio://AK:SK@10.0.0.5:9000/data/ /mnt/data/
  adsmig inventory --for s3://bucket/photos/ ./photos/
  adsmig sync --delete-dst --max-delete 100 ./photos/ s3://bucket/photos/
  adsmig resume

\b
Addresses: a local path, s3://[AK:SK[:TOKEN]@]BUCKET[.ENDPOINT][/PREFIX],
minio://[AK:SK[:TOKEN]@]HOST:PORT/BUCKET[/PREFIX], and oss, cos, bos, ks3,
obs, qiniu, ufile as s3 (see adsmig providers); over SFTP, USER@HOST:PATH or
sftp://USER@HOST[:PORT]/PATH. Keys can also come from
ADSMIG_SRC_ACCESS_KEY, ADSMIG_SRC_SECRET_KEY, ADSMIG_SRC_TOKEN (and _DST_).

\b
Exit: 0 all good, 1 some objects failed, 2 wrong usage, 3 could not run,
130 interrupted. The same command again goes on where it ended."""


@click.group(cls=Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(
    __version__, "-V", "--version", prog_name="adsmig", message="%(prog)s %(version)s"
)
def cli() -> None:
    """Moves very large data sets between file systems and object stores, resumably."""


@cli.command("cp", cls=Command, short_help="Copy everything from SRC to DST.")
@MIGRATION
def copy_command(src: str, dst: str, **options: Any) -> int:
    """Copies everything from SRC to DST.

    DST is not listed, unless an option asks what is there, and what is there is overwritten.  The
    same command again goes on with an unfinished run.
    """
    return _migrate("cp", src, dst, options)


@cli.command("sync", cls=Command, short_help="Copy what is new or changed at SRC to DST.")
@MIGRATION
def sync_command(src: str, dst: str, **options: Any) -> int:
    """Copies what is new or changed at SRC to DST.

    An object is copied if it is missing at DST, differs in size, differs in content (where both
    sides know it) or else is newer. Nothing is deleted without --delete-dst.
    """
    return _migrate("sync", src, dst, options)


cli.add_command(copy_command, "copy")
cli.add_command(copy_command, "pcopy")


@cli.command("resume", cls=Command, short_help="Go on with an unfinished run.")
@together(JOB, YES, TLS, SPEED, PROGRESS, LOG)
def resume_command(job: str | None, manifest: Path | None, **options: Any) -> int:
    """Goes on with an unfinished run of JOB (an id from `adsmig jobs`; default: the last used).

    The manifest keeps no secrets: keys that stood in the address have to come from
    ADSMIG_SRC_ACCESS_KEY and ADSMIG_SRC_SECRET_KEY (or _DST_), or AWS's own places.
    """
    from adsmig import session

    job_, path, output = _saved(job, manifest, options)
    return session.resume(job_, path, output)


@cli.command("retry", cls=Command, short_help="Try again the objects that failed.")
@together(JOB, YES, TLS, SPEED, PROGRESS, LOG)
def retry_command(job: str | None, manifest: Path | None, **options: Any) -> int:
    """Tries again the objects of JOB that failed, and no others."""
    from adsmig import session

    job_, path, output = _saved(job, manifest, options)
    return session.retry(job_, path, output)


@cli.command("again", cls=Command, short_help="Run a job once more, with all its options.")
@together(JOB, YES, SPEED, PROGRESS, LOG)
def again_command(job: str | None, manifest: Path | None, **options: Any) -> int:
    """Runs JOB once more with all its options, as the same command line would.

    An unfinished run goes on. A job of rm asks first, as rm does.
    """
    from adsmig import session

    job_, path, output = _saved(job, manifest, options)
    if job_.command == "rm":
        return session.remove(job_, path, output)
    return session.start(job_, path, output)


@cli.command("cancel", cls=Command, short_help="Give up an unfinished run.")
@together(JOB, MANIFEST, LOG)
def cancel_command(job: str | None, manifest: Path | None, **options: Any) -> int:
    """Gives up the unfinished run of JOB: ends its process, and removes its unfinished uploads.

    What was copied stays, and stays on record. The next run begins from the start.
    """
    from adsmig import session

    job_, path, output = _saved(job, manifest, options)
    return session.cancel(job_, path, output)


@cli.command(
    "inventory", cls=Command, short_help="Say what is there, and what a migration would cost."
)
@INVENTORY
def inventory_command(src: str, dst: str | None, **options: Any) -> int:
    """Says what is at SRC: how much, where, of which sizes and ages.

    With --for DST also what a sync would do there, which keys will be trouble, and what it would
    cost in requests, time and, with --prices, money. Changes nothing.
    """
    from adsmig import session

    output = begin(options)
    job = job_of("inventory", src, dst, {**options, "dryrun": True})
    return session.start(job, None, output)


@cli.command("verify", cls=Command, short_help="Compare SRC and DST, and change nothing.")
@VERIFICATION
def verify_command(src: str, dst: str | None, manifest: Path | None, **options: Any) -> int:
    """Compares SRC and DST by size and content, and reports every difference. Changes nothing.

    Content is read wherever both sides do not have the same MD5 on record.

    With JOB (an id from `adsmig jobs`, or a manifest's file) alone, reads what that job has copied,
    and compares it with the checksums that its manifest holds. The source is not needed.
    """
    from dataclasses import replace

    from adsmig import jobs, session

    output = begin(options)
    check_sample(dst, options)
    if dst is None:
        copied, record = jobs.open_job(src, None)
        job = logged_in(against(copied, record, options))
    else:
        job = job_of("verify", src, dst, options)
    if (share := options["sample"]) is not None:
        job = replace(job, sample=session.sample_of(job, share))
    return session.start(job, manifest, output)


@cli.command("rm", cls=Command, short_help="Delete what is at URI and selected; asks first.")
@together(
    click.argument("src", metavar="URI"), DRYRUN_OF_RM, SURE, SELECTION, ADDRESS, SPEED, PROGRESS,
    LOG,
)  # fmt: skip
def remove_command(src: str, manifest: Path | None, **options: Any) -> int:
    """Deletes what is at URI, or what options select of it, after saying what that is.

    Links are deleted, never followed. What options call SRC is URI.
    """
    from adsmig import session

    output = begin(options)
    job = job_of("rm", src, None, {**options, "keep_links": True})
    return session.remove(job, manifest, output)


@cli.command("jobs", cls=Command, short_help="List the jobs of the state directory.")
@together(LOG)
def jobs_command(**options: Any) -> int:
    """Lists the jobs of the state directory."""

    from adsmig import jobs

    return print_lines(jobs.job_lines(begin(options)))


@cli.command("status", cls=Command, short_help="Show a job, its runs and what is left.")
@together(
    JOB, MANIFEST,
    click.option("--html", type=FILE, metavar="FILE",
                 help="Write a report with plots as one HTML page."),
    LOG,
)  # fmt: skip
def status_command(
    job: str | None, manifest: Path | None, html: Path | None, **options: Any
) -> int:
    """Shows JOB: its runs, what is left to do, what failed."""

    from adsmig import jobs

    return print_lines(jobs.status_lines(job, manifest, html, begin(options)))


@cli.command("failures", cls=Command, short_help="List the objects that failed, with reasons.")
@together(JOB, MANIFEST, LOG)
def failures_command(job: str | None, manifest: Path | None, **options: Any) -> int:
    """Lists the objects of JOB that failed and have not been copied since: kind, key, reason."""

    from adsmig import jobs

    return print_lines(jobs.failure_lines(job, manifest, begin(options)))


@cli.command("web", cls=Command, short_help="Serve the console: jobs in a browser.")
@together(
    click.option("--listen", metavar="ADDRESS:PORT", default="127.0.0.1:8080",
                 help="Where to listen [127.0.0.1:8080]."),
    click.option("--allow-path", "allowed", metavar="DIR", multiple=True,
                 type=click.Path(path_type=Path, exists=True, file_okay=False),
                 help="Local paths of jobs have to lie in DIR; can be repeated."),
    click.option("--language", type=click.Choice(["en", "zh"]),
                 help="The language of who has not chosen one [the browser's]."),
    click.option("--set-password", is_flag=True, help="Ask for a new password, keep its hash."),
    LOG,
)  # fmt: skip
def web_command(
    listen: str,
    allowed: Sequence[Path],
    language: str | None,
    set_password: bool,
    **options: Any,
) -> int:
    """Serves the console: pages to start, watch and steer jobs, and the same as an API.

    It moves no data itself: each job is a process of its own, which needs no console.
    """
    begin(options)
    try:
        from adsmig.web import server
    except ModuleNotFoundError as exc:
        if (exc.name or "adsmig").startswith("adsmig"):
            raise
        raise AdsmigError(f"the console needs {exc.name}: pip install 'adsmig[web]'") from exc
    if set_password:
        return server.set_password()
    return server.serve(listen, allowed, language or "")


@cli.command("providers", cls=Command, short_help="Show what is known of each kind of store.")
@together(LOG)
def providers_command(**options: Any) -> int:
    """Shows the table of providers: domains, endpoints, and what each makes of S3.

    Every field can be overruled for one side with --src-set FIELD=VALUE or --dst-set.
    """
    from adsmig import catalogue

    return print_lines(catalogue.provider_lines(bool(begin(options).as_json)))


@cli.command("mount", cls=Command, short_help="Mount an object store as a directory.")
@together(
    click.argument("uri"), click.argument("directory", metavar="DIR"), MOUNT, ADDRESS, PACE, LOG
)
def mount_command(
    uri: str,
    directory: str,
    read_only: bool,
    cache_dir: Path | None,
    cache_size: int | None,
    foreground: bool,
    allow_other: bool,
    use_server_modtime: bool,
    **options: Any,
) -> int:
    """Makes what is at URI, an address of an object store, appear as the directory DIR.

    Returns when DIR answers; a process goes on until adsmig umount DIR. What is and what is not as
    on a disk is in the README. What options call SRC is URI.
    """
    output = begin(options)
    from adsmig.mount import daemon
    from adsmig.mount.mountpoint import check_directory, check_outside, place_of
    from adsmig.mount.word import Word

    if cache_size is not None and cache_size < daemon.LEAST_CACHE_SIZE:
        raise UsageError("--cache-size is at least 1M")
    job = place_to_mount(uri, options)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    plan = daemon.Plan(
        job,
        place_of(directory),
        read_only,
        allow_other,
        Path(os.path.abspath(cache_dir or os.path.join(base, "adsmig"))),
        daemon.CACHE_SIZE if cache_size is None else cache_size,
        use_server_modtime,
    )
    check_directory(plan.directory)
    check_outside(plan.directory, "--cache-dir", plan.cache)
    check_outside(plan.directory, "the state directory", Word(plan.directory).path.parent)
    for line in daemon.mount(plan, foreground, logging.getLogger().level):
        output.note(f"adsmig: {line}")
    return 0


@cli.command("umount", cls=Command, short_help="Unmount such a directory, when all is stored.")
@together(click.argument("directory", metavar="DIR"), LOG)
def umount_command(directory: str, **options: Any) -> int:
    """Unmounts DIR, and returns when all that was written to it is stored.

    Names what could not be stored, which the next mount of the same address tries again.
    """
    output = begin(options)
    from adsmig.mount.mountpoint import place_of, umount

    unsaved = umount(place_of(directory))
    for line in unsaved:
        output.warn("unsaved", f"not stored: {line}")
    return 1 if unsaved else 0


cli.add_command(schedule_group)
cli.add_command(scheduler_command)


def _migrate(command: str, src: str, dst: str, options: dict[str, Any]) -> int:
    from adsmig import session

    manifest = options["manifest"]
    if options["dryrun"] and options["delete_src"]:
        # As in ads-cli: the source is deleted, and nothing is copied.
        output = begin(options)
        chosen = {**options, "dryrun": False, "delete_src": False, "keep_links": True}
        for name in ("record", "storage_class", "sse", "tags", "compare", "max_delete",
                     "delete_dst", "size_only", "checksum"):  # fmt: skip
            chosen[name] = None
        return session.remove(job_of("rm", src, None, chosen), manifest, output)
    output = begin(options)
    check_migration(options)
    return session.start(job_of(command, src, dst, options), manifest, output, options["rebuild"])


def _saved(name: str | None, manifest: Path | None, options: dict[str, Any]) -> tuple[Any, ...]:
    from dataclasses import replace

    from adsmig import jobs
    from adsmig.credentials import with_credentials

    output = begin(options)
    job, path = jobs.open_job(name, manifest)
    src = job.src if job.against else with_credentials(job.src, "SRC")
    dst = with_credentials(job.dst, "DST") if job.dst else None
    job = replace(job, src=src, dst=dst, **fields_of(options))
    return logged_in(job), path, output
