"""Does a slice of the work; runs in any process, and keeps nothing that matters between calls.

Everything here takes picklable data and gives picklable data back, so that any
``concurrent.futures.Executor`` will do.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache, partial
from itertools import groupby, islice

from adsmig import failpoint, scan
from adsmig.checksum import parts_in
from adsmig.crew import Crew
from adsmig.errors import AdsmigError, NotFound, ObjectError, SourceChanged, TransientError
from adsmig.job import Job
from adsmig.limits import Lease, Limits, opened
from adsmig.model import (
    UNDELETED,
    Budget,
    Deletion,
    DeletionResult,
    Entry,
    KeyRange,
    Outcome,
    Part,
    PartsResult,
    SliceResult,
    Upload,
    UploadResult,
)
from adsmig.parts import CHANGED, Parts, verdict
from adsmig.proof import combined_checksum, prove_parts, prove_source
from adsmig.removal import Copies, remove
from adsmig.retry import never, retry
from adsmig.scan import failed_ranges, next_source_key, source_entries
from adsmig.scan import storages as storages  # for those who lend the work
from adsmig.slice import Slice, stop_of
from adsmig.small import DEPTH
from adsmig.splitter import WAYS, find_cuts
from adsmig.transfer import await_settled, failed, failure, meta_for

log = logging.getLogger(__name__)

MOST_FAILED = 5000
"""Keys that are to be retried, of which a range is cut; what comes after them is in its last piece.
"""
MOST_ALIGNED = 128 << 20
"""Bytes of a part that one thread copies; of larger ones, too few would be in flight."""
FILES, PARTS, REMOVALS = 1, 4, 16
"""Threads at first.  Python runs one at a time; between directories none of them waits, nor for a
store while there are many small objects to be copied (adsmig.small).  Parts are large, and four of
them keep most networks busy.  Removals are small requests, each of which takes a thread: a store
does more with the same time the more it has in hand.
"""
LOCAL_PARTS = 2
"""Between directories: while one waits for the disk, another reads."""
SFTP_FILES, SFTP_PARTS = 8, 2
"""The same over SFTP: each small file that is read takes several requests, one after the
other, and each that is written a flush; of those who write to one file, each waits for the others,
but one may send while the other waits for a flush.
"""


def run_slice(job: Job, keys: KeyRange, budget: Budget, lease: Lease) -> SliceResult:
    """Settles the keys of a range in order, until all are or the budget is used up.

    What the result calls settled is on stable storage.  An error that ends the run is in the
    result's ``stop``, along with what was settled before it.
    """
    return Slice(job, keys, budget, lease).run(_crew_for(job))


def cut_range(job: Job, keys: KeyRange, pieces: int) -> list[bytes]:
    """Where to cut a range of the source; see splitter.find_cuts.  Nowhere, if it cannot be told.

    What is wrong then will be found out, and said, when the range is worked on.
    """
    try:
        if job.retries:
            failed = list(islice(failed_ranges(job, keys), MOST_FAILED))
            if len(failed) != 1:
                step = max(1, len(failed) // pieces)
                return [one.upto for one, _ in failed[step - 1 : -1 : step] if one.upto]
            keys, _ = failed[0]  # it may be a directory of any size
        listed = source_entries(job, keys)
        return find_cuts(listed, partial(next_source_key, job), keys, pieces, _probers)
    except AdsmigError as exc:
        log.info("cannot cut a range: %s", exc)
        return []


def open_upload(job: Job, entry: Entry, again: bool, lease: Lease) -> UploadResult:
    """Opens a multipart upload for a large object; ``again`` looks the source up anew."""
    src, dst = storages(job)
    stopping = _stopping(opened(lease.path))
    tries = 0

    def unit() -> Upload:
        nonlocal tries
        tries += 1
        await_settled(src, dst, entry, stopping)
        at = src.stat(entry.key) if again else entry
        meta = meta_for(dst, at, src.meta(at), job.perms)
        crc32 = src.crc32(at)
        # A file of this machine can be read twice, first for what is told ahead.
        upload = dst.begin_upload(job.dst_key(entry.key), at, meta, src.is_local)
        failpoint.reach("upload.begun")
        upload = replace(upload, crc32=crc32)
        return _aligned(job, upload, src.part_size(at) if parts_in(at.etag) else None)

    try:
        upload = retry(unit, "opening an upload", stopping=stopping, final=CHANGED)
        return UploadResult(upload, doubtful=tries > 1)
    except SourceChanged as exc:
        if not again:
            found = open_upload(job, entry, True, lease)
            return replace(found, doubtful=found.doubtful or tries > 1)
        return UploadResult(outcome=failure(entry, "changed", str(exc)), doubtful=tries > 1)
    except AdsmigError as exc:
        lost = tries > 1 or isinstance(exc, TransientError)
        return UploadResult(*verdict(entry, exc, stopping), doubtful=lost)


def _aligned(job: Job, upload: Upload, size: int | None) -> Upload:
    """The same in parts of the source's own size, if that can be: then its ETag tells whether they
    are what they were there.
    """
    profile = (job.dst or job.src).profile
    if size and profile.min_part <= size <= min(profile.max_part, MOST_ALIGNED):
        aligned = replace(upload, part_size=size)
        return aligned if aligned.parts <= profile.max_parts else upload
    return upload


def run_parts(
    job: Job, upload: Upload, numbers: tuple[int, ...], budget: Budget, lease: Lease
) -> PartsResult:
    """Copies parts of an upload, in any order, until all are done or the time is up.

    What the result calls done is on stable storage.
    """
    return Parts(job, upload, numbers, budget, lease).run(_crew_for(job, PARTS))


def finish_upload(
    job: Job, upload: Upload, parts: list[Part], seen: str, lease: Lease
) -> UploadResult:
    """Makes a large object appear, once all its parts are there.

    ``seen``: the checksum of what was read at an earlier try.  The same twice was not damaged on
    its way, whatever the source's ETag says: SeaweedFS makes it of nothing known when it copies.
    """
    src, dst = storages(job)
    entry, key = upload.entry, job.dst_key(upload.entry.key)

    def unit() -> Outcome:
        # Raises if it is not the version of the parts.
        meta = meta_for(dst, entry, src.meta(entry), job.perms)
        failpoint.reach("upload.completing")
        if upload.crc32 or not seen or seen != combined_checksum(upload, parts):
            prove_source(src, upload, parts)
        dst.complete(key, upload, parts, meta)
        failpoint.reach("upload.completed")
        if job.delete_src:
            prove_parts(dst, key, upload, parts, opened(lease.path))
        time_ns = entry.stored_ns if entry.mtime_ns is None else entry.mtime_ns
        checksum = combined_checksum(upload, parts)
        return Outcome(entry.key, entry.size, time_ns, entry.etag, checksum)

    try:
        outcome = retry(unit, "completing a large object", final=CHANGED)
        dst.sync()
    except (NotFound, SourceChanged):
        return UploadResult()  # to be begun anew
    except AdsmigError as exc:
        return UploadResult(*verdict(entry, exc, never))
    return UploadResult(outcome=outcome)


def delete_objects(job: Job, deletions: list[Deletion], lease: Lease) -> DeletionResult:
    """Removes objects, all of one side; see removal.remove."""
    started = time.time()
    src, dst = storages(job)
    at_source = deletions[0].at_source
    stopping = _stopping(opened(lease.path))
    gone: list[bytes] = []
    failures: list[Outcome] = []
    stop = None
    try:
        key_at = bytes if at_source else job.dst_key
        side = src if at_source else dst
        moved = at_source and job.dst and job.command in ("cp", "sync")
        copies = Copies(dst, job.dst_key) if moved else None
        gone, problems = remove(src, side, deletions, key_at, _crew_for(job, REMOVALS), copies)
        failures = [Outcome(key, 0, 0, None, None, why, UNDELETED) for key, why in problems.items()]
    except AdsmigError as exc:
        stop = None if isinstance(exc, TransientError) and stopping() else stop_of(exc)
        return DeletionResult([], False, [], stop, os.getpid(), started, time.time())
    return DeletionResult(gone, True, failures, stop, os.getpid(), started, time.time())


def gone_from_source(job: Job, keys: Sequence[bytes], stopping: Callable[[], bool]) -> list[bytes]:
    """Those of the keys that the source has not any more, in any order, as far as was found out
    before ``stopping`` turned true.  Raises AdsmigError if the source cannot be read.
    """
    src, _ = storages(job)
    gone: list[bytes] = []

    def look_at(key: bytes) -> None:
        if stopping():
            return
        try:
            src.stat(key)
        except NotFound:
            gone.append(key)
        except ObjectError:
            return  # it may well be there

    _crew_for(job, REMOVALS).each(keys, look_at, src.release)
    src.prepare()  # lest all of it be gone
    return gone


def finish_directories(job: Job, keys: list[bytes], lease: Lease) -> list[Outcome]:
    """Gives directories of the destination the permissions and times of the source's, those that
    are inside others first; failures.
    """
    src, dst = storages(job)
    stopping = _stopping(opened(lease.path))
    failures = []

    def finish(key: bytes) -> None:
        def unit() -> None:
            entry = src.stat(key)
            failpoint.reach("directory.before")
            dst.set_directory_meta(key, meta_for(dst, entry, src.meta(entry), job.perms))
            failpoint.reach("directory.after")

        try:
            retry(unit, "a directory's time", stopping=stopping, final=(SourceChanged,))
        except (NotFound, SourceChanged):
            pass  # removed since it was listed
        except AdsmigError as exc:
            failures.append(failed(exc, Entry(key, 0, 0, 0), stopping))

    def release() -> None:
        src.release()
        dst.release()

    def depth(key: bytes) -> int:
        return key.count(b"/")

    for _, level in groupby(sorted(keys, key=depth, reverse=True), depth):
        if job.is_local:
            for key in level:
                finish(key)
        else:
            _crew_for(job).each(level, finish, release)
    dst.sync()
    return failures


def abort_upload(job: Job, key: bytes, upload_id: str) -> None:
    """Removes what an upload that will not be finished has left at the destination."""
    storages(job)[1].abort(job.dst_key(key), upload_id)


def _crew_for(job: Job, first: int = FILES) -> Crew:
    """The process's threads, ``first`` at first; kept from slice to slice.

    Those for files, parts and removals are others, unless their number is given.
    """
    if job.over_sftp and not job.threads:
        first = SFTP_PARTS if first == PARTS else SFTP_FILES
    elif job.is_local:
        first = LOCAL_PARTS if first == PARTS else FILES
    return _crew(job.threads_per_worker, first, job.over_sftp)


@lru_cache(maxsize=3)
def _crew(count: int | None, first: int, dear: bool) -> Crew:
    return Crew(count, first, dear, DEPTH)


@lru_cache(maxsize=1)
def _probers() -> ThreadPoolExecutor:
    """Threads that ask a store where keys are; each keeps its connection."""
    return ThreadPoolExecutor(WAYS, "probe")


def forget() -> None:
    """Drops what this process keeps between slices, at the end of a run."""
    scan.forget()
    _probers.cache_clear()
    _crew.cache_clear()


def _stopping(limits: Limits | None) -> Callable[[], bool]:
    return limits.stopping if limits else never
