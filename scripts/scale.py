"""What very many keys cost: keys a second, memory, size of the manifest; by machine or simulated.

Each shape of keys is served by a store that renders its listings (tests.synthetic), in a process of
its own on the same machine, whose work is in the wall time and not in the CPU time.  ``record`` is
the manifest being told of all keys as copied, which a dry run then compares with.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOP))

from adsmig.job import Job  # noqa: E402
from adsmig.manifest import Manifest  # noqa: E402
from adsmig.model import Counts, Outcome, SliceResult  # noqa: E402
from adsmig.ranges import OBJECTS  # noqa: E402
from adsmig.uri import parse  # noqa: E402
from scripts.bench import BenchError, machine, measure  # noqa: E402
from scripts.simulate import Figures, Setup, simulate  # noqa: E402
from tests.servers import program  # noqa: E402
from tests.synthetic import EMPTY, SHAPES  # noqa: E402

SHAPES_SHOWN = ("flat", "dated", "hashed")
SYNC_MANIFEST = "sync --dryrun, manifest"
COMMANDS = ("inventory", "manifest", "listing")
"""An inventory; dry runs of sync that compare with a manifest of all keys, and with a listing."""
KEYS, SHORT_KEYS = 10_000_000, 20_000
SIMULATED, SHORT_SIMULATED = 1_000_000_000, 2_000_000
LISTED_NS = 1_577_934_245 * 10**9
"""The time that tests.synthetic gives to all objects: 2020-01-02T03:04:05Z."""


@dataclass(frozen=True)
class Row:
    """What one command took."""

    shape: str
    what: str
    keys: int
    wall_s: float
    cpu_s: float
    """Of all processes of adsmig."""
    peak_bytes: int
    """Of all of them together; 0 where it was not looked at."""
    manifest_bytes: int = 0

    @property
    def keys_per_s(self) -> float:
        return self.keys / self.wall_s


def rows(
    count: int, shapes: Sequence[str], what: Sequence[str], workers: int | None
) -> Iterator[Row]:
    """Measures one command after the other.  Raises BenchError if one does not find all keys.

    ``what``: those of COMMANDS that are wanted.
    """
    for shape in shapes:
        with (
            tempfile.TemporaryDirectory(prefix="adsmig-scale-") as directory,
            _store(count, shape) as host,
        ):
            yield from _rows_of(shape, count, host, Path(directory), what, workers)


def _rows_of(
    shape: str,
    count: int,
    host: str,
    scratch: Path,
    what: Sequence[str],
    workers: int | None,
) -> Iterator[Row]:
    src, dst = f"s3://{host}/one/", f"s3://{host}/two/"
    known = scratch / "known.db"

    def run(name: str, *words: str) -> Row:
        more = ["--workers", str(workers)] if workers else []
        figures = measure([program("adsmig"), *words, "--json", *more], scratch)
        result = _result(scratch / "output")
        found, unchanged = result.get("found"), result.get("unchanged")
        if found != count or (name == SYNC_MANIFEST and unchanged != count):
            raise BenchError(f"{name}: {found} and {unchanged} unchanged of {count} {shape} keys")
        size = known.stat().st_size if str(known) in words else 0
        peak = int(figures["peak_bytes"])
        return Row(shape, name, count, figures["wall_s"], figures["cpu_s"], peak, size)

    if "inventory" in what:
        yield run("inventory", "inventory", src)
    if "manifest" in what:
        yield record(count, shape, src, dst, known)
        compare = ("--compare", "manifest", "--manifest", str(known))
        yield run(SYNC_MANIFEST, "sync", "--dryrun", *compare, src, dst)
    if "listing" in what:
        yield run("sync --dryrun, listing", "sync", "--dryrun", src, dst)


def record(count: int, shape: str, src: str, dst: str, path: Path) -> Row:
    """Makes a manifest that has all keys as copied, a full slice a transaction."""
    keys = SHAPES[shape](count)
    began, cpu = time.monotonic(), time.process_time()
    with Manifest(path, create=True) as manifest:
        manifest.lock()
        job = Job("sync", parse(src), parse(dst))
        manifest.set_job(job)
        run = manifest.begin_run("sync", [job.keys], job.manner)
        (shard, _), *_ = manifest.open_shards(run.id)
        for first in range(0, count, OBJECTS):
            last = min(first + OBJECTS, count)
            outcomes = [
                Outcome(keys[at].encode(), 0, LISTED_NS, EMPTY, "xxh3:0123456789abcdef")
                for at in range(first, last)
            ]
            counts = Counts(found=len(outcomes), copied=len(outcomes))
            result = SliceResult(outcomes[-1].key, last == count, counts, outcomes)
            manifest.commit_slice(run.id, shard, result)
        manifest.end_run(run.id, "finished")
    took = time.monotonic() - began, time.process_time() - cpu
    return Row(shape, "record", count, *took, 0, path.stat().st_size)


@contextlib.contextmanager
def _store(count: int, shape: str) -> Iterator[str]:
    words = [sys.executable, "-m", "tests.synthetic", "0", str(count), shape]
    with subprocess.Popen(words, cwd=TOP, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def _result(output: Path) -> dict[str, Any]:
    """The command's last ``result`` event; empty without one."""
    result = {}
    with open(output, errors="replace") as file:
        for line in file:
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if event["event"] == "result":
                    result = event
    return result


# ---------------------------------------------------------------------- what is shown

HEADER = (
    f"{'shape':8} {'':24} {'keys/s':>10} {'wall s':>8} {'CPU s':>8} {'memory MB':>10}"
    f" {'manifest MB':>12}"
)


def line(row: Row) -> str:
    """A row for people."""
    memory = f"{row.peak_bytes / 1e6:,.0f}" if row.peak_bytes else ""
    manifest = f"{row.manifest_bytes / 1e6:,.1f}" if row.manifest_bytes else ""
    return (
        f"{row.shape:8} {row.what:24} {row.keys_per_s:10,.0f} {row.wall_s:8,.1f} {row.cpu_s:8,.1f}"
        f" {memory:>10} {manifest:>12}"
    )


def lines(setup: Setup, figures: Figures) -> Iterator[str]:
    """What a simulation came to, for people."""
    what = "copied" if setup.copy else "found equal"
    yield (
        f"{setup.keys:,} keys, {what} at {setup.speed:,.0f} a second by each of"
        f" {setup.workers:,} workers, {setup.latency_s * 1000:g} ms a request"
    )
    told = {
        "simulated time": f"{figures.seconds:,.1f} s, of {figures.least_s:,.1f} s at best",
        "workers": f"settle keys {figures.settling:.1%} of the time, probe for cuts"
        f" {figures.cutting:.1%}, wait {figures.waiting:.1%}",
        "all are busy": f"after {figures.begin_s:,.1f} s, until {figures.end_s:,.1f} s before the"
        f" end; between, {figures.middle_waiting:.1%} wait",
        "work": f"{figures.slices:,} slices, {figures.cuts:,} cuts, {figures.probes:,} probes",
        "transactions": f"{figures.transactions_per_s:,.1f} a second",
        "coordinator": f"busy {figures.coordinator:.1%}, on the processor"
        f" {figures.coordinator_cpu:.1%}",
        "manifest": f"{figures.manifest_bytes / 1e6:,.1f} MB",
        "took": f"{figures.wall_s:,.0f} s",
    }
    yield from (f"  {name:15} {text}" for name, text in told.items())


def main(arguments: Sequence[str]) -> int:
    """Runs what was asked for; 1 if a command did not do its work."""
    setup = {one.name: one.default for one in fields(Setup)}
    parser = argparse.ArgumentParser(prog="scripts/scale", description=__doc__.partition("\n")[0])
    parser.add_argument("--keys", type=int, help=f"{KEYS:,}, or {SIMULATED:,} to simulate")
    parser.add_argument("--short", action="store_true", help="few keys")
    parser.add_argument("--json", action="store_true", help="a JSON object a line")
    parser.add_argument("--workers", type=int, help="by default, adsmig's own; 1,000 to simulate")
    parser.add_argument(
        "--shape", action="append", choices=list(SHAPES), help="flat, dated, hashed"
    )
    parser.add_argument("--command", action="append", choices=COMMANDS, help="by default, all")
    parser.add_argument("--simulate", action="store_true", help="the coordinator alone")
    parser.add_argument("--speed", type=float, default=setup["speed"], help="keys/s of a worker")
    parser.add_argument("--copy", action="store_true", help="simulated workers copy every key")
    chosen = parser.parse_args(arguments)
    if not chosen.json:
        print(machine())
    if chosen.simulate:
        keys = chosen.keys or (SHORT_SIMULATED if chosen.short else SIMULATED)
        workers = chosen.workers or (20 if chosen.short else 1_000)
        wanted = Setup(keys, workers, min(100_000, keys // 100), chosen.speed, copy=chosen.copy)
        with tempfile.TemporaryDirectory(prefix="adsmig-scale-") as directory:
            figures = simulate(wanted, Path(directory) / "manifest.db")
        if chosen.json:
            print(json.dumps({**asdict(wanted), **asdict(figures)}))
        else:
            print("\n".join(lines(wanted, figures)))
        return 0
    keys = chosen.keys or (SHORT_KEYS if chosen.short else KEYS)
    if not chosen.json:
        print(HEADER)
    try:
        for row in rows(
            keys, chosen.shape or SHAPES_SHOWN, chosen.command or COMMANDS, chosen.workers
        ):
            told = json.dumps({**asdict(row), "keys_per_s": row.keys_per_s})
            print(told if chosen.json else line(row), flush=True)
    except BenchError as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
