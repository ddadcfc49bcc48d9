"""The README knows every command and every option; help comes at once."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from adsmig.cli import cli

README = (Path(__file__).parents[2] / "README.rst").read_text()


@pytest.mark.parametrize("name", [n for n, command in cli.commands.items() if not command.hidden])
def test_every_command_is_in_the_readme(name: str) -> None:
    assert re.search(rf"``(adsmig )?{name}\b", README)


def commands(group: click.Group) -> Iterator[click.Command]:
    """All below a group, and itself."""
    yield group
    for command in group.commands.values():
        if isinstance(command, click.Group):
            yield from commands(command)
        else:
            yield command


def test_every_subcommand_is_in_the_readme() -> None:
    groups = [one for one in cli.commands.values() if isinstance(one, click.Group)]
    names = [name for group in groups for name, one in group.commands.items() if not one.hidden]
    assert "run-now" in names
    for name in names:
        assert re.search(rf"``([a-z ]* )?{name}\b", README), name


def test_every_option_is_in_the_readme() -> None:
    context = click.Context(cli)
    names = {
        name
        for command in commands(cli)
        for option in command.get_params(context)
        if isinstance(option, click.Option)
        for name in (*option.opts, *option.secondary_opts)
    }
    assert len(names) > 20
    for name in sorted(names):
        assert re.search(rf"``{name}( [A-Z/]+)?``", README), name


def test_version_and_help_import_nothing_heavy() -> None:
    code = (
        "import sys; from adsmig.program import run; run(['--version']); run(['cp', '--help']);"
        "print([m for m in ('boto3', 'paramiko', 'sqlite3', 'sqlite_utils', 'ssl', 'xxhash',"
        " 'concurrent.futures.process') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
    assert done.stdout.startswith("adsmig 0.")


def test_the_units_are_good_ones(tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze here")
    blocks = re.findall(r"((?:^    (?:\[|[A-Z]\w+=).*\n|\n)+)", README, re.MULTILINE)
    units = [re.sub("^    ", "", one, flags=re.MULTILINE) for one in blocks]
    services = [one for one in units if "adsmig scheduler\n" in one]
    assert len(services) == 2
    for number, text in enumerate(services):
        unit = tmp_path / f"adsmig{number}.service"
        unit.write_text(text.replace("/usr/local/bin/adsmig", sys.executable))
        kind = "--user" if "default.target" in text else "--system"
        done = subprocess.run(
            ["systemd-analyze", "verify", kind, "--man=no", unit],
            env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        assert unit.name not in done.stderr, done.stderr
