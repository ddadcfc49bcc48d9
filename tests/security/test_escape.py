"""Nothing is written, read or deleted outside the destination: whatever the keys are, and whatever
somebody else does to the tree meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from adsmig.job import Job
from adsmig.uri import parse
from tests.e2e.conftest import make_tree
from tests.e2e.inside import COLLECTED, Bucket, Here, here, no_pauses, put, tree_of
from tests.security.hostile import Asked, Hostile, page, whole
from tests.servers import Moto, Sshd

__all__ = ["here", "no_pauses"]

pytestmark = [COLLECTED, pytest.mark.usefixtures("no_pauses")]

ESCAPES = [
    "../x",
    "..",
    "a/../../x",
    "a/..",
    "/etc/x",
    "//x",
    "./x",
    ".",
    "a/./x",
    "a//x",
    "a/b/../x",
]


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory that nothing may come to, with something of somebody's in it."""
    return put(tmp_path / "outside", {"passwd": b"precious", "sub/file": b"precious"})


def whole_tree(path: Path) -> dict[str, tuple[int, int, int]]:
    """All that is there, with what tells whether it was touched."""
    return {
        str(one.relative_to(path)): (s.st_mode, s.st_mtime_ns, s.st_ino)
        for one in [path, *path.rglob("*")]
        for s in [one.lstat()]
    }


@pytest.mark.parametrize("way", ["list", "stat"])
def test_keys_that_are_paths_elsewhere_are_failures(here: Here, tmp_path: Path, way: str) -> None:
    keys = sorted([*ESCAPES, "nul%00in", "fine", "back\\..\\slash"])
    listed = page(*keys).replace(b"<IsTruncated>", b"<EncodingType>url</EncodingType><IsTruncated>")

    def answer(asked: Asked) -> Iterator[bytes]:
        yield whole(listed) if asked.lists else whole(b"a")

    dst = tmp_path / "above" / "dst"
    dst.parent.mkdir()
    with Hostile(answer) as server:
        src = f"minio://ak:sk@{server.host}/bucket/"
        (tmp_path / "keys").write_text("\n".join([*ESCAPES, "fine"]))
        options = ["--files-from", tmp_path / "keys"] if way == "stat" else []
        said = here("cp", *options, src, dst, code=1)
    for key in ESCAPES:
        assert f" {key}  " in said
    good = {"fine": b"a"} | ({} if way == "stat" else {"back\\..\\slash": b"a"})
    assert tree_of(dst) == good
    assert os.listdir(dst.parent) == ["dst"]
    assert not Path("/etc/x").exists()


@pytest.mark.parametrize("command", [["cp"], ["sync"], ["sync", "--delete-dst"]], ids=" ".join)
@pytest.mark.parametrize("size", [10, 65 << 20], ids=["small", "large"])
def test_a_link_that_was_planted_is_not_written_through(
    here: Here, tmp_path: Path, outside: Path, command: list[str], size: int
) -> None:
    src = put(tmp_path / "src", {"a/passwd": b"", "a/new": b"", "a/sub/file": b"", "good": b"1"})
    for name in ("a/passwd", "a/new", "a/sub/file"):
        os.truncate(src / name, size)
    dst = put(tmp_path / "dst", {})
    (dst / "a").symlink_to(outside)
    (dst / "good").symlink_to(outside / "passwd")
    before = whole_tree(outside)
    said = here(*command, src, dst, code=1)
    assert said.count("it lies behind a symbolic link") >= 3
    assert whole_tree(outside) == before
    assert tree_of(outside)["passwd"] == b"precious"
    assert (dst / "good").read_bytes() == b"1"
    assert not (dst / "good").is_symlink()


def test_a_planted_link_is_not_deleted_through(here: Here, tmp_path: Path, outside: Path) -> None:
    src, dst = put(tmp_path / "src", {"good": b"1"}), put(tmp_path / "dst", {})
    (dst / "a").symlink_to(outside)
    before = whole_tree(outside)
    here("sync", "--delete-dst", src, dst, code=1)
    assert whole_tree(outside) == before


def test_a_planted_link_is_not_written_through_over_sftp(
    here: Here, tmp_path: Path, outside: Path, sshd: Sshd
) -> None:
    sshd.trust(Path(os.environ["HOME"]))
    src = put(tmp_path / "src", {"a/passwd": b"1", "a/new/x": b"1", "a/e/": b"", "good": b"1"})
    dst = put(tmp_path / "dst", {})
    (dst / "a").symlink_to(outside)
    before = whole_tree(outside)
    said = here("cp", src, sshd.address(dst), code=1)
    assert said.count("it lies behind a symbolic link") >= 3
    said = here("sync", "--delete-dst", "--yes", src, sshd.address(dst), code=1)
    assert whole_tree(outside) == before
    assert (dst / "good").read_bytes() == b"1"


@pytest.mark.parametrize("server", [None, "sshd"], ids=["local", "sftp"])
@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_staging_directory_that_is_a_link_is_refused(
    here: Here,
    tmp_path: Path,
    outside: Path,
    kind: str,
    server: str | None,
    request: pytest.FixtureRequest,
) -> None:
    src, dst = put(tmp_path / "src", {"f": b"1"}), put(tmp_path / "dst", {})
    address = str(dst)
    if server:
        sshd: Sshd = request.getfixturevalue(server)
        sshd.trust(Path(os.environ["HOME"]))
        address = sshd.address(dst)
    job = Job("cp", parse(f"{src}/"), parse(f"{address}/"))
    staging = dst / job.staging
    if kind == "link":
        staging.symlink_to(outside)
    else:
        staging.touch()
    before = whole_tree(outside)
    said = here("cp", f"{src}/", f"{address}/", code=3)
    assert "cannot write to" in said
    assert said.count("\n") == 1
    assert whole_tree(outside) == before
    assert os.listdir(dst) == [job.staging]


@contextlib.contextmanager
def flipping(place: Path, outside: Path) -> Iterator[None]:
    """``place``, a directory, is a link to ``outside`` half of the time, in quick succession."""
    hidden = place.with_name(f"{place.name}.hidden")
    code = f"""
import os
place, hidden, outside = {os.fspath(place)!r}, {os.fspath(hidden)!r}, {os.fspath(outside)!r}
print(flush=True)
while True:
    try:
        os.rename(place, hidden)
        os.symlink(outside, place)
        os.unlink(place)
        os.rename(hidden, place)
    except OSError:  # the run has made a directory there, or removed it
        try:
            os.unlink(place)
        except OSError:
            try:
                os.rename(place, f"{{place}}.{{os.urandom(4).hex()}}")
            except OSError:
                os.makedirs(hidden, exist_ok=True)
                try:
                    os.rename(hidden, place)
                except OSError:
                    pass
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    try:
        yield
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("what", ["a directory", "the staging directory"])
def test_a_link_that_is_swapped_in_while_a_run_writes(
    here: Here, tmp_path: Path, outside: Path, what: str
) -> None:
    src = tmp_path / "src"
    make_tree(src, 300, 100)
    (src / "d0" / "large").write_bytes(b"")
    os.truncate(src / "d0" / "large", 70 << 20)
    dst = put(tmp_path / "dst", {"d0/": b""})
    job = Job("cp", parse(f"{src}/"), parse(f"{dst}/"))
    place = dst / ("d0" if what == "a directory" else job.staging)
    if what == "the staging directory":
        place.mkdir()
    before = whole_tree(outside)
    with flipping(place, outside):
        for _ in range(3):
            with contextlib.suppress(AssertionError):  # whatever its exit code is
                here("cp", f"{src}/", f"{dst}/")
    assert whole_tree(outside) == before


def test_hard_links_at_the_destination_are_not_written_in_place(
    here: Here, tmp_path: Path, outside: Path
) -> None:
    src = put(tmp_path / "src", {"f": b"new"})
    dst = put(tmp_path / "dst", {})
    (dst / "f").hardlink_to(outside / "passwd")
    here("cp", src, dst)
    assert (dst / "f").read_bytes() == b"new"
    assert (outside / "passwd").read_bytes() == b"precious"


def test_devices_and_pipes_of_the_source_are_named_and_not_opened(
    here: Here, tmp_path: Path, moto: Moto
) -> None:
    src = put(tmp_path / "src", {"f": b"1"})
    os.mkfifo(src / "pipe")
    with contextlib.suppress(PermissionError):
        os.mknod(src / "zero", 0o20666, os.makedev(1, 5))
    (src / "endless").symlink_to("/dev/zero")
    for dst in (str(tmp_path / "dst"), Bucket(moto, moto.make_bucket("devices")).url):
        said = here("cp", src, dst, code=1)
        for name in ("pipe", "endless"):
            assert f"{name}  not a regular file" in said
    assert tree_of(tmp_path / "dst") == {"f": b"1"}


def test_devices_and_pipes_at_the_destination_are_not_written_to(
    here: Here, tmp_path: Path
) -> None:
    src, dst = put(tmp_path / "src", {"pipe": b"1"}), put(tmp_path / "dst", {})
    os.mkfifo(dst / "pipe")
    said = here("cp", src, dst, code=1)
    assert "neither file nor directory" in said
    assert (dst / "pipe").is_fifo()
