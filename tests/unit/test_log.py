"""What is logged or told holds no secret, and advice stays as it was written."""

from __future__ import annotations

import ast
import io
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

import adsmig
from adsmig.log import _LogFile, _Terminal, redacted


def messages() -> Iterator[str]:
    """What errors of adsmig say, with an ``x`` for what is filled in."""
    for path in Path(adsmig.__file__).parent.rglob("*.py"):
        for raised in ast.walk(ast.parse(path.read_text())):
            for one in ast.walk(raised) if isinstance(raised, ast.Raise) else ():
                if isinstance(one, ast.JoinedStr):
                    yield "".join(
                        str(part.value) if isinstance(part, ast.Constant) else "x"
                        for part in one.values
                    )
                elif isinstance(one, ast.Constant) and isinstance(one.value, str):
                    yield one.value


def test_advice_is_told_as_it_was_written() -> None:
    told = [one for one in messages() if "@" in one]
    assert len(told) > 5
    assert [redacted(one) for one in told] == told


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no AK:SECRET@b here", "no ***@b here"),
        ("no s3://AK:SECRET@b/p", "no s3://***@b/p"),
        ("(s3:/AK:SECRET@b)", "(s3:/***@b)"),
        ("(AK:SE/CR:ET@b)", "(***@b)"),
        ("no AK:SE@CR/ET@b", "no ***@b"),
        ("'user:SECRET@host:path'", "'***@host:path'"),
        ("/there/user:SECRET@host:path", "/there/***@host:path"),
        # Not quite our own words:
        ("ACCESS_KEY:SECRET_KEYx@b", "***@b"),
        ("ACCESS_KEY:SECRET_KEY@BUCKETx:SECRET@b", "***@b"),
        ("xUSER[:PASSWORD]@HOST:PATH", "***@HOST:PATH"),
        ("USER:PASSWORD@HOSTx:SECRET@b", "***@b"),
        ("sftp://USER@HOST:PORT/PATH@b", "sftp://***@b"),
        ("minio://ACCESS_KEY:SECRET_KEY@b", "minio://***@b"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
    ],
)
def test_what_may_be_a_secret_is_hidden(text: str, shown: str) -> None:
    assert redacted(text) == shown


@pytest.mark.parametrize(
    "word", ["AK:SE CR'ET@b", "s3://AK:S \"ET@b/p", "s3://AK: SECRET@b", "AK:SE\\CR 'E\"T@b",
             "--src=AK:SE CRET@b"],
)  # fmt: skip
@pytest.mark.parametrize("said", ["no job {}, see", "no job {!r}", "cannot read /there/{}: no"])
def test_a_word_that_is_quoted_shows_nothing_of_a_secret_with_blanks(word: str, said: str) -> None:
    text = redacted(said.format(word.replace("//", "/") if "/there/" in said else word), [word])
    assert "***@b" in text
    for part in ("SE", "CR", "ET", "S "):
        assert part not in text.replace("see", "")


def test_a_path_that_is_known_to_be_one_is_shown_as_a_whole_only() -> None:
    path = "/there/w:q@e"
    for text in (f"no {path}", f"no {path}: it is gone", f"{path} is a file", f"('{path}')"):
        assert redacted(text, [path], [path]) == text
    assert redacted(f"no {path}x:SECRET@b", [], [path]) == "no /there/***@b"
    assert redacted(f"no s3://AK:SE{path}", [], [path]) == "no s3://***@e"


def log_three(told: bool) -> None:
    handler = _LogFile("/dev/full", told)
    for text in ("one", "two", "three"):
        handler.handle(logging.LogRecord("adsmig.x", logging.INFO, "x.py", 1, text, None, None))
    with pytest.raises(OSError, match="No space left"):
        handler.close()


def test_a_full_disk_under_the_log_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    log_three(told=False)
    said = capsys.readouterr().err
    assert said == (
        "adsmig: cannot write the log to /dev/full: No space left on device; going on without it\n"
    )


def test_workers_leave_that_to_the_process_that_started_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log_three(told=True)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("word", ["", ".", "./", "a", "s3://b/p"])
def test_a_word_without_a_secret_changes_nothing(word: str) -> None:
    text = "no job '' in /there. See ./a, or s3://b/p."
    assert redacted(text, [word]) == text


@pytest.mark.parametrize(("at_terminal", "erased"), [(True, "\r\x1b[K"), (False, "")])
def test_what_is_logged_does_not_stand_behind_the_progress(at_terminal: bool, erased: str) -> None:
    stream = io.StringIO()
    stream.isatty = lambda: at_terminal  # type: ignore[method-assign]
    handler = _Terminal(stream)
    handler.emit(logging.LogRecord("n", logging.WARNING, "p", 1, "no answer", None, None))
    assert stream.getvalue() == f"{erased}no answer\n"
