"""Where ``A`` and ``a`` are one name: no object takes another's place."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from adsmig.storage.folding import folds
from adsmig.storage.local import LocalStorage
from adsmig.uri import parse
from tests.e2e.conftest import Adsmig, digest, write
from tests.e2e.conftest import adsmig as adsmig
from tests.storage.support import Options, put


@pytest.fixture
def exfat(tmp_path: Path) -> Iterator[Path]:
    """An exFAT of 256 MB."""
    image, top = tmp_path / "image", tmp_path / "exfat"
    with image.open("wb") as file:
        file.truncate(256 << 20)
    top.mkdir()
    tools = [shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
             for name in ("mkfs.exfat", "losetup", "mount.exfat-fuse")]  # fmt: skip
    if not all(tools) or os.geteuid():
        pytest.skip("this needs exfatprogs, exfat-fuse, losetup, and root")
    make, loop, mount = map(str, tools)
    subprocess.run([make, image], check=True, stdout=subprocess.DEVNULL)
    found = subprocess.run([loop, "--find", "--show", image], capture_output=True, text=True)
    if found.returncode:
        pytest.skip(f"this needs a loop device: {found.stderr.strip()}")
    device = found.stdout.strip()
    try:
        done = subprocess.run([mount, device, top], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"this needs leave to mount: {done.stderr.strip()}")
        yield top
        subprocess.run(["umount", top], check=True)
    finally:
        subprocess.run([loop, "--detach", device], check=True)


def tree(root: Path, **contents: str) -> Path:
    for key, content in contents.items():
        path = root / key.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, content.encode())
    return root


def test_a_file_system_is_known_by_what_it_does(exfat: Path, tmp_path: Path) -> None:
    for path, folded in ((exfat, True), (tmp_path, False)):
        before = set(path.iterdir())
        fd = os.open(path, os.O_RDONLY)
        try:
            assert folds(fd) == folded
        finally:
            os.close(fd)
        assert set(path.iterdir()) == before


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_second_of_two_names_that_are_one_there_is_a_failure(
    adsmig: Adsmig, exfat: Path, tmp_path: Path, workers: str
) -> None:
    src = tree(
        tmp_path / "src", ONE="first", one="second", two="x",
        D__a="in D", d__a="in d", d__b="in d", e="y",
    )  # fmt: skip
    dst = exfat / "dst"
    words = "sync", "--noperms", "--delete-src", "--workers", workers, src, dst
    done = adsmig(*words, code=1)
    said = done.stdout + done.stderr
    assert "is there, which is the same to this file system" in said
    left, there = digest(src), digest(dst)
    assert len(left) + len(there) == 7, (left, there)  # each is on one side, and only on one
    for key in ("two", "e"):
        assert key in there
    assert {key.lower() for key in left} <= {"one", "d/a", "d/b"}
    contents = {
        path.read_bytes() for top in (src, dst) for path in top.rglob("*") if path.is_file()
    }
    assert contents == {b"first", b"second", b"x", b"in D", b"in d", b"y"}
    adsmig(*words, code=1)  # and it stays so
    assert (digest(src), digest(dst)) == (left, there)


def test_what_is_there_as_it_is_spelled_is_replaced(
    adsmig: Adsmig, exfat: Path, tmp_path: Path
) -> None:
    src, dst = tree(tmp_path / "src", One="old", d__Two="old"), exfat / "dst"
    adsmig("sync", "--noperms", src, dst)
    tree(src, One="newer", d__Two="newer")
    adsmig("sync", "--noperms", src, dst)
    assert {path.name: path.read_text() for path in dst.rglob("*") if path.is_file()} == {
        "One": "newer", "Two": "newer",
    }  # fmt: skip


def test_a_large_object_does_not_replace_another_either(
    adsmig: Adsmig, exfat: Path, tmp_path: Path
) -> None:
    src, dst = tree(tmp_path / "src", large="x", LARGE="small"), exfat / "dst"
    os.truncate(src / "large", 65 << 20)
    adsmig("cp", "--noperms", src, dst, code=1)
    assert len(list(dst.iterdir())) == 1


def test_what_others_put_in_the_way_keeps_no_run_waiting(adsmig: Adsmig, tmp_path: Path) -> None:
    src, dst = tree(tmp_path / "src", a="x"), tmp_path / "dst"
    events = map(json.loads, adsmig("sync", "--dryrun", "--json", src, dst).stdout.splitlines())
    job = next(event["job"] for event in events if event["event"] == "result")
    staging = dst / f".adsmig-{job}"
    staging.mkdir(parents=True)
    os.mkfifo(staging / "tick")
    adsmig("sync", src, dst)
    assert digest(dst) == digest(src)


def test_names_are_looked_up_once_a_directory(exfat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[object] = []
    monkeypatch.setattr(
        "adsmig.storage.folding.os.listdir",
        lambda path, listdir=os.listdir: listed.append(path) or listdir(path),
    )
    destination = LocalStorage(parse(f"{exfat}/"), Options(), True)
    destination.prepare()
    for number in range(20):
        put(destination, b"d%d/a" % (number % 4), b"x")
        put(destination, b"d%d/b%d" % (number % 4, number), b"x")
    # The first "a" of each needs none; another "a" takes its place, which is looked up.
    assert len(listed) <= 20
