"""Where the keys of an address come from: nothing, the environment, files, in that order."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest

from adsmig.credentials import ENVIRONMENT, accounts_file, with_credentials
from adsmig.errors import AdsmigError, Expired, UsageError
from adsmig.location import Credentials
from adsmig.storage import aws, open_storage
from adsmig.storage.aws import credentials_for, default_region
from adsmig.storage.response import Response
from adsmig.storage.s3errors import error_of
from adsmig.uri import parse
from tests.storage.support import Options

SECRET = "wJalrXUtnFEMI"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith(("AWS_", "ADSMIG_")) or name in sum(ENVIRONMENT.values(), ()):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)


def accounts(text: str, mode: int = 0o600) -> Path:
    path = accounts_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def of(text: str, account: str = "", side: str = "SRC") -> Credentials | None:
    return with_credentials(replace(parse(text), account=account), side).credentials


@pytest.mark.parametrize(
    ("scheme", "host", "names"),
    [
        ("s3", "", ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")),
        *(
            (scheme, {"minio": "h:9000/"}.get(scheme, ".example.com"), names)
            for scheme, names in ENVIRONMENT.items()
        ),
    ],
)
def test_each_provider_has_its_own_variables(
    monkeypatch: pytest.MonkeyPatch, scheme: str, host: str, names: tuple[str, str, str]
) -> None:
    text = f"{scheme}://{host}bucket/" if host.endswith("/") else f"{scheme}://bucket{host}/"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "aws")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "aws-secret")
    assert of(text) == Credentials("aws", "aws-secret")
    monkeypatch.setenv(names[0], "own")
    monkeypatch.setenv(names[1], SECRET)
    if names[2]:
        monkeypatch.setenv(names[2], "token")
    assert of(text) == Credentials("own", SECRET, "token" if names[2] else None)
    monkeypatch.setenv("ADSMIG_SRC_ACCESS_KEY", "side")
    monkeypatch.setenv("ADSMIG_SRC_SECRET_KEY", SECRET)
    assert of(text) == Credentials("side", SECRET)
    assert of(text, side="DST") != of(text)
    assert of(text.replace("://", "://ak:sk@")) == Credentials("ak", "sk")


def test_a_store_that_refuses_keys_is_told_of_with_where_they_come_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def told(text: str, account: str = "") -> str:
        at = with_credentials(replace(parse(text), account=account), "SRC")
        used = credentials_for(at, "SRC")()
        answer = Response(403, {}, b"<Error><Code>SignatureDoesNotMatch</Code></Error>")
        return str(error_of("GET", "h/bucket", answer, used)).partition("; ")[2]

    path = accounts(f"[old]\naccess_key = ak\nsecret_key = {SECRET}\n")
    aws_path = tmp_path / ".aws" / "credentials"
    aws_path.parent.mkdir()
    aws_path.write_text("[shared]\naws_access_key_id = ak\naws_secret_access_key = sk\n")
    assert told("s3://ak:sk@bucket/") == "check the address, the keys in the address and the clock"
    assert f"the keys of [old] in {path} and" in told("s3://bucket/", "old")
    assert "the keys of shared-credentials-file, profile shared and" in told(
        "s3://bucket/", "shared"
    )
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ak")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "sk")
    assert "the keys of AWS_ACCESS_KEY_ID and" in told("s3://bucket/")
    monkeypatch.setenv("ADSMIG_SRC_ACCESS_KEY", "ak")
    monkeypatch.setenv("ADSMIG_SRC_SECRET_KEY", "sk")
    assert "the keys of ADSMIG_SRC_ACCESS_KEY and" in told("s3://bucket/")


def test_credentials_that_expire_are_left_to_boto3(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", "2126-01-01T00:00:00Z")
    assert of("s3://bucket/") is None


def test_an_account_is_a_section_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    accounts(
        f"[old]\naccess_key = a%b\nsecret_key = {SECRET}\ntoken = t\n"
        "[aws]\naws_access_key_id = c\naws_secret_access_key = d\n"
        "[nas]\npassword = p w\n"
    )
    monkeypatch.setenv("ADSMIG_SRC_ACCESS_KEY", "side")
    monkeypatch.setenv("ADSMIG_SRC_SECRET_KEY", "side")
    assert of("s3://bucket/", "old") == Credentials("a%b", SECRET, "t")
    assert of("oss://bucket.oss-cn-x.aliyuncs.com/", "aws") == Credentials("c", "d")
    assert of("sftp://u@h/p", "nas") == Credentials("", "", None, "p w")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/nowhere")
    assert of("s3://bucket/", "old") is None


@pytest.mark.parametrize(
    ("text", "mode", "account", "address", "message"),
    [
        (f"[a]\naccess_key = x\nsecret_key = {SECRET}\n", 0o644, "a", "s3://b/", "chmod 600"),
        (f"[a]\nsecret_key = {SECRET}\n", 0o600, "a", "s3://b/", "add both"),
        (f"{SECRET}\n", 0o600, "a", "s3://b/", "no file of sections"),
        (f"[a]\n{SECRET}\n", 0o600, "a", "s3://b/", "no file of sections"),
        (f"[a]\npassword = {SECRET}\n", 0o600, "a", "s3://b/", "has no access_key"),
        (f"[a]\naccess_key=x\nsecret_key={SECRET}\n", 0o600, "a", "sftp://u@h/p", "no password"),
        ("", 0o600, "a", "sftp://u@h/p", "no section [a]"),
    ],
)
def test_a_file_that_is_of_no_use_is_refused_without_its_secrets(
    text: str, mode: int, account: str, address: str, message: str
) -> None:
    path = accounts(text, mode)
    with pytest.raises(UsageError) as caught:
        of(address, account)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    seen: BaseException | None = caught.value
    while seen:
        assert SECRET not in str(seen)
        seen = seen.__context__


def test_an_account_may_be_a_profile_of_aws(tmp_path: Path) -> None:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(
        f"[old]\naws_access_key_id = k\naws_secret_access_key = {SECRET}\n"
    )
    (tmp_path / ".aws" / "config").write_text("[profile old]\nregion = eu-west-3\n")
    at = with_credentials(replace(parse("s3://bucket/"), account="old"), "SRC")
    found = credentials_for(at, "SRC")()
    assert found == Credentials("k", SECRET)
    assert default_region(at) == "eu-west-3"
    with pytest.raises(AdsmigError, match="no profile new: neither a section"):
        credentials_for(replace(at, account="new"), "SRC")()


def test_credentials_that_cannot_be_had_just_now_may_be_at_the_next_try(tmp_path: Path) -> None:
    (tmp_path / ".aws").mkdir()
    program = tmp_path / "program"
    (tmp_path / ".aws" / "config").write_text(f"[profile p]\ncredential_process = {program}\n")
    program.write_text("#!/bin/sh\necho 'log in\nfirst' >&2; exit 1\n")
    program.chmod(0o755)
    ask = credentials_for(replace(parse("s3://bucket/"), account="p"), "SRC")
    with pytest.raises(
        Expired, match=r"cannot get the credentials for s3://bucket/: .*log in"
    ) as at:
        ask()
    assert "\n" not in str(at.value)
    keys = f'{{"Version": 1, "AccessKeyId": "k", "SecretAccessKey": "{SECRET}"}}'
    program.write_text(f"#!/bin/sh\necho '{keys}'\n")
    assert ask() == Credentials("k", SECRET)


@pytest.mark.parametrize(
    ("address", "destination", "names"),
    [
        ("s3://bucket/", False, "SRC AWS_ACCESS_KEY_ID"),
        ("s3://bucket/", True, "DST AWS_ACCESS_KEY_ID"),
        ("oss://b.oss-cn-beijing.aliyuncs.com/", False, "SRC OSS_ACCESS_KEY_ID"),
    ],
)
def test_whose_keys_are_missing_is_told_by_the_variables_that_would_have_them(
    address: str, destination: bool, names: str
) -> None:
    side, variable = names.split()
    storage = open_storage(parse(address), Options(), destination)
    with pytest.raises(AdsmigError, match="no credentials for") as raised:
        storage.stat(b"x")
    said = str(raised.value)
    other = {"SRC": "DST", "DST": "SRC"}[side]
    assert f"ADSMIG_{side}_ACCESS_KEY and ADSMIG_{side}_SECRET_KEY" in said
    assert f", or {variable} and " in said
    assert f"--{side.lower()}-profile" in said
    assert f"_{other}_" not in said


def test_the_region_of_the_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    at = parse("s3://ak:sk@bucket/")
    assert default_region(at) == "us-east-1"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")
    assert default_region(at) == "eu-north-1"
    monkeypatch.setenv("AWS_REGION", "eu-south-1")
    assert default_region(at) == "eu-south-1"


@pytest.mark.parametrize("region", ["北京", "eu north"])
def test_a_region_of_the_environment_that_no_request_can_name_is_refused(
    monkeypatch: pytest.MonkeyPatch, region: str
) -> None:
    monkeypatch.setenv("AWS_REGION", region)
    with pytest.raises(UsageError, match="--src-region"):
        default_region(parse("s3://ak:sk@bucket/"))
    monkeypatch.setenv("AWS_REGION", "eu-south-1\r\n")
    assert default_region(parse("s3://ak:sk@bucket/")) == "eu-south-1"


def test_the_end_of_a_line_is_no_part_of_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "own\r\n")
    assert of("s3://bucket/") == Credentials("own", "own", "own")
    for what in ("ACCESS_KEY", "SECRET_KEY", "TOKEN", "PASSWORD"):
        monkeypatch.setenv(f"ADSMIG_DST_{what}", "side \n")
    assert of("s3://bucket/", side="DST") == Credentials("side ", "side ", "side ")
    assert of("sftp://u@h/p", side="DST") == Credentials("", "", None, "side ")


def test_what_boto3_finds_in_the_environment_is_taken_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("adsmig.storage.aws._found", aws._found.__wrapped__)
    monkeypatch.setattr("adsmig.storage.aws._session", aws._session.__wrapped__)
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", "2126-01-01T00:00:00Z")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "own\r\n")
    at = with_credentials(parse("s3://bucket/"), "SRC")
    assert credentials_for(at, "SRC")() == Credentials("own", "own", "own")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ключ")
    with pytest.raises(UsageError, match="s3://bucket/"):
        credentials_for(at, "SRC")()


@pytest.mark.parametrize("key", ["ключ-SECRET", "SEC\nRET", "\u200bSECRET"])
@pytest.mark.parametrize("of_what", ["access_key", "token"])
@pytest.mark.parametrize("way", ["address", "environment", "file"])
def test_a_key_that_no_request_can_carry_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, way: str, of_what: str, key: str
) -> None:
    given = {"access_key": "ak", "secret_key": "sk", "token": "t", of_what: key}
    if way == "address":
        login = ":".join(quote(given[name]) for name in ("access_key", "secret_key", "token"))
        address, account = f"s3://{login}@bucket/", ""
    elif way == "environment":
        address, account = "s3://bucket/", ""
        for name, value in given.items():
            monkeypatch.setenv(f"ADSMIG_SRC_{name.upper()}", value)
    else:
        address, account = "s3://bucket/", "a"
        lines = [f"{name} = {value}".replace("\n", "\n ") for name, value in given.items()]
        accounts("\n".join(["[a]", *lines]))
    with pytest.raises(UsageError, match="SRC") as caught:
        of(address, account)
    assert of_what.replace("_", " ") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "RET" not in str(caught.value)


def test_only_keys_that_were_typed_into_an_address_are_hidden_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (("ACCESS_KEY", "AK"), ("SECRET_KEY", SECRET), ("PASSWORD", SECRET)):
        monkeypatch.setenv(f"ADSMIG_SRC_{name}", value)
    for text, shown in (
        ("s3://bucket/p/", "s3://bucket/p/"),
        (f"s3://AK:{SECRET}@bucket/p/", "s3://***@bucket/p/"),
        ("minio://host:9000/bucket/", "minio://host:9000/bucket/"),
        ("sftp://me@host/p", "sftp://me@host/p"),
        (f"sftp://me:{SECRET}@host/p", "sftp://***@host/p"),
    ):
        at = with_credentials(parse(text), "SRC")
        assert at.credentials
        assert str(at) == shown
