"""Random calls to a mount and to a directory of this machine have the same results and errors."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    multiple,
    rule,
    run_state_machine_as_test,
)

from tests.conftest import BucketFactory
from tests.mount.conftest import MountFactory
from tests.mount.mounts import EXAMPLES
from tests.servers import Server

LONG_AGO_NS = 1_500_000_000 * 10**9
"""Files whose time was set are older than this; those that were written are younger."""

names = st.sampled_from(["a", "b", "c d", "é%2F+"])
paths = st.one_of(
    names,
    st.tuples(names, names).map("/".join),
    st.tuples(names, names, names).map("/".join),
)
data = st.binary(max_size=40).map(lambda text: text * 500)
Pair = tuple[int, int]


def outcome(call: Callable[[Path], Any], root: Path) -> Any:
    """What the call gives below this root, or which error."""
    try:
        return call(root)
    except OSError as exc:
        return errno.errorcode[exc.errno or 0]


def told(found: os.stat_result) -> tuple[object, ...]:
    """Of a stat, what must be the same everywhere."""
    kind, age = stat.S_IFMT(found.st_mode), found.st_mtime_ns
    if stat.S_ISDIR(kind):
        return kind, stat.S_IMODE(found.st_mode)
    if stat.S_ISLNK(kind):
        return kind, found.st_size
    time = age if age < LONG_AGO_NS else "written"
    return kind, stat.S_IMODE(found.st_mode), found.st_size, time, found.st_uid, found.st_gid


def tree(root: Path, folders_told: bool = True) -> dict[str, object]:
    """All that is below; without ``folders_told``, of directories the names."""
    found: dict[str, object] = {}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder, name)
            what: object = told(path.lstat())
            content: object = None
            if path.is_dir() and not path.is_symlink() and not folders_told:
                what = "a directory"
            if path.is_symlink():
                content = os.readlink(path)
            elif path.is_file():
                content = path.read_bytes()
            found[str(path.relative_to(root))] = (what, content)
    return found


class Calls(RuleBasedStateMachine):
    """Makes each call twice: in ``mounted``, and in ``plain``."""

    mounted: Path
    plain: Path
    numbers = count()

    opened = Bundle("opened")

    def __init__(self) -> None:
        super().__init__()
        name = f"run{next(self.numbers)}"
        self.roots = (self.mounted / name, self.plain / name)
        for root in self.roots:
            root.mkdir()
        self.handles: set[Pair] = set()

    def both(self, call: Callable[[Path], Any]) -> Any:
        one, other = (outcome(call, root) for root in self.roots)
        assert one == other
        return one

    @rule(path=paths, content=data)
    def write(self, path: str, content: bytes) -> None:
        self.both(lambda root: (root / path).write_bytes(content))

    @rule(path=paths, mode=st.sampled_from([0o644, 0o600, 0o755, 0o444]))
    def create(self, path: str, mode: int) -> None:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
        self.both(lambda root: os.close(os.open(root / path, flags, mode)))

    @rule(path=paths, content=data)
    def append(self, path: str, content: bytes) -> None:
        flags = os.O_WRONLY | os.O_APPEND

        def call(root: Path) -> int:
            fd = os.open(root / path, flags)
            try:
                return os.write(fd, content)
            finally:
                os.close(fd)

        self.both(call)

    @rule(path=paths, size=st.integers(0, 30_000))
    def truncate(self, path: str, size: int) -> None:
        self.both(lambda root: os.truncate(root / path, size))

    @rule(path=paths)
    def read(self, path: str) -> None:
        self.both(lambda root: (root / path).read_bytes())

    @rule(path=paths)
    def look(self, path: str) -> None:
        self.both(lambda root: told(os.lstat(root / path)))
        self.both(lambda root: told(os.stat(root / path)))

    @rule(path=paths)
    def list(self, path: str) -> None:
        self.both(lambda root: sorted(os.listdir(root / path)))

    @rule(one=paths, other=paths)
    def rename(self, one: str, other: str) -> None:
        self.both(lambda root: os.rename(root / one, root / other))

    @rule(path=paths)
    def unlink(self, path: str) -> None:
        self.both(lambda root: os.unlink(root / path))

    @rule(path=paths, mode=st.sampled_from([0o755, 0o700]))
    def mkdir(self, path: str, mode: int) -> None:
        self.both(lambda root: os.mkdir(root / path, mode))

    @rule(path=paths)
    def rmdir(self, path: str) -> None:
        self.both(lambda root: os.rmdir(root / path))

    @rule(path=paths, to=st.one_of(paths, st.just("../a"), st.just("nowhere")))
    def symlink(self, path: str, to: str) -> None:
        self.both(lambda root: os.symlink(to, root / path))

    @rule(path=paths)
    def readlink(self, path: str) -> None:
        self.both(lambda root: os.readlink(root / path))

    @rule(path=paths, mode=st.sampled_from([0o644, 0o600, 0o755, 0o777]))
    def chmod(self, path: str, mode: int) -> None:
        self.both(lambda root: os.chmod(root / path, mode))

    @rule(path=paths, owner=st.sampled_from([0, 1, 1000]))
    def chown(self, path: str, owner: int) -> None:
        if os.geteuid() == 0:
            self.both(lambda root: os.chown(root / path, owner, owner))

    @rule(path=paths, time_ns=st.integers(0, LONG_AGO_NS - 1))
    def utime(self, path: str, time_ns: int) -> None:
        self.both(lambda root: os.utime(root / path, ns=(time_ns, time_ns)))

    # Files that stay open, whatever becomes of their names

    @rule(target=opened, path=paths, make=st.booleans())
    def open(self, path: str, make: bool) -> Any:
        flags = os.O_RDWR | (os.O_CREAT if make else 0)
        fds: list[int] = []

        def call(root: Path) -> None:
            fds.append(os.open(root / path, flags, 0o644))

        if self.both(call) is not None:
            return multiple()
        pair = (fds[0], fds[1])
        self.handles.add(pair)
        return pair

    def through(self, pair: Pair, call: Callable[[int], Any]) -> None:
        if pair in self.handles:
            one, other = (call(fd) for fd in pair)
            assert one == other

    @rule(pair=opened, at=st.integers(0, 30_000), content=data)
    def write_there(self, pair: Pair, at: int, content: bytes) -> None:
        self.through(pair, lambda fd: os.pwrite(fd, content, at))

    @rule(pair=opened)
    def read_there(self, pair: Pair) -> None:
        self.through(pair, lambda fd: (os.pread(fd, 100_000, 0), os.fstat(fd).st_size))

    @rule(pair=opened, size=st.integers(0, 30_000))
    def truncate_there(self, pair: Pair, size: int) -> None:
        self.through(pair, lambda fd: os.ftruncate(fd, size))

    @rule(pair=opened)
    def sync_there(self, pair: Pair) -> None:
        self.through(pair, os.fsync)

    @rule(pair=consumes(opened))
    def close_there(self, pair: Pair) -> None:
        self.through(pair, os.close)
        self.handles.discard(pair)

    def teardown(self) -> None:
        for pair in self.handles:
            for fd in pair:
                os.close(fd)
        one, other = map(tree, self.roots)
        assert one == other


def test_calls_do_what_they_do_in_a_directory(
    store: Server, bucket: BucketFactory, mount: MountFactory, tmp_path: Path
) -> None:
    at = mount(store.url(bucket(store), "below/"))
    plain = tmp_path / "plain"
    plain.mkdir()
    machine = type("Calls", (Calls,), {"mounted": at.path, "plain": plain, "numbers": count()})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=40,
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
        ),
    )
    assert tree(at.path) == tree(plain)
    at.again()
    # Neither server keeps anything beside a directory's marker.
    assert tree(at.path, folders_told=False) == tree(plain, folders_told=False)
