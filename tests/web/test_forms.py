"""A form comes to the command line that a person would have written, and to no secret in it."""

from __future__ import annotations

import json
import re
import resource
import shlex
import stat
from pathlib import Path
from typing import Any

import pytest

from adsmig.credentials import account_names, accounts_file, keep_account
from adsmig.errors import UsageError
from adsmig.ledger import state_directory
from adsmig.location import Credentials
from adsmig.web import forms
from adsmig.web.console import Console, console_directory
from adsmig.web.forms import CLOUDS, DOMAINS, FieldError, NewJob
from tests.web.conftest import Client, ClientFactory, wait_for

SECRET = "wJalrXUtnFEMI+/K7MDENG"
FILE = {"kind": "file", "path": "/data/photos/"}
STORE = {"kind": "object", "endpoint": "10.0.0.5:9000", "bucket": "photos/"}


def line(console: Console | None = None, **values: Any) -> list[str]:
    job = NewJob.model_validate({"source": FILE, "destination": STORE, **values})
    console = console or Console()
    return forms.arguments(job, console, forms.placeholder_accounts(job))


@pytest.mark.parametrize(
    ("side", "address"),
    [
        (FILE, "/data/photos/"),
        ({"kind": "file", "path": "/data/文 件"}, "/data/文 件"),
        (STORE, "s3://10.0.0.5:9000/photos/"),
        ({**STORE, "endpoint": "localhost", "bucket": "a/b c/#?%/"}, "s3://localhost/a/b c/#?%/"),
        ({**STORE, "provider": "minio"}, "minio://10.0.0.5:9000/photos/"),
        ({"kind": "object", "bucket": "photos/x/"}, "s3://photos/x/"),
        (
            {"kind": "object", "bucket": "photos/", "endpoint": "S3.eu-west-1.amazonaws.com"},
            "s3://photos.s3.eu-west-1.amazonaws.com/",
        ),
        (
            {
                "kind": "cloud",
                "provider": "oss",
                "bucket": "b1/folder1/",
                "endpoint": "oss-cn-beijing.aliyuncs.com",
            },
            "oss://b1.oss-cn-beijing.aliyuncs.com/folder1/",
        ),
        (
            {"kind": "sftp", "host": "nas:2222", "user": "ann@home", "path": "in/"},
            "sftp://ann%40home@nas:2222/~/in/",
        ),
        ({"kind": "sftp", "host": "nas", "user": "ann", "path": "/in"}, "sftp://ann@nas/in"),
    ],
)
def test_a_side_becomes_the_address_of_the_command_line(side: Any, address: str) -> None:
    assert line(source=side)[-2] == address


@pytest.mark.parametrize("name", CLOUDS)
def test_every_cloud_can_be_reached_at_its_own_domain(name: str) -> None:
    side = {"kind": "cloud", "provider": name, "endpoint": DOMAINS[name], "bucket": "b-1/a/"}
    assert line(source=side)[-2] == f"{name}://b-1.{DOMAINS[name]}/a/"


@pytest.mark.parametrize(
    ("side", "field"),
    [
        ({"kind": "file", "path": "photos"}, "src_path"),
        ({"kind": "file", "path": "s3://AK:SK@bucket/"}, "src_path"),
        ({"kind": "file", "path": "/a\0b"}, "src_path"),
        ({**STORE, "bucket": "photos"}, "src_bucket"),
        ({**STORE, "bucket": "photos/part"}, "src_bucket"),
        ({**STORE, "bucket": ""}, "src_bucket"),
        ({**STORE, "bucket": "a@b/"}, "src_bucket"),
        ({"kind": "object", "bucket": "my.bucket/", "endpoint": "s3.example.com"}, "src_bucket"),
        ({"kind": "cloud", "provider": "cos", "bucket": "b/"}, "src_endpoint"),
        ({"kind": "cloud", "provider": "minio", "bucket": "b/"}, "src_provider"),
        ({"kind": "sftp", "user": "ann"}, "src_host"),
        ({"kind": "sftp", "host": "nas"}, "src_user"),
        ({"kind": "sftp", "host": "n s", "user": "x"}, "src_host"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_at_its_field(side: Any, field: str) -> None:
    with pytest.raises(FieldError) as caught:
        line(source=side)
    assert caught.value.name == field


def test_options_are_those_of_the_command_line() -> None:
    words = line(
        include=["-v", "^a b"], exclude=["tmp$"], min_size="10k", newer_than="30d",
        compare="manifest", delete="destination", max_delete=0, bandwidth_mbps=12.5, threads=8,
        https=False, start="-x",
    )  # fmt: skip
    assert words == [
        "sync", "--include=-v", "--include=^a b", "--exclude=tmp$", "--start=-x",
        "--min-size=10k", "--newer-than=30d", "--compare=manifest", "--delete-dst",
        "--max-delete=0", "--bwlimit=12.5", "--threads=8", "--no-https", "--", "/data/photos/",
        "s3://10.0.0.5:9000/photos/",
    ]  # fmt: skip


def test_the_protocol_of_an_endpoint_is_kept() -> None:
    words = line(source={**STORE, "endpoint": "https://10.0.0.5:9000/"})
    assert "--src-endpoint=https://10.0.0.5:9000" in words
    assert words[-2] == "s3://10.0.0.5:9000/photos/"


def test_a_command_line_is_checked_by_its_own_parser(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    there = {"kind": "file", "path": f"{tmp_path}/dst/"}
    here = {"kind": "file", "path": f"{tmp_path}/src/"}
    job = forms.checked(line(source=here, destination=there, include=["^a"]))
    assert job.command == "sync"
    assert job.filters.include == ("^a",)
    for wrong in ({"min_size": "x"}, {"include": ["("]}, {"delete": "source", "compare": "size"}):
        with pytest.raises(UsageError):
            forms.checked(line(source=here, destination=there, **wrong))
    with pytest.raises(UsageError):
        forms.checked(line(source=here, destination=here))


def test_keys_go_to_the_credentials_file_and_nowhere_else(client: Client, tmp_path: Path) -> None:
    form = {
        "do": "preview",
        "src_kind": "object",
        "src_endpoint": "127.0.0.1:9",
        "src_bucket": "photos/",
        "src_access_key": "AKIAEXAMPLE",
        "src_secret_key": SECRET,
        "dst_kind": "file",
        "dst_path": f"{tmp_path}/dst/",
        "min_size": "nonsense",
    }
    answer = client.submit("/new", **{**form, "do": "start"})
    assert answer.status_code == 422
    assert SECRET not in answer.text
    assert "AKIAEXAMPLE" not in answer.text
    assert '<option value="s3-photos" selected>' in answer.text
    assert stat.S_IMODE(accounts_file().stat().st_mode) == 0o600
    assert f"secret_key = {SECRET}\n" in accounts_file().read_text()
    answer = client.submit("/new", **{**form, "min_size": ""})
    assert answer.headers["location"].startswith("/previews/")
    page = client.get(answer.headers["location"]).text
    assert SECRET not in page
    assert "--src-profile=s3-photos" in page
    kept = [one.read_text() for one in (console_directory() / "previews").glob("*.json")]
    assert kept
    assert not any(SECRET in one for one in kept)
    assert accounts_file().read_text().count("[s3-photos") == 1


def test_accounts_are_added_and_none_is_replaced() -> None:
    path = accounts_file()
    path.parent.mkdir(parents=True)
    path.write_text("# mine\n[nas]\npassword = x % y")
    path.chmod(0o600)
    assert keep_account("nas", Credentials("", "", None, "x % y")) == "nas"
    assert keep_account("nas", Credentials("", "", None, "other")) == "nas-2"
    assert keep_account("nas", Credentials("", "", None, "other")) == "nas-2"
    assert keep_account("s3", Credentials("ak", "=sk;#", "token")) == "s3"
    text = path.read_text()
    assert text.startswith("# mine\n[nas]\npassword = x % y\n")
    assert "secret_key = =sk;#\ntoken = token\n" in text
    for odd in ("a\nb", " a", "a\t", "\x1b"):
        with pytest.raises(UsageError):
            keep_account("odd", Credentials("ak", odd))
    path.chmod(0o644)
    with pytest.raises(UsageError):
        keep_account("s3", Credentials("ak", "sk"))


def test_an_account_that_there_is_no_room_for_spoils_none() -> None:
    keep_account("nas", Credentials("", "", None, "password"))
    before = accounts_file().read_text()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 4, limits[1]))
    try:
        with pytest.raises(UsageError, match="cannot write"):
            keep_account("s3", Credentials("ak", "sk"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert accounts_file().read_text() == before
    assert account_names() == ["nas"]


def test_a_path_outside_of_what_is_allowed_is_refused(
    client_of: ClientFactory, tmp_path: Path
) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    for folder in (inside, outside):
        folder.mkdir()
    (inside / "link").symlink_to(outside)
    client = client_of(inside).log_in()
    places = (f"{outside}/", f"{inside}/../out/", f"{inside}/link/", f"{inside}x", "/", "~/x")
    for place in places:
        for side in ("src", "dst"):
            form = {"src_path": f"{inside}/a/", "dst_path": f"{inside}/b/", f"{side}_path": place}
            for do in ("start", "preview", f"try-{side}", "command"):
                answer = client.submit("/new", do=do, **form)
                assert answer.status_code == 422, (place, side, do)
                assert "not allowed" in answer.text
    assert not list(outside.iterdir())
    good = client.submit("/new", do="command", src_path=f"{inside}/a/", dst_path=f"{inside}/b/")
    assert good.status_code == 200


def test_what_a_form_says_comes_back_as_text(client: Client) -> None:
    evil = '"><script>alert(1)</script>'
    answer = client.submit("/new", do="start", src_path=evil, include=evil, cron=evil)
    assert answer.status_code == 422
    assert "<script>alert" not in answer.text


def test_trials_say_what_is_wrong(client: Client, tmp_path: Path) -> None:
    def tried(side: str, **form: str) -> dict[str, Any]:
        answer = client.post(
            "/new",
            data={"csrf": client.csrf, "do": f"try-{side}", **form},
            headers={"Accept": "application/json"},
        )
        said: dict[str, Any] = json.loads(answer.text)
        return said

    (tmp_path / "file").write_text("x")
    assert tried("src", src_path=f"{tmp_path}/")["message"].endswith("The first key is file")
    assert not tried("src", src_path=f"{tmp_path}/none/")["good"]
    good = tried("dst", dst_path=f"{tmp_path}/new/deep/")
    assert good["good"]
    assert not (tmp_path / "new").exists()
    assert not tried("dst", dst_path=f"{tmp_path}/file/x/")["good"]
    nobody = tried("src", src_kind="object", src_endpoint="127.0.0.1:9", src_bucket="b/")
    assert not nobody["good"]


def test_the_command_line_can_be_pasted() -> None:
    words = line(source={"kind": "file", "path": "/data/it's here/"})
    assert shlex.split(forms.shown(words))[-2] == "/data/it's here/"


def test_a_preview_tells_how_many_directories_it_does_not_show(
    client: Client, tmp_path: Path
) -> None:
    for number in range(30):
        (tmp_path / f"src/d{number:02d}").mkdir(parents=True)
        (tmp_path / f"src/d{number:02d}/f").write_text("f")
    places = {"src_path": f"{tmp_path}/src/", "dst_path": f"{tmp_path}/dst/"}
    page = client.submit("/new", do="preview", **places).headers["location"]
    wait_for(lambda: "Nothing was changed" in client.get(page).text)
    assert "and 18 more" in client.get(page).text


def test_a_comparison_is_previewed_by_listing_both_sides(client: Client, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a").write_text("hello")
    places = {"src_path": f"{tmp_path}/src/", "dst_path": f"{tmp_path}/dst/"}
    page = client.submit("/new", do="preview", command="verify", **places).headers["location"]
    wait_for(lambda: "Nothing was changed" in client.get(page).text)
    assert not (tmp_path / "dst").exists()
    assert not state_directory().exists()


def test_a_job_that_moves_is_previewed_as_one_that_copies(client: Client, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a").write_text("hello")
    places = {"src_path": f"{tmp_path}/src/", "dst_path": f"{tmp_path}/dst/"}
    page = client.submit("/new", do="preview", delete="source", **places).headers["location"]
    wait_for(lambda: "Nothing was changed" in client.get(page).text)
    said = client.get(page).text
    assert re.search(r"Would be copied</span><strong>1<", said)
    assert "is then deleted at the source" in said
    assert "Would be deleted" not in said
    assert "--yes" not in said
    assert f"adsmig sync --delete-src {tmp_path}/src/ {tmp_path}/dst/" in said
    assert (tmp_path / "src" / "a").exists()
