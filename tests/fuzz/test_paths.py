"""Keys as paths: each comes back as it was, or is refused; none leads out of the directory."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from adsmig.errors import ObjectError
from adsmig.location import Location
from adsmig.model import EVERYTHING, Meta
from adsmig.storage.local import LocalStorage
from adsmig.storage.paths import names_of
from tests.storage.support import Options

NAMES = st.sampled_from([
    b"a", b"b", b"..", b".", b"", b"...", b"..a", b"a\\..\\b", b"\\", b"\xff", b"%2F", b"~",
    b"nul\0", b" ", b"\n", b"-rf", b"*", b"n" * 255, b"n" * 256, b".adsmig-x", b"link",
    b"etc", b"\xc3\xa9",
]) | st.binary(max_size=3)  # fmt: skip
KEYS = st.lists(NAMES, max_size=5).map(b"/".join) | st.binary(max_size=12)


@given(st.lists(KEYS, min_size=1, max_size=6), st.sampled_from(["copy", "follow"]))
def test_keys_come_back_or_are_refused_and_stay_inside(keys: list[bytes], links: str) -> None:
    with tempfile.TemporaryDirectory() as top:
        root, outside = Path(top, "root"), Path(top, "outside")
        for one in (root, outside):
            one.mkdir()
        (root / "link").symlink_to(outside)
        at = Location("file", os.fsencode(root))
        storage = LocalStorage(at, Options(links=links), destination=True)
        storage.prepare()
        written = {}
        for number, key in enumerate(keys):
            content = b"" if key.endswith(b"/") or not key else b"%d" % number
            with contextlib.suppress(ObjectError):
                storage.write(key, iter([memoryview(content)]), len(content), Meta())
                written[key] = content
                assert not storage.problem(key)
                assert b"/".join(names_of(key)) == key.removesuffix(b"/")
        if len(keys) == 1 and not storage.problem(keys[0]) and not keys[0].startswith(b"link"):
            assert written
        storage.tidy()
        assert os.listdir(outside) == []
        assert sorted(os.listdir(top)) == ["outside", "root"]
        seen = {
            entry.key: b"" if entry.key.endswith(b"/") else read(storage, root, entry.key)
            for entry in storage.list(EVERYTHING)
            if entry.link is None and not entry.implied and entry.key != b"link/"
        }
        wanted = {key: content for key, content in written.items() if key}
        # A directory that got content is no entry of its own any more.
        wanted = {k: c for k, c in wanted.items() if not k.endswith(b"/") or k in seen}
        assert seen == wanted


def read(storage: LocalStorage, root: Path, key: bytes) -> bytes:
    path = os.path.join(os.fsencode(root), key)
    assert os.path.realpath(path).startswith(os.fsencode(os.path.realpath(root)) + b"/")
    with open(path, "rb") as file:
        return file.read()
