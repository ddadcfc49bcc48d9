"""Directories below a root, reached without following a symbolic link, and removing in them.

A path is looked up anew each time it is used, and may lead through a link by then.  A descriptor
stays with its directory (openat(2)), so that what is made or removed through it is certain to lie
below the root, whatever others do to the tree meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Callable, Sequence

from adsmig.errors import ObjectError

# O_PATH, which Linux has: a directory that may be entered need not be readable.
_DIRECTORY = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

OTHERS = 10
"""How often others may take away again what a directory's mode was changed for."""

MISSING = (errno.ENOENT, errno.ENOTDIR)
"""What a path fails with that leads nowhere."""


class BehindLink(ObjectError):
    """A directory of the key is a symbolic link."""

    def __init__(self, kind: str = "link", message: str = "it lies behind a symbolic link") -> None:
        super().__init__(kind, message)


class Held:
    """A descriptor of a directory, good for ``dir_fd``, for as long as this object lives."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)


def held(root_fd: int, names: Sequence[bytes], make: bool = False) -> Held:
    """The directory that ``names`` lead to, closed when the last reference to it is dropped: its
    ``fd`` alone does not keep it.  ``make`` and errors as of :func:`descend`.
    """
    return Held(descend(root_fd, names, make))


def descend(root_fd: int, names: Sequence[bytes], make: bool = False) -> int:
    """A descriptor of the directory that ``names`` lead to, good for ``dir_fd``; to be closed.

    ``make`` makes what is missing.  Raises BehindLink if one of them is a symbolic link, and
    OSError for what else can be wrong.
    """
    fd = root_fd
    for name in names:
        try:
            below = _enter(fd, name, make)
        finally:
            if fd != root_fd:
                os.close(fd)
        fd = below
    return fd if names else os.dup(root_fd)


def _enter(above: int, name: bytes, make: bool) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=above)
    except FileNotFoundError:
        if not make:
            raise
    except OSError as exc:
        if exc.errno in (errno.ENOTDIR, errno.ELOOP) and _is_link(name, above):
            raise BehindLink() from exc
        raise
    with contextlib.suppress(FileExistsError):  # another thread was faster
        try:
            os.mkdir(name, dir_fd=above)
        except PermissionError as exc:
            despite_mode(exc, above, lambda: os.mkdir(name, dir_fd=above))
    return _enter(above, name, False)


def _is_link(name: bytes, above: int) -> bool:
    return stat.S_ISLNK(os.lstat(name, dir_fd=above).st_mode)


_changing_mode = threading.Lock()


def despite_mode(refused: PermissionError, above: int, act: Callable[[], None]) -> None:
    """Does what was refused in the directory ``above``, if only its mode forbids that, and it is
    our own: an earlier run may have given it the mode of a read-only one.  It has that again
    afterwards, or, if we are killed just then, once it is the directories' turn.
    """
    if refused.errno != errno.EACCES:
        raise refused
    try:
        fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=above)
    except OSError:
        raise refused from None
    try:
        for _ in range(OTHERS):
            with _changing_mode, contextlib.suppress(PermissionError):
                status = os.fstat(fd)
                mode = stat.S_IMODE(status.st_mode)
                if status.st_uid != os.geteuid():
                    break
                if mode & stat.S_IWUSR:  # it is another process that changed it
                    return act()
                os.fchmod(fd, mode | stat.S_IRWXU)
                try:
                    return act()
                finally:
                    os.fchmod(fd, mode)
        raise refused
    finally:
        os.close(fd)


def remove(name: bytes, above: int, despite: bool = False) -> str:
    """Removes what is called ``name``, a directory if that ends in ``/``; why not, or ''.

    ``despite`` the mode of the directory, as :func:`despite_mode`.

    See Storage.delete for what is no error.  A link is removed as what it is, never what it leads
    to; one to a directory is no directory of that name, and is left alone.
    """

    def act() -> None:
        if not name.endswith(b"/"):
            os.unlink(name, dir_fd=above)
        else:
            os.rmdir(name[:-1], dir_fd=above)

    try:
        try:
            act()
        except PermissionError as exc:
            if not despite:
                raise
            despite_mode(exc, above, act)
    except OSError as exc:
        if exc.errno == errno.ENOTDIR and _leads_to_directory(name[:-1], above):
            return "it is a symbolic link to a directory"
        # A directory is no object of its name without the slash, so that one is not there.
        if exc.errno in (*MISSING, errno.EISDIR, errno.ENOTEMPTY, errno.EEXIST):
            return ""
        return not_removed(exc)
    return ""


def not_removed(exc: OSError) -> str:
    """The reason in words."""
    return f"cannot be removed: {exc.strerror}"


def _leads_to_directory(name: bytes, above: int) -> bool:
    with contextlib.suppress(OSError):
        return stat.S_ISDIR(os.stat(name, dir_fd=above).st_mode)
    return False
