"""The process behind a mounted directory: how it begins, what it leaves word of, how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adsmig.errors import AdsmigError, UsageError
from adsmig.job import Job
from adsmig.limits import Limits
from adsmig.log import begin_log
from adsmig.mount import channel
from adsmig.mount.blocks import BLOCK, Blocks
from adsmig.mount.changes import Changes
from adsmig.mount.channel import Channel
from adsmig.mount.files import Files
from adsmig.mount.filesystem import Filesystem
from adsmig.mount.mountpoint import read_far_ahead
from adsmig.mount.nodes import FRESH_S, Defaults, Nodes
from adsmig.mount.places import drafts_in, has_unsaved, hold, places
from adsmig.mount.reader import Reader
from adsmig.mount.recovery import recover
from adsmig.mount.saver import Saver
from adsmig.mount.store import Store
from adsmig.mount.tree import Tree
from adsmig.mount.word import ENDED, MOUNTED, STARTING, Word
from adsmig.storage.s3 import S3Storage

log = logging.getLogger(__name__)

CACHE_SIZE = 10 << 30
LEAST_CACHE_SIZE = BLOCK
"""Less would not keep a single block."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""malloc.h."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be mounted where."""

    job: Job
    """Its source, and how to reach it."""
    directory: str
    """Absolute."""
    read_only: bool
    allow_other: bool
    cache: Path
    cache_size: int
    server_times: bool = False
    """Nobody asks for the times, modes and owners that are kept with objects."""


def mount(plan: Plan, foreground: bool, level: int) -> list[str]:
    """Mounts, and returns when the directory answers, or with ``foreground`` when it is unmounted;
    what there is to tell.  ``level`` is of the log.  Raises AdsmigError.
    """
    word = Word(plan.directory)
    held = word.hold()
    if held is None:
        raise UsageError(f"{plan.directory} is mounted already: adsmig umount {plan.directory}")
    word.leave(state=STARTING)
    if foreground:
        return _serve(plan, word, lambda lines: print("\n".join(["mounted", *lines]), flush=True))
    reading, writing = os.pipe()
    if child := os.fork():
        os.close(writing)
        os.close(held)
        with open(reading, encoding="utf-8") as pipe:
            said = pipe.read()
        if not said:
            raise AdsmigError(f"the mount ended before it began; see {word.log}")
        facts = json.loads(said)
        if "error" in facts:
            os.waitpid(child, 0)  # then nothing is held any more
            raise (UsageError if facts["code"] == 2 else AdsmigError)(facts["error"])
        lines: list[str] = facts["lines"]
        return lines
    code = 3
    try:
        os.close(reading)
        _become_daemon(word, level)
        _serve(plan, word, lambda lines: _tell(writing, lines=lines))
        code = 0
    except AdsmigError as exc:
        log.error("%s", exc)
        _tell(writing, error=str(exc), code=exc.exit_code)
    except BaseException:
        log.exception("internal error")
        _tell(writing, error=f"internal error; see {word.log}", code=3)
    finally:
        os._exit(code)


def _tell(pipe: int, **facts: Any) -> None:
    with contextlib.suppress(OSError):
        os.write(pipe, json.dumps(facts).encode())
        os.close(pipe)


def _become_daemon(word: Word, level: int) -> None:
    os.setsid()
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    out = os.open(word.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    sys.stdout.flush()
    sys.stderr.flush()
    for number, fd in ((0, null), (1, out), (2, out)):
        os.dup2(fd, number)
    begin_log(min(level, logging.INFO), str(word.log))


def _serve(plan: Plan, word: Word, ready: Callable[[list[str]], None]) -> list[str]:
    """The mount, from its beginning to its end; what could not be stored."""
    sys.setswitchinterval(0.0005)  # the loop waits for one thread at most for so long
    _keep_memory()
    _raise_the_file_limit()
    limits = None
    if plan.job.bwlimit_mbps:
        limits = Limits.create(bwlimit_mbps=plan.job.bwlimit_mbps)
    storage = S3Storage(plan.job.src, plan.job, destination=not plan.read_only)
    try:
        storage.prepare()
    except AdsmigError as exc:
        raise AdsmigError(f"cannot mount {plan.job.src}: {exc}") from exc
    place = _cache_place(plan)
    drafts = drafts_in(place)
    drafts.mkdir(exist_ok=True, mode=0o700)
    store = Store(storage, limits)
    lines = []
    if not plan.read_only:
        lines = recover_all(store, plan, place)
    for line in lines:
        log.warning("%s", line)
    blocks = Blocks(place / "blocks", plan.cache_size)
    loop = asyncio.new_event_loop()  # which at its end waits for nobody, as asyncio.run would
    try:
        unsaved = loop.run_until_complete(_run(plan, word, store, blocks, drafts, lines, ready))
    finally:
        blocks.close()
        store.close()
        if limits:
            limits.remove()
    return unsaved


def _keep_memory() -> None:
    """Has what one block lay in serve for the next: else the kernel hands out each megabyte anew,
    page by page, which takes a tenth of the time that reading does.  For all threads together, or
    each would keep some (mallopt(3)).
    """
    chosen = {_ARENA_MAX: 1, _MMAP_THRESHOLD: 4 * BLOCK, _TRIM_THRESHOLD: 64 * BLOCK}
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):  # of glibc
        for option, value in chosen.items():
            mallopt(option, value)


def _raise_the_file_limit() -> None:
    """Has every open file of the mount be one of ours, as far as the system allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _cache_place(plan: Plan) -> Path:
    """This Location's directory in the cache, which no other mount uses: held while we live."""
    for place in places(plan.cache, plan.job.src.identity):
        if plan.read_only and has_unsaved(place):
            continue  # it is for a mount that can store that
        try:
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
            if hold(place) is not None:
                return place
        except OSError as exc:
            raise AdsmigError(f"cannot write to the cache {place}: {exc.strerror}") from exc
    raise AdsmigError(f"all of {plan.cache} is in use; choose another --cache-dir")


def recover_all(store: Store, plan: Plan, own: Path) -> list[str]:
    """Stores what earlier mounts of the address left in its ``own`` place, which the caller holds,
    and in all that nobody has; a line for each file, to be told.
    """
    lines = recover(store, drafts_in(own), own / "kept")
    for place in places(plan.cache, plan.job.src.identity):
        if place == own or not has_unsaved(place) or (held := hold(place)) is None:
            continue
        try:
            lines += recover(store, drafts_in(place), place / "kept")
        finally:
            os.close(held)
    return lines


async def _run(
    plan: Plan, word: Word, store: Store, blocks: Blocks, drafts: Path, lines: list[str],
    ready: Callable[[list[str]], None],
) -> list[str]:  # fmt: skip
    loop = asyncio.get_running_loop()
    defaults = Defaults(os.getuid(), os.getgid(), time.time_ns(), server_times=plan.server_times)
    nodes = Nodes(defaults)
    tree = Tree(nodes, store)
    files = Files(tree, store, Reader(store, blocks), drafts, plan.cache_size // 4)
    system = Filesystem(nodes, tree, files, Changes(tree, files, store))
    writing = not plan.read_only
    options = ["fsname=adsmig", "subtype=adsmig", "nosuid", "nodev"]
    options += [] if writing else ["ro"]
    options += ["allow_other", "default_permissions"] if plan.allow_other else []
    fd = channel.mounted(plan.directory, ",".join(options))
    patience_s = plan.job.read_timeout_s
    served = Channel(
        fd, system.handlers(writing), patience_s, system.abandoned,
        lambda: store.progress,
    )  # fmt: skip
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    served.begin()
    await loop.run_in_executor(None, os.stat, plan.directory)
    read_far_ahead(plan.directory)
    word.leave(
        pid=os.getpid(), directory=plan.directory, uri=str(plan.job.src), drafts=str(drafts),
        state=MOUNTED, unsaved=[],
    )  # fmt: skip
    ready(lines)
    sweeping = asyncio.ensure_future(_sweep(tree))
    stopped, closed = (asyncio.ensure_future(one.wait()) for one in (stop, served.closed))
    await asyncio.wait([stopped, closed], return_when=asyncio.FIRST_COMPLETED)
    ending = Ending(lambda: store.progress, patience_s)
    if not closed.done():
        await ending.wait(asyncio.ensure_future(files.saver.save_all()))
        if why := await loop.run_in_executor(None, channel.unmount, plan.directory):
            log.warning("unmounting what is in use: %s", why)
            await loop.run_in_executor(None, channel.unmount, plan.directory, True)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(served.closed.wait(), 2)
            served.close()
    stopped.cancel()
    sweeping.cancel()
    unsaved = await save_the_rest(files.saver, ending)
    await files.background.end(0 if unsaved else patience_s)
    word.leave(
        pid=os.getpid(), directory=plan.directory, uri=str(plan.job.src), drafts=str(drafts),
        state=ENDED, unsaved=unsaved,
    )  # fmt: skip
    return unsaved


class Ending:
    """How long an end may take: as long as bytes move (``progress()`` is when they last did, on the
    monotonic clock), and ``patience_s`` without, counted from now.
    """

    def __init__(self, progress: Callable[[], float], patience_s: float) -> None:
        self.patience_s = patience_s
        self._progress, self._began = progress, time.monotonic()

    @property
    def left_s(self) -> float:
        """Seconds until patience ends, if nothing moves."""
        return max(self._began, self._progress()) + self.patience_s - time.monotonic()

    @property
    def is_late(self) -> bool:
        """Whether nothing is to be begun again that failed."""
        return time.monotonic() > self._began + self.patience_s

    async def wait(self, work: asyncio.Future[Any]) -> None:
        """Returns when it is done, or when nothing moves any more."""
        while not work.done() and (left_s := self.left_s) > 0:
            await asyncio.wait([work], timeout=left_s)


async def save_the_rest(saver: Saver, ending: Ending) -> list[str]:
    """Stores what is not stored yet; a line for each file that could not be."""
    saving = asyncio.ensure_future(_save_until_done(saver, ending))
    await ending.wait(saving)
    saving.cancel()
    return [
        f"{node.key.decode('utf-8', 'backslashreplace')}: {why}; it is kept in"
        f" {node.draft.path if node.draft else '?'}, and the next mount of the same address stores"
        " it"
        for node, why in saver.unsaved.items()
    ]


async def _save_until_done(saver: Saver, ending: Ending) -> None:
    # A store that takes bytes and never answers must not have it go on for ever.
    while not await saver.save_all() and not ending.is_late:
        await asyncio.sleep(min(1, max(ending.left_s, 0)))


async def _sweep(tree: Tree) -> None:
    while True:
        await asyncio.sleep(FRESH_S)
        tree.sweep()
