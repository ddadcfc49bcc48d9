"""Answers of SFTP servers, whole and damaged."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsmig.storage.sftppacket import (
    ATTRS,
    DATA,
    EXTENDED_REPLY,
    HANDLE,
    HELLO,
    NAME,
    STATUS,
    Named,
    Status,
    attributes,
    code_of,
    data_of,
    extensions_of,
    handle_of,
    limits_of,
    name_of,
    names_of,
    refusal,
    room_of,
    status_of,
    text,
)

HEAD = b"\0\0\0\1"
ATTRIBUTES = attributes(0o100644, 5 * 10**9, (1, 2), 7)
STATUS_OF = Status(0o100644, 7, 5 * 10**9, 1, 2)

WHOLE: list[tuple[Callable[[bytes], object], bytes, object]] = [
    (code_of, bytes([STATUS]) + HEAD + struct.pack(">I", 4), 4),
    (handle_of, bytes([HANDLE]) + HEAD + text(b"handle"), b"handle"),
    (data_of, bytes([DATA]) + HEAD + text(b"content"), b"content"),
    (limits_of, bytes([EXTENDED_REPLY]) + HEAD + struct.pack(">4Q", 1, 2, 3, 4), (2, 3, 4)),
    (
        room_of,
        bytes([EXTENDED_REPLY]) + HEAD + struct.pack(">11Q", 1, 512, 3, 4, 5, 6, 7, 8, 0, 0, 0),
        (5 * 512, True),
    ),
    (
        extensions_of,
        bytes([HELLO]) + struct.pack(">I", 3) + text(b"a") + text(b"1") + text(b"b") + text(b"2"),
        {b"a": b"1", b"b": b"2"},
    ),
    (status_of, bytes([ATTRS]) + HEAD + ATTRIBUTES, STATUS_OF),
    (
        names_of,
        bytes([NAME]) + HEAD + struct.pack(">I", 1) + text(b"name") + text(b"long") + ATTRIBUTES,
        [Named(b"name", STATUS_OF)],
    ),
    (
        name_of,
        bytes([NAME]) + HEAD + struct.pack(">I", 1) + text(b"name") + text(b"") + bytes(4),
        b"name",
    ),
]

packets = pytest.mark.parametrize(("parse", "packet", "told"), WHOLE)


@packets
def test_a_whole_answer_is_what_it_says(
    parse: Callable[[bytes], object], packet: bytes, told: object
) -> None:
    assert parse(packet) == told


@packets
def test_an_answer_that_is_cut_off_anywhere_is_an_error(
    parse: Callable[[bytes], object], packet: bytes, told: object
) -> None:
    ends = {room_of: range(5 + 8 * 8, len(packet)), extensions_of: (*range(1, 6), 15)}
    for size in range(1, len(packet)):
        if size not in ends.get(parse, ()):  # where it may end as well
            with pytest.raises(OSError, match="malformed"):
                parse(packet[:size])


def test_a_name_that_is_shorter_than_it_says_is_no_other_name() -> None:
    packet = bytes([NAME]) + HEAD + struct.pack(">I", 1) + struct.pack(">I", 9) + b"name"
    with pytest.raises(OSError, match="malformed"):
        names_of(packet)


def test_bytes_that_are_not_as_many_as_it_says_are_no_content() -> None:
    whole = bytes([DATA]) + HEAD + text(b"content")
    for packet in (whole[:-1], whole + b"!"):
        with pytest.raises(OSError, match="malformed"):
            data_of(packet)


def test_an_answer_of_no_name_names_nothing() -> None:
    with pytest.raises(OSError, match="malformed"):
        name_of(bytes([NAME]) + HEAD + bytes(4))


@given(st.sampled_from(WHOLE), st.data())
def test_whatever_an_answer_holds_nothing_but_an_oserror_comes_of_it(
    one: tuple[Callable[[bytes], object], bytes, object], data: st.DataObject
) -> None:
    parse, packet, _ = one
    at = data.draw(st.integers(1, len(packet) - 1))
    damaged = packet[:at] + data.draw(st.binary(max_size=8)) + packet[at + 1 :]
    with contextlib.suppress(OSError):
        parse(damaged)
    assert refusal(4, damaged).strerror
