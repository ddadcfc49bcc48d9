"""Small objects copied by one thread, several at a time, between stores that misbehave."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from adsmig import retry
from adsmig.errors import AdsmigError, TransientError
from adsmig.limits import Limits
from adsmig.location import Location
from adsmig.model import Action, Entry, Outcome, What
from adsmig.small import DEPTH, MOST_BYTES, Copies, is_small, may_overlap
from adsmig.storage.local import LocalStorage
from adsmig.storage.memory import MemoryStorage
from tests.storage.fakes3 import DROPPED, Answer, FakeS3, Reply, Request, error, stored
from tests.storage.support import Options

BUSY = error(503, "SlowDown")
CONTENT = {b"%04d" % number: b"content of %d" % number for number in range(2 * DEPTH)}
Fake = Callable[[dict[bytes, bytes]], "Store"]


class Store:
    """Keeps objects; answers the first requests about a key as ``instead`` says."""

    def __init__(self, held: dict[bytes, bytes]) -> None:
        self.held = held
        self.instead: dict[bytes, list[Answer]] = {}
        self.copied: list[str] = []
        self._lock = threading.Lock()
        self.fake = FakeS3(self._answer)

    def _answer(self, request: Request) -> Reply:
        with self._lock:
            first = self.instead.get(request.key)
            reply = first.pop(0) if first else None
        if reply is not None:
            return reply if isinstance(reply, Reply) else reply(request)
        if source := request.headers.get("x-amz-copy-source"):
            self.copied.append(source)
            self.held[request.key] = self.held[source.encode().removeprefix(b"/bkt/")]
            etag = hashlib.md5(self.held[request.key]).hexdigest()
            return Reply(body=f"<CopyObjectResult><ETag>{etag}</ETag></CopyObjectResult>".encode())
        if request.method == "PUT":
            self.held[request.key] = request.body
            return stored(request)
        if request.key not in self.held:
            return error(404, "NoSuchKey")
        content = self.held[request.key]
        return Reply(body=content, headers={"ETag": f'"{hashlib.md5(content).hexdigest()}"'})


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    """Makes a Store that answers until the end of the test; nobody waits before a second try."""
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(retry, "LONGEST_PAUSE_S", 0.001)
    with ExitStack() as stack:

        def make(held: dict[bytes, bytes]) -> Store:
            one = Store(held)
            stack.enter_context(one.fake)
            return one

        yield make


def action(key: bytes, content: bytes) -> Action:
    return Action(What.COPY, Entry(key, len(content), None, 0, hashlib.md5(content).hexdigest()))


def copy_all(copies: Copies, depth: int = DEPTH) -> dict[bytes, Outcome]:
    """What became of each of CONTENT."""
    outcomes = {}
    waiting = [action(*item) for item in CONTENT.items()]
    while waiting or copies:
        if waiting and len(copies) < depth:
            one = waiting.pop(0)
            copies.begin(one, b"to/" + one.src.key)
        else:
            done, outcome = copies.finish()
            assert done.src.key == outcome.key
            assert outcome.key not in outcomes
            outcomes[outcome.key] = outcome
    return outcomes


def arrived(held: dict[bytes, bytes]) -> dict[bytes, bytes]:
    return {key[3:]: content for key, content in held.items() if key.startswith(b"to/")}


def test_all_arrive_as_what_they_are(store: Fake, tmp_path: Path) -> None:
    """Up, down, from one store to another."""
    one, other = store(dict(CONTENT)), store({})
    between = Copies(one.fake.storage(), other.fake.storage(destination=True), None)
    outcomes = copy_all(between)
    assert outcomes.keys() == CONTENT.keys()
    assert not any(outcome.error for outcome in outcomes.values())
    assert all((outcome.checksum or "").startswith("xxh3:") for outcome in outcomes.values())
    assert arrived(other.held) == CONTENT
    files = LocalStorage(Location("file", bytes(tmp_path / "x")), Options(), True)
    files.prepare()
    copy_all(Copies(other.fake.storage(b"to/"), files, None))
    assert {bytes(at.name, "ascii"): at.read_bytes() for at in (tmp_path / "x/to").iterdir()} == (
        CONTENT
    )


def test_a_service_copies_its_own_objects(store: Fake) -> None:
    one = store(dict(CONTENT))
    src, dst = one.fake.storage(), one.fake.storage(destination=True)
    outcomes = copy_all(Copies(src, dst, None))
    assert not any(outcome.error for outcome in outcomes.values())
    assert arrived(one.held) == CONTENT
    assert len(one.copied) == len(CONTENT)


def test_one_thread_has_as_many_in_a_stores_hands_as_it_began(store: Fake) -> None:
    """The store answers nobody before all of them have asked."""
    one, other = store(dict(CONTENT)), store({})
    together = threading.Barrier(DEPTH, timeout=60)

    def wait(request: Request) -> Reply:
        together.wait()
        content = CONTENT[request.key]
        return Reply(body=content, headers={"ETag": f'"{hashlib.md5(content).hexdigest()}"'})

    one.instead = {key: [wait] for key in CONTENT}
    outcomes = copy_all(Copies(one.fake.storage(), other.fake.storage(destination=True), None))
    assert not any(outcome.error for outcome in outcomes.values())
    assert arrived(other.held) == CONTENT


def test_nobody_is_waited_for_longer_than_was_said(store: Fake) -> None:
    one, other = store(dict(CONTENT)), store({})
    asked = threading.Event()

    def wait(request: Request) -> Reply:
        assert asked.wait(60)
        other.held[request.key] = request.body
        return stored(request)

    other.instead = {b"to/0001": [wait]}
    copies = Copies(one.fake.storage(), other.fake.storage(destination=True), None)
    for number in (1, 2):
        key = b"%04d" % number
        copies.begin(action(key, CONTENT[key]), b"to/" + key)
    assert copies.ready(60)
    assert copies.finish()[0].src.key == b"0002"
    assert not copies.ready(0.05)
    assert not copies.ready(0)
    assert len(copies) == 1
    asked.set()
    assert copies.finish()[0].src.key == b"0001"
    assert arrived(other.held).keys() == {b"0001", b"0002"}


def test_nor_is_a_pause_before_another_try(store: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 600)
    monkeypatch.setattr(retry, "LONGEST_PAUSE_S", 600)
    one, other = store(dict(CONTENT)), store({})
    other.instead = {b"to/0001": [BUSY]}
    copies = Copies(one.fake.storage(), other.fake.storage(destination=True), None)
    copies.begin(action(b"0001", CONTENT[b"0001"]), b"to/0001")
    assert not copies.ready(0.2)
    copies.begin(action(b"0002", CONTENT[b"0002"]), b"to/0002")
    assert copies.ready(60)
    assert copies.finish()[0].src.key == b"0002"
    assert not copies.ready(0.05)
    assert len(copies) == 1
    copies.drop()


@pytest.mark.parametrize("reply", [DROPPED, BUSY, error(500, "InternalError")])
@pytest.mark.parametrize("side", ["read", "written"])
def test_what_fails_at_first_is_copied_all_the_same(store: Fake, reply: Reply, side: str) -> None:
    one, other = store(dict(CONTENT)), store({})
    asked = one if side == "read" else other
    bad = [key for number, key in enumerate(CONTENT) if number % 3 == 1]
    asked.instead = {key if asked is one else b"to/" + key: [reply] for key in bad}
    before = retry.slowdowns()
    outcomes = copy_all(Copies(one.fake.storage(), other.fake.storage(destination=True), None))
    assert not any(outcome.error for outcome in outcomes.values())
    assert arrived(other.held) == CONTENT
    # Whoever asked for fewer requests is heard.
    assert retry.slowdowns() - before == (len(bad) if reply is BUSY else 0)


def test_nobody_waits_for_who_is_to_be_tried_again(
    store: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again in time, and is the last that is done."""
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.5)
    one, other = store(dict(CONTENT)), store({})
    key = next(iter(CONTENT))
    one.instead = {key: [error(500, "InternalError")]}
    outcomes = copy_all(Copies(one.fake.storage(), other.fake.storage(destination=True), None))
    assert list(outcomes)[-1] == key
    assert not any(outcome.error for outcome in outcomes.values())
    assert arrived(other.held) == CONTENT


def test_nobody_is_waited_for_once_the_run_stops(
    store: Fake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Who is to be tried again is not, and is no failure."""
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 1000)
    one, other = store(dict(CONTENT)), store({})
    one.instead = {key: [error(500, "InternalError")] for key in list(CONTENT)[:3]}
    limits = Limits.create(str(tmp_path / "shared"))
    copies = Copies(one.fake.storage(), other.fake.storage(destination=True), limits)
    try:
        for item in list(CONTENT.items())[:6]:
            copies.begin(action(*item), b"to/" + item[0])
        good = {copies.finish()[1].key for _ in range(3)}
        assert good == set(list(CONTENT)[3:6])
        threading.Timer(0.2, limits.stop).start()
        with pytest.raises(TransientError):
            copies.finish()
        copies.drop()
        assert not len(copies)
    finally:
        limits.remove()


def test_what_always_fails_is_tried_as_often_as_anywhere(store: Fake) -> None:
    one, other = store(dict(CONTENT)), store({})
    key = next(iter(CONTENT))
    one.instead = {key: [error(500, "InternalError")] * 100}
    outcomes = copy_all(Copies(one.fake.storage(), other.fake.storage(destination=True), None))
    assert [name for name, outcome in outcomes.items() if outcome.error] == [key]
    assert 100 - len(one.instead[key]) == retry.TRIES


def test_a_changed_or_removed_object_is_treated_as_anywhere(store: Fake) -> None:
    one, other = store(dict(CONTENT)), store({})
    changed, gone, *_ = CONTENT
    one.held[changed] = b"something else"
    del one.held[gone]
    outcomes = copy_all(Copies(one.fake.storage(), other.fake.storage(destination=True), None))
    assert outcomes[gone].kind == "vanished"
    assert outcomes[changed].size == len(b"something else")
    assert arrived(other.held) == {key: one.held[key] for key in CONTENT if key != gone}


def test_bytes_damaged_on_the_way_are_not_kept(store: Fake) -> None:
    one, other = store(dict(CONTENT)), store({})
    key = next(iter(CONTENT))
    good = hashlib.md5(CONTENT[key]).hexdigest()
    one.instead = {key: [Reply(body=CONTENT[key][::-1], headers={"ETag": f'"{good}"'})]}
    other.instead = {b"to/" + key: [Reply(headers={"ETag": '"' + "0" * 32 + '"'})]}
    outcomes = copy_all(Copies(one.fake.storage(), other.fake.storage(destination=True), None))
    assert not any(outcome.error for outcome in outcomes.values())
    assert arrived(other.held) == CONTENT
    assert one.instead[key] == other.instead[b"to/" + key] == []


def test_what_is_not_an_objects_fault_is_raised_and_the_others_let_go(store: Fake) -> None:
    one, other = store(dict(CONTENT)), store({})
    refused = list(CONTENT)[DEPTH // 2]
    other.instead = {b"to/" + refused: [error(403, "InvalidAccessKeyId")] * 9}
    copies = Copies(one.fake.storage(), other.fake.storage(destination=True), None)
    with pytest.raises(AdsmigError, match="check the address, the keys"):
        copy_all(copies)
    assert len(copies)
    copies.drop()
    assert not len(copies)


def test_only_what_is_small_and_plain_may_overlap() -> None:
    def entry(**fields: Any) -> Entry:
        return Entry(b"k", 1, 0, 0)._replace(**fields)

    assert is_small(Action(What.COPY, entry()))
    assert is_small(Action(What.COPY, entry(size=MOST_BYTES)))
    assert not is_small(Action(What.COPY, entry(size=MOST_BYTES + 1)))
    assert not is_small(Action(What.CHECK, entry()))
    assert not is_small(Action(What.COPY, entry(key=b"d/")))
    assert not is_small(Action(What.COPY, entry(link=b"elsewhere")))
    # It may have to be asked for the size of its parts.
    assert not is_small(Action(What.COPY, entry(etag="0" * 32 + "-2")))


def test_it_takes_a_store_to_wait_for(store: Fake, tmp_path: Path) -> None:
    files = LocalStorage(Location("file", bytes(tmp_path)), Options())
    bucket = store({}).fake.storage()
    assert may_overlap(files, bucket)
    assert may_overlap(bucket, files)
    assert not may_overlap(files, files)
    assert not may_overlap(MemoryStorage(Location("mem", b"")), files)
