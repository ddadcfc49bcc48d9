"""Words of a command line: options are told from what they are not, and from their values."""

from __future__ import annotations

import pytest

from adsmig.words import Names, leading, name_of

NAMES = Names({"-q", "-v", "-p", "-s", "-rd", "--start", "--end", "--quiet"},
              {"-p", "-s", "-rd", "--start", "--end"})  # fmt: skip


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("-q cp", [["-q"]]),
        ("-p 5 cp", [["-p", "5"]]),
        ("-p5 cp", [["-p", "5"]]),
        ("-p=5 cp", [["-p", "5"]]),
        ("-qp 5 cp", [["-q"], ["-p", "5"]]),
        ("-qvp=5 cp", [["-q"], ["-v"], ["-p", "5"]]),
        ("-s=a=b cp", [["-s", "a=b"]]),
        ("-s==a cp", [["-s", "=a"]]),
        ("-s =a cp", [["-s", "=a"]]),
        ("-s= cp", [["-s", ""]]),
        ("-s -p cp", [["-s", "-p"]]),
        ("-s=-p cp", [["-s", "-p"]]),
        ("-s -- cp", [["-s", "--"]]),
        ("-rd f cp", [["-rd", "f"]]),
        ("-rd=f cp", [["-rd=f"]]),
        ("--start a cp", [["--start", "a"]]),
        ("--start=a --quiet cp", [["--start=a"], ["--quiet"]]),
        ("--end==ff cp", [["--end=ff"]]),
        ("--end =ff cp", [["--end", "=ff"]]),
        ("--frob -z cp", [["--frob"], ["-z"]]),
        ("cp -q", []),
        ("- cp", []),
        ("-- -q", []),
        ("-q -p", [["-q"], ["-p"]]),
    ],
)
def test_each_option_is_apart_and_has_its_value(line: str, options: list[list[str]]) -> None:
    words = line.split()
    found, rest = leading(words, NAMES)
    assert found == options
    assert rest == ([] if words[-1] == "-p" else words[-len(rest) :])
    assert leading([word for option in found for word in option], NAMES) == (found, [])


def test_the_name_of_an_option_is_what_stands_before_its_value() -> None:
    assert [name_of(one) for one in ([["--end=ff"], ["-p", "5"], ["-q"]])] == ["--end", "-p", "-q"]
