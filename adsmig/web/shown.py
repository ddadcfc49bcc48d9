"""How figures, times and keys are written on pages: filters of the templates."""

from __future__ import annotations

import time
from datetime import datetime
from zoneinfo import ZoneInfo

from adsmig.progress import duration, size
from adsmig.report import printable
from adsmig.web.text import gettext as _
from adsmig.web.text import marked, ngettext

STATE_WORDS = {
    "new": marked("New"),
    "starting": marked("Starting"),
    "running": marked("Running"),
    "stopping": marked("Stopping"),
    "paused": marked("Paused"),
    "interrupted": marked("Interrupted"),
    "stopped": marked("Stopped"),
    "refused": marked("Refused"),
    "cancelled": marked("Cancelled"),
    "failures": marked("Finished with failures"),
    "finished": marked("Finished"),
    "unreadable": marked("Unreadable"),
}


def state_word(state: str) -> str:
    """A state, of a job or of a run, in the language of the page."""
    return _(STATE_WORDS[state]) if state in STATE_WORDS else state


def number(count: float) -> str:
    """``1,234,567``."""
    return f"{count:,.0f}"


def clock(seconds: float | None) -> str:
    """A time of this machine's zone, to the minute; nothing for None."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if seconds else ""


def clock_in(seconds: float, zone: str) -> str:
    """A time of another zone, to the minute."""
    return f"{datetime.fromtimestamp(seconds, ZoneInfo(zone)):%Y-%m-%d %H:%M}"


def iso(seconds: float) -> str:
    """The same for programs, with its zone."""
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")


def ago(seconds: float | None) -> str:
    """How long ago that was, in one figure."""
    if not seconds:
        return ""
    passed = max(0.0, time.time() - seconds)
    if passed < 60:
        return _("just now")
    if passed < 3600:
        return ngettext("%(n)s minute ago", "%(n)s minutes ago", int(passed // 60)) % {
            "n": int(passed // 60)
        }
    if passed < 86400:
        return ngettext("%(n)s hour ago", "%(n)s hours ago", int(passed // 3600)) % {
            "n": int(passed // 3600)
        }
    if passed < 30 * 86400:
        return ngettext("%(n)s day ago", "%(n)s days ago", int(passed // 86400)) % {
            "n": int(passed // 86400)
        }
    return time.strftime("%Y-%m-%d", time.localtime(seconds))


def percent(fraction: float | None) -> str:
    """``42%``; nothing for None, and never 100% of what is not done."""
    if fraction is None:
        return ""
    return f"{100 * fraction:.0f}%" if fraction in (0, 1) else f"{min(99.9, 100 * fraction):.1f}%"


FILTERS = {
    "size": size, "duration": duration, "number": number, "clock": clock, "clock_in": clock_in,
    "iso": iso, "ago": ago, "percent": percent, "printable": printable, "state_word": state_word,
}  # fmt: skip
