"""CRC-32s as stores write them, and those of parts made one."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from isal import isal_zlib

from adsmig.checksum import crc32_in, crc32_text, joined_crc32

MIB = 1 << 20


def test_its_text_is_four_bytes_in_base64_the_highest_first() -> None:
    # The check value of CRC-32/ISO-HDLC (reveng.sourceforge.io/crc-catalogue/17plus.htm).
    assert zlib.crc32(b"123456789") == 0xCBF43926
    assert crc32_text(0xCBF43926) == "y/Q5Jg=="
    assert crc32_text(0) == "AAAAAA=="


@pytest.mark.parametrize("text", ["y/Q5Jg==", "AAAAAA=="])
def test_the_text_of_a_whole_is_taken_as_it_is(text: str) -> None:
    assert crc32_in(text) == text


@pytest.mark.parametrize(
    "text", [None, "", "y/Q5Jg==-3", "y/Q5Jg", "AAAA", "AAAAAAAA", "é", "y/Q5Jg==\n"]
)
def test_other_texts_are_none(text: str | None) -> None:
    assert crc32_in(text) is None


@given(st.lists(st.binary(max_size=300), max_size=8))
def test_those_of_parts_make_that_of_the_whole(parts: list[bytes]) -> None:
    given = [(crc32_text(zlib.crc32(part)), len(part)) for part in parts]
    assert joined_crc32(given) == crc32_text(zlib.crc32(b"".join(parts)))


def test_parts_may_be_long() -> None:
    parts = [bytes([number]) * (3 * MIB + number) for number in range(4)]
    given = [(crc32_text(zlib.crc32(part)), len(part)) for part in parts]
    assert joined_crc32(given) == crc32_text(zlib.crc32(b"".join(parts)))


def test_parts_may_be_as_long_as_any_store_takes_them() -> None:
    zeros, first = bytes(MIB), b"what comes before"
    part, whole = 0, zlib.crc32(first)
    for _ in range(5 << 10):  # 5 GiB
        part, whole = isal_zlib.crc32(zeros, part), isal_zlib.crc32(zeros, whole)
    given = [(crc32_text(zlib.crc32(first)), len(first)), (crc32_text(part), 5 << 30)]
    assert joined_crc32(given) == crc32_text(whole)


def test_one_that_is_not_known_leaves_the_whole_unknown() -> None:
    assert joined_crc32([("y/Q5Jg==", 9), (None, 9)]) is None
