"""The table of providers: each row as PROVIDERS says it, and what overrules it."""

from __future__ import annotations

import json

import pytest

from adsmig import catalogue, program
from adsmig.errors import UsageError
from adsmig.providers import FIELDS, MIB, PROVIDERS, Profile, endpoint_of, profile_of
from adsmig.uri import parse
from tests.quirks import QUIRKS


@pytest.mark.parametrize(
    ("address", "host", "region", "path_style", "https"),
    [
        ("s3://b.s3.cn-north-1.amazonaws.com.cn/p/",
         "s3.cn-north-1.amazonaws.com.cn", "cn-north-1", False, True),
        ("s3://b.aoss.cn-sh-01.sensecoreapi-oss.cn/p/",
         "aoss.cn-sh-01.sensecoreapi-oss.cn", "", False, True),
        ("minio://10.0.0.5:9000/b/p/", "10.0.0.5:9000", "", True, False),
        ("oss://b.oss-cn-beijing.aliyuncs.com/p/",
         "s3.oss-cn-beijing.aliyuncs.com", "cn-beijing", False, True),
        ("oss://b.oss-cn-beijing-internal.aliyuncs.com/p/",
         "s3.oss-cn-beijing-internal.aliyuncs.com", "cn-beijing", False, False),
        ("cos://b-125.ap-beijing.myqcloud.com/p/",
         "cos.ap-beijing.myqcloud.com", "ap-beijing", False, True),
        ("cos://b-125.cos.ap-beijing.myqcloud.com/p/",
         "cos.ap-beijing.myqcloud.com", "ap-beijing", False, True),
        ("bos://b.bj.bcebos.com/p/", "s3.bj.bcebos.com", "bj", False, True),
        ("ks3://b.ks3-cn-beijing.ksyuncs.com/p/",
         "ks3-cn-beijing.ksyuncs.com", "BEIJING", False, True),
        ("ks3://b.ks3-cn-shanghai-internal.ksyuncs.com/p/",
         "ks3-cn-shanghai-internal.ksyuncs.com", "SHANGHAI", False, False),
        ("obs://b.obs.cn-north-4.myhuaweicloud.com/p/",
         "obs.cn-north-4.myhuaweicloud.com", "cn-north-4", False, True),
        ("qiniu://b.s3.cn-east-1.qiniucs.com/p/",
         "s3.cn-east-1.qiniucs.com", "cn-east-1", False, True),
        ("qiniu://b.s3-cn-east-1.qiniucs.com/p/",
         "s3.cn-east-1.qiniucs.com", "cn-east-1", False, True),
        ("ufile://b.cn-bj.ufileos.com/p/", "s3-cn-bj.ufileos.com", "cn-bj", False, True),
        ("ufile://b.s3-cn-bj.ufileos.com/p/", "s3-cn-bj.ufileos.com", "cn-bj", False, True),
        ("ufile://b.internal.s3-cn-bj.ufileos.com/p/",
         "internal.s3-cn-bj.ufileos.com", "cn-bj", False, False),
    ],
)  # fmt: skip
def test_a_native_address_leads_to_the_endpoint(
    address: str, host: str, region: str, path_style: bool, https: bool
) -> None:
    at = parse(address)
    assert (at.host, at.region, at.path_style, at.https) == (host, region, path_style, https)
    assert at.path == b"p/"


@pytest.mark.parametrize("name", PROVIDERS)
def test_every_row_agrees_with_what_its_cloud_is_said_to_do(name: str) -> None:
    quirks, profile = QUIRKS[name], PROVIDERS[name]
    host, region = endpoint_of(name, quirks.native)
    assert host == quirks.endpoint
    if profile.native and quirks.region:
        assert region == quirks.region
    if quirks.virtual_only:
        assert profile.style == "virtual"
    if quirks.v1_only:
        assert profile.list_version == 1
    assert profile.url_encoding <= quirks.url_encoding
    assert profile.etag == quirks.etag
    assert profile.min_part >= quirks.min_part
    assert profile.max_put <= quirks.max_put
    assert profile.max_copy <= quirks.max_copy
    assert (profile.delete == "many") <= quirks.deletes_many
    assert profile.leading_slash <= quirks.leading_slash
    assert profile.max_meta == quirks.max_meta


def test_ufile_holds_what_10_000_parts_of_8_mib_hold() -> None:
    profile = PROVIDERS["ufile"]
    assert profile.min_part == profile.max_part == 8 * MIB
    assert profile.max_size == 10_000 * 8 * MIB


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("list_version=1", "list_version", 1),
        ("url_encoding=no", "url_encoding", False),
        ("leading_slash=yes", "leading_slash", True),
        ("etag=opaque", "etag", "opaque"),
        ("style=path", "style", "path"),
        ("delete=one", "delete", "one"),
        ("max_keys=100", "max_keys", 100),
        ("min_part=100k", "min_part", 100 << 10),
        ("max_copy=1G", "max_copy", 1 << 30),
        ("max_meta=0", "max_meta", 0),
    ],
)
def test_a_field_is_overruled(text: str, field: str, value: object) -> None:
    profile = profile_of("bos", (text,))
    assert getattr(profile, field) == value
    assert profile._replace(**{field: getattr(PROVIDERS["bos"], field)}) == PROVIDERS["bos"]


@pytest.mark.parametrize("field", FIELDS)
def test_a_wrong_value_is_told_of(field: str) -> None:
    with pytest.raises(UsageError, match=field):
        profile_of("s3", (f"{field}=wrong",))


@pytest.mark.parametrize("text", ["", "etag", "no_such=1", "native=x", "=1", "min_part=0"])
def test_what_is_no_field_is_told_the_fields(text: str) -> None:
    with pytest.raises(UsageError, match=r"list_version|number"):
        profile_of("s3", (text,))


def test_sizes_of_parts_have_to_leave_some() -> None:
    with pytest.raises(UsageError, match="set both"):
        profile_of("ufile", ("min_part=16M",))
    assert profile_of("ufile", ("min_part=16M", "max_part=16M")).max_part == 16 * MIB


def test_what_is_no_provider_has_the_plain_profile() -> None:
    assert profile_of("file") == Profile()


def test_the_table_is_readable_and_complete() -> None:
    text = list(catalogue.provider_lines(as_json=False))
    assert max(map(len, text)) <= 100
    for word in (*PROVIDERS, *FIELDS, "region", "verified against:", "s3.REGION.bcebos.com"):
        assert any(word in line for line in text), word
    rows = [json.loads(line) for line in catalogue.provider_lines(as_json=True)]
    assert [row["name"] for row in rows] == list(PROVIDERS)
    assert all(row["verified"] for row in rows)


def test_the_command_prints_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.run(["providers"]) == 0
    said = capsys.readouterr().out
    assert "s3.oss-REGION[-internal].aliyuncs.com" in said
    assert "None was tried on a real account" in said
    assert program.run(["providers", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["name"]: row["list_version"] for row in rows}["bos"] == 1
