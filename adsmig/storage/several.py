"""What some drivers can do besides: several small objects at once, in one thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, NamedTuple, Protocol, TypeGuard, TypeVar, runtime_checkable

from adsmig.checksum import NO_SUMS, Sums
from adsmig.model import Entry, Meta
from adsmig.storage.base import Body, Storage, Stored

T = TypeVar("T", covariant=True)


class Sent(Generic[T]):
    """A request that is on its way.  Its one owner, a thread, calls one of the two, once."""

    __slots__ = "answer", "drop", "fd"

    def __init__(self, fd: int, answer: Callable[[], T], drop: Callable[[], None]) -> None:
        self.fd = fd
        """Can be read from (poll(2)) once there is something of the answer."""
        self.answer = answer
        """Waits for what comes of it, and raises as the method does that waits at once."""
        self.drop = drop
        """Nobody wants to know."""


@runtime_checkable
class Overlapping(Storage, Protocol):
    """A Storage of which one thread can ask several things before it hears of the first."""

    def ask(self, entry: Entry) -> Sent[Body]:
        """As Storage.read, of all of it."""
        ...

    def send(
        self,
        key: bytes,
        chunks: Iterator[memoryview],
        size: int,
        meta: Meta,
        sums: Sums = NO_SUMS,
    ) -> Sent[Stored]:
        """As Storage.write; all ``chunks`` have been taken when it returns."""
        ...

    def send_copy(self, src: Storage, entry: Entry, key: bytes) -> Sent[Stored | None] | None:
        """As Storage.copy_from; None as well if it is known at once that it cannot be done."""
        ...


_overlap: dict[type, bool] = {}


def overlaps(storage: Storage) -> TypeGuard[Overlapping]:
    """Whether it is Overlapping; isinstance would look at all of the protocol each time."""
    kind = type(storage)
    if kind not in _overlap:
        _overlap[kind] = isinstance(storage, Overlapping)
    return _overlap[kind]


class Whole(NamedTuple):
    """A small object, all of it."""

    key: bytes
    content: bytes
    meta: Meta


@runtime_checkable
class Batching(Storage, Protocol):
    """A Storage to which small objects are better written several at once."""

    def batch_size(self) -> int:
        """How many at once; 1 if one by one.  May connect, and raises what that raises."""
        ...

    def write_batch(self, objects: Sequence[Whole]) -> Sequence[Stored | None]:
        """As Storage.write, for each of them; None, and nothing left there, for those that have to
        be written one by one, perhaps to find out why they cannot be.

        Raises TransientError if the connection was lost: any of them may be there then.
        """
        ...


@runtime_checkable
class Expecting(Storage, Protocol):
    """A Storage of which small objects are better asked for several at once."""

    def expect(self, entries: Sequence[Entry]) -> None:
        """The calling thread is about to read these, all of each: they are asked for by now, and
        those of an earlier call that it did not read are let go of.  What is wrong with one, or
        with all, is told by reading it.
        """
        ...
