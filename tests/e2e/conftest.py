"""The program, run as its users run it, and trees to migrate."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

FULL = bool(os.environ.get("ADSMIG_TEST_FULL"))
"""Sizes as large as the promises are; without it, smaller ones that every change can afford."""

Adsmig = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def adsmig() -> Adsmig:
    """``adsmig(*arguments, code=0, **environment)``: its result, with the exit code checked.

    Whatever it does, it must not show a traceback.
    """

    def run(
        *arguments: object, code: int | None = 0, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "adsmig", *map(str, arguments)]
        env = {**os.environ, **environment}
        done = subprocess.run(command, capture_output=True, text=True, timeout=500, env=env)
        said = done.stdout + done.stderr
        assert "Traceback" not in said, said
        assert code is None or done.returncode == code, f"{done.returncode}: {said}"
        return done

    return run


def make_tree(root: Path, count: int, most: int = 64 * 1024, seed: int = 1) -> None:
    """``count`` files of 0 to ``most`` bytes in nested directories, an hour old."""
    chance = random.Random(seed)
    for number in range(count):
        folder = root / f"d{number % 23}" / f"e{number % 7}"
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / f"f{number:06d}.bin", chance.randbytes(chance.randint(0, most)))


def write(path: Path, content: bytes, age_s: float = 3600) -> None:
    """Writes a file that was last changed ``age_s`` seconds ago."""
    path.write_bytes(content)
    then = path.stat().st_mtime - age_s
    os.utime(path, (then, then))


def digest(root: Path) -> dict[str, str]:
    """Every file below ``root`` with the SHA-256 of its content; empty directories as ``name/``."""
    found = {}
    for folder, folders, files in os.walk(root):
        for name in files:
            path = Path(folder, name)
            content = hashlib.sha256()
            with path.open("rb") as file:
                while chunk := file.read(1 << 20):
                    content.update(chunk)
            found[str(path.relative_to(root))] = content.hexdigest()
        if not folders and not files:
            found[f"{Path(folder).relative_to(root)}/"] = ""
    return found
