"""The nouns that travel between the parts; all immutable and picklable, none does any I/O.

Keys are ``bytes``: they belong to the user, need not be text, and compare in the one order that
everything here relies on, that of their bytes.  ``Entry``, ``Action`` and ``Outcome`` exist once
an object, so they are named tuples, which cost a third of a frozen dataclass to make.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, NamedTuple

from adsmig.inventory import Inventory

LAST = b"\xf4\x8f\xbf\xbf"
"""U+10FFFF: ``prefix + LAST`` is at or after every key of text that begins with ``prefix``."""


UNLISTED = "the directory cannot be listed"
"""How the problem of an entry begins that stands for all that may be below it."""


class Entry(NamedTuple):
    """One object or file as a listing shows it."""

    key: bytes
    """Relative to the Location; ends in ``/`` for a directory or directory marker."""
    size: int
    """Bytes."""
    mtime_ns: int | None
    """When its owner last changed the content, if the storage knows; Unix time, nanoseconds."""
    stored_ns: int
    """When this storage last wrote it: LastModified of an object, ctime of a file."""
    etag: str | None = None
    """As the storage gave it, without quotes; None for files."""
    storage_class: str = ""
    """As the storage names it; empty where it has none, or only one."""
    implied: bool = False
    """A directory that exists through its content; only its content is copied."""
    problem: str = ""
    """Why it cannot be copied, or cannot be listed further; empty when it can."""
    link: bytes | None = None
    """Where a symbolic link points, if links are not followed."""


def below(entries: list[Entry], cut: int) -> Iterable[Entry]:
    """The entries with the first ``cut`` bytes of their keys left out."""
    if not cut or not entries:
        return entries
    keys, *others = zip(*entries, strict=True)
    return entries_of(zip([key[cut:] for key in keys], *others, strict=True))


def entries_of(rows: Iterable[tuple[Any, ...]]) -> Iterable[Entry]:
    """Entries of rows that have all the fields; as Entry._make, without its look at each length."""
    return map(tuple.__new__, repeat(Entry), rows)


class KeyRange(NamedTuple):
    """Keys after ``after``, up to and including ``upto``; ``closed`` adds ``after`` itself."""

    after: bytes = b""
    upto: bytes | None = None
    """None: no upper end."""
    closed: bool = False

    def __contains__(self, key: object) -> bool:
        assert isinstance(key, bytes)
        return (key > self.after or (self.closed and key == self.after)) and (
            self.upto is None or key <= self.upto
        )

    def ends_before(self, key: bytes) -> bool:
        """Whether ``key`` is past every key of the range."""
        return self.upto is not None and key > self.upto

    def may_hold(self, prefix: bytes) -> bool:
        """Whether some key beginning with ``prefix`` can lie in the range."""
        if self.ends_before(prefix):
            return False
        return prefix >= self.after or self.after.startswith(prefix)

    def rest(self, cursor: bytes) -> KeyRange:
        """What is left once every key up to and including ``cursor`` is settled."""
        return KeyRange(cursor, self.upto)

    def cut(self, keys: Iterable[bytes]) -> list[KeyRange]:
        """The range in pieces; each of the ascending ``keys``, all inside, ends one."""
        pieces = []
        left = self
        for key in keys:
            pieces.append(KeyRange(left.after, key, left.closed))
            left = KeyRange(key, self.upto)
        return [*pieces, left]


EVERYTHING = KeyRange(b"", None, True)

UNDELETED = "not deleted"
"""The kind of failure of an object that could not be removed."""
UNFLUSHED = "flush"
"""The kind of failure of one that was stored, and may not be on the disk."""


class What(enum.IntEnum):
    """What is to be done, or was done, about one key."""

    COPY = 0
    SKIP = 1
    """Found equal at the destination."""
    FAIL = 2
    LARGE = 3
    """To be copied as many parts, by many workers."""
    CHECK = 4
    """Only the content can tell whether it is equal at the destination."""
    LEAVE = 5
    """Left alone, as an option asks, whether it is equal or not."""
    DROP = 6
    """Not selected: by its size, its age or its name."""
    DIRECTORY = 8
    """A directory that its content implies: its permissions and time come last."""
    DELETE = 7
    """To be removed: at the destination, where the source has none of it; by ``rm``, anywhere."""


class Action(NamedTuple):
    """What the plan decided about one key.  ``src`` is the destination's entry if DELETE."""

    what: What
    src: Entry
    dst: Entry | None = None


class Outcome(NamedTuple):
    """What became of one key that was copied or failed."""

    key: bytes
    size: int
    mtime_ns: int
    """The source's, as ``Entry.mtime_ns`` or else ``Entry.stored_ns``."""
    etag: str | None
    """The source's."""
    checksum: str | None
    """``xxh3:HEX`` of the content; None where the bytes never passed here (server-side copy)."""
    error: str = ""
    """Why it failed, in one line; empty for a success."""
    kind: str = ""
    """The error's kind, a short word."""
    seconds: float = 0.0
    """How long it took."""


class Known(NamedTuple):
    """What is to be on record of objects, as the manifest keeps it: a column each, all of one
    length, which cross to another process in half the time that as many rows take.
    """

    keys: Sequence[str | bytes] = ()
    """See schema.to_db."""
    sizes: Sequence[int] = ()
    times: Sequence[int] = ()
    """As Outcome.mtime_ns."""
    etags: Sequence[str | None] = ()


class Deletion(NamedTuple):
    """An object that is to be removed, as it was listed or copied."""

    key: bytes
    size: int
    time_ns: int
    """As ``Entry.mtime_ns`` or else ``Entry.stored_ns``."""
    etag: str | None
    at_source: bool
    checked: bool
    """Removed only if, at the source, it is still what it was; if, for one at the destination, the
    source still has no such key."""
    implied: bool = False
    """A directory that is not counted as an object."""


@dataclass(frozen=True, slots=True)
class DeletionResult:
    """What a worker did with some deletions."""

    gone: list[bytes]
    settled: bool
    """Those that are not gone need not be tried again."""
    failures: list[Outcome]
    stop: Stop | None
    worker: int
    started: float
    ended: float


class Planned(NamedTuple):
    """What a dry run found is to be done about a key."""

    action: str
    """``copy`` or ``delete``."""
    key: bytes
    size: int


class Counts(NamedTuple):
    """Tallies of a slice, a run or a job; objects and bytes."""

    found: int = 0
    found_bytes: int = 0
    unchanged: int = 0
    unchanged_bytes: int = 0
    copied: int = 0
    copied_bytes: int = 0
    failed: int = 0
    left: int = 0
    """Left alone, as an option asks."""
    dropped: int = 0
    """Listed, and not selected; not among those found."""
    deleted: int = 0
    deleted_bytes: int = 0

    def __add__(self, other: object) -> Counts:
        assert isinstance(other, Counts)
        return Counts(*(a + b for a, b in zip(self, other, strict=True)))


class Budget(NamedTuple):
    """How long a worker may keep a slice."""

    seconds: float
    objects: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a run cannot go on, in a form that crosses processes."""

    message: str
    exit_code: int = 3
    kind: str = ""
    """The name of the exception's class."""


@dataclass(frozen=True, slots=True)
class SliceResult:
    """What a worker did with a range: everything up to ``cursor`` is settled and durable."""

    cursor: bytes | None
    """The last settled key; None when nothing was settled."""
    done: bool
    """The whole range is settled."""
    counts: Counts
    outcomes: list[Outcome] = field(default_factory=list)
    large: list[Entry] = field(default_factory=list)
    deletions: list[Deletion] = field(default_factory=list)
    links: list[bytes] = field(default_factory=list)
    """Symbolic links to directories, which were not followed."""
    directories: list[bytes] = field(default_factory=list)
    """That are to get permissions and times once all is in them."""
    inventory: Inventory | None = None
    """Of a dry run."""
    planned: list[Planned] = field(default_factory=list)
    """By it, if the job names them."""
    stop: Stop | None = None
    worker: int = 0
    """Process id."""
    started: float = 0.0
    """Unix time, seconds."""
    ended: float = 0.0
    equal: Known = field(default_factory=Known)
    """Found equal at the destination, and not on record as that."""
    cleared: list[bytes] = field(default_factory=list)
    """Found equal, and on record as having failed."""


class Part(NamedTuple):
    """One finished part of a multipart upload."""

    number: int
    """From 1."""
    etag: str
    checksum: str | None
    """xxh3 of the part, hexadecimal."""
    md5: str | None
    crc32: str | None = None
    """See adsmig.checksum."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A multipart upload under way, or, for a file system, a staged file of full size."""

    entry: Entry
    """The source object that it copies."""
    upload_id: str
    part_size: int
    """Bytes; the last part is what is left."""
    vouched: str = ""
    """What the store makes of the parts' CRC-32s, against which it holds what it is sent:
    ``FULL_OBJECT``, that of the whole, or ``COMPOSITE``; '' if it was not told any, or takes none.
    """
    crc32: str | None = None
    """That of the whole, as the source tells it; see adsmig.checksum."""

    @property
    def parts(self) -> int:
        """How many parts the object has; at least 1."""
        return max(1, -(-self.entry.size // self.part_size))

    def span(self, number: int) -> tuple[int, int]:
        """Offset and size in bytes of part ``number``, counted from 1."""
        start = (number - 1) * self.part_size
        return start, min(self.part_size, self.entry.size - start)


@dataclass(frozen=True, slots=True)
class PartsResult:
    """What a worker did with some parts of an upload; the parts named are durable."""

    parts: list[Part]
    sent: int
    """Bytes."""
    failure: Outcome | None = None
    """The object cannot be copied; the upload is to be aborted."""
    changed: bool = False
    """The source changed; the upload is to be begun anew."""
    stop: Stop | None = None
    worker: int = 0
    started: float = 0.0
    ended: float = 0.0


@dataclass(frozen=True, slots=True)
class UploadResult:
    """What became of opening or finishing an upload; all None: it has to be begun anew."""

    upload: Upload | None = None
    outcome: Outcome | None = None
    stop: Stop | None = None
    doubtful: bool = False
    """Another upload may have been opened, or be opened yet: an answer was lost."""


@dataclass(frozen=True, slots=True)
class Meta:
    """What a storage keeps beside the bytes.  Fields it does not know are None or empty."""

    mtime_ns: int | None = None
    mode: int | None = None
    """Permission bits."""
    uid: int | None = None
    gid: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    """Content-Type and its kin, lower-case names."""
    user: dict[str, str] = field(default_factory=dict)
    """User metadata of an object, without the provider's prefix."""
    tags: str = ""
    """Of an object, as ``x-amz-tagging`` has them: ``name=value&...``, escaped."""
