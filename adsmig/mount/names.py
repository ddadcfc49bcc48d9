"""Names of files that stand for parts of keys, where those cannot be names themselves.

A key's parts lie between its slashes.  Nearly all are their own names.  The others are spelled with
``.adsmig~`` in front, so that all of a bucket is to be seen:

====================  ====================================================
``.adsmig~empty``      nothing between two slashes, as in ``a//b``
``.adsmig~content``    what is stored under the key of its directory, ``a/``
``.adsmig~dot``        ``.``, and ``.adsmig~dotdot`` for ``..``
``.adsmig~file~NAME``  an object ``NAME`` beside objects below ``NAME/``
``.adsmig~x~NAME``     ``NAME`` with what no name can hold as ``%XX``, or one that begins with
                       ``.adsmig~`` itself
``.adsmig~long~H~N``   a name of more than 255 bytes: a hash of it, and its beginning
====================  ====================================================
"""

from __future__ import annotations

import hashlib
import re

LONGEST = 255
"""Bytes of a name; NAME_MAX of Linux."""
MARK = b".adsmig~"
_WORDS = {b"": b"empty", b".": b"dot", b"..": b"dotdot"}
CONTENT = MARK + b"content"
_PARTS = {MARK + word: part for part, word in _WORDS.items()} | {CONTENT: b""}
_BAD = re.compile(rb"[\x00%]")
_ESCAPE = re.compile(rb"%([0-9A-F]{2})")


def spelled(part: bytes, beside_directory: bool = False) -> bytes:
    """The name of a part of a key; ``beside_directory``: there is a directory of that name, too."""
    if beside_directory:
        name = MARK + b"file~" + part
    elif part in _WORDS:
        return MARK + _WORDS[part]
    elif b"\0" in part or part.startswith(MARK):
        name = MARK + b"x~" + _BAD.sub(lambda match: b"%%%02X" % match[0][0], part)
    else:
        name = part
    if len(name) <= LONGEST:
        return name
    hashed = hashlib.sha256(name).hexdigest()[:16].encode()
    start = part.replace(b"\0", b"").decode(errors="replace").encode()[:200]
    return MARK + b"long~" + hashed + b"~" + start.decode(errors="ignore").encode()


def part_of(name: bytes) -> bytes | None:
    """The part that a name stands for; None where only a listing of its directory can tell, and
    for a name that stands for nothing.
    """
    if not name.startswith(MARK):
        return name
    if name in _PARTS:
        return _PARTS[name]
    word, _, rest = name[len(MARK) :].partition(b"~")
    if word == b"file":
        return rest
    if word == b"x":
        return _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), rest)
    return None
