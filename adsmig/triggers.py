"""When a schedule is due: cron's five fields, in a time zone.

A time on the clock is meant.  One that does not exist on the day on which clocks are put forward
comes when they have been, and one that exists twice comes the first time only.  What is due every
hour, or more often all day long, goes by hours that pass, which no clock doubles or leaves out.
"""

from __future__ import annotations

import re
from calendar import month_name, monthrange
from datetime import datetime
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from tzlocal import get_localzone_name

from adsmig.errors import UsageError

_FIELDS = 5
_NAMED = {"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *",
          "@weekly": "0 0 * * 0", "@monthly": "0 0 1 * *", "@yearly": "0 0 1 1 *",
          "@annually": "0 0 1 1 *"}  # fmt: skip
"""What crontab(5) has words for."""
_EXAMPLE = (
    "write MINUTE HOUR DAY MONTH WEEKDAY, as '0 2 1 * *' for 02:00 on each month's first day; or"
    " @hourly, @daily, @weekly, @monthly or @yearly"
)


def local_timezone() -> str:
    """The IANA name of the time zone that this machine is in."""
    try:
        return get_localzone_name() or "UTC"
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise UsageError("this machine's time zone has no name; add --timezone NAME") from exc


@lru_cache(maxsize=1024)
def next_time(cron: str, timezone: str, after: float) -> float:
    """The first time later than ``after`` that ``cron`` names; both are Unix times.

    Raises UsageError for what is no cron expression or time zone, or for a time that never comes.
    """
    zone = _zone(timezone)
    try:
        since = datetime.fromtimestamp(after, zone)
        for at in CronSim(_plain(cron, since), since):
            # In the hour that exists twice, CronSim begins with its first half again.
            if at.timestamp() > after:
                return at.timestamp()
    except CronSimError as exc:
        raise UsageError(f"--cron {cron!r}: {str(exc).lower()}; {_EXAMPLE}") from exc
    raise UsageError(f"--cron {cron!r} names a day that never comes")


def short_months(cron: str) -> list[str]:
    """The months in which what is due on days of the month only, and not on the last, is not due
    although it names them, for they have no such day; February as in most years.
    """
    known = CronSim(_NAMED.get(cron.strip(), cron), datetime(2001, 1, 1))
    if known.weekdays < set(range(7)) or min(known.days) < 1:
        return []
    first = min(known.days)
    return [month_name[one] for one in sorted(known.months) if monthrange(2001, one)[1] < first]


def _plain(cron: str, since: datetime) -> str:
    """The same with a '*' before its hour and minute only if it is due every hour.

    By such a '*' CronSim tells what goes by hours that pass; it would take ``*/2`` for that.
    """
    cron = _NAMED.get(cron.strip(), cron)
    fields = cron.split()
    if len(fields) != _FIELDS:
        raise UsageError(f"--cron {cron!r} has not five fields; {_EXAMPLE}")
    if len(CronSim(cron, since).hours) == 24:
        fields[1] = "*"
    else:
        fields[0] = re.sub(r"^\*", "0-59", fields[0])
        fields[1] = re.sub(r"^\*", "0-23", fields[1])
    return " ".join(fields)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise UsageError(
            f"--timezone {name!r} is no time zone that this machine knows: write AREA/CITY, as"
            " Europe/Berlin (where none is known, install tzdata)"
        ) from exc
