"""What a directory knows of its names."""

from __future__ import annotations

from adsmig.mount.nodes import Defaults, Directory, Nodes, forget_listing


def listed(*names: bytes) -> Directory:
    root = Nodes(Defaults(0, 0, 0)).root
    root.listed = dict.fromkeys(names)
    return root


def test_names_come_in_their_order_from_the_one_that_is_asked_for() -> None:
    directory = listed(b"b", b"a", b"c")
    assert list(directory.names_from(None)) == [b"b", b"a", b"c"]
    assert list(directory.names_from(b"a")) == [b"a", b"c"]
    assert list(directory.names_from(b"x")) == []


def test_a_name_that_was_removed_since_is_not_among_them() -> None:
    directory = listed(b"a", b"b", b"c")
    rest = directory.names_from(b"a")
    forget_listing(directory, b"b")
    assert list(rest) == [b"a", b"c"]
    assert list(directory.names_from(b"b")) == [b"c"]
