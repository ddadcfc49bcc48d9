"""Worker processes: clean ones, deaf to signals, that do not outlive their parent."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import threading
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import wait as wait_for
from multiprocessing.context import BaseContext

from adsmig import log


def processes(count: int) -> ProcessPoolExecutor:
    """A pool of ``count`` processes; the caller shuts it down."""
    return ProcessPoolExecutor(
        count,
        mp_context=_clean_processes(),
        initializer=_begin_worker,
        initargs=log.settings,
    )


def kill(pool: Executor) -> None:
    """Ends a broken pool's processes, which ignore the SIGTERM that Python 3.12 would send."""
    for process in list((getattr(pool, "_processes", None) or {}).values()):
        process.kill()


def _clean_processes() -> BaseContext:
    """Forks workers from a small process without threads or open files, as this one is not.

    They and that process have SIGINT and SIGTERM blocked, from before their first instruction: a
    signal to the whole group is for this one to answer.  Nor need the one that counts semaphores
    complain when all of us were killed.  Nothing is imported from the current directory, as
    ``python -c``, by which both are started, would: it may be full of other people's files.
    """
    context = multiprocessing.get_context("forkserver")
    modules = ["adsmig.worker", "adsmig.storage.s3", "adsmig.storage.local"]
    if "adsmig.storage.sftp" in sys.modules:  # costs more than the others together
        modules.append("adsmig.storage.sftp")
    context.set_forkserver_preload(modules)
    silent = "ignore:resource_tracker"
    if silent not in (given := os.environ.get("PYTHONWARNINGS", "")):
        os.environ["PYTHONWARNINGS"] = f"{given},{silent}".lstrip(",")
    # Unknown to Python 3.10, where only what workers import later is safe; see _begin_worker.
    os.environ["PYTHONSAFEPATH"] = "1"
    resource_tracker.ensure_running()  # first, for starting it unblocks both signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


def _begin_worker(level: int, log_file: str | None) -> None:
    """Readies a worker process, so that it does not outlive its parent."""
    sys.path[:] = filter(None, sys.path)
    log.begin_log(level, log_file)
    # What a slice gathers is dropped whole at its end: to look for cycles in it is a waste.
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def leave() -> None:
        wait_for([parent.sentinel])
        os._exit(1)

    threading.Thread(target=leave, name="parent watch", daemon=True).start()
