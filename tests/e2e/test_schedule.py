"""Schedules, with real schedulers, real jobs, and real kills."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from adsmig import runner
from adsmig.commandline import job_later
from adsmig.launch import launch
from adsmig.ledger import default_path
from adsmig.manifest import Manifest
from adsmig.model import Counts, SliceResult
from adsmig.output import Output
from adsmig.schedule import ScheduledRun
from adsmig.scheduler import Scheduler
from adsmig.schedules import Schedules
from adsmig.timetable import schedule_lines
from tests.e2e.conftest import Adsmig, write
from tests.receiver import Receiver

DAY_S = 86400.0
PATIENCE_S = 120.0


def wait_for(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)


class Place:
    """A source, a destination, and a gate that each job waits at, once it has its manifest."""

    def __init__(self, root: Path) -> None:
        self.src, self.dst, self.names = root / "src", root / "dst", root / "names"
        self.src.mkdir()
        write(self.src / "a.bin", b"content")
        self._gate = -1

    @property
    def arguments(self) -> tuple[str, ...]:
        return ("sync", f"{self.src}/", f"{self.dst}/", "--files-from", str(self.names))

    def close(self) -> None:
        """From now on jobs wait: for the names of what they are to copy."""
        os.mkfifo(self.names)
        self._gate = os.open(self.names, os.O_RDWR)

    def open(self) -> None:
        """Lets them all go on: those that wait, and those that come."""
        ready = self.names.with_suffix(".new")
        ready.write_text("a.bin\n")
        ready.replace(self.names)
        if self._gate >= 0:
            os.write(self._gate, b"a.bin\n")
            os.close(self._gate)
            self._gate = -1


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def schedules() -> Iterator[Schedules]:
    """The user's, as the commands see them.  At the end, nothing of their runs is left."""
    schedules = Schedules()
    yield schedules
    for one in psutil.process_iter(["environ"]):
        if (one.info["environ"] or {}).get("XDG_STATE_HOME") == os.environ["XDG_STATE_HOME"]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()


@pytest.fixture
def missed() -> Schedules:
    """The user's as well, by a clock that is a hundred days behind: what is added there is due."""
    return Schedules(clock=lambda: time.time() - 100 * DAY_S)


@pytest.fixture
def scheduler() -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts ``adsmig scheduler``, as often as one likes."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "adsmig", "scheduler", "-q"]
        started.append(subprocess.Popen(command, start_new_session=True))
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.wait()


def last(schedules: Schedules, name: str = "nightly") -> ScheduledRun:
    run = schedules.get(name).last_run
    assert run
    return run


def under_way(schedules: Schedules) -> Callable[[], bool]:
    """Whether a run's job has its manifest, and is at the gate."""

    def condition() -> bool:
        run = schedules.get("nightly").last_run
        return bool(run and run.state == "running" and run.job and run.pid)

    return condition


def ended(schedules: Schedules, name: str = "nightly") -> Callable[[], bool]:
    def condition() -> bool:
        run = schedules.get(name).last_run
        return bool(run and run.ended)

    return condition


def kill_session(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def test_the_commands(adsmig: Adsmig, place: Place, schedules: Schedules) -> None:
    place.open()
    arguments = place.arguments
    adsmig("schedule", "add", "--cron", "0 2 1 * *", "--", *arguments[:1], code=2)
    refused = adsmig(
        "schedule",
        "add",
        "--cron",
        "0 2 1 * *",
        "sync",
        "s3://AK:s3cr3t@b/",
        "/x/",
        "--tags",
        code=2,
    )
    assert "--src-profile" in refused.stderr
    assert "s3cr3t" not in refused.stderr
    assert adsmig("schedule", "list").stdout == ("no schedules; add one with adsmig schedule add\n")
    said = adsmig(
        "schedule", "add", "--name", "monthly", "--cron", "0 2 1 * *",
        "--timezone", "Asia/Shanghai", "--webhook", "http://127.0.0.1:9/s3cr3t", "--", *arguments,
    ).stdout  # fmt: skip
    assert "monthly is due 20" in said
    assert "01 02:00 Asia/Shanghai; adsmig scheduler or adsmig web has to be running then" in said
    late = adsmig("schedule", "add", "--name", "late", "--cron", "0 2 30 * *", *arguments).stderr
    assert late == "not due in February, for want of such a day; L is the last of any month\n"
    adsmig("schedule", "remove", "late")
    row = adsmig("schedule", "list").stdout.splitlines()[1]
    assert row.split()[:6] == ["monthly", "0", "2", "1", "*", "*"]
    adsmig("schedule", "pause", "monthly")
    assert " paused " in adsmig("schedule", "list").stdout
    output = adsmig("schedule", "run-now", "monthly").stdout.split()[-1]
    wait_for(ended(schedules, "monthly"))
    adsmig("schedule", "resume", "monthly")
    listed = adsmig("schedule", "list", "--json").stdout
    assert "s3cr3t" not in listed
    (one,) = map(json.loads, listed.splitlines())
    job = adsmig("jobs", "--json").stdout
    assert one["arguments"] == list(arguments)
    assert one["next_run"] > time.time()
    assert one["webhook"] == "127.0.0.1"
    assert one["last_run"]["exit_code"] == 0
    assert one["last_run"]["job"] == json.loads(job)["job"]
    assert one["last_run"]["due"] is None
    assert one["last_run"]["output"] == output
    assert "copied 1 object (" in Path(output).read_text()
    assert stat.S_IMODE(os.stat(output).st_mode) == 0o600
    assert (place.dst / "a.bin").read_bytes() == b"content"
    adsmig("schedule", "remove", "monthly")
    assert not Path(output).exists()
    assert adsmig("schedule", "remove", "monthly", code=2).stderr.startswith(
        "adsmig: no schedule monthly"
    )


def test_a_missed_run_is_made_up_for_once_by_two_schedulers_and_outlives_them(
    place: Place,
    missed: Schedules,
    schedules: Schedules,
    scheduler: Callable[[], subprocess.Popen[bytes]],
) -> None:
    place.close()
    missed.add(place.arguments, "0 2 * * *", name="nightly", timezone="Europe/Berlin")
    schedulers = scheduler(), scheduler()
    wait_for(under_way(schedules))
    for one, number in zip(schedulers, (signal.SIGTERM, signal.SIGINT), strict=True):
        one.send_signal(number)
        assert one.wait(PATIENCE_S) == 0
    assert last(schedules).state == "running"
    place.open()
    wait_for(ended(schedules))
    Scheduler(schedules).tick()
    (run,) = schedules.runs("nightly")
    assert run.due
    assert abs(run.started - run.due - 100 * DAY_S) < DAY_S + 3600
    assert (run.state, run.exit_code, run.again) == ("ended", 0, False)
    assert (place.dst / "a.bin").exists()


def test_a_crowd_begins_one_run(place: Place, missed: Schedules, schedules: Schedules) -> None:
    place.close()
    missed.add(place.arguments, "0 2 * * *", name="nightly")
    barrier = threading.Barrier(8)
    begun = []

    def begin() -> None:
        barrier.wait()
        begun.append(Schedules().begin("nightly"))

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    (run,) = [run for run in begun if run]
    place.open()
    wait_for(ended(schedules))
    assert [one.id for one in schedules.runs("nightly")] == [run.id]


def test_a_scheduler_that_was_killed_knows_the_run_that_it_began(
    place: Place,
    missed: Schedules,
    schedules: Schedules,
    scheduler: Callable[[], subprocess.Popen[bytes]],
) -> None:
    place.close()
    missed.add(place.arguments, "0 2 * * *", name="nightly")
    first = scheduler()
    wait_for(under_way(schedules))
    before = last(schedules)
    kill_session(first.pid)
    first.wait()
    tomorrow = Schedules(clock=lambda: time.time() + DAY_S)
    Scheduler(tomorrow).tick()  # it is due once more, and still under way
    assert [one.id for one in tomorrow.runs("nightly")] == [before.id]
    assert last(schedules).state == "running"
    place.open()
    wait_for(ended(schedules))
    after = last(schedules)
    assert (after.id, after.state, after.exit_code) == (before.id, "ended", 0)
    # What came due meanwhile is made up for now.
    Scheduler(tomorrow).tick()
    wait_for(ended(schedules))
    due = [one.due for one in schedules.runs("nightly")]
    assert len(due) == 2
    assert due[0]
    assert due[1]
    assert due[0] > due[1]
    assert not schedules.get("nightly").calls(time.time())


def test_a_run_that_was_lost_is_begun_again_once(
    place: Place, schedules: Schedules, tmp_path: Path
) -> None:
    place.close()
    said = tmp_path / "said"
    hook = f'echo "$ADSMIG_SCHEDULE <$ADSMIG_EXIT_CODE>" >> {said}'
    schedules.add(place.arguments, "0 2 1 * *", name="nightly", on_failure=hook)
    schedules.run_now("nightly")
    tick = Scheduler(schedules).tick
    for again in (False, True):
        wait_for(under_way(schedules))
        run = last(schedules)
        assert run.again == again
        assert run.pid
        runner = psutil.Process(run.pid).ppid()
        kill_session(runner)
        wait_for(lambda runner=runner: not psutil.pid_exists(runner))  # type: ignore[misc]
        tick()
        assert last(schedules).id == run.id, "its job is still there"
        kill_session(run.pid)
        wait_for(lambda: last(schedules).state == "lost")
        assert not said.exists()
        tick()
    wait_for(said.exists)
    tick()
    assert said.read_text() == "nightly <>\n"
    assert [one.state for one in schedules.runs("nightly")] == ["lost", "lost"]


def test_a_run_waits_for_one_begun_on_the_command_line(
    place: Place, missed: Schedules, schedules: Schedules
) -> None:
    place.close()
    command = [sys.executable, "-m", "adsmig", *place.arguments]
    with subprocess.Popen(command) as other:
        wait_for(lambda: list(schedules.path.parent.glob("jobs/*.db.lock")))
        for name in ("nightly", "paused"):
            missed.add(place.arguments, "0 2 * * *", name=name)
            assert schedules.begin(name)
            wait_for(lambda name=name: last(schedules, name).state == "waiting")  # type: ignore[misc]
        schedules.pause("paused")
        place.open()
        assert other.wait(PATIENCE_S) == 0
    for name in ("nightly", "paused"):
        wait_for(ended(schedules, name))
    run = last(schedules)
    assert (run.state, run.exit_code) == ("ended", 0)
    assert f"in use by process {other.pid}" in run.output.read_text()
    assert last(schedules, "paused").state == "skipped"


def test_a_result_is_noted_once_that_is_possible_again(place: Place, schedules: Schedules) -> None:
    place.close()
    schedules.add(place.arguments, "0 2 1 * *", name="nightly")
    schedules.run_now("nightly")
    wait_for(under_way(schedules))
    run, content = last(schedules), schedules.path.read_bytes()
    schedules.path.write_bytes(b"no database" * 1000)
    place.open()
    wait_for(lambda: "cannot be used" in run.output.read_text())
    schedules.path.write_bytes(content)
    wait_for(ended(schedules))
    assert (last(schedules).id, last(schedules).exit_code) == (run.id, 0)


def test_a_run_looks_at_what_is_new_since_one_that_came_to_no_end(
    place: Place, schedules: Schedules
) -> None:
    words = ("sync", "-q", f"{place.src}/", f"{place.dst}/")
    job = job_later(words)
    write(place.src / "z.bin", b"content")
    place.dst.mkdir()
    write(place.dst / "a.bin", b"content")
    with Manifest(default_path(job), create=True) as manifest:  # interrupted behind a.bin
        manifest.set_job(job)
        run = manifest.begin_run("sync", [job.keys], job.manner)
        ((shard, _),) = manifest.open_shards(run.id)
        copied = Counts(found=1, found_bytes=7, copied=1, copied_bytes=7)
        manifest.commit_slice(run.id, shard, SliceResult(b"a.bin", False, copied, []))
        manifest.end_run(run.id, "stopped")
    write(place.src / "a.bin", b"other content")
    write(place.src / "a.new", b"content")
    schedules.add(words, "0 2 1 * *", name="nightly")
    schedules.run_now("nightly")
    wait_for(ended(schedules))
    assert (last(schedules).exit_code, last(schedules).job) == (0, job.id)
    assert sorted(os.listdir(place.dst)) == ["a.bin", "a.new", "z.bin"]
    assert (place.dst / "a.bin").read_bytes() == b"other content"


def test_a_job_that_cannot_be_started_is_once_that_is_possible(
    place: Place, schedules: Schedules, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.open()
    schedules.add(place.arguments, "0 2 1 * *", name="nightly")
    monkeypatch.setattr(schedules, "_launch", lambda *_: None)
    run = schedules.run_now("nightly")
    tries = iter([OSError(errno.ENOMEM, "Cannot allocate memory")])

    def start(*options: Any) -> subprocess.Popen[bytes]:
        for trouble in tries:
            raise trouble
        return launch(*options)

    monkeypatch.setattr(runner, "launch", start)
    monkeypatch.setattr(runner, "PAUSE_S", 0.01)
    runner.perform(schedules, run.id, schedules._lock("nightly"))
    assert (last(schedules).state, last(schedules).exit_code) == ("ended", 0)


def test_only_failures_are_told_of(
    place: Place, schedules: Schedules, receiver: Receiver, tmp_path: Path
) -> None:
    """Exit 0 and 130 are none, 1 and 3 are."""
    said = tmp_path / "said"
    hook = f'echo "$ADSMIG_SCHEDULE $ADSMIG_EXIT_CODE $ADSMIG_JOB $ADSMIG_LOG" >> {said}; exit 1'
    odd = tmp_path / "odd"
    odd.mkdir()
    os.mkfifo(odd / "pipe")
    place.close()
    lines = {
        "missing": ("sync", f"{tmp_path}/nowhere/", f"{place.dst}/"),
        "bad": ("sync", f"{odd}/", f"{tmp_path}/elsewhere/"),
        "nightly": place.arguments,
    }
    for name, arguments in lines.items():
        schedules.add(arguments, "0 2 1 * *", name=name, on_failure=hook, webhook=receiver.url)
        schedules.run_now(name)
    wait_for(under_way(schedules))
    pid = last(schedules).pid
    assert pid
    os.kill(pid, signal.SIGINT)
    for name in lines:
        wait_for(ended(schedules, name))
    assert last(schedules).exit_code == 130
    place.open()
    schedules.run_now("nightly")
    wait_for(ended(schedules))
    assert last(schedules).exit_code == 0
    wait_for(lambda: len(receiver.bodies) == 2)
    bad, missing = last(schedules, "bad"), last(schedules, "missing")
    assert sorted(said.read_text().splitlines()) == [
        f"bad 1 {bad.job} {bad.output}",
        f"missing 3  {missing.output}",
    ]
    bodies = {body["schedule"]: body for body in map(json.loads, receiver.bodies)}
    assert bodies["bad"] == {
        "event": "failure",
        "schedule": "bad",
        "job": bad.job,
        "state": "ended",
        "exit_code": 1,
        "started": bad.started,
        "ended": bad.ended,
        "message": f"try these again with: adsmig retry {bad.job}",
        "log": str(bad.output),
        "host": os.uname().nodename,
    }
    assert bodies["missing"]["exit_code"] == 3
    assert "no such file or directory" in bodies["missing"]["message"]
    wait_for(lambda: "--on-failure ended with 1" in missing.output.read_text())
    listed = "\n".join(schedule_lines(schedules, Output()))
    assert f"\nmissing: {bodies['missing']['message']}; see {missing.output}" in listed
    assert f"\nbad: {bodies['bad']['message']}; see {bad.output}" in listed
    assert "\nnightly: " not in listed


def test_only_the_last_runs_are_kept(
    place: Place, schedules: Schedules, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adsmig.schedules.KEPT", 1)
    schedules.add(("sync", "/nowhere/", f"{place.dst}/"), "0 2 1 * *", name="nightly")
    runs = []
    for hours in (0, 0, -2):  # the clock is put back before the last one
        clock = partial(float.__add__, time.time(), 3600.0 * hours)
        runs.append(Schedules(clock=clock).run_now("nightly"))
        wait_for(ended(schedules))
    assert [run.id for run in schedules.runs("nightly")] == [runs[2].id, runs[1].id]
    assert [run.output.exists() for run in runs] == [False, True, True]
