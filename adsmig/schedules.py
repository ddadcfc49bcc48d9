"""Schedules: which job is to run when, and what became of its last runs, in one SQLite file.

A run holds the lock of its schedule, with flock, from before it is noted until its last process is
gone: whoever wants to begin one takes the lock, and hands it on.  So runs of a schedule never
overlap, however many schedulers there are; and a run that is noted as open while nobody has the
lock was lost, as by a power cut.

What is due is not kept, but the moment up to which all is settled, ``since``: whatever came due
later, once or ten times, is made up for by one run.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from adsmig.commandline import job_later
from adsmig.database import Database
from adsmig.errors import AdsmigError, UsageError
from adsmig.launch import launch, told
from adsmig.ledger import state_directory
from adsmig.schedule import SCHEDULES, Schedule, ScheduledRun, check_name, check_webhook
from adsmig.triggers import local_timezone, next_time

KEPT = 20
"""Ended runs of a schedule that are kept, with what they printed."""
CLOCK_STEP_S = 3 * 3600
"""A clock that is put back by less does not make anything due again; as in cron(8)."""
LOCK_TRIES = 4
"""A twentieth of a second apart: who only looks whether a lock is free has it for a moment."""


class Schedules:
    """All schedules of a user.  For any thread; it keeps nothing open.

    Each method raises UsageError for a name that is not there, and ManifestError or StorageFull if
    the file cannot be used.
    """

    def __init__(
        self, directory: Path | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        """``directory`` None: the user's state directory.  ``clock`` tells Unix time."""
        self._directory = directory or state_directory().parent
        self.clock = clock
        self.path = self._directory / "schedules.db"
        self._ahead: dict[str, float] = {}
        """Those up to whose ``since`` the clock is yet to come: when they were first looked at."""

    def __repr__(self) -> str:
        return f"Schedules({self.path})"

    # What a person does with them

    def add(
        self,
        arguments: Sequence[str],
        cron: str,
        *,
        name: str = "",
        timezone: str = "",
        on_failure: str = "",
        webhook: str = "",
    ) -> Schedule:
        """A new schedule, of ``adsmig ARGUMENTS...``; due for the first time after now.

        Without a ``name`` it gets one of its command, without a ``timezone`` this machine's.
        Raises UsageError, and keeps nothing, if anything is wrong with it, or holds a secret.
        """
        command = job_later(arguments).command
        zone, now = timezone or local_timezone(), self.clock()
        next_time(cron, zone, now)
        check_webhook(webhook)
        check_name(name)
        with self._open() as database, database.transaction() as execute:
            names = {row[0] for row in execute("SELECT name FROM schedules")}
            if name in names:
                raise UsageError(
                    f"there is a schedule {name} already: choose another --name, or"
                    f" adsmig schedule remove {name}"
                )
            numbers = range(1, len(names) + 2)
            name = name or next(n for i in numbers if (n := f"{command}-{i}") not in names)
            row = (name, cron, zone, json.dumps(list(arguments)), on_failure, webhook, 0, now, now)
            execute(f"INSERT INTO schedules VALUES ({', '.join('?' * len(row))})", row)
        return self.get(name)

    def all(self) -> list[Schedule]:
        """All of them, by name."""
        with self._open() as database:
            rows = database.rows("SELECT * FROM schedules ORDER BY name")
            return [self._schedule(database, row) for row in rows]

    def get(self, name: str) -> Schedule:
        """The one of that name."""
        with self._open() as database:
            return self._schedule(database, _row(database, name))

    def runs(self, name: str) -> list[ScheduledRun]:
        """Its runs that are still known, the last one first."""
        with self._open() as database:
            _row(database, name)
            return [self._seen(run) for run in self._runs(database, name)]

    def pause(self, name: str) -> None:
        """Has it begin no more runs.  One that is under way goes on."""
        self._set(name, "paused = 1")

    def resume(self, name: str) -> None:
        """Has it begin runs again, from now on: what came due meanwhile is not made up for."""
        self._set(name, "since = CASE WHEN paused THEN ? ELSE since END, paused = 0", self.clock())

    def remove(self, name: str) -> None:
        """Forgets it, and what its runs printed.  One that is under way goes on."""
        with self._open() as database, database.transaction() as execute:
            _row(database, name)
            execute("DELETE FROM schedules WHERE name = ?", (name,))
            execute("DELETE FROM runs WHERE schedule = ?", (name,))
        if (lock := self._lock(name)) is not None:
            shutil.rmtree(self._folder(name), ignore_errors=True)
            os.close(lock)

    def run_now(self, name: str) -> ScheduledRun:
        """Begins a run, of a schedule that is paused as well; whether a scheduler runs or not.

        Raises AdsmigError if one is under way.
        """
        self.get(name)
        if run := self._begin(name, asked=True):
            return run
        last = self.get(name).last_run
        where = f"; what it prints is in {last.output}" if last else ""
        raise AdsmigError(f"{name} is running already: wait for its end{where}")

    # What a scheduler does with them

    def begin(self, name: str) -> ScheduledRun | None:
        """Begins a run if one is due and none is under way, or if the last one was lost.

        A run is begun in place of one that was lost; if that is lost as well, only the hooks are
        called.
        """
        return self._begin(name, asked=False)

    def _begin(self, name: str, *, asked: bool) -> ScheduledRun | None:
        if (lock := self._lock(name)) is None:
            return None
        try:
            with self._open() as database, database.transaction() as execute:
                before = execute("SELECT since FROM schedules WHERE name = ?", (name,)).fetchone()
                run, lost = self._claim(database, name, self.clock(), asked)
            try:
                if run:
                    self._launch(run, lock)
                elif lost:
                    self._launch(lost, None)
            except AdsmigError:
                self._unclaim(name, before, run, lost)
                raise
            return run
        finally:
            os.close(lock)

    def _unclaim(
        self, name: str, before: Any, run: ScheduledRun | None, lost: ScheduledRun | None
    ) -> None:
        """Takes back what :meth:`_claim` noted, so that it is tried again."""
        with self._open() as database, database.transaction() as execute:
            execute("UPDATE schedules SET since = ? WHERE name = ?", (*before, name))
            if run:
                execute("DELETE FROM runs WHERE id = ?", (run.id,))
                run.output.unlink(missing_ok=True)
            if lost:
                execute("UPDATE runs SET state = 'running', ended = NULL WHERE id = ?", (lost.id,))

    def _claim(
        self, database: Database, name: str, now: float, asked: bool
    ) -> tuple[ScheduledRun | None, ScheduledRun | None]:
        """Notes the run that is to begin, if any, and the one that was lost, if one was.

        The schedule's lock is ours, so a run that is open has nobody.
        """
        execute = database.connection.execute
        rows = database.rows("SELECT * FROM schedules WHERE name = ?", [name])
        if not rows:
            return None, None
        row, paused = rows[0], rows[0]["paused"]
        runs = self._runs(database, name)
        lost = next((run for run in runs if run.ended is None), None)
        if lost:
            lost = replace(lost, state="lost", ended=now)
            execute("UPDATE runs SET state = 'lost', ended = ? WHERE id = ?", (now, lost.id))
        since = self._since(row, now)
        due = None if paused else next_time(row["cron"], row["timezone"], since)
        if due is not None and due > now:
            due = None
        again = bool(lost and not lost.again and not paused)
        if due:
            execute("UPDATE schedules SET since = ? WHERE name = ?", (now, name))
        if not (asked or due or again):
            return None, lost
        if again and lost and not due:
            due = lost.due
        id_ = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now))}-{secrets.token_hex(3)}"
        values = (id_, name, "running", due, int(again), now, None, None, None, "")
        execute(f"INSERT INTO runs VALUES ({', '.join('?' * len(values))})", values)
        runs = self._runs(database, name)
        for old in runs[KEPT + 1 :]:
            execute("DELETE FROM runs WHERE id = ?", (old.id,))
            for path in (old.output, old.word):
                path.unlink(missing_ok=True)
        return runs[0], lost

    def _launch(self, run: ScheduledRun, lock: int | None) -> None:
        """Starts the process that sees to a run; with ``lock`` None, to its hooks only."""
        keep = [] if lock is None else [lock]
        arguments = ["schedule", "perform", run.id, *map(str, keep)]
        try:
            process = launch(arguments, run.output, keep=keep)
        except OSError as exc:
            raise AdsmigError(f"{run.schedule} cannot be started: {exc.strerror}") from exc
        # Else it would be a zombie once it has ended, for as long as this process lives.
        threading.Thread(target=process.wait, daemon=True).start()

    # What the process of a run does

    def find(self, run: str) -> tuple[Schedule, ScheduledRun] | None:
        """A run and its schedule; None if they are not there any more."""
        with self._open() as database:
            for row in database.rows("SELECT * FROM runs WHERE id = ?", [run]):
                found = self._run(row)
                return self._schedule(database, _row(database, found.schedule)), found
        return None

    def note(self, run: str, state: str, pid: int | None) -> None:
        """Notes what an open run is at, and its process."""
        with self._open() as database:
            database.connection.execute(
                "UPDATE runs SET state = ?, pid = ? WHERE id = ?", (state, pid, run)
            )

    def end(self, run: str, state: str, exit_code: int | None, job: str) -> None:
        """Notes what became of a run."""
        with self._open() as database:
            database.connection.execute(
                "UPDATE runs SET state = ?, exit_code = ?, job = ?, ended = ? WHERE id = ?",
                (state, exit_code, job, self.clock(), run),
            )

    # Below

    @contextlib.contextmanager
    def _open(self) -> Iterator[Database]:
        database = Database(self.path, create=True, schema=SCHEDULES)
        try:
            with database.errors():
                yield database
        finally:
            database.close()

    def _set(self, name: str, change: str, *values: float) -> None:
        with self._open() as database:
            _row(database, name)
            database.connection.execute(
                f"UPDATE schedules SET {change} WHERE name = ?", (*values, name)
            )

    def _folder(self, name: str) -> Path:
        return self._directory / "schedules" / name

    def _lock(self, name: str, kind: int = fcntl.LOCK_EX) -> int | None:
        """The lock of a schedule, an open file; None if a run has it."""
        folder = self._folder(name)
        try:
            for directory in (folder.parent, folder):
                directory.mkdir(mode=0o700, exist_ok=True)
            lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise AdsmigError(f"cannot write into {folder}: {exc.strerror}") from exc
        for left in reversed(range(LOCK_TRIES if kind == fcntl.LOCK_EX else 1)):
            try:
                fcntl.flock(lock, kind | fcntl.LOCK_NB)
                return lock
            except OSError:
                if left:
                    time.sleep(0.05)
        os.close(lock)
        return None

    def _seen(self, run: ScheduledRun) -> ScheduledRun:
        """The run, which may be lost without anybody having noted it."""
        if run.ended is None and (lock := self._lock(run.schedule, fcntl.LOCK_SH)) is not None:
            os.close(lock)
            return replace(run, state="lost")
        return run

    def _schedule(self, database: Database, row: dict[str, Any]) -> Schedule:
        next_run, trouble = None, ""
        if not row["paused"]:
            try:
                next_run = next_time(row["cron"], row["timezone"], self._since(row, self.clock()))
            except UsageError as exc:
                trouble = str(exc)
        runs = self._runs(database, row["name"], 1)
        return Schedule(
            row["name"],
            row["cron"],
            row["timezone"],
            tuple(json.loads(row["arguments"])),
            row["on_failure"],
            row["webhook"],
            bool(row["paused"]),
            row["created"],
            next_run,
            trouble,
            self._seen(runs[0]) if runs else None,
        )

    def _since(self, row: dict[str, Any], now: float) -> float:
        """What came due later is yet to be run.

        If the clock was far ahead before, that is what came due since somebody looked: it is not
        kept before a run begins, for a clock may also be far behind until it is set.
        """
        name, since = row["name"], float(row["since"])
        if since <= now + CLOCK_STEP_S:
            self._ahead.pop(name, None)
            return since
        self._ahead[name] = min(now, self._ahead.get(name, now))
        return self._ahead[name]

    def _runs(self, database: Database, name: str, most: int = -1) -> list[ScheduledRun]:
        """The last one first, whatever was done to the clock."""
        query = "SELECT * FROM runs WHERE schedule = ? ORDER BY rowid DESC LIMIT ?"
        return [self._run(row) for row in database.rows(query, [name, most])]

    def _run(self, row: dict[str, Any]) -> ScheduledRun:
        values = {**row, "again": bool(row["again"])}
        output = self._folder(row["schedule"]) / f"{row['id']}.log"
        run = ScheduledRun(**values, output=output)
        if run.ended is None and (word := told(run.word)):
            run = replace(run, job=word["job"])
        return run


def _row(database: Database, name: str) -> dict[str, Any]:
    for row in database.rows("SELECT * FROM schedules WHERE name = ?", [name]):
        return dict(row)
    raise UsageError(f"no schedule {name}; see adsmig schedule list")
