"""The page that is asked for ahead: there when it is wanted, and no harm if it is not."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from adsmig.errors import AdsmigError
from adsmig.model import EVERYTHING, KeyRange
from adsmig.storage.s3pages import REQUESTS
from tests.storage.fakes3 import DROPPED, Answer, FakeS3, Reply, Request, error, listing_of

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


# Pages that somebody on the way mixed up


def other(**query: str) -> Answer:
    """The page that is the answer to another request."""

    def answer(request: Request) -> Reply:
        kept = {name: request.query[name] for name in ("prefix", "max-keys")}
        return LISTS(replace(request, query={**kept, **query}))

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        other(**{"continuation-token": KEYS[1002].hex()}),
        other(**{"start-after": KEYS[1002].decode()}),
    ],
    ids=["from a token", "after a key"],
)
def test_a_page_that_begins_too_late_is_told_by_what_it_was_asked(answer: Answer) -> None:
    """In order as it is, it would leave out keys in silence."""
    with FakeS3(answer, answer, LISTS) as server:
        listed = server.storage().list(KeyRange(KEYS[1000], closed=False))
        assert [entry.key for entry in listed] == KEYS[1001:]
    with FakeS3(answer, LISTS) as server:
        assert [entry.key for entry in server.storage().list(EVERYTHING)] == KEYS


def test_in_place_of_a_page_from_a_token_too() -> None:
    with FakeS3(LISTS, LISTS, other(**{"continuation-token": KEYS[2002].hex()}), LISTS) as server:
        assert [entry.key for entry in server.storage().list(EVERYTHING)] == KEYS


def test_a_store_with_words_of_its_own_for_what_it_was_asked_is_believed() -> None:
    def answer(request: Request) -> Reply:
        reply = LISTS(request)
        body = reply.body.replace(b"<StartAfter>", b"<StartAfter>my-")
        return replace(reply, body=body.replace(b"<ContinuationToken>", b"<ContinuationToken>my-"))

    with FakeS3(answer) as server:
        listed = server.storage().list(KeyRange(KEYS[1000], closed=False))
        assert [entry.key for entry in listed] == KEYS[1001:]
        assert len(server.requests) == 4 + REQUESTS - 1
