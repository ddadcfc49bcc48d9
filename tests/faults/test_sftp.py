"""SFTP connections that are cut, servers without extensions, and runs that are killed."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from adsmig.location import parse
from adsmig.model import Meta
from adsmig.storage import open_storage
from adsmig.storage.sftppacket import FSYNC, POSIX_RENAME
from tests.e2e.conftest import Adsmig, adsmig, digest, make_tree
from tests.faults.test_kill import finish, kill_all, start
from tests.servers import Sshd, free_ports
from tests.storage.support import Options, content_of, keys_of, put

__all__ = ["adsmig"]


class Cutter:
    """A way to a server that ends each connection after so many bytes, ``cuts`` times in all."""

    def __init__(self, target: tuple[str, int], after: int, cuts: int) -> None:
        self._target, self._after, self.left = target, after, cuts
        self._lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                here, _ = self.listener.accept()
            except OSError:
                return
            there = socket.create_connection(self._target)
            passed = [0]
            for one, other in ((here, there), (there, here)):
                threading.Thread(target=self._pump, args=(one, other, passed), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, passed: list[int]) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                passed[0] += len(data)
                with self._lock:
                    cut = self.left > 0 and passed[0] > self._after
                    self.left -= cut
                if cut:
                    break
                sink.sendall(data)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@pytest.fixture
def cutter(sshd: Sshd) -> Iterator[Cutter]:
    """Cuts six connections, each in the middle of some transfer."""
    sshd.trust(home := Path(os.environ["HOME"]))
    cutter = Cutter((sshd.host_name, sshd.port), 5_000_000, 6)
    known = home / ".ssh" / "known_hosts"
    known.write_text(known.read_text().replace(str(sshd.port), str(cutter.port)))
    yield cutter
    cutter.listener.close()


@pytest.mark.parametrize("back", [False, True], ids=["to the server", "from the server"])
def test_connections_cut_in_mid_transfer_are_made_again(
    cutter: Cutter, adsmig: Adsmig, tmp_path: Path, back: bool
) -> None:
    tree, copy = tmp_path / "tree", tmp_path / "copy"
    make_tree(tree, 400, most=60_000)
    (tree / "large.bin").write_bytes(os.urandom(100_000_000))
    (tree / "middling.bin").write_bytes(os.urandom(20_000_000))
    os.utime(tree / "large.bin", (1e9, 1e9))
    os.utime(tree / "middling.bin", (1e9, 1e9))
    url = f"sftp://root@127.0.0.1:{cutter.port}"
    places = (f"{url}{tree}/", copy) if back else (f"{tree}/", f"{url}{copy}")
    adsmig("cp", *places)
    assert cutter.left == 0
    assert digest(copy) == digest(tree)


@pytest.mark.parametrize("back", [False, True], ids=["to the server", "from the server"])
def test_a_run_that_is_killed_goes_on(
    sshd: Sshd, adsmig: Adsmig, tmp_path: Path, back: bool
) -> None:
    sshd.trust(Path(os.environ["HOME"]))
    tree, copy = tmp_path / "tree", tmp_path / "copy"
    make_tree(tree, 600, most=20_000)
    (tree / "large.bin").write_bytes(os.urandom(100_000_000))
    os.utime(tree / "large.bin", (1e9, 1e9))
    places = (sshd.address(tree) + "/", copy) if back else (f"{tree}/", sshd.address(copy))
    command = ("cp", *places, "--manifest", tmp_path / "m.db", "--bwlimit", "200")
    for pause in (1.5, 2.0):
        process = start(*command)
        try:
            process.wait(pause)
            pytest.fail("it came to its end before it was killed")
        except subprocess.TimeoutExpired:
            kill_all(process)
    assert "601 found" in finish(*command)
    assert digest(copy) == digest(tree)
    runs = [path.name for path in copy.iterdir() if path.name.startswith(".adsmig-")]
    assert runs == []


def test_a_server_that_goes_away_ends_the_run_and_it_resumes(
    adsmig: Adsmig, tmp_path: Path
) -> None:
    with Sshd(tmp_path / "sshd") as server:
        server.trust(Path(os.environ["HOME"]))
        tree, copy = tmp_path / "tree", tmp_path / "copy"
        make_tree(tree, 500, most=30_000)
        command = ("cp", f"{tree}/", server.address(copy), "--manifest", tmp_path / "m.db")
        process = start(*command, "--bwlimit", "40", "--timeout", "5")
        time.sleep(1.5)
        server.kill()
        server.restart()
        _, errors = process.communicate(timeout=120)
        if process.returncode:
            assert process.returncode == 3, errors
            adsmig("resume", "--manifest", tmp_path / "m.db")
        assert digest(copy) == digest(tree)


@pytest.mark.parametrize("lacking", [(POSIX_RENAME,), (FSYNC,), (POSIX_RENAME, FSYNC)])
def test_a_server_without_extensions(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: tuple[bytes, ...]
) -> None:
    sshd.trust(Path(os.environ["HOME"]))
    storage = open_storage(parse(sshd.address(tmp_path / "there") + "/"), Options(), True)
    storage.prepare()
    wire = storage._wire()  # type: ignore[attr-defined]
    for name in lacking:
        del wire.extensions[name]
    put(storage, b"d/a", b"first", Meta(mtime_ns=10**18))
    put(storage, b"d/a", b"second", Meta(mtime_ns=10**18))
    storage.sync()
    assert content_of(storage, b"d/a") == b"second"
    assert keys_of(storage) == [b"d/a"]
    storage.tidy()
    storage.close()


def test_nobody_answers_any_more(sshd: Sshd, adsmig: Adsmig, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with socket.create_server(("127.0.0.1", port)):  # which greets nobody
        done = adsmig(
            "cp", f"sftp://root@127.0.0.1:{port}/x", tmp_path, "--conn-timeout", "0.5", code=3
        )
    assert f"no session with 127.0.0.1:{port}" in done.stderr
