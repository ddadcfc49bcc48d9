"""The process behind a mounted directory: how it begins, what it leaves word of, how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import hashlib
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adsmig.errors import AdsmigError, UsageError
from adsmig.job import Job
from adsmig.ledger import state_directory
from adsmig.limits import Limits
from adsmig.log import begin_log
from adsmig.mount import channel
from adsmig.mount.blocks import BLOCK, Blocks
from adsmig.mount.changes import Changes
from adsmig.mount.channel import Channel
from adsmig.mount.draft import left
from adsmig.mount.files import Files
from adsmig.mount.filesystem import Filesystem
from adsmig.mount.nodes import FRESH_S, Defaults, Nodes
from adsmig.mount.reader import Reader
from adsmig.mount.recovery import recover
from adsmig.mount.store import Store
from adsmig.mount.tree import Tree
from adsmig.storage.s3 import S3Storage

log = logging.getLogger(__name__)

CACHE_SIZE = 10 << 30
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""malloc.h."""
STARTING, MOUNTED, ENDED = "starting", "mounted", "ended"


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


class Word:
    """What a mount leaves word of in the state directory: its process, and how it ended."""

    def __init__(self, directory: str) -> None:
        name = hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]
        base = state_directory().parent / "mounts"
        self.path, self.log = base / f"{name}.json", base / f"{name}.log"
        self._lock = base / f"{name}.lock"

    def hold(self) -> int | None:
        """A file that says, while it is open, that the mount lives; None if another does."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return None
        return fd

    def is_of_the_dead(self) -> bool:
        """Whether there was a mount that was killed."""
        held = self.hold()
        if held is None:
            return False
        os.close(held)
        return self.read().get("state") in (STARTING, MOUNTED)

    def wait(self) -> None:
        """Returns when no mount lives."""
        with contextlib.suppress(FileNotFoundError), open(self._lock, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)

    def leave(self, **facts: Any) -> None:
        """Writes it."""
        name = self.path.with_suffix(".new")
        with open(name, "w", encoding="utf-8", opener=_private) as file:
            json.dump(facts, file)
        os.replace(name, self.path)

    def read(self) -> dict[str, Any]:
        """What was left; nothing, if nothing was."""
        try:
            facts: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return facts


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
    limits = None
    if plan.job.bwlimit_mbps:
        limits = Limits.create(bwlimit_mbps=plan.job.bwlimit_mbps)
    storage = S3Storage(plan.job.src, plan.job, destination=not plan.read_only)
    try:
        storage.prepare()
    except AdsmigError as exc:
        raise AdsmigError(f"cannot mount {plan.job.src}: {exc}") from exc
    place = _cache_place(plan)
    drafts = place / "dirty"
    drafts.mkdir(exist_ok=True, mode=0o700)
    store = Store(storage, limits)
    lines = []
    if not plan.read_only:
        lines = recover(store, drafts, place / "kept")
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


def _cache_place(plan: Plan) -> Path:
    """This Location's directory in the cache, which no other mount uses: held while we live."""
    name = hashlib.sha256(plan.job.src.identity.encode()).hexdigest()[:16]
    for number in range(100):
        place = plan.cache / (f"{name}-{number}" if number else name)
        try:
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
            fd = os.open(place / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return place
        except BlockingIOError:
            os.close(fd)
        except OSError as exc:
            raise AdsmigError(f"cannot write to the cache {place}: {exc.strerror}") from exc
    raise AdsmigError(f"all of {plan.cache} is in use; choose another --cache-dir")


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
    _read_far_ahead(plan.directory)
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
        await ending.wait(asyncio.ensure_future(files.save_all()))
        if why := await loop.run_in_executor(None, channel.unmount, plan.directory):
            log.warning("unmounting what is in use: %s", why)
            await loop.run_in_executor(None, channel.unmount, plan.directory, True)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(served.closed.wait(), 2)
            served.close()
    stopped.cancel()
    sweeping.cancel()
    unsaved = await save_the_rest(files, ending)
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


async def save_the_rest(files: Files, ending: Ending) -> list[str]:
    """Stores what is not stored yet; a line for each file that could not be."""
    saving = asyncio.ensure_future(_save_until_done(files, ending))
    await ending.wait(saving)
    saving.cancel()
    unsaved = files.unsaved
    await files.end(ending.patience_s if not unsaved else 0)
    return [
        f"{node.key.decode('utf-8', 'backslashreplace')}: {why}; it is kept in"
        f" {node.draft.path if node.draft else '?'}, and the next mount of the same address stores"
        " it"
        for node, why in unsaved.items()
    ]


async def _save_until_done(files: Files, ending: Ending) -> None:
    # A store that takes bytes and never answers must not have it go on for ever.
    while not await files.save_all() and not ending.is_late:
        await asyncio.sleep(min(1, max(ending.left_s, 0)))


async def _sweep(tree: Tree) -> None:
    while True:
        await asyncio.sleep(FRESH_S)
        tree.sweep()


def _read_far_ahead(directory: str) -> None:
    """Has the kernel read ahead by more than 128 KiB, if it lets us, as it does root."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split(" ")
        if _unescaped(fields[4]) == directory:
            with contextlib.suppress(OSError):
                Path(f"/sys/class/bdi/{fields[2]}/read_ahead_kb").write_text("2048")


def is_mounted(directory: str) -> bool:
    """Whether something is mounted right there; asks the kernel's table, not what is mounted."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return any(_unescaped(line.split(" ")[4]) == directory for line in lines)


def _unescaped(text: str) -> str:
    for code in ("\\040", "\\011", "\\012", "\\134"):
        text = text.replace(code, chr(int(code[1:], 8)))
    return text


def place_of(directory: str) -> str:
    """The absolute path of a mount point, without asking it."""
    above, name = os.path.split(os.path.abspath(directory))
    return os.path.join(os.path.realpath(above), name)


def check_directory(directory: str) -> None:
    """Raises UsageError for what cannot be mounted on; takes a mount away that was killed."""
    if is_mounted(directory) and Word(directory).is_of_the_dead():
        channel.unmount(directory, lazily=True)
    if is_mounted(directory):
        raise UsageError(f"{directory} is mounted already: adsmig umount {directory}")
    try:
        if os.listdir(directory):
            raise UsageError(f"{directory} is not empty: mount on an empty directory")
    except FileNotFoundError as exc:
        raise UsageError(f"{directory} is not there: mkdir {directory}") from exc
    except NotADirectoryError as exc:
        raise UsageError(f"{directory} is not a directory") from exc
    except OSError as exc:
        raise UsageError(f"cannot mount on {directory}: {exc.strerror}") from exc


def umount(directory: str) -> Sequence[str]:
    """Unmounts, and returns when all is stored and the process has ended; a line for each file that
    could not be stored.  Raises AdsmigError.
    """
    word = Word(directory)
    facts = word.read()
    held = word.hold()
    lives = held is None
    if held is not None:
        os.close(held)
    if is_mounted(directory):
        if not facts:
            raise UsageError(f"{directory} was not mounted by adsmig, or by another user")
        if why := channel.unmount(directory, lazily=not lives):
            if "busy" in why:
                why = f"it is in use; see who uses it: fuser -vm {directory}"
            raise AdsmigError(f"cannot unmount {directory}: {why}")
    elif not lives:
        raise UsageError(f"nothing is mounted on {directory}")
    elif facts.get("state") == STARTING:
        raise AdsmigError(f"{directory} is only just being mounted; wait for that, or end it")
    if not lives:
        drafts = Path(facts["drafts"]) if "drafts" in facts else None
        keys = [one.key for one in left(drafts)] if drafts else []
        return [
            f"{key.decode('utf-8', 'backslashreplace')}: the mount was killed before it was"
            " stored; the next mount of the same address stores it"
            for key in keys
        ]
    word.wait()
    unsaved: list[str] = word.read().get("unsaved", [])
    return unsaved


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
