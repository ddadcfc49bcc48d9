"""Figures as tables: for a terminal, for a spreadsheet, and for pages, which show the same ones."""

from __future__ import annotations

import csv
import io
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from adsmig.estimate import Estimate
from adsmig.inventory import Inventory, text, when
from adsmig.progress import duration, several, size
from adsmig.tally import Tally

WIDTH = 100
"""Columns of a terminal that a table may take."""
NARROWEST = 16
"""Columns that a name is left with, at least."""
MOST_ROWS = 1000
"""Directories shown with ``--info``."""

MEANINGS = {
    "new": "to be copied",
    "changed": "to be copied over what is there",
    "unchanged": "found equal: nothing to do",
    "left": "left alone, as an option asks",
    "extraneous": "at the destination only",
    "unreadable": "cannot be copied: would be failures",
}
"""What the verdicts of an inventory say, in the order that they are shown in."""


class Section(NamedTuple):
    """A table, ready to be shown."""

    name: str
    """One word, of those that write CSV."""
    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    words: tuple[int, ...] = (0,)
    """The columns which hold words; the others hold numbers."""
    notes: tuple[str, ...] = ()


def printable(key: bytes) -> str:
    """The key on one line; as a Python literal if it holds what cannot be printed."""
    try:
        text = key.decode()
    except UnicodeDecodeError:
        return repr(key)[1:]
    return text if text.isprintable() and text.strip() == text else repr(text)


def plain(text: str) -> str:
    """Text that somebody else wrote, as :func:`printable` has it."""
    return printable(text.encode("utf-8", "backslashreplace"))


def directory_name(name: bytes, depth: int) -> str:
    """A directory of an inventory of that depth, as people read it."""
    return printable(name) if name else "(in no directory)" if depth else "(everything)"


def percent(part: float, whole: float) -> str:
    """``12.3%``; nothing of nothing is ``0.0%``, and little is not."""
    share = 100 * part / whole if whole else 0.0
    return "<0.1%" if 0 < share < 0.05 else f"{share:.1f}%"


def money(amount: float, currency: str) -> str:
    """``USD 1,234.50``."""
    number = "under 0.01" if 0 < amount < 0.01 else f"{amount:,.2f}"
    return f"{currency} {number}".lstrip()


# Sections


def sections(
    inventory: Inventory, estimate: Estimate | None, info: bool, top: int
) -> Iterator[Section]:
    """All that there is something to say about, the ``top`` most of each; all sorted by bytes."""
    yield Section("total", "In total", ("what", "figure"), total(inventory), (0, 1))
    if not inventory.objects and not inventory.forecast.by_verdict():
        return
    if verdicts := verdict_rows(inventory):
        columns = ("verdict", "objects", "bytes", "meaning")
        yield Section("verdict", "What would be done", columns, verdicts, (0, 3))
    if estimate and estimate.lines:
        yield estimated(estimate)
    if troubles := inventory.forecast.troubles():
        yield trouble(troubles)
    if not inventory.objects:
        return
    yield directories(inventory, info, top)
    yield _groups("size", "Sizes of objects", "size", _trimmed(inventory.by_size()), inventory)
    yield _groups("age", "Ages", "last written", _trimmed(inventory.by_age()), inventory)
    yield _groups("extension", "Extensions", "extension", inventory.by_extension(), inventory, top)
    classes = [(plain(name), tally) for name, tally in inventory.by_storage_class()]
    if [name for name, _ in classes] != ["STANDARD"]:
        yield _groups("storage_class", "Storage classes", "class", classes, inventory, top)
    largest = inventory.largest()
    rows = [(printable(key), size(count)) for key, count in largest[:top]]
    yield Section("largest", "Largest objects", ("key", "bytes"), rows)


def trouble(troubles: list[tuple[str, int, list[bytes]]]) -> Section:
    """What the keys will run into at the destination."""
    rows = [
        (plain(kind), f"{count:,}", printable(keys[0]) if keys else "")
        for kind, count, keys in troubles
    ]
    columns = ("kind", "objects", "first key")
    return Section("trouble", "Trouble to be expected", columns, rows, (0, 2))


def total(inventory: Inventory) -> list[tuple[str, str]]:
    """The figures that are no table: what each is, and the figure."""
    all_, rows = inventory.total, []
    exact = f" ({all_.size:,} bytes)" if all_.size >= 1000 else ""
    rows.append(("objects", f"{all_.objects:,}"))
    rows.append(("size", f"{size(all_.size)}{exact}"))
    if all_.smallest is not None and all_.largest is not None:
        sizes = (
            f"{size(all_.average)}; smallest {size(all_.smallest)}, largest {size(all_.largest)}"
        )
        rows.append(("average", sizes))
    if inventory.empty:
        rows.append(("empty", f"{several(inventory.empty, 'object')} without content"))
    if inventory.objects:
        first, last = when(inventory.first_ns) or "", when(inventory.last_ns) or ""
        rows.append(("written", f"{first[:10]} to {last[:10]} (UTC)"))
    if inventory.large_objects:
        copied_in = several(inventory.large_parts, "part")
        large = f"{several(inventory.large_objects, 'object')}, copied in {copied_in}"
        rows.append(("over 64 MiB", large))
    if inventory.directories_marked:
        count = several(inventory.directories_marked, "directory marker")
        marked = f"{count}, not counted as objects"
        rows.append(("markers", marked))
    return rows


def verdict_rows(inventory: Inventory) -> list[tuple[str, ...]]:
    """Verdict, objects, bytes, meaning; in the order of MEANINGS."""
    tallies = dict(inventory.forecast.by_verdict())
    order = [*MEANINGS, *(name for name in tallies if name not in MEANINGS)]
    return [
        (name, f"{tally.objects:,}", size(tally.size), MEANINGS.get(name, ""))
        for name in order
        if (tally := tallies.get(name))
    ]


def estimated(estimate: Estimate) -> Section:
    """Requests, bytes, time and money."""
    columns: tuple[str, ...] = ("where", "what", "count", "reckoned as")
    rows: list[tuple[str, ...]] = []
    for line in estimate.lines:
        count = size(line.count) if line.is_bytes else f"{line.count:,}"
        rows.append((line.side, line.name, count, line.basis))
    if estimate.priced:
        columns = (*columns, "cost")
        for at, line in enumerate(estimate.lines):
            cost = "no price" if line.cost is None else money(line.cost, estimate.currency)
            rows[at] = (*rows[at], cost)
    notes = []
    if estimate.duration_s is not None:
        rate = f"{estimate.rate_mbps:,g} megabits a second"
        notes.append(f"takes {duration(estimate.duration_s)} at {rate}, all the time")
    if estimate.cost is not None:
        left_out = f" (without {', '.join(estimate.unpriced)})" if estimate.unpriced else ""
        notes.append(f"costs {money(estimate.cost, estimate.currency)} in all{left_out}")
    if estimate.monthly_cost is not None:
        notes.append(f"then {money(estimate.monthly_cost, estimate.currency)} a month to keep it")
    notes.append("what has to be tried again comes on top")
    return Section("estimate", "What it would take", columns, rows, (0, 1, 3), tuple(notes))


def directories(inventory: Inventory, info: bool, top: int) -> Section:
    """Directories; ``info``: all of them within reason, with their extremes."""
    found = [
        (directory_name(name, inventory.depth), tally) for name, tally in inventory.by_directory()
    ]
    title = f"Directories, {inventory.depth} deep" if inventory.depth > 1 else "Directories"
    notes: tuple[str, ...] = ()
    if inventory.depth < inventory.wanted_depth:
        depths = f"too many {inventory.wanted_depth} deep: these are {inventory.depth} deep"
        notes = (depths,)
    if not info:
        section = _groups("directory", title, "directory", found, inventory, top)
        return section._replace(notes=(*section.notes, *notes))
    columns = ("directory", "objects", "bytes", "share", "smallest", "largest", "average")
    rows = [
        (
            name, f"{tally.objects:,}", size(tally.size), percent(tally.size, inventory.size),
            size(tally.smallest or 0), size(tally.largest or 0), size(tally.average),
        )
        for name, tally in found[:MOST_ROWS]
    ]  # fmt: skip
    if len(found) > MOST_ROWS:
        notes = (f"… and {len(found) - MOST_ROWS:,} more: all are in the CSV", *notes)
    return Section("directory", title, columns, rows, notes=notes)


def _groups(
    name: str,
    title: str,
    column: str,
    found: Sequence[tuple[str, Tally]],
    inventory: Inventory,
    top: int | None = None,
) -> Section:
    rows = [
        (
            group, f"{tally.objects:,}", percent(tally.objects, inventory.objects),
            size(tally.size), percent(tally.size, inventory.size),
        )
        for group, tally in found[:top]
    ]  # fmt: skip
    left = found[top:] if top is not None else []
    rest = size(sum(tally.size for _, tally in left))
    notes = (f"… and {len(left):,} more, with {rest}",) if left else ()
    return Section(name, title, (column, "objects", "share", "bytes", "share"), rows, notes=notes)


def _trimmed(found: list[tuple[str, Tally]]) -> list[tuple[str, Tally]]:
    """Without the empty classes at both ends."""
    full = [at for at, (_, tally) in enumerate(found) if tally.objects]
    return found[full[0] : full[-1] + 1] if full else []


# On a terminal


def inventory_lines(
    inventory: Inventory, estimate: Estimate | None, info: bool, top: int = 10
) -> Iterator[str]:
    """Tables for a terminal, at most WIDTH columns wide; only those with something to say."""
    for section in sections(inventory, estimate, info, top):
        if section.name == "total":
            yield from table(section.rows, width=WIDTH)
            continue
        yield ""
        yield from section_lines(section)


def section_lines(section: Section) -> Iterator[str]:
    """One of them, under its title."""
    yield section.title.upper()
    numbers = set(range(len(section.columns))) - set(section.words)
    yield from table([section.columns, *section.rows], right=numbers, width=WIDTH)
    for note in section.notes:
        yield from textwrap.wrap(note, WIDTH)


def table(
    rows: Sequence[tuple[str, ...]], right: set[int] | None = None, width: int | None = None
) -> Iterator[str]:
    """Rows of equal length, as aligned lines; the columns ``right`` flush right.

    Beyond ``width`` columns of a terminal, the widest cells of the other columns are cut.
    """
    right = right or set()
    widths = [max(_width(row[at]) for row in rows) for at in range(len(rows[0]))]
    while width is not None and sum(widths) + 2 * (len(widths) - 1) > width:
        widest = max(
            (at for at in range(len(widths)) if at not in right), key=lambda at: widths[at]
        )
        if widths[widest] <= NARROWEST:
            break
        widths[widest] -= 1
    for row in rows:
        cells = []
        for at, cell in enumerate(row):
            cell = elided(cell, widths[at])
            blanks = " " * (widths[at] - _width(cell))
            cells.append(blanks + cell if at in right else cell + blanks)
        yield "  ".join(cells).rstrip()


def elided(text: str, width: int) -> str:
    """The text in at most ``width`` columns, with a ``…`` in its middle if need be."""
    if _width(text) <= width:
        return text
    start = _beginning(text, width // 2)
    end = _beginning(text[::-1], width - 1 - _width(start))[::-1]
    return f"{start}…{end}"


def _beginning(text: str, width: int) -> str:
    for at, one in enumerate(text):
        width -= _width(one)
        if width < 0:
            return text[:at]
    return text


def _width(text: str) -> int:
    """Columns of a terminal: two for a Chinese character, none for an accent that combines."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1
        for one in text
    )


# For a spreadsheet

_FORMULA = tuple("=+-@\t\r\n＝＋－＠")

CSV_COLUMNS = ("section", "name", "objects", "bytes", "min", "max", "average", "count", "cost",
               "note")  # fmt: skip
"""Sizes in bytes, exact; ``count``: requests, or parts; empty where a column has no meaning."""


def inventory_csv(
    inventory: Inventory, estimate: Estimate | None, partial: str = ""
) -> Iterator[str]:
    """All figures in long form, with a header: records of RFC 4180, each with its CRLF; before
    them, what there is to say of figures that are not of everything.

    Keys are as :func:`adsmig.inventory.text` has them, but :func:`harmless`.
    """
    line = io.StringIO(newline="")
    writer = csv.DictWriter(line, CSV_COLUMNS, restval="")
    writer.writeheader()
    yield line.getvalue()
    told: dict[str, object] = {"section": "partial", "name": "", "note": partial}
    for row in chain([told] if partial else [], _records(inventory, estimate)):
        line.seek(0)
        line.truncate()
        name = str(row["name"])
        writer.writerow({**row, "name": harmless(name)})
        yield line.getvalue()


def harmless(text: str) -> str:
    """The same, with a ``'`` before what a spreadsheet would take for a formula, and carry out
    (owasp.org/www-community/attacks/CSV_Injection).
    """
    return f"'{text}" if text.startswith(_FORMULA) else text


def _records(inventory: Inventory, estimate: Estimate | None) -> Iterator[dict[str, object]]:
    yield {"section": "total", "name": "", **_tallied(inventory.total)}
    for name, time_ns in (("first", inventory.first_ns), ("last", inventory.last_ns)):
        yield {"section": "time", "name": name, "note": when(time_ns) or ""}
    yield {"section": "marker", "name": "directory", "objects": inventory.directories_marked}
    large, parts = inventory.large_objects, inventory.large_parts
    yield {"section": "large", "name": "over 64 MiB", "objects": large, "count": parts}
    groups: tuple[tuple[str, list[tuple[str, Tally]]], ...] = (
        ("verdict", inventory.forecast.by_verdict()),
        ("directory", [(text(name), tally) for name, tally in inventory.by_directory()]),
        ("size", inventory.by_size()),
        ("age", inventory.by_age()),
        ("extension", inventory.by_extension()),
        ("storage_class", inventory.by_storage_class()),
    )
    for section, tallies in groups:
        for name, tally in tallies:
            yield {"section": section, "name": name, **_tallied(tally)}
    for key, count in inventory.largest():
        yield {"section": "largest", "name": text(key), "objects": 1, "bytes": count}
    for kind, count, keys in inventory.forecast.troubles():
        yield {"section": "trouble", "name": kind, "objects": count}
        for key in keys:
            yield {"section": "example", "name": text(key), "note": kind}
    if estimate:
        yield from _expected(estimate)


def _tallied(tally: Tally) -> dict[str, object]:
    plain: dict[str, object] = {"objects": tally.objects, "bytes": tally.size}
    if tally.smallest is not None:
        plain |= {"min": tally.smallest, "max": tally.largest, "average": f"{tally.average:.1f}"}
    return plain


def _expected(estimate: Estimate) -> Iterator[dict[str, object]]:
    for line in estimate.lines:
        yield {
            "section": f"estimate {line.side}",
            "name": line.name,
            "bytes" if line.is_bytes else "count": line.count,
            "cost": "" if line.cost is None else f"{line.cost:.6f}",
            "note": line.basis,
        }
    if estimate.duration_s is not None:
        yield {
            "section": "estimate",
            "name": "seconds",
            "count": round(estimate.duration_s),
            "note": f"at {estimate.rate_mbps:g} megabits a second",
        }
    for name, cost in (("cost", estimate.cost), ("cost a month", estimate.monthly_cost)):
        if cost is not None:
            note = estimate.currency
            yield {"section": "estimate", "name": name, "cost": f"{cost:.6f}", "note": note}
