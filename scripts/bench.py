"""adsmig beside its peers: wall time, CPU time and memory, as ratios made in one run.

Every tool gets the same input, an empty (or, for ``noop``, an equal) destination, and the settings
that its documentation recommends for the machine; the tools take turns, and each round puts another
one first.  What a tool wrote is compared with the input before its time counts.  The figure that
matters is the ratio: adsmig's by the best peer's of the same round, the median over all rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOP))

from scripts.benchdata import TREES, Tree, lists_equal, make_tree  # noqa: E402
from scripts.benchtools import OURS, PEERS, Place, Task, Tool  # noqa: E402
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
SETTLED_S = 3
"""Objects younger than two seconds are waited for by adsmig; no real source is that young."""


class BenchError(Exception):
    """A tool that did not do its work, or a server that does not start."""


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
    slow: bool = False
    """Through a proxy that delays what passes."""


WORKLOADS = [
    Workload("small-up", "small", "local", "seaweedfs"),
    Workload("small-down", "small", "seaweedfs", "local"),
    Workload("large-up", "large", "local", "seaweedfs"),
    Workload("large-down", "large", "seaweedfs", "local"),
    Workload("huge-up", "huge", "local", "seaweedfs"),
    Workload("huge-down", "huge", "seaweedfs", "local"),
    Workload("https-large-up", "large", "local", "https"),
    Workload("https-large-down", "large", "https", "local"),
    Workload("mixed-up", "mixed", "local", "seaweedfs"),
    Workload("mixed-down", "mixed", "seaweedfs", "local"),
    Workload("s3-s3-small", "small", "seaweedfs", "minio"),
    Workload("s3-s3-large", "large", "seaweedfs", "minio"),
    Workload("s3-s3-inside", "small", "seaweedfs", "seaweedfs"),
    Workload("noop-local-s3", "empty", "local", "synthetic", "sync"),
    Workload("noop-s3-s3", "empty", "synthetic", "synthetic", "sync"),
    Workload("noop-manifest", "empty", "synthetic", "synthetic", "remembered"),
    Workload("list-flat", "flat", "synthetic", how="list"),
    Workload("list-dated", "dated", "synthetic", how="list"),
    Workload("list-nested", "nested", "synthetic", how="list"),
    Workload("local-small", "small", "local", "local"),
    Workload("local-large", "large", "local", "local"),
    Workload("latency-small-up", "small", "local", "seaweedfs", slow=True),
    Workload("latency-noop", "empty", "synthetic", "synthetic", "sync", slow=True),
    Workload("latency-list", "flat", "synthetic", how="list", slow=True),
    Workload("sftp-small-up", "few", "local", "sftp"),
    Workload("sftp-small-down", "few", "sftp", "local"),
    Workload("sftp-large-up", "gigabyte", "local", "sftp"),
    Workload("sftp-large-down", "gigabyte", "sftp", "local"),
    Workload("start", "one", "local", "seaweedfs"),
]


@dataclass
class Figures:
    """What one tool took for one workload, a value a round."""

    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    peak_bytes: list[float] = field(default_factory=list)


NAMES = ("wall_s", "cpu_s", "peak_bytes")


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
        for number in range(rounds):
            for tool in [*tools[number % len(tools) :], *tools[: number % len(tools)]]:
                figures = self._once(workload, tool)
                if figures is None:
                    found.pop(tool.name, None)
                    continue
                for name in NAMES:
                    getattr(found[tool.name], name).append(figures[name])
        return found

    def _once(self, workload: Workload, tool: Tool) -> dict[str, float] | None:
        tree = TREES[workload.tree].scaled(self.short)
        with tempfile.TemporaryDirectory(dir=self.directory) as scratch:
            src = self._source(workload.src, tree)
            dst = self._destination(workload, tree)
            with contextlib.ExitStack() as stack:
                if workload.slow:
                    src, dst = (self._slowed(at, stack) for at in (src, dst))
                command = tool.command(Task(workload.how, src, dst, Path(scratch)))
                if command is None:
                    return None
                if workload.how == "remembered" and tool is OURS:
                    quietly(tool.command(Task("sync", src, dst, Path(scratch))) or ())
                figures = measure(command, Path(scratch), src, dst)
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
        return _in(server, f"{server.make_bucket(f'bench-dst-{self._count}')}/dst")

    def _slowed(self, at: Place, stack: contextlib.ExitStack) -> Place:
        """The same, at a distance; a directory here stays where it is."""
        if at.local:
            return at
        return Place(at.path, stack.enter_context(SlowProxy(at.host, DELAY_S)).host)

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
        return next(one.client() for one in self._servers.values() if bucket in self._buckets(one))

    def _buckets(self, server: Server) -> set[str]:
        return {one["Name"] for one in server.client().list_buckets()["Buckets"]}

    def _clear(self, dst: Place) -> None:
        if dst.local or dst.key:
            shutil.rmtree(dst.path)
        else:
            bucket = dst.path.partition("/")[0]
            client = self._client(bucket)
            for page in self._pages(bucket, ""):
                keys = [{"Key": item["Key"]} for item in page]
                if keys:
                    client.delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True})


def _in(server: Server, path: str) -> Place:
    """A place in a store, over https where it speaks that."""
    if isinstance(server, SecureSeaweedFS):
        return Place(path, server.secure_host, certificate=str(server.certificate))
    return Place(path, server.host)


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
    env = {**environment(), "HOME": str(scratch), "XDG_STATE_HOME": str(scratch)}
    for place in places:
        if place.key:
            env["SSH_PRIVATE_KEY_PATH"] = place.key
        if place.certificate:
            env["SSL_CERT_FILE"] = env["AWS_CA_BUNDLE"] = place.certificate
    done = subprocess.run(words, env=env, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(done.stdout)
    if figures["code"]:
        tail = output.read_text(errors="replace")[-500:]
        raise BenchError(f"{' '.join(command)} exited with {figures['code']}: {tail}")
    return figures


def quietly(command: Sequence[str]) -> None:
    """Runs a command that is not measured; BenchError if it fails."""
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    if done.returncode:
        raise BenchError(f"{' '.join(command)} exited with {done.returncode}: {done.stderr[-500:]}")


# ---------------------------------------------------------------------- what is shown


def ratio(found: dict[str, Figures], name: str) -> tuple[float, str] | None:
    """adsmig's figure by the best peer's, the median over rounds, and which peer that mostly is."""
    peers = [tool for tool in found if tool != OURS.name]
    if not peers or OURS.name not in found:
        return None
    ours = getattr(found[OURS.name], name)
    ratios = [
        value / min(getattr(found[peer], name)[at] for peer in peers)
        for at, value in enumerate(ours)
    ]
    best = min(peers, key=lambda peer: statistics.median(getattr(found[peer], name)))
    return statistics.median(ratios), best


def table(workload: Workload, found: dict[str, Figures]) -> Iterator[str]:
    """Lines for people: each tool's medians, and the ratios."""
    yield f"\n{workload.name}"
    yield f"  {'':10} {'wall s':>9} {'CPU s':>9} {'memory MB':>10}"
    for tool, figures in found.items():
        wall, cpu, peak = (statistics.median(getattr(figures, name)) for name in NAMES)
        yield f"  {tool:10} {wall:9.2f} {cpu:9.2f} {peak / 1e6:10.1f}"
    told = [ratio(found, name) for name in NAMES]
    if all(told):
        cells = [f"{one[0]:.2f}" for one in told if one]
        peers = ", ".join(one[1] for one in told if one)
        yield f"  {'ratio':10} {cells[0]:>9} {cells[1]:>9} {cells[2]:>10}   to {peers}"


def as_json(found: dict[str, Figures]) -> dict[str, Any]:
    return {
        "tools": {
            tool: {name: getattr(one, name) for name in NAMES} for tool, one in found.items()
        },
        "ratios": {name: ratio(found, name) for name in NAMES},
    }


def machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return (
        f"{os.cpu_count()} CPUs, {memory / 2**30:.0f} GiB, Linux {platform.release()},"
        f" Python {platform.python_version()}"
    )


def main(arguments: Sequence[str]) -> int:
    """Runs what was asked for; 1 if a tool did not do its work."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--workload", action="append", choices=[one.name for one in WORKLOADS])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--short", action="store_true", help="small sizes, one round")
    parser.add_argument("--json", action="store_true", help="a JSON object a workload")
    parser.add_argument("--tool", action="append", help="only these, beside adsmig")
    chosen = parser.parse_args(arguments)
    tools = [OURS, *(one for one in PEERS if not chosen.tool or one.name in chosen.tool)]
    if not chosen.json:
        print(machine())
        for tool in tools:
            print(f"  {tool.name:10} {tool.settings}")
    failed = 0
    with (
        tempfile.TemporaryDirectory(prefix="adsmig-bench-") as directory,
        Bench(Path(directory), chosen.short) as bench,
    ):
        for workload in WORKLOADS:
            if chosen.workload and workload.name not in chosen.workload:
                continue
            try:
                found = bench.run(workload, 1 if chosen.short else chosen.rounds, tools)
            except BenchError as exc:
                print(f"{workload.name}: {exc}", file=sys.stderr)
                failed = 1
                continue
            if chosen.json:
                print(json.dumps({"workload": workload.name, **as_json(found)}), flush=True)
            else:
                print("\n".join(table(workload, found)), flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
