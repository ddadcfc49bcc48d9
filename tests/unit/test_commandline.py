"""Command lines that are to run later: checked now, and independent of time and place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from adsmig.cli import cli
from adsmig.commandline import job_later
from adsmig.errors import UsageError
from adsmig.habits import COMMANDS, OPTIONS
from adsmig.job import Job
from adsmig.ledger import default_path
from adsmig.manifest import Manifest
from adsmig.program import run
from adsmig.uri import parse
from adsmig.words import names_of


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("sync /src/ /dst/ --delete-dst --max-delete 3", "sync"),
        ("--threads 4 copy /src/ /dst/", "cp"),
        ("pcopy /src/ s3://bucket/", "cp"),
        ("inventory /src/ --for ~/dst/", "inventory"),
        ("verify /src/ file:///dst/", "verify"),
        ("cp --dryrun --info --html /tmp/r.html /src/ /dst/", "cp"),
        ("sync --rebuild-manifest --ca-bundle /etc/ca.pem /src/ s3://bucket/", "sync"),
        ("verify --sample 1% --seed 7 /src/ /dst/", "verify"),
    ],
)
def test_what_may_run_later_is_a_job_without_a_look_at_its_places(line: str, command: str) -> None:
    assert job_later(line.split()).command == command


def help_of(*words: str) -> str:
    done = CliRunner().invoke(cli, [*words, "--help"])
    assert done.exit_code == 0
    return done.output


def test_help_names_every_kind_of_address_and_begins_with_the_options_of_the_command() -> None:
    assert "USER@HOST:PATH" in help_of()
    for command in ("cp", "sync", "verify", "inventory", "rm", "mount", "resume"):
        headings = re.findall(r"^([A-Z][a-z ]+):$", help_of(command), re.MULTILINE)
        assert headings[0] == "Options"
    for command in ("rm", "mount"):
        assert "What options call SRC is URI." in help_of(command)


def test_help_says_who_asks_before_deleting() -> None:
    assert "Delete without asking" in help_of("rm")
    for command in ("cp", "sync", "resume", "retry", "again"):
        assert "Delete without asking" not in help_of(command)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "Missing command"),
        ("rm /src/", "No such command 'rm'"),
        ("resume", "No such command 'resume'"),
        ("sync /src/", "Missing argument"),
        ("sync /src/ /dst/ --frob", "No such option"),
        ("sync /src/ /dst/ --threads x", "not a valid"),
        ("sync --help", "No such option"),
        ("sync --existing --ignore-existing /src/ /dst/", "leave nothing to copy"),
        ("sync --include ( /src/ /dst/", "include"),
        ("cp --info /src/ /dst/", "add that"),
        ("cp --dryrun --rebuild-manifest /src/ /dst/", "--dryrun keeps no manifest"),
        ("verify --sample 10 /src/ /dst/", "say N%"),
        ("verify nosuchjob", "no job nosuchjob"),
        ("sync src/ /dst/", "depends on the current directory: write /"),
        ("inventory /src/ --for ./dst/", "depends on the current directory"),
        ("sync --files-from list /src/ /dst/", "depends on the current directory"),
        ("sync --files-from - /src/ /dst/", "name a file that stays"),
        ("sync --files-from /dev/stdin /src/ /dst/", "name a file that stays"),
        ("sync --manifest m.db /src/ /dst/", "depends on the current directory"),
        ("sync --ca-bundle ca.pem /src/ s3://bucket/", "depends on the current directory"),
        ("sync --dryrun --delete-src --yes /src/ /dst/", "removes the source"),
    ],
)
def test_what_is_wrong_is_refused(line: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        job_later(line.split())
    assert message in str(caught.value)


def test_a_job_that_copied_may_be_verified_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    copied = Job("cp", parse("/src/"), parse("s3://AK:SK@bucket/"))
    path = default_path(copied)
    with Manifest(path, create=True) as manifest:
        manifest.lock()
        manifest.set_job(copied)
    for name in (copied.id, str(path)):
        later = job_later(["verify", name, "--sample", "10"])
        assert (later.command, later.against) == ("verify", str(path))
    monkeypatch.chdir(path.parent)
    with pytest.raises(UsageError, match="depends on the current directory"):
        job_later(["verify", path.name])
    with pytest.raises(UsageError, match="depends on the current directory"):
        job_later(["verify", copied.id, "--log-file", "log"])


@pytest.mark.parametrize(
    ("line", "side"),
    [
        ("sync s3://AK:s3cr3t@bucket/ /dst/", "--src-profile"),
        ("sync s3://AK:KEY:s3cr3t@bucket/ /dst/", "--src-profile"),
        ("sync /src/ u:s3cr3t@host:/dst/", "--dst-profile"),
        ("inventory /src/ --for minio://AK:s3cr3t@host:9000/bucket/", "--dst-profile"),
        ("sync /src/ /dst/ s3://AK:s3cr3t@bucket/", ""),
        ("s3://AK:s3cr3t@bucket/", ""),
        ("sync /src/ s3://AK:s3cr3t/x@bucket/", ""),
        ("sync --src-endpoint https://AK:s3cr3t@host oss://bucket/ /dst/", ""),
    ],
)
def test_secrets_are_refused_and_not_repeated(line: str, side: str) -> None:
    with pytest.raises(UsageError) as caught:
        job_later(line.split())
    assert side in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


def test_a_secret_in_the_environment_is_none_in_the_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ADSMIG_SRC_ACCESS_KEY", "AK")
    monkeypatch.setenv("ADSMIG_SRC_SECRET_KEY", "SK")
    assert job_later(["sync", "s3://bucket/", str(tmp_path)]).src.credentials


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("sync --delete /src/ /dst/", "is --delete-dst: it removes at DST"),
        ("--delete sync /src/ /dst/", "is --delete-dst: it removes at DST"),
        ("cp -r /src/ /dst/", "with all that is below them"),
        ("cp --recursive /src/ /dst/", "with all that is below them"),
        ("cp -aP /src/ /dst/", "with all that is below them"),
        ("sync -n /src/ /dst/", "--dryrun"),
        ("verify --dry-run /src/ /dst/", "no dry run"),
        ("cp --progress /src/ /dst/", "progress is shown anyway"),
        ("cp -P /src/ /dst/", "progress is shown anyway"),
        ("cp --transfers 4 /src/ /dst/", "--threads N"),
        ("ls /src/", "adsmig inventory"),
        ("mv /src/ /dst/", "--delete-src removes at SRC what was copied and verified"),
        ("move /src/ /dst/", "--delete-src"),
        ("check /src/ /dst/", "adsmig verify"),
        ("size /src/", "adsmig inventory"),
        ("delete /src/", "adsmig rm"),
        ("help", "adsmig COMMAND --help"),
        ("help sync", "adsmig COMMAND --help"),
    ],
)
def test_what_other_tools_call_so_has_a_hint(
    capfd: pytest.CaptureFixture[str], line: str, says: str
) -> None:
    assert run(line.split()) == 2
    said = capfd.readouterr().err
    assert says in said
    assert "Did you mean" not in said
    assert said.count("\n") == 1


def test_of_many_places_it_is_told_how_to_choose_files(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["cp", "a.bin", "b.bin", "/dst/"]) == 2
    assert "name the directory and choose with --include RE" in capfd.readouterr().err
    assert run(["status", "one", "two"]) == 2
    assert "--include" not in capfd.readouterr().err


@pytest.mark.parametrize("line", ["verify -n /a/ /b/", "rm --delete /a/", "cp --frob /a/ /b/"])
def test_nobody_is_told_of_an_option_that_the_command_has_not(
    capfd: pytest.CaptureFixture[str], line: str
) -> None:
    assert run(line.split()) == 2
    said = capfd.readouterr().err
    assert "No such option" in said
    assert not re.search("write|--delete-|Did you mean", said)


@pytest.mark.parametrize(
    ("line", "where"),
    [
        ("sync /src/", "adsmig sync"),
        ("sync --frob /src/ /dst/", "adsmig sync"),
        ("schedule add --cron", "adsmig schedule add"),
        ("sync --bwlimit 10M /src/ /dst/", "adsmig sync"),
        ("frob", "adsmig"),
    ],
)
def test_wrong_usage_names_the_help_of_its_command(
    capfd: pytest.CaptureFixture[str], line: str, where: str
) -> None:
    assert run(line.split()) == 2
    assert f" (see {where} --help)" in capfd.readouterr().err


@pytest.mark.parametrize("option", ["--bwlimit 10M", "--bwlimit=-1", "--rate 1G", "--rate 0"])
def test_rates_are_megabits(capfd: pytest.CaptureFixture[str], option: str) -> None:
    assert run(["cp", *option.split(), "/src/", "/dst/"]) == 2
    assert "megabits a second, a number alone; 10 MiB/s is 84" in capfd.readouterr().err


def test_no_hint_is_of_what_there_is() -> None:
    parameters = [
        one
        for name in ("cp", "sync")
        for one in cli.commands[name].params  # type: ignore[attr-defined]
    ]
    assert set(OPTIONS) & set(names_of(parameters).known) == {"--dryrun", "--dry-run"}
    assert not set(COMMANDS) & set(cli.commands)  # type: ignore[attr-defined]
