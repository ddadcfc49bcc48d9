"""Jobs: what is the same job, what makes no sense, and what the manifest is told."""

from __future__ import annotations

import json
import math
import pickle
import re
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsmig.errors import AdsmigError, UsageError
from adsmig.filters import Filters
from adsmig.job import MOST_TIMEOUT_S, Job
from adsmig.location import Credentials, Location
from adsmig.model import KeyRange
from adsmig.routes import Route
from adsmig.storage import open_storage
from adsmig.uri import parse

SECRETS = Credentials("AKIDSECRET", "secretsecret", "tokensecret")


def job(src: str | bytes = "s3://b.h/p/", dst: str | bytes = "/dst/", **options: Any) -> Job:
    return Job(options.pop("command", "cp"), parse(src), parse(dst), **options)


# The same job?


MANNERS: list[dict[str, Any]] = [
    {"command": "sync"},
    {"compare": "size"},
    {"compare": "checksum"},
    {"existing": True},
    {"ignore_existing": True},
    {"update": True},
    {"delete_src": True},
    {"delete_dst": True},
    {"perms": False},
    {"record": "/links"},
    {"dst": "s3://c.h/", "storage_class": "IA"},
    {"dst": "s3://c.h/", "sse": "AES256"},
    {"dst": "s3://c.h/", "tags": True},
]
"""What is done with each object."""
SPEEDS: list[dict[str, Any]] = [
    {"threads": 64},
    {"routes": (Route("h", 80, "127.0.0.1", 9000),)},
    {"workers": 7},
    {"bwlimit_mbps": 5.5},
    {"connect_timeout_s": 1},
    {"read_timeout_s": 1},
    {"by_directory": True},
    {"dryrun": True},
    {"depth": 3},
    {"yes": True},
    {"began_ns": 5},
    {"identities": ((1, 2), None)},
    {"ticks": (1, 2_000_000_000)},
    {"known": "/m.db"},
    {"keys_file": "/m.db.keys"},
]
"""How fast, when, and whether it asks first."""


@pytest.mark.parametrize("options", SPEEDS)
def test_speed_makes_no_other_job_and_no_other_run(options: dict[str, Any]) -> None:
    assert job(**options).id == job().id
    assert job(**options).manner == job().manner


@pytest.mark.parametrize("options", MANNERS)
def test_what_is_done_with_objects_makes_another_run_of_the_same_job(
    options: dict[str, Any],
) -> None:
    plain = job(**{name: value for name, value in options.items() if name == "dst"})
    assert job(**options).id == plain.id
    assert job(**options).manner != plain.manner


def test_a_limit_of_deletions_makes_no_other_run() -> None:
    deleting = job(delete_dst=True)
    assert job(delete_dst=True, max_delete=5).manner == deleting.manner
    assert job(delete_dst=True, max_delete=5).id == deleting.id


def test_a_list_of_names_with_other_content_makes_another_run_of_the_job(tmp_path: Path) -> None:
    names = tmp_path / "names"
    names.write_text("a\n")
    before = job(files_from=str(names))
    manner = before.manner
    assert job(files_from=str(names)).manner == manner
    names.write_text("a\nb\n")
    assert before.manner != manner
    assert job(files_from=str(names)).id == before.id
    names.unlink()
    with pytest.raises(UsageError, match="cannot read --files-from"):
        _ = before.manner


def test_credentials_and_encryption_make_no_other_job() -> None:
    plain = job()
    assert job("s3://ak:sk:token@b.h/p/").id == plain.id
    for https in (True, False):
        src = parse("s3://b.h/p/", https=https)
        assert replace(plain, src=src).id == plain.id
    assert replace(plain, src=parse("s3://h/b/p/", path_style=True)).id == plain.id


def test_selection_and_places_make_another_job() -> None:
    several = [
        job(),
        job(command="verify"),
        Job("rm", parse("s3://b.h/p/")),
        Job("inventory", parse("s3://b.h/p/")),
        job(links="copy"),
        job(links="record"),
        job(files_from="/names"),
        job(filters=Filters(include=("a",))),
        job(filters=Filters(exclude=("a",))),
        job(filters=Filters(include_dir=("a",))),
        job(filters=Filters(exclude_dir=("a",))),
        job(filters=Filters(include=("a", "b"))),
        job(filters=Filters(min_size=1)),
        job(filters=Filters(max_size=1)),
        job(filters=Filters(newer_than="1d")),
        job(filters=Filters(older_than="1d")),
        job(start=b"a"),
        job(end=b"a"),
        job(start=b""),
        job(single=(b"a", b"a")),
        job(single=(b"a", b"b")),
        job("s3://b.h/q/"),
        job("s3://c.h/p/"),
        job("minio://h/b/p/"),
        job(dst="/dst2/"),
        job(dst="s3://b2.h/p/"),
        job(start=b"\xff"),
        job(start=b"\\xff"),
        job(start="ÿ".encode()),
    ]
    assert len({one.id for one in several}) == len(several)


def test_an_id_can_be_part_of_a_file_name() -> None:
    one = job("/é\n%00/")
    assert re.fullmatch("[0-9a-f]{10}", one.id)
    assert one.staging == f".adsmig-{one.id}"


# What makes no sense


def test_an_end_before_the_start_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--end 'a' comes before --start 'b'"):
        job(start=b"b", end=b"a")
    assert job(start=b"a", end=b"a").keys == KeyRange(b"a", b"a", True)
    assert job(start=b"b").keys == KeyRange(b"b", None, True)


def test_the_order_of_start_and_end_is_that_of_bytes() -> None:
    private_use, emoji = "\ue000".encode(), "💥".encode()
    assert job(start=private_use, end=emoji).keys.upto == emoji
    with pytest.raises(UsageError) as caught:
        job(start=b"\xff", end=b"\xfe")
    str(caught.value).encode()  # can be printed


@pytest.mark.parametrize(
    "options",
    [
        {"threads": 0},
        {"workers": 0},
        {"bwlimit_mbps": -1},
        {"bwlimit_mbps": math.nan},
        {"bwlimit_mbps": math.inf},
        {"connect_timeout_s": 0},
        {"connect_timeout_s": math.inf},
        {"read_timeout_s": -1},
        {"read_timeout_s": 1e12},
        {"read_timeout_s": math.nan},
    ],
)
def test_numbers_out_of_range_are_refused(options: dict[str, Any]) -> None:
    (name,) = options
    said = {"connect_timeout_s": "--connTimeout", "read_timeout_s": "--timeout"}
    with pytest.raises(UsageError, match=said.get(name, "--" + name.removesuffix("_mbps"))):
        job(**options)


def test_the_longest_timeouts_can_be_used() -> None:
    patient = job(connect_timeout_s=MOST_TIMEOUT_S, read_timeout_s=MOST_TIMEOUT_S)
    with socket.create_server(("127.0.0.1", 0)) as server:
        at = parse(f"s3://ak:sk@127.0.0.1:{server.getsockname()[1]}/b/")
        open_storage(at, patient)._wire._connect().close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"delete_src": True, "delete_dst": True}, "choose one"),
        ({"delete_src": True, "compare": "size"}, "leave out --size-only"),
        ({"command": "sync", "delete_src": True, "compare": "manifest"}, "--compare manifest"),
        ({"existing": True, "ignore_existing": True}, "leave nothing to copy"),
        ({"compare": "manifest"}, "belongs to sync"),
        ({"command": "sync", "compare": "manifest", "existing": True}, "does not look"),
        ({"command": "sync", "compare": "manifest", "ignore_existing": True}, "does not look"),
        ({"command": "sync", "compare": "manifest", "update": True}, "does not look"),
        ({"files_from": "/names", "delete_dst": True}, "--files-from"),
        ({"max_delete": 0}, "limits --delete-dst"),
        ({"links": "copy", "record": "/links"}, "choose one"),
        ({"storage_class": "IA"}, "object store"),
        ({"sse": "AES256"}, "object store"),
        ({"tags": True}, "between object stores"),
        ({"dst": "s3://c.h/", "sse": "rot13"}, "write AES256"),
        ({"dst": "s3://c.h/", "sse": "aws:kms:"}, "write AES256"),
        ({"dst": "s3://c.h/", "sse": "aws:kms:ключ"}, "write AES256"),
        ({"dst": "s3://c.h/", "storage_class": "标准"}, "--storage-class '标准': write"),
    ],
)
def test_options_that_contradict_one_another_are_refused(
    options: dict[str, Any], says: str
) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        job(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("region", ["北京", "cn north", "eu\r"])
def test_a_region_that_no_request_can_name_is_refused(region: str) -> None:
    good = parse("s3://bucket.example.com/a/")
    bad = replace(parse("s3://other.example.com/b/"), region=region)
    for side, places in (("src", (bad, good)), ("dst", (good, bad))):
        with pytest.raises(UsageError, match=f"--{side}-region .*: write") as caught:
            Job("cp", *places)
        assert "\r" not in str(caught.value)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("/a/", "/a/"),
        ("/a", "/a/"),
        ("/a/", "/a/b/"),
        ("/a/", "/a/b/c"),
        ("s3://b.h/", "s3://b.h/"),
        ("s3://b.h/", "s3://b.h/p/"),
        ("s3://b.h/p/", "s3://b.h/p/q/"),
        ("s3://b.h/p/", "minio://h/b/p/"),
        ("s3://ak:sk@b.h/p/", "s3://b.h/p/"),
        ("/", "/data/"),
    ],
)
def test_places_within_one_another_are_refused_both_ways(one: str, other: str) -> None:
    for src, dst in ((one, other), (other, one)):
        with pytest.raises(UsageError, match="within one another") as caught:
            job(src, dst)
        assert "sk" not in str(caught.value)
        assert job(src, dst, check=False).id


@pytest.mark.parametrize(
    ("src", "dst"),
    [
        ("/a/", "/ab/"),
        ("/a/b/", "/a/c/"),
        ("s3://b.h/p/", "s3://b.h/pq/"),
        ("s3://b.h/p/", "s3://c.h/p/"),
        ("s3://b.h/p/", "s3://b.g/p/"),
        ("s3://b.h/p/", "/p/"),
        ("/p/", "s3://b.h/p/"),
    ],
)
def test_places_apart_are_fine_both_ways(src: str, dst: str) -> None:
    assert job(src, dst).src == parse(src)
    assert job(dst, src).dst == parse(src)


def test_links_do_not_hide_that_places_overlap(tmp_path: Path) -> None:
    (tmp_path / "real" / "below").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for src, dst in (("real", "link/below"), ("link/below", "real"), ("real", "link")):
        with pytest.raises(UsageError, match="within one another"):
            job(f"{tmp_path}/{src}/", f"{tmp_path}/{dst}/")


def test_a_single_object_may_be_copied_beside_itself() -> None:
    assert job("/a/", "/a/", single=(b"f", b"g")).dst_key(b"f") == b"g"


@pytest.mark.parametrize("place", ["/a/", "s3://b.h/p/"])
def test_a_single_object_is_not_copied_onto_itself(place: str) -> None:
    with pytest.raises(UsageError):
        job(place, place, single=(b"f", b"f"))


# What it selects


def test_the_keys_are_those_from_start_to_end_inclusive() -> None:
    assert job().keys == KeyRange(b"", None, True)
    keys = job(start=b"a", end=b"c").keys
    assert all(key in keys for key in (b"a", b"b", b"c"))
    assert b"c\x00" not in keys


def test_a_single_object_is_the_one_key_and_changes_its_name() -> None:
    single = job(single=(b"a", b"b"))
    assert single.keys == KeyRange(b"a", b"a", True)
    assert single.dst_key(b"a") == b"b"
    assert job().dst_key(b"a") == b"a"


@pytest.mark.parametrize(
    ("threads", "workers", "each"), [(10, 4, 2), (1, 4, 1), (8, 4, 2), (3, 4, 1), (1, 1, 1)]
)
def test_threads_are_shared_out_among_the_workers(threads: int, workers: int, each: int) -> None:
    assert job(threads=threads, workers=workers).threads_per_worker == each


@pytest.mark.parametrize(
    "dst",
    ["s3://bucket.s3.eu-west-1.amazonaws.com/p/", "s3://bucket.s3.amazonaws.com/p/"],
)
def test_a_bucket_of_aws_is_one_under_whatever_name(dst: str) -> None:
    with pytest.raises(UsageError, match="within one another"):
        Job("cp", parse("s3://bucket/p/"), parse(dst))


# The manifest's copy

paths = st.binary(min_size=1, max_size=20).filter(lambda path: b"\x00" not in path)
keys = st.none() | st.binary(max_size=20)
patterns = st.lists(st.sampled_from(["a", r"\.jpg$", "\udcff", "é"]), max_size=2).map(tuple)


@given(
    src=paths,
    dst=st.text(max_size=20).filter(lambda path: "@" not in path),
    limits=st.tuples(keys, keys),
    single=st.none() | st.tuples(st.binary(max_size=9), st.binary(max_size=9)),
    command=st.sampled_from(["cp", "sync"]),
    speed=st.tuples(st.integers(1, 999), st.integers(1, 99), st.floats(0, 1e6)),
    by_directory=st.booleans(),
    filters=st.builds(
        Filters,
        include=patterns, exclude=patterns, include_dir=patterns, exclude_dir=patterns,
        min_size=st.none() | st.integers(0, 9), max_size=st.none() | st.integers(9, 2**60),
        newer_than=st.sampled_from(["", "30d"]), older_than=st.sampled_from(["", "2026-01-31"]),
    ),
    files_from=st.sampled_from(["", "/names", "/\udcff"]),
    options=st.fixed_dictionaries(
        {},
        optional={
            "existing": st.booleans(), "update": st.booleans(), "delete_src": st.booleans(),
            "perms": st.booleans(), "compare": st.sampled_from(["", "checksum"]),
            "links": st.sampled_from(["follow", "copy"]),
            "storage_class": st.from_regex("[!-~]{0,5}", fullmatch=True),
            "sse": st.sampled_from(["", "AES256", "aws:kms:key"]),
        },
    ),
)  # fmt: skip
def test_comes_back_from_json_as_it_was_but_for_the_secrets(
    src: bytes,
    dst: str,
    limits: tuple[bytes | None, bytes | None],
    single: tuple[bytes, bytes] | None,
    command: str,
    speed: tuple[int, int, float],
    by_directory: bool,
    filters: Filters,
    files_from: str,
    options: dict[str, Any],
) -> None:
    start, end = sorted(limits, key=lambda key: key or b"") if None not in limits else limits
    there = Location("s3", dst.encode(), bucket="b", host="h:1", path_style=True, region="r-1",
                     credentials=SECRETS)  # fmt: skip
    before = Job(
        command, Location("file", b"/" + src, trailing_slash=True), there, single, start, end,
        threads=speed[0], workers=speed[1], bwlimit_mbps=speed[2], connect_timeout_s=1.5,
        read_timeout_s=2.5, by_directory=by_directory, filters=filters, files_from=files_from,
        **options,
    )  # fmt: skip
    text = before.to_json()
    assert text.isascii()
    assert Job.from_json(text) == replace(before, dst=replace(there, credentials=None))
    assert Job.from_json(text).id == before.id


def test_json_holds_no_secret_and_is_plain() -> None:
    one = Job("cp", replace(parse("s3://b.h/p/"), credentials=SECRETS), parse("/d/"))
    text = one.to_json()
    for secret in (SECRETS.access_key, SECRETS.secret_key, SECRETS.token):
        assert secret
        assert secret not in text
        assert secret not in repr(one)
    assert json.loads(text)["command"] == "cp"


@pytest.mark.parametrize("damage", [("{", "["), ('"src"', '"srd"'), ('"bucket"', '"bu ket"')])
def test_json_that_is_damaged_is_an_error_in_one_line(damage: tuple[str, str]) -> None:
    with pytest.raises(AdsmigError) as caught:
        Job.from_json(job().to_json().replace(*damage))
    assert "\n" not in str(caught.value)


def test_json_says_nothing_of_a_dry_run_nor_of_what_one_run_was_told() -> None:
    kept = Job.from_json(
        job(dryrun=True, yes=True, began_ns=5, known="/m", keys_file="/k", names="/n",
            identities=((1, 2), None), ticks=(1, 2)).to_json()
    )  # fmt: skip
    assert kept == job()


def test_a_job_without_a_destination_comes_back_without_one() -> None:
    one = Job("rm", parse("s3://b.h/p/"), links="copy")
    assert Job.from_json(one.to_json()) == one
    assert Job.from_json(one.to_json()).id == one.id


def test_distrusting_the_order_of_a_listing_is_remembered() -> None:
    distrusting = job(threads=3).sorted_by_directory()
    assert distrusting == job(threads=3, by_directory=True)
    assert Job.from_json(distrusting.to_json()).by_directory


def test_goes_to_other_processes_whole() -> None:
    one = Job("sync", replace(parse("s3://b.h/p/"), credentials=SECRETS), parse(b"/\xff/"))
    copy = pickle.loads(pickle.dumps(one))
    assert copy == one
    assert hash(copy) == hash(one)
    assert copy.src.credentials == SECRETS


def test_what_overrules_a_profile_is_kept_and_makes_no_other_job() -> None:
    plain = job("cos://b.ap-x.myqcloud.com/p/", "oss://c.oss-cn-x.aliyuncs.com/")
    assert plain.dst
    routes = (Route("*.myqcloud.com", 443, "10.0.0.5", 0), Route("", 0, "gateway", 8443))
    src = replace(plain.src, region="ap-y", overrides=("list_version=2", "etag=opaque"))
    dst = replace(plain.dst, overrides=("min_part=8M", "max_part=8M"), path_style=True)
    one = replace(plain, src=src, dst=dst, routes=routes)
    assert one.id == plain.id
    assert Job.from_json(one.to_json()) == one
    assert replace(plain, src=replace(plain.src, host="elsewhere")).id != plain.id


def test_jobs_of_manifests_from_before_profiles_are_read() -> None:
    kept = json.loads(job().to_json())
    del kept["routes"], kept["src"]["overrides"], kept["dst"]["overrides"]
    assert Job.from_json(json.dumps(kept)) == job()


def test_etags_tell_only_where_both_sides_have_such() -> None:
    ufile, cos = "ufile://b.cn-bj.ufileos.com/", "cos://b.ap-x.myqcloud.com/"
    assert job(cos, "s3://b.h/").etags_tell
    assert not job(ufile, cos).etags_tell
    assert not job(cos, ufile).etags_tell
