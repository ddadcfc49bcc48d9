"""The requests for the pages of a listing, the next of which is asked for while one is read."""

from __future__ import annotations

import logging

from adsmig.errors import AdsmigError, Throttled, TransientError
from adsmig.providers import Profile
from adsmig.retry import TRIES, retry
from adsmig.storage.listpage import Page, parse, unquote
from adsmig.storage.wire import Asked, Wire

log = logging.getLogger(__name__)

Query = dict[str, str | bytes]

REQUESTS = 4
"""For a page, until one is believed that the store says is the answer to another request."""


class Pages:
    """Fetches pages, see listing.Fetch, of the bucket at the path ``root``.

    With ``ahead``, for one listing from its beginning to its end, the store is asked for the page
    after the next before anybody wants it, and works on it while the caller does on this one.  The
    caller closes that, at any time.
    """

    def __init__(
        self, wire: Wire, root: bytes, profile: Profile, where: str, ahead: bool = False
    ) -> None:
        self._wire, self._root, self._profile, self._where = wire, root, profile, where
        self._ahead = ahead
        self._count = 0
        self._believing = False
        self._asked: tuple[Query, Asked] | None = None

    def __call__(
        self,
        prefix: bytes,
        after: bytes,
        token: str,
        by_directory: bool,
        limit: int,
        tries: int = TRIES,
    ) -> Page:
        """As listing.Fetch; raises what Wire.request does, after so many ``tries``."""
        query = query_for(self._profile, prefix, after, token, by_directory, limit)
        for _ in range(REQUESTS):
            page = retry(lambda: self._page(query), f"listing {self._where}", tries=tries)
            if self._believing or answers(page, query):
                break
            log.info("a page of %s is another than was asked for", self._where)
        else:
            self._believing = True  # it has its own way of saying what it was asked
        self._count += 1
        # A short range ends with its first page, and a directory's next page waits for all that is
        # in the directories of this one.
        if self._ahead and self._count > 1 and page.truncated and page.token and not by_directory:
            self._ask(query_for(self._profile, prefix, after, page.token, by_directory, limit))
        return page

    def _page(self, query: Query) -> Page:
        version = self._profile.list_version
        if self._asked and self._asked[0] == query:
            (_, asked), self._asked = self._asked, None
            try:
                return parse(asked.answer().body, version)
            except Throttled:
                raise
            except TransientError as exc:  # it may have waited for too long to be read
                log.info("asking again for a page of %s: %s", self._where, exc)
        self.close()
        return parse(self._wire.request("GET", self._root, query).body, version)

    def _ask(self, query: Query) -> None:
        try:
            self._asked = query, self._wire.ask("GET", self._root, query)
        except AdsmigError:
            self._asked = None  # whoever wants the page asks again, and is told what is wrong

    def close(self) -> None:
        """Lets go of what was asked for in vain."""
        if self._asked:
            self._asked[1].drop()
            self._asked = None


def answers(page: Page, query: Query) -> bool:
    """Whether a page can be the one that was asked for, as far as the store repeats the question.

    One that a proxy mixed up may be in order, and still pass over keys.
    """
    token, after = query.get("continuation-token", ""), query.get("start-after", b"")
    marker = query.get("marker", after)
    wanted = marker.encode("utf-8", "surrogateescape") if isinstance(marker, str) else marker
    if "\ufffd" in page.of_token or b"\xef\xbf\xbd" in page.of_after:
        return True  # not what XML can hold
    if token and page.of_token == token:
        return True  # whatever the first page was to start after
    # MinIO and moto leave it as it came, among keys that are encoded.
    repeated = not page.of_after or wanted in (page.of_after, unquote(page.of_after))
    return page.of_token in ("", token) and repeated


def query_for(
    profile: Profile, prefix: bytes, after: bytes, token: str, by_directory: bool, limit: int
) -> dict[str, str | bytes]:
    """The query that asks a store of this profile for a page; see :class:`Fetch`."""
    query: dict[str, str | bytes] = {
        "max-keys": str(min(limit, profile.max_keys)),
        "prefix": prefix,
    }
    if profile.list_version == 2:
        query["list-type"] = "2"
        if token or after:
            query["continuation-token" if token else "start-after"] = token or after
    elif token or after:
        query["marker"] = token.encode("utf-8", "surrogateescape") or after
    if profile.url_encoding:
        query["encoding-type"] = "url"
    if by_directory:
        query["delimiter"] = "/"
    return query
