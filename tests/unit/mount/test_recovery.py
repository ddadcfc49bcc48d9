"""What is stored of the files that a killed mount has left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from adsmig.errors import ObjectError
from adsmig.model import Meta
from adsmig.mount.draft import Draft
from adsmig.mount.recovery import recover
from adsmig.mount.store import Store
from tests.unit.mount.test_changes import PAGE, Bucket

CONTENT = b"x" * (2 * PAGE) + b"end"


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


@pytest.fixture
def store(bucket: Bucket) -> Iterator[Store]:
    store = Store(bucket)  # type: ignore[arg-type]
    yield store
    store.close()


def leave(store: Store, path: Path, sent: int = 0) -> Draft:
    """A large file of which some parts are stored; the first ``sent`` bytes are there only."""
    drafts = path / "drafts"
    drafts.mkdir()
    draft = Draft(drafts, None)
    draft.write(0, CONTENT)
    draft.upload = store.begin(b"file", Meta(7, 0o644, 0, 0), PAGE)
    draft.parts = {1: store.put_part(draft.upload, 1, draft.fd, PAGE)}
    draft.sent = sent
    draft.written_ns = 8
    draft.note(b"file", Meta(7, 0o644, 0, 0))
    return draft


def test_an_upload_that_may_not_be_given_up_keeps_no_file_from_being_stored(
    bucket: Bucket, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> NoReturn:
        raise ObjectError("denied", "AccessDenied")

    leave(store, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(bucket, "abort", refused)
        (said,) = recover(store, tmp_path / "drafts", tmp_path / "kept")
    assert said == "file of an earlier mount is stored now"
    assert bucket.contents() == {"file": CONTENT}
    assert not list((tmp_path / "drafts").iterdir())
