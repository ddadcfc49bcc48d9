"""A store that is slow, silent, gone or refuses: slow, then right; or an error, and no hang."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import BucketFactory
from tests.front import Exchange
from tests.mount.conftest import MountFactory
from tests.mount.mounts import LIMIT_S, Mount, contents, error_of, put, until
from tests.recorder import Recorder
from tests.servers import MinIOGateway, SeaweedFS, Server

OUTAGE_S = 10
GONE = (errno.EIO, errno.ETIMEDOUT)
IMPATIENT = ("--timeout", "3", "--conn-timeout", "3")
PATIENT = ("--timeout", "600")
NOISE = os.urandom(1 << 20)

READER = """
import hashlib, sys
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        print(hashlib.sha256(file.read()).hexdigest(), flush=True)
"""
WRITER = """
import sys
content = open(sys.argv[1], "rb").read()
for path in sys.argv[2:]:
    with open(path, "wb", buffering=0) as file:
        for start in range(0, len(content), 100_000):
            file.write(content[start:start + 100_000])
    print("stored", flush=True)
"""


@contextmanager
def silent(server: Server) -> Iterator[None]:
    """It takes connections and says nothing."""
    assert server.pid
    os.killpg(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(server.pid, signal.SIGCONT)


@contextmanager
def down(server: Server) -> Iterator[None]:
    """Nobody is there."""
    server.kill()
    try:
        yield
    finally:
        server.start()


def script(text: str, *paths: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-ISE", "-c", text, *paths],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("stopped", [down, silent])
def test_ten_seconds_without_a_server_delay_what_is_read_and_written(
    seaweedfs: SeaweedFS,
    bucket: BucketFactory,
    mount: MountFactory,
    tmp_path: Path,
    stopped: Callable[[Server], Iterator[None]],
) -> None:
    name, local = bucket(seaweedfs), tmp_path / "local"
    local.write_bytes(NOISE * 9)
    files = {f"there{number}": NOISE[number:] * 2 for number in range(10)}
    put(seaweedfs, name, files)
    # Slow enough for neither to be done before the server is stopped.
    at = mount(seaweedfs.url(name), "--bwlimit", "100")
    reader = script(READER, *(at.path / key for key in files))
    writer = script(WRITER, local, *(at.path / f"new{number}" for number in range(3)))
    assert reader.stdout
    first = reader.stdout.readline()
    with stopped(seaweedfs):
        time.sleep(OUTAGE_S)
    told, complaint = reader.communicate(timeout=LIMIT_S)
    assert not complaint
    wanted = [hashlib.sha256(content).hexdigest() for content in files.values()]
    assert (first + told).split() == wanted
    assert writer.communicate(timeout=LIMIT_S) == ("stored\n" * 3, "")
    at.stop()
    new = {f"new{number}": NOISE * 9 for number in range(3)}
    assert contents(seaweedfs, name) == files | new


@pytest.mark.parametrize("stopped", [down, silent])
def test_a_server_that_is_gone_is_an_error_in_time(
    minio: MinIOGateway,
    bucket: BucketFactory,
    mount: MountFactory,
    stopped: Callable[[Server], Iterator[None]],
) -> None:
    name = bucket(minio)
    there = {"dir/small": b"content", "dir/large": NOISE * 8, "dir/changed": NOISE, "other/x": b""}
    put(minio, name, there)
    at = mount(minio.url(name), *IMPATIENT)
    large = os.open(at.path / "dir" / "large", os.O_RDONLY)
    changed = os.open(at.path / "dir" / "changed", os.O_RDWR)
    os.pwrite(changed, b"other", 1000)
    with stopped(minio):
        calls: list[Callable[[], object]] = [
            lambda: read_all(large),
            lambda: (at.path / "dir" / "small").read_bytes(),
            lambda: (at.path / "other" / "new").write_bytes(b"x"),
            lambda: os.fsync(changed),
            lambda: (at.path / "newdir").mkdir(),
            lambda: os.rename(at.path / "dir" / "small", at.path / "dir" / "moved"),
        ]
        with ThreadPoolExecutor(len(calls)) as pool:
            errors = list(pool.map(error_of, calls))
        assert set(errors) <= set(GONE)
    # And it is as it was, once there is a server again and it has caught its breath.
    until(lambda: worked(lambda: (at.path / "dir" / "small").read_bytes() == b"content"))
    until(lambda: worked(lambda: read_all(large) == NOISE * 8))
    until(lambda: worked(lambda: os.fsync(changed) is None))
    os.close(large)
    os.close(changed)
    until(lambda: worked(lambda: bool((at.path / "other" / "new").write_bytes(b"y"))))
    at.stop()
    stored = contents(minio, name)
    assert stored["dir/changed"] == NOISE[:1000] + b"other" + NOISE[1005:]
    assert stored["other/new"] == b"y"
    assert stored["dir/small"] == b"content"
    # What was refused is not done later, but for what a silent server has already been asked for.
    assert stopped is silent or "dir/moved" not in stored


def read_all(fd: int) -> bytes:
    """From the beginning to the end, which may take several calls."""
    parts = []
    while part := os.pread(fd, 1 << 20, sum(map(len, parts))):
        parts.append(part)
    return b"".join(parts)


def worked(call: Callable[[], bool]) -> bool:
    try:
        return call()
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_who_waits_for_a_silent_server_can_be_stopped(
    seaweedfs: SeaweedFS,
    bucket: BucketFactory,
    mount: MountFactory,
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    name, local = bucket(seaweedfs), tmp_path / "local"
    local.write_bytes(NOISE)
    put(seaweedfs, name, {"file": NOISE * 4, "dir/other": b"content"})
    at = mount(seaweedfs.url(name), *PATIENT)
    commands = [
        ("cat", at.path / "file"),
        ("ls", "-l", at.path / "dir"),
        ("cp", local, at.path / "new"),
        ("mkdir", at.path / "newdir"),
    ]
    with silent(seaweedfs):
        for words in commands:  # one by one: some hold a lock of the kernel's that others need
            with subprocess.Popen(
                words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            ) as one:
                until(lambda one=one: in_fuse(one))
                one.send_signal(number)
                assert one.wait(LIMIT_S) == -number
    assert (at.path / "file").read_bytes() == NOISE * 4
    assert (at.path / "dir" / "other").read_bytes() == b"content"
    at.stop()


def in_fuse(process: subprocess.Popen[bytes]) -> bool:
    """Whether it waits in the kernel for an answer of the mount's."""
    assert process.poll() is None
    where = Path(f"/proc/{process.pid}/wchan").read_text()
    return "fuse" in where or "request_wait" in where


def test_what_could_not_be_stored_is_named_and_kept(
    minio: MinIOGateway, bucket: BucketFactory, mount: MountFactory
) -> None:
    name = bucket(minio)
    put(minio, name, {"patched": NOISE})
    at = mount(minio.url(name), *IMPATIENT)
    file = os.open(at.path / "patched", os.O_RDWR)
    os.pwrite(file, b"other", 1000)
    with down(minio):
        assert error_of(lambda: os.close(file)) in GONE
        said = at.stop(code=1)
        assert "patched" in said
        assert not at.mounted()
        assert not at.processes()
    assert contents(minio, name) == {"patched": NOISE}
    at.options.clear()
    at.start()
    at.stop()
    assert contents(minio, name) == {"patched": NOISE[:1000] + b"other" + NOISE[1005:]}


class Refusing(Recorder):
    """A way to a server that may stop taking the caller's keys."""

    refuses = False

    def answer(self, exchange: Exchange) -> None:
        if not self.refuses:
            return super().answer(exchange)
        exchange.read(int(exchange.headers.get("Content-Length", "0")))
        text = b"<Error><Code>AccessDenied</Code><Message>No more.</Message></Error>"
        exchange.send_response_only(403, "Forbidden")
        exchange.send_header("Content-Length", str(len(text)))
        exchange.end_headers()
        if exchange.command != "HEAD":
            exchange.wfile.write(text)


def test_who_is_not_allowed_any_more_is_told_so(
    minio: MinIOGateway, bucket: BucketFactory, mount: MountFactory
) -> None:
    name = bucket(minio)
    put(minio, name, {"file": b"content", "other": b"content"})
    with Refusing(minio.host) as front:
        at = mount(minio.url(name).replace(minio.host, front.host))
        assert (at.path / "file").read_bytes() == b"content"
        front.refuses = True
        denied = (errno.EACCES, errno.EPERM)
        assert error_of(lambda: (at.path / "other").read_bytes()) in denied
        assert error_of(lambda: (at.path / "new").write_bytes(b"x")) in denied
        assert error_of(lambda: (at.path / "dir").mkdir()) in denied
        assert error_of(lambda: (at.path / "other").unlink()) in denied
        front.refuses = False
        assert (at.path / "other").read_bytes() == b"content"
        at.stop()
    stored = contents(minio, name)
    # What a close has failed to store may be stored later; nothing else has changed.
    assert stored.pop("new", b"x") == b"x"
    assert stored == {"file": b"content", "other": b"content"}


def test_a_file_that_cannot_be_opened_to_be_written_anew_stays_what_it_is(
    minio: MinIOGateway, bucket: BucketFactory, mount: MountFactory
) -> None:
    name = bucket(minio)
    put(minio, name, {"file": b"content"})
    with Refusing(minio.host) as front:
        at = mount(minio.url(name).replace(minio.host, front.host))
        file = at.path / "file"
        file.stat()
        front.refuses = True
        assert error_of(lambda: file.open("wb")) in (errno.EACCES, errno.EPERM)
        front.refuses = False
        assert file.read_bytes() == b"content"
        at.stop()
    assert contents(minio, name) == {"file": b"content"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MB."""
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root and CAP_SYS_ADMIN")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_cache_disk_loses_nothing(
    seaweedfs: SeaweedFS, bucket: BucketFactory, mount: MountFactory, small_disk: Path
) -> None:
    name, large = bucket(seaweedfs), NOISE * 80
    put(seaweedfs, name, {"large": large, "other": large})
    at = mount(seaweedfs.url(name), "--cache-size", "1G", cache=small_disk / "cache")
    assert (at.path / "large").read_bytes() == large
    # What is written from beginning to end needs no room there.
    (at.path / "streamed").write_bytes(large)
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file:
        assert error_of(lambda: [file.write(bytes(1 << 20)) for _ in range(65)]) == errno.ENOSPC
    assert (at.path / "other").read_bytes() == large
    stored = worked(lambda: bool((at.path / "new").write_bytes(large)))
    # What is written here and there needs room, or says that it does.
    fits = worked(lambda: patch(at, "large"))
    filler.unlink()
    (at.path / "small").write_bytes(b"content")
    at.stop()
    found = contents(seaweedfs, name)
    assert found["small"] == b"content"
    assert found["other"] == found["streamed"] == large
    assert not stored or found["new"] == large
    patched = b"x" + large[1 : (20 << 20)] + b"x" + large[(20 << 20) + 1 :]
    assert found["large"] == patched if fits else found["large"] in (large, patched)


def patch(at: Mount, name: str) -> bool:
    fd = os.open(at.path / name, os.O_RDWR)
    try:
        for place in (20 << 20, 0):
            os.pwrite(fd, b"x", place)
        os.fsync(fd)
    finally:
        os.close(fd)
    return True
