"""Each provider, through its own domain, in front of a server that misbehaves as it is said to."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from adsmig.providers import PROVIDERS
from adsmig.storage import s3
from tests.conftest import BucketFactory
from tests.e2e.inside import COLLECTED, Here, put, tree_of
from tests.e2e.inside import here as here
from tests.e2e.inside import no_pauses as no_pauses
from tests.quirks import QUIRKS
from tests.quirkserver import QuirkServer
from tests.servers import Moto, Server

pytestmark = [COLLECTED, pytest.mark.usefixtures("no_pauses")]

NAMES = list(QUIRKS)
MIB = 1 << 20
SMALL = {f"d{number % 3}/f{number:02}.bin": b"%d" % number * number for number in range(14)} | {
    "a-b": b"beside a/b",
    "a/b": b"in a",
    "empty": b"",
    "plus+and %25 blank": b"escaped",
    "naïve ☃#?": b"not ASCII",
}
LARGE = {"large.bin": bytes(range(256)) * (9 * 4096 + 5)}
"""A little over 9 MiB: two parts, of ufile's eight, and of the five that others ask for."""

TICK_S = 1.1
"""Stores tell times in whole seconds: what is copied within the same one is copied again."""


@dataclass
class Cloud:
    """A provider with a bucket, as the command line and the real server see it."""

    name: str
    front: QuirkServer
    prefix: str = "prefix/"

    def url(self, bucket: str = "bucket1", keys: str = "ak:sk@") -> str:
        quirks = self.front.quirks
        if quirks.path_only:
            return f"{self.name}://{keys}{quirks.native}/{bucket}/{self.prefix}"
        return f"{self.name}://{keys}{bucket}.{quirks.native}/{self.prefix}"

    @property
    def way(self) -> tuple[str, ...]:
        host, _, port = self.front.quirks.endpoint.partition(":")
        host = host if port else f"*.{host}"
        return "--connect-to", f"{host}:{port or 80}:127.0.0.1:{self.front.port}"

    def put(self, files: dict[str, bytes]) -> None:
        client, place = self.front.server.client(), self.front.places["bucket1"]
        for key, content in files.items():
            client.put_object(Bucket=place, Key=self.prefix + key, Body=content)

    def content(self, bucket: str = "bucket1") -> dict[str, bytes]:
        client, place = self.front.server.client(), self.front.places[bucket]
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=place)
        keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
        return {
            key.removeprefix(self.prefix): client.get_object(Bucket=place, Key=key)["Body"].read()
            for key in keys
        }


MakeCloud = Callable[..., Cloud]


@pytest.fixture
def make_cloud(moto: Moto, bucket: BucketFactory) -> Iterator[MakeCloud]:
    """``make_cloud(name, server=moto, **quirks)``: with two empty buckets."""
    with ExitStack() as stack:

        def make(name: str, server: Server = moto, **quirks: Any) -> Cloud:
            places = {one: bucket(server) for one in ("bucket1", "bucket2")}
            front = QuirkServer(replace(QUIRKS[name], **quirks), server, places)
            return Cloud(name, stack.enter_context(front))

        yield make


@pytest.fixture(params=NAMES)
def cloud(request: pytest.FixtureRequest, make_cloud: MakeCloud) -> Cloud:
    """Each provider in turn."""
    return make_cloud(request.param)


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small large objects, in parts as small as each profile allows and moto takes."""
    for module in ("scan", "slice"):
        monkeypatch.setattr(f"adsmig.{module}.LARGE_SIZE", 6 * MIB)
    monkeypatch.setattr(s3, "part_size_for", lambda _: 5 * MIB)


def test_there_are_quirks_for_every_name() -> None:
    assert set(NAMES) == set(PROVIDERS)


def test_a_tree_goes_there_and_back(cloud: Cloud, here: Here, parts: None, tmp_path: Path) -> None:
    files = SMALL | LARGE
    put(tmp_path / "tree", files)
    here("--no-https", *cloud.way, "cp", f"{tmp_path}/tree/", cloud.url())
    assert cloud.content() == files
    assert not cloud.front.refusals
    sent = {one.query["partNumber"]: one.size for one in cloud.front.seen
            if "partNumber" in one.query}  # fmt: skip
    first = 8 * MIB if cloud.name == "ufile" else 5 * MIB
    assert sent == {"1": first, "2": len(LARGE["large.bin"]) - first}
    here("--no-https", *cloud.way, "cp", cloud.url(), f"{tmp_path}/back/")
    assert tree_of(tmp_path / "back") == files
    assert not cloud.front.refusals
    lists = [one for one in cloud.front.seen if one.is_list and one.status == 200]
    assert len(lists) > len(files) // cloud.front.quirks.page


def test_a_second_sync_moves_no_data(cloud: Cloud, here: Here, parts: None, tmp_path: Path) -> None:
    put(tmp_path / "tree", SMALL | LARGE)
    there = ("--no-https", *cloud.way, "sync", f"{tmp_path}/tree/", cloud.url())
    back = ("--no-https", *cloud.way, "sync", cloud.url(), f"{tmp_path}/back/")
    for line in (there, back):
        time.sleep(TICK_S if line == back else 0)
        here(*line)
        cloud.front.clear()
        said = here(*line)
        assert f"{len(SMALL) + 1} unchanged" in said
        assert not [one for one in cloud.front.seen if one.is_data]
    assert not cloud.front.refusals


def test_what_the_source_does_not_have_is_deleted(cloud: Cloud, here: Here, tmp_path: Path) -> None:
    put(tmp_path / "tree", SMALL)
    extra = {f"d1/g{number}": b"extra" for number in range(7)} | {"a b+c": b"", "zz/é": b"x"}
    cloud.put(SMALL | extra)
    said = here("--no-https", *cloud.way, "sync", "--delete-dst", f"{tmp_path}/tree/", cloud.url())
    assert cloud.content() == SMALL
    assert f"deleted {len(extra)} " in said
    assert not cloud.front.refusals


def test_what_was_copied_is_deleted_at_the_source(
    cloud: Cloud, here: Here, parts: None, tmp_path: Path
) -> None:
    put(tmp_path / "tree", SMALL | LARGE)
    here("--no-https", *cloud.way, "cp", "--delete-src", f"{tmp_path}/tree/", cloud.url())
    assert tree_of(tmp_path / "tree") == {}
    assert cloud.content() == SMALL | LARGE
    # Where the ETag does not vouch for it, the content was read back.
    read = {one.key for one in cloud.front.seen if one.is_data and one.method == "GET"}
    assert (b"prefix/a/b" in read) == (cloud.name == "ufile")
    assert not cloud.front.refusals


def test_a_run_that_was_stopped_is_resumed(
    cloud: Cloud, here: Here, parts: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = SMALL | LARGE
    put(tmp_path / "tree", files)
    cloud.front.fails_after = 8
    manifest = ("--manifest", tmp_path / "m.db")
    line = ("cp", f"{tmp_path}/tree/", cloud.url(), *manifest, "--threads", "2")
    said = here("--no-https", *cloud.way, "--dst-set", "max_keys=3", *line, code=3)
    assert "InvalidAccessKeyId" in said
    rows = sqlite3.connect(tmp_path / "m.db").execute("SELECT key FROM objects").fetchall()
    recorded = {cloud.prefix.encode() + key.encode() for (key,) in rows}
    assert 0 < len(recorded) < len(files)
    cloud.front.fails_after = None
    cloud.front.clear()
    monkeypatch.setenv("ADSMIG_DST_ACCESS_KEY", "ak")
    monkeypatch.setenv("ADSMIG_DST_SECRET_KEY", "sk")
    here("resume", *manifest)
    assert cloud.content() == files
    assert not recorded & {key for key, _ in cloud.front.stored()}
    assert not cloud.front.refusals


@pytest.mark.parametrize("name", NAMES)
def test_objects_go_from_each_cloud_to_the_next(
    name: str, make_cloud: MakeCloud, here: Here, parts: None
) -> None:
    src, dst = make_cloud(name), make_cloud(NAMES[(NAMES.index(name) + 1) % len(NAMES)])
    src.put(SMALL | LARGE)
    time.sleep(TICK_S)
    line = ("--no-https", *src.way, *dst.way, "sync", src.url(), dst.url())
    here(*line)
    assert dst.content() == SMALL | LARGE
    dst.front.clear()
    src.front.clear()
    assert f"{len(SMALL) + 1} unchanged" in here(*line)
    assert not [one for one in [*src.front.seen, *dst.front.seen] if one.is_data]
    assert not src.front.refusals | dst.front.refusals


ODD = {
    "a//b": b"empty name", "dir/": b"", "dir-with/": b"content", "./x": b"dot", "up/../x": b"dots",
    " blank ": b"blanks", "%2F": b"escape", "a+b": b"plus", "tab\there": b"control",
    "\U0001f600": b"emoji", "back\\slash": b"backslash", "k" * 1000: b"long", "quote'\"<&>": b"xml",
    "é": b"composed", "e\u0301": b"decomposed",
}  # fmt: skip


def test_odd_keys_are_kept_or_named(cloud: Cloud, here: Here, tmp_path: Path) -> None:
    cloud.put(ODD)
    line = ("--no-https", *cloud.way, "--manifest", tmp_path / "m.db", "--threads", "2")
    said = here(*line, "cp", cloud.url(), cloud.url("bucket2"), code=0)
    assert cloud.content("bucket2") == ODD, said
    assert not cloud.front.refusals


# What a row's fields are there for


def test_an_object_is_copied_within_the_service(make_cloud: MakeCloud, here: Here) -> None:
    cloud = make_cloud("cos", max_copy=1000)
    files = {"small": b"s", "over the cap": b"l" * 1001}
    cloud.put(files)
    line = ("--no-https", *cloud.way, "cp", cloud.url(), cloud.url("bucket2"))
    limit = [word for side in ("src", "dst") for word in (f"--{side}-set", "max_copy=1000")]
    here(*line, *limit)
    assert cloud.content("bucket2") == files
    assert {one.key for one in cloud.front.seen if "x-amz-copy-source" in one.headers} == {
        b"prefix/small"
    }
    assert not cloud.front.refusals


def refused(here: Here, cloud: Cloud, tmp_path: Path, *options: str, code: int = 3) -> str:
    line = ("cp", cloud.url(), tmp_path / "out", "--manifest", tmp_path / "m.db")
    said = here("--no-https", *cloud.way, *options, *line, code=code)
    assert "sk@" not in said
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize("name", ["oss", "cos"])
def test_the_path_is_no_place_for_a_bucket(
    name: str, make_cloud: MakeCloud, here: Here, tmp_path: Path
) -> None:
    cloud = make_cloud(name)
    cloud.put(SMALL)
    endpoint = cloud.front.quirks.endpoint
    route = ("--connect-to", f"{endpoint}:80:127.0.0.1:{cloud.front.port}")
    said = refused(here, cloud, tmp_path, *route, "--src-set", "style=path")
    assert "leave out --path-style" in said


@pytest.mark.parametrize("name", ["ks3", "oss"])
def test_another_region_is_told_of(
    name: str, make_cloud: MakeCloud, here: Here, tmp_path: Path
) -> None:
    cloud = make_cloud(name)
    cloud.put(SMALL)
    said = refused(here, cloud, tmp_path, "--src-region", "elsewhere")
    assert "region" in said
    assert cloud.front.seen[0].status == (307 if name == "ks3" else 400)
    # It is the same job, whatever region it was begun with.
    refused(here, cloud, tmp_path, "--src-region", cloud.front.quirks.region, code=0)


@pytest.mark.parametrize("name", ["oss", "cos", "bos", "ufile"])
def test_the_native_domain_does_not_speak_s3(
    name: str, make_cloud: MakeCloud, here: Here, tmp_path: Path
) -> None:
    cloud = make_cloud(name)
    route = ("--connect-to", f"::127.0.0.1:{cloud.front.port}")
    said = refused(here, cloud, tmp_path, *route, "--src-endpoint", cloud.front.quirks.native)
    assert "UnknownHost" in said


@pytest.mark.parametrize(
    ("name", "quirks", "options"),
    [
        ("bos", {}, ("--src-set", "list_version=2")),
        ("ks3", {}, ("--src-set", "list_version=2")),
        ("cos", {"ignores_marker": True}, ()),
        ("oss", {"ignores_marker": True}, ()),
    ],
)
def test_a_listing_that_cannot_be_proven_is_no_success(
    name: str,
    quirks: dict[str, bool],
    options: tuple[str, ...],
    make_cloud: MakeCloud,
    here: Here,
    tmp_path: Path,
) -> None:
    """Neither is anything deleted for it."""
    cloud = make_cloud(name, **quirks)
    cloud.put(SMALL)
    put(tmp_path / "out", {"only here": b"stays"})
    line = ("sync", "--delete-dst", cloud.url(), f"{tmp_path}/out/")
    here("--no-https", *cloud.way, *options, *line, code=3)
    assert (tmp_path / "out/only here").exists()


@pytest.mark.parametrize("name", ["obs", "oss"])
def test_unsorted_pages_are_listed_by_directory(
    name: str, make_cloud: MakeCloud, here: Here, tmp_path: Path
) -> None:
    cloud = make_cloud(name, unsorted=True)
    files = {f"d{number}/{name}": b"x" for number in range(7) for name in ("a", "b", "c")}
    cloud.put(files)
    put(tmp_path / "out", {"only here": b"goes", "d3/a": b"is replaced"})
    here("--no-https", *cloud.way, "sync", "--delete-dst", cloud.url(), f"{tmp_path}/out/")
    assert tree_of(tmp_path / "out") == files
    assert any("delimiter" in one.query for one in cloud.front.seen if one.is_list)


def test_parts_of_another_size_are_refused(
    make_cloud: MakeCloud, here: Here, parts: None, tmp_path: Path
) -> None:
    cloud = make_cloud("ufile")
    put(tmp_path / "tree", LARGE)
    sizes = ("--dst-set", "min_part=5M", "--dst-set", "max_part=5M")
    line = ("cp", f"{tmp_path}/tree/", cloud.url())
    said = here("--no-https", *cloud.way, *sizes, *line, code=1)
    assert "EntityTooSmall" in said
    assert not cloud.content()


def test_beyond_the_largest_put_it_goes_in_parts(
    make_cloud: MakeCloud, here: Here, tmp_path: Path
) -> None:
    cloud = make_cloud("ufile", max_put=1 * MIB)
    put(tmp_path / "tree", {"large": b"x" * (MIB + 1), "small": b"x" * MIB})
    line = ("cp", f"{tmp_path}/tree/", cloud.url(), "--dst-set", "max_put=1M")
    here("--no-https", *cloud.way, *line)
    assert cloud.front.stored() == {(b"prefix/large", "1"): 1, (b"prefix/small", ""): 1}
    assert not cloud.front.refusals


def test_what_is_too_large_for_all_parts_is_a_failure(
    make_cloud: MakeCloud, here: Here, tmp_path: Path
) -> None:
    cloud = make_cloud("ufile")
    put(tmp_path / "tree", {"large": b"x" * (16 * MIB + 1)})
    limits = ("--dst-set", "max_put=1M", "--dst-set", "max_parts=2")
    said = here("--no-https", *cloud.way, *limits, "cp", f"{tmp_path}/tree/", cloud.url(), code=1)
    assert f"objects of up to {16 * MIB} bytes" in said


def test_baidu_takes_no_leading_slash_and_little_metadata(
    make_cloud: MakeCloud, here: Here, moto: Moto, bucket: BucketFactory
) -> None:
    cloud, name = make_cloud("bos"), bucket(moto)
    cloud.prefix = ""
    client = moto.client()
    client.put_object(Bucket=name, Key="/leading", Body=b"x")
    client.put_object(Bucket=name, Key="much", Body=b"x", Metadata={"a": "v" * 2048})
    client.put_object(Bucket=name, Key="enough", Body=b"x", Metadata={"a": "v" * 2047})
    said = here("--no-https", *cloud.way, "cp", moto.url(name), cloud.url(), code=1)
    assert "no key that begins with a slash" in said
    assert "user metadata of 2049 bytes" in said
    assert set(cloud.content()) == {"enough"}
    assert not cloud.front.refusals


@pytest.mark.parametrize("backend", ["seaweedfs", "minio"])
def test_over_other_servers_too(
    backend: str,
    request: pytest.FixtureRequest,
    make_cloud: MakeCloud,
    here: Here,
    parts: None,
    tmp_path: Path,
) -> None:
    """Their listings are not in byte order everywhere, so these trees have no ``a-b`` beside
    ``a/``.
    """
    files = {key: content for key, content in SMALL.items() if key != "a-b"} | LARGE
    put(tmp_path / "tree", files)
    server: Server = request.getfixturevalue(backend)
    for name in ("oss", "ufile", "obs"):
        cloud = make_cloud(name, server)
        here("--no-https", *cloud.way, "sync", f"{tmp_path}/tree/", cloud.url())
        assert cloud.content() == files
        here("--no-https", *cloud.way, "sync", cloud.url(), tmp_path / f"back-{name}")
        assert tree_of(tmp_path / f"back-{name}") == files
        assert not cloud.front.refusals
