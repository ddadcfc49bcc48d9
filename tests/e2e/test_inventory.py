"""What a dry run and an inventory say: of the right objects, in every form."""

from __future__ import annotations

import csv
import io
import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from adsmig import coordinator, span
from adsmig.coordinator import Coordinator
from adsmig.storage.files import LocalFiles, Scan
from tests.e2e.conftest import Adsmig
from tests.e2e.inside import COLLECTED, Bucket, Here, put
from tests.e2e.inside import here as here
from tests.e2e.inside import store as store

pytestmark = COLLECTED

FILES = {"a/1.jpg": b"1", "a/b/2.jpg": b"22", "a/b/3.txt": b"333", "top": b"4444"}
PRICES = {
    "currency": "EUR",
    "source": {"LIST": 1, "GET": 10, "HEAD": 1, "out_gb": 1000},
    "destination": {"PUT": 100, "POST": 1, "LIST": 1, "HEAD": 1, "in_gb": 0},
}


def told(said: str) -> dict[str, Any]:
    """The events of ``--json``, by name."""
    return {event["event"]: event for event in map(json.loads, said.splitlines())}


def directories(inventory: dict[str, Any]) -> dict[str, int]:
    return {one["name"]: one["objects"] for one in inventory["directories"]}


def test_an_inventory_counts_what_is_there(here: Here, store: Bucket, tmp_path: Path) -> None:
    for place in (put(tmp_path / "src", FILES), store.put(FILES).url):
        found = told(here("inventory", "--json", place))["inventory"]
        assert (found["objects"], found["bytes"]) == (4, 10)
        assert directories(found) == {"": 1, "a/": 3}


def test_depth_tells_directories_apart(here: Here, tmp_path: Path) -> None:
    src = put(tmp_path / "src", FILES)
    depths = {0: {"": 4}, 1: {"": 1, "a/": 3}, 2: {"": 1, "a/": 1, "a/b/": 2}}
    for depth, expected in depths.items():
        found = told(here("inventory", "--json", "--depth", depth, src))["inventory"]
        assert directories(found) == expected


def test_info_tells_smallest_largest_and_average(here: Here, tmp_path: Path) -> None:
    src = put(tmp_path / "src", FILES)
    plain, full = (here("inventory", *options, src) for options in ([], ["--info"]))
    assert "smallest  largest  average" not in plain
    assert "smallest  largest  average" in full
    (line,) = [line for line in full.splitlines() if line.startswith("a/ ")]
    assert line.split() == ["a/", "3", "6", "B", "60.0%", "1", "B", "3", "B", "2", "B"]
    # As the product page has it, of a copy.
    assert line in here("cp", "--dryrun", "--noperms", "--info", src, tmp_path / "dst")


def test_with_a_destination_it_says_what_a_sync_would_do(
    here: Here, store: Bucket, tmp_path: Path
) -> None:
    src = put(tmp_path / "src", {"new": b"n", "changed": b"longer", "same": b"s", "d/same": b"s"})
    store.put({"changed": b"old", "same": b"s", "d/same": b"s", "extra": b"eee"})
    verdicts = {
        "new": [1, 1], "changed": [1, 6], "unchanged": [2, 2], "extraneous": [1, 3],
    }  # fmt: skip
    for command in (
        ["inventory", "--for", store.url, src],
        ["sync", "--dryrun", "--delete-dst", src, store.url],
    ):
        found = told(here(*command, "--json"))["inventory"]
        assert {
            one["name"]: [one["objects"], one["bytes"]] for one in found["verdicts"]
        } == verdicts
        requests = {(one["side"], one["name"]) for one in found["estimate"]["lines"]}
        assert (("destination", "DELETE") in requests) == ("--delete-dst" in command)
    assert store.names() == {"changed", "same", "d/same", "extra"}


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("a//b", "no name between two slashes: not a path"),
        ("../x", "'..' cannot be part of a path"),
        ("n" * 256, "a name of more than 255 bytes"),
        ("one/x", "a file and a directory of one name"),
    ],
)
def test_keys_that_will_be_trouble_are_foretold(
    here: Here, moto_store: Bucket, tmp_path: Path, key: str, says: str
) -> None:
    moto_store.put({"fine": b"f", "one": b"1", key: b"x"})
    found = told(here("inventory", "--json", "--for", tmp_path / "dst", moto_store.url))
    (trouble,) = found["inventory"]["troubles"]
    assert says in trouble["kind"]
    assert trouble["objects"] == 1
    assert trouble["examples"] == [key]
    assert not (tmp_path / "dst").exists()
    # And so it comes; of two that cannot be there together, the second one to be written fails.
    said = here("cp", moto_store.url, tmp_path / "dst", code=1)
    assert "1 failed" in said
    assert key.partition("/x")[0] in said


@pytest.fixture
def moto_store(moto: Any, bucket: Any) -> Bucket:
    return Bucket(moto, bucket(moto))


def test_rate_and_prices_say_how_long_and_how_much(
    here: Here, store: Bucket, tmp_path: Path
) -> None:
    src = put(tmp_path / "src", {"x": b"x", "y": bytes(999_999)})
    prices = tmp_path / "prices.json"
    prices.write_text(json.dumps(PRICES))
    options = ["--json", "--for", store.url]
    plain = told(here("inventory", *options, src))["inventory"]["estimate"]
    assert (plain["duration_s"], plain["cost"]) == (None, None)
    found = told(here("inventory", *options, "--rate", 8, "--prices", prices, src))
    priced = found["inventory"]["estimate"]
    assert priced["duration_s"] == pytest.approx(1)  # 1 MB at 8 Mbit/s
    counts = {(one["side"], one["name"]): one["count"] for one in priced["lines"]}
    assert counts["destination", "PUT"] == 2
    assert counts["destination", "bytes written"] == 1_000_000
    puts = next(one for one in priced["lines"] if one["name"] == "PUT")
    assert puts["cost"] == pytest.approx(2 * 100 / 1000)
    assert priced["currency"] == "EUR"
    # The run itself needs no more than that.
    assert "at 8 megabits" in here("inventory", "--for", store.url, "--rate", 8, src)


def test_csv_is_read_by_a_spreadsheet(here: Here, tmp_path: Path) -> None:
    src = put(tmp_path / "src", FILES | {'quo"te, and\nline': b"q"})
    rows = list(csv.DictReader(io.StringIO(here("inventory", "--csv", src), newline="")))
    (total,) = [row for row in rows if row["section"] == "total"]
    assert (total["objects"], total["bytes"]) == ("5", "11")
    largest = [row["name"] for row in rows if row["section"] == "largest"]
    assert largest[0] == "top"


@pytest.mark.parametrize("form", ["text", "--json", "--csv", "--html"])
@pytest.mark.parametrize("within", [True, False])
def test_what_an_interruption_cut_short_is_called_partial_first_of_all(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, within: bool
) -> None:
    src = put(tmp_path / "src", {f"d{n:04}/f": b"x" for n in range(600)})
    received = Coordinator._received

    def interrupting(self: Coordinator, result: Any) -> None:
        received(self, result)
        if within:
            self.interrupt()

    monkeypatch.setattr(coordinator, "SHORT_S", 0.0)
    monkeypatch.setattr(span, "SEEK_SHARE", 0)  # else who is slow to begin comes to the end at once
    monkeypatch.setattr(Coordinator, "_received", interrupting)
    page = tmp_path / "report.html"
    options = [form] if form in ("--json", "--csv") else ["--html", page]
    said = here("inventory", *options, src, code=130 if within else 0)
    if form == "--html":
        said = page.read_text()
        assert ("<h1>PARTIAL: some of what is at" in said) is within
    elif form == "--csv":
        assert (next(csv.DictReader(io.StringIO(said)))["section"] == "partial") is within
    elif form == "--json":
        assert bool(told(said.partition("\ninterrupted")[0])["inventory"]["partial"]) is within
    else:
        assert said.startswith("PARTIAL: ") is within
    assert bool(re.search(r"all up to d\d{4}/f is in this", said)) is within


class Links(HTMLParser):
    """What a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.found += [text or "" for name, text in attrs if name in ("src", "href")]


def test_the_page_of_an_inventory_needs_no_network(here: Here, tmp_path: Path) -> None:
    src = put(tmp_path / "src", FILES | {"<script>alert(1)</script>": b"x"})
    page = tmp_path / "page.html"
    here("inventory", "--html", page, "--for", tmp_path / "dst", src)
    links = Links()
    links.feed(page.read_text())
    assert [link for link in links.found if not link.startswith(("#", "data:"))] == []
    assert "svg" in links.tags
    assert "script" not in links.tags
    assert str(src) in page.read_text()


@pytest.mark.parametrize(
    ("option", "file", "says"),
    [
        ("--html", "no/page.html", "there is no directory"),
        ("--html", "prices.json/x", "there is no directory"),
        ("--prices", "nothing.json", "cannot be read"),
        ("--prices", "prices.json", "is no JSON"),
    ],
)
@pytest.mark.parametrize("command", ["inventory", "cp --dryrun"])
def test_files_of_the_report_are_checked_before_anything_is_listed(
    here: Here,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    option: str,
    file: str,
    says: str,
) -> None:
    src = put(tmp_path / "src", FILES)
    (tmp_path / "prices.json").write_text("{")
    monkeypatch.setattr(Coordinator, "run", None)  # which would list
    places = [src, tmp_path / "dst"][: len(command.split())]
    said = here(*command.split(), option, tmp_path / file, *places, code=2)
    assert says in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("command", [["inventory"], ["cp", "--dryrun"]])
def test_what_cannot_be_examined_has_no_size_and_no_age(
    here: Here, tmp_path: Path, command: list[str]
) -> None:
    src = put(tmp_path / "src", {"a": b"1"})
    (src / "broken").symlink_to("nowhere")
    said = here(*command, src, *[tmp_path / "dst"][: len(command) - 1], code=1)
    assert re.search(r"^objects +1$", said, re.MULTILINE)
    assert "1970" not in said
    assert "broken  a broken symbolic link" in said


def test_the_page_of_a_job_tells_its_runs(here: Here, adsmig: Adsmig, tmp_path: Path) -> None:
    src, manifest, page = put(tmp_path / "src", FILES), tmp_path / "m.db", tmp_path / "page.html"
    (src / "broken").symlink_to("nowhere")
    here("cp", "--manifest", manifest, src, tmp_path / "dst", code=1)
    (src / "broken").unlink()
    put(src, {"later": b"l"})
    here("sync", "--manifest", manifest, src, tmp_path / "dst")
    adsmig("status", "--manifest", manifest, "--html", page)
    text = page.read_text()
    assert "1 (cp)" in text
    assert "2 (sync)" in text
    done = adsmig("status", "--manifest", manifest, "--html", tmp_path / "no/page.html", code=2)
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("form", ["--json", "--csv", "--html"])
@pytest.mark.parametrize("options", [[], ["--include", "none"]])
def test_nothing_is_reported_as_such_where_there_was_something(
    here: Here, tmp_path: Path, form: str, options: list[str]
) -> None:
    src, page = put(tmp_path / "src", FILES if options else {}), tmp_path / "report.html"
    src.mkdir(exist_ok=True)
    page.write_text("the report of last month")
    chosen = [form] if form in ("--json", "--csv") else ["--html", page]
    said = here("inventory", *chosen, *options, src)
    if form == "--html":
        assert f"What is at {src}" in page.read_text()
    elif form == "--json":
        assert told(said)["inventory"]["objects"] == 0
    else:
        header, *rows = said.splitlines()
        assert header.startswith("section,")
        assert rows[0].startswith("total,,0,0")


@pytest.mark.parametrize("form", ["text", "--json", "--csv", "--html"])
def test_what_lacks_a_directory_that_cannot_be_listed_is_called_partial(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    src, page = put(tmp_path / "src", FILES), tmp_path / "report.html"
    scan = LocalFiles.scan

    def scans(files: LocalFiles, path: bytes, follow: bool) -> Scan:
        if path.endswith(b"/b/"):
            raise PermissionError(13, "Permission denied")
        return scan(files, path, follow)

    monkeypatch.setattr(LocalFiles, "scan", scans)
    options = [form] if form in ("--json", "--csv") else ["--html", page]
    said = here("inventory", *options, src, code=1)
    why = "a directory could not be listed, a/b/ first, and what is there is not in this"
    if form == "--html":
        said = page.read_text()
        assert "<h1>PARTIAL: some of what is at" in said
        assert why in said
    elif form == "--csv":
        row = next(csv.DictReader(io.StringIO(said)))
        assert (row["section"], row["note"]) == ("partial", why)
    elif form == "--json":
        events = [one for one in said.splitlines() if one.startswith("{")]
        assert told("\n".join(events))["inventory"]["partial"] == why
    else:
        assert said.startswith(f"PARTIAL: {why}")


def test_a_page_says_what_was_left_out_of_it(here: Here, tmp_path: Path) -> None:
    src, page = put(tmp_path / "src", FILES), tmp_path / "report.html"
    here("inventory", "--html", page, src)
    assert "Selected by" not in page.read_text()
    here("inventory", "--html", page, "--include", "jpg$", "--include", "<b>", "--end", "b", src)
    said = unescape(page.read_text())
    assert "--end b --include 'jpg$' --include '<b>'<" in said
    assert "<b>" not in page.read_text()
    here("inventory", "--html", page, "--min-size", "4", src)
    assert "--min-size 4 (3 objects were not)" in page.read_text()
