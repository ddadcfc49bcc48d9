"""``adsmig mount`` and ``umount``: what they answer, what is shown, and what stays a secret."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.conftest import BucketFactory
from tests.mount.conftest import MountFactory
from tests.mount.mounts import LIMIT_S, PROGRAM, contents, error_of, only_line, put, run, until
from tests.recorder import Recorder
from tests.security.test_secrets import ACCESS_KEY, SECRET, TOKEN, found_in
from tests.servers import MinIOGateway, Moto, SeaweedFS, Server

BAD = (2, 3)


def test_it_answers_as_soon_as_the_command_has_returned(
    some_store: Server, bucket: BucketFactory, mount: MountFactory
) -> None:
    name = bucket(some_store)
    put(
        some_store,
        name,
        {"p/file": b"content", "p/d/deep": b"deep", "px": b"not below", "q/x": b""},
    )
    at = mount(some_store.url(name, "p/"))
    assert at.mounted()
    assert {path.name for path in at.path.iterdir()} == {"file", "d"}
    assert (at.path / "d" / "deep").read_bytes() == b"deep"
    assert os.statvfs(at.path).f_bavail > 0
    assert str(at.path) in run("df", at.path)
    (at.path / "d" / "new").write_bytes(b"new")
    at.stop()
    assert contents(some_store, name)["p/d/new"] == b"new"
    assert os.listdir(at.path) == []


def test_a_mount_that_is_read_only_changes_nothing(
    minio: MinIOGateway, bucket: BucketFactory, mount: MountFactory
) -> None:
    name = bucket(minio)
    put(minio, name, {"file": b"content", "d/other": b"other"})
    at = mount(minio.url(name), "--read-only")
    before = contents(minio, name)
    file = at.path / "file"
    assert file.read_bytes() == b"content"
    calls: list[Callable[[], object]] = [
        lambda: file.write_bytes(b"x"),
        lambda: os.open(file, os.O_RDWR),
        lambda: (at.path / "new").touch(),
        lambda: (at.path / "dir").mkdir(),
        lambda: file.unlink(),
        lambda: file.rename(at.path / "moved"),
        lambda: file.chmod(0o600),
        lambda: os.utime(file, (1, 1)),
        lambda: os.truncate(file, 0),
        lambda: (at.path / "link").symlink_to("file"),
        lambda: (at.path / "d").rmdir(),
    ]
    assert [error_of(call) for call in calls] == [errno.EROFS] * len(calls)
    at.stop()
    assert contents(minio, name) == before


def test_what_cannot_be_mounted_is_one_line(
    seaweedfs: SeaweedFS, bucket: BucketFactory, mount: MountFactory, tmp_path: Path
) -> None:
    name = bucket(seaweedfs)
    wrong = seaweedfs.url(name).replace(seaweedfs.secret_key, "another")
    for url, word in (
        (seaweedfs.url("no-such-bucket"), "no such bucket"),
        (wrong, "the keys"),
        (f"s3://{seaweedfs.access_key}:{seaweedfs.secret_key}@127.0.0.1:1/b/", "127.0.0.1:1"),
        (str(tmp_path), "store"),
        ("s3://a:b@", ""),
    ):
        at = mount(url, "--conn-timeout", "1", "--timeout", "5", start=False)
        said = only_line(at.start(code=BAD))
        assert said.startswith("adsmig: ")
        assert word in said
        assert not at.mounted()
        assert not at.processes()


def test_where_nothing_can_be_mounted_is_one_line(
    seaweedfs: SeaweedFS, bucket: BucketFactory, mount: MountFactory
) -> None:
    at = mount(seaweedfs.url(bucket(seaweedfs)))
    assert "mounted" in only_line(at.start(code=BAD))  # already
    at.stop()
    (at.path / "something").touch()
    assert "empty" in only_line(at.start(code=BAD))
    (at.path / "something").unlink()
    at.path.rmdir()
    assert str(at.path) in only_line(at.start(code=BAD))
    at.path.touch()
    assert "directory" in only_line(at.start(code=BAD))
    at.path.unlink()
    at.path.mkdir()
    assert "mounted" in only_line(at.stop(code=BAD))  # is not
    assert not at.processes()


def test_a_cache_that_cannot_be_is_one_line(
    seaweedfs: SeaweedFS, bucket: BucketFactory, mount: MountFactory, tmp_path: Path
) -> None:
    name = bucket(seaweedfs)
    put(seaweedfs, name, {"file": bytes(3 << 20)})
    at = mount(seaweedfs.url(name), start=False)
    at.cache = at.path / "cache"
    assert "--cache-dir" in only_line(at.start(code=2))
    at.cache = tmp_path / "cache"
    at.environment["XDG_STATE_HOME"] = str(at.path)
    assert "state directory" in only_line(at.start(code=2))
    del at.environment["XDG_STATE_HOME"]
    at.options = ["--cache-size", "0"]
    assert "--cache-size" in only_line(at.start(code=2))
    assert not at.mounted()
    assert os.listdir(at.path) == []
    at.options = ["--cache-size", "1M"]
    at.start()
    assert (at.path / "file").read_bytes() == bytes(3 << 20)
    at.stop()


def test_a_link_to_a_directory_is_as_good_as_the_directory(
    seaweedfs: SeaweedFS, bucket: BucketFactory, mount: MountFactory
) -> None:
    name = bucket(seaweedfs)
    at = mount(seaweedfs.url(name), start=False)
    real = at.path
    at.path = real.with_name("link")
    at.path.symlink_to(real)
    at.start()
    (at.path / "file").write_bytes(b"content")
    assert (real / "file").read_bytes() == b"content"
    assert "mounted" in only_line(at.start(code=2))  # already
    at.stop()
    assert contents(seaweedfs, name) == {"file": b"content"}
    at.start()
    at.kill()
    at.start()  # in the place of what is dead there
    assert (real / "file").read_bytes() == b"content"
    at.path = real
    at.stop()


def test_more_files_are_open_than_the_shell_allows_at_first(
    seaweedfs: SeaweedFS, bucket: BucketFactory, mount: MountFactory
) -> None:
    name = bucket(seaweedfs)
    at = mount(seaweedfs.url(name), "--foreground", start=False)
    command = ["sh", "-c", 'ulimit -Sn 64; exec "$@"', "sh", *PROGRAM, *at.command()]
    process = subprocess.Popen(command, env=at.environment)
    until(lambda: at.mounted() or process.poll() is not None)
    with ExitStack() as stack:
        for number in range(100):
            stack.enter_context((at.path / f"{number}").open("wb")).write(b"content")
    at.stop()
    assert process.wait(LIMIT_S) == 0
    assert len(contents(seaweedfs, name)) == 100


# Runs a command where /dev holds next to nothing.
WITHOUT_FUSE = """
mount -t tmpfs none "$1" || exit 77
for name in null zero random urandom; do touch "$1/$name"; mount --bind /dev/$name "$1/$name"; done
mkdir "$1/shm"
mount --rbind "$1" /dev
shift
exec "$@"
"""


def test_a_machine_without_fuse_is_told_what_it_needs(
    seaweedfs: SeaweedFS, bucket: BucketFactory, mount: MountFactory, tmp_path: Path
) -> None:
    at = mount(seaweedfs.url(bucket(seaweedfs)), start=False)
    dev = tmp_path / "dev"
    dev.mkdir()
    command = ["unshare", "-m", "sh", "-c", WITHOUT_FUSE, "sh", dev, *PROGRAM, *at.command()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    if done.returncode in (1, 77) and "adsmig" not in done.stderr:
        pytest.skip("hiding /dev/fuse needs root and CAP_SYS_ADMIN")
    assert done.returncode in BAD, done
    assert "/dev/fuse" in only_line(done.stdout + done.stderr)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_in_the_foreground_it_stays_until_it_is_told_to_end(
    minio: MinIOGateway, bucket: BucketFactory, mount: MountFactory, number: signal.Signals
) -> None:
    name = bucket(minio)
    at = mount(minio.url(name), "--foreground", start=False)
    process = at.popen()
    until(lambda: at.mounted() or process.poll() is not None)
    (at.path / "file").write_bytes(b"content")
    assert process.poll() is None
    process.send_signal(number)
    said = process.communicate(timeout=LIMIT_S)[0]
    assert process.returncode in (0, 128 + number), said
    assert "Traceback" not in said
    assert not at.mounted()
    assert contents(minio, name) == {"file": b"content"}


def test_what_others_change_is_seen_when_a_file_is_opened(
    seaweedfs: SeaweedFS, bucket: BucketFactory, mount: MountFactory
) -> None:
    name = bucket(seaweedfs)
    put(seaweedfs, name, {"file": b"one", "gone": b"gone", "large": bytes(20 << 20)})
    at, other = mount(seaweedfs.url(name)), mount(seaweedfs.url(name))
    assert (at.path / "file").read_bytes() == b"one"
    assert (at.path / "gone").exists()
    assert not (at.path / "new").exists()
    (other.path / "file").write_bytes(b"number two")
    (other.path / "gone").unlink()
    put(seaweedfs, name, {"new": b"new"})
    until(lambda: (at.path / "file").read_bytes() == b"number two")
    until(lambda: not (at.path / "gone").exists())
    until(lambda: (at.path / "new").exists())
    assert set(os.listdir(at.path)) == {"file", "large", "new"}
    # Who has it open keeps what it opened, or is told; the two are never mixed.
    with (at.path / "large").open("rb", buffering=0) as file:
        begin = file.read(1 << 20)
        put(seaweedfs, name, {"large": b"x" * (20 << 20)})
        try:
            rest = file.readall()
        except OSError:
            rest = b""
    assert not (begin + rest).strip(begin[:1])
    at.stop()
    other.stop()


def test_what_was_read_is_not_asked_for_again_after_a_restart(
    seaweedfs: SeaweedFS, bucket: BucketFactory, mount: MountFactory
) -> None:
    name, content = bucket(seaweedfs), os.urandom(6 << 20)
    small = {f"d/{number}": os.urandom(5000) for number in range(30)}
    put(seaweedfs, name, {"large": content, "changed": content, **small})
    with Recorder(seaweedfs.host) as front:
        at = mount(seaweedfs.url(name).replace(seaweedfs.host, front.host))

        def check(changed: bytes) -> list[str]:
            """Reads everything; what was asked for."""
            front.clear()
            assert (at.path / "large").read_bytes() == content
            assert (at.path / "changed").read_bytes() == changed
            for key, one in small.items():
                assert (at.path / key).read_bytes() == one
            return [one.path for one in front.data() if one.method == "GET"]

        assert check(content)
        at.again(forget=False)
        assert check(content) == []
        at.stop()
        put(seaweedfs, name, {"changed": content[::-1]})
        at.start()
        assert set(check(content[::-1])) == {f"/{name}/changed"}
        at.stop()


def test_the_cache_stays_within_its_size(
    seaweedfs: SeaweedFS, bucket: BucketFactory, mount: MountFactory
) -> None:
    name = bucket(seaweedfs)
    files = {f"f{number}": os.urandom(3 << 20) for number in range(12)}
    files |= {f"small/{number}": os.urandom(20_000) for number in range(200)}
    put(seaweedfs, name, files)
    at = mount(seaweedfs.url(name), "--cache-size", "10M")
    for key, content in files.items():
        assert (at.path / key).read_bytes() == content
    until(lambda: int(run("du", "-s", "-B1", at.cache).split()[0]) <= (10 << 20) * 1.2)
    for key in ("f0", "f11", "small/0"):
        assert (at.path / key).read_bytes() == files[key]
    at.stop()


NOBODY = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs to be root")
def test_others_see_it_if_they_are_allowed_to(
    seaweedfs: SeaweedFS, bucket: BucketFactory, mount: MountFactory, tmp_path: Path
) -> None:
    name = bucket(seaweedfs)
    put(seaweedfs, name, {"file": b"content"})
    at = mount(seaweedfs.url(name), "--allow-other", start=False)
    # Whose way there leads through directories of the one who tests.
    with tempfile.TemporaryDirectory() as top:
        os.chmod(top, 0o755)
        at.path = Path(top) / "mnt"
        at.path.mkdir()
        at.start()
        assert run(*NOBODY, "cat", at.path / "file") == "content"
        at.stop()
        at.options.remove("--allow-other")
        at.start()
        assert "denied" in run(*NOBODY, "cat", at.path / "file", code=1)
        at.stop()


def test_secrets_are_in_no_command_line_and_in_no_file(
    moto: Moto, mount: MountFactory, tmp_path: Path
) -> None:
    bucket = moto.make_bucket("of-secrets")
    put(moto, bucket, {"file": b"content"})
    keys = ":".join(quote(one, safe="") for one in (ACCESS_KEY, SECRET, TOKEN))
    home, log = Path(os.environ["HOME"]), tmp_path / "the.log"
    at = mount(f"minio://{keys}@{moto.host}/{bucket}/", "-vv", "--log-file", log)
    assert (at.path / "file").read_bytes() == b"content"
    (at.path / "new").write_bytes(b"new")
    os.truncate(at.path / "file", 3)
    serving = at.processes()
    assert serving
    for one in serving:
        line = Path(f"/proc/{one.pid}/cmdline").read_bytes()
        assert not found_in(line)
        assert ACCESS_KEY.encode() not in line
        assert not found_in("\0".join(one.environ().values()).encode())
    assert not found_in(Path("/proc/self/mountinfo").read_bytes())
    looked_at = 0
    for ending in (at.kill, at.start, at.stop):
        ending()
        for top in (home, at.cache, log):
            for path in top.rglob("*") if top.is_dir() else [top]:
                if path.is_file():
                    looked_at += 1
                    assert not found_in(path.read_bytes()), path
    assert looked_at
    assert not found_in(at.said.encode())
    shutil.rmtree(at.cache)
