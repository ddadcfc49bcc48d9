"""The README's table of promises names tests that are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
SECTION = re.search(
    r"^What holds the promises\n-+\n(.*?)^={5,}.*?^={5,}.*?\n(.*?)^={5,}",
    (TOP / "README.rst").read_text(),
    re.DOTALL | re.MULTILINE,
)
assert SECTION
ROWS = re.findall(r"``(tests/[\w/]+\.py)``:|``(\w+)``,?$", SECTION[2], re.MULTILINE)


def named() -> list[tuple[str, str]]:
    """Files and tests, as the table has them."""
    found, file = [], ""
    for path, test in ROWS:
        file = path or file
        if test:
            found.append((file, test))
    return found


def test_every_file_of_the_table_has_tests_in_it() -> None:
    assert len(named()) > 40
    assert {path for path, _ in ROWS if path} == {path for path, _ in named()}


@pytest.mark.parametrize("path", sorted({path for path, _ in named()}))
def test_every_test_of_the_table_is_there(path: str) -> None:
    tree = ast.parse((TOP / path).read_text())
    there = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    there |= {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    assert {test for at, test in named() if at == path} <= there


def test_every_test_of_security_is_in_the_table() -> None:
    files = {
        path.relative_to(TOP).as_posix() for path in (TOP / "tests/security").glob("test_*.py")
    }
    assert files <= {path for path, _ in named()}
