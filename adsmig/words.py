"""The words of a command line: which are options, and which are the values of options."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import click


class Names(NamedTuple):
    """What options there are."""

    known: Collection[str]
    """All of them, each in all of its spellings."""
    valued: Collection[str]
    """Those that take a value."""


def names_of(parameters: Iterable[click.Parameter]) -> Names:
    """The names of those parameters that are options."""
    options = [one for one in parameters if isinstance(one, click.Option)]
    valued = [one for one in options if not one.is_flag and not one.count]
    return Names(
        {name for one in options for name in (*one.opts, *one.secondary_opts)},
        {name for one in valued for name in one.opts},
    )


def leading(words: Sequence[str], names: Names) -> tuple[list[list[str]], Sequence[str]]:
    """The options at the beginning, each apart from the others and with its value, and what
    follows them.

    ``-qp=50`` is ``-q`` and ``-p 50``, as ``--threads=50`` is ``--threads 50``; ``--end==ff``, as
    ads-cli's manual has it, is ``--end=ff``.
    """
    options: list[list[str]] = []
    at = 0
    while at < len(words) and words[at].startswith("-") and words[at] not in ("-", "--"):
        options += _apart(words[at], names)
        at += 1
        if len(options[-1]) == 1 and options[-1][0] in names.valued:
            options[-1] += words[at : at + 1]
            at += 1
    return options, words[at:]


def name_of(option: Sequence[str]) -> str:
    """The name of an option that :func:`leading` found."""
    return option[0].partition("=")[0]


def _apart(word: str, names: Names) -> list[list[str]]:
    """The options in one word, the last perhaps with a value."""
    word = re.sub(r"^(--(?:start|end))==", r"\1=", word)
    name = word.partition("=")[0]
    if name.startswith("--") or (len(name) > 2 and name in names.known):
        return [[word]]
    options = []
    for at, letter in enumerate(word[1:], 2):
        options.append([f"-{letter}"])
        if f"-{letter}" in names.valued:
            if value := word[at:]:
                options[-1].append(value.removeprefix("="))
            break
    return options
