"""What is shown of jobs is what their manifests say, soon, however large these are."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from adsmig.job import Job
from adsmig.ledger import default_path
from adsmig.lock import holder
from adsmig.manifest import Manifest
from adsmig.model import Counts, KeyRange
from adsmig.uri import parse
from adsmig.web.console import Console, Process, console_directory
from adsmig.web.jobpage import job_view
from adsmig.web.jobs import Jobs
from tests.e2e.conftest import FULL
from tests.web.conftest import Client, ClientFactory, make_job, make_manifest, wait_for

MANY_OBJECTS = 5_000_000 if FULL else 200_000
"""In one manifest."""
PAGES = ("", "?q=x", "/report.json", "/report.csv", "/failures.csv")


def state_of(path: Path) -> str:
    return Jobs(Console()).one(path.stem).state  # type: ignore[union-attr]


@contextmanager
def held(path: Path) -> Iterator[int]:
    """Another process that has the manifest, as one that works on the job."""
    code = (
        "import sys, pathlib; from adsmig.manifest import Manifest;"
        " m = Manifest(pathlib.Path(sys.argv[1])); m.lock(); print('locked', flush=True);"
        " sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin
    assert process.stdout
    try:
        assert process.stdout.readline() == b"locked\n"
        yield process.pid
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize(
    ("state", "failed", "shown"),
    [
        ("finished", 0, "finished"),
        ("finished", 2, "failures"),
        ("stopped", 0, "paused"),
        ("refused", 0, "refused"),
        ("cancelled", 0, "cancelled"),
        ("running", 0, "interrupted"),
    ],
)
def test_the_state_is_that_of_the_last_run(state: str, failed: int, shown: str) -> None:
    path = make_manifest(make_job(), Counts(found=3, copied=3 - failed, failed=failed), state)
    assert state_of(path) == shown


def test_a_run_that_could_not_go_on_says_why() -> None:
    path = make_manifest(make_job(), state="running")
    with Manifest(path) as manifest:
        manifest.end_run(1, "stopped", "no room left at /data")
    job = Jobs(Console()).one(path.stem)
    assert job
    assert (job.state, job.message) == ("stopped", "no room left at /data")


def test_a_process_that_holds_the_manifest_runs_and_a_dead_one_does_not() -> None:
    path = make_manifest(make_job(), state="running")
    jobs = Jobs(Console())
    assert holder(path) is None
    assert jobs.all()[0].state == "interrupted"
    assert jobs.all()[0].runs[0].state == "interrupted"
    with held(path) as pid:
        assert holder(path) == pid
        assert jobs.all()[0].state == "running"
        assert jobs.all()[0].runs[0].state == "running"
    assert holder(path) is None
    assert jobs.all()[0].state == "interrupted"


def test_a_process_that_was_asked_to_end_is_not_one_that_starts() -> None:
    """For a moment it lives on when its run has stopped."""
    path = make_manifest(make_job(), state="stopped")
    console = Console(started={path.stem: Process(4321)})
    assert Jobs(console).all()[0].state == "starting"
    console.stopping[path.stem] = 4321
    assert Jobs(console).all()[0].state == "paused"


def test_to_look_does_not_keep_a_job_from_starting() -> None:
    path = make_manifest(make_job(), state="stopped")
    jobs = Jobs(Console())
    for _ in range(3):
        jobs.all()
        with held(path):
            jobs.all()


def test_a_manifest_that_cannot_be_read_is_shown_as_such(client: Client) -> None:
    path = make_manifest(make_job())
    path.write_bytes(b"this is no database" * 100)
    assert state_of(path) == "unreadable"
    assert client.get("/jobs").status_code == 200
    page = client.get(f"/jobs/{path.stem}")
    assert page.status_code == 200
    assert "--rebuild-manifest" in page.text
    assert client.get("/metrics").status_code == 200


def test_what_changed_is_read_again_and_what_did_not_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = make_manifest(make_job())
    jobs = Jobs(Console())
    # What was written just now is read again: what comes next may look the same from outside.
    assert [jobs.all()[0] is jobs.all()[0] for _ in range(2)] == [False, False]
    monkeypatch.setattr("adsmig.web.jobs.FRESH_NS", 0)
    for _ in range(2):
        jobs.all()
    opened: list[Path] = []
    summary = jobs._summary

    def counted(name: str, path: Path, manifest: Manifest) -> object:
        opened.append(path)
        return summary(name, path, manifest)

    monkeypatch.setattr(jobs, "_summary", counted)
    jobs.all()
    assert opened == []
    with Manifest(path) as manifest:
        manifest.begin_run("sync", [KeyRange(closed=True)])
    assert len(jobs.all()[0].runs) == 2
    assert opened


def test_a_search_finds_places_and_states(client: Client) -> None:
    make_manifest(make_job("/data/photos/", "/mnt/a/"))
    make_manifest(make_job("/data/videos/", "/mnt/b/"), state="stopped")
    assert "/data/videos" not in client.get("/jobs", params={"q": "PHOTOS"}).text
    page = client.get("/jobs", params={"q": "paused"}).text
    assert "/data/videos" in page
    assert "/data/photos" not in page
    assert "No job matches" in client.get("/jobs", params={"q": "<b>nothing"}).text


def test_html_in_a_key_is_text(client: Client) -> None:
    evil = b"<img src=x onerror=alert(1)>\"'&{{7*7}}"
    job = make_job("/data/<script>alert(1)</script>/")
    failures = {evil: ("<b>kind", "<i>reason</i>"), b"\xff\xfe": ("odd", "not UTF-8")}
    make_manifest(job, Counts(found=3, copied=1, failed=2), failures=failures, cuts=(evil,))
    for path in ("/jobs", f"/jobs/{job.id}", f"/jobs/{job.id}?kind=%3Cb%3Ekind&q=%3Cimg"):
        page = client.get(path).text
        for bad in ("<img", "<script>alert", "<b>kind", "<i>reason"):
            assert bad not in page, (path, bad)
    assert "&lt;img src=x onerror=alert(1)&gt;" in client.get(f"/jobs/{job.id}").text
    report = client.get(f"/jobs/{job.id}/report.html")
    assert report.status_code == 200
    assert "sandbox" in report.headers["content-security-policy"]
    assert "<img" not in report.text


def test_failures_are_found_by_kind_and_by_text_page_by_page(client: Client) -> None:
    job = make_job()
    failures = {
        f"k{number:03d}".encode(): ("denied" if number % 2 else "gone", f"reason {number}")
        for number in range(120)
    }
    make_manifest(job, Counts(found=120, failed=120), failures=failures)
    page = client.get(f"/jobs/{job.id}").text
    assert "k049" in page
    assert "k050" not in page
    after = page.split("after=")[-1].partition("#")[0].partition('"')[0]
    assert "k050" in client.get(f"/jobs/{job.id}", params={"after": after}).text
    page = client.get(f"/jobs/{job.id}", params={"kind": "gone", "q": "k11"}).text
    assert "k110" in page
    assert "k111" not in page
    assert "reason 7<" in client.get(f"/jobs/{job.id}", params={"q": "reason 7"}).text
    lines = client.get(f"/jobs/{job.id}/failures.csv").text.splitlines()
    assert len(lines) == 121


@pytest.mark.parametrize("first", "=+-@＝＋－＠")
def test_a_formula_in_a_key_is_none_in_a_spreadsheet(client: Client, first: str) -> None:
    job = make_job()
    make_manifest(job, failures={f"{first}HYPERLINK(1)".encode(): ("denied", "-1+1")})
    assert f"denied,'{first}HYPERLINK(1),7,'-1+1" in client.get(f"/jobs/{job.id}/failures.csv").text


@pytest.mark.parametrize("action", ["resume", "retry", "again"])
def test_what_runs_is_not_started_twice(client: Client, action: str) -> None:
    path = make_manifest(make_job(), state="running")
    with held(path):
        answer = client.submit(f"/jobs/{path.stem}/{action}")
    assert answer.status_code == 409
    assert not console_directory().exists()


@pytest.mark.parametrize("action", ["resume", "retry", "again"])
def test_a_deletion_is_not_begun_without_being_agreed_to(client: Client, action: str) -> None:
    path = make_manifest(Job("rm", parse("/data/photos/"), None), state="stopped")
    answer = client.submit(f"/jobs/{path.stem}/{action}")
    assert answer.status_code == 409
    assert f"adsmig {action} {path.stem}" in answer.text
    assert not console_directory().exists()


def test_nothing_is_done_with_a_job_that_is_not_there(client: Client) -> None:
    for name in ("0123456789", "..%2f..%2fetc", "%00", "a" * 200):
        assert client.submit(f"/jobs/{name}/resume").status_code in (404, 422)
    path = make_manifest(make_job())
    assert client.submit(f"/jobs/{path.stem}/explode").status_code == 422
    assert client.submit(f"/jobs/{path.stem}/pause").status_code == 409


def test_a_job_outside_of_what_is_allowed_is_not_started(
    client_of: ClientFactory, tmp_path: Path
) -> None:
    path = make_manifest(make_job(), state="stopped")
    client = client_of(tmp_path).log_in()
    for action in ("resume", "again", "retry"):
        assert client.submit(f"/jobs/{path.stem}/{action}").status_code == 422
    assert client.get(f"/jobs/{path.stem}").status_code == 200


def test_cancelling_gives_a_run_up(client: Client, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    job = Job("sync", parse(f"{tmp_path}/src/"), parse(f"{tmp_path}/dst/"))
    path = make_manifest(job, state="stopped")
    client.submit(f"/jobs/{path.stem}/cancel")
    wait_for(lambda: state_of(path) == "cancelled")
    log = client.get(f"/jobs/{path.stem}/log").text
    assert f"cancelled run 1 of job {job.id}" in log
    done = subprocess.run(
        [sys.executable, "-m", "adsmig", "resume", job.id], capture_output=True, text=True
    )
    assert "nothing to resume" in done.stdout
    # What a cancelled run leaves is no run to go on with.
    client.submit(f"/jobs/{path.stem}/again")
    wait_for(lambda: state_of(path) == "finished")
    with Manifest(path) as manifest:
        assert [run.state for run in manifest.runs()] == ["cancelled", "finished"]


def test_two_hundred_jobs_are_listed_and_read_once(client: Client) -> None:
    path = make_manifest(make_job())
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    content = path.read_bytes()
    for number in range(199):
        copy = path.with_name(f"copy{number:03d}.db")
        copy.write_bytes(content)
        os.utime(copy, (1, 1))  # not so new that it would be read each time
    page = client.get("/jobs")
    assert page.text.count("data-row>") == 200
    for _ in range(3):
        began, used = time.perf_counter(), time.process_time()
        client.get("/jobs")
        took, used = time.perf_counter() - began, time.process_time() - used
        print(f"200 jobs: {1000 * took:.0f} ms, {1000 * used:.0f} ms of a processor")
    jobs = client.get("/api/jobs").json()
    assert len(jobs) == 200


def fill(path: Path, objects: int) -> None:
    """Puts so many objects on record, and what goes with them, without copying any."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("BEGIN")
    numbers = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ? - 1)"
    connection.execute(
        f"{numbers} INSERT INTO objects (key, size, mtime_ns, etag, checksum, run, seconds)"
        " SELECT printf('2026/%02d/img-%09d.jpg', i / (? / 12 + 1), i), 1000, 0, '',"
        " 'xxh3:0123456789abcdef', 1, 0.01 FROM n",
        (objects, objects),
    )
    connection.execute(
        f"{numbers} INSERT INTO shards (run, after, upto, closed, done)"
        " SELECT 1, printf('2026/%09d', i), printf('2026/%09d', i + 1), 0, 1 FROM n",
        (objects // 2000,),
    )
    connection.execute(
        f"{numbers} INSERT INTO slices (run, shard, worker, started, ended, found, copied, failed,"
        " bytes) SELECT 1, i, 1, i, i + 5, 1000, 1000, 0, 1000000 FROM n",
        (objects // 1000,),
    )
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def test_pages_of_a_large_job_look_at_no_object(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every query of every page is planned by SQLite: none of them reads ``objects``."""
    job = make_job()
    path = make_manifest(job, failures={b"bad": ("denied", "no")})
    fill(path, MANY_OBJECTS)
    asked: list[str] = []
    init = Manifest.__init__

    def traced(self: Manifest, *arguments: object, **options: object) -> None:
        init(self, *arguments, **options)  # type: ignore[arg-type]
        self._connection.set_trace_callback(asked.append)

    monkeypatch.setattr(Manifest, "__init__", traced)
    pages = ["/jobs", "/metrics", f"/api/jobs/{job.id}", f"/api/jobs/{job.id}/shards"]
    pages += [f"/jobs/{job.id}{page}" for page in PAGES]
    for page in pages:
        began = time.perf_counter()
        assert client.get(page).status_code == 200
        took_ms = 1000 * (time.perf_counter() - began)
        print(f"{MANY_OBJECTS:,} objects: {page} {took_ms:.0f} ms")
    monkeypatch.setattr(Manifest, "__init__", init)
    queries = {one for one in asked if one.startswith("SELECT")}
    assert len(queries) > 5
    with Manifest(path) as manifest:
        for query in queries:
            plan = manifest._connection.execute(f"EXPLAIN QUERY PLAN {query}").fetchall()
            assert not any("objects" in step[3] for step in plan), query


def test_a_job_s_page_without_its_manifest_is_not_there(client: Client) -> None:
    path = make_manifest(make_job())
    assert default_path(make_job()) == path
    path.unlink()
    assert client.get(f"/jobs/{path.stem}").status_code == 404


def test_a_page_whose_job_goes_while_it_is_watched_is_over(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adsmig.web.events.EVERY_S", 0.01)
    path = make_manifest(make_job())
    looks: list[None] = []

    def view(*arguments: Any) -> Any:
        if looks:
            path.unlink()
        looks.append(None)
        return job_view(*arguments)

    monkeypatch.setattr("adsmig.web.pages.job_view", view)
    said = client.get(f"/jobs/{path.stem}/events").text
    assert said.startswith("event: pieces")
    assert said.endswith("event: over\ndata: {}\n\n")


def test_failures_that_cannot_be_read_are_no_short_list(client: Client) -> None:
    path = make_manifest(make_job(), failures={b"key": ("kind", "error")})
    database = sqlite3.connect(path)
    with database:
        database.execute("DROP TABLE failures")
    database.close()
    answer = client.get(f"/jobs/{path.stem}/failures.csv")
    assert answer.status_code == 400
    assert "cannot be used" in answer.text or "is damaged" in answer.text
