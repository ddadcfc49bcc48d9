"""What is known of each provider, as ``adsmig providers`` prints it."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator

from adsmig.providers import PROVIDERS, places, traits
from adsmig.tables import table

WIDTH = 90
"""Columns of a terminal."""
CAVEAT = (
    "None was tried on a real account: what the table says is from providers' pages and from other"
    " tools. Every field of the second table, if yours differs, can be set for one side, as in"
    " --src-set list_version=2; the region with --src-region or --dst-region, the endpoint with"
    " --src-endpoint or --dst-endpoint."
)


def provider_lines(as_json: bool) -> Iterator[str]:
    """The table for people, or one JSON object a row."""
    if as_json:
        for name, profile in PROVIDERS.items():
            yield json.dumps({"name": name, **profile._asdict()})
        return
    yield from table(list(places()))
    yield ""
    yield from table(list(traits()))
    yield ""
    names: dict[str, list[str]] = {}
    for name, profile in PROVIDERS.items():
        names.setdefault(profile.verified, []).append(name)
    yield from table(
        [("verified against:", ""), *((", ".join(all_), what) for what, all_ in names.items())]
    )
    yield ""
    yield from textwrap.wrap(CAVEAT, WIDTH, break_on_hyphens=False)
