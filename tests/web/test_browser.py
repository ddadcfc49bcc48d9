"""What people do, done in Chromium, with real jobs against MinIO's code base."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from adsmig.ledger import default_path, state_directory
from adsmig.manifest import Manifest
from adsmig.model import Counts
from adsmig.web.access import write_password
from tests.conftest import BucketFactory
from tests.e2e.conftest import digest, make_tree
from tests.servers import MinIOGateway
from tests.web.conftest import ServedConsole, make_job, make_manifest, wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page, Route

pytestmark = pytest.mark.xdist_group("browser")

LONG = "n" * 300
"""The name of an object that no file can have."""
ENDS_WITHIN_MS = 120_000


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser that was never here, and that notes every error of a script or a policy."""
    context = browser.new_context(locale="en-US")
    context.set_default_timeout(ENDS_WITHIN_MS)
    errors: list[str] = []
    context.on("weberror", lambda error: errors.append(str(error.error)))
    context.on(
        "console",
        lambda said: errors.append(said.text) if "Content Security Policy" in said.text else None,
    )
    yield context
    context.close()
    assert errors == []


@pytest.fixture
def page(context: BrowserContext, served: ServedConsole) -> Page:
    """A page of a console, logged in."""
    page = context.new_page()
    page.goto(served.start())
    return page


def fill_from_store(page: Page, server: MinIOGateway, bucket: str, destination: Path) -> None:
    """The form of a job from a bucket to a directory."""
    page.click("nav >> text=New job")
    page.check("[name=src_kind][value=object]", force=True)
    page.fill("[name=src_endpoint]", server.host)
    page.fill("[name=src_bucket]", f"{bucket}/")
    page.fill("[name=src_access_key]", server.access_key)
    page.fill("[name=src_secret_key]", server.secret_key)
    page.check("[name=dst_kind][value=file]", force=True)
    page.fill("[name=dst_path]", f"{destination}/")


def limit_bandwidth(page: Page, mbps: str) -> None:
    page.click("summary:has-text('speed')")
    page.fill("[name=bandwidth_mbps]", mbps)


def figure(page: Page, name: str) -> int:
    text = page.inner_text(f".tiles li:has(span:text-is('{name}')) strong")
    return int(text.replace(",", ""))


def state_is(page: Page, state: str) -> None:
    """Waits until the job's page says so."""
    from playwright.sync_api import TimeoutError

    try:
        page.wait_for_selector(f".facts .badge.{state}")
    except TimeoutError as exc:
        raise AssertionError(f"{page.url} is not {state}: {page.inner_text('body')}") from exc


def name_in(page: Page) -> str:
    return page.url.rpartition("/")[2].partition("?")[0]


def put_tree(server: MinIOGateway, bucket: str, tmp_path: Path, count: int, most: int) -> None:
    make_tree(tmp_path / "tree", count, most)
    command = [sys.executable, "-m", "adsmig", "-q", "cp", f"{tmp_path}/tree/", server.url(bucket)]
    subprocess.run(command, check=True, timeout=120)


def test_a_click_leads_on_though_another_job_comes_just_then(page: Page) -> None:
    def slow(route: Route) -> None:
        make_manifest(make_job())
        time.sleep(3)  # the page is told of it every second
        route.continue_()

    page.route("**/new", slow)
    page.click("nav >> text=New job", no_wait_after=True)
    page.wait_for_selector("[name=src_kind][value=object]", state="attached", timeout=20_000)


def test_from_the_form_to_the_report(
    page: Page, minio: MinIOGateway, bucket: BucketFactory, tmp_path: Path
) -> None:
    name, destination = bucket(minio), tmp_path / "dst"
    put_tree(minio, name, tmp_path, 120, 60_000)
    minio.client().put_object(Bucket=name, Key=LONG, Body=b"x")
    fill_from_store(page, minio, name, destination)

    # A field that is not right is told at the field, and nothing that was typed is lost.
    page.fill("[name=src_bucket]", name)
    page.click("[value=try-src]")
    page.wait_for_selector("#src_bucket[aria-invalid] ~ small.wrong")
    page.fill("[name=src_bucket]", f"{name}/")
    page.fill("[name=src_secret_key]", "wrong")
    page.click("[value=try-src]")
    page.wait_for_selector("#said-try-src.bad")
    page.fill("[name=src_secret_key]", minio.secret_key)
    page.click("[value=try-src]")
    page.wait_for_selector("#said-try-src.good")
    page.click("[value=try-dst]")
    page.wait_for_selector("#said-try-dst.good")
    limit_bandwidth(page, "8")
    wait_for(lambda: "--bwlimit=8" in page.inner_text("#command-line"))
    assert minio.secret_key not in page.inner_text("#command-line")

    page.click(".finish [value=preview]")
    page.wait_for_selector("text=Nothing was changed")
    assert figure(page, "Would be copied") == 121
    page.wait_for_selector("text=a name of more than 255 bytes")
    assert not destination.exists()

    minio.client().delete_object(Bucket=name, Key=LONG)
    destination.mkdir()
    (destination / "d1").write_text("in the way")
    blocked = sum(1 for one in (tmp_path / "tree/d1").rglob("*") if one.is_file())

    page.click("text=Start now")
    page.wait_for_url("**/jobs/*")
    state_is(page, "running")
    job = name_in(page)
    early = wait_for(lambda: figure(page, "Copied"))
    wait_for(lambda: figure(page, "Copied") > early)
    state_is(page, "failures")
    assert (figure(page, "Copied"), figure(page, "Failed")) == (120 - blocked, blocked)
    assert page.locator(".strip g.failed").count() >= 1
    assert page.locator(".strip g:not(.done)").count() == 0
    assert page.locator(".plot").count() == 2
    assert page.locator("#job-failures tbody tr").count() == blocked
    assert "d1/e1/" in page.inner_text("#job-failures")

    (destination / "d1").unlink()
    page.click("#job-head >> text=Retry failures")
    state_is(page, "finished")
    assert (figure(page, "Copied"), figure(page, "Failed")) == (blocked, 0)
    page.wait_for_selector(".history tbody tr:nth-child(2)")
    assert digest(destination) == digest(tmp_path / "tree")

    with page.context.expect_page() as opened:
        page.click("text=Report with plots")
    opened.value.wait_for_selector("text=All runs")
    opened.value.close()
    page.click("nav >> text=Jobs")
    page.wait_for_selector(f"#job-{job} .badge.finished")
    for path in (*state_directory().parent.rglob("*"), tmp_path / "console.log"):
        if path.is_file():
            assert minio.secret_key.encode() not in path.read_bytes(), path


def test_pause_resume_cancel_and_a_console_that_is_killed(
    page: Page, served: ServedConsole, minio: MinIOGateway, bucket: BucketFactory, tmp_path: Path
) -> None:
    name = bucket(minio)
    put_tree(minio, name, tmp_path, 500, 80_000)
    fill_from_store(page, minio, name, tmp_path / "dst")
    limit_bandwidth(page, "2")  # MB/s: 20 seconds, for what a browser does in five
    page.click("text=Start now")
    page.wait_for_url("**/jobs/*")
    state_is(page, "running")
    job = name_in(page)
    wait_for(lambda: figure(page, "Copied"))
    page.click("button:text-is('Pause')")
    state_is(page, "paused")
    settled = figure(page, "Copied")
    assert 0 < settled < 500
    page.click("button:text-is('Resume')")
    state_is(page, "running")

    # The job lives on without a console, and a new one finds it.
    served.kill()
    page.wait_for_selector("#lost:visible")
    new = page.context.new_page()
    new.goto(served.start())
    new.wait_for_selector(f"#job-{job} .badge.running")
    page.wait_for_selector("#lost", state="hidden")

    # The other browser sees what this one does.
    new.goto(f"{new.url.rpartition('/')[0]}/jobs/{job}")
    state_is(new, "running")
    new.on("dialog", lambda dialog: dialog.accept())
    new.click("button:text-is('Cancel')")
    state_is(new, "cancelled")
    page.goto(new.url)
    state_is(page, "cancelled")
    copied = figure(page, "Copied")
    assert settled <= copied < 500
    with Manifest(state_directory() / f"{job}.db") as manifest:
        assert [run.state for run in manifest.runs()] == ["cancelled"]


def test_jobs_of_a_command_line_are_there_and_rows_come_by_themselves(
    page: Page, tmp_path: Path
) -> None:
    page.wait_for_selector("text=No jobs yet")
    make_tree(tmp_path / "src", 5)
    command = [sys.executable, "-m", "adsmig", "cp", f"{tmp_path}/src/", f"{tmp_path}/dst/"]
    subprocess.run(command, check=True, capture_output=True)
    page.wait_for_selector("[data-row] .badge.finished")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url("**/jobs/*")
    assert figure(page, "Copied") == 5
    assert "begun on a command line" in page.inner_text("#job-log")
    page.click("text=Run again")
    page.wait_for_selector(".history tbody tr:nth-child(2)")
    state_is(page, "finished")


def test_html_in_a_key_stays_text_when_it_comes_as_an_event(page: Page) -> None:
    job = make_job()
    evil = b"<img src=x onerror=document.title='owned'>"
    make_manifest(job, state="running", failures={evil: ("denied", "<b>no</b>")}, cuts=(evil,))
    page.goto(f"{page.url}/{job.id}")
    state_is(page, "interrupted")
    with Manifest(default_path(job)) as manifest:
        manifest.end_run(1, "finished")
    state_is(page, "finished")
    assert page.locator("#job-failures img, #job-strip img, .why b").count() == 0
    assert evil.decode() in page.inner_text("#job-failures")
    assert "owned" not in page.title()


def test_strangers_are_asked_for_the_password(context: BrowserContext, tmp_path: Path) -> None:
    write_password("correct horse")
    served = ServedConsole(tmp_path / "console.log")
    try:
        page = context.new_page()
        page.goto(served.start())
        page.fill("[name=given]", "battery staple")
        page.keyboard.press("Enter")
        page.wait_for_selector("text=This password is wrong.")
        page.fill("[name=given]", "correct horse")
        page.keyboard.press("Enter")
        page.wait_for_selector("text=No jobs yet")
        page.click("text=Log out")
        page.wait_for_url("**/login")
        page.goto(f"{page.url.rpartition('/')[0]}/jobs")
        page.wait_for_url("**/login?next=/jobs")
    finally:
        served.kill()


def test_it_fits_a_phone_in_both_languages_and_both_lights(
    browser: Browser, served: ServedConsole
) -> None:
    job = make_job("/data/" + "long" * 40 + "/")
    make_manifest(job, state="stopped", failures={b"k" * 200: ("denied", "no" * 100)})
    url = served.start()
    context = browser.new_context(
        locale="zh-CN", color_scheme="dark", viewport={"width": 390, "height": 800}
    )
    page = context.new_page()
    page.goto(url)
    for path, word in (("jobs", "已暂停"), ("new", "等效命令行"), (f"jobs/{job.id}", "失败明细")):
        page.goto(f"{url.partition('login')[0]}{path}")
        page.wait_for_selector(f"text={word}")
        room, wide = page.evaluate(
            "[document.documentElement.clientWidth, document.documentElement.scrollWidth]"
        )
        assert wide <= room, path
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("button[name=theme]:visible")
    page.wait_for_function(  # the page is a new one, for a moment without a body
        "dark => document.body && getComputedStyle(document.body).backgroundColor != dark", arg=dark
    )
    page.click("text=English")
    page.wait_for_selector("text=What failed")
    context.close()


def test_addresses_have_the_room_of_the_list(browser: Browser, served: ServedConsole) -> None:
    """Each in one line, beside the longest word and the most buttons that there are."""
    place = "s3://backup-bucket.s3.cn-north-1.amazonaws.com.cn/corpora/2026/"
    failed = Counts(found=31, found_bytes=3000, copied=30, copied_bytes=3000, failed=1)
    make_manifest(make_job("/data/web/2026/", place), failed, failures={b"k": ("denied", "no")})
    make_manifest(make_job("/data/other/", place), state="stopped")
    context = browser.new_context(locale="en-US", viewport={"width": 1200, "height": 800})
    page = context.new_page()
    page.goto(served.start())
    page.wait_for_selector("text=Retry failures")
    lines = page.eval_on_selector_all(
        ".jobs .places span", "all => all.map(one => one.getClientRects().length"
        " && Math.round(one.offsetHeight / parseFloat(getComputedStyle(one).lineHeight)))",
    )  # fmt: skip
    assert lines == [1] * 4
    context.close()


def test_it_is_used_by_keys_alone(page: Page) -> None:
    make_manifest(make_job())
    page.wait_for_selector("[data-row]")
    page.keyboard.press("/")
    page.keyboard.type("nothing like that")
    page.wait_for_selector("[data-row]", state="hidden")
    page.keyboard.press("Escape")
    page.keyboard.press("n")
    page.wait_for_url("**/new")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    seen = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.name || ''"))
    assert {"command", "src_kind", "do", "dst_kind"} <= seen


def test_without_scripts_the_form_works_as_well(
    browser: Browser, served: ServedConsole, tmp_path: Path
) -> None:
    make_tree(tmp_path / "src", 3)
    context = browser.new_context(java_script_enabled=False, locale="en-US")
    page = context.new_page()
    page.goto(served.start())
    page.click("nav >> text=New job")
    for side in ("src", "dst"):
        page.check(f"[name={side}_kind][value=file]", force=True)
    page.fill("[name=src_path]", "relative")
    page.fill("[name=dst_path]", f"{tmp_path}/dst/")
    page.click("text=Start now")
    page.wait_for_selector("#src_path[aria-invalid]")
    assert page.input_value("[name=dst_path]") == f"{tmp_path}/dst/"
    page.fill("[name=src_path]", f"{tmp_path}/src/")
    page.click("text=Start now")
    page.wait_for_url(re.compile(".*/jobs/[0-9a-f]{10}$"))
    wait_for(lambda: page.reload() and page.is_visible(".facts .badge.finished"))
    assert len(os.listdir(tmp_path / "dst")) == 3
    context.close()
