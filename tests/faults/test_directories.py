"""Directories whose permissions and times cannot be set at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from adsmig import program, retry
from adsmig.errors import TransientError
from adsmig.model import Meta
from adsmig.storage.local import LocalStorage


@pytest.mark.parametrize("times", [1, retry.TRIES])
def test_what_does_not_answer_is_asked_again_and_then_is_one_failure(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    times: int,
) -> None:
    """As an SFTP server whose connection was lost."""
    for name in ("d", "e"):
        (tmp_path / "src" / name).mkdir(parents=True)
        (tmp_path / "src" / name).chmod(0o700)
    set_meta, lost = LocalStorage.set_directory_meta, times

    def flaky(self: LocalStorage, key: bytes, meta: Meta) -> None:
        nonlocal lost
        if key == b"d/" and lost:
            lost -= 1
            raise TransientError("the connection was lost")
        set_meta(self, key, meta)

    monkeypatch.setattr(LocalStorage, "set_directory_meta", flaky)
    monkeypatch.setattr(retry, "wait", lambda seconds, stopping: None)
    words = ["sync", "--workers", "1", str(tmp_path / "src"), str(tmp_path / "dst")]
    failed = times == retry.TRIES
    assert program.run(words) == failed
    said = capsys.readouterr()
    assert ("the connection was lost" in said.out + said.err) == failed
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "dst").iterdir()}
    assert modes["e"] == 0o700
    assert program.run(words) == 0  # later all is well
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "dst").iterdir()}
    assert modes == {"d": 0o700, "e": 0o700}
