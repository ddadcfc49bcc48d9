"""A secret goes to the server that it is for, and nowhere else: it is looked for, in all forms that
it could take, in everything that was printed or written, however a run ends.
"""

from __future__ import annotations

import base64
import html
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import psutil
import pytest

from tests.conftest import BucketFactory
from tests.e2e.conftest import make_tree
from tests.e2e.inside import Here, here
from tests.security.hostile import Asked, Hostile, whole
from tests.servers import Moto, RcloneSftp, SeaweedFS, Sshd, make_key

__all__ = ["here"]

ACCESS_KEY = "AKRECOGNISABLE"
SECRET = "Rec0gnisable/Secret+&<key>:1"
TOKEN = "Rec0gnisable//T0ken+&<x>=="
PASSWORD = "p@ss:Rec0gnisable/w+<&>"
PASSPHRASE = "Rec0gnisable phrase"


def forms(secret: str) -> set[bytes]:
    """What a secret can look like: as it is, escaped, quoted, encoded; whole or as a part."""
    found = {secret, html.escape(secret), json.dumps(secret)[1:-1], repr(secret)[1:-1]}
    for safe in ("", "/", ":", "@+", "/:+@&<>="):
        found |= {quote(secret, safe=safe), quote_plus(secret, safe=safe)}
        found.add(quote(quote(secret, safe=safe), safe=""))
    known = {text.encode() for text in found}
    known |= {secret.encode("utf-16-le"), secret.encode().hex().encode()}
    for before in range(3):  # in base64 a text looks different at each of three places
        code = base64.b64encode(b"\0" * before + secret.encode())
        known.add(code[-(-before * 8 // 6) : -4])
    return known | {one.lower() for one in known}


ALL = set().union(*map(forms, (SECRET, TOKEN, PASSWORD, PASSPHRASE)))


def found_in(data: bytes) -> set[bytes]:
    return {form for form in ALL if form in data}


def test_the_search_finds_every_form() -> None:
    for text in (SECRET, quote(SECRET, safe=""), html.escape(SECRET), json.dumps({"a": SECRET})):
        assert found_in(f"before {text} after".encode())
    for before in range(3):
        assert found_in(base64.b64encode(b"x" * before + TOKEN.encode() + b"tail"))


@dataclass
class Scene:
    """Runs the program, and keeps everything that comes of it."""

    home: Path
    environment: dict[str, str] = field(default_factory=dict)
    said: list[bytes] = field(default_factory=list)

    @property
    def log_file(self) -> Path:
        return self.home / "adsmig.log"

    def start(self, *arguments: object) -> subprocess.Popen[bytes]:
        temporary = self.home / "tmp"
        temporary.mkdir(exist_ok=True)
        return subprocess.Popen(
            [sys.executable, "-m", "adsmig", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "TMPDIR": str(temporary), **self.environment},
            cwd=self.home,
            start_new_session=True,
        )

    def end(self, process: subprocess.Popen[bytes]) -> str:
        out, err = process.communicate(timeout=300)
        self.said += [out, err]
        return (out + err).decode()

    def run(self, *arguments: object, code: int | None) -> str:
        process = self.start(*arguments)
        said = self.end(process)
        assert code is None or process.returncode == code, said
        return said

    def look_around(self) -> None:
        """Has everything shown that the manifest knows."""
        self.run("jobs", "-vv", code=0)
        self.run("status", "-vv", "--html", self.home / "status.html", code=0)
        self.run("failures", "--json", code=0)

    def check(self) -> None:
        """No secret was printed or written."""
        for said in self.said:
            assert not found_in(said), said.decode()
        looked_at = 0
        for path in self.home.rglob("*"):
            if path.is_file() and "given" not in path.parts:
                looked_at += 1
                assert not found_in(path.read_bytes()), path
                assert not found_in(os.fsencode(path)), path
        assert looked_at


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    home = Path(os.environ["HOME"])
    (home / "given").mkdir()
    make_tree(home / "given" / "tree", 20)
    monkeypatch.chdir(home)
    return Scene(home)


def place(host: str, keys: str = "") -> str:
    return f"minio://{keys}{host}/bucket/p/"


def in_address(scene: Scene, host: str, side: str) -> str:
    keys = ":".join(quote(one, safe="") for one in (ACCESS_KEY, SECRET, TOKEN))
    return place(host, f"{keys}@")


def in_environment(scene: Scene, host: str, side: str) -> str:
    names = {"ACCESS_KEY": ACCESS_KEY, "SECRET_KEY": SECRET, "TOKEN": TOKEN}
    scene.environment |= {f"ADSMIG_{side}_{name}": value for name, value in names.items()}
    return place(host)


def in_aws_environment(scene: Scene, host: str, side: str) -> str:
    scene.environment |= {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_SESSION_TOKEN": TOKEN,
    }
    return place(host)


def in_profile(scene: Scene, host: str, side: str) -> str:
    path = scene.home / "given" / "credentials"
    path.write_text(
        f"[mine]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET}\n"
        f"aws_session_token = {TOKEN}\n"
    )
    path.chmod(0o600)
    scene.environment |= {"AWS_SHARED_CREDENTIALS_FILE": str(path), "AWS_PROFILE": "mine"}
    return place(host)


Way = Callable[[Scene, str, str], str]
WAYS = [in_address, in_environment, in_aws_environment, in_profile]
LOUD = ["-vv", "--workers", "2"]


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__)
def way(request: pytest.FixtureRequest) -> Way:
    found: Way = request.param
    return found


@pytest.fixture
def open_store(moto: Moto) -> Iterator[str]:
    """A server that takes any keys, with an empty ``bucket``."""
    client: Any = moto.client()
    client.create_bucket(Bucket="bucket")
    yield moto.host
    for item in client.list_objects_v2(Bucket="bucket").get("Contents", []):
        client.delete_object(Bucket="bucket", Key=item["Key"])
    client.delete_bucket(Bucket="bucket")


def test_where_all_goes_well(scene: Scene, way: Way, open_store: str) -> None:
    tree = scene.home / "given" / "tree"
    (tree / "broken").symlink_to("nothing")
    dst = way(scene, open_store, "DST")
    scene.run("cp", *LOUD, "--log-file", scene.log_file, "--json", tree, dst, code=1)
    scene.look_around()
    if way is in_address:
        html = ["--html", scene.home / "report.html"]
        scene.run("sync", *LOUD, "--dryrun", *html, "--csv", tree, dst, code=1)
    else:
        scene.run("retry", *LOUD, code=1)
    scene.check()


def test_where_nobody_answers(scene: Scene, way: Way) -> None:
    dst = way(scene, "127.0.0.1:1", "DST")
    scene.run("cp", *LOUD, scene.home / "given" / "tree", dst, code=3)
    scene.run("cp", *LOUD, "--https", "--json", dst, scene.home / "back", code=3)
    scene.check()


def test_where_there_is_no_such_host(scene: Scene) -> None:
    src = in_address(scene, "store.invalid", "SRC").replace("minio://", "s3://")
    said = scene.run("cp", *LOUD, "--log-file", "log", src, scene.home / "back", code=3)
    assert "cannot reach" in said
    scene.check()


def test_where_the_secret_is_wrong(
    scene: Scene, seaweedfs: SeaweedFS, bucket: BucketFactory, way: Way
) -> None:
    name = bucket(seaweedfs)
    dst = way(scene, seaweedfs.host, "DST").replace("/bucket/", f"/{name}/")
    said = scene.run("cp", *LOUD, scene.home / "given" / "tree", dst, code=3)
    assert "answered" in said
    scene.check()


@pytest.mark.parametrize("said", [str, html.escape, lambda text: quote(text, safe="")])
def test_where_the_server_says_it_back(scene: Scene, said: Callable[[str], str]) -> None:
    def answer(asked: Asked) -> Iterator[bytes]:
        text = said(asked.headers["x-amz-security-token"])
        error = f"<Error><Code>Refused</Code><Message>no {text}</Message></Error>"
        yield whole(error.encode(), "400 Bad Request")

    with Hostile(answer) as server:
        src = in_environment(scene, server.host, "SRC")
        scene.run("cp", *LOUD, src, scene.home / "back", code=3)
    assert server.asked[0].headers["x-amz-security-token"] == TOKEN
    scene.check()


def test_where_the_address_is_wrong(scene: Scene, here: Here) -> None:
    keys = ":".join(quote(one, safe="") for one in (ACCESS_KEY, SECRET))
    for address in (
        f"s3://{ACCESS_KEY}:{SECRET}@bucket.host/p",
        f"s3://{keys}@",
        f"{keys}@bucket.host/p",
        f"http://{keys}@bucket/p",
        f"s3:/{keys}@bucket/p",
        f"sftp://user:{PASSWORD}@host/p",
        f"user:{PASSWORD}@host:p",
        f"oss://{keys}@bucket/p",
    ):
        scene.said.append(here("cp", "-vv", address, "back", code=2).encode())
        scene.said.append(here("cp", "-vv", "given", address, code=2).encode())
    scene.said.append(here("cp", "given", place("h:1"), f"s3://{keys}@b", code=2).encode())
    for words in (["status", "-vv"], ["cp", "given", "back", "--log-file"], ["cp", "-p"], []):
        scene.run(*words, f"s3://{keys}@b/", code=2)
    for address in (f"//{keys}@b/p", f"/{keys}@b/p", f"S3/{keys}@b/p", f"./s3://{keys}@b/p"):
        scene.run("cp", address, "back", code=None)
    for address in (f"{keys}@b", f"s3://{ACCESS_KEY}:a {SECRET}@b", f"s3://{keys}@b"):
        scene.run("cp", "--files-from", address, "given", "back", code=2)
    scene.run("cp", "-vv", f"s3://{ACCESS_KEY}:{SECRET}@bucket.host/p", "back", code=2)
    (scene.home / "something").touch()
    scene.check()


def test_command_lines_and_what_a_killed_run_leaves(scene: Scene, open_store: str) -> None:
    """Those of the program and of all processes that it starts, as other users can see them."""
    dst = in_address(scene, open_store, "DST")
    options = [*LOUD, "--log-file", scene.log_file, "--json", "--bwlimit", "0.5", "--workers", "2"]
    process = scene.start("cp", *options, scene.home / "given" / "tree", dst)
    top = psutil.Process(process.pid)
    until = time.monotonic() + 100
    while len(top.children(recursive=True)) < 3 and time.monotonic() < until:
        time.sleep(0.05)
    family = [top, *top.children(recursive=True)]
    assert len(family) >= 4, "resource tracker, fork server, a worker"
    lines = [Path(f"/proc/{one.pid}/cmdline").read_bytes() for one in family]
    assert b"minio://***@" in lines[0]
    assert not any(found_in(line) or ACCESS_KEY.encode() in line for line in lines)
    # Of this run alone: others of the same secrets may be just beginning.
    pids = ",".join(str(one.pid) for one in family)
    listed = subprocess.run(["ps", "-ww", "-o", "args", "-p", pids], capture_output=True).stdout
    assert b"minio://***@" in listed
    assert not found_in(listed)
    for one in family:
        assert one.environ().get("HOME") == str(scene.home)  # so that it could have been seen
        assert not found_in("\0".join(one.environ().values()).encode())
    os.killpg(process.pid, signal.SIGKILL)
    scene.end(process)
    psutil.wait_procs(family, timeout=30)
    files = {path.name.rpartition(".")[2] for path in (scene.home / "state").rglob("*.db*")}
    assert "db-wal" in files
    scene.look_around()
    scene.environment |= {f"ADSMIG_DST_{k}": v for k, v in {
        "ACCESS_KEY": ACCESS_KEY, "SECRET_KEY": SECRET, "TOKEN": TOKEN}.items()}  # fmt: skip
    scene.run("resume", *LOUD, "--bwlimit", "0", code=0)
    scene.check()


# SFTP


@pytest.fixture
def with_password(tmp_path_factory: pytest.TempPathFactory, scene: Scene) -> Iterator[RcloneSftp]:
    server = RcloneSftp(tmp_path_factory.mktemp("rclone"))
    server.password = PASSWORD
    with server:
        server.trust(scene.home)
        (scene.home / ".ssh" / "id_ed25519").unlink()
        yield server


def test_passwords(scene: Scene, with_password: RcloneSftp) -> None:
    user, host = with_password.user, with_password.host
    tree = scene.home / "given" / "tree"
    address = f"{user}:{quote(PASSWORD, safe='')}@{host}:there/"
    scene.run("cp", *LOUD, tree, address, code=0)
    scene.run("cp", *LOUD, f"sftp://{address}".replace(":there", "/there"), "back", code=0)
    wrong = address.replace("Rec0gnisable", "Rec0gnisablf")
    scene.run("cp", *LOUD, tree, wrong, code=3)
    scene.environment["ADSMIG_DST_PASSWORD"] = PASSWORD
    scene.run("cp", *LOUD, "--json", tree, f"sftp://{user}@{host}/other", code=0)
    scene.look_around()
    scene.check()


def test_a_password_that_was_typed(scene: Scene, with_password: RcloneSftp) -> None:
    address = f"sftp://{with_password.user}@{with_password.host}/there/"
    command = [sys.executable, "-m", "adsmig", "cp", *LOUD]
    pid, terminal = pty.fork()
    if not pid:
        os.execv(sys.executable, [*command, str(scene.home / "given" / "tree"), address])
    said = b""
    while b"Password" not in said:
        said += os.read(terminal, 4096)
    os.write(terminal, PASSWORD.encode() + b"\n")
    try:
        while more := os.read(terminal, 4096):
            said += more
    except OSError:  # the other side is gone
        pass
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, said
    os.close(terminal)
    assert b"copied 20 objects" in said
    scene.said.append(said)
    scene.look_around()
    scene.check()


def test_a_key_with_a_passphrase(scene: Scene, sshd: Sshd) -> None:
    sshd.trust(scene.home)
    (scene.home / ".ssh" / "id_ed25519").unlink()
    key = make_key(scene.home / "given" / "key", PASSPHRASE)
    scene.environment["SSH_PRIVATE_KEY_PATH"] = str(key)
    said = scene.run("cp", *LOUD, sshd.address(scene.home), "back", code=3)
    assert "passphrase" in said
    scene.check()
