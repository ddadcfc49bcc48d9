"""What a migration would ask of both sides: requests, bytes, time, and money."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adsmig.errors import UsageError
from adsmig.inventory import Inventory

REQUESTS = ("LIST", "GET", "HEAD", "PUT", "COPY", "POST", "DELETE")
PAGE = 1000
"""Keys a LIST shows, and a DELETE removes, at the most."""
PRICED = {
    "source": (*REQUESTS, "out_gb"),
    "destination": (*REQUESTS, "in_gb", "storage_gb_month"),
}
"""What a price list may name: 1,000 requests of a kind, or a GB (10^9 bytes)."""
_FILES = ("file", "sftp")


@dataclass(frozen=True, slots=True)
class Prices:
    """What both sides charge: by the names in PRICED, in ``currency``."""

    currency: str
    source: Mapping[str, float]
    destination: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Line:
    """One figure of an estimate, and what it is."""

    side: str
    """``source`` or ``destination``."""
    name: str
    """One of REQUESTS, ``bytes read``, ``bytes written``, or ``bytes kept``."""
    count: int
    """Requests, or bytes."""
    basis: str
    """How it was reckoned."""
    cost: float | None = None
    """None: no price is known."""
    monthly: bool = False
    """The cost comes again each month, and is not part of the total."""

    @property
    def is_bytes(self) -> bool:
        """Whether ``count`` is bytes."""
        return self.name.startswith("bytes")


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is to be expected; tries that have to be repeated come on top."""

    lines: tuple[Line, ...]
    objects: int
    """To be copied."""
    size: int
    """Bytes to be read, and written."""
    rate_mbps: float | None
    """Megabits a second."""
    duration_s: float | None
    """At that rate, all the time; None if none was given."""
    priced: bool
    currency: str

    @property
    def cost(self) -> float | None:
        """Of all that has a price, once; None without a price list."""
        return self._sum(monthly=False)

    @property
    def monthly_cost(self) -> float | None:
        """Of keeping what is copied; None without a price for that."""
        return self._sum(monthly=True) if any(self._known(monthly=True)) else None

    @property
    def unpriced(self) -> list[str]:
        """What the price list says nothing about."""
        lines = self.lines if self.priced else ()
        return [f"{one.side} {one.name}" for one in lines if one.cost is None]

    def requests(self, side: str) -> dict[str, int]:
        """How many of each kind, at the source or at the destination."""
        return {one.name: one.count for one in self.lines if one.side == side and not one.is_bytes}

    def to_json(self) -> dict[str, Any]:
        """Everything, for json.dumps."""
        return {
            "objects": self.objects,
            "bytes": self.size,
            "rate_mbps": self.rate_mbps,
            "duration_s": self.duration_s,
            "currency": self.currency if self.priced else None,
            "cost": self.cost,
            "monthly_cost": self.monthly_cost,
            "unpriced": self.unpriced,
            "lines": [
                {
                    "side": one.side,
                    "name": one.name,
                    "unit": "bytes" if one.is_bytes else "requests",
                    "count": one.count,
                    "basis": one.basis,
                    "cost": one.cost,
                    "monthly": one.monthly,
                }
                for one in self.lines
            ],
        }

    def _known(self, monthly: bool) -> Iterator[bool]:
        return (one.monthly == monthly and one.cost is not None for one in self.lines)

    def _sum(self, monthly: bool) -> float | None:
        if not self.priced:
            return None
        return math.fsum(one.cost or 0 for one in self.lines if one.monthly == monthly)


def estimate(
    inventory: Inventory,
    *,
    src_scheme: str,
    dst_scheme: str | None,
    lists_destination: bool,
    to_copy: tuple[int, int],
    large: tuple[int, int],
    extraneous: int,
    rate_mbps: float | None,
    prices: Prices | None,
) -> Estimate:
    """What copying ``to_copy`` (objects, bytes), of them ``large`` (objects, parts), will take.

    ``extraneous`` objects are removed: at the destination, or without one, at the source.
    Without a destination, what reading them takes is all that can be told.  File systems and SFTP
    know no requests.
    """
    lines: list[Line] = []
    transfers = max(0, to_copy[0] - large[0]) + large[1]
    for side, scheme in (("source", src_scheme), ("destination", dst_scheme)):
        if scheme is None:
            continue
        if side == "source":
            listed = inventory.objects + inventory.directories_marked
            requests = _source(listed, transfers, large[0], 0 if dst_scheme else extraneous)
        else:
            seen = _at_destination(inventory, extraneous) if lists_destination else None
            requests = _destination(seen, transfers, large[0], extraneous)
        if scheme not in _FILES:
            lines += [Line(side, name, count, basis) for name, count, basis in requests if count]
        if side == "source":
            if to_copy[0] or dst_scheme:
                lines.append(Line(side, "bytes read", to_copy[1], "all that is copied"))
        else:
            lines.append(Line(side, "bytes written", to_copy[1], "all that is copied"))
            if prices and "storage_gb_month" in prices.destination:
                kept = Line(side, "bytes kept", to_copy[1], "a month, what is copied", None, True)
                lines.append(kept)
    if prices:
        schemes = {"source": src_scheme, "destination": dst_scheme}
        lines = [_priced(line, prices, schemes[line.side] == "file") for line in lines]
    duration_s = to_copy[1] * 8 / (rate_mbps * 1e6) if rate_mbps else None
    currency = prices.currency if prices else ""
    return Estimate(
        tuple(lines), *to_copy, rate_mbps or None, duration_s, prices is not None, currency
    )


def _source(seen: int, gets: int, large: int, removed: int) -> Iterator[tuple[str, int, str]]:
    yield "LIST", _pages(seen), "one for 1,000 keys"
    yield "GET", gets, "one for each small object and each part"
    yield "HEAD", large, "one for each large object, over 64 MiB"
    yield "DELETE", -(-removed // PAGE), "one for 1,000 keys to be removed"


def _destination(
    seen: int | None, puts: int, large: int, removed: int
) -> Iterator[tuple[str, int, str]]:
    """``seen`` None: not listed."""
    yield "LIST", 0 if seen is None else _pages(seen), "one for 1,000 keys"
    yield "HEAD", large, "one for each large object, over 64 MiB"
    yield "PUT", puts, "one for each small object and each part"
    yield "POST", 2 * large, "two for each large object"
    yield "DELETE", -(-removed // PAGE), "one for 1,000 keys to be removed"


def _at_destination(inventory: Inventory, extraneous: int) -> int:
    """How many keys the destination has, by what became of them."""
    counts = {name: tally.objects for name, tally in inventory.forecast.by_verdict()}
    there = sum(counts.get(name, 0) for name in ("changed", "unchanged", "left"))
    return there + max(extraneous, counts.get("extraneous", 0))


def _pages(keys: int) -> int:
    return max(1, -(-keys // PAGE))


_BYTES = {"bytes read": "out_gb", "bytes written": "in_gb", "bytes kept": "storage_gb_month"}


def _priced(line: Line, prices: Prices, is_here: bool) -> Line:
    """With its cost; nobody charges for the way to or from a disk of this machine."""
    charged = prices.source if line.side == "source" else prices.destination
    price = charged.get(_BYTES.get(line.name, line.name))
    if is_here and line.name in ("bytes read", "bytes written"):
        price = 0.0
    cost = None if price is None else price * line.count / (1e9 if line.is_bytes else 1000)
    return Line(line.side, line.name, line.count, line.basis, cost, line.monthly)


def load_prices(path: str | Path) -> Prices:
    """Reads a price list; raises UsageError for one that cannot be understood.

    ``{"currency": "USD", "source": {"GET": 0.0004, "out_gb": 0.09}, "destination": {...}}``;
    the names are in PRICED.
    """
    where = f"the price list {path}"
    try:
        with open(path, encoding="utf-8") as file:
            kept = json.load(file)
    except OSError as exc:
        raise UsageError(f"{where} cannot be read: {exc.strerror}; name a JSON file") from exc
    except (ValueError, RecursionError) as exc:
        why = " ".join(str(exc).split())
        raise UsageError(
            f'{where} is no JSON ({why}); write {{"currency": "USD", "source": {{"GET": 0.0004}}}}'
        ) from exc
    if not isinstance(kept, dict):
        raise UsageError(f"{where} is no JSON object; write {{...}} around it")
    _check_names(where, kept, ("currency", *PRICED))
    currency = kept.get("currency", "")
    if not isinstance(currency, str) or not currency.isprintable() or len(currency) > 8:
        raise UsageError(f'{where}: currency {currency!r:.40} is no short name; write "USD"')
    sides = [_side(where, side, kept.get(side, {})) for side in PRICED]
    return Prices(currency, *sides)


def _side(where: str, side: str, charged: object) -> dict[str, float]:
    if not isinstance(charged, dict):
        raise UsageError(f'{where}: {side} is no object; write "{side}": {{"GET": 0.0004}}')
    _check_names(f"{where}: {side}", charged, PRICED[side])
    for name, price in charged.items():
        number = isinstance(price, (int, float)) and not isinstance(price, bool)
        if not number or not 0 <= price < 1e12:  # nor NaN
            unit = "a GB" if "gb" in name else "1,000 requests"
            raise UsageError(
                f"{where}: {side} {name} is {json.dumps(price)[:40]}; write the price of {unit},"
                " 0 or more"
            )
    return {name: float(price) for name, price in charged.items()}


def _check_names(where: str, given: dict[str, Any], known: tuple[str, ...]) -> None:
    for name in given:
        if name not in known:
            raise UsageError(f"{where} names {name!r:.40}; write one of {', '.join(known)}")
