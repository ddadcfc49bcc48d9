"""A job is put on a schedule, and runs, while the console is there."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from adsmig.web.console import Console
from adsmig.web.trial import begin_preview
from tests.e2e.conftest import make_tree
from tests.web.conftest import Client, ClientFactory, ServedConsole, wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Browser

schedules = pytest.importorskip("adsmig.schedules")
pytestmark = pytest.mark.xdist_group("browser")


def test_a_schedule_is_made_by_the_form_and_steered(client: Client, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    places = {"src_path": f"{tmp_path}/src/", "dst_path": f"{tmp_path}/dst/"}
    wrong = client.submit("/new", do="schedule", cron="every day", **places)
    assert wrong.status_code == 422
    made = client.submit(
        "/new",
        do="schedule",
        cron="0 2 1 * *",
        timezone="Asia/Shanghai",
        schedule_name="m",
        **places,
    )
    assert made.headers["location"] == "/schedules"
    (one,) = schedules.Schedules().all()
    assert (one.name, one.cron, one.timezone) == ("m", "0 2 1 * *", "Asia/Shanghai")
    page = client.get("/schedules").text
    assert f"adsmig sync {tmp_path}/src/ {tmp_path}/dst/" in page
    assert re.search(r"next run <time [^>]*>\d+-\d+-01 02:00<", page)  # on clocks of Shanghai
    client.submit("/schedules/m/pause")
    assert schedules.Schedules().get("m").paused
    client.submit("/schedules/m/resume")
    assert client.submit("/schedules/none/pause").status_code == 422
    client.submit("/schedules/m/run-now")
    run = wait_for(
        lambda: (run := schedules.Schedules().get("m").last_run).state == "ended" and run
    )
    assert run.exit_code == 0
    assert f'href="/jobs/{run.job}"' in client.get("/schedules").text
    assert "2" in client.get("/jobs").text.partition("Next run")[2]
    client.submit("/schedules/m/remove")
    assert schedules.Schedules().all() == []


def test_a_path_that_is_not_text_hides_no_schedule(client: Client, tmp_path: Path) -> None:
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff/")
    schedules.Schedules().add(["sync", odd, f"{tmp_path}/dst/"], "@monthly", name="odd")
    page = client.get("/schedules")
    assert page.status_code == 200
    assert "odd" in page.text
    assert "xff" in page.text or "udcff" in page.text


def test_what_is_not_allowed_is_not_begun_by_a_schedule_or_a_preview(
    client_of: ClientFactory, tmp_path: Path
) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "src").mkdir()
    words = ["sync", "--", f"{tmp_path}/src/", f"{tmp_path}/dst/"]
    schedules.Schedules().add(words, "@monthly", name="m")
    preview = begin_preview(words, Console())
    client = client_of(tmp_path / "inside").log_in()
    schedules.Schedules().pause("m")
    for path in ("/schedules/m/run-now", "/schedules/m/resume", f"/previews/{preview}/start"):
        answer = client.submit(path)
        assert answer.status_code == 422
        assert "not allowed" in answer.text
    one = schedules.Schedules().get("m")
    assert (one.paused, one.last_run) == (True, None)
    assert not (tmp_path / "dst").exists()


def test_a_schedule_fires(browser: Browser, served: ServedConsole, tmp_path: Path) -> None:
    make_tree(tmp_path / "src", 3)
    words = ["sync", "--", f"{tmp_path}/src/", f"{tmp_path}/dst/"]
    # It was due while nothing was there to begin it, and is made up for.
    earlier = schedules.Schedules(clock=lambda: 1_700_000_000.0)
    earlier.add(words, "0 2 1 * *", name="monthly", timezone="UTC")
    page = browser.new_context(locale="en-US").new_page()
    page.goto(served.start())
    page.wait_for_selector("[data-row] .badge.finished", timeout=60_000)
    assert page.inner_text("[data-row] [data-label='Next run']")
    page.click("nav >> text=Schedules")
    page.click("text=to its job")
    page.wait_for_selector(".history tbody tr")
    page.context.close()
