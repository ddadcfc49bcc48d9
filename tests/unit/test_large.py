"""Large objects under way: what is believed of one that is put together anew."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from adsmig import session, worker
from adsmig.errors import Unreachable
from adsmig.job import Job
from adsmig.large import LargeObjects
from adsmig.manifest import Manifest
from adsmig.model import Counts, Entry, Outcome, Part, SliceResult, Upload, UploadResult
from adsmig.proof import combined_checksum
from adsmig.uri import parse

ENTRY = Entry(b"large", 20, None, 1, f"{'0' * 32}-2")
UPLOAD = Upload(ENTRY, "an id", 10)
PARTS = [Part(number, "etag", f"{number:016x}", None) for number in (1, 2)]


class Lent:
    """Takes what is lent, and keeps it in hand."""

    def __init__(self) -> None:
        self.function: Any = None
        self.arguments: tuple[Any, ...] = ()
        self.settle: Any = None
        self.died: Any = None

    def submit(self, function: Any, arguments: tuple[Any, ...], settle: Any, died: Any) -> None:
        self.function, self.arguments, self.settle, self.died = function, arguments, settle, died


def test_parts_are_read_twice_only_if_they_were_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker, "abort_upload", lambda *_: None)
    pending = SimpleNamespace(entry=ENTRY, upload=UPLOAD, parts=PARTS, tries=1)
    manifest = SimpleNamespace(
        pending_uploads=lambda: [pending],
        commit_upload=lambda *_: None,
        commit_parts=lambda *_: None,
    )
    lent, job = Lent(), Job("cp", parse("/src/"), parse("/dst/"))
    large = LargeObjects(job, cast(Manifest, manifest), 1, lent.submit, lambda *_: None)
    large.load()

    def finishing() -> Any:
        """What it is told of earlier tries."""
        assert large.lend(1, 1)
        assert lent.function is worker.finish_upload
        return lent.arguments[2]

    assert finishing() == ""
    lent.died()
    assert finishing() == "", "its worker died, and nothing was read since"
    lent.settle(UploadResult())  # it is not what the source's ETag says: from the beginning
    assert large.lend(1, 1)
    assert lent.function is worker.open_upload
    lent.settle(UploadResult(UPLOAD))
    assert large.lend(1, 1)
    assert lent.function is worker.run_parts
    parts = SimpleNamespace(parts=PARTS, failure=None, changed=False, stop=None)
    lent.settle(parts)
    assert finishing() == combined_checksum(UPLOAD, PARTS)


def test_a_retry_begins_when_uploads_that_a_cancelled_run_left_are_aborted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    aborted: list[str] = []
    reachable = False

    def abort(job: Job, key: bytes, upload_id: str) -> None:
        if not reachable:
            raise Unreachable("nobody answers")
        aborted.append(upload_id)

    monkeypatch.setattr(worker, "abort_upload", abort)
    job = Job("cp", parse("/src/"), parse("/dst/"))
    with Manifest(None) as manifest:
        manifest.set_job(job)
        run = manifest.begin_run("cp", [job.keys], job.manner)
        manifest.commit_upload(ENTRY, UPLOAD, 1)
        lost = Outcome(b"a", 1, 1, None, None, "not allowed", "denied")
        manifest.commit_slice(run.id, 1, SliceResult(b"a", True, Counts(failed=1), [lost]))
        manifest.end_run(run.id, "cancelled")
        with pytest.raises(Unreachable):
            session._retry(manifest, job)
        assert len(manifest.pending_uploads()) == len(manifest.runs()) == 1
        reachable = True
        assert session._retry(manifest, job).kind == "retry"
        assert aborted == ["an id"]
        assert manifest.pending_uploads() == []
