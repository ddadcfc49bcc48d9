"""No room left: one line, exit 3, and the same command goes on once there is."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Adsmig, adsmig, digest

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


def test_a_manifest_without_room_loses_nothing(
    adsmig: Adsmig, small: tuple[Path, Mount], tmp_path: Path
) -> None:
    place, resize = small
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(3000):
        (tree / f"{number:04d}-{'x' * 200}").write_bytes(b"x")
    resize("400k")
    command = ("cp", tree, tmp_path / "copy", "--manifest", place / "m.db")
    said = one_line(adsmig(*command, code=3).stderr)
    assert "no room for the manifest" in said
    resize("20m")
    adsmig(*command)
    assert digest(tmp_path / "copy") == digest(tree)
