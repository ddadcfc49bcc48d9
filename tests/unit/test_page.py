"""Pages of one file each: their figures, their plots, and what keys cannot do to them."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from adsmig import plots
from adsmig.errors import AdsmigError
from adsmig.estimate import Estimate, Prices, estimate
from adsmig.inventory import Inventory
from adsmig.job import Job
from adsmig.manifest import Manifest
from adsmig.model import Counts, KeyRange, Outcome, SliceResult
from adsmig.page import inventory_page, run_page
from adsmig.plots import Plots
from adsmig.progress import size
from adsmig.uri import parse

NOW_NS = 1_790_000_000 * 10**9
SECRET = "secretsecret"
NASTY = [
    b"<script>alert('x')</script>", b"</title><img src=x onerror=alert(1)>", b"\"'><b>&amp;",
    b"new\nline", b"\x1b[31m\x00\x7f", b"\xff\xfe", b"$x$ \\frac{", "\u202eevil".encode(),
    b'id="x" url(#x) #010101', "数据集".encode(), b"]]>", b"<!--", b"x" * 1024,
]  # fmt: skip
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """What a browser would make of it: elements, attributes, text; and whether all is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + "\n"

    def named(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def filled(keys: list[bytes] | None = None) -> Inventory:
    made = Inventory(NOW_NS)
    for at, key in enumerate(keys or [b"a/x.txt", b"b/y.bin", b"c"]):
        made.add(key, 1000 * (at + 1), NOW_NS - at * 10**16, "")
        made.forecast.verdict(("new", "changed", "unchanged")[at % 3], 1000 * (at + 1))
    return made


def hostile() -> Inventory:
    made = filled([key + b"/" + key for key in NASTY])
    for key in NASTY:
        text = key.decode("utf-8", "replace")
        made.add(key, 10**9, NOW_NS, text)
        made.forecast.trouble(text, key)
        made.forecast.verdict(text, 5)
    return made


def priced(made: Inventory) -> Estimate:
    return estimate(
        made, src_scheme="s3", dst_scheme="s3", lists_destination=True, to_copy=(2, 3000),
        large=(0, 0), extraneous=0, rate_mbps=1, prices=Prices("<b>", {"out_gb": 10**6}, {}),
    )  # fmt: skip


def of_inventory(made: Inventory, figures: Estimate | None = None, info: bool = False) -> str:
    return inventory_page("What is there", [("Source", "s3://***@b/")], made, figures, info)


@pytest.fixture
def job() -> Job:
    return Job("sync", parse(f"s3://akid:{SECRET}@b.h.example/p/"), parse("/dst/"))


@pytest.fixture
def manifest(tmp_path: Path, job: Job) -> Iterator[Manifest]:
    with Manifest(tmp_path / "m.db", create=True) as opened:
        opened.set_job(job)
        yield opened


def ran(
    manifest: Manifest,
    outcomes: list[Outcome],
    state: str = "finished",
    spans: tuple[tuple[float, float], ...] = ((0, 10),),
) -> None:
    """A run, each slice of which has all the outcomes' counts."""
    run = manifest.begin_run("sync", [KeyRange(b"", None, True)])
    shard = manifest.open_shards(run.id)[0][0]
    failed = sum(bool(one.error) for one in outcomes)
    counts = Counts(
        found=len(outcomes), copied=len(outcomes) - failed, copied_bytes=5000, failed=failed
    )
    for started, ended in spans:
        result = SliceResult(
            b"z", True, counts, outcomes, started=10**9 + started, ended=10**9 + ended
        )
        manifest.commit_slice(run.id, shard, result)
    if state != "running":
        manifest.end_run(run.id, state, "interrupted" if state == "stopped" else "")


def copied(key: bytes, seconds: float = 2.0) -> Outcome:
    return Outcome(key, 5000, 0, None, None, seconds=seconds)


def failed(key: bytes, kind: str = "denied", error: str = "a reason") -> Outcome:
    return Outcome(key, 1, 0, None, None, error, kind)


# What every page is


def pages(manifest: Manifest, job: Job) -> Iterator[str]:
    yield of_inventory(Inventory(NOW_NS))
    yield of_inventory(filled(), priced(filled()))
    yield of_inventory(hostile(), priced(hostile()), info=True)
    yield run_page(job, manifest)
    ran(manifest, [copied(key) for key in NASTY], spans=((0, 10), (9000, 9010)))
    texts = [key.decode("utf-8", "replace") for key in NASTY]
    ran(
        manifest,
        [failed(key, text, text) for key, text in zip(NASTY, texts, strict=True)],
        "stopped",
    )
    yield run_page(job, manifest)


def test_a_page_needs_nothing_else_and_runs_nothing(manifest: Manifest, job: Job) -> None:
    for html in pages(manifest, job):
        page = Page(html)
        names = {name for name, _ in page.tags}
        assert not names & {"script", "img", "link", "iframe", "object", "b", "a", "image"}
        for _, attributes in page.tags:
            assert not any(name.startswith("on") or name in ("src", "href") for name in attributes)
            assert attributes.get("xlink:href", "#").startswith("#")
        assert "@import" not in html
        assert not re.search(r"url\((?!#)", html)
        policy = next(one for one in page.named("meta") if "http-equiv" in one)
        assert policy["content"].startswith("default-src 'none'")


def test_a_page_can_be_read_by_everyone(manifest: Manifest, job: Job) -> None:
    for html in pages(manifest, job):
        page = Page(html)
        assert html.startswith("<!DOCTYPE html>")
        assert page.named("html") == [{"lang": "en"}]
        assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.named(
            "meta"
        )
        assert len(page.named("h1")) == len(page.named("title")) - len(page.named("svg")) == 1
        assert len(page.named("table")) == len(page.named("caption"))
        assert all(one["scope"] in ("col", "row") for one in page.named("th"))


def test_ids_are_unique_and_what_is_referred_to_is_there(manifest: Manifest, job: Job) -> None:
    for html in pages(manifest, job):
        page = Page(html)
        ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
        assert len(ids) == len(set(ids))
        for _, attributes in page.tags:
            for value in attributes.values():
                assert set(re.findall(r"url\(#([^)]*)\)", value)) <= set(ids)
            if "xlink:href" in attributes:
                assert attributes["xlink:href"][1:] in ids
            assert set(attributes.get("aria-labelledby", "").split()) <= set(ids)


def svgs(html: str) -> list[ElementTree.Element]:
    return [
        ElementTree.fromstring(one) for one in re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    ]


def test_plots_are_well_formed_and_say_what_they_show(manifest: Manifest, job: Job) -> None:
    space = "{http://www.w3.org/2000/svg}"
    for html in pages(manifest, job):
        for svg in svgs(html):
            assert svg.get("role") == "img"
            assert svg.find(f"{space}title").text  # type: ignore[union-attr]
            assert svg.find(f"{space}desc").text  # type: ignore[union-attr]
            assert svg.get("viewBox", "").startswith("0 0 480 ")
            assert svg.get("width") is None


def test_plots_take_colours_and_fonts_from_the_page(manifest: Manifest, job: Job) -> None:
    for html in pages(manifest, job):
        for svg in svgs(html):
            for element in svg.iter():
                style = element.get("style", "")
                assert "#" not in style.replace("url(#", "")
                assert "font-family" not in style
                assert "DejaVu" not in style


def test_whatever_is_in_a_name_is_text(manifest: Manifest, job: Job) -> None:
    for html in pages(manifest, job):
        assert all(one.isprintable() or one == "\n" for one in html)
        html.encode("utf-8")
    text = Page(of_inventory(hostile())).text
    assert "<script>alert('x')</script>" in text
    assert 'id="x" url(#x) #010101' in text
    assert "$x$ \\frac{" in text


def test_a_page_is_the_same_each_time() -> None:
    made = hostile()
    assert of_inventory(made, priced(made), True) == of_inventory(made, priced(made), True)


def test_without_matplotlib_the_way_to_get_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [one for one in sys.modules if one.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(AdsmigError, match=r"pip install 'adsmig\[report\]'"):
        of_inventory(filled())
    with pytest.raises(AdsmigError, match=r"pip install 'adsmig\[report\]'"):
        plots.check_drawing()


# An inventory


def test_its_figures_are_the_inventorys() -> None:
    made = filled()
    figures = priced(made)
    text = Page(of_inventory(made, figures)).text.split("\n")
    for figure in (
        f"{made.objects:,}",
        size(made.size),
        f"{figures.objects:,}",
        "a/",
        size(1000),
        "txt",
        "b/y.bin",
        "2.0 kB",
        "33.3%",
        "at 1 megabits a second",
        "<b> 3.00",
    ):
        assert figure in text, figure


def test_every_directory_is_there_if_asked_for() -> None:
    made = filled([b"%03d/x" % number for number in range(30)])
    assert "012/" not in Page(of_inventory(made)).text
    page = Page(of_inventory(made, None, info=True))
    assert all(f"{number:03}/" in page.text for number in range(30))
    assert "smallest" in page.text


def test_trouble_stands_out() -> None:
    made = filled()
    made.forecast.trouble("a name over 255 bytes", b"a/x.txt")
    page = Page(of_inventory(made))
    assert {"class": "tile bad"} in page.named("li")
    assert "a name over 255 bytes" in page.text
    assert {"class": "tile bad"} not in Page(of_inventory(filled())).named("li")


# A job


def test_a_job_that_never_ran_says_so(manifest: Manifest, job: Job) -> None:
    page = Page(run_page(job, manifest))
    assert "It has not been run yet" in page.text
    assert job.id in page.text
    assert page.named("svg") == []


def test_a_page_holds_no_secret(manifest: Manifest, job: Job) -> None:
    ran(manifest, [copied(b"k")])
    html = run_page(job, manifest)
    assert SECRET not in html
    assert "s3://***@b.h.example/p/" in html


def test_a_run_under_way_has_a_page(manifest: Manifest, job: Job) -> None:
    manifest.lock()
    manifest.begin_run("cp", [KeyRange(b"", None, True)])
    page = Page(run_page(job, manifest))
    assert "began" in page.text
    assert "running" in page.text


def test_a_run_that_was_killed_is_called_interrupted(manifest: Manifest, job: Job) -> None:
    manifest.begin_run("cp", [KeyRange(b"", None, True)])
    page = Page(run_page(job, manifest))
    assert "interrupted" in page.text
    assert "running" not in page.text


def test_a_run_has_its_figures_its_slowest_objects_and_its_failures(
    manifest: Manifest, job: Job
) -> None:
    ran(
        manifest,
        [copied(b"slow", 4.0), copied(b"quick", 0.5), failed(b"bad", error="no right to read")],
        "stopped",
    )
    page = Page(run_page(job, manifest))
    words = page.text.split("\n")
    assert "slow" in words
    assert words.index("slow") < words.index("quick")
    assert words[words.index("slow") + 1 : words.index("slow") + 4] == [
        "5.0 kB", "4.0", "1.2 kB/s",
    ]  # fmt: skip
    assert "no right to read" in words
    assert any(" retry " in line and "try them again" in line for line in words)
    assert any("stopped: interrupted" in line for line in words)
    assert {"class": "tile bad"} in page.named("li")
    assert "500 B/s" in words  # 5,000 bytes in 10 s


def test_time_when_nothing_ran_is_cut_out_and_told(manifest: Manifest, job: Job) -> None:
    ran(manifest, [copied(b"k")], spans=((0, 1000), (10_000, 11_000)))
    text = Page(run_page(job, manifest)).text
    assert "after 16:40 of running, nothing ran for 2:30:00; this time is cut out" in text
    assert "2.5 h pause" in text


def test_every_run_is_in_the_history(manifest: Manifest, job: Job) -> None:
    for number in range(30):
        ran(manifest, [copied(b"%d" % number)])
    page = Page(run_page(job, manifest))
    assert all(f"{number} (sync)" in page.text for number in range(1, 31))
    assert time.strftime("%d %b %y") in page.text


def test_large_numbers_of_slices_make_no_large_page(manifest: Manifest, job: Job) -> None:
    few, many = ((0.0, 1.0),), tuple((float(at), at + 1.0) for at in range(500))
    ran(manifest, [copied(b"k")], spans=few)
    small = len(run_page(job, manifest))
    ran(manifest, [copied(b"k")], spans=many)
    assert len(run_page(job, manifest)) < 2 * small + 20_000


# Plots


def test_plots_of_nothing_are_drawn() -> None:
    made = Plots()
    for svg in (
        made.ranked([], "t", "d"),
        made.ranked([("a", 0, "0")], "t", "d"),
        made.paired([("a", 0, 0)], "t", "d"),
        made.shares([("a", 0, 0, 0)], "t", "d"),
        made.over_time([0, 1], [("a", [0], str, 1)], [], "t", "d"),
        made.history(["1"], [("a", [0], str, 1)], "t", "d"),
    ):
        ElementTree.fromstring(svg)


def test_bars_are_as_long_as_their_values() -> None:
    svg = Plots().ranked([("a", 10, ""), ("b", 5, "")], "t", "d")
    ends = [
        float(re.findall(r"L ([\d.]+) ", path.get("d", ""))[0])
        for path in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}path")
        if "var(--c1)" in path.get("style", "")
    ]
    assert ends == [480, 240]


@pytest.mark.parametrize(
    ("seconds", "step"),
    [(0.5, 0.1), (6, 1), (61, 15), (3600, 600), (86400, 21600), (30 * 86400, 6 * 86400)],
)
def test_ticks_are_few_and_round(seconds: float, step: float) -> None:
    assert plots.tick_step(seconds) == step
    assert seconds / step <= 6


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (plots.spell(45), "45 s"),
        (plots.spell(90), "1.5 min"),
        (plots.spell(36 * 3600), "1.5 d"),
        (plots.compact(950), "950"),
        (plots.compact(12_345), "12.3k"),
        (plots.compact(4e12), "4T"),
        (plots.short_size(2e8), "200 MB"),
        (plots.short_size(2.5e8), "250 MB"),
        (plots.short_size(1.5e9), "1.5 GB"),
    ],
)
def test_scales_are_written_briefly(written: str, text: str) -> None:
    assert written == text
