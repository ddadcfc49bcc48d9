"""Starts jobs as processes of their own, which outlive who started them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


def launch(
    arguments: Sequence[str], output: Path, secrets: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """``adsmig ARGUMENTS...`` in a session of its own, with nothing to read from.

    What it prints goes to the end of ``output``, a file that only its owner can read.  ``secrets``
    are variables added to its environment, where other users cannot see them, as they could see
    arguments.  The caller waits for it, or does not: it needs nobody.
    """
    with open(output, "ab", opener=_private) as file:
        return subprocess.Popen(
            [sys.executable, "-m", "adsmig", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            cwd="/",  # where nobody's files can be imported by chance, and no disk is kept busy
            env={**os.environ, **(secrets or {})},
            start_new_session=True,
        )


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
