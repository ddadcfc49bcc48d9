"""Names of files for parts of keys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsmig.mount.names import LONGEST, MARK, part_of, spelled

parts = st.binary(max_size=60) | st.sampled_from([b"", b".", b"..", MARK, MARK + b"dot", b"a\0b"])


@given(parts.filter(lambda part: b"/" not in part), st.booleans())
def test_a_part_of_a_key_is_a_name_and_comes_back(part: bytes, beside: bool) -> None:
    name = spelled(part, beside)
    assert name not in (b"", b".", b"..")
    assert len(name) <= LONGEST
    if b"\0" not in part or not beside:
        assert b"\0" not in name
        assert part_of(name) == part


@given(parts, parts)
def test_two_parts_have_two_names(one: bytes, other: bytes) -> None:
    assert (spelled(one) == spelled(other)) == (one == other)


@pytest.mark.parametrize("part", [b"x" * 256, "ü".encode() * 200, b"x" * 1000, b"\xff" * 300])
def test_a_part_that_is_too_long_has_a_name_that_only_a_listing_leads_to(part: bytes) -> None:
    name = spelled(part)
    assert len(name) <= LONGEST
    assert part_of(name) is None
    assert spelled(part + b"x") != name
