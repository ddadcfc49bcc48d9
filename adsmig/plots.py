"""Plots as inline SVG, which take their colours and their font from the page around them.

matplotlib draws them, and is imported by the first one: it is an extra, and takes its time.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from html import escape
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from adsmig.errors import AdsmigError
from adsmig.progress import size
from adsmig.tables import elided, percent, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MISSING = "plots need matplotlib: pip install 'adsmig[report]'"

WIDTH = 480
"""Of every plot, in its own units, which are pixels where there is room."""
SERIES = 6
"""The colours that a page has to have, as ``--c1`` and so on; ``--muted`` and ``--grid`` too."""

# What matplotlib is told, and what the page is to read instead.
_INK, _MUTED, _GRID = "#010101", "#010102", "#010103"
_COLOURS = [f"#0102{number:02x}" for number in range(1, SERIES + 1)]
_READ_AS = {
    _INK: "currentColor",
    _MUTED: "var(--muted)",
    _GRID: "var(--grid)",
    **{colour: f"var(--c{number})" for number, colour in enumerate(_COLOURS, 1)},
}
_LEFT, _RIGHT = 70, 12
"""Of the axes of a panel: room for the values of its scale."""
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "adsmig",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 13,
    "text.color": _INK,
    "axes.labelcolor": _MUTED,
    "axes.edgecolor": _GRID,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "grid.color": _GRID,
    "grid.linewidth": 1,
    "axes.axisbelow": True,
}


Panel = tuple[str, Sequence[float], Callable[[float], str], int]
"""Its name, a value for each bin or column, how to write a value, and the colour."""


def check_drawing() -> None:
    """Raises AdsmigError without matplotlib, which it does not import."""
    if find_spec("matplotlib") is None:
        raise AdsmigError(_MISSING)


class Plots:
    """Those of one page: their ids do not clash.

    Each has a ``title`` and a ``description``, which say what it shows to who cannot see it.
    """

    def __init__(self) -> None:
        self._count = 0

    @contextmanager
    def _figure(self, height: float, out: list[str], title: str, text: str) -> Iterator[Figure]:
        """A figure to draw on; once left, ``out`` holds it as SVG."""
        try:
            import matplotlib
            from matplotlib.backends.backend_svg import FigureCanvasSVG
            from matplotlib.figure import Figure
        except ImportError as exc:
            raise AdsmigError(_MISSING) from exc
        self._count += 1
        with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of characters that its font lacks; the page's has
            figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72)
            yield figure
            file = io.StringIO()
            FigureCanvasSVG(figure).print_figure(file, format="svg", metadata={"Date": None})
        out.append(_inline(file.getvalue(), f"p{self._count}", title, text))

    def ranked(
        self, rows: Sequence[tuple[str, float, str]], title: str, description: str, colour: int = 1
    ) -> str:
        """A bar for each name, with its name and what it says above: ``(name, value, text)``."""
        row, out = 34, list[str]()
        with self._figure(row * len(rows) + 4, out, title, description) as figure:
            axes = figure.add_axes((0, 0, 1, 1))
            axes.axis("off")
            axes.set(xlim=(0, WIDTH), ylim=(row * len(rows) + 4, 0))
            most = max((value for _, value, _ in rows), default=0) or 1
            for at, (name, value, text) in enumerate(rows):
                top = row * at
                axes.text(0, top + 14, elided(plain(name), 48 - len(text)))
                axes.text(WIDTH, top + 14, text, ha="right", color=_MUTED)
                _bar(axes, 0, WIDTH, top + 20, 8, _GRID)
                _bar(axes, 0, WIDTH * value / most, top + 20, 8, _COLOURS[colour - 1])
        return out[0]

    def paired(self, rows: Sequence[tuple[str, int, int]], title: str, description: str) -> str:
        """Shares of objects and of bytes, side by side: ``(name, objects, bytes)``."""
        row, top, left, gap, out = 26, 26, 116, 62, list[str]()
        room = (WIDTH - left) / 2 - gap
        with self._figure(top + row * len(rows) + 2, out, title, description) as figure:
            axes = figure.add_axes((0, 0, 1, 1))
            axes.axis("off")
            axes.set(xlim=(0, WIDTH), ylim=(top + row * len(rows) + 2, 0))
            counts, sizes = [one[1] for one in rows], [one[2] for one in rows]
            for side, (name, values) in enumerate((("objects", counts), ("bytes", sizes))):
                start = left + side * (room + gap)
                whole, most = sum(values), max(values, default=0) or 1
                axes.text(start, 13, name, color=_MUTED)
                axes.plot([start, start], [top - 4, top + row * len(rows)], color=_GRID)
                for at, value in enumerate(values):
                    width = room * value / most
                    _bar(axes, start, width, top + row * at + 4, 14, _COLOURS[side])
                    if value:
                        middle = top + row * at + 15.5
                        share = percent(value, whole)
                        axes.text(start + width + 5, middle, share, color=_MUTED, size=12)
            for at, (name, _, _) in enumerate(rows):
                axes.text(left - 10, top + row * at + 15.5, name, ha="right")
        return out[0]

    def shares(
        self, rows: Sequence[tuple[str, int, int, int]], title: str, description: str
    ) -> str:
        """What the objects, and the bytes, are made up of: ``(name, objects, bytes, colour)``."""
        out, columns = list[str](), 3
        height = 104 + 20 * math.ceil(len(rows) / columns)
        with self._figure(height, out, title, description) as figure:
            axes = figure.add_axes((0, 0, 1, 1))
            axes.axis("off")
            axes.set(xlim=(0, WIDTH), ylim=(height, 0))
            counts, sizes = [one[1] for one in rows], [one[2] for one in rows]
            for side, (name, values) in enumerate((("objects", counts), ("bytes", sizes))):
                top, start, whole = 46 * side, 0.0, sum(values)
                text = size(whole) if side else f"{whole:,}"
                axes.text(0, top + 14, name, color=_MUTED)
                axes.text(WIDTH, top + 14, text, ha="right", color=_MUTED)
                _bar(axes, 0, WIDTH, top + 20, 16, _GRID)
                for value, (*_, colour) in zip(values, rows, strict=True):
                    width = WIDTH * value / (whole or 1)
                    _bar(axes, start, max(width - 1, width / 2), top + 20, 16, _colour(colour))
                    start += width
            for at, (name, *_, colour) in enumerate(rows):
                left = WIDTH / columns * (at % columns)
                top = 102 + 20 * (at // columns)
                _bar(axes, left, 11, top, 11, _colour(colour))
                axes.text(left + 17, top + 10, elided(plain(name), 18))
        return out[0]

    def over_time(
        self,
        edges_s: Sequence[float],
        panels: Sequence[Panel],
        pauses: Sequence[tuple[float, float]],
        title: str,
        description: str,
    ) -> str:
        """Panels above one time axis; ``edges_s`` are those of the bins.

        ``pauses``: when nothing ran, in running time, and for how many seconds.
        """
        panel, out = 120, list[str]()
        height = panel * len(panels) + 26
        with self._figure(height, out, title, description) as figure:
            for at, (name, values, written, colour) in enumerate(panels):
                axes = _panel(figure, height, panel * at, panel, name, written)
                axes.stairs(
                    values, edges_s, fill=True, color=_COLOURS[colour - 1], alpha=0.22, lw=0
                )
                axes.stairs(values, edges_s, color=_COLOURS[colour - 1], lw=1.5, baseline=None)
                axes.set(xlim=(edges_s[0], edges_s[-1]), ylim=(0, (max(values) or 1) * 1.08))
                for when_s, _ in pauses:
                    axes.axvline(when_s, color=_MUTED, lw=1, ls=(0, (3, 3)))
                if at == 0:
                    _label_pauses(axes, pauses)
            step = tick_step(edges_s[-1])
            axes.set_xticks([step * at for at in range(int(edges_s[-1] / step) + 1)])
            axes.set_xticklabels([spell(tick) if tick else "0" for tick in axes.get_xticks()])
            axes.tick_params(axis="x", labelbottom=True, pad=6)
            axes.text(0, 0, "time", transform=_at_left(axes, -17), color=_MUTED)
        return out[0]

    def history(
        self,
        labels: Sequence[str],
        panels: Sequence[Panel],
        title: str,
        description: str,
    ) -> str:
        """A column for each of ``labels``, in each panel."""
        panel, out = 112, list[str]()
        height = panel * len(panels) + 26
        with self._figure(height, out, title, description) as figure:
            for at, (name, values, written, colour) in enumerate(panels):
                axes = _panel(figure, height, panel * at, panel, name, written)
                width = 0.7 if len(labels) > 3 else 0.7 * len(labels) / 4
                axes.bar(range(len(labels)), values, width, color=_COLOURS[colour - 1], lw=0)
                axes.set(xlim=(-0.6, len(labels) - 0.4), ylim=(0, (max(values) or 1) * 1.08))
            every = math.ceil(len(labels) / 6)
            axes.set_xticks(range(0, len(labels), every))
            axes.set_xticklabels(labels[::every])
            axes.tick_params(axis="x", labelbottom=True, pad=10)
        return out[0]


def _panel(
    figure: Figure,
    height: float,
    top: float,
    room: float,
    name: str,
    written: Callable[[float], str],
) -> Axes:
    """Axes of that height, below its name, with three values at the most on its scale."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    above, below = 28, 8
    axes = figure.add_axes(
        (
            _LEFT / WIDTH,
            1 - (top + room - below) / height,
            (WIDTH - _LEFT - _RIGHT) / WIDTH,
            (room - above - below) / height,
        )
    )
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="y")
    axes.tick_params(labelbottom=False)
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: written(value)))
    axes.text(0, 1, name, transform=_at_left(axes, 12))
    return axes


def _at_left(axes: Axes, up: float) -> Any:
    """Fractions of the axes' height, and ``up``; from the figure's left edge."""
    from matplotlib.transforms import ScaledTranslation

    assert axes.figure
    return axes.transAxes + ScaledTranslation(-_LEFT / 72, up / 72, axes.figure.dpi_scale_trans)


def _label_pauses(axes: Axes, pauses: Sequence[tuple[float, float]]) -> None:
    """How long each was, above its line, where there is room."""
    room = WIDTH - _LEFT - _RIGHT
    longest, free = axes.get_xlim()[1], 70.0
    for when_s, seconds in pauses:
        middle = min(room * when_s / longest, room - 45)
        if middle - 45 >= free:
            free = middle + 45
            axes.annotate(
                f"{spell(seconds)} pause", (middle / room, 1), xycoords="axes fraction",
                textcoords="offset points", xytext=(0, 5), ha="center", color=_MUTED, size=12,
            )  # fmt: skip


def _bar(axes: Axes, left: float, width: float, top: float, height: float, colour: str) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((left, top), width, height, color=colour, lw=0))


def _colour(number: int) -> str:
    """0: that of nothing in particular."""
    return _COLOURS[number - 1] if number else _MUTED


def _inline(svg: str, prefix: str, title: str, description: str) -> str:
    """matplotlib's SVG document as an element of a page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<(metadata|style)\b.*?</\1>", "", svg, flags=re.DOTALL)
    # Within tags only: a '<' or '>' in a text is escaped, and texts are what they are.
    head, *rest = re.split(r"(?=<)", svg)[1:]
    rest = [re.sub(r"^<[^>]*", lambda match: _tag(match[0], prefix), part) for part in rest]
    head = re.sub(r' (width|height)="[^"]*pt"', "", head.rstrip().removesuffix(">"))
    return (
        f'{head} role="img" aria-labelledby="{prefix}-title {prefix}-description">'
        f'<title id="{prefix}-title">{escape(plain(title))}</title>'
        f'<desc id="{prefix}-description">{escape(plain(description))}</desc>{"".join(rest)}'
    )


def _tag(tag: str, prefix: str) -> str:
    """A tag with ids of this figure, the page's colours, and sizes of fonts without the family."""
    tag = re.sub(r'(\bid="|url\(#|xlink:href="#)', rf"\1{prefix}-", tag)
    tag = re.sub(r"#01010[1-3]|#0102\w\w", lambda match: _READ_AS[match[0]], tag)
    return re.sub(r"font(?:-family)?: [^;\"]*'DejaVu Sans'[^;\"]*", _font_size, tag)


def _font_size(match: re.Match[str]) -> str:
    found = re.search(r"[\d.]+px", match[0])
    return f"font-size: {found[0]}" if found else ""


# Scales


def compact(count: float) -> str:
    """``0``, ``950``, ``12k``, ``1.5M``."""
    for power, unit in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if count >= 10**power:
            return f"{count / 10**power:.3g}{unit}"
    return f"{count:.3g}"


def short_size(count: float) -> str:
    """As :func:`adsmig.progress.size`, without a needless ``.0``."""
    return size(count).replace(".0 ", " ")


def spell(seconds: float) -> str:
    """``45 s``, ``5 min``, ``2 h``, ``1.5 d``: a round figure."""
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"


def tick_step(seconds: float) -> float:
    """Between ticks of an axis of so many seconds: five or six of a length that people count in."""
    lengths = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200,
               10800, 21600, 43200, 86400)  # fmt: skip
    days = 86400 * math.ceil(seconds / 86400 / 5)
    return next((length for length in lengths if seconds / length <= 6), days)
