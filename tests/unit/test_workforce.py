"""When more processes than one are had."""

from __future__ import annotations

from dataclasses import replace

import pytest

from adsmig import spare
from adsmig.job import Job
from adsmig.model import Counts
from adsmig.uri import parse
from adsmig.workforce import ALONE, Workforce


@pytest.mark.parametrize(
    ("done", "ahead", "checksum", "room"),
    [
        (Counts(unchanged=1), ALONE - 1, False, False),
        (Counts(unchanged=1), ALONE, False, True),
        (Counts(unchanged=1), 0, False, True),
        (Counts(copied=1), ALONE - 1, False, True),
        (Counts(unchanged=1), ALONE - 1, True, True),
    ],
)
def test_what_is_left_of_a_directory_is_looked_through_alone(
    monkeypatch: pytest.MonkeyPatch, done: Counts, ahead: int, checksum: bool, room: bool
) -> None:
    monkeypatch.setattr(spare.SpareTime, "enough", lambda self: True)
    places = (parse(f"minio://h/{name}/") for name in ("source", "destination"))
    job = Job("sync", *places, compare="checksum" if checksum else "")
    assert Workforce(job).has_room(done, ahead) == room
    assert Workforce(replace(job, workers=2)).has_room(done, ahead)  # it is told
