"""The seeded sweep: one seed is one migration between real servers on which faults happen, and
afterwards all that was promised is looked at.  ``scripts/faults`` runs many.

What is promised, whatever happened:

* what stands at the source stays there, unless ``--delete-src`` removes what the destination has;
* what only the destination has stays, unless ``--delete-dst`` removes it; nothing else goes;
* a file that has its name is whole; what the manifest says is copied is there, with that content;
* once a run says that it ended, each source object is at the destination byte for byte, or is a
  failure by name, the counters add up, and nothing temporary is left;
* once the faults are over, all of it is there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any, Protocol

import psutil
import xxhash

from tests.faultplan import HTTP, LINK, Plan, Trigger
from tests.faultserver import FaultLink, FaultServer
from tests.servers import MinIOGateway, SeaweedFS, Server, Sshd

TIMEOUT_S = 1.5
"""What adsmig is told to wait for an answer."""
HUNG_S = 480
"""No run of a seed takes so long."""
DIRECTIONS = ("local-s3", "s3-s3", "s3-local", "local-sftp", "sftp-local", "s3-sftp", "sftp-s3")
PROCESS = ("worker-killed", "worker-frozen", "run-killed", "parent-killed", "interrupted")
"""What happens to the processes of a run."""
LOCAL = ("disk-full", "unreadable")
KINDS = (*HTTP, *LINK, *PROCESS, *LOCAL, "expired")
"""All kinds of fault."""
SECRET = "testsecret"

MIB = 1 << 20
NAMES = (
    b"a b", b" lead", b"trail ", b"plus+x", b"per%2Fcent", b"q?#&=", "\u00fcml\u00e4ut".encode(),
    "emoji-\U0001f600".encode(), b"ctrl-\x01", b"new\nline", b"quote'\"<>", b"-dash", b"x" * 200,
    b"a-b/c", b"a/c", b"a/d", b"deep/" * 10 + b"leaf", "a\u0301".encode(), b".hidden", b"...",
)  # fmt: skip


class Wrong(Exception):
    """A promise that was broken."""


# The two sides


class Place(Protocol):
    """Somewhere that objects are, looked at without adsmig."""

    def content(self) -> dict[bytes, bytes]:
        """All objects, by key."""
        ...

    def has_directory(self, key: bytes) -> bool:
        """Whether a directory is there that is no object of its own."""
        ...

    def put(self, key: bytes, content: bytes) -> None:
        """Stores one."""
        ...

    def left_over(self) -> list[str]:
        """What is there and should not be: unfinished uploads, temporary files."""
        ...

    def clear(self) -> None:
        """Removes everything."""
        ...


@dataclass
class Files:
    """A directory of this machine."""

    root: Path

    def _path(self, key: bytes) -> bytes:
        return os.path.join(os.fsencode(self.root), key)

    def content(self) -> dict[bytes, bytes]:
        found = {}
        top = os.fsencode(self.root)
        for folder, folders, files in os.walk(top):
            folders[:] = [one for one in folders if not one.startswith(b".adsmig-")]
            for name in files:
                path = os.path.join(folder, name)
                with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
                    found[os.path.relpath(path, top)] = file.read()
        return found

    def has_directory(self, key: bytes) -> bool:
        return os.path.isdir(self._path(key))

    def put(self, key: bytes, content: bytes, age_s: float = 3600) -> None:
        path = self._path(key)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
        then = time.time() - age_s
        os.utime(path, (then, then))

    def overwrite(self, key: bytes, content: bytes) -> None:
        """In place, as an editor that has it open."""
        with open(self._path(key), "r+b") as file:
            file.truncate(len(content))
            file.write(content)

    def left_over(self) -> list[str]:
        return [str(path) for path in self.root.rglob(".adsmig-*")]

    def clear(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)


@dataclass
class Objects:
    """A prefix in a bucket."""

    server: Server
    bucket: str
    prefix: str

    def content(self) -> dict[bytes, bytes]:
        client, found = self.server.client(), {}
        for key in self._keys():
            with contextlib.suppress(client.exceptions.NoSuchKey):
                body = client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
                found[key.removeprefix(self.prefix).encode()] = body
        return found

    def _keys(self) -> list[str]:
        pages = self.server.client().get_paginator("list_objects_v2")
        asked = pages.paginate(Bucket=self.bucket, Prefix=self.prefix)
        return [item["Key"] for page in asked for item in page.get("Contents", ())]

    def has_directory(self, key: bytes) -> bool:
        return False

    def put(self, key: bytes, content: bytes) -> None:
        name = self.prefix + key.decode()
        self.server.client().put_object(Bucket=self.bucket, Key=name, Body=content)

    overwrite = put

    def put_in_parts(self, key: bytes, content: bytes, size: int) -> None:
        """As a multipart upload."""
        client, name = self.server.client(), self.prefix + key.decode()
        where = {"Bucket": self.bucket, "Key": name}
        where["UploadId"] = client.create_multipart_upload(**where)["UploadId"]
        parts = []
        for number, start in enumerate(range(0, len(content), size), 1):
            body = content[start : start + size]
            etag = client.upload_part(**where, PartNumber=number, Body=body)["ETag"]
            parts.append({"PartNumber": number, "ETag": etag})
        client.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})

    def left_over(self) -> list[str]:
        uploads = self.server.client().list_multipart_uploads(Bucket=self.bucket)
        ours = [one["Key"] for one in uploads.get("Uploads", ())]
        return [f"an upload of {key!r}" for key in ours if key.startswith(self.prefix)] + [
            key for key in self._keys() if "/.adsmig-" in key
        ]

    def clear(self) -> None:
        client = self.server.client()
        for key in self._keys():
            client.delete_object(Bucket=self.bucket, Key=key)


# What a seed is


@dataclass
class Scenario:
    """All that a seed decides."""

    seed: int
    direction: str
    chance: Random
    command: str = "cp"
    options: list[str] = field(default_factory=list)
    stores: tuple[str, str] = ("", "")
    """The S3 server of each side, '' if it has none."""
    kinds: list[str] = field(default_factory=list)
    rate: float = 0.0
    doom: float = 0.0
    expiry: int = 0
    process: str = ""
    """One of PROCESS, or '' for none."""
    at: int = 0
    """After how many requests, or pieces that pass, that happens."""
    local: str = ""
    large: bool = False
    resumes: bool = True
    """With the manifest of the run that was ended; else with a new one."""
    faulty_resumes: int = 0
    """How often it is gone on with before the faults are over."""

    @classmethod
    def of(cls, seed: int, only: str = "") -> Scenario:
        """The one of a seed; ``only`` chooses the direction."""
        chance = Random(f"scenario {seed}")
        direction = only or chance.choice(DIRECTIONS)
        self = cls(seed, direction, chance)
        source, _, target = direction.partition("-")
        self.command = chance.choice(["cp", "sync"])
        self.stores = tuple(  # type: ignore[assignment]
            chance.choice(["seaweedfs", "minio"]) if side == "s3" else ""
            for side in (source, target)
        )
        self.options = chance.choice([[], [], ["--delete-dst"], ["--delete-src"]])
        changes = ("changed", "stored-late")
        # A source that is removed, or stays unread, is not to be changed as well.
        http = [kind for kind in HTTP if kind not in changes or not self.deletes_src]
        wire = [*(http if any(self.stores) else ()), *(LINK if "sftp" in direction else ())]
        self.kinds = chance.sample(wire, chance.randint(1, min(5, len(wire))))
        if "late" in self.kinds and not set(changes).isdisjoint(self.kinds):
            # What was sent before the change and arrives after it, no client can call back.
            self.kinds.remove("late")
        self.rate = chance.choice([0.02, 0.05, 0.1, 0.3])
        self.doom = chance.choice([0, 0, 0.02, 0.05])
        if any(self.stores) and chance.random() < 0.15:
            self.expiry = chance.choice([2, 10, 30, 1000])
        if chance.random() < 0.4:
            self.process = chance.choice(PROCESS)
            self.at = chance.randrange(5, 120)
        if target != "s3" and chance.random() < 0.12:
            self.local = "disk-full"
        elif source == "local" and chance.random() < 0.3:
            self.local = "unreadable"
        self.large = bool(self.process) or chance.random() < (0.5 if target == "s3" else 0.15)
        if self.large and "minio" in self.stores and "got-flipped" in self.kinds:
            # From there, nobody is told of what parts an object was made; towards there, it goes in
            # parts too small for any source: so the ETag is of no use for what is read in parts.
            self.kinds.remove("got-flipped")
        self.resumes = chance.random() < 0.75
        self.faulty_resumes = chance.choice([0, 0, 1, 2])
        return self

    @classmethod
    def about(cls, kind: str) -> Scenario:
        """One in which a kind of fault is bound to happen, and no other."""
        chance = Random(f"about {kind}")
        places = "local-s3"
        if kind in LINK:
            places = "local-sftp"
        elif kind == "disk-full" or "get" in HTTP.get(kind, ()) or "page" in kind:
            places = "s3-local"
        source, _, target = places.partition("-")
        store = chance.choice(["seaweedfs", "minio"])
        self = cls(KINDS.index(kind), places, chance, chance.choice(["cp", "sync"]))
        self.stores = (store if source == "s3" else "", store if target == "s3" else "")
        self.kinds = [kind] if kind in (*HTTP, *LINK) else []
        # Few, so that not much is waited for; of pages there are few.
        self.rate = 0.3 if HTTP.get(kind) in (("list",), ("get", "put"), ("put",)) else 0.05
        self.expiry = 2 if kind == "expired" else 0
        self.process, self.at = (kind if kind in PROCESS else ""), 20
        self.local = kind if kind in LOCAL else ""
        self.large = bool(self.process)
        return self

    @property
    def deletes_src(self) -> bool:
        return "--delete-src" in self.options

    @property
    def deletes_dst(self) -> bool:
        return "--delete-dst" in self.options

    def __str__(self) -> str:
        what = [f"seed {self.seed}: {self.command} {self.direction}", *self.options]
        what += [f"[{' '.join(filter(None, self.stores))}]"] if any(self.stores) else []
        what += [f"{self.rate:.0%} of", *self.kinds] if self.kinds else []
        what += [f"doom {self.doom:.0%}"] if self.doom else []
        what += [f"expired {self.expiry}"] if self.expiry else []
        what += [f"{self.process}@{self.at}"] if self.process else []
        what += [self.local] if self.local else []
        what += ["large"] if self.large else []
        what += ["" if self.resumes else "anew", f"faulty×{self.faulty_resumes + 1}"]
        return " ".join(filter(None, what))


@lru_cache(maxsize=4)
def tree(variant: int, large: int) -> dict[bytes, bytes]:
    """Some 60 objects, one of them of ``large`` bytes, if that is not 0."""
    chance = Random(f"tree {variant}")
    found = {name: chance.randbytes(chance.randint(0, 20_000)) for name in NAMES}
    for number in range(40):
        found[b"d%d/e%d/f%02d.bin" % (number % 5, number % 2, number)] = chance.randbytes(
            chance.choice([0, 1, 700, 9_000, 30_000])
        )
    for number in range(3):
        found[b"d0/mid%d.bin" % number] = chance.randbytes(chance.randint(300_000, 700_000))
    if large:
        found[b"d1/large.bin"] = chance.randbytes(large)
    return found


# One seed


@dataclass
class Result:
    """What a seed came to."""

    seed: int
    scenario: str
    fired: Counter[str]
    seconds: float
    wrong: str = ""
    """The promise that was broken, and how; '' if none was."""
    runs: list[str] = field(default_factory=list)
    """How each run of the program ended."""


@dataclass
class Servers:
    """Those that a sweep is run against, by name, with a bucket in each of the stores."""

    stores: dict[str, Server]
    bucket: str
    sshd: Sshd

    def elsewhere(self) -> Servers:
        """The same for another process, which can use them, and neither start nor stop."""
        stores = {name: server.elsewhere() for name, server in self.stores.items()}
        return Servers(stores, self.bucket, self.sshd.elsewhere())


@contextlib.contextmanager
def serving(directory: Path) -> Iterator[Servers]:
    """Starts them, with their files below ``directory``."""
    with (
        SeaweedFS(directory / "seaweedfs") as seaweedfs,
        MinIOGateway(directory / "minio") as minio,
        Sshd(directory / "sshd") as sshd,
    ):
        stores: dict[str, Server] = {"seaweedfs": seaweedfs, "minio": minio}
        for server in stores.values():
            server.make_bucket("sweep")
        yield Servers(stores, "sweep", sshd)


class Seed:
    """One seed's migration; call :meth:`run` once."""

    def __init__(
        self, scenario: Scenario, servers: Servers, directory: Path, verbose: bool
    ) -> None:
        self.scenario, self.servers, self.directory = scenario, servers, directory
        self.verbose = verbose
        self.chance = scenario.chance
        self.fired: Counter[str] = Counter()
        self.runs: list[str] = []
        self.current: dict[bytes, bytes] = {}
        """What the source holds, or held before it was removed there."""
        self.versions: dict[bytes, set[bytes]] = {}
        self.before: dict[bytes, bytes] = {}
        """What the destination held at first."""
        self.extra: dict[bytes, bytes] = {}
        """And what of it the source never had."""
        self.hopeless: set[bytes] = set()
        """Keys that cannot be copied."""
        self.changes = 0
        self.manifests = 0
        self.process: subprocess.Popen[bytes] | None = None

    def run(self) -> Result:
        """Runs it; what it came to."""
        began = time.monotonic()
        wrong = ""
        try:
            with ExitStack() as stack:
                self._build(stack)
                self._migrate()
        except Wrong as exc:
            wrong = str(exc)
        for plan in self.plans:
            self.fired += plan.fired
        if not wrong and not self.verbose:
            self.src.clear()
            self.dst.clear()
            shutil.rmtree(self.directory, ignore_errors=True)
        seconds = time.monotonic() - began
        return Result(self.scenario.seed, str(self.scenario), self.fired, seconds, wrong, self.runs)

    def _log(self, text: str) -> None:
        if self.verbose:
            print(text, file=sys.stderr, flush=True)

    # What there is at first

    def _build(self, stack: ExitStack) -> None:
        scenario = self.scenario
        self.plans: list[Plan] = []
        self.fronts: list[FaultServer] = []
        self.directory.mkdir(parents=True)
        self.home = self.directory / "home"
        self.home.mkdir()
        self.trigger = Trigger(scenario.at, self._disturb) if scenario.process else None
        source, _, target = scenario.direction.partition("-")
        self.src, self.src_url = self._side(stack, source, 0)
        self.dst, self.dst_url = self._side(stack, target, 1)
        self._fill()

    def _side(self, stack: ExitStack, kind: str, side: int) -> tuple[Any, str]:
        scenario, name = self.scenario, ("src", "dst")[side]
        root = self.directory / name
        if kind == "s3":
            server = self.servers.stores[scenario.stores[side]]
            place = Objects(server, self.servers.bucket, f"seed-{scenario.seed}/{name}/")
            same = side and scenario.stores[0] == scenario.stores[1]
            front = self.fronts[0] if same else self._front(stack, server, side)
            return place, f"s3://{front.host}/{place.bucket}/{place.prefix}"
        root.mkdir()
        if side and scenario.local == "disk-full":
            stack.enter_context(mounted(root))
        if kind == "local":
            return Files(root), f"{root}/"
        sshd = self.servers.sshd
        plan = self._plan(side, [kind for kind in scenario.kinds if kind in LINK], 0.5)
        link = FaultLink((sshd.host_name, sshd.port), plan, TIMEOUT_S, self.trigger, 2 * MIB)
        stack.enter_context(link)
        sshd.trust(self.home)
        known = self.home / ".ssh" / "known_hosts"
        known.write_text(known.read_text().replace(str(sshd.port), str(link.port)))
        return Files(root), f"sftp://{sshd.user}@127.0.0.1:{link.port}{root}/"

    def _front(self, stack: ExitStack, server: Server, side: int) -> FaultServer:
        kinds = [kind for kind in self.scenario.kinds if kind in HTTP]
        plan = self._plan(side, kinds, self.scenario.rate, self.scenario.expiry)
        front = FaultServer(server.host, plan, TIMEOUT_S, self._change, self.trigger)
        self.fronts.append(stack.enter_context(front))
        return front

    def _plan(self, side: int, kinds: list[str], rate: float, expiry: int = 0) -> Plan:
        scenario = self.scenario
        plan = Plan(f"{scenario.seed} {side}", kinds, rate, scenario.doom, expiry)
        self.plans.append(plan)
        return plan

    def _fill(self) -> None:
        scenario, chance = self.scenario, self.chance
        large = 0
        if scenario.large:
            sizes = {"seaweedfs": 11 * MIB, "minio": 900_000, "": 66 * MIB}
            large = sizes[scenario.stores[1]]
        self.current = dict(tree(chance.randrange(2), large))
        self.versions = {key: {content} for key, content in self.current.items()}
        for key, content in self.current.items():
            parts = len(content) > 5 * MIB or (len(content) > 400_000 and chance.random() < 0.3)
            if isinstance(self.src, Objects) and parts:
                self.src.put_in_parts(key, content, 5 * MIB)
            else:
                self.src.put(key, content)
        if isinstance(self.src, Files) and isinstance(self.dst, Objects):
            self.hopeless = {b"not-\xff-text"}
            self.src.put(b"not-\xff-text", b"x")
        if chance.random() < 0.5:
            self._fill_destination()
        if self.scenario.local == "unreadable":
            self.closed = b"d2/"
            os.chmod(os.path.join(os.fsencode(self.src.root), b"d2"), 0)
        if isinstance(self.src, Objects):
            time.sleep(2.1)  # else the first run would wait for them to be settled

    def _fill_destination(self) -> None:
        """Some of the objects, some of others' content, and some that the source does not have."""
        for key, content in sorted(self.current.items()):
            roll = self.chance.random()
            if len(content) > MIB or roll < 0.6:
                continue
            if roll < 0.75 and self.scenario.command == "cp":
                content = bytes(len(content))
            elif roll < 0.75:
                content += b"of another size"
            self.before[key] = content
        self.extra = {b"extra/%d" % number: b"%d" % number for number in range(5)}
        self.before |= self.extra
        for key, content in self.before.items():
            if isinstance(self.dst, Files):
                self.dst.put(key, content, 7200)
            else:
                self.dst.put(key, content)

    # What happens meanwhile

    def _change(self, path: str) -> bool:
        """Another content for the source's object that stands at this path, or is copied to it."""
        name = path.encode("utf-8", "surrogateescape")
        sides = [place for place in (self.src, self.dst) if isinstance(place, Objects)]
        for place in sides:
            top = f"/{place.bucket}/{place.prefix}".encode()
            key = name.removeprefix(top)
            if key == name or key not in self.current or len(self.versions[key]) > 1:
                continue
            chance = Random(f"{self.scenario.seed} {key!r} changed")
            size = len(self.current[key]) + chance.choice([0, 0, 1, -1])
            content = chance.randbytes(max(size, 1))
            self.versions[key].add(content)
            if isinstance(self.src, Objects) and len(content) > 5 * MIB:
                self.src.put_in_parts(key, content, 5 * MIB)
            elif chance.random() < 0.5 or isinstance(self.src, Objects):
                self.src.overwrite(key, content)
            else:
                path_of = self.src._path(key)
                with open(path_of + b"~", "wb") as file:
                    file.write(content)
                os.replace(path_of + b"~", path_of)
            self.current[key] = content
            self.changes += 1
            return True
        return False

    def _disturb(self) -> bool:
        """Does to the processes what the seed says; False if there is none of that kind yet."""
        kind, process = self.scenario.process, self.process
        if process is None or process.poll() is not None:
            return False
        try:
            if kind == "run-killed":
                os.killpg(process.pid, signal.SIGKILL)
            elif kind == "parent-killed":
                process.kill()
            elif kind == "interrupted":
                os.killpg(process.pid, signal.SIGINT)
            else:
                grown = psutil.Process(process.pid).children(recursive=True)
                workers = [one for one in grown if one.ppid() != process.pid]
                if not workers:
                    return False
                worker = min(workers, key=lambda one: one.pid)
                if kind == "worker-killed":
                    worker.kill()
                else:
                    worker.suspend()
                    time.sleep(TIMEOUT_S * 1.5)
                    worker.resume()
        except (psutil.NoSuchProcess, ProcessLookupError):
            return False
        self.fired[kind] += 1
        return True

    # The runs

    def _migrate(self) -> None:
        scenario = self.scenario
        if scenario.local == "disk-full":
            room = sum(map(len, self.current.values())) + sum(map(len, self.before.values()))
            resize(self.dst.root, int(room * self.chance.uniform(0.4, 0.8)) + 500_000)
        code = self._run_and_check(self._command())
        for _ in range(scenario.faulty_resumes):
            if code in (0, 1):
                break
            code = self._run_and_check(self._again())
        self._calm_down()
        code = self._finish(code)
        if code == 1:
            # A second look at what failed: only what failed, or everything.
            retries = scenario.command == "cp" or self.chance.random() < 0.5
            self._finish(self._run_and_check(["retry"] if retries else self._command()))
        if self.changes:
            # By now everything is settled; only another look finds what has changed since.
            self._finish(self._run_and_check(["sync", *self._command()[1:]]))
        self._check_end()

    def _finish(self, code: int) -> int:
        """Goes on with what ended with ``code``: there are no faults but those of a server that
        many sweep at once.
        """
        for _ in range(3):
            if code in (0, 1):
                return code
            code = self._run_and_check(self._again())
        if code not in (0, 1):
            raise Wrong(f"it does not come to its end, without faults: {self.runs[-1]}")
        return code

    def _calm_down(self) -> None:
        """No more faults."""
        for plan in self.plans:
            plan.active = False
        if self.trigger:
            self.trigger.armed = False
        if self.scenario.local == "disk-full":
            resize(self.dst.root, 400 * MIB)
        elif self.scenario.local == "unreadable":
            os.chmod(os.path.join(os.fsencode(self.src.root), b"d2"), 0o755)
        self.closed = b""

    closed = b""
    """A directory of the source that cannot be read."""

    def _command(self) -> list[str]:
        scenario = self.scenario
        words = [scenario.command, *scenario.options, self.src_url, self.dst_url]
        workers = "2" if scenario.process or scenario.seed % 3 == 0 else "1"
        # What is stored late is held back for more than a second.  Were that longer than the client
        # waits, the store might keep what it was sent first, whoever sends it: so may any.
        patience = TIMEOUT_S * (10 if "stored-late" in scenario.kinds else 1)
        words += ["--timeout", str(patience), "--conn-timeout", "3", "--workers", workers]
        for side, store in zip(("src", "dst"), scenario.stores, strict=True):
            if store:
                words += [f"--{side}-set", "max_keys=7"]
        if part := {"seaweedfs": 5 * MIB, "minio": 256 << 10}.get(scenario.stores[1]):
            for setting in ("min_part", "max_part"):
                words += ["--dst-set", f"{setting}={part}"]
            words += ["--dst-set", f"max_put={part * 2 + 300_000}"]
        if scenario.process:
            # Else it would be over before anything happened to it.
            words += ["--bwlimit", "60" if scenario.stores[1] else "300"]
        if scenario.deletes_dst:
            words += ["--yes"]
        return words

    def _again(self) -> list[str]:
        if not self.scenario.resumes:
            self.manifests += 1
            return self._command()
        resumes = self.chance.random() < 0.5 and self._manifest.exists()
        return ["resume"] if resumes else self._command()  # which may have ended before it began

    @property
    def _manifest(self) -> Path:
        return self.directory / f"manifest-{self.manifests}.db"

    def _run_and_check(self, words: list[str]) -> int:
        code, out, err = self._start(words)
        for front in self.fronts:
            front.settle()
        self.runs.append(f"{words[0]}: {code} {err.strip().splitlines()[-1:] or ''}")
        self._log(f"  {' '.join(words)}\n  → {code}\n{err.rstrip()}")
        if "Traceback" in out + err or SECRET in out + err:
            raise Wrong(f"it printed what it should not: {err}")
        if code not in (0, 1, 3, 130, -signal.SIGKILL):
            raise Wrong(f"exit code {code}: {err}")
        if "disk" in self.scenario.local and "No space left" in err:
            self.fired["disk-full"] += 1
        _Check(self, code, out).all()
        return code

    def _start(self, words: list[str]) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "adsmig", *words, "--json"]
        if self.scenario.local == "unreadable":
            # Root, but one for whom permissions count.
            without = "-dac_override,-dac_read_search"
            command = ["setpriv", f"--bounding-set={without}", f"--inh-caps={without}", *command]
        environment = {
            **os.environ,
            "HOME": str(self.home),
            "XDG_STATE_HOME": str(self.home / "state"),
            "AWS_EC2_METADATA_DISABLED": "true",
            **{
                f"ADSMIG_{side}_{name}": value
                for side in ("SRC", "DST")
                for name, value in (("ACCESS_KEY", "testkey"), ("SECRET_KEY", SECRET))
            },
        }
        out, err = self.directory / "out", self.directory / "err"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            self.process = subprocess.Popen(
                [*command, "--manifest", str(self._manifest)],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
                env=environment,
            )
        try:
            code = self.process.wait(HUNG_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            raise Wrong(f"it hung: {' '.join(words)}") from None
        self._await_group(self.process.pid)
        self.process = None
        return code, out.read_text(), err.read_text()

    def _await_group(self, group: int) -> None:
        """Returns when no process of the run is left."""
        until = time.monotonic() + 20
        while members := [one for one in psutil.process_iter() if _group(one.pid) == group]:
            alive = [one for one in members if _alive(one)]
            if not alive:
                return
            if time.monotonic() > until:
                names = [" ".join(one.cmdline()[-3:]) for one in alive]
                os.killpg(group, signal.SIGKILL)
                raise Wrong(f"processes are left: {names}")
            time.sleep(0.05)

    def _check_end(self) -> None:
        """After the last run, without faults: all is there, and all that was to go has gone."""
        there = self.dst.content()
        for key, content in self.current.items():
            if there.get(key) != content:
                raise Wrong(
                    f"at the end, {key!r} is {shown(there.get(key))}, {shown(content)} once"
                )
        if failed := self.failures() - self.hopeless:
            raise Wrong(f"at the end, failures are left: {sorted(failed)}")
        if self.scenario.deletes_dst and (kept := self.extra.keys() & there.keys()):
            raise Wrong(f"--delete-dst left {sorted(kept)}")
        if self.scenario.deletes_src and (kept := self.src.content().keys() - self.hopeless):
            raise Wrong(f"--delete-src left {sorted(kept)}")

    def failures(self) -> set[bytes]:
        """The keys that the manifest has as failures."""
        rows = self.rows("SELECT key FROM failures")
        return {os.fsencode(key) if isinstance(key, str) else key for (key,) in rows}

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Of the manifest; none if there is none yet."""
        if not self._manifest.exists():
            return []
        with contextlib.closing(sqlite3.connect(f"file:{self._manifest}?mode=ro", uri=True)) as db:
            try:
                return db.execute(query).fetchall()
            except sqlite3.OperationalError as exc:
                if "no such table" in str(exc):  # killed before it was made
                    return []
                raise


def run_seed(scenario: Scenario, servers: Servers, directory: Path, verbose: bool) -> Result:
    """Runs a seed in this process."""
    return Seed(scenario, servers, directory / f"seed-{scenario.seed}", verbose).run()


def sweep(
    scenarios: Iterable[Scenario], servers: Servers, directory: Path, parallel: int
) -> Iterator[Result]:
    """What they came to, as they end, so many at a time."""
    with ProcessPoolExecutor(parallel, get_context("spawn")) as pool:
        away = servers.elsewhere()
        submitted = [pool.submit(run_seed, one, away, directory, False) for one in scenarios]
        yield from (done.result() for done in as_completed(submitted))


class _Check:
    """All that is promised after a run, however it ended."""

    def __init__(self, seed: Seed, code: int, out: str) -> None:
        self.seed, self.ended = seed, code in (0, 1)
        self.code = code
        self.events = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
        self.here, self.there = seed.src.content(), seed.dst.content()
        self.failed = seed.failures()

    def all(self) -> None:
        self.check_source()
        self.check_destination()
        self.check_manifest()
        if self.ended:
            self.check_all_told()
            self.check_counters()
            self.check_left_over()

    def check_source(self) -> None:
        seed = self.seed
        for key, content in seed.current.items():
            if self.here.get(key) == content:
                continue
            if key in self.here:
                raise Wrong(f"the source's {key!r} is now {shown(self.here[key])}")
            if not seed.scenario.deletes_src:
                raise Wrong(f"{key!r} is gone from the source")
            if self.there.get(key) != content:
                raise Wrong(
                    f"{key!r} was removed at the source, and is {shown(self.there.get(key))}"
                )

    def check_destination(self) -> None:
        seed, files = self.seed, isinstance(self.seed.dst, Files)
        for key, content in seed.extra.items():
            if key not in self.there and not seed.scenario.deletes_dst:
                raise Wrong(f"{key!r} is gone from the destination")
            if self.there.get(key, content) != content:
                raise Wrong(f"the destination's own {key!r} is now {shown(self.there[key])}")
        for key in seed.before.keys() & seed.current.keys():
            if key not in self.there:
                raise Wrong(f"{key!r}, which the source has, is gone from the destination")
        for key, content in self.there.items():
            if key in seed.extra:
                continue
            if key.endswith(b"/") and seed.scenario.deletes_src and not content:
                continue  # a directory that was left empty at the source
            if key not in seed.versions:
                raise Wrong(f"{key!r} is at the destination, and nobody had it")
            whole = content in seed.versions[key] or content == seed.before.get(key)
            if files and not whole:
                raise Wrong(f"the file {key!r} is {shown(content)}, never seen anywhere")

    def check_manifest(self) -> None:
        for key, size, checksum in self.seed.rows("SELECT key, size, checksum FROM objects"):
            name = os.fsencode(key) if isinstance(key, str) else key
            content = self.there.get(name)
            if name.endswith(b"/") and self.seed.dst.has_directory(name):
                continue  # left empty at the source, whose files an earlier run removed
            if content is None or len(content) != size or not agrees(content, checksum):
                raise Wrong(
                    f"the manifest has {name!r} with {size} bytes, {checksum}; it is"
                    f" {shown(content)}"
                )

    def check_all_told(self) -> None:
        seed = self.seed
        closed = self.seed.closed
        for key in seed.current:
            good = self.there.get(key) in seed.versions[key]
            told = key in self.failed or any(
                one.endswith(b"/") and key.startswith(one) for one in self.failed
            )
            if not good and not told:
                raise Wrong(
                    f"a run ended with {self.code}, and {key!r} is {shown(self.there.get(key))},"
                    f" not {shown(seed.current[key])}, and no failure"
                )
            if closed and key.startswith(closed) and told:
                seed.fired["unreadable"] += 1
        if self.failed and not self.code:
            raise Wrong(f"exit code 0 with failures: {sorted(self.failed)}")
        if self.code and not self.failed:
            raise Wrong("exit code 1 without a failure")

    def check_counters(self) -> None:
        results = [event for event in self.events if event["event"] == "result"]
        if len(results) != 1:
            raise Wrong(f"{len(results)} results in the output")
        told = results[0]
        rows = self.seed.rows("SELECT * FROM failures WHERE kind = 'not deleted'")
        sums = told["copied"] + told["unchanged"] + told["failed"] + told["left"] - len(rows)
        if told["found"] != sums:
            raise Wrong(f"the counters do not add up: {told}")
        known = len(self.seed.current) + len(self.seed.hopeless)
        if told["kind"] != "retry" and told["found"] > known + bool(self.seed.closed):
            raise Wrong(f"{told['found']} found of {known}")

    def check_left_over(self) -> None:
        seed = self.seed
        if left := seed.dst.left_over():
            raise Wrong(f"left at the destination: {left}")
        sidecars = {f"{seed._manifest.name}{end}" for end in ("", ".lock", "-wal", "-shm")}
        beside = [path.name for path in seed.directory.glob(f"{seed._manifest.name}*")]
        if others := set(beside) - sidecars:
            raise Wrong(f"left beside the manifest: {others}")


def agrees(content: bytes, checksum: str | None) -> bool:
    """Whether that is the content's checksum, as the manifest has it."""
    if checksum is None:
        return True
    one, dash, parts = checksum.removeprefix("xxh3:").partition("-")
    if not dash:
        return xxhash.xxh3_64_hexdigest(content) == one
    size = int(parts.partition("x")[2])
    pieces = [content[start : start + size] for start in range(0, len(content), size)]
    return xxhash.xxh3_64_hexdigest(b"".join(map(xxhash.xxh3_64_digest, pieces))) == one


def shown(content: bytes | None) -> str:
    """For a message."""
    if content is None:
        return "not there"
    return f"{len(content)} bytes ({hashlib.md5(content).hexdigest()[:8]})"


def _group(pid: int) -> int:
    with contextlib.suppress(ProcessLookupError):
        return os.getpgid(pid)
    return 0


def _alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


@contextlib.contextmanager
def mounted(place: Path) -> Iterator[None]:
    """A file system of its own, to be :func:`resize` d."""
    command = ["mount", "-t", "tmpfs", "-o", "size=400m", "tmpfs", str(place)]
    subprocess.run(command, check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def resize(place: Path, size: int) -> None:
    """Sets the room of a :func:`mounted` file system."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(place)], check=True)
