"""What is printed after a run, and about one."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsmig import report
from adsmig.job import Job
from adsmig.ledger import Run, default_path
from adsmig.manifest import Manifest
from adsmig.model import Counts, Entry, KeyRange, Outcome, Part, PartsResult, SliceResult, Upload
from adsmig.uri import parse

SECRET = "secretsecret"


@pytest.fixture
def job() -> Job:
    return Job("sync", parse(f"s3://akid:{SECRET}@b.h/p/"), parse("/dst/"))


@pytest.fixture
def manifest(tmp_path: Path, job: Job) -> Iterator[Manifest]:
    with Manifest(tmp_path / "m.db", create=True) as opened:
        opened.set_job(job)
        yield opened


def run_of(counts: Counts = Counts(), **fields: object) -> Run:  # noqa: B008
    return Run(1, "sync", "finished", 0.0, 1.0, 0, counts, "", "")._replace(**fields)  # type: ignore[arg-type]


def failed(key: bytes, kind: str = "denied") -> Outcome:
    return Outcome(key, 1, 2, None, None, "a reason", kind)


def test_a_single_object_is_shown_not_what_it_is_in(manifest: Manifest) -> None:
    for src, dst, shown in (
        ("/d/", "s3://b.h/", ("/d/f", "s3://b.h/x/g")),
        ("u@host:/d", "s3://b.h/p/", ("sftp://u@host/d/f", "s3://b.h/p/x/g")),
        ("s3://b.h/p", "/d", ("s3://b.h/pf", "/d/x/g")),
    ):
        job = Job("cp", parse(src), parse(dst), single=(b"f", b"x/g"))
        facts = report.job_facts(job, [])
        assert (facts["from"], facts["to"]) == shown
        assert " ".join(shown) in next(report.status(manifest, job))


# The summary


def test_the_summary_tells_what_became_of_what_was_found(job: Job) -> None:
    counts = Counts(12_345, 5 * 10**9, 10_000, 4 * 10**9, 2_340, 10**9, 5)
    assert report.summary(job, run_of(counts), 100.0) == (
        "copied 2,340 objects (1.0 GB), 10,000 unchanged, 5 failed, of 12,345 found (5.0 GB)"
        " in 1:40, 10.0 MB/s"
    )


def test_the_rate_of_a_resumed_run_is_that_since_it_was_resumed(job: Job) -> None:
    before = Counts(900, 9 * 10**9, copied=900, copied_bytes=9 * 10**9)
    after = Counts(1000, 10**10, copied=1000, copied_bytes=10**10)
    assert report.summary(job, run_of(after), 100.0, before) == (
        "copied 1,000 objects (10.0 GB), 0 unchanged, 0 failed, of 1,000 found (10.0 GB)"
        " in 1:40 since it was resumed, 10.0 MB/s"
    )


def test_a_dry_run_would_copy_at_no_rate(job: Job) -> None:
    text = report.summary(
        Job(job.command, job.src, job.dst, dryrun=True), run_of(Counts(found=2, copied=2)), 0.0
    )
    assert text.startswith("would copy 2 objects (0 B), 0 unchanged, 0 failed, of 2 found")
    assert "/s" not in text


def test_a_run_of_no_time_has_a_rate_all_the_same(job: Job) -> None:
    assert "copied 1 object (" in report.summary(job, run_of(Counts(found=1, copied=1)), 0.0)


def test_deletions_and_what_was_left_alone_or_not_selected_are_told(job: Job) -> None:
    counts = Counts(10, 100, 3, 30, 2, 20, 1, left=4, dropped=5, deleted=6, deleted_bytes=7000)
    text = report.summary(replace(job, delete_dst=True), run_of(counts), 10.0)
    assert text == (
        "copied 2 objects (20 B), 3 unchanged, 4 left alone, deleted 6 (7.0 kB), 1 failed, of 10"
        " found (100 B), 5 more not selected in 0:10, 2 B/s"
    )
    dry = report.summary(replace(job, delete_dst=True, dryrun=True), run_of(counts), 10.0)
    assert "would copy 2 objects" in dry
    assert "would delete 6 (7.0 kB)" in dry


def test_an_option_that_deletes_is_told_of_even_if_nothing_was_deleted(job: Job) -> None:
    found = run_of(Counts(found=1, copied=1))
    assert "deleted" not in report.summary(job, found, 1.0)
    for option in ("delete_src", "delete_dst"):
        one = replace(job, **{option: True})  # type: ignore[arg-type]
        assert "deleted 0 (0 B)" in report.summary(one, found, 1.0)


def test_each_command_tells_what_it_is_about(job: Job) -> None:
    counts = Counts(10, 100, 7, 70, failed=3, deleted=2, deleted_bytes=9)
    verify, kinds = replace(job, command="verify"), [("missing", 2, ""), ("differs", 1, "")]
    verified = report.summary(verify, run_of(counts), 1.0, kinds=kinds)
    assert verified.startswith("7 equal, ")
    assert "3 different (2 missing, 1 differs), of 10 found" in verified
    assert "copied" not in verified
    removed = report.summary(replace(job, command="rm", dst=None), run_of(counts), 1.0)
    assert removed.startswith("deleted 2 (9 B), 3 failed, of 10 found (100 B)")
    listed = report.summary(
        replace(job, command="inventory", dst=None, dryrun=True), run_of(Counts(10, 100)), 1.0
    )
    assert listed == "10 found (100 B) in 0:01"


@pytest.mark.parametrize(
    ("command", "verb"),
    [
        ("cp", "copy"), ("sync", "sync"), ("verify", "compare"), ("rm", "delete"),
        ("inventory", "count"),
    ],
)  # fmt: skip
def test_nothing_found_says_what_was_listed(job: Job, command: str, verb: str) -> None:
    text = report.summary(replace(job, command=command), run_of(), 1.0)
    assert text == f"found nothing to {verb}: s3://***@b.h/p/ was listed to its end"


def test_an_empty_source_is_called_so(job: Job) -> None:
    assert list(report.nothing_found(job, 0, [])) == ["it is empty"]
    named = replace(job, files_from="/tmp/names")
    assert list(report.nothing_found(named, 0, [])) == ["it has none of the keys in --files-from"]


def test_nothing_selected_names_the_options_that_dropped_what_was_there(job: Job) -> None:
    reasons = [("--include 'x'", 1200, b"a\nb"), ("--min-size 5", 300, "é".encode())]
    assert list(report.nothing_found(job, 1500, reasons)) == [
        r"--include 'x' dropped 1,200 of 1,500 objects, such as 'a\nb'",
        "--min-size 5 dropped 300 of 1,500 objects, such as é",
    ]
    (line,) = report.nothing_found(job, 1000, [("--min-size 5", 999, b"a")], whole=False)
    assert line == "--min-size 5 dropped 999 of the first 1,000 objects, such as a"


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"start": b"a"}, "--start 'a'"),
        ({"end": b"z"}, "--end 'z'"),
        ({"start": b"a", "end": "é".encode()}, "--start 'a' and --end 'é'"),
        ({"start": b""}, "--start ''"),
        ({"start": b"\xff\n"}, "--start '\N{REPLACEMENT CHARACTER}\\n'"),
    ],
)
def test_nothing_found_between_start_and_end_names_them(
    job: Job, limits: dict[str, bytes], said: str
) -> None:
    lines = list(report.nothing_found(replace(job, **limits), 0, []))  # type: ignore[arg-type]
    assert lines == [f"no key lies within {said}"]
    assert "\n" not in lines[0]
    # What lies between was listed, and something else dropped it.
    dropped = [("--max-size 1", 2, b"k")]
    lines = list(report.nothing_found(replace(job, **limits), 2, dropped))  # type: ignore[arg-type]
    assert lines == ["--max-size 1 dropped 2 of 2 objects, such as k"]


# Keys


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (b"a/b c.txt", "a/b c.txt"),
        ("é/💥/日本".encode(), "é/💥/日本"),
        (b"a//b/./..", "a//b/./.."),
        (b"a\nb", r"'a\nb'"),
        (b"\x1b[31mred", r"'\x1b[31mred'"),
        (b"\x00", r"'\x00'"),
        ("\u202etxt.exe".encode(), r"'\u202etxt.exe'"),
        ("\u2028".encode(), r"'\u2028'"),
        (b" a", "' a'"),
        (b"a ", "'a '"),
        (b"\xffa", r"'\xffa'"),
        (b"a\xff'", '"a\\xff\'"'),
    ],
)
def test_keys_are_printed_so_that_they_can_be_told_apart(key: bytes, text: str) -> None:
    assert report.printable(key) == text


@given(st.binary(max_size=20) | st.text(max_size=20).map(str.encode))
def test_any_key_stays_on_its_line(key: bytes) -> None:
    text = report.printable(key)
    assert text.isprintable()
    assert text.strip() == text
    text.encode()
    line = report.failure_line(failed(key))
    assert line.isprintable()
    assert text in line


# Failures


def test_a_failure_is_kind_key_and_reason() -> None:
    assert report.failure_line(failed(b"a\n")) == r"denied     'a\n'  a reason"
    assert report.failure_line(failed(b"a", "SomeLongErrorCode")).startswith("SomeLongErrorCode a ")


def test_many_failures_are_cut_off_and_counted(manifest: Manifest) -> None:
    run = manifest.begin_run("sync", [KeyRange()])
    outcomes = [failed(b"%03d" % number, f"kind{number % 3}") for number in range(25)]
    manifest.commit_slice(run.id, 1, SliceResult(b"k", False, Counts(), outcomes))
    lines = list(report.failure_lines(manifest, 20))
    assert len(lines) == 21
    assert [line.split()[1] for line in lines[:20]] == [f"{number:03}" for number in range(20)]
    assert lines[-1] == "… and 5 more"
    assert len(list(report.failure_lines(manifest, 25))) == 25


# Status and jobs


def test_a_job_not_yet_run_says_so(manifest: Manifest, job: Job) -> None:
    lines = list(report.status(manifest, job))
    assert lines[0] == f"job       {job.id}: sync s3://***@b.h/p/ /dst"
    assert lines[-1] == "it has not been run yet"


def test_status_tells_runs_what_is_left_and_what_failed(manifest: Manifest, job: Job) -> None:
    first = manifest.begin_run("sync", [KeyRange()])
    manifest.end_run(first.id, "finished")
    run = manifest.begin_run("sync", [KeyRange(b"", b"m"), KeyRange(b"m", None)])
    big, other = Entry(b"big\n", 100, None, 0), Entry(b"other", 100, None, 0)
    outcomes = [failed(b"a"), failed(b"b"), failed(b"c", "key")]
    manifest.commit_slice(
        run.id, 2, SliceResult(b"c", False, Counts(3, failed=3), outcomes, [big, other])
    )
    manifest.commit_upload(big, Upload(big, "id", 30), 1)
    manifest.commit_parts(run.id, big.key, PartsResult([Part(2, "e", None, None)], 30))
    manifest.resume_run(run.id)
    manifest.end_run(run.id, "stopped", "the disk is full")
    lines = list(report.status(manifest, job))
    text = "\n".join(lines)
    assert "unfinished: 2 ranges left (the disk is full)" in lines
    assert r"  large object 'big\n': 1 of 4 parts" in lines
    assert "  large object other: not begun" in lines
    assert f"go on with: adsmig resume --manifest {manifest.path}" in lines
    assert "         2  denied: a reason" in lines
    assert "         1  key: a reason" in lines
    assert f"adsmig retry --manifest {manifest.path}" in lines[-1]
    assert re.search(r"^1 +sync +finished ", text, re.M)
    assert re.search(r"^2 +sync +stopped \(resumed 1×\) ", text, re.M)
    assert SECRET not in text


def test_status_tells_each_reason_of_a_kind_of_failure(manifest: Manifest, job: Job) -> None:
    run = manifest.begin_run("sync", [KeyRange()])
    reasons = ["''", "'.'", "'.'", *(f"'{number}'" for number in range(6))]
    outcomes = [
        failed(b"%d" % number, "key")._replace(error=f"{reason} cannot be part of a path")
        for number, reason in enumerate(reasons)
    ]
    outcomes += [failed(b"x", "denied"), failed(b"y", "denied")]
    manifest.commit_slice(run.id, 1, SliceResult(b"z", False, Counts(), outcomes))
    lines = list(report.status(manifest, job))
    assert lines[lines.index("failed:") + 1 : -1] == [
        "         2  key: '.' cannot be part of a path",
        "         1  key: '' cannot be part of a path",
        "         1  key: '0' cannot be part of a path",
        "         1  key: '1' cannot be part of a path",
        "         1  key: '2' cannot be part of a path",
        "         3  key, for other reasons",
        "         2  denied: a reason",
    ]


def test_a_job_in_its_usual_place_is_named_by_its_id(job: Job) -> None:
    with Manifest(default_path(job), create=True) as manifest:
        manifest.set_job(job)
        manifest.begin_run("sync", [KeyRange()])
        assert f"go on with: adsmig resume {job.id}" in list(report.status(manifest, job))


def test_nothing_is_offered_while_a_process_is_at_work(manifest: Manifest, job: Job) -> None:
    run = manifest.begin_run("sync", [KeyRange()])
    manifest.commit_slice(run.id, 1, SliceResult(b"k", False, Counts(), [failed(b"a")]))
    assert re.search(r"^1 +sync +interrupted ", "\n".join(report.status(manifest, job)), re.M)
    manifest.lock()
    text = "\n".join(report.status(manifest, job))
    assert re.search(r"^1 +sync +running ", text, re.M)
    assert f"process {os.getpid()} is at work on it" in text
    assert "unfinished: 1 range left" in text
    assert "adsmig failures" in text
    assert "resume" not in text
    assert "retry" not in text


def test_a_finished_run_has_nothing_left(manifest: Manifest, job: Job) -> None:
    run = manifest.begin_run("sync", [KeyRange()])
    manifest.end_run(run.id, "finished")
    text = "\n".join(report.status(manifest, job))
    assert "unfinished" not in text
    assert "resume" not in text
    assert "failed:" not in text


def test_a_refused_run_says_why_and_offers_nothing_to_go_on_with(
    manifest: Manifest, job: Job
) -> None:
    run = manifest.begin_run("sync", [KeyRange()])
    manifest.end_run(run.id, "refused", "nothing was deleted: it would be 9 objects")
    text = "\n".join(report.status(manifest, job))
    assert "nothing was deleted: it would be 9 objects" in text
    assert "resume" not in text


def test_jobs_are_rows_of_their_last_run(job: Job) -> None:
    new = report.job_row(job, [])
    ran = report.job_row(job, [run_of(), run_of(Counts(copied=1234, failed=5), state="stopped")])
    assert len(new) == len(ran) == len(report.JOB_COLUMNS)
    assert dict(zip(report.JOB_COLUMNS, ran, strict=True)) == {
        "job": job.id, "command": "sync", "state": "stopped", "last run": report.clock(0.0),
        "copied": "1,234", "failed": "5", "from": "s3://***@b.h/p/", "to": "/dst",
    }  # fmt: skip
    assert new[2:6] == ("new", "", "", "")


def test_what_is_told_of_jobs_are_numbers_to_a_machine(job: Job) -> None:
    new = report.job_facts(job, [])
    ran = report.job_facts(job, [run_of(Counts(copied=1234, failed=5))])
    assert tuple(new) == tuple(ran) == report.JOB_COLUMNS
    assert [ran[name] for name in ("last run", "copied", "failed")] == [0.0, 1234, 5]
    assert [new[name] for name in ("last run", "copied", "failed")] == [None, None, None]


def test_tables_are_aligned() -> None:
    rows = [("a", "bb", "c"), ("aaa", "b", "ccc"), ("", "", "")]
    assert list(report.table(rows)) == ["a    bb  c", "aaa  b   ccc", ""]


@given(
    st.lists(
        st.tuples(*[st.text("abc", min_size=1, max_size=9)] * 3), min_size=1, max_size=9
    )
)  # fmt: skip
def test_the_columns_of_a_table_begin_at_one_place(rows: list[tuple[str, ...]]) -> None:
    lines = list(report.table(rows))
    starts = [[match.start() for match in re.finditer(r"(?:(?<=  )|^)\S", line)] for line in lines]
    assert all(one == starts[0] for one in starts)
    assert [tuple(line.split()) for line in lines] == rows


def test_the_clock_is_local_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC-8")
    time.tzset()
    try:
        assert report.clock(0) == "1970-01-01 08:00:00"
    finally:
        monkeypatch.undo()
        time.tzset()
