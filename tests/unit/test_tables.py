"""Figures as tables for a terminal and a spreadsheet."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsmig import tables
from adsmig.estimate import Estimate, Prices, estimate
from adsmig.inventory import Inventory
from adsmig.progress import size

NOW_NS = 1_790_000_000 * 10**9
NASTY = [
    b"<script>alert('x')</script>", b"new\nline", b"\x1b[31mred", b"\xff\xfe", b" blank ", b"$x$",
    "数据".encode(), "\u202eevil".encode(), b'quote",comma', b"x" * 1024, b"=1+1", b"\x00",
]  # fmt: skip


def filled(directories: int = 3, depth: int = 1) -> Inventory:
    made = Inventory(NOW_NS, depth)
    for number in range(directories):
        for at in range(3):
            made.add(b"d%d/%d.txt" % (number, at), 1000 * (number + 1), NOW_NS - 10**15, "")
    return made


def nasty() -> Inventory:
    made = Inventory(NOW_NS)
    for at, key in enumerate(NASTY):
        made.add(key + b"/" + key, 10 ** (at + 6), NOW_NS, "")
        made.forecast.trouble(key.decode(errors="replace"), key)
    return made


def priced(inventory: Inventory, prices: Prices | None = None) -> Estimate:
    return estimate(
        inventory, src_scheme="s3", dst_scheme="s3", lists_destination=False, to_copy=(9, 18_000),
        large=(0, 0), extraneous=0, rate_mbps=8, prices=prices,
    )  # fmt: skip


def lines(inventory: Inventory, figures: Estimate | None = None, info: bool = False) -> list[str]:
    return list(tables.inventory_lines(inventory, figures, info))


def records(inventory: Inventory, figures: Estimate | None = None) -> list[dict[str, str]]:
    text = "".join(tables.inventory_csv(inventory, figures))
    return list(csv.DictReader(io.StringIO(text, newline="")))


# On a terminal


def test_the_total_comes_first() -> None:
    found = lines(filled())
    assert found[0].split() == ["objects", "9"]
    assert found[1].split() == ["size", "18.0", "kB", "(18,000", "bytes)"]
    assert any("smallest 1.0 kB, largest 3.0 kB" in line for line in found)


def test_an_empty_inventory_is_a_total_and_nothing_else() -> None:
    assert [line.split() for line in lines(Inventory(NOW_NS))] == [
        ["objects", "0"],
        ["size", "0", "B"],
    ]


def test_directories_are_sorted_by_bytes_and_the_rest_is_counted() -> None:
    found = lines(filled(12))
    at = found.index("DIRECTORIES")
    assert [line.split()[0] for line in found[at + 2 : at + 12]] == [
        f"d{number}/" for number in range(11, 1, -1)
    ]
    assert found[at + 12] == "… and 2 more, with 9.0 kB"
    assert found[at + 2].split() == ["d11/", "3", "8.3%", "36.0", "kB", "15.4%"]


def test_numbers_are_flush_right() -> None:
    found = lines(filled())
    at = found.index("DIRECTORIES")
    header, first = found[at + 1], found[at + 2]
    assert header.index("objects") + len("objects") == first.index("3 ") + 1
    assert len(header) == len(first)


def test_info_tells_the_extremes_of_every_directory() -> None:
    found = lines(filled(1003), info=True)
    at = found.index("DIRECTORIES")
    assert found[at + 1].split() == [
        "directory", "objects", "bytes", "share", "smallest", "largest", "average",
    ]  # fmt: skip
    assert found[at + 2].split() == [
        "d1002/", "3", "3.0", "MB", "0.2%", "1.0", "MB", "1.0", "MB", "1.0", "MB",
    ]  # fmt: skip
    assert found[at + 1002] == "… and 3 more: all are in the CSV"


def test_folded_directories_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adsmig.inventory.MOST_DIRECTORIES", 2)
    found = lines(filled(3))
    assert "too many 1 deep: these are 0 deep" in found
    assert any(line.startswith("(everything)") for line in found)


def test_only_what_there_is_gets_a_section() -> None:
    titles = {line for line in lines(filled()) if line.isupper()}
    assert titles == {"DIRECTORIES", "SIZES OF OBJECTS", "AGES", "EXTENSIONS", "LARGEST OBJECTS"}
    made = filled()
    made.add(b"x", 1, NOW_NS, "GLACIER")
    made.forecast.verdict("new", 1)
    made.forecast.trouble("long name", b"x")
    titles = {line for line in lines(made, priced(made)) if line.isupper()}
    assert {"STORAGE CLASSES", "WHAT WOULD BE DONE", "TROUBLE TO BE EXPECTED"} <= titles
    assert "WHAT IT WOULD TAKE" in titles


def test_verdicts_come_in_the_order_of_work() -> None:
    made = filled()
    for name in ("unreadable", "left", "unchanged", "changed", "new"):
        made.forecast.verdict(name, 10)
    found = lines(made)
    at = found.index("WHAT WOULD BE DONE")
    assert [line.split()[0] for line in found[at + 2 : at + 7]] == [
        "new", "changed", "unchanged", "left", "unreadable",
    ]  # fmt: skip


def test_an_estimate_tells_time_and_money() -> None:
    made = filled()
    text = "\n".join(lines(made, priced(made, Prices("EUR", {"GET": 100, "out_gb": 9}, {}))))
    assert "takes 0:00 at 8 megabits a second, all the time" in text
    assert "EUR 0.90" in text
    assert "no price" in text
    assert "without source LIST, destination PUT, destination bytes written" in text
    text = "\n".join(lines(made, priced(made)))
    assert "cost" not in text


@pytest.mark.parametrize("info", [False, True])
def test_lines_are_printable_and_fit(info: bool) -> None:
    for line in lines(nasty(), priced(nasty()), info):
        assert line.isprintable()
        assert tables._width(line) <= tables.WIDTH


@given(st.text(max_size=40), st.integers(1, 30))
def test_a_cut_text_fits_and_keeps_both_ends(text: str, width: int) -> None:
    cut = tables.elided(text, width)
    assert tables._width(cut) <= width
    if cut != text:
        start, _, end = cut.partition("…")
        assert text.startswith(start)
        assert text.endswith(end)


def test_wide_characters_count_twice() -> None:
    assert list(tables.table([("数据", "1"), ("abc", "22")], right={1})) == ["数据   1", "abc   22"]
    assert tables.elided("数据集中文", 6) == "数…文"


def test_a_narrow_table_keeps_its_numbers() -> None:
    found = list(tables.table([("x" * 200, "123,456")], right={1}, width=40))
    assert len(found[0]) == 40
    assert found[0].endswith("  123,456")


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [(0, 0, "0.0%"), (0, 5, "0.0%"), (5, 5, "100.0%"), (1, 10**6, "<0.1%"), (1, 1000, "0.1%")],
)
def test_little_is_not_nothing(part: int, whole: int, text: str) -> None:
    assert tables.percent(part, whole) == text


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "USD 0.00"), (0.001, "USD under 0.01"), (0.01, "USD 0.01"), (1234.5, "USD 1,234.50")],
)
def test_money_has_cents(amount: float, text: str) -> None:
    assert tables.money(amount, "USD") == text


def test_money_needs_no_currency() -> None:
    assert tables.money(1, "") == "1.00"


# For a spreadsheet


def test_csv_has_the_exact_figures() -> None:
    made = filled()
    made.forecast.verdict("new", 7)
    found = {(row["section"], row["name"]): row for row in records(made, priced(made))}
    assert found["total", ""]["objects"] == "9"
    assert found["total", ""]["bytes"] == "18000"
    assert found["directory", "d2/"] == {
        "section": "directory", "name": "d2/", "objects": "3", "bytes": "9000", "min": "3000",
        "max": "3000", "average": "3000.0", "count": "", "cost": "", "note": "",
    }  # fmt: skip
    assert found["verdict", "new"]["bytes"] == "7"
    assert found["estimate source", "GET"]["count"] == "9"
    assert found["estimate destination", "bytes written"]["bytes"] == "18000"
    assert found["time", "last"]["note"] == "2026-09-10T00:26:40Z"


def test_csv_adds_up() -> None:
    made = nasty()
    found = records(made)
    for section in ("directory", "size", "age", "extension", "storage_class"):
        rows = [row for row in found if row["section"] == section]
        assert sum(int(row["objects"]) for row in rows) == made.objects, section
        assert sum(int(row["bytes"]) for row in rows) == made.size, section


def test_csv_keeps_what_is_in_a_key() -> None:
    found = records(nasty())
    names = {row["name"] for row in found if row["section"] == "largest"}
    assert 'quote",comma/quote",comma' in names
    assert "new\nline/new\nline" in names
    assert "\\xff\\xfe/\\xff\\xfe" in names
    text = list(tables.inventory_csv(nasty(), None))
    assert all(line.endswith("\r\n") for line in text)
    assert text[0] == ",".join(tables.CSV_COLUMNS) + "\r\n"


def test_the_same_figures_are_in_every_table() -> None:
    made = nasty()
    shown = {section.name: section for section in tables.sections(made, None, True, top=len(NASTY))}
    by_name = {row["name"]: row for row in records(made) if row["section"] == "size"}
    for name, objects, _, count, _ in shown["size"].rows:
        assert objects == f"{int(by_name[name]['objects']):,}"
        assert count == size(int(by_name[name]["bytes"]))
