"""Every key is a file under its name, under another that is told, or told of in the log."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.conftest import BucketFactory
from tests.mount.conftest import MountFactory
from tests.mount.mounts import contents, error_of, put
from tests.servers import Moto, SeaweedFS, Server

ODD = [
    " blank ",
    "tab\tand\nline",
    "per%2Fcent%",
    "plus+and&and=and?and#",
    "'quo\"ted`$(x)",
    "été ✓ 😀",
    "-rf",
    "*",
    ".hidden",
    "...",
    "~",
    "back\\slash",
    "x" * 255,
    "ü" * 127,
    "\x7f\x01",
    "a:b",
]
IMPOSSIBLE = [
    "a//b",
    "both",
    "both/below",
    "both/",
    "./dot",
    "d/../up",
    "..",
    "../outside",
    "/begins",
    "//begins",
    "y" * 256,
    "deep/" + "z" * 300 + "/below",
    "ends/with/content/",
    ".",
    "d/.",
    "one/two//three//",
]


def test_odd_names_are_the_keys_of_the_same_names(
    store: Server, bucket: BucketFactory, mount: MountFactory
) -> None:
    name = bucket(store)
    # SeaweedFS makes it a slash.
    odd = [key for key in ODD if "\\" not in key or not isinstance(store, SeaweedFS)]
    there = {f"there/{key}": key.encode() for key in odd}
    put(store, name, there)
    at = mount(store.url(name))
    assert set(os.listdir(at.path / "there")) == set(odd)
    for key in odd:
        assert (at.path / "there" / key).read_bytes() == key.encode()
        (at.path / key).mkdir()
        (at.path / key / key).write_bytes(key.encode())
        os.rename(at.path / "there" / key, at.path / key / "moved")
    assert os.listdir(at.path / "there") == []
    at.stop()
    found = contents(store, name)
    assert found == {f"{key}/{last}": key.encode() for key in odd for last in (key, "moved")}


@pytest.fixture(params=["seaweedfs", "minio", "moto"])
def any_store(request: pytest.FixtureRequest) -> Server:
    """moto as well, which takes every key."""
    server: Server = request.getfixturevalue(request.param)
    return server


def test_no_key_is_silently_missing(
    any_store: Server, bucket: BucketFactory, mount: MountFactory, tmp_path: Path
) -> None:
    name = bucket(any_store)
    for key in IMPOSSIBLE:
        with contextlib.suppress(ClientError):  # a store need not take them
            put(any_store, name, {f"p/{key}": f"content of {key}".encode()})
    there = contents(any_store, name, markers=True)
    assert len(there) == len(IMPOSSIBLE) or not isinstance(any_store, Moto)
    put(any_store, name, {"outside": b"of what is mounted"})
    at = mount(any_store.url(name, "p/"))
    shown = set()
    for folder, _, files in os.walk(at.path):
        for file in files:
            shown.add(Path(folder, file).read_bytes())
    at.stop()
    logs = "".join(
        path.read_text(errors="replace")
        for path in Path(os.environ["XDG_STATE_HOME"]).rglob("*.log*")
    )
    told = at.said + logs
    for key, content in there.items():
        name = re.escape(key.removeprefix("p/"))
        assert content in shown or re.search(rf"(?<![\w./]){name}(?![\w./])", told), key
    assert b"of what is mounted" not in shown


def test_a_name_that_is_too_long_is_refused_as_elsewhere(
    some_store: Server, bucket: BucketFactory, mount: MountFactory
) -> None:
    at = mount(some_store.url(bucket(some_store)))
    assert error_of(lambda: (at.path / ("x" * 256)).touch()) == errno.ENAMETOOLONG
    # No key has more than 1,024 bytes.
    deep = at.path / "/".join(["d" * 200] * 4)
    deep.mkdir(parents=True)
    long = deep / ("x" * 255)
    assert error_of(lambda: long.write_bytes(b"content")) == errno.ENAMETOOLONG
    assert error_of(long.mkdir) == errno.ENAMETOOLONG
    at.stop()
