"""No room left: one line, exit 3, and the same command goes on once there is."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Adsmig, adsmig, digest
from tests.faults.test_kill import start

__all__ = ["adsmig"]

Mount = Callable[[str], None]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[tuple[Path, Mount]]:
    """A file system of its own, and a function that sets its size."""
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root and CAP_SYS_ADMIN")
    try:
        yield (
            place,
            lambda size: (
                subprocess.run(["mount", "-o", f"remount,size={size}", str(place)], check=True)
                and None
            ),
        )
    finally:
        subprocess.run(["umount", str(place)], check=True)


def one_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.startswith("adsmig: ")]
    assert len(lines) == 1, text
    return lines[0]


@pytest.mark.parametrize("sizes", [[50_000] * 800, [90 << 20]], ids=["small", "large"])
def test_a_full_destination_can_be_resumed(
    adsmig: Adsmig, small: tuple[Path, Mount], tmp_path: Path, sizes: list[int]
) -> None:
    place, resize = small
    tree = tmp_path / "tree"
    tree.mkdir()
    for number, size in enumerate(sizes):
        (tree / f"f{number:04d}").write_bytes(os.urandom(size))
    command = ("cp", tree, place / "copy", "--manifest", tmp_path / "m.db")
    said = one_line(adsmig(*command, code=3).stderr)
    assert "No space left on device" in said
    assert "resume" in said
    resize("200m")
    adsmig("resume", "--manifest", tmp_path / "m.db")
    assert digest(place / "copy") == digest(tree)


def until(condition: Callable[[], object], process: subprocess.Popen[bytes]) -> None:
    """Waits until something is so, while the process runs."""
    for _ in range(2400):
        if condition():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError("it did not come to that")


def tree_of_long_names(tree: Path) -> Path:
    tree.mkdir()
    for number in range(3000):
        (tree / f"{number:04d}-{'x' * 200}").write_bytes(b"x")
    return tree


@pytest.mark.parametrize("full", ["from the beginning", "after a while"])
def test_a_manifest_without_room_waits_and_loses_nothing(
    small: tuple[Path, Mount], tmp_path: Path, full: str
) -> None:
    place, resize = small
    tree, said = tree_of_long_names(tmp_path / "tree"), tmp_path / "said"
    resize("400k")
    if full == "from the beginning":
        (place / "filler").write_bytes(bytes(396 << 10))
    command = ("cp", tree, tmp_path / "copy", "--manifest", place / "m.db", "--json")
    with said.open("wb") as file:
        process = start(*command, stderr=file)
        until(lambda: "no room for" in said.read_text(), process)
        resize("20m")
        out, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    assert digest(tmp_path / "copy") == digest(tree)
    lines = [line for line in said.read_text().splitlines() if line.startswith("adsmig: ")]
    assert "waiting for it, nothing is lost" in lines[0]
    assert "there is room again" in lines[-1]
    events = [json.loads(line)["event"] for line in out.splitlines()]
    assert events.count("paused") == events.count("going on") == len(lines) / 2
    database = sqlite3.connect(place / "m.db")
    assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    query = "SELECT state, copied, (SELECT count(*) FROM objects) FROM runs"
    assert database.execute(query).fetchall() == [("finished", 3000, 3000)]
    database.close()
    assert not list(place.glob("*.room"))


def test_ctrl_c_ends_the_waiting_and_tells_how_to_go_on(
    adsmig: Adsmig, small: tuple[Path, Mount], tmp_path: Path
) -> None:
    place, resize = small
    tree, said = tree_of_long_names(tmp_path / "tree"), tmp_path / "said"
    resize("400k")
    manifest = place / "m.db"
    with said.open("wb") as file:
        process = start("cp", tree, tmp_path / "copy", "--manifest", manifest, stderr=file)
        until(lambda: "no room for" in said.read_text(), process)
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
    last = said.read_text().splitlines()[-1]
    assert last.startswith("adsmig: interrupted; no room for the manifest")
    assert last.endswith(f"adsmig resume --manifest {manifest}")
    resize("20m")
    assert "3,000 found" in adsmig("resume", "--manifest", manifest).stdout
    assert digest(tmp_path / "copy") == digest(tree)


def test_a_manifest_on_a_read_only_disk_is_one_line(
    adsmig: Adsmig, small: tuple[Path, Mount], tmp_path: Path
) -> None:
    place, _ = small
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "f").write_bytes(b"x")
    adsmig("cp", tree, tmp_path / "copy", "--manifest", place / "m.db")
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    for name in ("m.db", "new.db"):
        for rebuild in ([], ["--rebuild-manifest"]):
            command = ("cp", tree, tmp_path / "copy", "--manifest", place / name, *rebuild)
            said = one_line(adsmig(*command, code=3).stderr)
            assert f"{place / name}" in said
            assert "Read-only file system" in said or "needed to read it" in said
