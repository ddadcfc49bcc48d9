"""The page that is asked for ahead: there when it is wanted, and no harm if it is not."""

from __future__ import annotations

import time

import pytest

from adsmig.errors import AdsmigError
from adsmig.model import EVERYTHING, KeyRange
from tests.storage.fakes3 import DROPPED, Answer, FakeS3, error, listing_of

KEYS = [f"k{number:05d}".encode() for number in range(4500)]
LISTS = listing_of(KEYS)


def test_the_page_after_the_next_is_asked_for_before_it_is_wanted() -> None:
    with FakeS3(LISTS) as server:
        listed = server.storage().list(EVERYTHING)
        for _ in range(1000):
            next(listed)
        assert len(server.requests) == 1  # a short range has no more
        next(listed)
        while len(server.requests) < 3:  # or the test's time is up
            time.sleep(0.01)
        tokens = [request.query.get("continuation-token") for request in server.requests]
        assert tokens == [None, KEYS[999].hex(), KEYS[1999].hex()]
        assert [entry.key for entry in listed] == KEYS[1001:]
        assert len(server.requests) == 5


def test_a_listing_that_ends_early_leaves_nothing_to_be_read_by_others() -> None:
    with FakeS3(LISTS) as server:
        storage = server.storage()
        found = [entry.key for entry in storage.list(KeyRange(b"", KEYS[1200]))]
        assert found == KEYS[:1201]
        for _ in range(3):
            assert storage.probe(KEYS[7]) == KEYS[8]


@pytest.mark.parametrize(
    "answer", [DROPPED, error(500, "InternalError"), error(503, "SlowDown")], ids=str
)
def test_a_page_that_was_asked_for_in_vain_is_asked_for_again(answer: Answer) -> None:
    with FakeS3(LISTS, LISTS, answer, LISTS) as server:
        assert [entry.key for entry in server.storage().list(EVERYTHING)] == KEYS
        assert len(server.requests) == 6


def test_a_page_that_is_refused_is_told_of() -> None:
    with FakeS3(LISTS, LISTS, error(403, "InvalidAccessKeyId")) as server:
        listed = server.storage().list(EVERYTHING)
        with pytest.raises(AdsmigError, match="InvalidAccessKeyId"):
            list(listed)
