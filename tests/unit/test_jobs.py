"""Jobs are found by the beginnings of their ids, or by their manifests, and by nothing else."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import time
from dataclasses import replace
from pathlib import Path

import pytest

from adsmig.errors import ManifestError, UsageError
from adsmig.job import Job
from adsmig.jobs import job_lines, open_job, status_lines
from adsmig.ledger import default_path, state_directory
from adsmig.manifest import Manifest
from adsmig.output import Output
from adsmig.program import run
from adsmig.uri import parse


@pytest.fixture
def job() -> Job:
    return Job("cp", parse("/src/"), parse("/dst/"))


def keep(job: Job, name: str) -> Path:
    """Makes the manifest of that name in the state directory."""
    state_directory().mkdir(parents=True, exist_ok=True)
    path = state_directory() / f"{name}.db"
    with Manifest(path, create=True) as manifest:
        manifest.lock()
        manifest.set_job(job)
    return path


def test_the_beginning_of_an_id_is_enough_if_no_other_has_it(job: Job) -> None:
    one, _ = keep(job, "82ab"), keep(job, "82cd")
    assert open_job("82a", None)[1] == one
    with pytest.raises(UsageError, match=r"^82 could be any of 82ab, 82cd$"):
        open_job("82", None)


def test_a_whole_name_is_meant_even_if_another_begins_with_it(job: Job) -> None:
    one, _ = keep(job, "copy1"), keep(job, "copy10")
    assert open_job("copy1", None)[1] == one


@pytest.mark.parametrize(("state", "meant"), [("finished", "cp"), ("stopped", "verify")])
def test_a_comparison_that_is_over_is_not_what_is_tried_again_or_gone_on_with(
    job: Job, state: str, meant: str
) -> None:
    compared = replace(job, command="verify")
    for one, age_s in ((job, 100), (compared, 0)):
        path = keep(one, one.id)
        with Manifest(path) as manifest:
            manifest.lock()
            manifest.end_run(manifest.begin_run(one.command, [one.keys], one.manner).id, state)
        for file in path.parent.glob(f"{path.name}*"):
            os.utime(file, (time.time() - age_s,) * 2)
    assert open_job(None, None)[0].command == meant
    assert compared.id in next(status_lines(None, None, None, Output()))
    assert open_job(compared.id, None)[0].command == "verify"
    default_path(job).unlink()
    assert open_job(None, None)[0].command == "verify"  # there is no other


def test_that_nothing_has_failed_is_said_beside_the_result(
    job: Job, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    keep(job, job.id)
    assert run(["failures"]) == 0
    assert capfd.readouterr() == ("", f"job {job.id} has no failures on record\n")
    for option in ("-q", "--json"):
        assert run(["failures", option]) == 0
        assert capfd.readouterr() == ("", "")
    page = tmp_path / "page.html"
    assert run(["status", "--html", str(page)]) == 0
    assert capfd.readouterr().err == f"the report is in {page}\n"


def test_jobs_are_listed_by_their_last_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100, 200))
    monkeypatch.setattr("adsmig.manifest.time.time", lambda: next(clock))
    names = [f"/src{number}/" for number in range(5)]
    for name in [*reversed(names), names[3]]:
        one = Job("cp", parse(name), parse("/dst/"))
        with Manifest(keep(one, one.id)) as manifest:
            manifest.lock()
            manifest.begin_run("cp", [one.keys], one.manner)
    never = Job("cp", parse("/never/"), parse("/dst/"))
    keep(never, never.id)
    told = [json.loads(line)["from"] for line in job_lines(Output(as_json=True))]
    assert told == ["/never", "/src4", "/src2", "/src1", "/src0", "/src3"]


@pytest.mark.parametrize("command", ["jobs", "status", "failures", "resume"])
def test_a_state_directory_that_is_closed_to_the_user_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], command: str
) -> None:
    def closed(self: Path, *_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "glob", closed)  # root may read anything
    assert run([command]) == 3
    said = capfd.readouterr().err
    assert said == f"adsmig: cannot use {state_directory()}: Permission denied\n"


@pytest.mark.parametrize(
    "name", ["", "*", "82a?", "[8]2ab", "82ab*", "../jobs/82ab", "/no/such/82ab.db", "a\nb", "."]
)
def test_what_begins_no_id_and_is_no_file_is_wrong_usage(job: Job, name: str) -> None:
    keep(job, "82ab")
    with pytest.raises(UsageError, match="no job ") as caught:
        open_job(name, None)
    assert "\n" not in str(caught.value)


def test_a_manifest_that_cannot_be_understood_hides_no_other(
    job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(job, "good")
    paths = [keep(job, name) for name in ("newer", "torn")]
    for path, change in zip(
        paths, ("UPDATE job SET job = json_set(job, '$.novel', 1)", "DROP TABLE runs"), strict=True
    ):
        database = sqlite3.connect(path)
        with database:
            database.execute(change)
        database.close()
    said = "\n".join(job_lines(Output()))
    assert "/src" in said
    assert all(str(path) in said for path in paths)
    (line,) = job_lines(Output(as_json=True))
    assert json.loads(line)["from"] == "/src"
    told = capsys.readouterr().err
    assert all(str(path) in told for path in paths)
    with pytest.raises(ManifestError, match=f"{paths[0]}: the manifest holds no job"):
        open_job("newer", None)
