"""What the tests of all drivers need: putting, getting and listing in one line."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from adsmig.model import EVERYTHING, Entry, KeyRange, Meta, Part, Upload
from adsmig.retry import TRIES
from adsmig.routes import Route
from adsmig.storage.base import Body, Storage, Stored
from adsmig.storage.s3 import S3Storage


@dataclass(frozen=True)
class Options:
    """A storage.base.Settings."""

    connect_timeout_s: float = 5
    read_timeout_s: float = 20
    routes: tuple[Route, ...] = ()
    staging: str = ".adsmig-test"
    by_directory: bool = False
    identities: tuple[tuple[int, int] | None, tuple[int, int] | None] = (None, None)
    ticks: tuple[int, int] = (0, 0)
    own: tuple[bytes, ...] = ()
    links: str = "follow"
    accept_new_host_key: bool = False
    storage_class: str = ""
    sse: str = ""
    tags: bool = False
    ca_bundle: str = ""
    verify_tls: bool = True


def chunks_of(content: bytes, size: int = 1 << 16) -> Iterator[memoryview]:
    """Views of one buffer, which is overwritten before the next is given out, as readers do."""
    buffer = memoryview(bytearray(size))
    for start in range(0, len(content), size):
        chunk = content[start : start + size]
        buffer[: len(chunk)] = chunk
        yield buffer[: len(chunk)]
        buffer[:] = b"\xee" * size


def put(
    storage: Storage,
    key: bytes,
    content: bytes = b"",
    meta: Meta | None = None,
    size: int = 1 << 16,
) -> Stored:
    """Writes an object, in chunks of ``size``."""
    return storage.write(key, chunks_of(content, size), len(content), meta or Meta())


def drain(body: Body, size: int = 1 << 16) -> bytes:
    """What is left of the body, read ``size`` bytes at a time."""
    buffer, parts = memoryview(bytearray(size)), []
    while count := body.readinto(buffer):
        parts.append(bytes(buffer[:count]))
    return b"".join(parts)


def get(storage: Storage, entry: Entry, start: int = 0, size: int | None = None) -> bytes:
    with storage.read(entry, start, size) as body:
        return drain(body)


def content_of(storage: Storage, key: bytes) -> bytes:
    return get(storage, storage.stat(key))


def entries_of(storage: Storage, within: KeyRange = EVERYTHING) -> list[Entry]:
    """The objects in a range.  Directories that others imply are left out, but must be in order."""
    found = list(storage.list(within))
    keys = [entry.key for entry in found]
    assert keys == sorted(set(keys)), "not in ascending order"
    assert all(key in within for key in keys), "out of the range"
    return [entry for entry in found if not entry.implied]


def keys_of(storage: Storage, within: KeyRange = EVERYTHING) -> list[bytes]:
    return [entry.key for entry in entries_of(storage, within)]


def told(storage: Storage, time_ns: int | None) -> int | None:
    """A file's time as the storage can tell it: SFTP counts whole seconds from 1970 on."""
    if time_ns is None or not storage.location.tells_seconds:
        return time_ns
    return max(0, time_ns // 10**9 * 10**9)


def in_threads(storage: Storage, work: Callable[[bytes], object], keys: Iterable[bytes]) -> None:
    """Does the work on each key, in eight threads that close their connections as they end."""
    waiting, lock, errors = iter(keys), threading.Lock(), []

    def loop() -> None:
        try:
            while True:
                with lock:
                    key = next(waiting, None)
                if key is None or errors:
                    return
                work(key)
        except BaseException as exc:
            errors.append(exc)
        finally:
            storage.close()

    threads = [threading.Thread(target=loop) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def fill(storage: Storage, keys: Iterable[bytes]) -> None:
    """An object for each key, with content that tells them apart."""
    in_threads(storage, lambda key: put(storage, key, tail(key)), keys)


def tail(key: bytes) -> bytes:
    """What ``fill`` puts: content that tells keys apart, of different sizes."""
    return b"" if key.endswith(b"/") else b"<" + key[-len(key) % 13 - 5 :]


def fill_with_what_fits(
    storage: Storage, keys: Iterable[bytes], refusals: tuple[type[Exception], ...]
) -> set[bytes]:
    """Puts one after the other; the keys that the storage did not refuse."""
    held = set()
    for key in keys:
        try:
            put(storage, key, tail(key))
            held.add(key)
        except refusals:
            pass
    return held


def fits_a_tree(keys: Iterable[bytes]) -> set[bytes]:
    """Those that a file system can hold together: no name is both a file and a directory."""
    keys = set(keys)
    directories = {key[: at + 1] for key in keys for at in range(len(key)) if key[at] == ord("/")}
    return {key for key in keys if key + b"/" not in directories}


def small_pages(storage: Storage, size: int) -> None:
    """Lets an object store list a few keys at a time, as if it held many."""
    if not isinstance(storage, S3Storage):
        return
    whole = storage._page

    def paged(
        prefix: bytes, after: bytes, token: str, by_directory: bool, limit: int, tries: int = TRIES
    ) -> object:
        return whole(prefix, after, token, by_directory, min(limit, size), tries)

    storage._page = paged  # type: ignore[method-assign, assignment]


def send_part(storage: Storage, key: bytes, upload: Upload, number: int, content: bytes) -> Part:
    """Sends the part of ``content``, the whole object, that has this number."""
    start, size = upload.span(number)
    piece = content[start : start + size]
    stored = storage.put_part(key, upload, number, chunks_of(piece))
    return Part(number, stored.etag or "", None, stored.md5)
