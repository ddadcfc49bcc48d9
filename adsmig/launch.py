"""Starts jobs as processes of their own, which outlive who started them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

WORD = "ADSMIG_WORD_FILE"
"""The variable with the file in which a process is to leave word of itself; see :func:`tell`."""


def launch(
    arguments: Sequence[str],
    output: Path,
    secrets: Mapping[str, str] | None = None,
    keep: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """``adsmig ARGUMENTS...`` in a session of its own, with nothing to read from.

    What it prints goes to the end of ``output``, a file that only its owner can read.  ``secrets``
    are variables added to its environment, where other users cannot see them, as they could see
    arguments.  ``keep`` are open files that it has, too, under the same numbers.  The caller waits
    for it, or does not: it needs nobody.
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
            pass_fds=keep,
        )


_facts: dict[str, Any] = {}
"""All that was told."""


def tell(**facts: Any) -> None:
    """Leaves word of this process, besides what it told before, to whoever launched it with
    ``WORD`` among ``secrets``.
    """
    if not (name := os.environ.get(WORD)):
        return
    _facts.update(facts)
    with contextlib.suppress(OSError):  # the job is what counts
        with open(f"{name}.new", "w", encoding="utf-8", opener=_private) as file:
            json.dump(_facts, file)
        os.replace(f"{name}.new", name)


def told(path: Path) -> dict[str, Any]:
    """What was left there; nothing, if nothing was."""
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
