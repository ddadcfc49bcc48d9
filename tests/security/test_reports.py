"""Keys and messages of others are text wherever they are shown, whatever they try to be."""

from __future__ import annotations

import csv
import io
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.e2e.inside import COLLECTED, Here, here, no_pauses
from tests.security.hostile import Asked, Hostile, page, whole

__all__ = ["here", "no_pauses"]

pytestmark = [COLLECTED, pytest.mark.usefixtures("no_pauses")]

ATTACKS = [
    "<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "</style><script>x</script>",
    "=cmd|'/C calc'!A1", "+1+1", "-2+3", "@SUM(1)", "\t=1", "\r=1", "=1\n=2",
    "\x1b]0;title\x07", "\x1b[2J\x1b[31m", "\x9b31m", "a\r\x1b[Kb", "\x08\x08\x7f", "\u202eexe.txt",
]  # fmt: skip
KEYS = sorted((f"{one}/{two}{one}" for one in ATTACKS for two in ("../", "")), key=str.encode)


class Tags(HTMLParser):
    """What of a page a browser would act upon."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add(tag)
        self.attributes |= {name for name, _ in attrs}


def check_text(said: str | bytes) -> None:
    """It holds nothing that a terminal acts upon."""
    text = said if isinstance(said, str) else said.decode()
    for character in "\x1b\x9b\x07\x08\x7f\r":
        assert character not in text, ascii(text)


def check_page(path: Path) -> None:
    tags = Tags(path.read_text())
    assert "table" in tags.found
    assert not tags.found & {"script", "img", "iframe", "object", "link", "form"}
    assert not any(name.startswith("on") for name in tags.attributes)


@pytest.fixture
def source() -> Iterator[str]:
    """A store that lists all these keys, and refuses to give out any, in words of its own."""
    listed = page(*(quote(key, safe="/") for key in KEYS))
    listed = listed.replace(b"<IsTruncated>", b"<EncodingType>url</EncodingType><IsTruncated>")
    attack = "\x1b[2J\x9b31m\r\n" + "<script>x</script>"
    refusal = f"<Error><Code>No</Code><Message>{attack}</Message></Error>".encode()

    def answer(asked: Asked) -> Iterator[bytes]:
        yield whole(listed) if asked.lists else whole(refusal, "400 Bad Request")

    with Hostile(answer) as server:
        yield f"minio://ak:sk@{server.host}/bucket/"


def test_an_inventory_of_hostile_keys(here: Here, source: str, tmp_path: Path) -> None:
    html = tmp_path / "report.html"
    options = ["--info", "--depth", "2", "--for", tmp_path / "dst"]
    check_text(here("inventory", *options, "--html", html, source))
    check_page(html)
    said = here("inventory", *options, "--csv", source)
    rows = list(csv.reader(io.StringIO(said, newline="")))
    assert len(rows) > len(ATTACKS)
    cells = [cell for row in rows for cell in row]
    assert any("=cmd|" in cell for cell in cells)
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]


def test_failures_of_hostile_keys(here: Here, source: str, tmp_path: Path) -> None:
    said = here("cp", source, tmp_path / "dst", code=1)
    assert "<script>alert(1)</script>" in said
    check_text(said)
    html = tmp_path / "status.html"
    for command in (["failures"], ["status"], ["status", "--html", html]):
        done = subprocess.run(
            [sys.executable, "-m", "adsmig", *map(str, command)], check=True, capture_output=True
        )
        check_text(done.stdout + done.stderr)
    check_page(html)


def test_a_terminal_is_sent_no_commands_but_our_own(source: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "adsmig", "cp", "-vv", "--workers", "1", source]
    pid, terminal = pty.fork()
    if not pid:
        os.execv(sys.executable, [*command, str(tmp_path / "dst")])
    said = b""
    try:
        while more := os.read(terminal, 4096):
            said += more
    except OSError:  # the other side is gone
        pass
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1, said
    # The live line begins with a return, and clears the rest of its line.
    check_text(said.replace(b"\r\n", b"\n").replace(b"\x1b[K", b"").replace(b"\r", b""))
