"""Keys that some stores accept and then keep under another name.

SeaweedFS and the MinIO gateway answer 200 to a PUT of ``a//b`` and store it as ``a/b``, on top of
whatever that was; SeaweedFS also takes ``\\`` for ``/``.  Every such answer looks like a success,
so a store is asked once for each kind of odd key whether it keeps it, with an object of our own.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable

from adsmig.errors import NotFound, ObjectError
from adsmig.storage.wire import Wire

_KINDS = [
    # What makes a key odd; one as odd in a harmless place, around a name of our own; and what it
    # becomes where it is not kept.
    ("a leading slash", re.compile(rb"^/"), b"/%s", b"%s"),
    ("an empty name between slashes", re.compile(rb"//"), b"%s//b", b"%s/b"),
    ("a name of dots", re.compile(rb"(^|/)\.\.?(/|$)"), b"%s/./b", b"%s/b"),
    ("a backslash", re.compile(rb"\\"), b"%s\\b", b"%s/b"),
]


class OddKeys:
    """Remembers, for one store, which kinds of odd key it keeps as they are.  For many threads.

    ``holds(key, plain)`` is asked to try a key: it stores an object under exactly that key, says
    whether it is there, and not at ``plain``, and removes it.
    """

    def __init__(self, holds: Callable[[bytes, bytes], bool], directory: bytes) -> None:
        self._holds, self._directory = holds, directory
        self._known: dict[str, bool] = {}
        self._lock = threading.Lock()

    def problem(self, key: bytes) -> str:
        """Why the store cannot hold the full ``key`` under its own name; '' if it can."""
        for name, pattern, odd, plain in _KINDS:
            if not pattern.search(key):
                continue
            with self._lock:
                if name not in self._known:
                    self._known[name] = self._holds(odd % self._directory, plain % self._directory)
            if not self._known[name]:
                return f"this store would keep a key with {name} under another name"
        return ""


def holds(
    wire: Wire,
    root: bytes,
    listed: Callable[[bytes], bool],
    directory: bytes,
    key: bytes,
    plain: bytes,
) -> bool:
    """Whether an object put under the full ``key`` is there, and not at ``plain``.

    ``root`` is the bucket's path, ``directory`` what both keys are made of; ``listed`` tells
    whether the store lists a full key.  Raises ObjectError where the store lets us write nothing,
    which tells nothing about the key.
    """
    path = root + key
    try:
        wire.request("PUT", path, body=b"")
    except (ObjectError, NotFound) as exc:
        if isinstance(exc, ObjectError) and exc.kind == "denied":
            raise
        return False
    try:
        if not listed(key):
            return False
        # SeaweedFS lists what was asked for, and keeps it elsewhere all the same.
        with contextlib.suppress(NotFound):
            wire.request("HEAD", root + plain)
            return False
        return True
    finally:
        # With the directory that a store which has directories made for it.
        for leftover in (path, root + directory + b"/"):
            with contextlib.suppress(ObjectError, NotFound):
                wire.request("DELETE", leftover)
