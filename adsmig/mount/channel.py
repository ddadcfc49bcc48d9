"""The kernel's requests, one by one, and our answers: a mounted directory, and its end.

Why not a binding.  Measured on a busy machine of two cores, Linux 6.18, with a file system of
20,000 names in memory: 5,000 files opened, read and closed took 0.23 s through this, 0.73 s
through pyfuse3 3.5 and 0.83 s through mfusepy 3.1; 20,000 stats that ask each time 2.9, 3.6 and
2.3 s; a GB read 0.6 s through each.  The first is what a training job does: here, who only reads
need not tell of a close (NOFLUSH).  Neither binding tells of interrupts, without which a process
that waits for a silent store cannot be killed, and mfusepy, which speaks of paths, cannot have a
name lead to a new file when an object was replaced.
"""

from __future__ import annotations

import array
import asyncio
import errno
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from adsmig.errors import AdsmigError
from adsmig.mount import protocol as p

log = logging.getLogger(__name__)

_LOOK_S = 0.2
"""Between looks at whether a process that got a signal is to end."""
_GIVEN_UP = frozenset((p.MKDIR, p.SYMLINK, p.UNLINK, p.RMDIR, p.RENAME, p.RENAME2, p.SETATTR))
"""What is not to be done later if it could not be done in time."""

Reply = list[Any]
"""Buffers that are sent one behind the other."""
Handler = Callable[["Request"], "bytes | Reply | Coroutine[Any, Any, bytes | Reply] | None"]
"""Answers at once, or returns the work that will; None: nobody waits for an answer.  Raises OSError
for what the caller is to be told."""


class Request:
    """One of the kernel's requests.  ``body`` is valid until the handler returns, no longer."""

    __slots__ = ("body", "gid", "node", "opcode", "pid", "uid", "unique")

    def __init__(self, head: tuple[int, ...], body: memoryview) -> None:
        _, self.opcode, self.unique, self.node, self.uid, self.gid, self.pid, _, _ = head
        self.body = body


def mounted(directory: str, options: str) -> int:
    """Mounts an empty connection on the directory; the file by which requests come.

    fusermount3 does that, for root as for others, and hands the file over (its COMMFD).  Raises
    AdsmigError saying what is missing.
    """
    if not os.path.exists("/dev/fuse"):
        raise AdsmigError(
            "no /dev/fuse here: load the kernel's module (modprobe fuse); in a container, start it"
            " with --device /dev/fuse --cap-add SYS_ADMIN"
        )
    program = helper()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        done = subprocess.run(
            [program, "-o", options, "--", directory],
            env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno()), "LC_ALL": "C"},
            pass_fds=[theirs.fileno()],
            capture_output=True,
            text=True,
            errors="backslashreplace",
        )
        if done.returncode:
            said = done.stderr.strip().rpartition("\n")[2].removeprefix("fusermount3: ")
            if "user_allow_other" in said:
                said = "--allow-other needs the line user_allow_other in /etc/fuse.conf"
            raise AdsmigError(f"cannot mount {directory}: {said or 'fusermount3 failed'}")
        fds = array.array("i")
        _, ancillary, _, _ = ours.recvmsg(1, socket.CMSG_SPACE(fds.itemsize))
        fds.frombytes(ancillary[0][2][: fds.itemsize])
    return fds[0]


def helper() -> str:
    """The program that mounts; raises AdsmigError where it is not installed."""
    found = shutil.which("fusermount3") or shutil.which("/usr/bin/fusermount3")
    if not found:
        raise AdsmigError("FUSE 3 is not installed: no fusermount3; apt-get install fuse3")
    return found


def unmount(directory: str, lazily: bool = False) -> str:
    """Unmounts; why that was not possible, or ''.  ``lazily``: it vanishes even if it is in use."""
    done = subprocess.run(
        [helper(), "-u", *(["-z"] if lazily else []), "--", directory],
        env={**os.environ, "LC_ALL": "C"},
        capture_output=True,
        text=True,
        errors="backslashreplace",
    )
    return done.stderr.strip() if done.returncode else ""


class Channel:
    """A connection to the kernel, served by the running loop until the directory is unmounted.

    ``handlers`` are by opcode.  A request whose work takes longer than ``patience_s``, with
    ``progress()``, a time of the monotonic clock, as long ago, is answered with EIO; one whose
    process is to end, with EINTR.  Work that changes names is given up then; other work goes
    on, so that what was written is stored, and ``abandoned`` is told what came of it.
    """

    def __init__(
        self, fd: int, handlers: dict[int, Handler], patience_s: float,
        abandoned: Callable[[int, bytes | Reply], None], progress: Callable[[], float],
    ) -> None:  # fmt: skip
        self.fd = fd
        self._handlers = handlers
        self._patience_s = patience_s
        self._abandoned, self._progress = abandoned, progress
        self._buffer = bytearray(p.MAX_WRITE + 8192)
        self._view = memoryview(self._buffer)
        self._waiting: dict[int, asyncio.Future[None]] = {}
        """By request: done when a signal came to the process."""
        self._work = set[asyncio.Task[Any]]()
        self.closed = asyncio.Event()
        """The directory is unmounted."""

    def begin(self) -> None:
        """Answers from now on."""
        os.set_blocking(self.fd, False)
        asyncio.get_running_loop().add_reader(self.fd, self._readable)

    def close(self) -> None:
        """No request is answered any more; what is under way goes on."""
        if not self.closed.is_set():
            asyncio.get_running_loop().remove_reader(self.fd)
            os.close(self.fd)
            self.closed.set()

    def _readable(self) -> None:
        for _ in range(64):
            try:
                size = os.readv(self.fd, [self._buffer])
            except BlockingIOError:
                return
            except OSError as exc:
                if exc.errno == errno.ENODEV:
                    self.close()
                    return
                if exc.errno in (errno.ENOENT, errno.EINTR):  # it was interrupted meanwhile
                    continue
                raise
            head = p.HEADER.unpack_from(self._buffer)
            self._serve(Request(head, self._view[p.HEADER.size : size]))
            if self.closed.is_set():
                return

    def _serve(self, request: Request) -> None:
        opcode, unique = request.opcode, request.unique
        if opcode == p.INTERRUPT:
            waiting = self._waiting.get(p.number(request.body))
            if waiting and not waiting.done():
                waiting.set_result(None)
            return
        if opcode == p.INIT:
            self._init(request)
            return
        handler = self._handlers.get(opcode)
        if handler is None:
            if opcode != p.DESTROY:
                self._send(unique, p.reply(unique, 0, errno.ENOSYS))
            return
        try:
            answer = handler(request)
        except OSError as exc:
            self._send(unique, p.reply(unique, 0, exc.errno or errno.EIO))
            return
        except Exception:
            log.exception("internal error in an answer to request %d", opcode)
            self._send(unique, p.reply(unique, 0, errno.EIO))
            return
        if answer is None:
            return
        if isinstance(answer, (bytes, list)):
            self.answer(unique, answer)
            return
        work = asyncio.ensure_future(answer)
        self._work.add(work)
        work.add_done_callback(self._work.discard)
        self._waiting[unique] = asyncio.get_running_loop().create_future()
        waiting = asyncio.ensure_future(self._wait(request, work))
        self._work.add(waiting)
        waiting.add_done_callback(self._work.discard)

    def _init(self, request: Request) -> None:
        # A newer kernel then asks for our version.
        asked = p.init_of(request.body) or (p.VERSION[1], 0)
        self.answer(request.unique, p.init_reply(*asked))

    async def _wait(self, request: Request, work: asyncio.Task[bytes | Reply]) -> None:
        opcode, unique, began = request.opcode, request.unique, time.monotonic()
        signalled = self._waiting[unique]
        try:
            while not work.done():
                if signalled.done():
                    if _is_ending(request.pid):
                        raise InterruptedError(errno.EINTR, "interrupted")
                    await asyncio.wait([work], timeout=_LOOK_S)
                else:
                    either: list[asyncio.Future[Any]] = [work, signalled]
                    await asyncio.wait(
                        either,
                        timeout=self._patience_s / 4,
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                idle = time.monotonic() - max(self._progress(), began)
                if not work.done() and idle > self._patience_s:
                    log.warning("the store does not answer; request %d fails", opcode)
                    raise TimeoutError(errno.EIO, "no answer from the store")
            self.answer(unique, work.result())
            return
        except asyncio.CancelledError:
            error = errno.EIO
        except OSError as exc:
            error = exc.errno or errno.EIO
        except Exception:
            log.exception("internal error in the work for request %d", opcode)
            error = errno.EIO
        finally:
            del self._waiting[unique]
        if opcode in _GIVEN_UP:
            work.cancel()
        if not work.done():
            work.add_done_callback(lambda done: self._late(opcode, done))
        self._send(unique, p.reply(unique, 0, error))

    def _late(self, opcode: int, work: asyncio.Task[bytes | Reply]) -> None:
        """The work is done, and nobody waits for its answer any more."""
        if work.cancelled():
            return
        if exc := work.exception():
            log.info("nobody waited for request %d, which failed: %s", opcode, exc)
        else:
            self._abandoned(opcode, work.result())

    def answer(self, unique: int, parts: bytes | Reply) -> None:
        """Sends an answer."""
        if isinstance(parts, bytes):
            self._send(unique, p.reply(unique, len(parts)), parts)
        else:
            self._send(unique, p.reply(unique, sum(map(len, parts))), *parts)

    def _send(self, unique: int, *parts: Any) -> None:
        try:
            os.writev(self.fd, parts)
        except OSError as exc:
            # Nobody waits for it any more, or nothing is mounted.
            if exc.errno not in (errno.ENOENT, errno.ENODEV, errno.EBADF):
                log.warning("the kernel does not take an answer: %s", exc.strerror)


def _is_ending(pid: int) -> bool:
    """Whether a signal waits for a process that is to end it, or asks it to.

    The kernel tells of any signal, once for each request; timers' and childrens' come to programs
    that expect their calls to go on.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True
    sets = dict(re.findall(r"^(\w+):\t([0-9a-f]{16})$", status, re.MULTILINE))
    pending, blocked, ignored, caught = (
        int(sets.get(one, "0"), 16) for one in ("SigPnd", "SigBlk", "SigIgn", "SigCgt")
    )
    pending = (pending | int(sets.get("ShdPnd", "0"), 16)) & ~blocked & ~ignored
    return bool(pending & _ENDING or pending & ~caught & ~_HARMLESS)


def _set_of(*signals: signal.Signals) -> int:
    return sum(1 << (one - 1) for one in signals)


_ENDING = _set_of(signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP)
_HARMLESS = _set_of(
    signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH,
    signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU,
)  # fmt: skip
"""Those that end no process which does nothing about them; signal(7)."""
