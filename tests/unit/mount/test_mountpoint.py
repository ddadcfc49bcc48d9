"""Where something can be mounted, and what is mounted where."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from adsmig.errors import UsageError
from adsmig.mount.mountpoint import check_outside, is_mounted, place_of

HEAD, TAIL = b"30 27 0:30 / ", b" rw,relatime - fuse.adsmig adsmig rw\n"


def test_mount_points_of_any_name_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [b"/of/\xff", b"/next\xc2\x85line", b"/a\rb", b"/a b", b"/\\040", b"/plain#"]
    shown = [b"/of/\xff", b"/next\xc2\x85line", b"/a\rb", b"/a\\040b", b"/\\134040", b"/plain\\043"]
    table = b"".join(HEAD + one + TAIL for one in shown)
    monkeypatch.setattr(Path, "read_bytes", lambda path: table)
    assert [name for name in names if not is_mounted(os.fsdecode(name))] == []
    assert not is_mounted("/of")


def test_a_link_stands_for_the_mount_point_it_leads_to(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to("second")
    (tmp_path / "second").symlink_to(real)
    assert place_of(str(tmp_path / "link")) == str(real)
    assert place_of(f"{tmp_path}/link/") == str(real)
    assert place_of(str(tmp_path / "link" / "below")) == str(real / "below")
    assert place_of(str(tmp_path / "missing")) == str(tmp_path / "missing")


def test_links_that_lead_nowhere_are_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("other")
    (tmp_path / "other").symlink_to("one")
    with pytest.raises(UsageError, match="too many links"):
        place_of(str(tmp_path / "one"))


def test_a_mount_point_is_not_asked_for_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[str]()
    real = os.lstat

    def seen(path: str, *more: object, **others: int) -> os.stat_result:
        asked.append(os.fspath(path))
        return real(path, **others)

    (tmp_path / "link").symlink_to("mnt")
    (tmp_path / "mnt").mkdir()
    monkeypatch.setattr(os, "lstat", seen)
    assert place_of(str(tmp_path / "link")) == str(tmp_path / "mnt")
    assert str(tmp_path) in asked
    assert str(tmp_path / "mnt") not in asked


@pytest.mark.parametrize("cache", ["mnt", "mnt/a/b", "link", "link/a", "above/mnt/a", "dangling"])
def test_what_a_mount_keeps_cannot_lie_in_it(tmp_path: Path, cache: str) -> None:
    (tmp_path / "mnt").mkdir()
    (tmp_path / "link").symlink_to("mnt")
    (tmp_path / "above").symlink_to(".")
    (tmp_path / "dangling").symlink_to("mnt/a")
    with pytest.raises(UsageError, match="--cache-dir"):
        check_outside(str(tmp_path / "mnt"), "--cache-dir", tmp_path / cache)


@pytest.mark.parametrize("cache", [".", "mnt.cache", "other", "other/a/b", "loop"])
def test_what_a_mount_keeps_can_lie_anywhere_else(tmp_path: Path, cache: str) -> None:
    (tmp_path / "mnt").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    check_outside(str(tmp_path / "mnt"), "--cache-dir", tmp_path / cache)
