"""The headers that an object travels with."""

from __future__ import annotations

import pytest

from adsmig.model import Meta
from adsmig.storage.s3object import SSE, headers_for, md5_of, meta_of, user_size


@pytest.mark.parametrize(
    ("kept", "sent"),
    [
        ("gzip", "gzip"),
        ("aws-chunked", None),
        ("aws-chunked,gzip", "gzip"),
        ("gzip, aws-chunked , br", "gzip, br"),
    ],
)
def test_a_way_to_send_is_no_encoding_of_the_content(kept: str, sent: str | None) -> None:
    meta = Meta(headers={"content-encoding": kept})
    assert headers_for(b"k", meta).get("content-encoding") == sent
    assert meta.headers == {"content-encoding": kept}


@pytest.mark.parametrize(
    ("etag", "md5"),
    [
        ("0cc175b9c0f1b6a831c399e269772661", "0cc175b9c0f1b6a831c399e269772661"),
        ("0CC175B9C0F1B6A831C399E269772661", "0cc175b9c0f1b6a831c399e269772661"),
        ("0cc175b9c0f1b6a831c399e269772661-2", None),
        ("0cc175b9c0f1b6a831c399e26977266", None),
        ("", None),
    ],
)
def test_an_md5_is_one_in_capitals_too(etag: str, md5: str | None) -> None:
    assert md5_of(etag, {}) == md5
    assert md5_of(etag, {SSE: "aws:kms"}) is None
    assert md5_of(etag, {"x-obs-object-type": "Appendable"}) is None


@pytest.mark.parametrize(
    ("kept", "mode"),
    [
        ("0644", 0o644),
        ("644", 0o644),
        ("4711", 0o711),
        ("100644", 0o644),  # rclone
        ("40755", 0o755),
        ("33204", 0o664),  # s3fs, in decimal
        ("33261", 0o755),
        ("33188", 0o644),
        ("16877", 0o755),
        ("10644", None),  # of a pipe
        ("999", None),
        ("1777777", None),
        ("rw-r--r--", None),
        ("", None),
    ],
)
def test_permissions_are_read_as_they_were_kept(kept: str, mode: int | None) -> None:
    assert meta_of({"x-amz-meta-mode": kept}).mode == mode


def test_user_metadata_is_counted_by_names_and_values() -> None:
    headers = headers_for(b"k", Meta(user={"a": "12345", "name": "x"}))
    assert user_size(headers) == 1 + 5 + 4 + 1
