"""Whatever ends a run: it ends soon, keeps what is settled, and leaves nobody behind."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from adsmig.failpoint import VARIABLE
from adsmig.ledger import state_directory
from adsmig.web.console import Console
from tests.conftest import BucketFactory
from tests.e2e.conftest import digest, make_tree, write
from tests.servers import SeaweedFS

PATIENT = ("--timeout", "600")
"""A run that waited for a silent server would still be there when the test has lost patience."""
SOON_S = 60


class Gate:
    """A TCP proxy that, once it is shut, lets nothing through any more, and closes nothing."""

    def __init__(
        self, upstream: str, keeps: Callable[[bytes], bool] = lambda request: True
    ) -> None:
        """``keeps``: whether a connection, by its first bytes, is held back when it is shut."""
        self._upstream = upstream.split(":")
        self._keeps = keeps
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._open = threading.Event()
        self._open.set()
        self.held = threading.Event()
        """Something was held back."""
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"

        self._sockets = [self._listener]
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Gate:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.open()
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for one in self._sockets:
            one.close()

    def _start(self, target: Callable[..., None], *arguments: socket.socket) -> None:
        self._threads.append(threading.Thread(target=target, args=arguments, daemon=True))
        self._threads[-1].start()

    def shut(self) -> None:
        self.held.clear()
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                host, port = self._upstream
                server = socket.create_connection((host, int(port)))
                self._sockets += client, server
                self._start(self._pass_on, client, server)
                self._start(self._pass_on, server, client)

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(64 << 10):
                if not self._open.is_set() and self._keeps(data):
                    self.held.set()
                    self._open.wait()
                other.sendall(data)
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_WR)


class Running:
    """The program, in a process group of its own."""

    def __init__(self, *arguments: object, before: tuple[str, ...] = (), **settings: str) -> None:
        """``before``: the command that starts it; ``settings``: its environment."""
        command = [*before, sys.executable, "-m", "adsmig", *map(str, arguments)]
        self.process = subprocess.Popen(
            command,
            start_new_session=True,
            env={**os.environ, **settings},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.pid = self.process.pid

    def group(self) -> list[psutil.Process]:
        """All its processes."""
        return [one for one in psutil.process_iter() if _group(one.pid) == self.pid]

    def workers(self) -> list[psutil.Process]:
        """Those that are lent slices: grandchildren, by way of the process they are forked from."""
        children = {one.pid for one in psutil.Process(self.pid).children()}
        return [one for one in self.group() if one.ppid() in children]

    def ended(self, *codes: int) -> str:
        """What it said; it has ended with one of the codes, and nobody lives on."""
        members = self.group()
        out, err = self.process.communicate(timeout=SOON_S)
        _, alive = psutil.wait_procs(members, timeout=20)
        assert all(one.status() == psutil.STATUS_ZOMBIE for one in alive)
        said = (out + err).decode()
        assert self.process.returncode in codes, said
        assert "Traceback" not in said, said
        return said


def _group(pid: int) -> int:
    with contextlib.suppress(ProcessLookupError):
        return os.getpgid(pid)
    return 0


def until(condition: Callable[[], object]) -> None:
    """Returns when it is so."""
    deadline = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < deadline, "it never came to be so"
        time.sleep(0.02)


def rows(manifest: Path, query: str) -> list[tuple[object, ...]]:
    with contextlib.suppress(sqlite3.Error):
        database = sqlite3.connect(f"file:{manifest}?mode=ro", uri=True)
        with contextlib.closing(database):
            return database.execute(query).fetchall()
    return []


def settled(manifest: Path) -> int:
    return len(rows(manifest, "SELECT key FROM objects"))


def state(manifest: Path) -> object:
    return rows(manifest, "SELECT state FROM runs ORDER BY id DESC LIMIT 1")[0][0]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    make_tree(tmp_path / "tree", 3000, most=2000)
    return tmp_path / "tree"


@pytest.fixture
def upload(tree: Path, tmp_path: Path, seaweedfs: SeaweedFS, bucket: BucketFactory) -> list[object]:
    """A command that takes its time, whatever the machine."""
    url = seaweedfs.url(bucket(seaweedfs))
    return ["cp", tree, url, "--manifest", tmp_path / "m.db", "--bwlimit", "4", "--workers", "2"]


def with_workers(running: Running, manifest: Path) -> Running:
    """Returns when there are worker processes, all of them ready, and something was settled."""

    def ready() -> bool:
        workers = running.workers()
        watched = all(one.num_threads() > 1 for one in workers)
        return bool(workers) and watched and bool(settled(manifest))

    until(ready)
    return running


# Signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_all_of_the_group_ends_a_run_in_order(
    upload: list[object], tmp_path: Path, number: int
) -> None:
    running = with_workers(Running(*upload), tmp_path / "m.db")
    os.killpg(running.pid, number)
    assert f"resume --manifest {tmp_path / 'm.db'}" in running.ended(130)
    assert state(tmp_path / "m.db") == "stopped"
    assert not (tmp_path / "m.db.shared").exists()


def test_a_signal_sent_twice_at_once_is_one(upload: list[object], tmp_path: Path) -> None:
    """As timeout(1) does, to its child and to its group."""
    running = with_workers(Running(*upload), tmp_path / "m.db")
    os.kill(running.pid, signal.SIGTERM)
    os.killpg(running.pid, signal.SIGTERM)
    running.ended(130)
    assert state(tmp_path / "m.db") == "stopped"


def test_a_second_signal_ends_at_once(
    tree: Path, tmp_path: Path, seaweedfs: SeaweedFS, bucket: BucketFactory
) -> None:
    manifest = tmp_path / "m.db"
    with Gate(seaweedfs.host) as gate:
        url = seaweedfs.url(bucket(seaweedfs)).replace(seaweedfs.host, gate.host)
        running = Running(
            "cp", tree, url, "--manifest", manifest, "--bwlimit", "4", "--workers", "2", *PATIENT
        )
        with_workers(running, manifest)
        gate.shut()
        assert gate.held.wait(SOON_S)
        running.process.send_signal(signal.SIGINT)
        assert running.process.stderr
        until(lambda: b"Ctrl-C again ends at once" in running.process.stderr.readline())  # type: ignore[union-attr]
        time.sleep(0.6)  # less is one signal
        running.process.send_signal(signal.SIGINT)
        running.ended(130)
        assert state(manifest) == "running"  # as after kill -9
        assert not (tmp_path / "m.db.shared").exists()


def test_signals_that_are_ignored_stay_so(tmp_path: Path) -> None:
    """As under nohup, or in the background of a script."""
    write_some(tmp_path / "tree")
    ignoring = ("env", "--ignore-signal=HUP", "--ignore-signal=INT")
    command = ("cp", tmp_path / "tree", tmp_path / "copy", "--manifest", tmp_path / "m.db")
    running = Running(*command, before=ignoring, **stopped_at("slice.begun", tmp_path))
    await_stop(running)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGCONT):
        os.kill(running.pid, number)
    running.ended(0)
    assert digest(tmp_path / "copy") == digest(tmp_path / "tree")


@pytest.mark.parametrize("asks", ["cancel", "pause"])
def test_a_job_in_the_background_of_a_script_is_cancelled_and_paused(
    tmp_path: Path, asks: str
) -> None:
    write_some(tmp_path / "tree")
    ignoring = ("env", "--ignore-signal=INT")
    command = ("cp", tmp_path / "tree", tmp_path / "copy")
    running = Running(*command, before=ignoring, **stopped_at("slice.begun", tmp_path))
    await_stop(running)
    (manifest,) = state_directory().glob("*.db")
    if asks == "cancel":
        canceller = Running("cancel")
        assert canceller.process.stderr
        line = canceller.process.stderr.readline()
        assert b"process %d is told to end; waiting" % running.pid in line
    else:
        Console().pause(manifest.stem)
    os.kill(running.pid, signal.SIGCONT)
    running.ended(130)
    if asks == "cancel":
        assert "cancelled run 1" in canceller.ended(0)
    assert state(manifest) == ("cancelled" if asks == "cancel" else "stopped")


def write_some(folder: Path) -> None:
    folder.mkdir()
    for number in range(20):
        write(folder / str(number), b"content")


def stopped_at(point: str, tmp_path: Path, count: int = 1) -> dict[str, str]:
    """The environment of a process that stops itself, to be continued by SIGCONT."""
    return {VARIABLE: f"{point}:{count}:stop:{tmp_path / 'hits'}"}


def await_stop(running: Running) -> None:
    until(lambda: psutil.Process(running.pid).status() == psutil.STATUS_STOPPED)


@pytest.mark.parametrize("command", ["inventory", "cp --dryrun", "verify", "rm", "sync"])
def test_a_signal_in_the_middle_of_a_listing(tmp_path: Path, command: str) -> None:
    write_some(tmp_path / "tree")
    name, *options = command.split()
    places = [tmp_path / "tree", tmp_path / "copy"]
    (tmp_path / "copy").mkdir()
    if name in ("inventory", "rm"):
        places.pop()
    if name == "rm":
        options.append("--yes")
    settings = stopped_at("slice.begun", tmp_path)
    running = Running(name, *options, *places, XDG_STATE_HOME=str(tmp_path / "state"), **settings)
    await_stop(running)
    os.kill(running.pid, signal.SIGINT)
    os.kill(running.pid, signal.SIGCONT)
    running.ended(130)


@pytest.mark.parametrize("command", ["inventory", "cp --dryrun", "verify", "rm", "cp"])
def test_a_signal_while_a_server_says_nothing_from_the_first(
    tmp_path: Path, seaweedfs: SeaweedFS, command: str
) -> None:
    name, *options = command.split()
    (tmp_path / "copy").mkdir()
    with Gate(seaweedfs.host) as gate:
        gate.shut()
        url = seaweedfs.url("bucket").replace(seaweedfs.host, gate.host)
        places = [url] if name in ("inventory", "rm") else [url, tmp_path / "copy"]
        running = Running(name, *options, *places, *PATIENT, XDG_STATE_HOME=str(tmp_path / "state"))
        assert gate.held.wait(SOON_S)
        running.process.send_signal(signal.SIGINT)
        running.ended(130)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_anything_was_begun(tmp_path: Path, number: int) -> None:
    write_some(tmp_path / "tree")
    command = ("cp", tmp_path / "tree", tmp_path / "copy", "--manifest", tmp_path / "m.db")
    running = Running(*command, **stopped_at("run.locked", tmp_path))
    await_stop(running)
    os.kill(running.pid, number)
    os.kill(running.pid, signal.SIGCONT)
    running.ended(130)


# Servers that say nothing any more


def test_ctrl_c_keeps_the_parts_that_are_done_when_a_server_stalls(
    tmp_path: Path, seaweedfs: SeaweedFS, bucket: BucketFactory
) -> None:
    tree, manifest = tmp_path / "tree", tmp_path / "m.db"
    tree.mkdir()
    with (tree / "large").open("wb") as file:
        file.truncate(80 << 20)
    write(tree / "small", b"")
    with Gate(seaweedfs.host, lambda request: b"partNumber=3" in request) as gate:
        url = seaweedfs.url(bucket(seaweedfs)).replace(seaweedfs.host, gate.host)
        command = ("cp", tree, url, "--manifest", manifest, "--threads", "5", "--workers", "1")
        gate.shut()
        running = Running(*command, *PATIENT)
        assert gate.held.wait(SOON_S)
        done = f"{manifest}.shared"
        # All but the third have gone, as the tallies tell.
        until(lambda: sent_so_far(Path(done)) >= 64 << 20)
        running.process.send_signal(signal.SIGINT)
        running.ended(130)
        assert rows(manifest, "SELECT number FROM parts ORDER BY number") == [
            (1,),
            (2,),
            (4,),
            (5,),
        ]
        gate.open()
        assert "copied 2 objects" in Running(*command).ended(0)


def sent_so_far(shared: Path) -> int:
    """The bytes that are done and not yet committed."""
    from adsmig.limits import Limits

    limits = Limits(str(shared))
    return limits.live().copied_bytes


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_answered_while_nothing_comes_from_a_server(
    tree: Path, tmp_path: Path, seaweedfs: SeaweedFS, bucket: BucketFactory, number: int
) -> None:
    manifest = tmp_path / "m.db"
    with Gate(seaweedfs.host) as gate:
        url = seaweedfs.url(bucket(seaweedfs)).replace(seaweedfs.host, gate.host)
        command = (
            "cp",
            tree,
            url,
            "--manifest",
            manifest,
            "--bwlimit",
            "4",
            "--workers",
            "2",
            *PATIENT,
        )
        running = with_workers(Running(*command), manifest)
        gate.shut()
        assert gate.held.wait(SOON_S)
        os.killpg(running.pid, number)
        assert "resume --manifest" in running.ended(130)
        assert state(manifest) == "stopped"
        assert 0 < settled(manifest) < 3000


@pytest.mark.parametrize("command", ["inventory", "cp"])
def test_ctrl_c_while_a_listing_stalls(
    tmp_path: Path, seaweedfs: SeaweedFS, bucket: BucketFactory, command: str
) -> None:
    place = bucket(seaweedfs)
    for name in ("a/1", "b/2", "c/3"):
        seaweedfs.client().put_object(Bucket=place, Key=name, Body=b"content")
    with Gate(seaweedfs.host, lambda request: b"prefix=b%2F" in request) as gate:
        gate.shut()
        url = seaweedfs.url(place).replace(seaweedfs.host, gate.host)
        places = [url] if command == "inventory" else [url, tmp_path / "copy"]
        running = Running(command, *places, *PATIENT, XDG_STATE_HOME=str(tmp_path / "state"))
        assert gate.held.wait(SOON_S)
        running.process.send_signal(signal.SIGINT)
        assert "interrupted" in running.ended(130)


def test_ctrl_c_while_workers_are_stopped(upload: list[object], tmp_path: Path) -> None:
    """As any that cannot be spoken to: in a disk's uninterruptible sleep, for one."""
    running = with_workers(Running(*upload), tmp_path / "m.db")
    for worker in running.workers():
        worker.suspend()
    running.process.send_signal(signal.SIGINT)
    assert "resume --manifest" in running.ended(130)
    assert state(tmp_path / "m.db") == "stopped"


# Who reads and who watches


def test_a_reader_that_hangs_up_ends_the_run_in_order(upload: list[object], tmp_path: Path) -> None:
    running = Running(*upload, "--json")
    assert running.process.stdout
    assert b'"progress"' in running.process.stdout.readline()
    with_workers(running, tmp_path / "m.db")
    running.process.stdout.close()
    running.process.stdout = None
    members = running.group()
    _, err = running.process.communicate(timeout=SOON_S)
    assert (running.process.returncode, err) == (141, b"")
    assert not psutil.wait_procs(members, timeout=20)[1]
    assert state(tmp_path / "m.db") == "stopped"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["cp", "jobs", "--version"])
def test_no_room_for_what_is_printed_is_told_in_one_line(
    tmp_path: Path, command: str, unbuffered: str
) -> None:
    write_some(tmp_path / "tree")
    places = [tmp_path / "tree", tmp_path / "copy", "--manifest", tmp_path / "m.db"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "adsmig", command, *map(str, places if command == "cp" else [])],
            stdout=full, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )  # fmt: skip
    assert done.returncode == 3
    assert done.stderr == "adsmig: cannot write to standard output: No space left on device\n"
    if command == "cp":
        assert state(tmp_path / "m.db") == "finished"


def test_no_room_for_json_ends_the_run_in_order(upload: list[object], tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "adsmig", *map(str, upload), "--json"],
            stdout=full, stderr=subprocess.PIPE, timeout=SOON_S,
        )  # fmt: skip
    assert done.returncode == 3
    assert done.stderr == b"adsmig: cannot write to standard output: No space left on device\n"
    assert state(tmp_path / "m.db") == "stopped"


@pytest.mark.parametrize("command", ["providers", "cp"])
def test_a_reader_that_was_never_there(tmp_path: Path, command: str) -> None:
    write_some(tmp_path / "tree")
    places = [tmp_path / "tree", tmp_path / "copy", "--manifest", tmp_path / "m.db"]
    arguments = [command, *map(str, places)] if command == "cp" else [command]
    ours, theirs = os.pipe()
    os.close(ours)
    done = subprocess.run(
        [sys.executable, "-m", "adsmig", *arguments], stdout=theirs, stderr=subprocess.PIPE
    )
    os.close(theirs)
    assert (done.returncode, done.stderr) == (141, b"")
    if command == "cp":
        assert state(tmp_path / "m.db") == "finished"


def in_terminal(*arguments: object, **settings: str) -> tuple[subprocess.Popen[bytes], int]:
    """The program in the foreground of a terminal of its own, and the terminal's other end."""
    master, slave = pty.openpty()
    command = ["setsid", "--ctty", sys.executable, "-m", "adsmig", *map(str, arguments)]
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env={**os.environ, **settings}
    )
    os.close(slave)
    return process, master


def read_all(master: int) -> str:
    """What the terminal shows until nobody has it open."""
    shown = b""
    with contextlib.suppress(OSError):  # EIO
        while data := os.read(master, 4096):
            shown += data
    return shown.decode()


def test_ctrl_c_at_a_terminal(upload: list[object], tmp_path: Path) -> None:
    process, master = in_terminal(*upload)
    until(lambda: settled(tmp_path / "m.db") > 100)
    members = psutil.Process(process.pid).children(recursive=True)
    os.write(master, b"\x03")
    shown = read_all(master)
    os.close(master)
    assert process.wait(SOON_S) == 130
    assert f"interrupted; go on with: adsmig resume --manifest {tmp_path / 'm.db'}" in shown
    assert not psutil.wait_procs(members, timeout=20)[1]
    assert state(tmp_path / "m.db") == "stopped"


def test_a_terminal_that_goes_away_ends_the_run_in_order(
    upload: list[object], tmp_path: Path
) -> None:
    process, master = in_terminal(*upload)
    until(lambda: settled(tmp_path / "m.db") > 100)
    members = psutil.Process(process.pid).children(recursive=True)
    os.close(master)
    assert process.wait(SOON_S) == 3  # for what it came to could not be printed
    assert not psutil.wait_procs(members, timeout=20)[1]
    assert state(tmp_path / "m.db") == "stopped"


def test_a_question_can_be_answered_by_ctrl_c(tmp_path: Path) -> None:
    write_some(tmp_path / "tree")
    process, master = in_terminal("rm", tmp_path / "tree", XDG_STATE_HOME=str(tmp_path / "state"))
    shown = b""
    while b"[y/N]" not in shown:
        shown += os.read(master, 4096)
    # As who has read it.  A signal between the question and the system call that reads the answer
    # is seen by Python only after that.
    time.sleep(0.5)
    os.write(master, b"\x03")
    assert "Traceback" not in read_all(master)
    os.close(master)
    assert process.wait(SOON_S) == 130
    assert len(list((tmp_path / "tree").iterdir())) == 20


# The parent dies


def kill_parent(running: Running, *, then: signal.Signals | None = None) -> None:
    """SIGKILL for it alone, perhaps a signal for the others; returns when all are gone."""
    members = running.group()
    assert len(members) > 3
    running.process.kill()
    if then:
        running.process.wait()
        os.killpg(running.pid, then)
    running.process.communicate(timeout=SOON_S)
    assert not psutil.wait_procs(members, timeout=30)[1]


@pytest.mark.parametrize("stalled", [False, True], ids=["flowing", "stalled"])
def test_workers_in_a_large_object_do_not_outlive_their_parent(
    tmp_path: Path, seaweedfs: SeaweedFS, bucket: BucketFactory, stalled: bool
) -> None:
    tree, manifest = tmp_path / "tree", tmp_path / "m.db"
    tree.mkdir()
    with (tree / "large").open("wb") as file:
        file.truncate(400 << 20)
    with Gate(seaweedfs.host) as gate:
        url = seaweedfs.url(bucket(seaweedfs)).replace(seaweedfs.host, gate.host)
        command = ("cp", tree, url, "--manifest", manifest, "--bwlimit", "200", *PATIENT)
        running = Running(*command, "--workers", "2")
        until(lambda: running.workers() and rows(manifest, "SELECT key FROM parts"))
        if stalled:
            gate.shut()
            assert gate.held.wait(SOON_S)
        kill_parent(running)


def test_stopped_workers_do_not_outlive_their_parent(upload: list[object], tmp_path: Path) -> None:
    running = with_workers(Running(*upload), tmp_path / "m.db")
    for worker in running.workers():
        worker.suspend()
    kill_parent(running)


def test_a_stopped_group_does_not_outlive_its_parent(upload: list[object], tmp_path: Path) -> None:
    running = with_workers(Running(*upload), tmp_path / "m.db")
    os.killpg(running.pid, signal.SIGSTOP)
    kill_parent(running, then=signal.SIGCONT)


def test_a_run_that_was_stopped_and_continued_goes_on(tree: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "m.db"
    command = (
        "cp",
        tree,
        tmp_path / "copy",
        "--manifest",
        manifest,
        "--bwlimit",
        "8",
        "--workers",
        "2",
    )
    running = with_workers(Running(*command), manifest)
    os.killpg(running.pid, signal.SIGSTOP)
    await_stop(running)
    os.killpg(running.pid, signal.SIGCONT)
    assert "copied 3,000 objects" in running.ended(0)
    assert digest(tmp_path / "copy") == digest(tree)


# One coordinator


def test_a_manifest_held_by_a_stopped_process_is_held(tmp_path: Path) -> None:
    write_some(tmp_path / "tree")
    command = ("cp", tmp_path / "tree", tmp_path / "copy", "--manifest", tmp_path / "m.db")
    first = Running(*command, **stopped_at("slice.begun", tmp_path))
    await_stop(first)
    assert f"in use by process {first.pid} on" in Running(*command).ended(3)
    os.kill(first.pid, signal.SIGCONT)
    first.ended(0)
    assert "0 unchanged" in Running(*command).ended(0)


def test_a_manifest_whose_holder_was_killed_is_free(tmp_path: Path) -> None:
    write_some(tmp_path / "tree")
    command = ("cp", tmp_path / "tree", tmp_path / "copy", "--manifest", tmp_path / "m.db")
    first = Running(*command, **stopped_at("slice.begun", tmp_path))
    await_stop(first)
    first.process.kill()
    first.ended(-signal.SIGKILL)
    assert f"process {first.pid} " in (tmp_path / "m.db.lock").read_text()
    Running(*command).ended(0)
    assert rows(tmp_path / "m.db", "SELECT id, state FROM runs") == [(1, "finished")]


@pytest.fixture(autouse=True)
def _nobody_left() -> Iterator[None]:
    """A test that failed leaves nobody behind either."""
    before = {one.pid for one in psutil.Process().children(recursive=True)}
    yield
    for one in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # nor those that nobody has waited for
            if one.pid not in before and "adsmig" in " ".join(one.cmdline()):
                one.kill()
