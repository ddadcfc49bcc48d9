"""What is stored of the files that a killed mount has left."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import pytest

from adsmig.errors import ObjectError
from adsmig.model import Entry, Meta, Part, Upload
from adsmig.mount.draft import Draft
from adsmig.mount.recovery import recover
from adsmig.mount.store import Store
from adsmig.providers import AWS
from tests.unit.mount.mounted import PAGE, Bucket

CONTENT = b"x" * (2 * PAGE) + b"end"


class Begun(Bucket):
    """Whose objects have what was said when their uploads were begun, as S3's."""

    def __init__(self) -> None:
        super().__init__()
        self.profile.etag = AWS
        self._begun = Meta()

    def begin_upload(self, key: bytes, entry: Entry, meta: Meta, crc32: bool = False) -> Upload:
        self._begun = meta
        return super().begin_upload(key, entry, meta, crc32)

    def complete(self, key: bytes, upload: Upload, parts: Sequence[Part], meta: Meta) -> str | None:
        return super().complete(key, upload, parts, self._begun)


@pytest.fixture
def bucket() -> Bucket:
    return Begun()


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


@pytest.mark.parametrize("timed", [False, True])
@pytest.mark.parametrize("completed", [False, True])
@pytest.mark.parametrize("key", [b"file", b"renamed"])
def test_a_large_file_has_the_mode_and_the_time_that_were_chosen_after_its_upload_was_begun(
    bucket: Bucket, store: Store, tmp_path: Path, timed: bool, completed: bool, key: bytes
) -> None:
    draft = leave(store, tmp_path, sent=PAGE)
    assert draft.upload
    draft.timed = timed
    draft.note(key, Meta(5, 0o600, 1, 2))
    if completed:
        for number, size in ((2, PAGE), (3, 3)):
            draft.parts[number] = store.put_part(draft.upload, number, draft.fd, size)
        store.complete(draft.upload, list(draft.parts.values()), len(CONTENT), Meta())
    recover(store, tmp_path / "drafts", tmp_path / "kept")
    assert bucket.contents() == {key.decode(): CONTENT}
    assert store.look(key).meta == Meta(5 if timed else 7, 0o600, 1, 2)
    assert not list((tmp_path / "drafts").iterdir())


@pytest.mark.parametrize("restarted", [False, True])
def test_a_new_file_that_a_restart_may_have_made_short_is_called_so(
    bucket: Bucket, store: Store, tmp_path: Path, restarted: bool
) -> None:
    draft = leave(store, tmp_path)
    draft.upload = None
    draft.note(b"file", Meta())
    if restarted:
        (journal,) = (tmp_path / "drafts").glob("*.json")
        journal.write_text(json.dumps(json.loads(journal.read_text()) | {"boot": "another"}))
        os.truncate(draft.path, PAGE)
    (said,) = recover(store, tmp_path / "drafts", tmp_path / "kept")
    assert ("may be short" in said) == restarted
    assert bucket.contents() == {"file": CONTENT[: PAGE if restarted else None]}


@pytest.mark.parametrize("sent", [0, PAGE])
def test_what_is_kept_leaves_no_upload_of_which_all_is_here(
    bucket: Bucket, store: Store, tmp_path: Path, sent: int
) -> None:
    leave(store, tmp_path, sent)
    bucket.put(b"file", b"theirs")
    (said,) = recover(store, tmp_path / "drafts", tmp_path / "kept")
    assert "was changed at the store, too" in said
    assert bucket.contents() == {"file": b"theirs"}
    assert bool(list(bucket.uploads())) == bool(sent)
