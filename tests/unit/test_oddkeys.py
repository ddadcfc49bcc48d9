"""Which keys a store is asked about, and what is made of its answers."""

from __future__ import annotations

import posixpath
import re

import pytest

from adsmig.errors import TransientError
from adsmig.storage.oddkeys import OddKeys

OWN = b"p/.adsmig-0123456789"
PLAIN = [
    b"a",
    b"a/b",
    b"a/b/",
    b"a.b/..c/d..",
    b"...",
    b"a%2Fb",
    b"a+b c",
    "💥".encode(),
    b"\x00\n",
]
ODD = {
    b"a//b": "an empty name between slashes",
    b"a//": "an empty name between slashes",
    b"/a": "a leading slash",
    b".": "a name of dots",
    b"..": "a name of dots",
    b"./a": "a name of dots",
    b"a/./b": "a name of dots",
    b"a/../b": "a name of dots",
    b"a/..": "a name of dots",
    b"a\\b": "a backslash",
}


class Store:
    """Keeps keys as they are, but for those that match ``renames``; counts the trials."""

    def __init__(self, renames: bytes | None = None) -> None:
        self.renames = renames
        self.tried: list[bytes] = []
        self.plain: list[bytes] = []

    def holds(self, key: bytes, plain: bytes) -> bool:
        self.tried.append(key)
        self.plain.append(plain)
        return self.renames is None or not re.search(self.renames, key)


@pytest.mark.parametrize("key", PLAIN)
def test_a_plain_key_is_no_reason_to_ask(key: bytes) -> None:
    store = Store(b".")
    assert OddKeys(store.holds, OWN).problem(key) == ""
    assert store.tried == []


@pytest.mark.parametrize(("key", "name"), ODD.items())
def test_an_odd_key_is_tried_with_an_object_of_our_own(key: bytes, name: str) -> None:
    faithful, renaming = Store(), Store(b".")
    assert OddKeys(faithful.holds, OWN).problem(key) == ""
    assert OddKeys(renaming.holds, OWN).problem(key) == (
        f"this store would keep a key with {name} under another name"
    )
    for tried, plain in zip(faithful.tried, faithful.plain, strict=True):
        assert OWN in tried
        assert tried != key
        assert plain == posixpath.normpath(tried.replace(b"\\", b"/")).lstrip(b"/")
    assert renaming.tried == faithful.tried


@pytest.mark.parametrize("renames", [None, b"."])
def test_a_store_is_asked_once_for_each_kind(renames: bytes | None) -> None:
    store = Store(renames)
    odd = OddKeys(store.holds, OWN)
    answers = [odd.problem(key) for key in ODD]
    assert len(store.tried) == len(set(ODD.values()))
    assert [odd.problem(key) for key in ODD] == answers
    assert len(store.tried) == len(set(ODD.values()))


def test_the_trials_are_odd_in_the_way_that_they_stand_for() -> None:
    for key, name in ODD.items():
        store = Store()
        OddKeys(store.holds, OWN).problem(key)
        for tried in store.tried:
            assert any(
                again in tried
                for again in {
                    "an empty name between slashes": [b"//"],
                    "a leading slash": [b"/p/"],
                    "a name of dots": [b"/./"],
                    "a backslash": [b"\\"],
                }[name]
            )


def test_a_key_odd_in_two_ways_needs_both_to_be_kept() -> None:
    assert "backslash" in OddKeys(Store(rb"\\").holds, OWN).problem(b"a//b\\c")
    assert "empty name" in OddKeys(Store(rb"//").holds, OWN).problem(b"a//b\\c")
    assert OddKeys(Store().holds, OWN).problem(b"a//b\\c") == ""


def test_a_trial_that_failed_tells_nothing_and_is_made_again() -> None:
    answers = iter([TransientError("lost"), True])

    def holds(key: bytes, plain: bytes) -> bool:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    odd = OddKeys(holds, OWN)
    with pytest.raises(TransientError):
        odd.problem(b"a//b")
    assert odd.problem(b"a//b") == ""
