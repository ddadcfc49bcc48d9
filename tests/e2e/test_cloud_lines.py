"""The product page's lines for other clouds and MinIO, as printed, with --resolve.

Run as the program, with its worker processes; the hosts are those of the page.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from tests.certificates import self_signed
from tests.conftest import BucketFactory
from tests.e2e.conftest import Adsmig
from tests.e2e.inside import put, tree_of
from tests.e2e.test_clouds import SMALL, Cloud
from tests.quirks import QUIRKS, Quirks
from tests.quirkserver import QuirkServer
from tests.servers import Moto, program

AOSS = Quirks(
    native="aoss.cn-sh-01.sensecoreapi-oss.cn", endpoint="aoss.cn-sh-01.sensecoreapi-oss.cn",
    region="us-east-1", etag="aws",
)  # fmt: skip
HOSTS = {
    "oss-cn-beijing.aliyuncs.com": ("oss", QUIRKS["oss"]),
    "ap-beijing.myqcloud.com": ("cos", QUIRKS["cos"]),
    **{
        host: ("s3", replace(AOSS, native=host, endpoint=host))
        for host in (
            AOSS.native,
            "aoss-internal.cn-sh-01.sensecoreapi-oss.cn",
            "aoss-internal.cn-sh-01.sensecoreapi-cn",
        )
    },
}
LINES = [
    "ads-cli --https cp oss://ak:sk@bucket1.oss-cn-beijing.aliyuncs.com/prefix/"
    " s3://ak:sk@bucket1.aoss.cn-sh-01.sensecoreapi-oss.cn/prefix/",
    "ads-cli --https sync oss://ak:sk@bucket1.oss-cn-beijing.aliyuncs.com/prefix/"
    " s3://ak:sk@bucket1.aoss.cn-sh-01.sensecoreapi-oss.cn/prefix/",
    "ads-cli sync oss://ak:sk@bucket1.oss-cn-beijing.aliyuncs.com/prefix/"
    " s3://ak:sk@bucket1.aoss-internal.cn-sh-01.sensecoreapi-oss.cn/prefix/",
    "ads-cli cp oss://ak:sk@bucket1.oss-cn-beijing.aliyuncs.com/prefix/"
    " s3://ak:sk@bucket1.aoss-internal.cn-sh-01.sensecoreapi-oss.cn/prefix/",
    "ads-cli sync cos://ak:sk@bucket1.ap-beijing.myqcloud.com/prefix/"
    " s3://ak:sk@bucket1.aoss-internal.cn-sh-01.sensecoreapi-cn/prefix/",
    "ads-cli sync cos://ak:sk@bucket1.ap-beijing.myqcloud.com/prefix/ ./dstSync/",
]
_numbers = itertools.count(1)


def loopback(port: int) -> tuple[str, int]:
    """An address of loopback's that nobody has that port of; another port, if it is privileged."""
    address = f"127.{os.getpid() % 200 + 20}.{os.getpid() // 200 % 250}.{next(_numbers)}"
    with socket.socket() as probe:
        try:
            probe.bind((address, port))
        except PermissionError:
            return address, 0
    return address, port


def route(name: str, port: int, cloud: QuirkServer) -> str:
    """The option that leads there: --resolve if the port is the one of the name."""
    address = cloud.address
    if cloud.port == port:
        return f"--resolve {shlex.quote(f'{name}:{port}:{address}')}"
    return f"--connect-to {shlex.quote(f'{name}:{port}:{address}:{cloud.port}')}"


Run = Callable[[str], "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """``run(line)``: a line of the page in a shell; it ended well, and showed no secret."""
    trusted = tmp_path / "certificate.pem"
    path = f"{Path(program('ads-cli')).parent}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "SSL_CERT_FILE": str(trusted)}

    def go(line: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["sh", "-c", line], cwd=tmp_path, env=env, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert "sk@" not in done.stdout + done.stderr
        return done

    return go


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("line", LINES)
def test_a_line_of_the_page_runs_as_printed(
    line: str, moto: Moto, bucket: BucketFactory, run: Run, stack: ExitStack, tmp_path: Path
) -> None:
    clouds: list[Cloud] = []
    routes = []
    for place in [word for word in line.split() if "://" in word]:
        native = place.partition("@")[2].partition("/")[0].removeprefix("bucket1.")
        name, quirks = HOSTS[native]
        encrypted = "--https" in line or "-internal" not in native
        tls = None
        if encrypted:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            pem = self_signed(tmp_path / f"{name}.pem", f"*.{quirks.endpoint}")
            tls.load_cert_chain(pem)
            with (tmp_path / "certificate.pem").open("ab") as trusted:
                trusted.write(pem.read_bytes())
        port = 443 if encrypted else 80
        places = {"bucket1": bucket(moto)}
        front = stack.enter_context(QuirkServer(quirks, moto, places, tls, loopback(port)))
        clouds.append(Cloud(name, front))
        routes.append(route(f"bucket1.{quirks.endpoint}", port, front))
    clouds[0].put(SMALL)
    (tmp_path / "dstSync").mkdir()
    run(f"{line} {' '.join(routes)} --workers 2")
    found = clouds[1].content() if len(clouds) > 1 else tree_of(tmp_path / "dstSync")
    assert found == SMALL
    assert not any(cloud.front.refusals for cloud in clouds)


def test_the_line_for_minio_runs_as_printed(
    moto: Moto, bucket: BucketFactory, run: Run, stack: ExitStack, tmp_path: Path
) -> None:
    files = {f"file{number}": b"x" * number for number in range(9)}
    (Path(os.environ["HOME"]) / "test_files").mkdir()
    put(Path(os.environ["HOME"]) / "test_files/1", files)
    quirks = replace(QUIRKS["minio"], endpoint="minio.corp:9000")
    places = {"mybucket": bucket(moto)}
    front = stack.enter_context(QuirkServer(quirks, moto, places, None, loopback(9000)))
    line = "ads-cli cp ~/test_files/1/ minio://ak:sk@minio.corp:9000/mybucket/"
    run(f"{line} {route('minio.corp', 9000, front)}")
    assert Cloud("minio", front, "").content("mybucket") == files
    assert not front.refusals
    assert {one.headers["host"] for one in front.seen} == {"minio.corp:9000"}


def test_a_server_of_another_name_is_not_trusted(
    moto: Moto, bucket: BucketFactory, stack: ExitStack, tmp_path: Path
) -> None:
    """Wherever the connection goes, the certificate has to be that of the address."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pem = self_signed(tmp_path / "certificate.pem", "*.elsewhere.corp")
    tls.load_cert_chain(pem)
    front = stack.enter_context(QuirkServer(QUIRKS["cos"], moto, {"bucket1": bucket(moto)}, tls))
    to = f"::127.0.0.1:{front.port}"
    done = subprocess.run(
        [program("adsmig"), "cp", "--connect-to", to, Cloud("cos", front).url(), str(tmp_path)],
        env={**os.environ, "SSL_CERT_FILE": str(pem)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 3
    assert "cannot trust bucket1.cos.ap-beijing.myqcloud.com" in done.stderr


def test_a_killed_run_of_many_processes_is_resumed_by_the_same_way(
    moto: Moto, bucket: BucketFactory, stack: ExitStack, adsmig: Adsmig, tmp_path: Path
) -> None:
    """Route and profile come along to worker processes, and out of the manifest.

    There are so many files that the half second in which a run tries to do without processes ends
    long before a third of them are there.
    """
    files = {f"d{number % 7}/{number:04}": b"%d" % number for number in range(1500)}
    put(tmp_path / "tree", files)
    places = {"bucket1": bucket(moto)}
    quirks = replace(QUIRKS["cos"], slow_down_every=0, page=1000)
    front = stack.enter_context(QuirkServer(quirks, moto, places))
    cloud, manifest = Cloud("cos", front), tmp_path / "m.db"
    line = ["cp", "--no-https", *cloud.way, "--dst-set", "max_keys=50", "--workers", "2"]
    line += ["--manifest", str(manifest), f"{tmp_path}/tree/", cloud.url()]
    process = subprocess.Popen(
        [sys.executable, "-m", "adsmig", *line], stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while len(recorded(manifest)) < len(files) // 3 and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    settled = recorded(manifest)
    assert len(files) // 3 <= len(settled) < len(files)
    front.clear()
    keys = {"ADSMIG_DST_ACCESS_KEY": "ak", "ADSMIG_DST_SECRET_KEY": "sk"}
    adsmig("resume", "--manifest", manifest, **keys)
    assert cloud.content() == files
    assert not {f"prefix/{key}".encode() for key in settled} & {key for key, _ in front.stored()}
    with contextlib.closing(sqlite3.connect(manifest)) as database:
        assert database.execute("SELECT count(DISTINCT worker) FROM slices").fetchone()[0] > 2
    assert not front.refusals


def recorded(manifest: Path) -> set[str]:
    """The keys that a manifest records as copied; none while it has no such table."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{manifest}?mode=ro", uri=True)) as database:
            return {key for (key,) in database.execute("SELECT key FROM objects")}
    except sqlite3.OperationalError:
        return set()
