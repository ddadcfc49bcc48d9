"""SFTP connections that are cut, servers without extensions, and runs that are killed."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from adsmig.errors import AdsmigError, ObjectError, TransientError
from adsmig.model import EVERYTHING, Meta
from adsmig.storage import open_storage, sshchannel
from adsmig.storage.base import Stored
from adsmig.storage.several import Whole
from adsmig.storage.sftp import SftpStorage
from adsmig.storage.sftpfinisher import Finisher
from adsmig.storage.sftppacket import (
    FSETSTAT,
    FSYNC,
    POSIX_RENAME,
    REMOVE,
    RENAME,
    SETSTAT,
    attributes,
    text,
)
from adsmig.storage.sftpwire import SftpWire
from adsmig.uri import parse
from tests.e2e.conftest import Adsmig, adsmig, digest, make_tree
from tests.faults.test_kill import finish, kill_all, start
from tests.servers import Sshd, free_ports
from tests.storage.support import Options, content_of, keys_of, put

__all__ = ["adsmig"]


class Cutter:
    """A way to a server that ends each connection after so many bytes, ``cuts`` times in all; or
    ``flips`` a bit there.
    """

    def __init__(self, target: tuple[str, int], after: int, cuts: int, flips: bool = False) -> None:
        self._target, self._after, self.left, self._flips = target, after, cuts, flips
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
                if cut and self._flips:
                    passed[0] = 0
                    data = data[:-1] + bytes((data[-1] ^ 4,))
                elif cut:
                    break
                sink.sendall(data)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@pytest.fixture(params=[False, True], ids=["cut", "altered"])
def cutter(sshd: Sshd, request: pytest.FixtureRequest) -> Iterator[Cutter]:
    """Cuts six connections, each in the middle of some transfer; or alters a byte."""
    sshd.trust(home := Path(os.environ["HOME"]))
    cutter = Cutter((sshd.host_name, sshd.port), 5_000_000, 6, request.param)
    known = home / ".ssh" / "known_hosts"
    known.write_text(known.read_text().replace(str(sshd.port), str(cutter.port)))
    yield cutter
    cutter.listener.close()


@pytest.mark.parametrize("back", [False, True], ids=["to the server", "from the server"])
def test_connections_broken_in_mid_transfer_are_made_again(
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


def test_what_cannot_be_replaced_at_a_server_without_extensions_stays(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sshd.trust(Path(os.environ["HOME"]))
    storage = open_storage(parse(sshd.address(tmp_path / "there") + "/"), Options(), True)
    storage.prepare()
    put(storage, b"a", b"first")
    wire = storage._wire()  # type: ignore[attr-defined]
    wire.extensions.clear()
    ask = SftpWire.ask

    def refusing(wire: SftpWire, kind: int, *parts: bytes) -> bytes:
        if kind == RENAME and parts[1].endswith(b"there/a") and b".old" not in parts[0]:
            raise OSError(errno.EREMOTEIO, "the server says: Failure")  # as across file systems
        return ask(wire, kind, *parts)

    monkeypatch.setattr(SftpWire, "ask", refusing)
    with pytest.raises(ObjectError):
        put(storage, b"a", b"second")
    assert content_of(storage, b"a") == b"first"
    assert keys_of(storage) == [b"a"]
    storage.tidy()
    storage.close()
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["a"]


def test_nobody_answers_any_more(sshd: Sshd, adsmig: Adsmig, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with socket.create_server(("127.0.0.1", port)):  # which greets nobody
        done = adsmig(
            "cp", f"sftp://root@127.0.0.1:{port}/x", tmp_path, "--conn-timeout", "0.5", code=3
        )
    assert f"no session with 127.0.0.1:{port}" in done.stderr


@contextlib.contextmanager
def storage_at(server: Sshd, path: Path) -> Iterator[SftpStorage]:
    """A destination there."""
    server.trust(Path(os.environ["HOME"]))
    storage = SftpStorage(parse(server.address(path) + "/"), Options(), True)
    storage.prepare()
    yield storage
    storage.tidy()
    storage.close()


def test_a_server_that_wants_new_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = []

    class Cipher(sshchannel._Cipher):
        def __init__(self, engine: object, nonce: bytes) -> None:
            super().__init__(engine, nonce)
            keys.append(engine)

    monkeypatch.setattr(sshchannel, "_Cipher", Cipher)
    content = os.urandom(20_000_000)
    with (
        Sshd(tmp_path / "sshd", RekeyLimit="1M") as server,
        storage_at(server, tmp_path / "there") as storage,
    ):
        wire = storage._wire()
        put(storage, b"a", content, size=1 << 20)
        assert content_of(storage, b"a") == content
        assert storage._wire() is wire
    assert len(keys) > 40


def test_a_server_that_looks_after_who_is_idle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sshchannel, "_IDLE_S", 0.2)
    settings = {"ClientAliveInterval": "1", "ClientAliveCountMax": "2", "RekeyLimit": "1M"}
    with (
        Sshd(tmp_path / "sshd", **settings) as server,
        storage_at(server, tmp_path / "there") as storage,
    ):
        wire = storage._wire()
        put(storage, b"a", b"before", size=1 << 20)
        time.sleep(6)
        put(storage, b"b", os.urandom(3_000_000))
        assert content_of(storage, b"a") == b"before"
        assert storage._wire() is wire


@pytest.mark.skipif(os.geteuid() != 0, reason="it takes root to be a root who may not do all")
@pytest.mark.parametrize("together", [True, False])
def test_a_directory_that_may_be_read_but_not_searched_is_not_empty(
    tmp_path: Path, together: bool
) -> None:
    """OpenSSH leaves out what it cannot look at: there, all that there is, even ``.``."""
    program = "/usr/lib/openssh/sftp-server"
    if not os.path.exists(program):
        pytest.skip(f"no {program}")
    limited = f"sftp setpriv --bounding-set -dac_override,-dac_read_search {program}"
    tree = tmp_path / "there"
    for name in ("a", "empty", "secret", "z"):
        (tree / name).mkdir(parents=True)
        (tree / name / "file").touch()
    (tree / "empty" / "file").unlink()
    (tree / "secret").chmod(0o400)
    with Sshd(tmp_path / "sshd", Subsystem=limited) as server, storage_at(server, tree) as storage:
        if not together:
            storage._files.ahead = 0
        found = {one.key: one.problem for one in storage.list(EVERYTHING)}
        assert list(found) == [b"a/", b"a/file", b"empty/", b"secret/", b"z/", b"z/file"]
        assert "cannot be listed: Permission denied" in found.pop(b"secret/")
        assert not any(found.values())
        alone = SftpStorage(parse(server.address(tree / "secret") + "/"), Options(), True)
        with pytest.raises(AdsmigError, match="Permission denied"):
            list(alone.list(EVERYTHING))
        alone.close()


@pytest.mark.parametrize("fsync", [True, False])
@pytest.mark.parametrize("refused", ["setstat,fsetstat", ""])
def test_what_a_server_gives_no_times_is_there_without(
    tmp_path: Path,
    fsync: bool,
    refused: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Some refuse to, and some say that they did."""
    limited = f"sftp internal-sftp{refused and f' -P {refused}'}"
    send, began = SftpWire.send, time.time()

    def sending(wire: SftpWire, kind: int, *parts: bytes | memoryview) -> int:
        if kind in (SETSTAT, FSETSTAT) and not refused and parts[1][3] & 8:
            mode = int.from_bytes(parts[1][4:8], "big") if parts[1][3] & 4 else None
            parts = parts[0], attributes(mode)
        return send(wire, kind, *parts)

    monkeypatch.setattr(SftpWire, "send", sending)
    tree, meta = tmp_path / "there", Meta(10**18, 0o640)
    with Sshd(tmp_path / "sshd", Subsystem=limited) as server, storage_at(server, tree) as storage:
        if not fsync:
            storage._wire().extensions.pop(FSYNC)
        for number in range(2):
            put(storage, b"d/%d" % number, b"content", meta)
        storage.set_directory_meta(b"d/", meta)
        if fsync:
            whole = [Whole(b"batched", b"content", meta)]
            assert storage.write_batch(whole) == [Stored(size=7)]
        storage.tidy()
        mode = stat.S_IMODE((tree / "d" / "1").stat().st_mode)
    there = [path for path in tree.rglob("*") if path.is_file()]
    assert len(there) == 2 + fsync
    for path in there:
        assert path.read_bytes() == b"content"
        assert path.stat().st_mtime >= began - 1
    assert not (tree / ".adsmig").exists()
    assert refused or mode == 0o640
    said = [one.message for one in caplog.records if "keeps no times" in one.message]
    assert len(said) == 1


def test_what_several_threads_find_out_of_a_server_is_tried_and_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trying, tries = Finisher._try_times, list[SftpWire]()

    def slowly(finisher: Finisher, wire: SftpWire) -> bool:
        tries.append(wire)
        time.sleep(0.3)
        return trying(finisher, wire)

    monkeypatch.setattr(Finisher, "_try_times", slowly)
    limited = "sftp internal-sftp -P setstat,fsetstat"
    with (
        Sshd(tmp_path / "sshd", Subsystem=limited) as server,
        storage_at(server, tmp_path / "there") as storage,
    ):
        ready = threading.Barrier(4)

        def write(key: bytes) -> None:
            storage._wire()
            ready.wait()
            put(storage, key, b"content", Meta(10**18))
            storage.close()

        threads = [threading.Thread(target=write, args=(b"%d" % at,)) for at in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(keys_of(storage)) == 4
    assert len(tries) == 1
    assert len([one for one in caplog.records if "keeps no times" in one.message]) == 1


def test_a_server_is_not_said_to_keep_no_times_as_what_that_is_tried_with_is_removed(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send, removed = SftpWire.send, list[bytes]()

    def sending(wire: SftpWire, kind: int, *parts: bytes | memoryview) -> int:
        if kind == FSETSTAT:
            parts = parts[0], attributes(0o600)
        elif kind == SETSTAT and not removed and b"/times." in (path := bytes(parts[0])):
            removed.append(path)
            wire.forget(send(wire, REMOVE, path))
        return send(wire, kind, *parts)

    monkeypatch.setattr(SftpWire, "send", sending)
    with storage_at(sshd, tmp_path / "there") as storage:
        with pytest.raises(TransientError, match="removed meanwhile"):
            put(storage, b"a", b"content", Meta(10**18))
        put(storage, b"a", b"content", Meta(10**18))
        assert storage.stat(b"a").mtime_ns == 10**18
    assert removed


def test_what_a_server_without_times_is_warned_of_names_options_that_miss_nothing(
    adsmig: Adsmig, tmp_path: Path
) -> None:
    tree, copy = tmp_path / "tree", tmp_path / "copy"
    tree.mkdir()

    def replace(content: bytes, seconds: float) -> None:
        (tree / "file").write_bytes(content)
        os.utime(tree / "file", (seconds, seconds))

    limited = "sftp internal-sftp -P setstat,fsetstat"
    with Sshd(tmp_path / "sshd", Subsystem=limited) as server:
        server.trust(Path(os.environ["HOME"]))
        places = f"{tree}/", server.address(copy) + "/"
        replace(b"first", 1e9)
        (said,) = re.findall(r"keeps no times of files: .*", adsmig("cp", *places).stderr)
        for at, option in enumerate(options := re.findall(r"--[a-z-]+(?: manifest)?", said)):
            replace(b"%05d" % at, 1.1e9 + at)
            adsmig("sync", *places, *option.split())
            assert (copy / "file").read_bytes() == b"%05d" % at
        assert len(options) == 2


def test_a_directory_of_somebody_else_is_an_error_also_where_times_are_given(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send, directory = SftpWire.send, text(os.fsencode(tmp_path / "there" / "d"))

    def sending(wire: SftpWire, kind: int, *parts: bytes | memoryview) -> int:
        if kind == SETSTAT and parts[0] == directory:
            return send(wire, FSETSTAT, text(b"no handle"), attributes(0o600))  # refused
        return send(wire, kind, *parts)

    with storage_at(sshd, tmp_path / "there") as storage:
        put(storage, b"f", b"content")
        put(storage, b"d/f", b"content")
        monkeypatch.setattr(SftpWire, "send", sending)
        with pytest.raises(ObjectError, match="when it was given its time"):
            storage.set_directory_meta(b"d/", Meta(10**18))


def test_a_server_without_aes_gcm(tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    with (
        Sshd(tmp_path / "sshd", Ciphers="aes256-ctr") as server,
        storage_at(server, tmp_path / "there") as storage,
    ):
        put(storage, b"a", content)
        assert content_of(storage, b"a") == content
        assert not isinstance(storage._wire()._channel, sshchannel.DirectChannel)


def test_a_worn_connection_is_left(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sshchannel, "MOST_BYTES", 1_000_000)
    with storage_at(sshd, tmp_path / "there") as storage:
        wire = storage._wire()
        put(storage, b"a", b"little")
        assert storage._wire() is wire
        put(storage, b"b", os.urandom(2_000_000))
        assert storage._wire() is not wire
        assert content_of(storage, b"a") == b"little"


def test_a_server_that_leaves_who_is_idle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What finds out is not the thread that uses the connection, which must not wait for ever."""
    monkeypatch.setattr(sshchannel, "_IDLE_S", 0.2)
    with (
        Sshd(tmp_path / "sshd") as server,
        storage_at(server, tmp_path / "there") as storage,
    ):
        put(storage, b"a", b"before")
        assert server.pid
        for session in psutil.Process(server.pid).children(recursive=True):
            session.kill()
        time.sleep(1)
        with pytest.raises(TransientError, match="was lost"):
            storage._wire().lstat(b"/")
        assert content_of(storage, b"a") == b"before"
