"""How many threads are at work: all that are of use, and no others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from adsmig import crew as module
from adsmig.crew import ASIDE, FIRST, MOST, WINDOW_S, Crew, Stay, Work
from adsmig.errors import Throttled
from adsmig.retry import retry


def work_off(items: list[int], done: list[int], pause_s: float = 0) -> Work:
    """Takes each of the items once."""
    waiting, lock = iter(items), threading.Lock()

    def work(stay: Stay) -> None:
        while True:
            with lock:
                item = next(waiting, None)
            if item is None:
                return
            time.sleep(pause_s)
            done.append(item)
            if not stay(0):
                return

    return work


@pytest.mark.parametrize("count", [None, 1, 2, 7])
def test_each_piece_is_done_once(count: int | None) -> None:
    crew, done = Crew(count), list[int]()
    for start in (0, 3000, 6000):
        crew.run(work_off(list(range(start, start + 3000)), done))
    assert sorted(done) == list(range(9000))


@pytest.mark.parametrize("count", [None, 1, 7])
def test_each_item_is_given_to_one_thread_and_an_error_is_told_at_the_end(
    count: int | None,
) -> None:
    crew, done = Crew(count), list[int]()
    crew.each(range(1000), done.append)
    assert sorted(done) == list(range(1000))

    def fail_at_third(item: int) -> None:
        if item == 3:
            raise ValueError("the third")
        done.append(item)

    del done[:]
    with pytest.raises(ValueError, match="the third"):
        crew.each(range(100), fail_at_third)
    assert 3 not in done
    crew.each([1000], done.append)
    assert done[-1] == 1000


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_given_number_is_kept_to(count: int) -> None:
    most, now, lock = 0, 0, threading.Lock()
    together = threading.Barrier(count, timeout=30)

    def work(stay: Stay) -> None:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        together.wait()  # passes only if they are all there
        assert stay(0)
        with lock:
            now -= 1

    Crew(count).run(work)
    assert most == count


@pytest.mark.parametrize("count", [None, 1, 4])
def test_what_a_thread_raises_is_raised_once_all_have_left(count: int | None) -> None:
    left = list[int]()

    def work(stay: Stay) -> None:
        try:
            raise ValueError("no good")
        finally:
            left.append(1)

    crew = Crew(count)
    with pytest.raises(ValueError, match="no good"):
        crew.run(work)
    assert len(left) == (count or FIRST)
    done = list[int]()
    crew.run(work_off([1, 2, 3], done))
    assert sorted(done) == [1, 2, 3]


def test_more_come_in_the_middle_where_all_are_waiting() -> None:
    crew, done = Crew(), list[int]()
    crew.run(work_off(list(range(1500)), done, 0.005))
    assert len(done) == 1500
    assert crew.level > FIRST


@pytest.mark.parametrize("count", [None, 3])
def test_who_is_late_is_not_waited_for_once_the_run_stops(
    monkeypatch: pytest.MonkeyPatch, count: int | None
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.1)
    monkeypatch.setattr(module, "TICK_S", 0.01)
    answer, stalled, waiting = threading.Event(), threading.Event(), iter(range(100))
    lock, done = threading.Lock(), list[int]()

    def work(stay: Stay) -> None:
        while True:
            with lock:
                item = next(waiting, None)
            if item is None:
                return
            if item == 50:
                stalled.set()
                answer.wait()
            done.append(item)
            if not stay(0):
                return

    crew = Crew(count)
    try:
        assert not crew.run(work, stalled.is_set)
        assert 50 not in done
    finally:
        answer.set()
    assert crew.run(work, stalled.is_set)
    assert sorted(done) == list(range(100))


def test_all_begin_only_once_the_first_have_found_something_to_do() -> None:
    begun: set[int] = set()
    crew = Crew(first=16)

    def nothing(stay: Stay) -> None:
        begun.add(threading.get_ident())

    crew.run(nothing)
    assert len(begun) <= FIRST
    waiting, lock, all_there = iter(range(400)), threading.Lock(), threading.Event()
    begun.clear()

    def much(stay: Stay) -> None:
        begun.add(threading.get_ident())
        while True:
            with lock:
                if next(waiting, None) is None:
                    return
            if len(begun) >= 16:
                all_there.set()
            elif len(begun) > 8:
                all_there.wait(10)
            if not stay(0):
                return

    crew.run(much)
    assert all_there.is_set()


def test_while_one_works_on_something_large_another_takes_its_place() -> None:
    crew = Crew(first=1)
    items, lock = iter(range(ASIDE + 2)), threading.Lock()
    together = threading.Barrier(ASIDE + 1, timeout=30)
    now = most = 0

    def work(stay: Stay) -> None:
        nonlocal now, most
        while True:
            with lock:
                item = next(items, None)
            if item is None:
                return
            with crew.aside():
                with lock:
                    now += 1
                    most = max(most, now)
                if item <= ASIDE:
                    together.wait()  # passes only if they are all there
                with lock:
                    now -= 1
            if not stay(0):
                return

    crew.run(work)
    assert most == ASIDE + 1
    assert next(items, None) is None


@pytest.mark.parametrize("crew", [Crew(2), Crew(first=2, dear=True)], ids=["given", "dear"])
def test_nobody_takes_a_place_where_their_number_is_given_or_each_is_dear(crew: Crew) -> None:
    now, most = 0, 0
    items, lock = iter(range(20)), threading.Lock()

    def work(stay: Stay) -> None:
        nonlocal now, most
        while True:
            with lock:
                if next(items, None) is None:
                    return
            with crew.aside():
                with lock:
                    now += 1
                    most = max(most, now)
                time.sleep(0.005)
                with lock:
                    now -= 1
            assert stay(0)

    crew.run(work)
    assert most == 2


def test_there_are_never_more_than_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    crew = Simulated(monkeypatch, first=MOST)
    with crew.aside(), crew.aside():
        assert crew._wanted == MOST


def test_nobody_takes_a_place_while_a_store_asks_for_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adsmig.retry.wait", lambda *_: None)
    crew = Simulated(monkeypatch, first=1, each=16)
    with pytest.raises(Throttled):
        retry(refused, "a test", tries=2)
    crew.go_on(crowded, 1.05 * WINDOW_S)
    assert crew.depth == 8
    with crew.aside():
        assert crew._wanted == 1
    crew.go_on(crowded, 30)
    with crew.aside():
        assert crew._wanted == crew.level + 1


@pytest.mark.parametrize("count", [None, 3])
def test_who_has_left_comes_back_if_there_is_more(
    monkeypatch: pytest.MonkeyPatch, count: int | None
) -> None:
    """One waits for what only others do, who have left."""
    monkeypatch.setattr(module, "TICK_S", 0.01)
    crew = Crew(count, first=2)
    others, lock, more, begun = threading.Event(), threading.Lock(), threading.Event(), [0]

    def work(stay: Stay) -> None:
        with lock:
            begun[0] += 1
            first = begun[0] == 1
        if first:
            assert others.wait(60)
        elif more.is_set():
            others.set()

    def resume() -> bool:
        again, _ = not more.is_set(), more.set()
        return again

    assert crew.run(work, resume=resume)
    assert others.is_set()


class Simulated(Crew):
    """With a clock of its own, and no threads: ``pieces_per_s`` tells what a level gets done."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        idle: float | None = None,
        first: int = FIRST,
        each: int = 1,
    ) -> None:
        """``idle``: the share of the processors' time that is left, where threads are dear."""
        super().__init__(first=first, dear=idle is not None, each=each)
        if self._idleness and idle is not None:
            monkeypatch.setattr(self._idleness, "share", lambda: idle)
        self.now = 0.0
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))

    def _enlist(self) -> None:
        self._active = self.level

    def go_on(self, pieces_per_s: Callable[[int], float], seconds: float) -> list[int]:
        """The levels there were, one a second."""
        levels, until, second = list[int](), self.now + seconds, self.now + 1
        self._active = self.level
        while self.now < until:
            self.now += 1 / pieces_per_s(self.level)
            self._count(0, 1)
            self._active = self.level
            if self.now >= second:
                levels.append(self.level)
                second += 1
        return levels


def distance(level: int) -> float:
    """Each waits 20 ms for each piece, whoever else does."""
    return level / 0.02


def narrow(level: int) -> float:
    """Four get through at once."""
    return min(level, 4) / 0.005


def crowded(level: int) -> float:
    """More than two are in one another's way."""
    return 400 / (1 + max(level - 2, 0) / 4)


def test_over_a_distance_there_are_soon_as_many_as_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    levels = Simulated(monkeypatch).go_on(distance, 60)
    assert levels[2] == MOST
    assert min(levels[2:]) >= MOST // 2


def test_where_more_are_of_no_use_there_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    levels = Simulated(monkeypatch).go_on(narrow, 60)
    assert 3 <= sum(levels) / len(levels) <= 6
    levels = Simulated(monkeypatch).go_on(crowded, 60)
    assert max(levels) <= 4
    assert sum(levels) / len(levels) < 3


def test_what_changes_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    crew = Simulated(monkeypatch)
    crew.go_on(narrow, 30)
    assert crew.go_on(distance, 120)[-1] > MOST // 2


def refused() -> None:
    raise Throttled("SlowDown")


def test_a_store_that_asks_for_less_gets_less(monkeypatch: pytest.MonkeyPatch) -> None:
    crew = Simulated(monkeypatch)
    crew.go_on(distance, 5)
    before = crew.level
    with pytest.raises(Throttled):
        retry(refused, "a test", tries=2, stopping=lambda: True)
    assert crew.level == before  # it was the last try: nobody went on to ask
    monkeypatch.setattr("adsmig.retry.wait", lambda *_: None)
    with pytest.raises(Throttled):
        retry(refused, "a test", tries=2)
    crew.go_on(distance, 0.2)
    assert crew.level == before // 2
    crew.go_on(distance, 120)
    assert crew.level == before


def test_the_last_thread_asks_for_less_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one thread has many requests in a store's hands."""
    monkeypatch.setattr("adsmig.retry.wait", lambda *_: None)
    crew = Simulated(monkeypatch, first=1, each=16)
    assert crew.depth == 16
    for depth in (8, 4, 2, 1, 1):
        with pytest.raises(Throttled):
            retry(refused, "a test", tries=2)
        crew.go_on(crowded, 1.05 * WINDOW_S)
        assert (crew.level, crew.depth) == (1, depth)
    crew.go_on(crowded, 30)
    assert crew.depth == 16


def test_many_threads_ask_for_no_more_than_a_few_do(monkeypatch: pytest.MonkeyPatch) -> None:
    crew = Simulated(monkeypatch, first=1, each=16)
    crew.go_on(distance, 5)
    assert crew.level >= MOST // 2
    assert crew.level * crew.depth <= MOST


def test_few_long_pieces_tell_no_tale(monkeypatch: pytest.MonkeyPatch) -> None:
    crew = Simulated(monkeypatch)
    assert crew.go_on(lambda level: level / 10, 20)[-1] == FIRST


def test_threads_that_are_dear_are_tried_where_processors_are_idle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert set(Simulated(monkeypatch, idle=0.3).go_on(distance, 30)) <= {1, FIRST}
    assert Simulated(monkeypatch, idle=0.9).go_on(distance, 30)[-1] >= MOST // 2
