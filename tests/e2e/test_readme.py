"""The README knows every command and every option; help comes at once."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from adsmig.cli import cli

README = (Path(__file__).parents[2] / "README.rst").read_text()


@pytest.mark.parametrize("name", [n for n, command in cli.commands.items() if not command.hidden])
def test_every_command_is_in_the_readme(name: str) -> None:
    assert re.search(rf"``(adsmig )?{name}\b", README)


def test_every_option_is_in_the_readme() -> None:
    context = click.Context(cli)
    names = {
        name
        for command in (cli, *cli.commands.values())
        for option in command.get_params(context)
        if isinstance(option, click.Option)
        for name in (*option.opts, *option.secondary_opts)
    }
    assert len(names) > 20
    for name in sorted(names):
        assert re.search(rf"``{name}( [A-Z]+)?``", README), name


def test_version_and_help_import_nothing_heavy() -> None:
    code = (
        "import sys, adsmig.cli; adsmig.cli.run(['--version']); adsmig.cli.run(['cp', '--help']);"
        "print([m for m in ('boto3', 'paramiko', 'sqlite3', 'sqlite_utils', 'ssl', 'xxhash',"
        " 'concurrent.futures.process') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
    assert done.stdout.startswith("adsmig 0.")
