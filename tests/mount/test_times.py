"""Times, modes and owners as the store has them, where nobody wants those that objects keep."""

from __future__ import annotations

import os

from tests.conftest import BucketFactory
from tests.mount.conftest import MountFactory
from tests.mount.mounts import put, run
from tests.recorder import Recorder
from tests.servers import Server

OLD = 1_500_000_000


def test_server_times_need_no_request_for_each_file_and_spoil_nothing_kept(
    some_store: Server, bucket: BucketFactory, mount: MountFactory
) -> None:
    name = bucket(some_store)
    put(some_store, name, {f"d/{number:03d}": b"x" * number for number in range(60)})
    with Recorder(some_store.host) as way:
        url = some_store.url(name).replace(some_store.host, way.host)
        at = mount(url, "--use-server-modtime")
        listed = run("find", at.path, "-type", "f", "-printf", "%P %s %m\n").splitlines()
        assert set(listed) == {f"d/{number:03d} {number} 644" for number in range(60)}
        heads = [one.path for one in way.requests if one.method == "HEAD" and "/d/0" in one.path]
        assert len(heads) <= 1  # of 14 bytes: it may be a symbolic link
        file = at.path / "d" / "007"
        os.utime(file, (OLD, OLD))
        file.chmod(0o600)
        assert file.read_bytes() == b"x" * 7
        at.stop()
    at = mount(some_store.url(name))
    told = (at.path / "d" / "007").stat()
    assert (told.st_mtime, told.st_mode & 0o777, told.st_size) == (OLD, 0o600, 7)
    at.stop()
