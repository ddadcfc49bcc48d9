"""adsmig beside its peers: wall time, CPU time and memory, as ratios made in one run.

Every tool gets the same input, an empty (or, for ``noop``, an equal) destination, and the settings
that its documentation recommends for the machine; the tools take turns, and each round puts another
one first.  What a tool wrote is compared with the input before its time counts.  The figure that
matters is the ratio: adsmig's by the best peer's of the same round, the median over all rounds.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

TOP = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOP))

from scripts.benchdata import TREES, Tree, lists_equal, make_tree  # noqa: E402
from scripts.benchfigures import BenchError, Figures, as_json, machine, table  # noqa: E402
from scripts.benchground import discard, touch_memory  # noqa: E402
from scripts.benchmount import MOUNTERS, Mounter, steps  # noqa: E402
from scripts.benchprofile import Profile, profile_table, profiled  # noqa: E402
from scripts.benchtools import OURS, PEERS, Place, Task, Tool, flushed  # noqa: E402
from scripts.slowproxy import SlowProxy  # noqa: E402
from tests.servers import (  # noqa: E402
    MinIOGateway,
    SeaweedFS,
    SecureSeaweedFS,
    Server,
    Sshd,
    program,
)

DELAY_S = 0.02
"""The round trip that the workloads of ``latency`` are given."""
MUCH = 64 << 20
"""Bytes of an object that fill memory."""
SETTLED_S = 3
"""Objects younger than two seconds are waited for by adsmig; no real source is that young."""


# ---------------------------------------------------------------------- the workloads


@dataclass(frozen=True)
class Workload:
    """Something to be done, at one size."""

    name: str
    tree: str
    """A name of benchdata.TREES."""
    src: str
    dst: str = ""
    """``local``, ``sftp``, the name of a server, or '' where nothing is written."""
    how: str = "copy"
    checked: bool = False
    """Only by tools that hold each byte that arrived against what was sent."""
    slow: bool = False
    """Through a proxy that delays what passes."""
    durable: bool = False
    """Each tool has each byte on the disk when it ends; sync(1) has it for those that cannot."""


WORKLOADS = [
    Workload("small-up", "small", "local", "seaweedfs"),
    Workload("small-down", "small", "seaweedfs", "local"),
    Workload("large-up", "large", "local", "seaweedfs"),
    Workload("large-down", "large", "seaweedfs", "local"),
    Workload("checked-up", "large", "local", "seaweedfs", checked=True),
    Workload("checked-down", "large", "seaweedfs", "local", checked=True),
    Workload("durable-down", "large", "seaweedfs", "local", durable=True),
    Workload("durable-small-down", "small", "seaweedfs", "local", durable=True),
    Workload("durable-mixed-down", "mixed", "seaweedfs", "local", durable=True),
    Workload("huge-up", "huge", "local", "seaweedfs"),
    Workload("huge-down", "huge", "seaweedfs", "local"),
    Workload("https-large-up", "large", "local", "https"),
    Workload("https-large-down", "large", "https", "local"),
    Workload("mixed-up", "mixed", "local", "seaweedfs"),
    Workload("mixed-down", "mixed", "seaweedfs", "local"),
    Workload("checked-mixed-up", "mixed", "local", "seaweedfs", checked=True),
    Workload("checked-mixed-down", "mixed", "seaweedfs", "local", checked=True),
    Workload("s3-s3-small", "small", "seaweedfs", "minio"),
    Workload("s3-s3-large", "large", "seaweedfs", "minio"),
    Workload("checked-s3-s3", "large", "seaweedfs", "minio", checked=True),
    Workload("s3-s3-inside", "small", "seaweedfs", "seaweedfs"),
    Workload("noop-local-s3", "empty", "local", "synthetic", "sync"),
    Workload("noop-s3-s3", "empty", "synthetic", "synthetic", "sync"),
    Workload("noop-manifest", "empty", "synthetic", "synthetic", "remembered"),
    Workload("list-flat", "flat", "synthetic", how="list"),
    Workload("list-dated", "dated", "synthetic", how="list"),
    Workload("list-nested", "nested", "synthetic", how="list"),
    Workload("local-small", "small", "local", "local"),
    Workload("local-large", "large", "local", "local"),
    Workload("durable-small", "small", "local", "local", durable=True),
    Workload("durable-large", "large", "local", "local", durable=True),
    Workload("latency-small-up", "small", "local", "seaweedfs", slow=True),
    Workload("latency-noop", "empty", "synthetic", "synthetic", "sync", slow=True),
    Workload("latency-list", "flat", "synthetic", how="list", slow=True),
    Workload("sftp-small-up", "few", "local", "sftp"),
    Workload("sftp-small-down", "few", "sftp", "local"),
    Workload("sftp-large-up", "gigabyte", "local", "sftp"),
    Workload("sftp-large-down", "gigabyte", "sftp", "local"),
    Workload("latency-sftp-up", "few", "local", "sftp", slow=True),
    Workload("latency-sftp-down", "few", "sftp", "local", slow=True),
    Workload("start", "one", "local", "seaweedfs"),
    Workload("mount", "mounted", "seaweedfs", how="mount"),
]


T = TypeVar("T")


class Bench:
    """Servers, input and scratch space; closes what it opened."""

    def __init__(self, directory: Path, short: bool) -> None:
        self.directory, self.short = directory, short
        self._stack = contextlib.ExitStack()
        self._servers: dict[str, Server] = {}
        self._filled: dict[tuple[str, str], Place] = {}
        self._count = 0

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def run(self, workload: Workload, rounds: int, tools: Sequence[Tool]) -> dict[str, Figures]:
        """The figures of each tool that can do it."""
        found = {tool.name: Figures() for tool in tools}
        for tool in in_turn(tools, rounds):
            figures = self._once(workload, tool, measure)
            if figures is None:
                found.pop(tool.name, None)
            else:
                found[tool.name].add(figures)
        return found

    def profile(self, workload: Workload, tools: Sequence[Tool]) -> dict[str, Profile]:
        """Where the processor time of each tool goes that can do it; see benchprofile."""
        found = {tool.name: self._once(workload, tool, profile) for tool in tools}
        return {name: one for name, one in found.items() if one is not None}

    def mount(self, rounds: int, tools: Sequence[Mounter]) -> dict[str, dict[str, Figures]]:
        """For each of the steps of benchmount, the figures of each tool."""
        trees = [TREES[name].scaled(self.short) for name in ("mounted", "epoch", "entries")]
        for tree in trees:
            self._source("seaweedfs", tree)
        server, local = self.server("seaweedfs"), self.directory / "trees"
        found: dict[str, dict[str, Figures]] = {}
        for tool in in_turn(tools, rounds):
            with tempfile.TemporaryDirectory(dir=self.directory) as scratch:
                for step, figures in steps(tool, server, local, Path(scratch), environment()):
                    found.setdefault(step, {}).setdefault(tool.name, Figures()).add(figures)
        return found

    def _once(self, workload: Workload, tool: Tool, look: Callable[..., T]) -> T | None:
        """What `look` (measure, or profile) tells of a run; None if the tool can't do it."""
        tree = TREES[workload.tree].scaled(self.short)
        with tempfile.TemporaryDirectory(dir=self.directory) as scratch:
            src = self._source(workload.src, tree)
            dst = self._destination(workload, tree)
            with contextlib.ExitStack() as stack:
                if workload.slow:
                    src, dst = (self._slowed(at, stack) for at in (src, dst))
                task = Task(workload.how, src, dst, Path(scratch), workload.checked, workload.slow)
                command = tool.command(task)
                if command is None:
                    return None
                if workload.durable and tool is not OURS:
                    command = flushed(command, dst)
                if workload.how == "remembered" and tool is OURS:
                    quietly(tool.command(Task("sync", src, dst, Path(scratch))) or ())
                os.sync()  # what others wrote shall not be paid for by this one
                if tree.most >= MUCH:
                    touch_memory(self.directory)
                figures = look(command, Path(scratch), src, dst)
            if workload.how == "copy":
                self._check(tool, tree, dst)
                self._clear(dst)
        return figures

    # Places

    def server(self, name: str) -> Server:
        """One of the servers, started when first asked for."""
        if name not in self._servers:
            kinds = {"seaweedfs": SeaweedFS, "https": SecureSeaweedFS, "minio": MinIOGateway}
            kind = {**kinds, "sftp": Sshd}[name]
            self._servers[name] = self._stack.enter_context(kind(self.directory / name))
        return self._servers[name]

    def _source(self, where: str, tree: Tree) -> Place:
        if where == "synthetic":
            return Place("bucket", self._synthetic(tree))
        if (where, tree.name) not in self._filled:
            local = self.directory / "trees" / tree.name
            if not local.exists():
                make_tree(local, tree)
            place = Place(str(local))
            if where == "sftp":
                place = self._through_sftp(local)
            elif where != "local":
                server = self.server(where)
                place = _in(server, f"{server.make_bucket(f'bench-{tree.name}')}/src")
                target = f"s3://{server.host}/{place.path}/"
                state = self.directory / f"fill-{where}-{tree.name}.db"
                words = [program("adsmig"), "cp", "-q", "--manifest", str(state)]
                if place.certificate:
                    words += ["--https", "--ca-bundle", place.certificate]
                    target = f"s3://{place.host}/{place.path}/"
                quietly([*words, f"{local}/", target])
                time.sleep(SETTLED_S)
            self._filled[where, tree.name] = place
        return self._filled[where, tree.name]

    def _destination(self, workload: Workload, tree: Tree) -> Place:
        self._count += 1
        if workload.dst == "synthetic":
            return Place("other", self._synthetic(tree))
        if workload.dst in ("", "local"):
            path = self.directory / f"dst-{self._count}"
            if workload.dst:
                path.mkdir()
            return Place(str(path))
        if workload.dst == "sftp":
            path = self.directory / f"dst-{self._count}"
            path.mkdir()
            return self._through_sftp(path)
        server = self.server(workload.dst)
        bucket = server.make_bucket(f"bench-dst-{self._count}")
        # SeaweedFS makes a bucket's volumes when it is first written to, and has those who came
        # meanwhile wait, 0.3 to 0.75 s as was seen: luck, and no matter of the tools.
        server.client().put_object(Bucket=bucket, Key="before", Body=b"anything")
        return _in(server, f"{bucket}/dst")

    def _slowed(self, at: Place, stack: contextlib.ExitStack) -> Place:
        """The same, at a distance; a directory here stays where it is."""
        if at.local:
            return at
        return replace(at, host=stack.enter_context(SlowProxy(at.host, DELAY_S)).host)

    def _through_sftp(self, path: Path) -> Place:
        sshd = self.server("sftp")
        assert isinstance(sshd, Sshd)
        return Place(str(path), sshd.host, str(sshd.key_file))

    def _synthetic(self, tree: Tree) -> str:
        """The host of a store that lists the tree's keys, every page rendered once already."""
        key = ("synthetic", tree.name)
        if key not in self._filled:
            words = [sys.executable, "-m", "tests.synthetic", "0", str(tree.count), tree.shape]
            process = subprocess.Popen(words, cwd=TOP, stdout=subprocess.PIPE, text=True)
            self._stack.callback(process.communicate)
            self._stack.callback(process.kill)
            assert process.stdout
            self._filled[key] = Place("bucket", process.stdout.readline().strip())
            quietly([program("adsmig"), "inventory", f"s3://{self._filled[key].host}/bucket/"])
        return self._filled[key].host

    def _check(self, tool: Tool, tree: Tree, dst: Place) -> None:
        local = self.directory / "trees" / tree.name
        path = dst.path if dst.local or dst.key else None
        there = lists_equal(local, path, self._listing(dst))
        if there:
            raise BenchError(f"{tool.name} left {there}")

    def _listing(self, dst: Place) -> dict[str, tuple[int, str]] | None:
        if dst.local or dst.key:
            return None
        bucket, _, prefix = dst.path.partition("/")
        return {
            item["Key"].removeprefix(f"{prefix}/"): (item["Size"], item["ETag"].strip('"'))
            for page in self._pages(bucket, f"{prefix}/")
            for item in page
            if not item["Key"].endswith("/")
        }

    def _pages(self, bucket: str, prefix: str) -> Iterator[list[dict[str, Any]]]:
        """What a bucket of one of the servers holds; asked of that, not of a proxy before it."""
        client = self._client(bucket)
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return (page.get("Contents", []) for page in pages)

    def _client(self, bucket: str) -> Any:
        stores = (one for one in self._servers.values() if not isinstance(one, Sshd))
        return next(one.client() for one in stores if bucket in self._buckets(one))

    def _buckets(self, server: Server) -> set[str]:
        return {one["Name"] for one in server.client().list_buckets()["Buckets"]}

    def _clear(self, dst: Place) -> None:
        if dst.local or dst.key:
            discard(Path(dst.path), self.directory / "done")
        else:
            bucket = dst.path.partition("/")[0]
            client = self._client(bucket)
            client.meta.events.register("before-call.s3.DeleteObjects", with_md5)
            for page in self._pages(bucket, ""):
                keys = [{"Key": item["Key"]} for item in page]
                if keys:
                    client.delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True})


def with_md5(params: dict[str, Any], **_: object) -> None:
    """Adds what the MinIO code base insists on, and botocore has left off to send."""
    digest = hashlib.md5(params["body"], usedforsecurity=False).digest()
    params["headers"]["Content-MD5"] = base64.b64encode(digest).decode()


def _in(server: Server, path: str) -> Place:
    """A place in a store, over https where it speaks that."""
    if isinstance(server, SecureSeaweedFS):
        return Place(path, server.secure_host, certificate=str(server.certificate))
    return Place(path, server.host)


def in_turn(tools: Sequence[T], rounds: int) -> Iterator[T]:
    """Every tool once a round, each round another one first."""
    for number in range(rounds):
        first = number % len(tools)
        yield from (*tools[first:], *tools[:first])


def environment() -> dict[str, str]:
    """What every tool is given: keys for all stores, and no user's settings."""
    keys = {
        "AWS_ACCESS_KEY_ID": Server.access_key,
        "AWS_SECRET_ACCESS_KEY": Server.secret_key,
        "AWS_REGION": Server.region,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for side in ("SRC", "DST"):
        keys[f"ADSMIG_{side}_ACCESS_KEY"] = Server.access_key
        keys[f"ADSMIG_{side}_SECRET_KEY"] = Server.secret_key
    # As where it is installed: its modules compiled.
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, **keys}


def measure(command: Sequence[str], scratch: Path, *places: Place) -> dict[str, float]:
    """The figures of measure.py, with the keys and certificates of ``places``; BenchError if the
    command fails.
    """
    output = scratch / "output"
    words = [sys.executable, str(TOP / "scripts" / "measure.py"), str(output), *command]
    env = _environment_of(scratch, places)
    done = subprocess.run(words, env=env, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(done.stdout)
    if figures["code"]:
        tail = output.read_text(errors="replace")[-500:]
        raise BenchError(f"{' '.join(command)} exited with {figures['code']}: {tail}")
    return figures


def profile(command: Sequence[str], scratch: Path, *places: Place) -> Profile:
    """As :func:`measure`, with the figures of benchprofile."""
    return profiled(command, scratch, _environment_of(scratch, places))


def _environment_of(scratch: Path, places: Sequence[Place]) -> dict[str, str]:
    env = {**environment(), "HOME": str(scratch), "XDG_STATE_HOME": str(scratch)}
    for place in places:
        if place.key:
            env["SSH_PRIVATE_KEY_PATH"] = place.key
        if place.certificate:
            env["SSL_CERT_FILE"] = env["AWS_CA_BUNDLE"] = place.certificate
    return env


def quietly(command: Sequence[str]) -> None:
    """Runs a command that is not measured; BenchError if it fails."""
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    if done.returncode:
        raise BenchError(f"{' '.join(command)} exited with {done.returncode}: {done.stderr[-500:]}")


def main(arguments: Sequence[str]) -> int:
    """Runs what was asked for; 1 if a tool did not do its work."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--workload", action="append", choices=[one.name for one in WORKLOADS])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--short", action="store_true", help="small sizes, one round")
    parser.add_argument("--json", action="store_true", help="a JSON object a workload")
    parser.add_argument("--tool", action="append", help="only these, beside adsmig")
    parser.add_argument(
        "--profile", action="store_true", help="where the processor time goes, by perf; one round"
    )
    chosen = parser.parse_args(arguments)
    names = {OURS.name, *(chosen.tool or (one.name for one in (*PEERS, *MOUNTERS)))}
    tools = [one for one in (OURS, *PEERS) if one.name in names]
    mounters = [one for one in MOUNTERS if one.name in names and one.found()]
    workloads = [one for one in WORKLOADS if not chosen.workload or one.name in chosen.workload]
    if not chosen.json:
        print(machine())
        for tool in tools if any(one.how != "mount" for one in workloads) else ():
            print(f"  {tool.name:10} {tool.settings}")
        for mounter in mounters if any(one.how == "mount" for one in workloads) else ():
            print(f"  {mounter.name:10} {mounter.settings}")
    failed = 0
    with (
        tempfile.TemporaryDirectory(prefix="adsmig-bench-") as directory,
        Bench(Path(directory), chosen.short) as bench,
    ):
        for workload in workloads:
            rounds = 1 if chosen.short else chosen.rounds
            try:
                if chosen.profile:
                    if workload.how == "mount":
                        raise BenchError("no profile is made of mounts")
                    ran = bench.profile(workload, tools)
                    if chosen.json:
                        seconds = {name: asdict(one) for name, one in ran.items()}
                        print(json.dumps({"workload": workload.name, "profile": seconds}))
                    else:
                        print("\n".join(profile_table(workload.name, ran)), flush=True)
                    continue
                if workload.how == "mount":
                    found = bench.mount(rounds, mounters)
                else:
                    found = {workload.name: bench.run(workload, rounds, tools)}
            except BenchError as exc:
                print(f"{workload.name}: {exc}", file=sys.stderr)
                failed = 1
                continue
            for name, figures in found.items():
                if chosen.json:
                    print(json.dumps({"workload": name, **as_json(figures)}), flush=True)
                else:
                    print("\n".join(table(name, figures)), flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
