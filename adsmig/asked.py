"""The Job that a command line asks for, and what its options change of one that there is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adsmig.errors import UsageError

if TYPE_CHECKING:
    from adsmig.job import Job
    from adsmig.location import Location
    from adsmig.routes import Route

_SAME_NAME = (
    "threads", "workers", "bwlimit_mbps", "connect_timeout_s", "read_timeout_s", "depth",
    "existing", "ignore_existing", "update", "delete_src", "delete_dst",
    "max_delete", "yes", "seed", "storage_class", "sse", "tags", "dryrun", "accept_new_host_key",
    "verify_tls",
)  # fmt: skip
"""Options that are fields of a Job."""


def job_of(command: str, src: str, dst: str | None, options: dict[str, Any]) -> Job:
    """The Job that a command line asks for; looks up what is a file and what a directory."""
    from dataclasses import replace

    from adsmig.addresses import resolve, resolve_source

    asked = job_asked(command, src, dst, options)
    if asked.dst is None:
        source = resolve_source(asked.src, asked, follow=command != "rm")
        single = (source.single, source.single) if source.single is not None else None
        return replace(asked, src=source.at, single=single, check=True)
    found = resolve(asked.src, asked.dst, asked)
    return replace(asked, src=found.src, dst=found.dst, single=found.single, check=True)


def job_asked(command: str, src: str, dst: str | None, options: dict[str, Any]) -> Job:
    """The same as far as the command line tells: looks at neither place."""
    from adsmig.filters import Filters
    from adsmig.job import Job
    from adsmig.keylist import STREAM, is_stream
    from adsmig.uri import parse

    def place(text: str, side: str) -> Location:
        at = parse(text, https=options["https"], path_style=options["path_style"])
        return _logged_in_as(_overruled(at, side, options), side, options)

    here, there = place(src, "SRC"), place(dst, "DST") if dst is not None else None
    record = options.get("record") or ""
    names = options["files_from"]
    once = is_stream(names)
    # Where the destination has no links, what they point to is copied.
    keeps_links = options.get("keep_links") and (there or here).is_path
    told_first = command == "rm" or (options.get("dryrun") and command != "inventory")
    names_keys = bool(told_first and options.get("verbose"))
    patterns = ("include", "exclude", "include_dir", "exclude_dir")
    limits = ("min_size", "max_size", "newer_than", "older_than")
    return Job(
        command,
        here,
        there,
        start=_key(options["start"]),
        end=_key(options["end"]),
        filters=Filters(**{name: options[name] for name in (*patterns, *limits)}),
        compare=_comparison(options),
        perms=not options.get("noperms"),
        links="copy" if keeps_links else "record" if record else "follow",
        record=os.path.abspath(record) if record else "",
        check=False,
        routes=_routes(options),
        files_from=STREAM if once else os.path.abspath(names) if names else "",
        names=names if once else "",
        names_keys=names_keys,
        **fields_of(options),
    )


_OF_PLACES = (
    "path_style", "src_region", "dst_region", "src_endpoint", "dst_endpoint", "src_set", "dst_set",
    "src_profile", "dst_profile", "resolve", "connect_to", "anonymous", "keep_links", "record",
    "files_from",
)  # fmt: skip


_ALL = {"start": None, "end": None, "include": (), "exclude": (), "include_dir": (),
        "exclude_dir": (), "min_size": None, "max_size": None, "newer_than": "", "older_than": "",
        "files_from": ""}  # fmt: skip


def place_to_mount(uri: str, options: dict[str, Any]) -> Job:
    """A Job of which the source is the directory that ``uri`` names; raises UsageError for a single
    object, and for what is no object store.
    """
    from adsmig.uri import parse

    if parse(uri, https=options["https"], path_style=options["path_style"]).is_path:
        raise UsageError("only object stores are mounted; use the directory itself, or sshfs")
    job = job_of("inventory", uri, None, {**_ALL, **options})
    if job.single is not None:
        raise UsageError(f"that is an object: mount the directory it is in, {job.src}")
    return job


def against(copied: Job, manifest: Path, options: dict[str, Any]) -> Job:
    """The Job that holds what ``copied`` has copied against its manifest."""
    from adsmig.credentials import with_credentials
    from adsmig.filters import Filters
    from adsmig.job import Job

    if copied.command not in ("cp", "sync"):
        raise UsageError(f"job {copied.id} is one of {copied.command}: name one that copied")
    if options["https"] is not None or any(options[name] for name in _OF_PLACES):
        raise UsageError(
            "a JOB knows where it copied to, and what: leave out the options of addresses, of links"
            " and --files-from"
        )
    names = ("include", "exclude", "include_dir", "exclude_dir",
             "min_size", "max_size", "newer_than", "older_than")  # fmt: skip
    return Job(
        "verify",
        copied.src,
        with_credentials(copied.dst, "DST") if copied.dst else None,
        single=copied.single,
        start=_key(options["start"]),
        end=_key(options["end"]),
        filters=Filters(**{name: options[name] for name in names}),
        links="copy" if copied.links == "copy" else "follow",
        against=os.path.abspath(manifest),
        routes=copied.routes,
        by_directory=copied.by_directory,
        **fields_of(options),
    )


def logged_in(job: Job) -> Job:
    """The job with passwords that its SFTP servers want, and that had to be asked for."""
    from dataclasses import replace

    def ready(at: Location | None) -> Location | None:
        if at is None or at.scheme != "sftp":
            return at
        from adsmig.storage import sftpplace

        return sftpplace.ready(at, job)

    src = job.src if job.against else ready(job.src)
    assert src
    return replace(job, src=src, dst=ready(job.dst))


def fields_of(options: dict[str, Any]) -> dict[str, Any]:
    """Those options that are fields of a Job, if they were given."""
    chosen = {name: options[name] for name in _SAME_NAME if options.get(name) is not None}
    if options.get("ca_bundle"):
        chosen["ca_bundle"] = os.path.abspath(options["ca_bundle"])
    return chosen


def _comparison(options: dict[str, Any]) -> str:
    asked = {
        name: options.get(flag) for name, flag in (("size", "size_only"), ("checksum", "checksum"))
    }
    names = {name for name, flag in asked.items() if flag} | {options.get("compare") or ""} - {""}
    if len(names) > 1:
        raise UsageError("--size-only, --checksum and --compare say different things; choose one")
    return next(iter(names), "")


def _key(text: str | None) -> bytes | None:
    return None if text is None else os.fsencode(text)


def _overruled(at: Location, side: str, options: dict[str, Any]) -> Location:
    """The location with what the options of its side say instead of its address or profile."""
    from dataclasses import replace

    from adsmig.providers import PATH, VIRTUAL
    from adsmig.uri import endpoint_of_text

    name = side.lower()
    region, endpoint, chosen = (options[f"{name}_{what}"] for what in ("region", "endpoint", "set"))
    if at.scheme == "file":
        if region or endpoint or chosen:
            raise UsageError(f"{side} is a local path: leave out the options of a store for it")
        return at
    at = replace(at, overrides=tuple(chosen), region=region or at.region)
    if endpoint:
        host, private, encrypted = endpoint_of_text(endpoint, at.https)
        if options["https"] is not None:
            encrypted = options["https"]
        path_style = at.path_style or private
        at = replace(at, host=host, https=encrypted, path_style=path_style)
    if not (at.host or at.scheme == "s3"):
        raise UsageError(
            f"{at}: no endpoint in the address; write {at.scheme}://BUCKET.ENDPOINT[/PREFIX]"
            f" (adsmig providers lists the domains), or add --{name}-endpoint"
        )
    style = at.profile.style if any(one.startswith("style=") for one in chosen) else ""
    return replace(at, path_style=style == PATH or (at.path_style and style != VIRTUAL))


def _routes(options: dict[str, Any]) -> tuple[Route, ...]:
    from adsmig.routes import parse_connect_to, parse_resolve

    resolved = [parse_resolve(text) for text in options["resolve"]]
    return (*resolved, *(parse_connect_to(text) for text in options["connect_to"]))


def _logged_in_as(at: Location, side: str, options: dict[str, Any]) -> Location:
    """The location with its side's credentials, of whichever kind."""
    from dataclasses import replace

    from adsmig.credentials import with_credentials

    what = "source" if side == "SRC" else "destination"
    account = options[f"{side.lower()}_profile"]
    anonymous = ("0" if side == "SRC" else "1") in options["anonymous"]
    if anonymous and at.is_path:
        kind = "a local path" if at.scheme == "file" else "an SFTP server"
        raise UsageError(f"--anonymous for the {what}, which is {kind}: leave it out")
    if account and (at.scheme == "file" or anonymous or at.credentials):
        raise UsageError(
            f"--{side.lower()}-profile is for a {what} that needs keys and has none in its address"
        )
    if anonymous:
        return replace(at, anonymous=True, credentials=None)
    return with_credentials(replace(at, account=account), side)
