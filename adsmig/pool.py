"""Worker processes: clean ones, deaf to signals, that do not outlive their parent."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import wait as wait_for
from multiprocessing.context import BaseContext, ForkServerContext, ForkServerProcess
from multiprocessing.process import BaseProcess
from typing import Any

from adsmig import log
from adsmig.interruption import SIGNALS

_server: Any = forkserver._forkserver
"""Python's own client of the process that workers are forked from."""
_tracker: Any = resource_tracker._resource_tracker
"""And of the one that removes the semaphores of processes that were killed."""
PATIENCE_S = 5.0
"""How long idle processes have to end by themselves."""


def processes(count: int) -> ProcessPoolExecutor:
    """A pool of ``count`` processes; the caller shuts it down."""
    return ProcessPoolExecutor(
        count,
        mp_context=_clean_processes(),
        initializer=_begin_worker,
        initargs=log.settings,
    )


@contextlib.contextmanager
def prepared() -> Iterator[None]:
    """Forks the processes that a pool needs beside its workers, off this one as it is now: a matter
    of some milliseconds, where to start them anew takes a third of a second.  Ends at last the one
    that workers are forked from; the other ends with this process.

    Does nothing where there are threads already, as with SFTP's from the login on, within another
    such context, or where it cannot be done; then the first pool starts such processes.
    """
    made: tuple[int, int] | None = None
    if not _server._forkserver_pid and _may_fork():
        with contextlib.suppress(OSError):  # no room for a socket, or for another process
            if _tracker._fd is None:
                _fork_tracker()
            made = _fork_server()
    try:
        yield
    finally:
        if made:
            _end_server(*made)


def _may_fork() -> bool:
    """Whether a copy of this process would be whole: a fork takes along no thread but its own.

    And whether whoever connects needs no key yet, as from Python 3.14 on.
    """
    if sys.platform != "linux" or hasattr(_server, "_forkserver_authkey"):
        return False
    try:
        return len(os.listdir("/proc/self/task")) == 1
    except OSError:
        return False


def _fork_server() -> tuple[int, int]:
    """Does what ForkServer.ensure_running does, but for the new interpreter; the process's id, and
    a descriptor by which it is reached, which the caller closes.  Raises OSError.
    """
    with contextlib.ExitStack() as stack, socket.socket(socket.AF_UNIX) as listener:
        with tempfile.TemporaryDirectory(prefix="adsmig-") as directory:  # which is ours alone
            path = os.path.join(directory, "socket")
            listener.bind(path)
            listener.listen()
            address = os.open(path, os.O_PATH | os.O_CLOEXEC)
        stack.callback(os.close, address)
        alive_r, alive_w = os.pipe()
        stack.callback(os.close, alive_w)
        try:
            pid = _fork(_serve, listener.fileno(), alive_r)
        finally:
            os.close(alive_r)
        stack.pop_all()
    # A socket that has no name any more is not in the way of anybody, whatever ends this process.
    _server._forkserver_address = f"/proc/self/fd/{address}"
    _server._forkserver_alive_fd = alive_w
    _server._forkserver_pid = pid
    return pid, address


def _fork_tracker() -> None:
    """Does what ResourceTracker.ensure_running does, but for the new interpreter.  Raises OSError.

    It ends once nobody can tell it anything any more.
    """
    told, tell = os.pipe()
    try:
        pid = _fork(_track, told)
    except BaseException:
        os.close(tell)
        raise
    finally:
        os.close(told)
    _tracker._fd, _tracker._pid = tell, pid


def _fork(work: Callable[..., object], *descriptors: int) -> int:
    """Has a copy of this process do the work and end, which keeps these files open, no others but
    the standard streams; its id.  Raises OSError.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):  # who closed it has none
            stream.flush()
    gc.freeze()  # where nothing is looked at, memory stays shared
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        pid = os.fork()
        if not pid:
            try:
                _let_go({0, 1, 2, *descriptors})
                work(*descriptors)
            finally:
                os._exit(0)
        return pid
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_server(pid: int, address: int) -> None:
    os.close(address)
    if _server._forkserver_pid != pid:
        return  # it died, and another took its place
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGKILL)  # and the kernel those that are tied to it
        os.waitpid(pid, 0)  # of which nobody knows where SIGCHLD is ignored
    os.close(_server._forkserver_alive_fd)
    _server._forkserver_address = _server._forkserver_alive_fd = None
    _server._forkserver_pid = None


def _serve(listener: int, alive: int) -> None:
    """What the one process does: it forks whom it is asked for, until the other is gone."""
    from adsmig import tied  # not before: to import it is to be tied

    tied.tie()
    forkserver.main(listener, alive, [])


def _track(told: int) -> None:
    """What the other does.  It need not complain when all of us were killed, but even one that was
    stopped has its work to do then.
    """
    from adsmig import tied

    tied.tie(signal.SIGCONT)
    warnings.simplefilter("ignore")
    resource_tracker.main(told)


def _let_go(kept: set[int]) -> None:
    """Closes all files but those, locks and connections of the other process's among them.

    Their numbers stay taken: here, too, there are objects that would close them, whatever they are
    by then.
    """
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for number in map(int, os.listdir("/proc/self/fd")):
        if number not in kept and number != nothing:
            with contextlib.suppress(OSError):  # of the listing itself
                os.fstat(number)
                os.dup2(nothing, number, inheritable=False)


def kill(pool: Executor) -> None:
    """Ends a broken pool's processes, which ignore the SIGTERM that Python would send."""
    for process in _members(pool):
        process.kill()


def close(pool: Executor) -> None:
    """Ends a pool that has nothing to do.

    Were one of its processes killed, Python would send SIGTERM to the others, and wait for ever for
    them to end.
    """
    members = _members(pool)
    pool.shutdown(wait=not members, cancel_futures=True)
    until = time.monotonic() + PATIENCE_S
    for process in members:
        if not wait_for([process.sentinel], max(until - time.monotonic(), 0)):
            process.kill()


def _members(pool: Executor) -> list[BaseProcess]:
    return list((getattr(pool, "_processes", None) or {}).values())


class _Worker(ForkServerProcess):
    """Ends in silence when the pool's pipes are gone: whoever closed them knows why."""

    def run(self) -> None:
        """See BaseProcess.run."""
        with contextlib.suppress(EOFError, ConnectionError):
            super().run()


class _Context(ForkServerContext):
    Process = _Worker


def _clean_processes() -> BaseContext:
    """Forks workers from a process without threads or open files, as this one is not: the copy that
    was prepared, or else a small one that is started now.

    They and that process have the signals that ask for the end blocked, from before their first
    instruction: one to the whole group is for this one to answer.  Nor need the one that counts
    semaphores complain when all of us were killed.  Nothing is imported from the current directory,
    as ``python -c``, by which that and a small one are started, would: it may be full of other
    people's files.
    """
    context = _Context()
    modules = ["adsmig.worker", "adsmig.storage.s3", "adsmig.storage.local"]
    if "adsmig.storage.sftp" in sys.modules:  # costs more than the others together
        modules.append("adsmig.storage.sftp")
    if threading.current_thread() is threading.main_thread():  # which ends with the process
        modules.append("adsmig.tied")
    context.set_forkserver_preload(modules)
    silent = "ignore:resource_tracker"
    if silent not in (given := os.environ.get("PYTHONWARNINGS", "")):
        os.environ["PYTHONWARNINGS"] = f"{given},{silent}".lstrip(",")
    # Unknown to Python 3.10, where only what workers import later is safe; see _begin_worker.
    safe = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # starting that unblocked two of them
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if safe is None:  # others whom we start may want to import from where they are
            del os.environ["PYTHONSAFEPATH"]
    return context


def _begin_worker(level: int, log_file: str | None) -> None:
    """Readies a worker process, so that it does not outlive its parent."""
    from adsmig.tied import tie  # not before: to import it is to be tied

    tie()  # to the process that it was forked from, which is tied to the parent
    sys.path[:] = filter(None, sys.path)
    log.begin_log(level, log_file, told=True)
    # What a slice gathers is dropped whole at its end: to look for cycles in it is a waste.
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def leave() -> None:
        wait_for([parent.sentinel])
        os._exit(1)

    threading.Thread(target=leave, name="parent watch", daemon=True).start()
