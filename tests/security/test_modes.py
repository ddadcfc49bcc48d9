"""What is kept about a job is the user's alone, whatever the umask is, and whatever was there."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.inside import COLLECTED, Here, here, put
from tests.security.hostile import Asked, Hostile, page, whole

__all__ = ["here"]

pytestmark = COLLECTED


@pytest.fixture(params=[0o000, 0o022], ids=oct, autouse=True)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def modes(top: Path) -> dict[str, str]:
    return {str(one.relative_to(top)): oct(stat.S_IMODE(one.stat().st_mode))
            for one in [top, *top.rglob("*")]}  # fmt: skip


def test_state_is_made_for_the_user_alone(here: Here, tmp_path: Path) -> None:
    """While a run works, too: with its log, its lock, its list of keys."""
    state = Path(os.environ["XDG_STATE_HOME"])
    seen: dict[str, str] = {}

    def answer(asked: Asked) -> Iterator[bytes]:
        if not seen and not asked.lists:
            seen.update(modes(state))
        yield whole(page("f") if asked.lists else b"a")

    (tmp_path / "keys").write_text("f\n")
    with Hostile(answer) as server:
        src = f"minio://ak:sk@{server.host}/bucket/"
        here("cp", "--files-from", tmp_path / "keys", src, tmp_path / "dst")
    seen |= modes(state)
    kinds = {name.partition(".db")[2] for name in seen if ".db" in name}
    assert kinds >= {"", "-wal", "-shm", ".lock", ".keys", ".shared"}
    for name, mode in seen.items():
        assert mode == ("0o600" if ".db" in name else "0o700"), name


def test_state_directories_that_others_may_enter_are_closed(here: Here, tmp_path: Path) -> None:
    src = put(tmp_path / "src", {"f": b"1"})
    state = Path(os.environ["XDG_STATE_HOME"]) / "adsmig"
    (state / "jobs").mkdir(parents=True)
    for one in (state, state / "jobs"):
        one.chmod(0o777)
    here("cp", src, tmp_path / "dst")
    assert {modes(state)[name] for name in (".", "jobs")} == {"0o700"}


def test_a_manifest_that_others_may_write_to_is_closed_and_told_of(tmp_path: Path) -> None:
    put(tmp_path / "src", {"f": b"1"})
    manifest = tmp_path / "job.db"
    command = [sys.executable, "-m", "adsmig", "cp", "--manifest", str(manifest)]
    command += [str(tmp_path / "src"), str(tmp_path / "dst")]
    subprocess.run(command, check=True, capture_output=True)
    assert stat.S_IMODE(manifest.stat().st_mode) == 0o600
    manifest.chmod(0o666)
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert f"others could write to the manifest {manifest}" in done.stderr
    assert stat.S_IMODE(manifest.stat().st_mode) == 0o644


def test_the_staging_directory_is_closed_to_others(here: Here, tmp_path: Path) -> None:
    seen: list[str] = []

    def answer(asked: Asked) -> Iterator[bytes]:
        if not asked.lists:
            seen.extend(modes(one)["."] for one in (tmp_path / "dst").glob(".adsmig-*"))
        yield whole(page("f") if asked.lists else b"a")

    with Hostile(answer) as server:
        here("cp", f"minio://ak:sk@{server.host}/bucket/", tmp_path / "dst")
    assert set(seen) == {"0o700"}
