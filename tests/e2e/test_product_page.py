# ruff: noqa: E501 - command lines are as they stand on the page
"""Every command line of the product page of ads-cli: what it is read as, and what it does.

The effect is tried with the program started as ``ads-cli`` from a shell, in a directory that has
what the page's lines name.  There only the endpoints differ: a recorder in front of a local server
stands in for each, over TLS if the line says ``--https``, and its own keys for ``ak:sk``.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from adsmig import program as main
from adsmig import session
from adsmig.job import Job
from adsmig.location import Credentials, Location
from adsmig.output import Output
from tests.conftest import BucketFactory
from tests.e2e.conftest import write
from tests.e2e.test_tls import certificate as certificate
from tests.recorder import Recorder, Request
from tests.servers import Server, program

SOURCE = {
    key: f"{key} at the source".encode()
    for key in (
        "A", "aa", "abcd123.txt", "base", "base1", "based/x", "ff", "ff.bin", "mybase", "same.bin",
        "stale.bin", "sub/abcd123/one", "sub/base", "sub/base1", "zz",
    )
}  # fmt: skip
TARGET = {
    "same.bin": SOURCE["same.bin"],
    "stale.bin": b"of an earlier day",
    "only there.bin": b"nobody's business",
}
"""What the destination has before, below what the line names."""
CLEAN = {key for key in SOURCE if "abcd123" not in key}


# ---------------------------------------------------------------------- what a line is read as


@dataclass
class Read:
    """What came of a command line, had it been carried out."""

    job: Job
    output: Output
    log_level: int
    act: str


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Read]:
    """``read(arguments)``: runs the command line up to where the work would begin."""
    for name in ("srcSync", "srclocal", "dstSync"):
        (tmp_path / name).mkdir()
    (tmp_path / "one_file.txt").write_bytes(b"one")
    (Path(os.environ["HOME"]) / "test_files/1").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    got: list[Read] = []
    levels: list[int] = []

    def act(name: str) -> Callable[..., int]:
        def keep(job: Job, path: Path | None, output: Output, rebuild: bool = False) -> int:
            got.append(Read(job, output, levels[-1], name))
            return 0

        return keep

    for name in ("start", "remove"):
        monkeypatch.setattr(session, name, act(name))
    monkeypatch.setattr("adsmig.output.begin_log", lambda level, path=None: levels.append(level))

    def run(arguments: list[str]) -> Read:
        assert main.run(arguments) == 0
        return got[-1]

    return run


def place(at: Location | None) -> str:
    """A location with all that matters about it, on one line."""
    if at is None:
        return ""
    if at.scheme == "file":
        path = os.fsdecode(at.path)
        for base, name in ((os.getcwd(), "."), (os.environ["HOME"], "~")):
            if (path + "/").startswith(base + "/"):
                path = name + path[len(base) :]
        return path + "/" * at.trailing_slash
    keys = {None: "", Credentials("ak", "sk"): "ak:sk@"}[at.credentials]
    style = "path style " if at.path_style else ""
    protocol = "https" if at.https else "http"
    who = "anonymously " if at.anonymous else ""
    return f"{style}{who}{at.scheme} {protocol}://{keys}{at.bucket}/{os.fsdecode(at.path)} at {at.host}"


def chosen(job: Job) -> dict[str, object]:
    """The options that are not as they are without any."""
    plain = Job(job.command, job.src, job.dst, check=False)
    skipped = ("command", "src", "dst", "check")
    names = [name for name in Job.__dataclass_fields__ if name not in skipped]
    told = {n: getattr(job, n) for n in names if getattr(job, n) != getattr(plain, n)}
    if filters := told.pop("filters", None):
        fields = type(filters).__dataclass_fields__
        told |= {n: getattr(filters, n) for n in fields if getattr(filters, n)}
    return told


AOSS = "aoss.cn-sh-01.sensecoreapi-oss.cn"
INSIDE = "aoss-internal.cn-sh-01.sensecoreapi-oss.cn"
PUBLIC_URL = f"s3 https://ak:sk@bucket1/prefix/ at {AOSS}"
INSIDE_URL = f"s3 http://ak:sk@bucket1/prefix/ at {INSIDE}"
OSS_URL = "oss https://ak:sk@bucket1/prefix/ at s3.oss-cn-beijing.aliyuncs.com"
COS_URL = "cos https://ak:sk@bucket1/prefix/ at cos.ap-beijing.myqcloud.com"


# ---------------------------------------------------------------------- what a line does


@dataclass
class Ran:
    """A command line that was carried out, and both sides as they were before and are after."""

    done: subprocess.CompletedProcess[str]
    before: tuple[dict[str, bytes], dict[str, bytes]]
    after: tuple[dict[str, bytes], dict[str, bytes]]
    written: set[str]
    """The keys that were stored at the destination, whether they were there or not."""
    requests: list[Request]
    again: Callable[..., Ran] = field(repr=False)
    """The same line with more arguments, on the places as they are now."""

    @property
    def said(self) -> str:
        return self.done.stdout + self.done.stderr


def ok(ran: Ran, written: set[str], source_stays: bool = True) -> None:
    """It ended well, stored exactly these keys with what the source has, and removed nothing."""
    assert ran.done.returncode == 0, ran.said
    assert ran.written == written
    assert ran.after[1] == ran.before[1] | {key: ran.before[0][key] for key in written}
    if source_stays:
        assert ran.after[0] == ran.before[0]


def copied_all(ran: Ran) -> None:
    ok(ran, set(ran.before[0]))
    assert f"copied {len(ran.before[0])} objects" in ran.done.stdout
    assert not re.search(r"^(DEBUG|INFO) ", ran.done.stderr, re.MULTILINE)


def copied_new(ran: Ran) -> None:
    ok(ran, set(SOURCE) - {"same.bin"})
    assert f"copied {len(SOURCE) - 1} objects" in ran.done.stdout
    assert "1 unchanged" in ran.done.stdout
    assert not re.search(r"^(DEBUG|INFO) ", ran.done.stderr, re.MULTILINE)


def copied_only(*keys: str) -> Callable[[Ran], None]:
    return lambda ran: ok(ran, set(keys))


def logged(written: set[str]) -> Callable[[Ran], None]:
    def check(ran: Ran) -> None:
        ok(ran, written)
        assert re.search(r"^(DEBUG|INFO) adsmig", ran.done.stderr, re.MULTILINE)

    return check


def silent(written: set[str]) -> Callable[[Ran], None]:
    def check(ran: Ran) -> None:
        ok(ran, written)
        assert ran.said == ""

    return check


def looked_only(count: int, unchanged: int, *more: str) -> Callable[[Ran], None]:
    """Nothing was changed anywhere; it told how many objects of what size there are."""

    def check(ran: Ran) -> None:
        ok(ran, set())
        assert {one.method for one in ran.requests} <= {"GET", "HEAD"}
        assert not list(Path(os.environ["XDG_STATE_HOME"]).rglob("*"))
        assert f"would copy {count} objects" in ran.done.stdout
        assert f"{unchanged} unchanged" in ran.done.stdout
        assert re.search(rf"^objects +{len(SOURCE)}$", ran.done.stdout, re.MULTILINE)
        size = sum(map(len, SOURCE.values()))
        assert re.search(rf"^size +{size} B$", ran.done.stdout, re.MULTILINE)
        for line in more:
            assert re.search(line, ran.done.stdout, re.MULTILINE), ran.done.stdout

    return check


SUBDIRECTORY = [len(content) for key, content in SOURCE.items() if key.startswith("sub/")]
INFO = (
    r"^directory +objects +bytes +share +smallest +largest +average$",
    rf"^sub/ +{len(SUBDIRECTORY)} +{sum(SUBDIRECTORY)} B +\S+ +{min(SUBDIRECTORY)} B +{max(SUBDIRECTORY)} B"
    rf" +{round(sum(SUBDIRECTORY) / len(SUBDIRECTORY))} B$",
)


def deleted_only(ran: Ran) -> None:
    """Without --yes, which nobody can be asked for here, nothing is done; with it, no copy is."""
    assert ran.done.returncode == 3
    assert re.search(r"nothing was deleted: .*--yes", ran.done.stderr)
    assert f"would delete {len(SOURCE)} " in ran.done.stdout
    assert ran.after == ran.before
    ran = ran.again("--yes")
    assert ran.done.returncode == 0, ran.said
    assert f"deleted {len(SOURCE)} " in ran.done.stdout
    assert ran.after == ({}, ran.before[1])
    assert not ran.written


def moved(written: set[str]) -> Callable[[Ran], None]:
    def check(ran: Ran) -> None:
        ok(ran, written, source_stays=False)
        assert ran.after[0] == {}

    return check


def anonymous(then: Callable[[Ran], None]) -> Callable[[Ran], None]:
    def check(ran: Ran) -> None:
        then(ran)
        assert ran.requests
        assert not [one for one in ran.requests if one.signed]

    return check


class Line(NamedTuple):
    text: str
    command: str
    src: str
    dst: str
    options: dict[str, object]
    """The fields of the Job that are not as they are without options."""
    effect: Callable[[Ran], None]
    level: int = logging.WARNING
    shown: Mapping[str, object] = MappingProxyType({})
    """What is to be printed, likewise."""


QUICK_START = [
    Line("ads-cli cp ./srcSync/ s3://ak:sk@bucket1.aoss-internal.cn-sh-01.sensecoreapi-oss.cn/prefix/",
         "cp", "./srcSync/", INSIDE_URL, {}, copied_all),
    Line("ads-cli cp s3://ak:sk@bucket1.aoss-internal.cn-sh-01.sensecoreapi-oss.cn/prefix/ ./dstSync/",
         "cp", INSIDE_URL, "./dstSync/", {}, copied_all),
    Line("ads-cli sync ./srcSync/ s3://ak:sk@bucket1.aoss-internal.cn-sh-01.sensecoreapi-oss.cn/prefix/",
         "sync", "./srcSync/", INSIDE_URL, {}, copied_new),
    Line("ads-cli sync s3://ak:sk@bucket1.aoss-internal.cn-sh-01.sensecoreapi-oss.cn/prefix/ ./dstSync/",
         "sync", INSIDE_URL, "./dstSync/", {}, copied_new),
    Line("ads-cli --https cp oss://ak:sk@bucket1.oss-cn-beijing.aliyuncs.com/prefix/ s3://ak:sk@bucket1.aoss.cn-sh-01.sensecoreapi-oss.cn/prefix/",
         "cp", OSS_URL, PUBLIC_URL, {}, copied_all),
    Line("ads-cli --https sync oss://ak:sk@bucket1.oss-cn-beijing.aliyuncs.com/prefix/ s3://ak:sk@bucket1.aoss.cn-sh-01.sensecoreapi-oss.cn/prefix/",
         "sync", OSS_URL, PUBLIC_URL, {}, copied_new),
    Line("ads-cli cp oss://ak:sk@bucket1.oss-cn-beijing.aliyuncs.com/prefix/ s3://ak:sk@bucket1.aoss-internal.cn-sh-01.sensecoreapi-oss.cn/prefix/",
         "cp", OSS_URL, INSIDE_URL, {}, copied_all),
    Line("ads-cli sync oss://ak:sk@bucket1.oss-cn-beijing.aliyuncs.com/prefix/ s3://ak:sk@bucket1.aoss-internal.cn-sh-01.sensecoreapi-oss.cn/prefix/",
         "sync", OSS_URL, INSIDE_URL, {}, copied_new),
    Line("ads-cli --https cp ./one_file.txt s3://ak:sk@bucket1.aoss.cn-sh-01.sensecoreapi-oss.cn/prefix/one_file.txt",
         "cp", "./", PUBLIC_URL, {"single": (b"one_file.txt", b"one_file.txt")},
         copied_only("one_file.txt")),
    Line("ads-cli --https cp ./srcSync/ s3://ak:sk@bucket1.aoss.cn-sh-01.sensecoreapi-oss.cn/prefix/",
         "cp", "./srcSync/", PUBLIC_URL, {}, copied_all),
    Line("ads-cli cp ./srclocal/ ./dstSync/", "cp", "./srclocal/", "./dstSync/", {}, copied_all),
    # On the page this ends in minio://ak:sk@IP:PORT/mybucket/, to be filled in.
    Line("ads-cli cp ~/test_files/1/ minio://ak:sk@192.0.2.7:9000/mybucket/",
         "cp", "~/test_files/1/",
         "path style minio http://ak:sk@mybucket/ at 192.0.2.7:9000", {}, copied_all),
]  # fmt: skip

FULL = [
    Line("ads-cli --https cp ./srcSync/ s3://ak:sk@bucket1.aoss.cn-sh-01.sensecoreapi-oss.cn/prefix/",
         "cp", "./srcSync/", PUBLIC_URL, {}, copied_all),
    Line("ads-cli --https -v cp ./srcSync/ s3://ak:sk@bucket1.aoss.cn-sh-01.sensecoreapi-oss.cn/prefix/",
         "cp", "./srcSync/", PUBLIC_URL, {}, logged(set(SOURCE)), logging.INFO),
    Line("ads-cli --https -q cp ./srcSync/ s3://ak:sk@bucket1.aoss.cn-sh-01.sensecoreapi-oss.cn/prefix/",
         "cp", "./srcSync/", PUBLIC_URL, {}, silent(set(SOURCE)), logging.ERROR, {"quiet": True}),
    Line("ads-cli --https --dryrun --noperms cp ./srcSync/ s3://ak:sk@bucket1.aoss.cn-sh-01.sensecoreapi-oss.cn/prefix/",
         "cp", "./srcSync/", PUBLIC_URL, {"dryrun": True, "perms": False},
         looked_only(len(SOURCE), 0)),
    Line("ads-cli --https cp ./srcSync/ s3://ak:sk@bucket1.aoss.cn-sh-01.sensecoreapi-oss.cn/prefix/",
         "cp", "./srcSync/", PUBLIC_URL, {}, copied_all),
    Line('ads-cli --https --exclude="abcd123" cp ./srcSync/ s3://ak:sk@bucket1.aoss.cn-sh-01.sensecoreapi-oss.cn/prefix/',
         "cp", "./srcSync/", PUBLIC_URL, {"exclude": ("abcd123",)}, copied_only(*CLEAN)),
    Line("ads-cli --https --threads=50 cp ./srcSync/ s3://ak:sk@bucket1.aoss.cn-sh-01.sensecoreapi-oss.cn/prefix/",
         "cp", "./srcSync/", PUBLIC_URL, {"threads": 50}, copied_all),
    Line("ads-cli --https --dryrun --deleteSrc --noperms cp ./srcSync/ s3://ak:sk@bucket1.aoss.cn-sh-01.sensecoreapi-oss.cn/prefix/",
         "rm", "./srcSync/", "", {"links": "copy", "perms": False}, deleted_only),
    Line("ads-cli --https --deleteSrc cp ./srcSync/ s3://ak:sk@bucket1.aoss.cn-sh-01.sensecoreapi-oss.cn/prefix/",
         "cp", "./srcSync/", PUBLIC_URL, {"delete_src": True}, moved(set(SOURCE))),
    Line("ads-cli --https --connTimeout 120 cp ./srcSync/ s3://ak:sk@bucket1.aoss.cn-sh-01.sensecoreapi-oss.cn/prefix/",
         "cp", "./srcSync/", PUBLIC_URL, {"connect_timeout_s": 120}, copied_all),
    Line("ads-cli --https --timeout 120 cp ./srcSync/ s3://ak:sk@bucket1.aoss.cn-sh-01.sensecoreapi-oss.cn/prefix/",
         "cp", "./srcSync/", PUBLIC_URL, {"read_timeout_s": 120}, copied_all),
    Line("ads-cli --https --anonymous 1 cp ./srcSync/ s3://ak:sk@bucket1.aoss.cn-sh-01.sensecoreapi-oss.cn:9000/",
         "cp", "./srcSync/", f"anonymously s3 https://bucket1/ at {AOSS}:9000", {},
         anonymous(copied_all)),
    Line("ads-cli --https --dryrun --noperms cp --info ./srcSync/ s3://ak:sk@bucket1.aoss.cn-sh-01.sensecoreapi-oss.cn:9000/",
         "cp", "./srcSync/", f"s3 https://ak:sk@bucket1/ at {AOSS}:9000",
         {"dryrun": True, "perms": False}, looked_only(len(SOURCE), 0, *INFO),
         shown={"info": True}),
    Line("ads-cli --https --dryrun --deleteSrc cp ./srcSync/ s3://ak:sk@bucket1.aoss.cn-sh-01.sensecoreapi-oss.cn/prefix/",
         "rm", "./srcSync/", "", {"links": "copy"}, deleted_only),
    Line("ads-cli --https --dryrun --deleteSrc cp s3://ak:sk@bucket1.aoss.cn-sh-01.sensecoreapi-oss.cn/prefix/ ./dstSync/",
         "rm", PUBLIC_URL, "", {}, deleted_only),
]  # fmt: skip

INCREMENTAL = [
    Line("ads-cli --https sync s3://ak:sk@bucket1.aoss.cn-sh-01.sensecoreapi-oss.cn/prefix/ ./srcSync/",
         "sync", PUBLIC_URL, "./srcSync/", {}, copied_new),
    Line("ads-cli --https -v sync s3://ak:sk@bucket1.aoss.cn-sh-01.sensecoreapi-oss.cn/prefix/ ./srcSync/",
         "sync", PUBLIC_URL, "./srcSync/", {}, logged(set(SOURCE) - {"same.bin"}), logging.INFO),
    Line("ads-cli --https -q sync s3://ak:sk@bucket1.aoss.cn-sh-01.sensecoreapi-oss.cn/prefix/ ./srcSync/",
         "sync", PUBLIC_URL, "./srcSync/", {}, silent(set(SOURCE) - {"same.bin"}), logging.ERROR,
         {"quiet": True}),
    Line("ads-cli --https --dryrun sync s3://ak:sk@bucket1.aoss.cn-sh-01.sensecoreapi-oss.cn/prefix/ ./srcSync/",
         "sync", PUBLIC_URL, "./srcSync/", {"dryrun": True}, looked_only(len(SOURCE) - 1, 1)),
    Line("ads-cli --https sync s3://ak:sk@bucket1.aoss.cn-sh-01.sensecoreapi-oss.cn/prefix/ ./srcSync/",
         "sync", PUBLIC_URL, "./srcSync/", {}, copied_new),
    Line('ads-cli --https --exclude="abcd123" sync s3://ak:sk@bucket1.aoss.cn-sh-01.sensecoreapi-oss.cn/prefix/ ./srcSync/',
         "sync", PUBLIC_URL, "./srcSync/", {"exclude": ("abcd123",)},
         copied_only(*CLEAN - {"same.bin"})),
    Line("ads-cli --https --threads=50 sync s3://ak:sk@bucket1.aoss.cn-sh-01.sensecoreapi-oss.cn/prefix/ ./srcSync/",
         "sync", PUBLIC_URL, "./srcSync/", {"threads": 50}, copied_new),
    Line("ads-cli --https --bwlimit=2 sync s3://ak:sk@bucket1.aoss.cn-sh-01.sensecoreapi-oss.cn/prefix/ ./srcSync/",
         "sync", PUBLIC_URL, "./srcSync/", {"bwlimit_mbps": 2}, copied_new),
    Line("ads-cli --https --deleteSrc sync s3://ak:sk@bucket1.aoss.cn-sh-01.sensecoreapi-oss.cn/prefix/ ./srcSync/",
         "sync", PUBLIC_URL, "./srcSync/", {"delete_src": True}, moved(set(SOURCE) - {"same.bin"})),
    Line("ads-cli --https sync --start=aa --end==ff s3://ak:sk@bucket1.aoss.cn-sh-01.sensecoreapi-oss.cn/prefix/ ./srcSync/",
         "sync", PUBLIC_URL, "./srcSync/", {"start": b"aa", "end": b"ff"},
         copied_only("aa", "abcd123.txt", "base", "base1", "based/x", "ff")),
    Line("ads-cli --https --conntimeout 120 sync s3://ak:sk@bucket1.aoss.cn-sh-01.sensecoreapi-oss.cn/prefix/ ./srcSync/",
         "sync", PUBLIC_URL, "./srcSync/", {"connect_timeout_s": 120}, copied_new),
    Line("ads-cli --https --timeout 120 sync s3://ak:sk@bucket1.aoss.cn-sh-01.sensecoreapi-oss.cn/prefix/ ./srcSync/",
         "sync", PUBLIC_URL, "./srcSync/", {"read_timeout_s": 120}, copied_new),
    Line("ads-cli --https --anonymous 0 sync s3://ak:sk@bucket1.aoss.cn-sh-01.sensecoreapi-oss.cn/prefix/ ./srcSync/",
         "sync", PUBLIC_URL.replace("s3 ", "anonymously s3 ").replace("ak:sk@", ""), "./srcSync/",
         {}, anonymous(copied_new)),
]  # fmt: skip

OTHER_CLOUDS = [
    # The last host is not quite AOSS's on the page either.
    Line("ads-cli sync cos://ak:sk@bucket1.ap-beijing.myqcloud.com/prefix/ s3://ak:sk@bucket1.aoss-internal.cn-sh-01.sensecoreapi-cn/prefix/",
         "sync", COS_URL,
         "s3 http://ak:sk@bucket1/prefix/ at aoss-internal.cn-sh-01.sensecoreapi-cn", {},
         copied_new),
    Line("ads-cli sync cos://ak:sk@bucket1.ap-beijing.myqcloud.com/prefix/ ./dstSync/",
         "sync", COS_URL, "./dstSync/", {}, copied_new),
]  # fmt: skip

BASE = {"base", "base1", "based/x", "mybase", "sub/base", "sub/base1"}
AT_THE_BEGINNING = {"base", "base1", "based/x"}
AT_THE_END = {"base1", "sub/base1"}


def pattern(option: str, keys: set[str], read_as: str) -> Line:
    """The page has the options alone; here they stand in its plainest command line."""
    name = "include" if option.startswith("--include") else "exclude"
    return Line(
        f"ads-cli {option} cp ./srcSync/ s3://ak:sk@bucket1.aoss-internal.cn-sh-01.sensecoreapi-oss.cn/prefix/",
        "cp", "./srcSync/", INSIDE_URL, {name: (read_as,)}, copied_only(*keys),
    )  # fmt: skip


PATTERNS = [
    pattern('--include "base"', BASE, "base"),
    pattern('--include  "^base"', AT_THE_BEGINNING, "^base"),
    pattern('--include "^base$"', {"base"}, "^base$"),
    pattern('--include "1$"', AT_THE_END, "1$"),
    pattern('--exclude "base"', set(SOURCE) - BASE, "base"),
    pattern('--exclude "^base"', set(SOURCE) - AT_THE_BEGINNING, "^base"),
    pattern("--exclude ”^base$“", set(SOURCE) - {"base"}, "^base$"),
    pattern('--exclude "1$"', set(SOURCE) - AT_THE_END, "1$"),
]

CHAPTERS = {
    "quick start": QUICK_START,
    "full": FULL,
    "incremental": INCREMENTAL,
    "other clouds": OTHER_CLOUDS,
    "patterns": PATTERNS,
}
LINES = [
    pytest.param(line, id=f"{name} {number}")
    for name, lines in CHAPTERS.items()
    for number, line in enumerate(lines, 1)
]


@pytest.mark.parametrize("line", LINES)
def test_a_line_of_the_page_is_read_as_it_is_meant(line: Line, read: Callable[..., Read]) -> None:
    got = read(shlex.split(line.text)[1:])
    assert (got.job.command, place(got.job.src), place(got.job.dst)) == line[1:4]
    assert chosen(got.job) == line.options
    assert got.act == ("remove" if line.command == "rm" else "start")
    assert got.log_level == line.level
    plain = Output()
    shown = {name: getattr(got.output, name) for name in vars_of(plain)}
    assert {n: v for n, v in shown.items() if v and v != getattr(plain, n)} == line.shown


def vars_of(output: Output) -> list[str]:
    return list(type(output).__dataclass_fields__)


# ---------------------------------------------------------------------- carrying them out


@dataclass
class Store:
    """A bucket, reached through a recorder."""

    server: Server
    recorder: Recorder
    bucket: str
    prefix: str

    def url(self, scheme: str) -> str:
        keys = f"{self.server.access_key}:{self.server.secret_key}"
        return f"{scheme}://{keys}@{self.recorder.host}/{self.bucket}/{self.prefix}"

    def objects(self) -> dict[str, bytes]:
        return objects(self.server, self.bucket, self.prefix)

    def fill(self, content: dict[str, bytes]) -> None:
        put(self.server, self.bucket, {self.prefix + key: body for key, body in content.items()})

    def written(self) -> set[str]:
        start = f"/{self.bucket}/{self.prefix}"
        return {
            one.path.removeprefix(start) for one in self.recorder.requests if one.method == "PUT"
        }


def put(server: Server, bucket: str, content: dict[str, bytes]) -> None:
    for key, body in content.items():
        # So moto serves them to anybody; the others do not know of this.
        server.client().put_object(Bucket=bucket, Key=key, Body=body, ACL="public-read-write")


def objects(server: Server, bucket: str, prefix: str) -> dict[str, bytes]:
    client = server.client()
    listed = client.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])
    return {
        item["Key"][len(prefix) :]: client.get_object(Bucket=bucket, Key=item["Key"])["Body"].read()
        for item in listed
    }


@dataclass
class Folder:
    path: Path
    _inodes: dict[str, int] = field(default_factory=dict)

    def objects(self) -> dict[str, bytes]:
        return {name: (self.path / name).read_bytes() for name in self._files()}

    def fill(self, content: dict[str, bytes]) -> None:
        for key, body in content.items():
            (self.path / key).parent.mkdir(parents=True, exist_ok=True)
            write(self.path / key, body)
        self._inodes = self._files()

    def written(self) -> set[str]:
        """What was written has another inode; what was not, keeps its own."""
        return {name for name, one in self._files().items() if self._inodes.get(name) != one}

    def _files(self) -> dict[str, int]:
        files = (path for path in sorted(self.path.rglob("*")) if path.is_file())
        return {str(path.relative_to(self.path)): path.stat().st_ino for path in files}


@pytest.fixture(scope="module")
def filled(request: pytest.FixtureRequest) -> Callable[[Server], str]:
    """``filled(server)``: a bucket with the source, older than what a run waits for; not to be
    changed.
    """
    buckets: dict[str, str] = {}

    def fill(server: Server) -> str:
        if server.name not in buckets:
            buckets[server.name] = server.make_bucket(f"page-{os.getpid()}-{server.name}")
            put(server, buckets[server.name], {f"prefix/{key}": SOURCE[key] for key in SOURCE})
            # Otherwise what a test puts at the destination could be of the same second.
            time.sleep(2)
        return buckets[server.name]

    return fill


Carry = Callable[[Line], Ran]
ADDRESS = re.compile(
    r"(s3|oss|cos|minio)://ak:sk@(?:[a-z0-9.:-]+\.[0-9]+:9000/mybucket/|([^ /]+)/(\S*))"
)


@pytest.fixture
def carry_out(
    request: pytest.FixtureRequest,
    bucket: BucketFactory,
    filled: Callable[[Server], str],
    certificate: Path,
    tmp_path: Path,
) -> Iterator[Carry]:
    """``carry_out(line)``: what the line did, with its places set up before."""
    with ExitStack() as stack:

        def make(line: Line) -> Ran:
            # Of these only moto takes requests that nobody has signed.
            name = "moto" if "--anonymous" in line.text else "minio"
            server: Server = request.getfixturevalue(name)
            tls = None
            if "--https" in line.text:
                tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                tls.load_cert_chain(certificate)
            emptied = "--deleteSrc" in line.text
            sides: list[Store | Folder] = []
            text = line.text
            for number, word in enumerate(shlex.split(line.text)[-2:]):
                if "://" not in word:
                    path = word.replace("~", os.environ["HOME"]).removesuffix("one_file.txt")
                    sides.append(Folder(tmp_path / path))
                    continue
                recorder = stack.enter_context(Recorder(server.host, tls))
                prefix = word.split("/", 3)[3].removeprefix("mybucket/")
                prefix = prefix.removesuffix("one_file.txt")
                # What is at a source is never changed, but where the line says so.
                place = bucket(server) if number or emptied else filled(server)
                sides.append(Store(server, recorder, place, prefix))
                url = sides[-1].url(word.partition("://")[0])
                text = text.replace(word, url + word.rpartition("/")[2])
            source, target = sides
            alone = "one_file.txt" in line.text
            if isinstance(source, Folder) or emptied:
                source.fill({"one_file.txt": b"one"} if alone else SOURCE)
            target.fill({} if alone else TARGET)
            return run(text, source, target)

        def run(text: str, source: Store | Folder, target: Store | Folder) -> Ran:
            recorders = [side.recorder for side in (source, target) if isinstance(side, Store)]
            for recorder in recorders:
                recorder.clear()
            before = source.objects(), target.objects()
            path = f"{Path(program('ads-cli')).parent}:{os.environ['PATH']}"
            env = {**os.environ, "PATH": path, "SSL_CERT_FILE": str(certificate)}
            done = subprocess.run(
                ["sh", "-c", text], cwd=tmp_path, env=env, stdin=subprocess.DEVNULL,
                capture_output=True, text=True, timeout=300,
            )  # fmt: skip
            assert "Traceback" not in done.stderr
            assert "testsecret" not in done.stdout + done.stderr
            return Ran(
                done,
                before,
                (source.objects(), target.objects()),
                target.written(),
                [one for recorder in recorders for one in recorder.requests],
                lambda *more: run(" ".join([text, *more]), source, target),
            )

        yield make


@pytest.mark.parametrize("line", LINES)
def test_a_line_of_the_page_does_what_it_says(line: Line, carry_out: Carry) -> None:
    line.effect(carry_out(line))


def test_the_version_is_told() -> None:
    # On the page: /home/test/ads-cli -V
    done = subprocess.run([program("ads-cli"), "-V"], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"\S+ [0-9]+(\.[0-9]+)+\S*\n", done.stdout)


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_names_the_commands_of_the_page(option: str) -> None:
    done = subprocess.run([program("ads-cli"), option], capture_output=True, text=True, check=True)
    assert re.search(r"^ +cp ", done.stdout, re.MULTILINE)
    assert re.search(r"^ +sync ", done.stdout, re.MULTILINE)


def test_a_mount_of_what_is_not_there_is_answered_in_one_line(tmp_path: Path) -> None:
    line = "mount s3://ak:sk@bucket.aoss-internal.cn-sh-01.sensecoreapi-oss.cn/my_path"
    command = [program("ads-cli"), *line.split(), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 3
    assert done.stdout == ""
    assert re.fullmatch(r"ads-cli: [^\n]*\n", done.stderr)


# ---------------------------------------------------------------------- spellings

URL = "s3://ak:sk@bucket1.aoss.cn-sh-01.sensecoreapi-oss.cn/prefix/"
SPELLINGS: dict[str, list[str]] = {
    "start": ["--start aa", "--start=aa", "--start==aa", "-s aa", "-saa", "-s=aa"],
    "end": ["--end ff", "--end=ff", "--end==ff", "-e ff", "-eff", "-e=ff"],
    "threads": ["--threads 7", "--threads=7", "-p 7", "-p7", "-p=7"],
    "delete-src": ["--delete-src", "--deleteSrc"],
    "delete-dst": ["--delete-dst", "--deleteDst"],
    "connect timeout": ["--connTimeout 9", "--conntimeout=9", "--conn-timeout 9", "--connTimeout=9"],
    "read timeout": ["--timeout 9", "--timeout=9"],
    "record": ["--recordName links.txt", "--recordName=links.txt", "-rd links.txt", "-rd=links.txt", "--record-name links.txt"],
    "dry run": ["--dryrun", "--dry-run"],
    "noperms": ["--noperms", "--no-perms"],
    "exclude": ["--exclude a.c", "--exclude=a.c", '--exclude "a.c"', "--exclude “a.c”", "--exclude ”a.c“"],
    "include-dir": ["--include-dir a", "--include-dir=a"],
    "exclude-dir": ["--exclude-dir a", "--exclude-dir=a"],
    "bwlimit": ["--bwlimit 2", "--bwlimit=2", "--bwlimit=2.0"],
    "anonymous": ["--anonymous 1", "--anonymous=1"],
    "verbose": ["-v", "--verbose"],
    "quiet": ["-q", "--quiet"],
    "age": ["--newer-than 30d", "--max-age=30d"],
    "other age": ["--older-than=30d", "--min-age 30d"],
    "size": ["--min-size 2k", "--min-size=2048", "--min-size 2KiB"],
    "checksum": ["--checksum", "-c", "--compare checksum"],
    "size only": ["--size-only", "--compare=size"],
    "update": ["--update", "-u"],
    "yes": ["--yes", "-y"],
}  # fmt: skip


@pytest.mark.parametrize("name", SPELLINGS)
def test_all_spellings_and_places_of_an_option_mean_the_same(
    name: str, read: Callable[..., Read]
) -> None:
    def seen(words: str) -> tuple[Any, ...]:
        got = read(shlex.split(words))
        return got.job, got.output, got.log_level, got.act

    plain = seen(f"sync ./srcSync/ {URL}")
    first = seen(f"sync {SPELLINGS[name][0]} ./srcSync/ {URL}")
    assert first != plain or name == "yes"
    for option in SPELLINGS[name]:
        assert seen(f"{option} sync ./srcSync/ {URL}") == first, option
        assert seen(f"--https {option} --path-style sync ./srcSync/ {URL}") == seen(
            f"sync ./srcSync/ --path-style {URL} {option} --https"
        ), option
        assert seen(f"sync {option} ./srcSync/ {URL}") == first, option
        assert seen(f"sync ./srcSync/ {option} {URL}") == first, option
        assert seen(f"sync ./srcSync/ {URL} {option}") == first, option


@pytest.mark.parametrize("command", ["copy", "pcopy"])
def test_other_names_of_cp_mean_the_same(command: str, read: Callable[..., Read]) -> None:
    assert read([command, "./srcSync/", URL]).job == read(["cp", "./srcSync/", URL]).job


def test_a_value_that_looks_like_a_command_or_an_option_is_a_value(
    read: Callable[..., Read],
) -> None:
    got = read(["--exclude", "cp", "--include", "-v", "sync", "./srcSync/", URL])
    assert got.job.filters.exclude == ("cp",)
    assert got.job.filters.include == ("-v",)
    assert got.log_level == logging.WARNING


@pytest.mark.parametrize("url", ["s3://ak:sk@mybucket.{}/prefix", "s3://mybucket.{}/prefix"])
@pytest.mark.parametrize("host", [INSIDE, AOSS])
def test_the_addresses_of_the_page_are_read(read: Callable[..., Read], url: str, host: str) -> None:
    at = read(["cp", "./srcSync/", url.format(host)]).job.dst
    assert at is not None
    keys = "ak:sk@" if "ak:sk@" in url else ""
    protocol = "https" if host == AOSS else "http"
    assert place(at) == f"s3 {protocol}://{keys}mybucket/prefix/ at {host}"
