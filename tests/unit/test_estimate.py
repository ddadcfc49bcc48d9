"""Requests, bytes, time and money, before anything is copied."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsmig.errors import UsageError
from adsmig.estimate import Estimate, Prices, estimate, load_prices
from adsmig.inventory import Inventory

PRICES = Prices(
    "USD",
    {"LIST": 0.005, "GET": 0.0004, "HEAD": 0.0004, "DELETE": 0, "out_gb": 0.09},
    {"LIST": 0.005, "PUT": 0.005, "POST": 0.005, "in_gb": 0, "storage_gb_month": 0.023},
)


def reckoned(inventory: Inventory | None = None, **changed: Any) -> Estimate:
    given: dict[str, Any] = {
        "src_scheme": "s3",
        "dst_scheme": "oss",
        "lists_destination": True,
        "to_copy": (1000, 10**12),
        "large": (10, 250),
        "extraneous": 0,
        "rate_mbps": None,
        "prices": None,
    }
    return estimate(inventory or listing(2500), **{**given, **changed})


def listing(objects: int, markers: int = 0, **verdicts: int) -> Inventory:
    made = Inventory(0)
    for _ in range(objects):
        made.add(b"k", 1, 0, "")
    for _ in range(markers):
        made.add(b"d/", 0, 0, "")
    for name, count in verdicts.items():
        for _ in range(count):
            made.forecast.verdict(name, 1)
    return made


# Requests


def test_every_request_of_both_sides_is_told() -> None:
    found = reckoned()
    assert found.requests("source") == {"LIST": 3, "GET": 990 + 250, "HEAD": 10}
    assert found.requests("destination") == {
        "LIST": 1, "HEAD": 10, "PUT": 990 + 250, "POST": 20,
    }  # fmt: skip


@pytest.mark.parametrize(("objects", "pages"), [(0, 1), (1, 1), (1000, 1), (1001, 2)])
def test_a_listing_takes_a_request_for_a_thousand_keys_and_at_least_one(
    objects: int, pages: int
) -> None:
    assert reckoned(listing(objects)).requests("source")["LIST"] == pages


def test_directory_markers_are_listed_too() -> None:
    assert reckoned(listing(1000, markers=1)).requests("source")["LIST"] == 2


def test_the_destination_lists_what_it_has() -> None:
    there = listing(3000, new=3000, unchanged=1000, changed=500, left=400)
    assert reckoned(there, extraneous=200).requests("destination")["LIST"] == 3
    assert "LIST" not in reckoned(there, lists_destination=False).requests("destination")


def test_a_delete_removes_a_thousand() -> None:
    found = reckoned(extraneous=1001)
    assert found.requests("destination")["DELETE"] == 2
    assert "DELETE" not in found.requests("source")


def test_without_a_destination_reading_is_told_and_deletes_are_at_the_source() -> None:
    found = reckoned(dst_scheme=None, extraneous=1001)
    assert found.requests("source") == {"LIST": 3, "GET": 1240, "HEAD": 10, "DELETE": 2}
    assert {line.side for line in found.lines} == {"source"}


@pytest.mark.parametrize("scheme", ["file", "sftp"])
def test_file_systems_know_no_requests(scheme: str) -> None:
    found = reckoned(src_scheme=scheme)
    assert found.requests("source") == {}
    assert found.requests("destination")["PUT"] == 1240
    assert reckoned(dst_scheme=scheme).requests("destination") == {}
    assert [line.name for line in found.lines if line.is_bytes] == ["bytes read", "bytes written"]


def test_more_large_objects_than_are_copied_ask_for_no_negative_number() -> None:
    assert reckoned(to_copy=(3, 10), large=(5, 9)).requests("source")["GET"] == 9


@given(st.integers(0, 10**9), st.integers(0, 10**16), st.integers(0, 10**6), st.integers(0, 10**9))
def test_no_figure_is_negative_and_each_says_what_it_is(
    objects: int, size: int, large: int, extraneous: int
) -> None:
    found = reckoned(to_copy=(objects, size), large=(large, 3 * large), extraneous=extraneous)
    assert all(line.count >= 0 and line.basis for line in found.lines)
    assert json.loads(json.dumps(found.to_json()))["bytes"] == size


# Time and money


def test_time_is_bits_by_the_rate_in_megabits() -> None:
    assert reckoned(rate_mbps=1000).duration_s == 8000
    assert reckoned().duration_s is None
    assert reckoned(rate_mbps=0).duration_s is None


def test_the_way_to_a_disk_of_this_machine_costs_nothing() -> None:
    prices = Prices("USD", {"out_gb": 0.09}, {"in_gb": 0.02})
    for src, dst, costs in (("file", "s3", [0, 20]), ("s3", "file", [90, 0])):
        found = reckoned(src_scheme=src, dst_scheme=dst, prices=prices)
        assert [line.cost for line in found.lines if line.is_bytes] == pytest.approx(costs)


def test_money_is_by_the_line_and_in_total() -> None:
    found = reckoned(prices=PRICES)
    costs = {(line.side, line.name): line.cost for line in found.lines}
    assert costs["source", "GET"] == pytest.approx(1240 * 0.0004 / 1000)
    assert costs["source", "bytes read"] == pytest.approx(90)
    assert costs["destination", "bytes written"] == 0
    assert costs["destination", "bytes kept"] == pytest.approx(23)
    once = [cost for (_, name), cost in costs.items() if name != "bytes kept"]
    assert found.cost == pytest.approx(sum(cost for cost in once if cost))
    assert found.monthly_cost == pytest.approx(23)


def test_what_has_no_price_is_named_and_not_free() -> None:
    found = reckoned(prices=PRICES)
    assert found.unpriced == ["destination HEAD"]
    line = next(one for one in found.lines if (one.side, one.name) == ("destination", "HEAD"))
    assert line.cost is None


def test_without_prices_there_is_no_money() -> None:
    found = reckoned()
    assert (found.cost, found.monthly_cost, found.unpriced) == (None, None, [])
    assert all(line.cost is None for line in found.lines)
    assert found.to_json()["currency"] is None


def test_no_price_for_keeping_it_is_no_monthly_cost() -> None:
    assert reckoned(prices=Prices("EUR", {}, {})).monthly_cost is None
    assert reckoned(prices=Prices("EUR", {}, {})).cost == 0


# The price list


def written(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "prices.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_price_list_is_read(tmp_path: Path) -> None:
    path = written(
        tmp_path, '{"currency": "CNY", "source": {"GET": 0.01}, "destination": {"in_gb": 0}}'
    )
    assert load_prices(path) == Prices("CNY", {"GET": 0.01}, {"in_gb": 0.0})
    assert load_prices(written(tmp_path, "{}")) == Prices("", {}, {})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is no JSON"),
        ("{", "is no JSON"),
        (b"\xff\xfe", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "is no JSON object"),
        ('{"sauce": {}}', "names 'sauce'; write one of currency, source, destination"),
        ('{"source": 3}', 'source is no object; write "source": {'),
        ('{"source": {"get": 1}}', "source names 'get'; write one of LIST, GET,"),
        ('{"source": {"in_gb": 1}}', "source names 'in_gb'"),
        ('{"destination": {"out_gb": 1}}', "destination names 'out_gb'"),
        ('{"source": {"GET": -1}}', "source GET is -1; write the price of 1,000 requests"),
        ('{"source": {"out_gb": -0.1}}', "source out_gb is -0.1; write the price of a GB"),
        ('{"source": {"GET": "1"}}', 'source GET is "1"'),
        ('{"source": {"GET": true}}', "source GET is true"),
        ('{"source": {"GET": null}}', "source GET is null"),
        ('{"source": {"GET": NaN}}', "source GET is NaN"),
        ('{"source": {"GET": Infinity}}', "source GET is Infinity"),
        ('{"source": {"GET": 1' + "0" * 400 + "}}", "source GET is 1000"),
        ('{"currency": 3}', 'currency 3 is no short name; write "USD"'),
        ('{"currency": "a\\nb"}', 'is no short name; write "USD"'),
    ],
)
def test_a_wrong_price_list_says_what_and_where(
    tmp_path: Path, content: str | bytes, said: str
) -> None:
    path = written(tmp_path, content)
    with pytest.raises(UsageError) as caught:
        load_prices(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_missing_price_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.json cannot be read: No such file"):
        load_prices(tmp_path / "none.json")


@pytest.mark.parametrize("prices", [None, PRICES])
def test_where_there_is_nothing_to_copy_nothing_is_read_at_the_source(
    prices: Prices | None,
) -> None:
    lines = reckoned(to_copy=(0, 0), prices=prices).lines
    of_bytes = [(line.side, line.name, line.count) for line in lines if line.name != "bytes kept"]
    assert ("source", "bytes read", 0) in of_bytes
    assert ("destination", "bytes written", 0) in of_bytes
    assert not [one for one in of_bytes if one[:2] == ("source", "bytes written")]
    kept = [line.side for line in lines if line.name == "bytes kept"]
    assert kept in ([], ["destination"])
