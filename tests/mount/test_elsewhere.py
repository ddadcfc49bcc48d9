"""Files that are open here, and are replaced by others meanwhile."""

from __future__ import annotations

import errno
import os
import time

from adsmig.mount.nodes import FRESH_S
from tests.conftest import BucketFactory
from tests.mount.conftest import MountFactory
from tests.mount.mounts import contents, error_of, put
from tests.servers import Server


def test_who_writes_to_what_was_replaced_elsewhere_is_told_so(
    some_store: Server, bucket: BucketFactory, mount: MountFactory
) -> None:
    name = bucket(some_store)
    put(some_store, name, {"log": b"first\n", "empty": b""})
    at = mount(some_store.url(name))
    opened = {key: os.open(at.path / key, os.O_WRONLY | os.O_APPEND) for key in ("log", "empty")}
    put(some_store, name, {"log": b"another\n", "empty": b"not empty"})
    time.sleep(FRESH_S + 1)
    for key, fd in opened.items():
        (at.path / key).stat()
        assert error_of(lambda fd=fd: os.write(fd, b"lost")) == errno.ESTALE
        os.close(fd)
        with (at.path / key).open("ab") as file:
            file.write(b"kept")
    at.stop()
    assert contents(some_store, name) == {"log": b"another\nkept", "empty": b"not emptykept"}


def test_who_opens_what_was_written_here_sees_what_others_stored_since(
    some_store: Server, bucket: BucketFactory, mount: MountFactory
) -> None:
    name = bucket(some_store)
    at = mount(some_store.url(name))
    file = at.path / "file"
    with file.open("wb") as writer, file.open("rb") as reader:
        writer.write(b"ours")
        writer.close()
        put(some_store, name, {"file": b"theirs, later"})
        time.sleep(FRESH_S + 1)
        assert file.read_bytes() == b"theirs, later"
        assert reader.read() == b"ours"
    at.stop()
