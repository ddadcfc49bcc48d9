"""The API is what its description says, and figures are there for Prometheus."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from prometheus_client.parser import text_string_to_metric_families

from adsmig.model import Counts
from adsmig.web.access import Access, key_file
from adsmig.web.app import make_app
from adsmig.web.console import Console
from tests.e2e.conftest import FULL
from tests.web.conftest import Client, make_job, make_manifest, wait_for

EXAMPLES = 100 if FULL else 12
"""Of requests, for each operation of the API."""


@pytest.fixture
def api(client: Client) -> Client:
    """A program that has the key."""
    client.cookies.clear()
    client.headers["Authorization"] = f"Bearer {key_file().read_text().strip()}"
    return client


def test_a_job_is_started_watched_and_run_again(api: Client, tmp_path: Path) -> None:
    source, destination = tmp_path / "src", tmp_path / "dst"
    source.mkdir()
    (source / "a").write_text("hello")
    os.utime(source / "a", (1, 1))
    asked = {
        "source": {"kind": "file", "path": f"{source}/"},
        "destination": {"kind": "file", "path": f"{destination}/"},
    }
    said = api.post("/api/trials/src", json=asked).json()
    assert said == {"good": True, "message": "It can be listed. The first key is a"}
    preview = api.post("/api/previews", json=asked)
    assert preview.status_code == 202
    name = preview.json()["preview"]
    wait_for(lambda: not api.get(f"/api/previews/{name}").json()["running"])
    found = api.get(f"/api/previews/{name}").json()
    assert found["result"]["copied"] == 1
    assert found["inventory"]["bytes"] == 5
    assert not destination.exists()
    started = api.post("/api/jobs", json=asked)
    assert started.status_code == 201
    assert started.json()["command_line"] == f"adsmig sync {source}/ {destination}/"
    where = f"/api/jobs/{started.json()['job']}"
    wait_for(lambda: api.get(where).json()["state"] == "finished")
    assert (destination / "a").read_text() == "hello"
    assert api.post(f"{where}/again").status_code == 202
    job = wait_for(
        lambda: (
            (job := api.get(where).json())["state"] == "finished" and len(job["runs"]) == 2 and job
        )
    )
    assert [run["counts"]["copied"] for run in job["runs"]] == [1, 0]
    assert [one["done"] for one in api.get(f"{where}/shards").json()] == [True]


def test_a_preview_is_there_whatever_directories_are_called(api: Client, tmp_path: Path) -> None:
    source = tmp_path / "src"
    for name in ("a\u2028b", "c\x85d", "e\nf"):  # what splits lines in Python, or is no text
        (source / name).mkdir(parents=True)
        (source / name / "file").write_text("hello")
    asked = {
        "source": {"kind": "file", "path": f"{source}/"},
        "destination": {"kind": "file", "path": f"{tmp_path}/dst/"},
    }
    name = api.post("/api/previews", json=asked).json()["preview"]
    wait_for(lambda: not api.get(f"/api/previews/{name}").json()["running"])
    assert api.get(f"/api/previews/{name}").json()["inventory"]["objects"] == 3


def test_failures_come_page_by_page(api: Client) -> None:
    job = make_job()
    failures = {f"k{n}".encode(): ("gone", "no") for n in range(5)} | {b"\xff": ("odd", "x")}
    make_manifest(job, failures=failures)
    seen: list[str] = []
    after: str | None = ""
    while after is not None:
        query = {"limit": 2, "after": after}
        answer = api.get(f"/api/jobs/{job.id}/failures", params=query).json()
        seen += [one["key"] for one in answer["failures"]]
        after = answer["after"]
    assert seen == ["k0", "k1", "k2", "k3", "k4", "\\xff"]
    query = {"kind": "odd"}
    assert len(api.get(f"/api/jobs/{job.id}/failures", params=query).json()["failures"]) == 1


def test_figures_are_there_for_prometheus(api: Client) -> None:
    job = make_job()
    counts = Counts(found=30, found_bytes=300, copied=28, copied_bytes=280, failed=2)
    make_manifest(job, counts, cuts=(b"g", b"p"))
    answer = api.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    samples = {
        (sample.name, sample.labels.get("state", "")): sample
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    copied = samples["adsmig_copied_objects_total", ""]
    assert (copied.value, copied.labels["job"]) == (28, job.id)
    assert samples["adsmig_copied_bytes_total", ""].value == 280
    assert samples["adsmig_failures", ""].value == 2
    assert samples["adsmig_running", ""].value == 0
    assert samples["adsmig_shards", "done"].value == 1
    assert samples["adsmig_shards", "waiting"].value == 2
    assert ("adsmig_last_success_timestamp_seconds", "") not in samples


def test_a_secret_that_is_not_as_it_should_be_is_not_sent_back(api: Client) -> None:
    asked: dict[str, Any] = {"source": {"secret_key": ["wJalrXUtnFEMI"], "access_key": "x" * 5000}}
    answer = api.post("/api/jobs", json=asked)
    assert answer.status_code == 422
    assert "wJalrXUtnFEMI" not in answer.text
    assert "xxxxx" not in answer.text


def test_the_api_withstands_whatever_it_is_sent(tmp_path: Path) -> None:
    """Requests that are made up from its description, right ones and wrong ones."""
    access = Access()
    app = make_app(Console((tmp_path,)), access)
    make_manifest(make_job(), failures={b"bad": ("denied", "no")})
    schema = schemathesis.openapi.from_asgi("/api/openapi.json", app)
    headers = {"Authorization": f"Bearer {access.key}"}
    patient = settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    operations = [one.ok() for one in schema.get_all_operations()]
    assert len(operations) >= 11

    for operation in operations:

        @patient
        @given(case=operation.as_strategy())
        def attempt(case: Any) -> None:
            answer = case.call(headers=headers)
            assert answer.status_code < 500, answer.text

        attempt()
