"""Pages for people: one HTML file each, which needs no network, no script and no other file.

Whatever a key holds, it is shown as text; plots come from :mod:`adsmig.plots`, each with its table.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from html import escape

from adsmig import report, tables
from adsmig.estimate import Estimate
from adsmig.inventory import Inventory
from adsmig.job import Job
from adsmig.ledger import Run
from adsmig.manifest import Manifest
from adsmig.plots import Plots, compact, short_size
from adsmig.progress import duration, several, size
from adsmig.style import STYLE
from adsmig.tables import Section, money, percent, printable
from adsmig.tally import Tally
from adsmig.timeline import Timeline, timeline

TOP = 10
"""Rows of a plot, and of a table of the largest or the slowest."""
LONG = 20
"""Rows of a table which is cut, and scrolls, beyond this."""
MOST_RUNS = 24
"""Runs that the plot of a job's history shows, the last ones; the table beside it has 100."""

_KEYS = ("key", "first key", "directory", "for example")
"""Columns of what may be long, without a blank to break a line at."""
_VERDICT_COLOURS = {"new": 1, "changed": 2, "unchanged": 3, "left": 0, "extraneous": 5,
                    "unreadable": 4}  # fmt: skip
"""As in plots: 1 blue, 2 amber, 3 green, 4 red, 5 violet, 6 teal, 0 grey."""


# A page about what is there


def inventory_page(
    title: str,
    facts: list[tuple[str, str]],
    inventory: Inventory,
    estimate: Estimate | None,
    info: bool,
) -> str:
    """What is there and what would be done: the figures of tables.inventory_lines, with plots.

    Raises AdsmigError without matplotlib.
    """
    return _page(title, facts, _tiles(inventory, estimate), _cards(inventory, estimate, info))


def _tiles(inventory: Inventory, estimate: Estimate | None) -> Iterator[str]:
    yield _tile("objects", f"{inventory.objects:,}", _marked(inventory))
    average = f"{size(inventory.total.average)} an object" if inventory.objects else ""
    yield _tile("size", size(inventory.size), average)
    if estimate and estimate.objects and inventory.forecast.by_verdict():
        share = f"{size(estimate.size)}, {percent(estimate.size, inventory.size)} of the bytes"
        yield _tile("to be copied", f"{estimate.objects:,}", share)
    if estimate and estimate.duration_s is not None and estimate.size:
        rate = f"at {estimate.rate_mbps:,g} megabits a second"
        yield _tile("would take", duration(estimate.duration_s), rate)
    if estimate and estimate.cost is not None:
        monthly = estimate.monthly_cost
        kept = "" if monthly is None else f"then {money(monthly, estimate.currency)} a month"
        yield _tile("would cost", money(estimate.cost, estimate.currency), kept)
    if troubles := inventory.forecast.troubles():
        count = sum(count for _, count, _ in troubles)
        yield _tile("trouble to be expected", f"{count:,}", troubles[0][0], bad=True)


def _marked(inventory: Inventory) -> str:
    marked = inventory.directories_marked
    return f"and {several(marked, 'directory marker')}" if marked else ""


def _cards(inventory: Inventory, estimate: Estimate | None, info: bool) -> Iterator[str]:
    plots = Plots()
    for section in tables.sections(inventory, estimate, info, TOP):
        if section.name in ("size", "age"):
            tallies = inventory.by_size() if section.name == "size" else inventory.by_age()
            names = {row[0] for row in section.rows}
            rows = [(name, tally.objects, tally.size) for name, tally in tallies if name in names]
            yield _card(section, plots.paired(rows, section.title, _said(section)))
        elif section.name == "directory":
            yield _card(
                section, _ranked(plots, section, _directories(inventory)), wide=info, opened=info
            )
        elif section.name == "extension":
            yield _card(section, _ranked(plots, section, inventory.by_extension(), 6))
        elif section.name == "storage_class":
            yield _card(section, _ranked(plots, section, inventory.by_storage_class(), 5))
        elif section.name == "verdict":
            yield _card(section, _verdicts(plots, section, inventory), opened=True)
        else:
            yield _card(section, wide=section.name in ("estimate", "trouble"))


def _directories(inventory: Inventory) -> list[tuple[str, Tally]]:
    depth = inventory.depth
    return [(tables.directory_name(name, depth), tally) for name, tally in inventory.by_directory()]


def _ranked(plots: Plots, section: Section, found: list[tuple[str, Tally]], colour: int = 1) -> str:
    rows = [(name, tally.size, _amount(tally)) for name, tally in found[:TOP]]
    return plots.ranked(rows, section.title, _said(section), colour)


def _amount(tally: Tally) -> str:
    return f"{compact(tally.objects)} · {size(tally.size)}"


def _verdicts(plots: Plots, section: Section, inventory: Inventory) -> str:
    tallies = dict(inventory.forecast.by_verdict())
    rows = [
        (name, tallies[name].objects, tallies[name].size, _VERDICT_COLOURS.get(name, 0))
        for name, *_ in section.rows
    ]
    return plots.shares(rows, section.title, _said(section))


def _said(section: Section) -> str:
    """What a plot shows, in words: the first rows of its table."""
    rows = (", ".join(f"{cell}" for cell in row) for row in section.rows[:TOP])
    return f"{', '.join(section.columns)}: {'; '.join(rows)}"


# A page about a job


def run_page(job: Job, manifest: Manifest) -> str:
    """A job: its last run over time, what was slow, what failed, and all its runs.

    Raises AdsmigError without matplotlib.
    """
    runs, _ = manifest.runs_seen()
    facts = [("Job", job.id), ("Command", job.command), ("From", job.origin)]
    if job.dst:
        facts.append(("To", job.target))
    facts.append(("Manifest", str(manifest.path or "in memory")))
    facts.append(("Made", report.clock(time.time())))
    title = f"{job.command} {job.origin}" + (f" to {job.target}" if job.dst else "")
    if not runs:
        empty = '<section class="card wide"><h2>It has not been run yet</h2></section>'
        return _page(title, facts, (), [empty])
    facts.insert(2, ("Last run", _state(runs[-1])))
    return _page(title, facts, _run_tiles(runs[-1]), _run_cards(job, manifest, runs))


def _state(run: Run) -> str:
    resumed = f", resumed {run.resumed}×" if run.resumed else ""
    message = f": {run.message}" if run.message else ""
    return f"{run.id} ({run.kind}), {run.state}{resumed}{message}"


def _run_tiles(run: Run) -> Iterator[str]:
    counts = run.counts
    yield _tile("found", f"{counts.found:,}", size(counts.found_bytes))
    yield _tile("copied", f"{counts.copied:,}", size(counts.copied_bytes))
    if counts.unchanged or run.kind != "cp":
        yield _tile("unchanged", f"{counts.unchanged:,}", size(counts.unchanged_bytes))
    if counts.left:
        yield _tile("left alone", f"{counts.left:,}")
    if counts.deleted:
        yield _tile("deleted", f"{counts.deleted:,}", size(counts.deleted_bytes))
    if run.ended:
        seconds = run.ended - run.started
        yield _tile("took", duration(seconds), f"from {report.clock(run.started)[:16]}")
    else:
        yield _tile("began", report.clock(run.started)[11:], report.clock(run.started)[:10])
    yield _tile("failed", f"{counts.failed:,}", bad=counts.failed > 0)


def _run_cards(job: Job, manifest: Manifest, runs: list[Run]) -> Iterator[str]:
    plots, last = Plots(), runs[-1]
    failures = manifest.failure_kinds()
    if failures:
        yield _failures(plots, failures, report.which(job, manifest))
    line = timeline(manifest.slices(last.id))
    if line:
        yield _throughput(plots, line)
        yield _progress(plots, line)
    slowest = manifest.slowest(last.id, TOP)
    if slowest:
        yield _card(_slowest(slowest))
    yield _history(plots, runs)


def _throughput(plots: Plots, line: Timeline) -> str:
    rates, objects = line.rate(line.copied_bytes), line.rate(line.copied)
    seconds = line.edges_s[-1]
    rows = [
        ("bytes a second", f"{size(sum(line.copied_bytes) / seconds)}/s", f"{size(max(rates))}/s"),
        ("objects a second", f"{sum(line.copied) / seconds:,.1f}", f"{max(objects):,.1f}"),
        ("workers at work", f"{sum(line.busy) / len(line.busy):.1f}", f"{max(line.busy):.1f}"),
    ]
    notes = tuple(
        f"after {duration(at)} of running, nothing ran for {duration(pause)}; this time is cut out"
        for at, pause in line.pauses[:TOP]
    )
    title = "Throughput of the last run"
    section = Section("throughput", title, ("figure", "average", "most"), rows, notes=notes)
    panels = [
        ("bytes a second", rates, short_size, 1),
        ("objects a second", objects, compact, 6),
        ("workers at work", line.busy, compact, 5),
    ]
    drawn = plots.over_time(line.edges_s, panels, line.pauses, title, _said(section))
    return _card(section, drawn)


def _progress(plots: Plots, line: Timeline) -> str:
    sizes, objects = line.running(line.copied_bytes), line.running(line.copied)
    rows = []
    for tenths in range(1, 11):
        at = len(sizes) * tenths // 10 - 1
        rows.append((duration(line.edges_s[at + 1]), f"{objects[at]:,.0f}", size(sizes[at])))
    title, columns = "Progress of the last run", ("running time", "objects copied", "bytes copied")
    section = Section("progress", title, columns, rows)
    panels = [
        ("bytes copied", sizes, short_size, 1),
        ("objects copied, without large ones", objects, compact, 6),
    ]
    drawn = plots.over_time(line.edges_s, panels, line.pauses, title, _said(section))
    return _card(section, drawn, opened=True)


def _slowest(found: list[tuple[bytes, int, float]]) -> Section:
    rows = [
        (printable(key), size(count), f"{seconds:,.1f}", f"{size(count / max(seconds, 1e-3))}/s")
        for key, count, seconds in found
    ]
    columns = ("key", "bytes", "seconds", "rate")
    return Section("slowest", "Slowest objects of the last run", columns, rows)


def _failures(plots: Plots, kinds: list[tuple[str, int, str]], which: str) -> str:
    rows = [(kind, f"{count:,}", example) for kind, count, example in kinds]
    program = report.program()
    notes = (
        f"all of them: {program} failures {which}",
        f"try them again: {program} retry {which}",
    )
    section = Section(
        "failures", "What failed", ("kind", "objects", "for example"), rows, (0, 2), notes
    )
    bars = [(kind, count, f"{count:,}") for kind, count, _ in kinds[:TOP]]
    return _card(section, plots.ranked(bars, section.title, _said(section), 4), opened=True)


def _history(plots: Plots, runs: list[Run]) -> str:
    columns = ("run", "began", "state", "took", "copied", "bytes", "failed", "unchanged", "found",
               "deleted", "bytes")  # fmt: skip
    rows = [
        (
            f"{run.id} ({run.kind})", report.clock(run.started)[:16], run.state,
            duration(run.ended - run.started) if run.ended else "",
            f"{run.counts.copied:,}", size(run.counts.copied_bytes), f"{run.counts.failed:,}",
            f"{run.counts.unchanged:,}", f"{run.counts.found:,}", f"{run.counts.deleted:,}",
            size(run.counts.deleted_bytes),
        )
        for run in reversed(runs[-100:])
    ]  # fmt: skip
    section = Section("history", "All runs", columns, rows, (0, 1, 2))
    if len(runs) == 1:
        return _card(section, wide=True)
    shown = runs[-MOST_RUNS:]
    counts = [run.counts for run in shown]
    panels = [
        ("objects copied", [one.copied for one in counts], compact, 1),
        ("bytes copied", [one.copied_bytes for one in counts], short_size, 1),
        ("objects unchanged", [one.unchanged for one in counts], compact, 3),
        ("objects failed", [one.failed for one in counts], compact, 4),
        ("objects deleted", [one.deleted for one in counts], compact, 5),
        ("bytes deleted", [one.deleted_bytes for one in counts], short_size, 5),
    ]
    panels = [one for one in panels if any(one[1])] or panels[:1]
    labels = [time.strftime("%d %b %y", time.localtime(run.started)) for run in shown]
    drawn = plots.history(labels, panels, section.title, _said(section))
    return _card(section, drawn, wide=True, opened=True)


# HTML


def _page(
    title: str, facts: Sequence[tuple[str, str]], tiles: Iterable[str], cards: Iterable[str]
) -> str:
    listed = "".join(
        f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>" for name, value in facts
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{_text(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<header><h1>{_text(title)}</h1><dl class="facts">{listed}</dl></header>
<main>
<ul class="tiles">{"".join(tiles)}</ul>
<div class="cards">{"".join(cards)}</div>
</main>
<footer>Made by adsmig. Bytes in powers of 1,000: 1 kB is 1,000 bytes.</footer>
</body>
</html>
"""


def _tile(name: str, figure: str, more: str = "", bad: bool = False) -> str:
    kind = "tile bad" if bad else "tile"
    below = f'<span class="more">{_text(more)}</span>' if more else ""
    return (
        f'<li class="{kind}"><span class="name">{_text(name)}</span>'
        f"<strong>{_text(figure)}</strong>{below}</li>"
    )


def _card(section: Section, plot: str = "", wide: bool = False, opened: bool = False) -> str:
    """A plot and its table, which is folded unless ``opened``; or a table alone."""
    table = _table(section)
    if plot:
        shown = " open" if opened else ""
        plot = f'<div class="plot">{plot}</div>'
        table = f"<details{shown}><summary>The figures</summary>{table}</details>"
    notes = "".join(f"<p>{_text(note)}</p>" for note in section.notes)
    kind = "card wide" if wide else "card"
    return (
        f'<section class="{kind}" id="{section.name}"><h2>{_text(section.title)}</h2>'
        f'<div class="body">{plot}{table}</div><div class="notes">{notes}</div></section>'
    )


def _table(section: Section) -> str:
    kinds = [
        ' class="k"' if name in _KEYS else "" if at in section.words else ' class="n"'
        for at, name in enumerate(section.columns)
    ]
    head = "".join(
        f'<th scope="col"{kind}>{_text(name)}</th>'
        for name, kind in zip(section.columns, kinds, strict=True)
    )
    body = []
    for first, *others in section.rows:
        cells = "".join(
            f"<td{kind}>{_text(cell)}</td>" for cell, kind in zip(others, kinds[1:], strict=True)
        )
        body.append(f'<tr><th scope="row"{kinds[0]}>{_text(first)}</th>{cells}</tr>')
    scroll = "scroll long" if len(body) > LONG else "scroll"
    return (
        f'<div class="{scroll}" tabindex="0" role="region" aria-label="{_text(section.title)}">'
        f"<table><caption>{_text(section.title)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _text(text: str) -> str:
    """Text for a page, safe in an attribute too; what cannot be printed is written out."""
    plain = text.encode("utf-8", "backslashreplace").decode()
    if not plain.isprintable():
        plain = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in plain)
    return escape(plain)
