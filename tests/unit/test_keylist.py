"""Lists of keys: sorted once, looked up by range."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adsmig.errors import AdsmigError, UsageError
from adsmig.keylist import KeyList, check_names, copy_names, is_stream, sort_keys
from adsmig.model import EVERYTHING, KeyRange

KEYS = st.binary(min_size=1, max_size=6).filter(
    lambda key: b"\n" not in key and not key.endswith(b"\r") and key[:1] not in (b"#", b";")
)


def listed(tmp_path: Path, content: bytes, as_paths: bool = False) -> list[bytes]:
    (tmp_path / "names").write_bytes(content)
    sort_keys(str(tmp_path / "names"), str(tmp_path / "keys"), as_paths)
    return list(KeyList(str(tmp_path / "keys")).keys(EVERYTHING))


def test_keys_come_in_byte_order_each_once(tmp_path: Path) -> None:
    content = "b\na\n\ue000\n💥\na/b\na-b\na\n".encode()
    assert listed(tmp_path, content) == [
        b"a", b"a-b", b"a/b", b"b", "\ue000".encode(), "💥".encode()
    ]  # fmt: skip


def test_blank_lines_and_comments_are_no_keys(tmp_path: Path) -> None:
    content = b"\n# a comment\n;another\n\r\na\r\n a#b \nno end of line"
    assert listed(tmp_path, content) == [b" a#b ", b"a", b"no end of line"]


def test_what_find_writes_names_keys_of_a_directory(tmp_path: Path) -> None:
    content = b"./a\n/b\n.//./c/d\n.hidden\n../e\n.\n./\n"
    assert listed(tmp_path, content, as_paths=True) == [b".", b"../e", b".hidden", b"a", b"b",
                                                        b"c/d"]  # fmt: skip
    assert listed(tmp_path, b"./a\n/b\n") == [b"./a", b"/b"]  # in an object store, they are keys


@pytest.mark.parametrize("content", [b"", b"\n\n", b"# nothing\n"])
def test_a_list_of_nothing_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UsageError, match="names no keys"):
        listed(tmp_path, content)


def test_a_list_that_cannot_be_read_or_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read --files-from .*nothing"):
        sort_keys(str(tmp_path / "nothing"), str(tmp_path / "keys"), False)
    (tmp_path / "names").write_bytes(b"a\n")
    with pytest.raises(AdsmigError, match=r"cannot write .*missing/keys"):
        sort_keys(str(tmp_path / "names"), str(tmp_path / "missing" / "keys"), False)


def test_what_can_be_read_only_once_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    once = ["-", "/dev/stdin", "/dev/fd/63", "/proc/self/fd/11"]
    assert [name for name in once if not is_stream(name)] == []
    files = ["", "list", "./-", str(tmp_path), str(tmp_path / "file"), str(tmp_path / "missing")]
    assert [name for name in files if is_stream(name)] == []


def test_a_copy_is_whole_and_the_users_alone(tmp_path: Path) -> None:
    (tmp_path / "names").write_bytes(b"a\n\xff\n")
    copy_names(str(tmp_path / "names"), str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == b"a\n\xff\n"
    assert stat.S_IMODE((tmp_path / "copy").stat().st_mode) == 0o600
    with pytest.raises(UsageError, match=r"cannot read --files-from .*missing"):
        copy_names(str(tmp_path / "missing"), str(tmp_path / "copy"))
    with pytest.raises(AdsmigError, match="cannot copy --files-from"):
        copy_names(str(tmp_path / "names"), str(tmp_path / "missing" / "copy"))
    assert sorted(os.listdir(tmp_path)) == ["copy", "names"]


def test_a_list_that_cannot_be_read_is_known_before_anything_is_done(tmp_path: Path) -> None:
    for name in (tmp_path / "missing", tmp_path):
        with pytest.raises(UsageError, match="cannot read --files-from"):
            check_names(str(name))


def test_a_list_is_called_what_the_user_called_it(tmp_path: Path) -> None:
    (tmp_path / "names").write_bytes(b"")
    with pytest.raises(UsageError, match=r"^--files-from - names no keys"):
        sort_keys(str(tmp_path / "names"), str(tmp_path / "keys"), False, called="-")


def test_the_sorted_file_is_the_users_alone(tmp_path: Path) -> None:
    listed(tmp_path, b"a\n")
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o600


@given(
    st.sets(KEYS, min_size=1, max_size=20),
    st.lists(
        st.builds(
            KeyRange, st.binary(max_size=6), st.none() | st.binary(max_size=6), st.booleans()
        ),
        max_size=10,
    ),
)
@settings(max_examples=200)
def test_a_range_holds_what_a_sorted_list_holds(keys: set[bytes], ranges: list[KeyRange]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        names, path = f"{directory}/names", f"{directory}/keys"
        with open(names, "wb") as file:
            file.writelines(key + b"\n" for key in keys)
        sort_keys(names, path, False)
        found = KeyList(path)
        assert list(found.keys(EVERYTHING)) == sorted(keys)
        # Ranges that begin at, and just before and after, each key.
        for key in sorted(keys):
            ranges = [
                *ranges, KeyRange(key), KeyRange(key, key, True), KeyRange(key, None, True),
                KeyRange(key[:-1], key), KeyRange(key + b"\0"),
            ]  # fmt: skip
        for within in ranges:
            assert list(found.keys(within)) == [key for key in sorted(keys) if key in within]
        for key in [*keys, *(key[:-1] for key in keys), *(key + b"x" for key in keys), b""]:
            assert (key in found) == (key in keys)
