"""What a job finds at its two sides, in the order of keys, and what is to be done about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import chain, islice, starmap

import xxhash

from adsmig.errors import BLAMELESS, NotFound, ObjectError, TransientError
from adsmig.filters import Selection
from adsmig.job import LARGE_SIZE, Job
from adsmig.keylist import KeyList
from adsmig.model import EVERYTHING, UNDELETED, UNFLUSHED, Action, Entry, KeyRange, What
from adsmig.plan import DOUBTFUL, LOST, Past, Run, counted, everything, merge, rules_of
from adsmig.record import Lookup, known_checksums, known_failures, known_objects
from adsmig.storage import open_storage
from adsmig.storage.base import Storage

LOOKUPS = 8
"""Objects of a key list that are looked up at once."""
NOT_THERE = "it is not there"
"""The problem of a key that was named, and that nothing has."""


@lru_cache(maxsize=8)
def storages(job: Job) -> tuple[Storage, Storage]:
    """The job's two storages, opened once a process; or twice the only one."""
    if job.against:
        assert job.dst
        dst = open_storage(job.dst, job)
        return dst, dst
    src = open_storage(job.src, job)
    return src, open_storage(job.dst, job, destination=True) if job.dst else src


@lru_cache(maxsize=2)
def selection_of(job: Job) -> Selection:
    """The job's filters at work."""
    return Selection(job.filters, job.began_ns)


def keeps_of(job: Job, failed_too: bool = True) -> Callable[[Entry], bool]:
    """Whether an entry that is selected by name is of interest: by its size, its age, its luck.

    ``failed_too``: of whatever age, what an earlier run selected and could not copy.
    """
    selection = selection_of(job)
    keeps: Callable[[Entry], bool]
    keeps = selection.keeps if selection.looks_at_entries else everything
    if failed_too and job.doubts and selection.looks_at_age:
        keeps = _or_failed(job, selection)
    if not job.sample:
        return keeps
    return lambda entry: rank(job, entry.key) < job.sample and keeps(entry)


def _or_failed(job: Job, selection: Selection) -> Callable[[Entry], bool]:
    """Also keeps what an earlier run selected and could not copy: by now it may be too old, and
    then no run would ever copy it.
    """
    failed, below = _failed(job)

    def keeps(entry: Entry) -> bool:
        if entry.key in failed or entry.key.startswith(below):
            return selection.kept_once(entry)
        return selection.keeps(entry)

    return keeps


@lru_cache(maxsize=1)
def _failed(job: Job) -> tuple[frozenset[bytes], tuple[bytes, ...]]:
    """The keys of failures on record, and those of directories that were not listed among them."""
    failures = dict(known_failures(job.known, EVERYTHING))
    unlisted = (key for key, kind in failures.items() if key.endswith(b"/") and kind == "source")
    return frozenset(failures), tuple(unlisted)


def rank(job: Job, key: bytes) -> int:
    """Where a key stands in the order in which a sample is drawn, of 2 ** 64; evenly spread."""
    return xxhash.xxh3_64_intdigest(key, job.seed)


@lru_cache(maxsize=1)
def _key_list(path: str) -> KeyList:
    return KeyList(path)


def forget() -> None:
    """Drops what this process keeps between slices, at the end of a run."""
    for cache in (storages, selection_of, _key_list, _failed):
        cache.cache_clear()


def plan_of(job: Job, keys: KeyRange) -> Iterator[Action | Run | Past]:
    """What there is to do about each key of a range, in order; see plan.merge.  Of a retry, also
    how far it is, for most of what had failed may be gone.
    """
    if not job.retries:
        return _plan_of(job, keys, known_failures(job.known, keys) if job.doubts else None)

    def plan(one: KeyRange, kind: str) -> Iterator[Action | Run | Past]:
        if one.after == one.upto:  # to ask about each key anew takes longer than all else
            yield from _plan_of(job, one, iter([(one.after, kind)]))
        else:
            yield from _plan_of(job, one, known_failures(job.known, one))
        if one.upto is not None:
            yield Past(one.upto)

    return chain.from_iterable(starmap(plan, failed_ranges(job, keys)))


def failed_ranges(job: Job, keys: KeyRange) -> Iterator[tuple[KeyRange, str]]:
    """Where a range holds what failed: each key by itself, and all that it holds of a directory
    that could not be listed; in order, and none within another.  Each with the kind of failure.
    """
    # The range may begin below such a directory.
    above = [keys.after[: at + 1] for at, byte in enumerate(keys.after) if byte == ord("/")]
    outside = (one for one in above if one not in keys)
    covering = (known_failures(job.known, KeyRange(one, one, True)) for one in outside)
    below: bytes | None = None
    for key, kind in chain(*covering, known_failures(job.known, keys)):
        if below is not None and key.startswith(below):
            continue
        below = key if key.endswith(b"/") and kind == "source" else None
        if below is None and key not in keys:
            continue
        last = key + b"\xff" * 256 if below else key
        upto = last if keys.upto is None else min(last, keys.upto)
        yield KeyRange(max(key, keys.after), upto, key > keys.after or keys.closed), kind


def _plan_of(
    job: Job, keys: KeyRange, failed: Iterator[tuple[bytes, str]] | None
) -> Iterator[Action | Run]:
    _, dst = storages(job)
    keeps = keeps_of(job)
    if job.command == "rm":
        return _within(keys, _removals(source_entries(job, keys), job))
    there: Iterator[Entry] | None = None
    if job.by_record:
        there = known_objects(job.known, keys)
        if job.delete_dst and job.dst and job.dst.is_path:
            there = _selected(job, _with_directories(there, keys))
    elif job.against and job.sample and not job.single:
        chosen = (entry.key for entry in source_entries(job, keys) if keeps(entry))
        there = _looked_up(dst, chosen, missing=False)
    elif job.lists_destination:
        there = _alone(dst, *job.single) if job.single else _entries(job, dst, keys, missing=False)
        if job.dryrun or job.command == "verify":
            there = _empty_if_missing(there)
        downloads = job.dst and job.dst.is_path > job.src.is_path
        if job.command == "sync" and job.known and downloads and not job.by_content:
            there = _remembered(there, Lookup(job.known, keys))
    if there and failed and (job.command == "sync" or job.rebuild or job.ignore_existing):
        there = _doubted(there, failed)
    large_size = min(LARGE_SIZE, job.max_put)
    if job.dryrun and not job.dst:
        return _within(keys, counted(source_entries(job, keys), rules_of(job, keeps), large_size))
    # What had failed may be gone, and then its copy is as old as it is.
    rules = rules_of(job, keeps, keeps_of(job, failed_too=False))
    return _within(keys, merge(source_entries(job, keys), there, rules, large_size))


def _remembered(files: Iterator[Entry], known: Lookup) -> Iterator[Entry]:
    """The files, each with the ETag of the object that it is a copy of, if that is on record.

    That tells whether the source has changed, and nothing about the content of the file by now.
    """
    for file in files:
        record = known.find(file.key)
        yield file._replace(etag=record.etag) if record and record.size == file.size else file


def _with_directories(known: Iterator[Entry], keys: KeyRange) -> Iterator[Entry]:
    """Also the directories of a range that the objects lie in, which are not on record."""
    last = b""
    for entry in known:
        ends = (at + 1 for at, byte in enumerate(entry.key[:-1]) if byte == ord("/"))
        for directory in (entry.key[:end] for end in ends):
            if not last.startswith(directory) and directory in keys:
                yield Entry(directory, 0, None, 0, implied=True)
        last = entry.key
        yield entry


def _doubted(there: Iterator[Entry], failed: Iterator[tuple[bytes, str]]) -> Iterator[Entry]:
    """The destination's entries, with a problem where the last try to copy one failed: whatever
    its size and its time say, it may be what that try left.  What only could not be removed is as
    good as it was.
    """
    unsure = (one for one in failed if one[1] != UNDELETED)
    doubtful = next(unsure, None)
    for entry in there:
        while doubtful is not None and doubtful[0] < entry.key:
            doubtful = next(unsure, None)
        if doubtful is not None and doubtful[0] == entry.key:
            problem = LOST if doubtful[1] == UNFLUSHED else DOUBTFUL
            yield entry._replace(problem=problem)
        else:
            yield entry


def _within(keys: KeyRange, actions: Iterator[Action | Run]) -> Iterator[Action | Run]:
    """Leaves out what comes before the range: a directory that cannot be listed is told of again to
    those who go on below it, so that they remove nothing there, and was settled already.
    """
    for action in actions:
        if isinstance(action, Run):
            action = action.within(keys)
            if action.entries:
                yield action
                break
        elif action.src.key in keys:
            yield action
            break
    yield from actions


def source_entries(job: Job, keys: KeyRange) -> Iterator[Entry]:
    """What the source has in a range, of the keys selected by name; or what is on record."""
    if job.against:
        return _selected(job, known_checksums(job.against, keys))
    return _entries(job, storages(job)[0], keys, missing=True)


def holds_objects(job: Job) -> bool:
    """Whether the source has anything that is selected and can be read, other than directories: an
    empty disk has a ``lost+found``, and what is broken may be all that there is.
    """
    found = source_entries(job, job.keys)
    return any(not (entry.problem or entry.key.endswith(b"/")) for entry in found)


def next_source_key(job: Job, after: bytes) -> bytes | None:
    """The first key past ``after`` at the source, selected or not; or on record."""
    if job.against:
        return next((entry.key for entry in known_objects(job.against, KeyRange(after))), None)
    if job.keys_file:
        return next(_key_list(job.keys_file).keys(KeyRange(after)), None)
    return storages(job)[0].probe(after, guess=True)


LOOKED_AT = 1000


def explain(job: Job) -> tuple[int, list[tuple[str, int, bytes]], bool]:
    """Looks at the first objects again, whatever options say: how many; which options drop how many
    of them, with the first that each drops; and whether these are all.
    """
    src, _ = storages(job)
    selection = selection_of(job)
    dropped: dict[str, tuple[int, bytes]] = {}
    listed = 0
    there = known_objects(job.against, job.keys) if job.against else src.list(job.keys)
    found = (entry for entry in there if not entry.implied)
    for entry in islice(found, 0 if job.keys_file else LOOKED_AT):
        listed += 1
        if reason := selection.reason(entry):
            count, first = dropped.get(reason, (0, entry.key))
            dropped[reason] = count + 1, first
    reasons = [(reason, *told) for reason, told in dropped.items()]
    return listed, reasons, listed < LOOKED_AT or next(found, None) is None


def _entries(job: Job, storage: Storage, keys: KeyRange, missing: bool) -> Iterator[Entry]:
    selection = selection_of(job)
    if job.keys_file:
        found = _named(storage, _key_list(job.keys_file), keys, missing)
    else:
        found = storage.list(keys, selection.prune)
    if job.dst and b"" in keys and not job.keeps_own_marker:
        found = _below(found)
    return _selected(job, found)


def _below(found: Iterator[Entry]) -> Iterator[Entry]:
    """Leaves out the empty marker of the place that is listed, which would be the first."""
    for entry in found:
        if entry.key or entry.size:
            yield entry
        break
    yield from found


def _selected(job: Job, found: Iterator[Entry]) -> Iterator[Entry]:
    """Those entries whose names are selected."""
    selection = selection_of(job)
    if not job.filters:
        return found

    def keeps(entry: Entry) -> bool:
        if selection.keeps_key(entry.key):
            return True
        # Nobody knows what is in a directory that cannot be listed.
        unknown = entry.problem and entry.key.endswith(b"/")
        return bool(unknown) and not selection.drops_below(entry.key)

    return filter(keeps, found)


def _named(storage: Storage, names: KeyList, keys: KeyRange, missing: bool) -> Iterator[Entry]:
    """The entries that a key list names, of a range; ``missing``: also those that are not there.

    A name that ends in ``/`` stands for everything below it.
    """

    # The range may begin below a name that stands before it.
    covering = (keys.after[: at + 1] for at, byte in enumerate(keys.after) if byte == ord("/"))
    directory = next((name for name in covering if name in names), None)
    wanted = names.keys(keys)
    while True:
        if directory is not None:
            last = directory + b"\xff" * 256
            upto = last if keys.upto is None else min(last, keys.upto)
            listed = storage.list(KeyRange(max(keys.after, directory), upto, True))
            entries = (entry for entry in listed if entry.key in keys)
            begins = keys.after < directory
            part = KeyRange(max(keys.after, directory), upto, begins or keys.closed)
            within = names.keys(part) if missing else iter(())
            yield from _all_named(storage, entries, within)
            wanted = names.keys(KeyRange(directory + b"\xff" * 256, keys.upto))
            directory = None

        def files(wanted: Iterator[bytes] = wanted) -> Iterator[bytes]:
            nonlocal directory
            for name in wanted:
                if name.endswith(b"/"):
                    directory = name
                    return
                yield name

        yield from _looked_up(storage, files(), missing)
        if directory is None:
            return


def _all_named(
    storage: Storage, entries: Iterator[Entry], names: Iterator[bytes]
) -> Iterator[Entry]:
    """The entries, which are all that there are between the first and the last of ``names``, and
    those of the names that are not there.
    """
    name = next(names, None)
    for entry in entries:
        while name is not None and name <= entry.key:
            if not _is_there(name, entry.key):
                yield _unknown(name, NOT_THERE)
            name = next(names, None)
        yield entry
    while name is not None:
        # What is in a directory may lie beyond the range.
        if not (name.endswith(b"/") and _is_there(name, storage.probe(name) or b"")):
            yield _unknown(name, NOT_THERE)
        name = next(names, None)


def _is_there(name: bytes, key: bytes) -> bool:
    """Whether a name is there, by the first key that is not before it."""
    return key.startswith(name) if name.endswith(b"/") else key == name


def _looked_up(storage: Storage, keys: Iterator[bytes], missing: bool) -> Iterator[Entry]:
    """The entries of single keys, several looked up at once; ``missing`` as in :func:`_named`."""

    def look_up(key: bytes) -> Entry | None:
        try:
            return storage.stat(key)
        except NotFound:
            return _unknown(key, NOT_THERE) if missing else None
        except BLAMELESS:
            raise
        except (ObjectError, TransientError) as exc:
            return _unknown(key, str(exc))

    with ThreadPoolExecutor(LOOKUPS, "look up") as threads:
        while batch := list(islice(keys, 10 * LOOKUPS)):
            yield from filter(None, threads.map(look_up, batch))


def _unknown(key: bytes, problem: str) -> Entry:
    return Entry(key, 0, None, 0, problem=problem)


def _removals(entries: Iterator[Entry], job: Job) -> Iterator[Action]:
    """For ``rm``: everything that is selected, with directories that their content implies."""
    selection = selection_of(job)
    keeps = selection.keeps
    for entry in entries:
        if entry.problem:
            # A broken link or a pipe cannot be copied, but it can be removed, unless it would have
            # to be of some size or age.
            unknown = entry.key.endswith(b"/") or entry.problem == NOT_THERE
            sure = not (unknown or selection.looks_at_entries)
            yield Action(What.DELETE if sure else What.FAIL, entry)
        else:
            yield Action(What.DELETE if keeps(entry) else What.DROP, entry)


def _alone(dst: Storage, src_key: bytes, dst_key: bytes) -> Iterator[Entry]:
    """The listing of one object at the destination, under the key that it has at the source."""
    try:
        yield dst.stat(dst_key)._replace(key=src_key)
    except NotFound:
        return


def _empty_if_missing(entries: Iterator[Entry]) -> Iterator[Entry]:
    """A destination that must not be created is one without objects."""
    try:
        yield from entries
    except NotFound:
        return
