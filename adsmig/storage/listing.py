"""Pages of ListObjects, proven to be in order and complete.

A listing that ends early without an error is a migration that silently left objects behind, so
every page is held against what the API promises
(docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html, and API_ListObjects.html for the
version before it, which goes on from a marker) and against the page before.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Iterable, Iterator
from heapq import heappop, heappush
from itertools import chain
from typing import Protocol

from adsmig.errors import ListingError, ObjectError, OrderError
from adsmig.model import LAST, Entry, KeyRange, below
from adsmig.storage.base import Prune
from adsmig.storage.listpage import Page

MAX_EMPTY_PAGES = 1000
"""In a row, that are empty or repeat what was there: allowed, but not for ever."""


class Fetch(Protocol):
    """Asks the store for one page, and tries again where that helps."""

    def __call__(
        self, prefix: bytes, after: bytes, token: str, by_directory: bool, limit: int
    ) -> Page:
        """At most ``limit`` keys that begin with ``prefix``, past ``after`` or from ``token``."""
        ...


PAGE = 1000
"""Keys; what stores give at most."""


def pages(
    fetch: Fetch,
    prefix: bytes,
    after: bytes,
    by_directory: bool,
    limit: int,
    skip: Callable[[], bytes] = bytes,
) -> Iterator[Page]:
    """The pages from just past ``after`` (a full key; '' for the start) to the provable end.

    ``skip`` is asked after each page: the full key past which the next is to begin, if that is
    further than where the page ended.
    """
    token, idle = "", 0
    while True:
        page = fetch(prefix, after, token, by_directory, limit)
        yield page
        if not page.truncated:
            return
        ends = [page.entries[-1].key] if page.entries else []
        ends += [page.prefixes[-1].removesuffix(b"/")] if page.prefixes else []
        if ends and max(ends) > after:
            after, idle = max(ends), 0
        elif page.token and page.token != token and idle < MAX_EMPTY_PAGES:
            idle += 1
        else:
            raise ListingError("the store says that a listing goes on, but not where")
        # Without a token, the last key says where to go on; the order check holds it to that.  A
        # token that is a key with characters which XML cannot hold (SeaweedFS) arrives damaged.
        token = "" if "\ufffd" in page.token else page.token
        if (further := skip()) > after:
            after, token = further, ""


def some(fetch: Fetch, prefix: bytes, after: bytes, by_directory: bool, limit: int) -> Page:
    """The first page with anything on it, or the last: a store may go on behind an empty one, as
    where much was deleted.
    """
    for page in pages(fetch, prefix, after, by_directory, limit):
        if page.entries or page.prefixes:
            break
    return page


def is_left_over(entry: Entry) -> bool:
    """Whether it is no object, but a directory that SeaweedFS made for others, and is now empty."""
    return entry.key.endswith(b"/") and entry.etag == ""


def _insisting(fetch: Fetch, fits: Callable[[Page], bool]) -> Fetch:
    """The same, but that a page which does not fit what came before is asked for once more: one
    that a proxy gave in place of another must not decide how a store is listed from then on.
    """

    def fetch_again(
        prefix: bytes, after: bytes, token: str, by_directory: bool, limit: int
    ) -> Page:
        page = fetch(prefix, after, token, by_directory, limit)
        return page if fits(page) else fetch(prefix, after, token, by_directory, limit)

    return fetch_again


class Pruned:
    """Tells which keys lie in directories that ``prune`` names; they come in ascending order.

    It is asked once for each directory, and not for those inside one that it named.
    """

    def __init__(self, prune: Prune) -> None:
        self._prune = prune
        self._clear = b""
        self.directory = b""
        """The outermost one around the last key; '' if none is."""

    def holds(self, key: bytes) -> bool:
        """Whether the key, past all that were asked about before, lies in such a directory."""
        if self.directory and key.startswith(self.directory):
            return True
        self.directory = b""
        end = key.rfind(b"/") + 1
        if self._clear.startswith(key[:end]):
            return False
        at = key.find(b"/") + 1
        while at:
            if not self._clear.startswith(key[:at]) and self._prune(key[:at]):
                self.directory = key[:at]
                return True
            at = key.find(b"/", at) + 1
        self._clear = key[:end]
        return False

    @property
    def end(self) -> bytes:
        """At or after every key of text in that directory; '' if there is none."""
        return self.directory + LAST if self.directory else b""


def flat(
    fetch: Fetch, prefix: bytes, keys: KeyRange, limit: int = PAGE, prune: Prune | None = None
) -> Iterator[Entry]:
    """The entries of ``keys`` (relative to ``prefix``), of a store that lists in byte order.

    ``keys.closed`` counts only at the beginning; ``limit`` is the size of a page.  A page that
    ends in a directory which ``prune`` names is followed by the first past that.  Raises
    OrderError when the store proves not to list in order.
    """
    return chain.from_iterable(_by_page(fetch, prefix, keys, limit, prune))


def _by_page(
    fetch: Fetch, prefix: bytes, keys: KeyRange, limit: int, prune: Prune | None
) -> Iterator[Iterable[Entry]]:
    """As :func:`flat`, all of a page together where that can be: it takes less for each of them."""
    last, cut = prefix + keys.after, len(prefix)
    upto = None if keys.upto is None else prefix + keys.upto
    first, start = not keys.after, last if keys.after else b""
    pruned = Pruned(prune) if prune else None
    if pruned and pruned.holds(keys.after):
        if keys.ends_before(pruned.end):
            return
        start = max(start, prefix + pruned.end)

    def skip() -> bytes:
        return prefix + pruned.end if pruned and pruned.directory else b""

    def fits(page: Page) -> bool:
        return first or not page.entries or page.entries[0].key >= last

    for page in pages(_insisting(fetch, fits), prefix, start, False, limit, skip):
        listed = [entry.key for entry in page.entries]
        # All of it, before any is given out: what is out of order may be past the range's end.
        if any(map(operator.le, listed[1:], listed)):
            at = next(at for at, key in enumerate(listed[1:], 1) if key <= listed[at - 1])
            raise OrderError(
                f"keys are not listed in order: {listed[at]!r} after {listed[at - 1]!r}"
            )
        if (
            listed
            and listed[0] > last
            and listed[0].startswith(prefix)
            and listed[-1].startswith(prefix)  # and so do those between them
            and (upto is None or listed[-1] <= upto)
            and not pruned
        ):
            first, last = False, listed[-1]
            yield below(page.entries, cut)
            continue
        for entry in page.entries:
            key = entry.key
            if key == last and entry is page.entries[0] and not first:
                continue  # the MinIO gateway lists the directory that it was told to start after
            if key <= last and not first:
                raise OrderError(f"keys are not listed in order: {key!r} came after {last!r}")
            if not key.startswith(prefix):
                raise ListingError(f"asked for keys below {prefix!r}, the store listed {key!r}")
            if upto is not None and key > upto:
                return
            if first and key == prefix and not keys.closed:
                continue  # what lies at the prefix itself is not past it
            first, last = False, key
            if not (pruned and pruned.holds(key[cut:])):
                yield (Entry(key[cut:], *entry[1:]) if cut else entry,)
        if pruned and pruned.directory and keys.ends_before(pruned.end):
            return


def prove_order(fetch: Fetch, prefix: bytes, after: bytes) -> None:
    """Raises OrderError if the store would pass over keys that come after the relative ``after``.

    One that lists by directory has ``a/b`` before ``a-b``, so that a listing which begins there is
    in order, and lacks ``a/b``.  A proxy may hide which store it is, so it is asked for each such
    directory, of which there is mostly none.  One that takes no such question is believed: MinIO
    wants to begin below the prefix.
    """
    with contextlib.suppress(ObjectError):
        for at in range(1, len(after)):
            if after[at] >= ord("/"):
                continue
            directory = prefix + after[:at] + b"/"
            if not some(fetch, directory, b"", by_directory=False, limit=1).entries:
                continue
            if not some(fetch, directory, prefix + after, by_directory=False, limit=1).entries:
                raise OrderError(f"keys below {directory!r} are not listed after {after!r}")


def walk(
    fetch: Fetch, prefix: bytes, keys: KeyRange, limit: int = PAGE, prune: Prune | None = None
) -> Iterator[Entry]:
    """As :func:`flat`, for any store that lists each single directory in order of its names.

    Needed where ``a/b`` is listed before ``a-b``: there a listing that starts after ``a-b`` never
    shows ``a/b``.  Directories that ``prune`` names are not listed at all.
    """
    cut = len(prefix)

    def wanted(directory: bytes) -> bool:
        return keys.may_hold(directory) and not (prune and prune(directory))

    levels = [level(fetch, prefix, b"", keys, limit, wanted)]
    while levels:
        for key, entry in levels[-1]:
            if keys.ends_before(key):
                return
            if entry:
                if key in keys:
                    yield Entry(key, *entry[1:]) if cut else entry
            elif wanted(key):
                levels.append(level(fetch, prefix, key, keys, limit, wanted))
                break
        else:
            levels.pop()


def level(
    fetch: Fetch,
    root: bytes,
    directory: bytes,
    keys: KeyRange,
    limit: int,
    wanted: Callable[[bytes], bool],
) -> Iterator[tuple[bytes, Entry | None]]:
    """The objects and directories (None) right in ``directory``, by key, from where keys begins.

    The store orders them by bare name, ``a`` before ``a-b``; by key, ``a-b`` is before ``a/``.  So
    a directory waits until no name that begins with its own can come before it.  A store in byte
    order has the second order; pages have to come in one of the two.
    """
    waiting: list[bytes] = []
    start = b""
    if keys.after.startswith(directory) and keys.after != directory:
        start = keys.after[len(directory) :].partition(b"/")[0]
        for length in range(1, len(start) + 1):
            # Names before the start, of directories whose content is after it: "a" for "a-b".
            if length == len(start) or start[length] < ord("/"):
                path = directory + start[:length] + b"/"
                if wanted(path):
                    page = some(fetch, root + path, b"", by_directory=False, limit=1)
                    if page.entries or page.prefixes:
                        heappush(waiting, path)
    last, last_key = (b"", False), b""
    by_name = by_key = True
    base = root + directory

    def fits(page: Page) -> bool:
        firsts = [entry.key for entry in page.entries[:1]] + page.prefixes[:1]
        return not firsts or min(firsts)[len(base) :] >= min(last[0], last_key)

    for page in pages(_insisting(fetch, fits), base, base + start if start else b"", True, limit):
        if not all(path.startswith(base) for path in page.prefixes) or not all(
            entry.key.startswith(base) for entry in page.entries
        ):
            raise ListingError(f"asked for keys below {base!r}, the store listed others")
        names: list[tuple[bytes, Entry | None]] = [
            (entry.key[len(base) :], entry) for entry in page.entries
        ]
        names += [(path[len(base) : -1], None) for path in page.prefixes]
        names.sort(key=lambda item: (item[0], item[1] is None))
        told = [(name, entry is None) for name, entry in names if name]
        full = sorted(name + b"/" * is_directory for name, is_directory in told)
        if told:
            by_name = by_name and told[0] > last
            by_key = by_key and full[0] > last_key
            if not (by_name or by_key) or len(set(full)) < len(full):
                first = told[0][0]
                raise ListingError(f"names in {directory!r} are not listed in order, at {first!r}")
            last, last_key = told[-1], full[-1]
        for name, entry in names:
            if start and name == start:
                continue  # before the range, or waiting already
            if entry and not name and is_left_over(entry):
                continue
            key = directory + name
            if entry is None and key + b"/" in waiting:
                continue  # of the range's beginning: in byte order "a-b" is before "a/"
            if name < start:
                raise ListingError(f"asked for names past {start!r}, the store listed {name!r}")
            while waiting and waiting[0] < key:
                yield heappop(waiting), None
            if keys.ends_before(key):
                break
            if entry:
                yield key, entry
            else:
                heappush(waiting, key + b"/")
        else:
            continue
        break
    while waiting:
        yield heappop(waiting), None
