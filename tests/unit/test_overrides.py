"""What the options of a side change about its address, up to where the work would begin."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from adsmig import program, session
from adsmig.job import Job
from adsmig.routes import Route

READ = Callable[..., Job]
OSS = "oss://ak:sk@bucket1.oss-cn-beijing.aliyuncs.com/prefix/"
COS = "cos://ak:sk@bucket1.ap-beijing.myqcloud.com/prefix/"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> READ:
    """``read(*arguments)``: the job that ``cp`` of OSS to COS, or other addresses, is read as."""
    jobs: list[Job] = []

    def keep(job: Job, *_: object) -> int:
        jobs.append(job)
        return 0

    monkeypatch.setattr(session, "start", keep)
    monkeypatch.setattr("adsmig.output.begin_log", lambda *_: None)

    def run(*arguments: str, src: str = OSS, dst: str = COS) -> Job:
        assert program.run(["cp", *arguments, src, dst]) == 0
        return jobs[-1]

    return run


def test_each_side_has_its_own_options(read: READ) -> None:
    plain, job = read(), read(
        "--src-region", "cn-x", "--src-set", "list_version=1", "--src-set", "etag=opaque",
        "--dst-region", "ap-x", "--dst-set", "max_keys=7",
    )  # fmt: skip
    assert job.dst
    assert job.src.region == "cn-x"
    assert (job.src.profile.list_version, job.src.profile.etag) == (1, "opaque")
    assert job.src.profile.max_keys == 1000
    assert job.dst.region == "ap-x"
    assert (job.dst.profile.max_keys, job.dst.profile.list_version) == (7, 1)
    assert job.id == plain.id


@pytest.mark.parametrize(
    ("endpoint", "host", "https", "path_style"),
    [
        ("gateway.corp", "gateway.corp", True, False),
        ("http://gateway.corp", "gateway.corp", False, False),
        ("http://gateway.corp/", "gateway.corp", False, False),
        ("Gateway.corp:8080", "gateway.corp:8080", True, True),
        ("https://10.0.0.5:8443", "10.0.0.5:8443", True, True),
        ("10.0.0.5", "10.0.0.5", False, True),
        ("[::1]:9000", "[::1]:9000", False, True),
    ],
)
def test_an_endpoint_stands_in_for_that_of_the_address(
    read: READ, endpoint: str, host: str, https: bool, path_style: bool
) -> None:
    job = read("--dst-endpoint", endpoint)
    assert job.dst
    found = job.dst
    assert (found.host, found.https, found.path_style) == (host, https, path_style)
    assert (found.bucket, found.path) == ("bucket1", b"prefix/")
    assert job.id != read().id  # it is another place
    assert read("--dst-endpoint", endpoint, dst="cos://ak:sk@bucket1/prefix/").id == job.id


def test_https_is_what_its_own_option_says(read: READ) -> None:
    job = read("--https", "--dst-endpoint", "http://gateway.corp")
    assert job.dst
    assert job.dst.https


def test_the_style_of_requests_is_chosen_for_a_side(read: READ) -> None:
    job = read(
        "--src-set", "style=path", "--dst-endpoint", "h.corp:80", "--dst-set", "style=virtual"
    )
    assert job.dst
    assert job.src.path_style
    assert job.src.bucket == "bucket1"
    assert not job.dst.path_style
    assert job.id != read().id


def test_routes_come_in_order_resolve_first(read: READ) -> None:
    job = read("--connect-to", "a:1:b:2", "--resolve", "*:443:10.0.0.5", "--resolve", "c:80:::1")
    assert job.routes == (
        Route("*", 443, "10.0.0.5", 0), Route("c", 80, "::1", 0), Route("a", 1, "b", 2)
    )  # fmt: skip
    assert job.id == read().id


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--src-set", "no_such=1", OSS, COS], "FIELD one of style, list_version"),
        (["--src-set", "etag=sha1", OSS, COS], "aws, md5, opaque"),
        (["--resolve", "h:443", OSS, COS], "HOST:PORT:ADDRESS"),
        (["--connect-to", "h:443", OSS, COS], "HOST1:PORT1:HOST2:PORT2"),
        (["--dst-region", "x", OSS, "/tmp/dst/"], "DST is a local path"),
        (["--src-endpoint", "ftp://h", OSS, COS], "an endpoint is HOST"),
        (["--src-endpoint", "h/bucket", OSS, COS], "an endpoint is HOST"),
        ([OSS, "cos://ak:sk@bucket1/"], "--dst-endpoint"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.run(["cp", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert "sk@" not in error
