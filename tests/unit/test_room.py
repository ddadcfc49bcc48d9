"""Waiting for room: told once, tried again, and given up in time."""

from __future__ import annotations

import pytest

from adsmig import room
from adsmig.errors import Interrupted, StorageFull
from adsmig.room import Pause, impatient, patiently

FULL = StorageFull("no room; free some room")


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "AGAIN_S", 0.0)


class Disk:
    """Full for the first ``tries``."""

    def __init__(self, tries: int) -> None:
        self.left = tries

    def write(self) -> str:
        if self.left:
            self.left -= 1
            raise FULL
        return "written"


def test_what_finds_no_room_is_tried_again_and_told_once() -> None:
    told = list[str]()
    pause = Pause(lambda name, line: told.append(name), "resume it")
    for _ in range(2):
        assert patiently(Disk(3).write, pause) == "written"
    assert told == ["paused", "going on"] * 2
    assert patiently(Disk(0).write, pause) == "written"
    assert len(told) == 4


def test_the_impatient_do_not_wait() -> None:
    with pytest.raises(StorageFull):
        patiently(Disk(1).write, impatient)


def test_who_stops_is_told_how_to_go_on() -> None:
    pause = Pause(lambda name, line: None, "resume it")
    pause.stopping = lambda: True
    with pytest.raises(Interrupted, match="go on with: resume it") as caught:
        patiently(Disk(9).write, pause)
    assert caught.value.exit_code == 130


def test_where_nobody_watches_the_waiting_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "LIMIT_S", -1.0)
    with pytest.raises(StorageFull, match="go on with: resume it") as caught:
        patiently(Disk(9).write, Pause(lambda name, line: None, "resume it"))
    assert caught.value.exit_code == 3
