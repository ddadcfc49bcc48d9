"""The list of schedules, and what is due by a clock that may be set."""

from __future__ import annotations

import errno
import sqlite3
import stat
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pytest

from adsmig.errors import AdsmigError, ManifestError, UsageError
from adsmig.scheduler import LONGEST_SLEEP_S, Scheduler
from adsmig.schedules import Schedules

SYNC = ("sync", "/src/", "/dst/")
DAY = 86400.0


class Clock:
    """A clock that is set by hand, to Berlin's time."""

    def __init__(self, text: str) -> None:
        self.set(text)

    def set(self, text: str) -> None:
        self.now = (
            datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("Europe/Berlin")).timestamp()
        )

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock("2026-06-15 12:00")


@pytest.fixture
def schedules(tmp_path: Path, clock: Clock) -> Schedules:
    return Schedules(tmp_path / "state", clock)


def due(schedules: Schedules, name: str = "monthly") -> str:
    at = schedules.get(name).next_run
    return "" if at is None else f"{datetime.fromtimestamp(at, ZoneInfo('Europe/Berlin')):%F %H:%M}"


def add(schedules: Schedules, name: str = "monthly", cron: str = "0 2 1 * *") -> None:
    schedules.add(SYNC, cron, name=name, timezone="Europe/Berlin")


def test_a_schedule_is_kept_as_it_was_added(schedules: Schedules, clock: Clock) -> None:
    one = schedules.add(
        [*SYNC, "--exclude", "a b\udcff"],
        "0 2 1 * *",
        timezone="Asia/Shanghai",
        on_failure="mail -s failed me",
        webhook="https://hooks.example.com/x",
    )
    assert Schedules(schedules.path.parent, clock).all() == [one]
    assert one.name == "sync-1"
    assert one.arguments == (*SYNC, "--exclude", "a b\udcff")
    assert (one.cron, one.timezone, one.on_failure, one.webhook) == (
        "0 2 1 * *", "Asia/Shanghai", "mail -s failed me", "https://hooks.example.com/x",
    )  # fmt: skip
    assert (one.created, one.paused, one.last_run, one.running) == (clock.now, False, None, False)
    assert one.next_run == datetime(2026, 7, 1, 2, tzinfo=ZoneInfo("Asia/Shanghai")).timestamp()
    assert stat.S_IMODE(schedules.path.stat().st_mode) == 0o600


def test_names_are_made_up_or_given_once(schedules: Schedules) -> None:
    for name in ("", "sync-3", "", ""):
        schedules.add(SYNC, "0 2 1 * *", name=name)
    assert [one.name for one in schedules.all()] == ["sync-1", "sync-2", "sync-3", "sync-4"]
    with pytest.raises(UsageError, match="there is a schedule sync-3 already"):
        schedules.add(SYNC, "0 2 1 * *", name="sync-3")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": "../x"}, "--name"),
        ({"name": ".x"}, "--name"),
        ({"name": "x" * 65}, "--name"),
        ({"cron": "0 2 1 *"}, "--cron"),
        ({"timezone": "Mars/Base"}, "--timezone"),
        ({"webhook": "file:///etc/passwd"}, "--webhook"),
        ({"webhook": "https://user:s3cr3t@host/"}, "--webhook"),
        ({"webhook": "https://host:99999/s3cr3t"}, "--webhook"),
        ({"webhook": "https://host/s3cr3t\n"}, "--webhook"),
        ({"arguments": ["sync", "s3://AK:s3cr3t@bucket/", "/dst/"]}, "--src-profile"),
        ({"arguments": ["rm", "/src/"]}, "No such command"),
        ({"arguments": []}, "Missing command"),
        ({"arguments": ["sync", "--src-profile", "nobody", "s3://b/", "/x/"]}, "no profile nobody"),
        ({"arguments": ["sync", "--dst-profile", "nobody", "/x/", "s3://b/"]}, "no profile nobody"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_kept(
    schedules: Schedules, changed: dict[str, str], message: str
) -> None:
    add(schedules, "other")
    before = schedules.path.read_bytes()
    with pytest.raises(UsageError, match=message) as caught:
        schedules.add(**{"arguments": SYNC, "cron": "0 2 1 * *", **changed})  # type: ignore[arg-type]
    assert "s3cr3t" not in str(caught.value)
    assert [one.name for one in schedules.all()] == ["other"]
    assert schedules.path.read_bytes() == before


def test_a_time_that_was_missed_stays_due(schedules: Schedules, clock: Clock) -> None:
    add(schedules)
    assert due(schedules) == "2026-07-01 02:00"
    assert not schedules.get("monthly").calls(clock.now)
    clock.set("2026-07-01 02:00")
    assert schedules.get("monthly").calls(clock.now)
    clock.set("2026-10-10 00:00")
    assert due(schedules) == "2026-07-01 02:00"
    assert schedules.get("monthly").calls(clock.now)


def test_what_came_due_during_a_pause_is_not_made_up_for(
    schedules: Schedules, clock: Clock
) -> None:
    add(schedules)
    schedules.pause("monthly")
    assert due(schedules) == ""
    clock.set("2026-08-03 00:00")
    assert not schedules.get("monthly").calls(clock.now)
    schedules.resume("monthly")
    assert due(schedules) == "2026-09-01 02:00"


def test_to_resume_what_is_not_paused_loses_no_run(schedules: Schedules, clock: Clock) -> None:
    add(schedules)
    clock.set("2026-07-01 02:01")
    schedules.resume("monthly")
    assert due(schedules) == "2026-07-01 02:00"


def test_a_clock_that_was_years_ahead_does_not_stop_a_schedule(
    schedules: Schedules, clock: Clock
) -> None:
    clock.set("2036-01-01 00:00")
    add(schedules)
    clock.set("2026-06-15 12:00")
    assert due(schedules) == "2026-07-01 02:00"
    clock.set("2026-07-01 02:00")
    assert schedules.get("monthly").calls(clock.now)
    clock.set("2026-07-02 02:00")
    assert schedules.get("monthly").calls(clock.now)


def test_a_clock_that_is_years_behind_until_it_is_set_makes_nothing_due_again(
    schedules: Schedules, clock: Clock
) -> None:
    add(schedules)
    clock.set("1970-01-01 00:00")
    assert schedules.begin("monthly") is None
    assert due(schedules) == "1970-01-01 02:00"
    clock.set("2026-06-15 12:00")
    assert due(schedules) == "2026-07-01 02:00"


def test_a_clock_that_is_put_back_a_little_makes_nothing_due_again(
    schedules: Schedules, clock: Clock
) -> None:
    clock.set("2026-07-01 02:00")
    add(schedules)  # as if it had just been run
    clock.set("2026-07-01 01:59")
    assert due(schedules) == "2026-08-01 02:00"


def test_the_clockwork_looks_again_soon_and_when_something_is_due(
    schedules: Schedules, clock: Clock
) -> None:
    scheduler = Scheduler(schedules)
    assert scheduler.tick() == LONGEST_SLEEP_S
    add(schedules)
    assert scheduler.tick() == LONGEST_SLEEP_S
    clock.set("2026-07-01 01:59")
    clock.now += 58.5
    assert scheduler.tick() == pytest.approx(1.5)


def test_a_name_that_is_not_there_is_a_usage_error(schedules: Schedules) -> None:
    for method in ("get", "pause", "resume", "remove", "run_now", "runs"):
        with pytest.raises(UsageError, match="no schedule nope; see adsmig schedule list"):
            getattr(schedules, method)("nope")
    assert schedules.begin("nope") is None
    assert schedules.find("nope") is None


def test_a_removed_schedule_leaves_nothing(schedules: Schedules) -> None:
    add(schedules)
    schedules.remove("monthly")
    assert schedules.all() == []
    assert not list(schedules.path.parent.glob("schedules/*"))


def test_a_scheduler_outlives_a_file_that_cannot_be_read(
    schedules: Schedules, caplog: pytest.LogCaptureFixture
) -> None:
    add(schedules)
    scheduler = Scheduler(schedules)
    content = schedules.path.read_bytes()
    schedules.path.write_bytes(b"no database" * 100)
    for _ in range(3):
        assert scheduler.tick() == LONGEST_SLEEP_S
    assert len(caplog.records) == 1
    assert f"the schedules {schedules.path} cannot be used" in caplog.text
    with pytest.raises(ManifestError):
        Scheduler(schedules).start()
    schedules.path.write_bytes(content)
    scheduler.tick()
    assert len(caplog.records) == 1


def test_a_run_that_cannot_be_started_stays_due(
    schedules: Schedules, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[list[str]] = []

    def launch(arguments: list[str], *_: object, **__: object) -> SimpleNamespace:
        begun.append(arguments)
        if len(begun) <= 5:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        return SimpleNamespace(wait=lambda: 0)

    monkeypatch.setattr("adsmig.schedules.launch", launch)
    add(schedules)
    with pytest.raises(AdsmigError, match="cannot be started: Cannot allocate memory"):
        schedules.run_now("monthly")
    assert schedules.runs("monthly") == []  # nor is it lost
    clock.set("2026-07-01 02:00")
    scheduler = Scheduler(schedules)
    for _ in range(4):
        scheduler.tick()
        assert due(schedules) == "2026-07-01 02:00"
    scheduler.tick()
    (run,) = schedules.runs("monthly")
    assert (begun[-1][2], run.again) == (run.id, False)
    assert due(schedules) == "2026-08-01 02:00"


def test_the_log_tells_how_a_run_ended_that_was_begun_here(
    schedules: Schedules,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "adsmig.scheduler")
    launched = SimpleNamespace(wait=lambda: 0)
    monkeypatch.setattr("adsmig.schedules.launch", lambda *_, **__: launched)
    add(schedules)
    scheduler = Scheduler(schedules)
    scheduler.tick()
    clock.set("2026-07-01 02:00")
    scheduler.tick()
    (run,) = schedules.runs("monthly")
    run.output.write_text("one line\nno such bucket\n")
    scheduler.tick()  # nobody has its lock any more
    scheduler.tick()
    told = [(one.levelname, one.message) for one in caplog.records]
    assert [level for level, said in told if "begins" in said and "again" not in said] == ["INFO"]
    assert ("ERROR", f"monthly lost: no such bucket; see {run.output}") in told


def test_what_is_called_for_a_lost_run_is_called_once_that_is_possible(
    schedules: Schedules, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[list[str]] = []

    def launch(arguments: list[str], *_: object, **__: object) -> SimpleNamespace:
        begun.append(arguments)
        if len(begun) == 3:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        return SimpleNamespace(wait=lambda: 0)

    monkeypatch.setattr("adsmig.schedules.launch", launch)
    add(schedules)
    schedules.run_now("monthly")  # and then nobody has its lock, as after a power cut
    scheduler = Scheduler(schedules)
    for _ in range(5):
        scheduler.tick()
    again = schedules.runs("monthly")[0]
    assert [one[2:] for one in begun[2:]] == [[again.id], [again.id]]


def test_errors_do_not_take_schedules_for_a_manifest(schedules: Schedules) -> None:
    path, log, lock = (Path(f"{schedules.path}{end}") for end in ("", "-wal", ".lock"))
    path.parent.mkdir()

    def error() -> str:
        with pytest.raises(ManifestError) as caught:
            schedules.all()
        assert "manifest" not in str(caught.value)
        return str(caught.value)

    log.touch()
    assert error().startswith(f"the schedules {path} cannot be used (it is gone, but {log} is")
    log.unlink()
    path.touch()
    assert error().startswith(f"the schedules {path} cannot be used (it is empty)")
    path.unlink()
    lock.mkdir()
    assert error().startswith(f"cannot write the schedules {path}: ")


def test_a_file_of_a_newer_adsmig_or_of_something_else_is_left_alone(schedules: Schedules) -> None:
    add(schedules)
    database = sqlite3.connect(schedules.path)
    database.execute("PRAGMA user_version=99")
    database.close()
    with pytest.raises(ManifestError, match="written by a newer adsmig"):
        schedules.all()


def test_a_time_zone_that_is_gone_stops_no_other_schedule(
    schedules: Schedules, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    add(schedules)
    add(schedules, "other")
    database = sqlite3.connect(schedules.path)
    with database:
        database.execute("UPDATE schedules SET timezone = 'Mars/Base' WHERE name = 'monthly'")
        row = ("lost", "monthly", "running", None, 0, clock.now, None, None, None, "")
        database.execute("INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    database.close()
    assert [one.next_run is None for one in schedules.all()] == [True, False]
    assert ["Mars/Base" in one.trouble for one in schedules.all()] == [True, False]
    scheduler = Scheduler(schedules)
    for _ in range(3):
        scheduler.tick()
    (record,) = caplog.records
    assert record.getMessage().startswith("monthly is not run: --timezone 'Mars/Base'")
