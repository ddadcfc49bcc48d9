"""Nothing is removed unless what made that right is still so."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import pytest

from adsmig import retry
from adsmig.comparison import time_of
from adsmig.crew import Crew, Work
from adsmig.errors import AdsmigError, ObjectError, TransientError, Unreachable
from adsmig.location import Location
from adsmig.model import EVERYTHING, Deletion, Entry, Meta
from adsmig.removal import Copies, remove
from adsmig.storage.local import LocalStorage
from adsmig.storage.memory import MemoryStorage
from adsmig.uri import parse
from tests.storage.support import Options


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "wait", lambda seconds, stopping: None)


def objects(prefix: bytes = b"") -> MemoryStorage:
    return MemoryStorage(Location("memory", prefix, bucket=uuid.uuid4().hex))


def files(path: Path, destination: bool = False, **options: Any) -> LocalStorage:
    path.mkdir(exist_ok=True)
    return LocalStorage(parse(f"{path}/"), Options(**options), destination)


class Failing:
    """A storage of which some methods raise."""

    def __init__(self, storage: Any, **errors: Exception) -> None:
        self._storage, self._errors = storage, errors

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._storage, name)
        if name not in self._errors:
            return found

        def call(*_: Any) -> Any:
            raise self._errors[name]

        return call


def put(storage: Any, key: bytes, content: bytes = b"content") -> Entry:
    storage.write(key, iter([memoryview(content)]), len(content), Meta())
    return storage.stat(key)  # type: ignore[no-any-return]


def noted(entry: Entry, at_source: bool, checked: bool = True) -> Deletion:
    return Deletion(entry.key, entry.size, time_of(entry), entry.etag, at_source, checked)


def keys_of(storage: Any) -> list[bytes]:
    return [entry.key for entry in storage.list(EVERYTHING)]


HERE, IN_THREADS = Crew(1), Crew(4)


# At the source


@pytest.mark.parametrize("crew", [HERE, IN_THREADS], ids=["here", "in threads"])
def test_what_is_still_as_it_was_copied_goes(crew: Crew) -> None:
    src = objects()
    entries = [put(src, b"%d" % number) for number in range(50)]
    put(src, b"other")
    deletions = [noted(entry, True) for entry in entries[::2]]
    gone, problems = remove(src, src, deletions, bytes, crew)
    assert gone == [one.key for one in deletions]
    assert problems == {}
    assert keys_of(src) == sorted([b"other", *(entry.key for entry in entries[1::2])])


@pytest.mark.parametrize("content", [b"another", b"longer content"])
def test_what_changed_after_it_was_copied_stays_and_is_told(content: bytes) -> None:
    src = objects()
    deletions = [noted(put(src, b"a"), True), noted(put(src, b"b"), True)]
    put(src, b"a", content)
    gone, problems = remove(src, src, deletions, bytes, HERE)
    assert (gone, list(problems)) == ([b"b"], [b"a"])
    assert "changed after it had been copied" in problems[b"a"]
    assert keys_of(src) == [b"a"]


def test_a_file_that_was_written_again_stays_even_if_only_its_time_tells(tmp_path: Path) -> None:
    src = files(tmp_path)
    entry = put(src, b"a")
    os.utime(tmp_path / "a", ns=(0, (entry.mtime_ns or 0) + 1))
    gone, problems = remove(src, src, [noted(entry, True)], bytes, HERE)
    assert (gone, list(problems)) == ([], [b"a"])
    assert (tmp_path / "a").exists()


def test_a_store_that_tells_whole_seconds_later_is_believed() -> None:
    src = objects()
    entry = put(src, b"a")
    listed = noted(entry, True)._replace(time_ns=entry.stored_ns // 10**9 * 10**9 + 999_999_999)
    assert remove(src, src, [listed], bytes, HERE) == ([b"a"], {})


def test_what_is_gone_already_counts_as_gone(tmp_path: Path) -> None:
    for src in (objects(), files(tmp_path)):
        entry = put(src, b"a")
        src.delete([b"a"])
        assert remove(src, src, [noted(entry, True)], bytes, HERE) == ([b"a"], {})


def test_a_file_in_whose_place_a_directory_is_stays_with_all_in_it(tmp_path: Path) -> None:
    src = files(tmp_path)
    entry = put(src, b"a")
    (tmp_path / "a").unlink()
    put(src, b"a/b")
    remove(src, src, [noted(entry, True)], bytes, HERE)
    assert (tmp_path / "a" / "b").exists()


def test_a_directory_that_was_filled_meanwhile_stays(tmp_path: Path) -> None:
    src = files(tmp_path)
    entry = put(src, b"d/", b"")
    put(src, b"d/new")
    remove(src, src, [noted(entry, True)], bytes, HERE)
    assert (tmp_path / "d" / "new").exists()


def test_a_link_goes_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    src = files(tmp_path / "src", links="copy")
    (tmp_path / "precious").write_bytes(b"1")
    (tmp_path / "src" / "l").symlink_to(tmp_path / "precious")
    entry = src.stat(b"l")
    assert remove(src, src, [noted(entry, True)], bytes, HERE) == ([b"l"], {})
    assert (tmp_path / "precious").exists()


def test_a_link_that_leads_elsewhere_by_now_stays(tmp_path: Path) -> None:
    src = files(tmp_path, links="copy")
    (tmp_path / "l").symlink_to("one")
    entry = src.stat(b"l")
    (tmp_path / "l").unlink()
    (tmp_path / "l").symlink_to("two")
    gone, problems = remove(src, src, [noted(entry, True)], bytes, HERE)
    assert (gone, list(problems)) == ([], [b"l"])


# At the destination


@pytest.mark.parametrize("crew", [HERE, IN_THREADS], ids=["here", "in threads"])
def test_what_came_back_at_the_source_stays_and_is_no_failure(crew: Crew) -> None:
    src, dst = objects(), objects()
    deletions = [noted(put(dst, b"%d" % number), False) for number in range(50)]
    put(src, b"7")
    gone, problems = remove(src, dst, deletions, bytes, crew)
    assert (gone, problems) == ([one.key for one in deletions if one.key != b"7"], {})
    assert keys_of(dst) == [b"7"]


def test_a_directory_stays_while_the_source_has_something_below_it(tmp_path: Path) -> None:
    src, dst = objects(), files(tmp_path, destination=True)
    deletion = noted(put(dst, b"d/", b""), False)
    put(src, b"d/x")
    assert remove(src, dst, [deletion], bytes, HERE) == ([], {})
    assert (tmp_path / "d").is_dir()
    src.delete([b"d/x"])
    put(src, b"d0")
    assert remove(src, dst, [deletion], bytes, HERE) == ([b"d/"], {})
    assert not (tmp_path / "d").exists()


def test_directories_go_after_what_is_in_them(tmp_path: Path) -> None:
    src, dst = objects(), files(tmp_path, destination=True)
    put(dst, b"d/e/x")
    deletions = [noted(dst.stat(key), False) for key in (b"d/", b"d/e/", b"d/e/x")]
    gone, problems = remove(src, dst, deletions, bytes, HERE)
    assert (sorted(gone), problems) == ([b"d/", b"d/e/", b"d/e/x"], {})
    assert not (tmp_path / "d").exists()


def test_a_key_that_the_source_could_not_have_is_not_looked_up_there(tmp_path: Path) -> None:
    src, dst = files(tmp_path), objects()
    deletions = [noted(put(dst, key), False) for key in (b"a//b", b"../x", b"d/./y")]
    gone, problems = remove(src, dst, deletions, bytes, HERE)
    assert (gone, problems) == ([one.key for one in deletions], {})


def test_a_single_object_goes_under_its_name_at_the_destination() -> None:
    src, dst = objects(), objects()
    entry = put(dst, b"new name")._replace(key=b"name")
    put(dst, b"name")
    gone, problems = remove(src, dst, [noted(entry, False)], lambda _: b"new name", HERE)
    assert (gone, problems) == ([b"name"], {})
    assert keys_of(dst) == [b"name"]


@pytest.mark.parametrize("links", ["record", "follow"])
def test_what_lies_behind_a_link_of_the_source_is_not_known_to_be_absent(
    tmp_path: Path, links: str
) -> None:
    src, dst = files(tmp_path / "src", links=links), objects()
    if links == "record":
        (tmp_path / "elsewhere").mkdir()
    (tmp_path / "src" / "d").symlink_to(tmp_path / "elsewhere")
    deletion = noted(put(dst, b"d/x"), False)
    gone, _ = remove(src, dst, [deletion], bytes, HERE)
    assert gone == []
    assert keys_of(dst) == [b"d/x"]


# What cannot be told


@pytest.mark.parametrize("at_source", [True, False])
@pytest.mark.parametrize(
    "error", [ObjectError("denied", "not allowed"), TransientError("it answered with 500")]
)
def test_what_cannot_be_looked_up_at_the_source_stays_and_others_go(
    at_source: bool, error: AdsmigError
) -> None:
    src, dst = objects(), objects()
    side = src if at_source else dst
    deletions = [noted(put(side, b"a"), at_source), noted(put(side, b"b"), at_source, False)]
    broken: Any = Failing(src, stat=error)
    gone, problems = remove(broken, side, deletions, bytes, HERE)
    assert gone == [b"b"]
    assert problems == {b"a": f"it cannot be looked up at the source: {error}"}
    assert keys_of(side) == [b"a"]


@pytest.mark.parametrize("at_source", [True, False])
@pytest.mark.parametrize(
    ("method", "error"),
    [("stat", Unreachable("nobody")), ("prepare", TransientError("it answered with 500"))],
)
def test_nothing_goes_while_the_source_does_not_answer(
    at_source: bool, method: str, error: AdsmigError
) -> None:
    src, dst = objects(), objects()
    side = src if at_source else dst
    deletions = [noted(put(side, b"a"), at_source), noted(put(side, b"b"), at_source, False)]
    silent: Any = Failing(src, **{method: error})
    with pytest.raises(type(error)):
        remove(silent, side, deletions, bytes, HERE)
    assert keys_of(side) == [b"a", b"b"]


@pytest.mark.parametrize("when", ["before", "while it is asked"])
def test_nothing_goes_once_the_source_is_unmounted(tmp_path: Path, when: str) -> None:
    root, dst = tmp_path / "src", objects()
    root.mkdir()
    status = root.stat()
    src = files(root, identities=((status.st_dev, status.st_ino), None))
    deletion = noted(put(dst, b"a"), False)

    def unmount() -> None:
        shutil.move(root, tmp_path / "away")
        root.mkdir()

    class Late(Crew):
        def run(self, work: Work) -> None:
            if when != "before":
                unmount()
            super().run(work)

    if when == "before":
        unmount()
    with pytest.raises(AdsmigError, match="unmounted"):
        remove(src, dst, [deletion], bytes, Late(1))
    assert keys_of(dst) == [b"a"]


def test_what_the_storage_does_not_remove_is_told_with_its_reason() -> None:
    dst = objects()

    class Stubborn(Failing):
        def delete(self, keys: list[bytes]) -> dict[bytes, str]:
            dst.delete([key for key in keys if key != b"b"])
            return {b"b": "it is locked"}

    deletions = [noted(put(dst, key), False) for key in (b"a", b"b", b"c")]
    side: Any = Stubborn(dst)
    assert remove(objects(), side, deletions, bytes, HERE) == (
        [b"a", b"c"], {b"b": "it is locked"}
    )  # fmt: skip


def test_what_needs_no_check_is_removed_without_one() -> None:
    side = objects()
    unseen: Any = Failing(side, stat=AssertionError("looked up"))
    deletions = [noted(put(side, b"a"), True, False), noted(put(side, b"b"), True, False)]
    put(side, b"a", b"another")
    assert remove(unseen, side, deletions, bytes, HERE) == ([b"a", b"b"], {})


def test_nothing_to_remove_is_nothing_asked() -> None:
    src, dst = objects(), objects()
    put(src, b"a")
    side: Any = Failing(dst, delete=AssertionError("asked"))
    assert remove(src, side, [noted(put(dst, b"a"), False)], bytes, HERE) == ([], {})


@pytest.mark.parametrize(
    ("error", "raised"), [(TransientError("500"), False), (Unreachable("nobody"), True)]
)
def test_what_has_a_copy_that_cannot_be_looked_up_stays(error: AdsmigError, raised: bool) -> None:
    src, dst = objects(), objects()
    deletion = noted(put(src, b"a"), True)
    copies = Copies(Failing(dst, missing=error), bytes)
    if raised:
        with pytest.raises(type(error)):
            remove(src, src, [deletion], bytes, HERE, copies)
    else:
        gone, problems = remove(src, src, [deletion], bytes, HERE, copies)
        assert (gone, problems) == ([], {b"a": f"its copy cannot be looked up: {error}"})
    assert keys_of(src) == [b"a"]
