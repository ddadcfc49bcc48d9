"""Addresses: what they mean, what comes back out, and that no secret ever does."""

from __future__ import annotations

import dataclasses
import os
import pickle
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from adsmig.errors import UsageError
from adsmig.location import Credentials, Location
from adsmig.uri import parse, paths_among

AOSS = "aoss.cn-sh-01.sensecoreapi-oss.cn"
AOSS_INTERNAL = "aoss-internal.cn-sh-01.sensecoreapi-oss.cn"
KEYS = Credentials("ak", "sk")


def store(scheme: str, bucket: str, host: str, path: bytes = b"", **fields: object) -> Location:
    location = Location(scheme, path, bucket=bucket, host=host, https=True)
    fields.setdefault("trailing_slash", not path or path.endswith(b"/"))
    return dataclasses.replace(location, **fields)  # type: ignore[arg-type]


def path_style(
    scheme: str, host: str, bucket: str, path: bytes = b"", **fields: object
) -> Location:
    return store(scheme, bucket, host, path, **{"path_style": True, "https": False, **fields})


ADDRESSES = [
    # The product page.
    (
        f"s3://ak:sk@bucket1.{AOSS}/prefix/",
        store("s3", "bucket1", AOSS, b"prefix/", credentials=KEYS),
    ),
    (
        f"s3://ak:sk@bucket1.{AOSS}/prefix/one_file.txt",
        store("s3", "bucket1", AOSS, b"prefix/one_file.txt", credentials=KEYS),
    ),
    (
        f"s3://ak:sk@bucket1.{AOSS_INTERNAL}/prefix",
        store("s3", "bucket1", AOSS_INTERNAL, b"prefix", credentials=KEYS, https=False),
    ),
    (
        "s3://ak:sk@bucket1.aoss-internal.cn-sh-01.sensecoreapi-cn/prefix/",
        store(
            "s3",
            "bucket1",
            "aoss-internal.cn-sh-01.sensecoreapi-cn",
            b"prefix/",
            credentials=KEYS,
            https=False,
        ),
    ),
    (
        f"s3://ak:sk@bucket1.{AOSS}:9000/",
        store("s3", "bucket1", f"{AOSS}:9000", credentials=KEYS),
    ),
    (f"s3://bucket1.{AOSS}:9000", store("s3", "bucket1", f"{AOSS}:9000")),
    (
        "s3://ak:sk@bucketname.ip/path",
        store("s3", "bucketname", "ip", b"path", credentials=KEYS),
    ),
    (
        "minio://ak:sk@10.1.2.3:9000/mybucket/",
        path_style("minio", "10.1.2.3:9000", "mybucket", credentials=KEYS),
    ),
    # The specification.
    (
        "s3://ak:sk@127.0.0.1:9000/bucket/prefix/",
        path_style("s3", "127.0.0.1:9000", "bucket", b"prefix/", credentials=KEYS),
    ),
    ("s3://localhost/bucket/p", path_style("s3", "localhost", "bucket", b"p")),
    ("s3://LocalHost/bucket/p", path_style("s3", "localhost", "bucket", b"p")),
    ("s3://[::1]:9000/bucket/p", path_style("s3", "[::1]:9000", "bucket", b"p")),
    (
        "s3://a:b@[FE80::1]/bucket",
        path_style("s3", "[fe80::1]", "bucket", credentials=Credentials("a", "b")),
    ),
    (
        "s3://store.lan:8333/bucket/p",
        path_style("s3", "store.lan:8333", "bucket", b"p", https=True),
    ),
    ("s3://minio:9000/bucket", path_style("s3", "minio:9000", "bucket", https=True)),
    ("minio://store.lan/bucket/p", path_style("minio", "store.lan", "bucket", b"p")),
    (
        "minio://ak:sk:tok@store.lan:9000/b/p",
        path_style(
            "minio", "store.lan:9000", "b", b"p", credentials=Credentials("ak", "sk", "tok")
        ),
    ),
    ("s3://127.0.0.1:9000/bucket/a@b", path_style("s3", "127.0.0.1:9000", "bucket", b"a@b")),
    ("s3://127.0.0.1:9000/My_Bucket/a@b", path_style("s3", "127.0.0.1:9000", "My_Bucket", b"a@b")),
    # Amazon.
    ("s3://bucket", store("s3", "bucket", "")),
    ("S3://bucket/", store("s3", "bucket", "")),
    ("s3://bucket/pre@fix", store("s3", "bucket", "", b"pre@fix")),
    ("s3://ak:sk@bucket/x/a:b@c.d/", store("s3", "bucket", "", b"x/a:b@c.d/", credentials=KEYS)),
    (
        "s3://my.bucket.s3.eu-west-1.amazonaws.com/p",
        store("s3", "my.bucket", "s3.eu-west-1.amazonaws.com", b"p", region="eu-west-1"),
    ),
    (
        "s3://b.s3.cn-north-1.amazonaws.com.cn/p",
        store("s3", "b", "s3.cn-north-1.amazonaws.com.cn", b"p", region="cn-north-1"),
    ),
    (
        "s3://my.bucket.s3-us-west-2.amazonaws.com",
        store("s3", "my.bucket", "s3-us-west-2.amazonaws.com", region="us-west-2"),
    ),
    (
        "s3://a.s3.b.S3.us-gov-west-1.amazonaws.com/",
        store("s3", "a.s3.b", "s3.us-gov-west-1.amazonaws.com", region="us-gov-west-1"),
    ),
    (
        "s3://b.s3.dualstack.ap-south-1.amazonaws.com:443/p",
        store("s3", "b", "s3.dualstack.ap-south-1.amazonaws.com:443", b"p", region="ap-south-1"),
    ),
    ("s3://my-internal.s3.amazonaws.com/p", store("s3", "my-internal", "s3.amazonaws.com", b"p")),
    (
        "s3://b.bucket.vpce-1a2b.s3.us-east-1.vpce.amazonaws.com/p",
        store("s3", "b", "bucket.vpce-1a2b.s3.us-east-1.vpce.amazonaws.com", b"p"),
    ),
    # Prefixes mean themselves.
    ("s3://b.h//a//./../b ", store("s3", "b", "h", b"/a//./../b ")),
    ("s3://b.h/%41?x=1#y+z", store("s3", "b", "h", b"%41?x=1#y+z")),
    ("s3://b.h/數據/é/", store("s3", "b", "h", "數據/é/".encode())),
    ("s3://b.h/s3://x@y:z", store("s3", "b", "h", b"s3://x@y:z")),
    # Keys are decoded once.
    (
        "s3://a%2Fk:s%40%3A%2B%2b%2541@b.h",
        store("s3", "b", "h", credentials=Credentials("a/k", "s@:++%41")),
    ),
    ("s3://ak:sk:@b.h", store("s3", "b", "h", credentials=KEYS)),
]


@pytest.mark.parametrize(("text", "location"), ADDRESSES, ids=[text for text, _ in ADDRESSES])
def test_address_of_a_store(text: str, location: Location) -> None:
    assert parse(text) == location
    assert parse(text.encode()) == location


def test_bucket_comes_from_the_path_with_path_style() -> None:
    assert parse("s3://store.lan/bucket/p", path_style=True) == path_style(
        "s3", "store.lan", "bucket", b"p", https=True
    )
    aws = path_style(
        "s3", "s3.eu-west-1.amazonaws.com", "bucket", b"p", https=True, region="eu-west-1"
    )
    assert parse("s3://s3.eu-west-1.amazonaws.com/bucket/p", path_style=True) == aws
    assert parse("s3://bucket.s3.eu-west-1.amazonaws.com/p", path_style=True) == aws


@pytest.mark.parametrize(
    "text", ["s3://b.h", "s3://b", f"s3://b.{AOSS_INTERNAL}", "s3://1.2.3.4/b", "minio://h:1/b"]
)
def test_an_explicit_https_wins(text: str) -> None:
    assert parse(text, https=True).https
    assert not parse(text, https=False).https


# Local paths.


@pytest.fixture
def cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    monkeypatch.chdir(tmp_path)
    return os.getcwdb()


@pytest.mark.parametrize(
    ("text", "below", "trailing_slash"),
    [
        ("a", b"/a", False),
        ("./a//b/", b"/a/b", True),
        (".", b"", False),
        ("a/../b///", b"/b", True),
        ("./C:\\x", b"/C:\\x", False),
        ("./foo:bar/", b"/foo:bar", True),
        ("foo/a:b", b"/foo/a:b", False),
        ("a b:c", b"/a b:c", False),
        (":x", b"/:x", False),
        ("a@b", b"/a@b", False),
        ("./user@host:path", b"/user@host:path", False),
        ("./s3://bucket", b"/s3:/bucket", False),
        ("a/b:c@d", b"/a/b:c@d", False),
        (" ", b"/ ", False),
        ("%41", b"/%41", False),
        ("na\udcefme", b"/na\xefme", False),
        (b"na\xefme/", b"/na\xefme", True),
    ],
)
def test_local_path(cwd: bytes, text: str | bytes, below: bytes, trailing_slash: bool) -> None:
    assert parse(text) == Location("file", cwd + below, trailing_slash=trailing_slash)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/", b"/"),
        ("//", b"/"),
        ("//a//b/.", b"/a/b"),
        ("/..", b"/"),
        ("file:///a%20b/", b"/a%20b"),
    ],
)
def test_absolute_path(text: str, path: bytes) -> None:
    assert parse(text).path == path


def test_home_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert parse("~").path == b"/home/someone"
    assert parse("~/test_files/1/").path == b"/home/someone/test_files/1"
    assert parse("/x/~").path == b"/x/~"
    assert parse("file:///~").path == b"/~"


def test_parent_of_a_link_is_the_parent_of_what_it_names(cwd: bytes) -> None:
    os.makedirs(b"real/deep")
    os.symlink(b"real/deep", b"link")
    assert parse("link/../x").path == cwd + b"/real/x"
    assert parse("link/..").path == cwd + b"/real"
    assert parse("link/x").path == cwd + b"/link/x"


def test_an_existing_file_may_look_like_an_address(cwd: bytes) -> None:
    for name in ("user@host:path", "12:30 me@home", "s3:x", "127.0.0.1:x", "12:30"):
        Path(name).touch()
        assert parse(name).path == cwd + b"/" + name.encode()
    os.mkdir("01T12:00")
    assert parse("01T12:00/new").path == cwd + b"/01T12:00/new"


def test_paths_that_only_look_as_if_they_held_a_secret_lie_in_directories(cwd: bytes) -> None:
    os.mkdir("there")
    words = [
        "./w:q@e/nothere",
        "there/w:q@e",
        f"{os.fsdecode(cwd)}/there/x:y@z/",
        "./w",
        "there/w:q",
    ]
    assert paths_among(words) == [
        os.fsdecode(cwd) + path for path in ("/w:q@e/nothere", "/there/w:q@e", "/there/x:y@z")
    ]
    for word in (
        "AK:SK@b", "//AK:SK@b/p", "///AK:SK@b/p", "/AK:SK@b/p", "S3/AK:SK@b/p", "S3//AK:SK@b/p",
        "./s3://AK:SK@b/p", "./s3:/AK:SK@b", "there/AK:SK@b/x:y@z", "s3://AK:SK@b/p", "a:b@host:x",
        "sftp://a:b@host/x", "--log-file=there/AK:SK@b", "./AK:S:K@b", "./AK:S@K@b",
    ):  # fmt: skip
        assert paths_among([word]) == [], word


def test_no_current_directory_is_an_error(cwd: bytes) -> None:
    os.mkdir("gone")
    os.chdir("gone")
    os.rmdir("../gone")
    with pytest.raises(UsageError, match="absolute path"):
        parse("x")
    os.chdir(cwd)


# SFTP


@pytest.mark.parametrize(
    ("text", "user", "address", "path", "directory"),
    [
        ("sftp://user@host/path", "user", ("host", 22), b"/path", False),
        ("sftp://user@host/path/", "user", ("host", 22), b"/path", True),
        ("sftp://user@Host:2222/a//b/./c", "user", ("host", 2222), b"/a/b/c", False),
        ("sftp://user@host", "user", ("host", 22), b".", True),
        ("sftp://user@host:22", "user", ("host", 22), b".", True),
        ("sftp://user@host/", "user", ("host", 22), b"/", True),
        ("sftp://user@host/~/x", "user", ("host", 22), b"x", False),
        ("sftp://user@host:x", "user", ("host", 22), b"x", False),
        ("sftp://user@[::1]:2222/x", "user", ("::1", 2222), b"/x", False),
        ("user@host:path", "user", ("host", 22), b"path", False),
        ("user@host:", "user", ("host", 22), b".", True),
        ("user@host:/path", "user", ("host", 22), b"/path", False),
        ("user@host:~/path/", "user", ("host", 22), b"path", True),
        ("user@host:./~", "user", ("host", 22), b"~", False),
        ("user@host:2222:path", "user", ("host", 2222), b"path", False),
        ("user@host:2222:/a@b:c", "user", ("host", 2222), b"/a@b:c", False),
        ("user@[::1]:path", "user", ("::1", 22), b"path", False),
        ("a%40b@host:é%20#?", "a@b", ("host", 22), "é%20#?".encode(), False),
        ("user@host:\udcff", "user", ("host", 22), b"\xff", False),
    ],
)
def test_sftp(
    cwd: bytes, text: str, user: str, address: tuple[str, int], path: bytes, directory: bool
) -> None:
    found = parse(text)
    assert (found.scheme, found.user, found.address) == ("sftp", user, address)
    assert (found.path, found.trailing_slash, found.credentials) == (path, directory, None)


@pytest.mark.parametrize(
    "text", ["user:p%2Fa%25s%2B%3A%40@host:x", "sftp://user:p%2Fa%25s%2B%3A%40@host/x"]
)
def test_the_password_of_sftp_is_decoded_once_and_never_shown(cwd: bytes, text: str) -> None:
    found = parse(text)
    assert found.credentials
    assert found.credentials.password == "p/a%s+:@"
    assert "p/a" not in f"{found} {found!r} {found.credentials!r} {found.identity}"
    assert str(found).startswith("sftp://***@host/")
    assert pickle.loads(pickle.dumps(found)) == found


def test_sftp_without_a_user_is_for_whoever_asks(
    cwd: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "me")
    assert parse("sftp://host/x").user == "me"


def test_the_identity_of_sftp_tells_users_and_places_apart(cwd: bytes) -> None:
    texts = ["a@host:x", "b@host:x", "a@host:/x", "a@host:x/", "a@host:2:x", "a@other:x"]
    assert len({parse(text).identity for text in texts}) == len(texts)


# What is refused, and that it says what to do.


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        (
            "gs://b.storage.googleapis.com/p",
            r"gs:// is not supported.*file://.*s3://.*minio://.*oss://",
        ),
        ("https://b.h/p", "https:// is not supported"),
        ("://b", "before ://"),
        (" s3://b", "before ://"),
        ("user@host:2222/path", r"two ways.*sftp://USER@HOST:PORT/PATH"),
        ("user@host:2222", "two ways"),
        ("user:name/x@host:path", r"USER\[:PASSWORD\]@HOST:PATH.*\./name"),
        ("sftp://user@ho st/path", r"HOST\[:PORT\]/PATH"),
        ("sftp://user@host:0/path", "1 to 65535"),
        ("sftp://user@host:70000/path", "1 to 65535"),
        ("sftp://user@host/a\0b", "NUL"),
        ("127.0.0.1:x", r"USER@HOST:PATH.*sftp://.*\./name"),
        ("nas.lan:/volume/x/", r"USER@HOST:PATH.*sftp://.*\./name"),
        ("nas:", r"USER@HOST:PATH.*sftp://.*\./name"),
        ("nas:22:x", r"USER@HOST:PATH.*sftp://.*\./name"),
        ("[::1]:x", r"USER@HOST:PATH.*sftp://.*\./name"),
        ("C:\\x", r"a ':' in its name.*\./name"),
        ("2026-01-31T12:00:00/", r"a ':' in its name, as in a time, is written \./name"),
        ("//AK:SK@host/x", r"NAME://.*write s3://"),
        ("s3:bucket/prefix", "write s3://"),
        ("S3:/bucket", "write s3://"),
        ("file://rel", "file:///"),
        ("file://", "file:///"),
        ("file://localhost/x", "file:///"),
        ("/a\0b", "NUL"),
        ("/\ud800", "characters"),
        ("s3://", "no bucket"),
        ("s3:///prefix", "no bucket"),
        ("s3://ak:sk@/prefix", "no bucket"),
        ("s3://127.0.0.1:9000", r"no bucket.*HOST\[:PORT\]/BUCKET"),
        ("s3://127.0.0.1:9000//x", "no bucket"),
        ("s3://minio:9000/", r"no bucket.*HOST\[:PORT\]/BUCKET"),
        ("minio://store.lan/", "no bucket"),
        ("s3://s3.us-east-1.amazonaws.com/bucket/p", r"no bucket.*BUCKET\[.ENDPOINT\]"),
        ("s3://b.h/\udcff", "UTF-8"),
        ("s3://my bucket.h/p", "letters"),
        ("s3://b\n.h/p", "letters"),
        ("s3://b?x=1", "letters"),
        ("s3://.h/p", "letters"),
        ("s3://b..h/p", "letters"),
        ("s3://h:9000/my bucket/p", "begins with a letter"),
        ("s3://h:9000/b\u200b/p", "begins with a letter"),
        ("s3://h:9000/../p", "begins with a letter"),
        ("s3://h:70000/b", "HOST:PORT"),
        ("s3://h:/b", "HOST:PORT"),
        ("s3://[::1/b", "HOST:PORT"),
    ],
)
def test_refused(cwd: bytes, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "s3://AK:Xsecret",
        "s3://AK:Xse/Ycret@bucket.host/p",
        "s3://AK:Xse@Ycret@bucket.host/p",
        "s3://AK:Xse:Ycr:Zet@bucket.host/p",
        "s3://AK:Xse/Ycr/Zet@bucket.host/p",
        "s3://AK:Xse@Ycr/Zet@bucket.host/p",
        "s3://AK:Xse/Ycr@Zet@bucket.host/p",
        "s3://AK:12/Ycret@bucket.host/p",
        "s3://AK:12/Ycr/Zet@bucket.host/p",
        "s3://AK:Xse%zzYcret@bucket.host/p",
        "s3://AK:Xse%ffYcret@bucket.host/p",
        "s3://AK:Xsecret%@bucket.host/p",
        "s3://Xsecret@bucket.host/p",
        "s3://***@bucket.host/p",
        "s3://:Xsecret@bucket.host/p",
        "s3://Xsecret:@bucket.host/p",
        "s3://AK:Xse/Ycret@127.0.0.1:9000/bucket/p",
        "minio://AK:Xse/Ycret@store.lan:9000/bucket/p",
        "minio://AK:12/Ycret@store.lan:9000/bucket/p",
        "minio://AK:Xse@Ycr/Z/et@store.lan:9000/bucket/p",
        "s3://AK:Xse+Ycret@bucket.host/p",
        "s3://AK+Xse:Ycret@bucket.host/p",
        "s3://AK:Xse:Ycr+et@bucket.host/p",
        "sftp://AK:Xse+Ycret@bucket.host/p",
        "AK:Xse+Ycret@bucket.host:p",
    ],
)
def test_an_unescaped_secret_is_told_how_and_not_shown(text: str) -> None:
    with pytest.raises(
        UsageError, match="'/' as %2F, '@' as %40, ':' as %3A, '\\+' as %2B"
    ) as caught:
        parse(text)
    for part in ("AK", "Xse", "Ycr", "Zet", "12", "bucket.host"):
        assert part not in everything_said(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "AK:Xsecret@bucket.host/p",
        "AK:Xse/cret@bucket.host/p",
        "AK:Xsecret@127.0.0.1:9000/bucket/p",
        "user:X/secret@host:path",
        "user:Xse@cret@host:path",
        "user:Xse:cret@host:path",
        "user:Xsecret@host:9000/bucket",
        "sftp://user:X/secret@host/path",
        "sftp://user:90/Xsecret@host/path",
        "sftp://me@corp:Xsecret@host/path",
        "me@corp:Xsecret@host:path",
        "sftp://user:Xs@host/Xsecret@host/path",
        "sftp://user:Xs@cr:Xsecret/x@host/path",
        "user:Xs@cr:Xsecret/x@host:path",
        "sftp://user:Xsecret@ho st/path",
        "sftp://user:Xse%zzcret@host/path",
        " s3://AK:Xsecret@bucket.host/p",
        "s3:/AK:Xsecret@bucket.host/p",
        "//AK:Xsecret@bucket.host/p",
        "bucket.host:Xsecret",
        "AK:Xsecret@s3://bucket",
        "gs://AK:Xsecret@bucket.host/p",
        "file://AK:Xsecret@bucket.host/p",
        "s3://AK:Xsecret@bucket.host:port/p",
        "s3://AK:Xsecret@my bucket/p",
        "s3://AK:Xsecret@/p",
        "s3://AK:Xsecret@127.0.0.1/",
        "s3://AK:Xsecret@h:1/b?c",
        "s3://AK:Xsecret\udcff@b.h/p",
        "s3://AK:Xsecret@b.h/\udcff",
    ],
)
def test_a_faulty_address_does_not_show_its_secret(cwd: bytes, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert "Xse" not in everything_said(caught.value)


def everything_said(exc: BaseException | None) -> str:
    """The error and whatever it carries along."""
    said = []
    while exc is not None:
        said += [str(exc), repr(exc)]
        exc = exc.__cause__ or exc.__context__
    return "\n".join(said)


# Properties.

SECRET = "S3cr3t"  # no piece of an address that is made up below
text_of_a_key = st.text(min_size=1)
prefixes = st.text()
places = st.sampled_from(
    ["bucket", "bucket.host", "b.s3.eu-west-1.amazonaws.com", "h:9000/b", "[::1]:9000/b"]
)


def quoted(*parts: str | None) -> str:
    return ":".join(quote(part, safe="") for part in parts if part is not None)


@given(text_of_a_key, text_of_a_key, st.none() | text_of_a_key, places, prefixes)
def test_quoted_keys_come_back(
    access_key: str, secret_key: str, token: str | None, place: str, prefix: str
) -> None:
    location = parse(f"s3://{quoted(access_key, secret_key, token)}@{place}/{prefix}")
    assert location.credentials == Credentials(access_key, secret_key, token)
    assert location.path == prefix.encode()


@given(places, prefixes)
def test_any_prefix_comes_back(place: str, prefix: str) -> None:
    location = parse(f"s3://{place}/{prefix}")
    assert location.path == prefix.encode()
    assert location.trailing_slash == (prefix == "" or prefix.endswith("/"))
    assert len(str(location).splitlines()) == 1
    str(location).encode()


@given(st.binary(min_size=1).filter(lambda name: not set(name) & set(b"\0/") and name != b".."))
def test_any_file_name_comes_back(name: bytes) -> None:
    location = parse(b"/x/" + name)
    assert location.path == (b"/x/" + name if name != b"." else b"/x")
    assert parse(os.fsdecode(b"/x/" + name)) == location
    str(location).encode()
    location.identity.encode("ascii")


@given(places, st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"])))
def test_what_is_printed_can_be_read_again(place: str, prefix: str) -> None:
    location = parse(f"s3://{place}/{prefix}")
    assert parse(str(location)) == location


@given(
    st.text(),
    st.text(),
    st.booleans(),
    st.sampled_from(["s3", "minio", "S3", "file", "oss", ""]),
    st.sampled_from(["b.h", "h:1/b", "b h", "", "b:x", "[::1]/b", "AK@b", "127.0.0.1"]),
    prefixes,
)
def test_a_secret_is_never_said(
    before: str, after: str, escaped: bool, scheme: str, place: str, prefix: str
) -> None:
    secret = f"{before}{SECRET}{after}"
    if not escaped:
        assume("@" not in before)  # AK:SK@BUCKET/S3cr3t is an address without a fault
    keys = quoted("AK", secret) if escaped else f"AK:{secret}"
    name = f"{scheme}://" if scheme else ""
    try:
        location = parse(f"{name}{keys}@{place}/{prefix}")
    except UsageError as exc:
        assert SECRET not in everything_said(exc)  # noqa: PT017
    else:
        if location.credentials is None:
            assert "@" not in str(location)
        for said in (str(location), repr(location), f"{location}", "%r" % [location]):
            assert SECRET not in said
        assert SECRET not in repr(location.credentials)
        assert SECRET not in str(location.credentials)
        assert SECRET not in location.identity


# Printing, identity, and being data.


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        (f"s3://ak:sk@bucket1.{AOSS}/prefix/", f"s3://***@bucket1.{AOSS}/prefix/"),
        (f"s3://bucket1.{AOSS}/prefix", f"s3://bucket1.{AOSS}/prefix"),
        (f"s3://ak:sk@bucket1.{AOSS}:9000", f"s3://***@bucket1.{AOSS}:9000/"),
        ("s3://bucket/數據", "s3://bucket/數據"),
        ("s3://bucket", "s3://bucket/"),
        ("s3://a:b:c@[::1]:9000/bucket/p", "s3://***@[::1]:9000/bucket/p"),
        ("minio://ak:sk@H:9000/bucket", "minio://***@h:9000/bucket/"),
        ("s3://b.h/a\nb\x1b[31m", r"s3://b.h/a\nb\x1b[31m"),
        ("/data/set/", "/data/set"),
        (b"/data/\xff\n", r"/data/\xff\n"),
    ],
)
def test_prints_as(text: str | bytes, printed: str) -> None:
    location = parse(text)
    assert str(location) == repr(location) == f"{location}" == printed


def test_credentials_print_as_stars() -> None:
    for said in (repr(KEYS), str(KEYS), f"{KEYS}", repr([KEYS])):
        assert said.strip("[]") == "***"


def test_identity_leaves_out_how_the_place_is_reached() -> None:
    identity = parse("s3://store.lan:9000/bucket/p").identity
    assert identity == parse("s3://ak:sk@STORE.lan:9000/bucket/p").identity
    assert identity == parse("s3://store.lan:9000/bucket/p", https=False).identity
    assert parse("s3://b.h/p").identity == parse("s3://h/b/p", path_style=True).identity
    assert parse("/a//b").identity == parse("/a/b").identity
    assert parse("/").identity == parse("//").identity == "file:///"


def test_identity_tells_places_apart() -> None:
    texts: list[str | bytes] = [
        "s3://b/p", "s3://b/p/", "s3://b", "s3://c/p", "s3://b.h/p", "s3://b.h:1/", "minio://h/b/p",
        "s3://b/%2F", "s3://b//", "/b/p", "/b/p/", "/b/%70", "/", b"/\xff", "/\\xff",
    ]  # fmt: skip
    assert len({parse(text).identity for text in texts}) == len(texts)


def test_is_picklable_and_hashable_data() -> None:
    location = parse("s3://ak:sk:tok@b.h/p")
    copy = pickle.loads(pickle.dumps(location))
    assert copy == location
    assert hash(copy) == hash(location)
    assert copy.credentials.secret_key == "sk"
    assert parse("s3://ak:other@b.h/p") != location
    with pytest.raises(dataclasses.FrozenInstanceError):
        location.bucket = "c"  # type: ignore[misc]


def test_import_loads_no_network_modules() -> None:
    code = "import sys, adsmig.location; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    assert not {"ssl", "socket", "urllib.request", "http.client"} & set(loaded)


def test_standard_input_is_no_address(cwd: bytes) -> None:
    with pytest.raises(UsageError, match=r"'-' is no address.* ./-$"):
        parse("-")
    assert parse("./-").path == os.path.join(cwd, b"-")
