"""The clockwork: begins the runs of schedules when they are due."""

from __future__ import annotations

import logging
import signal
import threading

from adsmig.errors import AdsmigError
from adsmig.interruption import SIGNALS
from adsmig.progress import duration
from adsmig.schedule import Schedule
from adsmig.schedules import Schedules

log = logging.getLogger(__name__)

LONGEST_SLEEP_S = 5.0
"""So soon it notices new schedules, a clock that was set, and that the machine had been asleep."""


class Scheduler:
    """Serves ``schedules`` in a thread of its own, from :meth:`start` to :meth:`stop`.

    There may be any number of them, in any number of processes: no run begins twice.  Runs are
    processes of their own, which no end of a scheduler harms.
    """

    def __init__(self, schedules: Schedules) -> None:
        self._schedules = schedules
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="scheduler", daemon=True)
        self._trouble: dict[str, str] = {}
        self._begun: dict[str, str] = {}
        """By schedule: the run that was begun here, and whose end was not told."""

    def start(self) -> None:
        """Returns at once; raises ManifestError or StorageFull if the schedules cannot be read."""
        self._schedules.all()
        self._thread.start()

    def stop(self) -> None:
        """Returns once nothing is begun any more, after no more than a moment.

        A run that is just being begun is either whole by then, or is lost, and begun again later.
        """
        self._stopping.set()
        self._thread.join(LONGEST_SLEEP_S)

    def tick(self) -> float:
        """Begins what is due; how many seconds later to look again, at the latest."""
        now = self._schedules.clock()
        try:
            schedules = self._schedules.all()
            self._trouble.pop("", None)
        except AdsmigError as exc:
            self._complain("", str(exc))
            return LONGEST_SLEEP_S
        for one in schedules:
            self._tell_end(one)
            if one.trouble:
                self._complain(one.name, f"{one.name} is not run: {one.trouble}")
            elif one.calls(now) and not self._stopping.is_set():
                self._begin(one, now)
        times = [one.next_run - now for one in schedules if one.next_run and one.next_run > now]
        return min([LONGEST_SLEEP_S, *times])

    def _begin(self, schedule: Schedule, now: float) -> None:
        try:
            run = self._schedules.begin(schedule.name)
        except AdsmigError as exc:
            self._complain(schedule.name, str(exc))
            return
        self._trouble.pop(schedule.name, None)
        if run:
            self._begun[schedule.name] = run.id
            late = f", {duration(now - run.due)} late" if run.due and now - run.due >= 60 else ""
            again = ", again, for it was cut off" if run.again else ""
            log.info("%s begins%s%s; it prints to %s", schedule.name, late, again, run.output)

    def _tell_end(self, schedule: Schedule) -> None:
        run = schedule.last_run
        if not run or schedule.running or self._begun.get(schedule.name) != run.id:
            return
        del self._begun[schedule.name]
        how = run.state if run.exit_code is None else f"ended with exit code {run.exit_code}"
        level, said = (logging.ERROR, run.last_line) if run.failed else (logging.INFO, "")
        log.log(level, "%s %s%s; see %s", schedule.name, how, said and f": {said}", run.output)

    def _complain(self, name: str, error: str) -> None:
        """Says what is wrong, once for as long as it is."""
        if self._trouble.get(name) != error:
            self._trouble[name] = error
            log.error("%s", error)

    def _serve(self) -> None:
        while not self._stopping.is_set():
            try:
                pause_s = self.tick()
            except Exception:  # the schedules of next month are worth more than a clean end
                log.exception("internal error of the scheduler; it goes on")
                pause_s = LONGEST_SLEEP_S
            self._stopping.wait(pause_s)


def serve() -> None:
    """Serves the user's schedules until a signal asks for the end; of the main thread."""
    schedules = Schedules()
    scheduler = Scheduler(schedules)
    ended = threading.Event()
    for one in SIGNALS:
        if signal.getsignal(one) != signal.SIG_IGN:  # as nohup has it
            signal.signal(one, lambda *_: ended.set())
    scheduler.start()
    log.info("serving %s", schedules.path)
    ended.wait()
    scheduler.stop()
