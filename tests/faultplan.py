"""What goes wrong when: decided by a seed and by what is asked for, not by who asks first.

A Plan is asked about each request, by its operation and its identity (as a key and a part number).
Its answer depends on the seed, on these, and on how often they were asked before; so a seed's
faults come again in another run of it, whatever the threads do.  What has no identity, as the
moment at which a process is killed, is counted in requests.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from random import Random

READS = ("list", "head", "get", "uploads")
SENDS = ("put", "part")
CHANGES = (*SENDS, "copy", "open", "complete", "abort", "delete", "delete-many")
ALL = (*READS, *CHANGES, "other")

HTTP: Mapping[str, tuple[str, ...]] = {
    # Answers
    "500": ALL,
    "503": ALL,
    "200-error": ("list", "get", "put", "part", "copy", "open", "complete", "delete-many"),
    # Connections that end, before, while and after the server has acted
    "reset-before": ALL,
    "reset-during": (*SENDS, "get", "list", "complete", "delete-many"),
    "answer-lost": ALL,
    # Time: less than the client waits; more, after the server has acted; more, before it does
    "stall": ALL,
    "hang": ALL,
    "late": CHANGES,
    # Bodies
    "sent-short": SENDS,
    "sent-flipped": SENDS,
    "got-short": ("get", "list"),
    "got-flipped": ("get",),
    # Listings
    "page-again": ("list",),
    "page-halved": ("list",),
    "page-last": ("list",),
    # The object
    "changed": ("get", "put"),
    "stored-late": ("put",),
}
"""Kinds of fault, with the operations that they can befall."""
LINK = ("link-cut", "link-stalled", "link-hung", "link-flipped")
"""Kinds of fault of an SFTP connection."""

LASTING = ("500", "reset-before", "answer-lost", "sent-short", "sent-flipped", "got-short",
           "got-flipped", "200-error")  # fmt: skip
"""Kinds that an object may have for good, so that it has to be a failure."""


class Plan:
    """The faults of one server in one seed; for several threads."""

    def __init__(
        self, name: str, kinds: Sequence[str], rate: float, doom: float = 0.0, expiry: int = 0
    ) -> None:
        """``rate``: the share of requests that meet a fault; ``doom``: that of objects that do so
        whenever they are asked for.  ``expiry``: of 40 requests, for so many the keys are expired.
        """
        self._name, self._kinds, self._rate, self._doom = name, kinds, rate, doom
        self.active = True
        self.fired: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._asked: Counter[tuple[str, ...]] = Counter()
        self._count = 0
        first = Random(f"{name} expiry").randrange(5, 60)
        self._expired = range(first, first + expiry)

    def __repr__(self) -> str:
        return f"Plan({self._name}: {', '.join(self._kinds)}, {self._rate:.0%})"

    def draw(self, operation: str, *identity: str) -> tuple[str, Random]:
        """The kind of fault that this request meets, '' for none; and chance for its details."""
        with self._lock:
            self._count += 1
            which = (operation, *identity)
            nth = self._asked[which]
            self._asked[which] += 1
            expired = self._count in self._expired
        chance = Random(f"{self._name} {which} {nth}")
        if not self.active:
            return "", chance
        if expired:
            return "expired", chance
        fixed = Random(f"{self._name} {identity}")
        lasting = [kind for kind in self._kinds if kind in LASTING and operation in HTTP[kind]]
        if lasting and fixed.random() < self._doom and operation in (*SENDS, "get", "copy"):
            return fixed.choice(lasting), chance
        kinds = [kind for kind in self._kinds if operation in HTTP.get(kind, (operation,))]
        if not kinds or chance.random() >= self._rate:
            return "", chance
        return chance.choice(kinds), chance

    def met(self, kind: str) -> None:
        """Counts a fault that was carried out."""
        with self._lock:
            self.fired[kind] += 1


class Trigger:
    """Does something once, at the ``at``-th thing that happens: when it returns True, it is done;
    else it is asked again at the next.  It may take its time: it has a thread of its own.
    """

    def __init__(self, at: int, action: Callable[[], bool]) -> None:
        self._left, self._action = at, action
        self._lock = threading.Lock()
        self._busy = self.done = False
        self.armed = True

    def tick(self) -> None:
        """One more thing happened."""
        with self._lock:
            self._left -= 1
            due = self.armed and self._left <= 0 and not (self.done or self._busy)
            self._busy = self._busy or due
        if due:
            threading.Thread(target=self._act, daemon=True).start()

    def _act(self) -> None:
        done = False
        try:
            done = self._action()
        finally:
            with self._lock:
                self.done, self._busy = self.done or done, False
