"""The programs that the benchmark times, and how each is called: its best documented settings."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.servers import Server, program

THREADS = 32
"""Requests in flight, of every tool that can be told."""

FAR_WORKERS = 4
"""Of adsmig, each of which has one page of a listing on its way."""


@dataclass(frozen=True)
class Place:
    """A directory, here or through SFTP, or a prefix in a bucket."""

    path: str
    """Of the directory, or ``BUCKET/PREFIX``; without a slash at the end."""
    host: str = ""
    """Of the store, or of the SFTP server; '' for a directory here."""
    key: str = ""
    """The file of root's private key at an SFTP server; '' at others."""
    certificate: str = ""
    """Of a store that is spoken to over https; '' over http."""

    @property
    def local(self) -> bool:
        return not self.host

    @property
    def endpoint(self) -> str:
        """Of a store, as a URL."""
        return f"{'https' if self.certificate else 'http'}://{self.host}"


@dataclass(frozen=True)
class Task:
    """What a tool is asked to do."""

    how: str
    """``copy``: to an empty place; ``sync``: to an equal one; ``remembered``: the same, by who can
    without looking there; ``list``: say how much there is.
    """
    src: Place
    dst: Place
    scratch: Path
    """An empty directory for state of the tool's own."""
    checked: bool = False
    """Only who holds each byte that arrived against what was sent may do it, told to if need be."""
    far: bool = False
    """Each request takes a while, whoever makes it."""


@dataclass(frozen=True)
class Tool:
    """A program, and how it is called; ``command`` is None for what it cannot do."""

    name: str
    command: Callable[[Task], list[str] | None]
    settings: str


# ---------------------------------------------------------------------- the tools


def adsmig(task: Task) -> list[str]:
    def place(at: Place) -> str:
        if at.key:
            return f"sftp://root@{at.host}{at.path}/"
        return f"{at.path}/" if at.local else f"s3://{at.host}/{at.path}/"

    words = [program("adsmig"), "-q", "--accept-new-host-key"]
    many = ["--workers", str(FAR_WORKERS)] if task.far and task.how != "copy" else []
    if task.how == "list":
        return [program("adsmig"), "inventory", *many, place(task.src)]
    command = "cp" if task.how == "copy" else "sync"
    remembered = ["--compare", "manifest"] if task.how == "remembered" else []
    secure = ["--https"] if task.src.certificate or task.dst.certificate else []
    words += [command, *many, *remembered, *secure, "--manifest", f"{task.scratch}/m.db"]
    return [*words, place(task.src), place(task.dst)]


def rclone(task: Task) -> list[str] | None:
    def place(at: Place) -> str:
        if at.local:
            return at.path
        if at.key:
            name, _, port = at.host.partition(":")
            plain = "shell_type=none,disable_hashcheck=true"
            return f":sftp,host={name},port={port},user=root,key_file={at.key},{plain}:{at.path}"
        keys = f"access_key_id={Server.access_key},secret_access_key={Server.secret_key}"
        return f":s3,provider=Other,{keys},list_version=2,endpoint='{at.endpoint}':{at.path}"

    if task.checked and (task.dst.local or not task.src.local):
        return None  # of what was put in parts, it knows no hash
    words = [program("rclone"), "--config", "/dev/null", "--s3-no-check-bucket", "--fast-list"]
    words += ["--transfers", str(THREADS), "--checkers", str(THREADS)]
    if task.how == "list":
        return [*words, "size", place(task.src)]
    if task.how == "copy":
        words += ["--no-check-dest", "--s3-no-head", "--s3-upload-concurrency", "4"]
        return [*words, "copy", place(task.src), place(task.dst)]
    # Else it asks for each object's own note of its time.
    equal = ["--update", "--use-server-modtime"] if task.src.local else ["--checksum"]
    return [*words, *equal, "copy", place(task.src), place(task.dst)]


def s5cmd(task: Task) -> list[str] | None:
    if (task.src.local and task.dst.local) or task.src.key or task.dst.key or task.checked:
        return None
    if not task.src.local and not task.dst.local and task.src.host != task.dst.host:
        return None

    def place(at: Place) -> str:
        return f"{at.path}/" if at.local else f"s3://{at.path}/"

    store = task.src if task.dst.local else task.dst
    words = [program("s5cmd"), "--endpoint-url", store.endpoint, "--log", "error"]
    words += ["--numworkers", str(THREADS)]
    if task.how == "list":
        return [*words, "du", f"{place(task.src)}*"]
    command = "cp" if task.how == "copy" else "sync"
    source = place(task.src) + ("*" if not task.src.local or command == "cp" else "")
    return [*words, command, source, place(task.dst)]


def juicefs(task: Task) -> list[str]:
    def place(at: Place) -> str:
        if at.local:
            return f"{at.path}/"
        if at.key:
            return f"root@{at.host}:{at.path}/"
        kind = "s3" if at.certificate else "minio"  # which speaks no https
        return f"{kind}://{Server.access_key}:{Server.secret_key}@{at.host}/{at.path}/"

    words = [program("juicefs"), "--no-agent", "sync", "--threads", str(THREADS), "--quiet"]
    words += ["--metrics", "127.0.0.1:0", *(["--check-new"] if task.checked else [])]
    if not (task.src.certificate or task.dst.certificate):
        words.append("--no-https")
    if task.how == "list":
        empty = task.scratch / "empty"
        empty.mkdir()
        return [*words, "--dry", place(task.src), f"{empty}/"]
    return [*words, place(task.src), place(task.dst)]


def flushed(command: list[str], dst: Place) -> list[str]:
    """The same, with what was written on the disk at the end."""
    return ["sh", "-c", f"{shlex.join(command)} && sync -f {shlex.quote(dst.path)}"]


def cp(task: Task) -> list[str] | None:
    if not (task.src.local and task.dst.local and task.how == "copy"):
        return None
    return ["cp", "-r", "--preserve=timestamps,mode", f"{task.src.path}/.", task.dst.path]


def rsync(task: Task) -> list[str] | None:
    if not (task.src.local and task.dst.local and task.how != "list" and shutil.which("rsync")):
        return None
    return ["rsync", "-a", "--whole-file", f"{task.src.path}/", f"{task.dst.path}/"]


OURS = Tool(
    "adsmig",
    adsmig,
    f"as it comes, what is distant listed with --workers {FAR_WORKERS}; CRC-32, MD5 or size"
    " checked, xxh3 recorded, fsynced",
)
PEERS = [
    Tool("rclone", rclone, f"--transfers/--checkers {THREADS} --fast-list --s3-no-head, MD5 sent"),
    Tool("s5cmd", s5cmd, f"--numworkers {THREADS}"),
    Tool("juicefs", juicefs, f"sync --threads {THREADS}"),
    Tool("cp", cp, "-r --preserve=timestamps,mode"),
    Tool("rsync", rsync, "-a --whole-file"),
]
