"""SFTP from the command line: in all directions, and every way in that is open or shut."""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

import pytest

from adsmig import worker
from adsmig.job import Job
from adsmig.limits import Lease
from adsmig.links import LINK
from adsmig.model import EVERYTHING, Budget, Entry
from adsmig.storage.base import Body
from adsmig.storage.sftp import SftpStorage
from adsmig.uri import parse
from tests.conftest import BucketFactory
from tests.e2e.conftest import Adsmig, digest, make_tree, write
from tests.e2e.inside import COLLECTED, Bucket, Here, put, tree_of
from tests.e2e.inside import here as here
from tests.e2e.inside import store as store
from tests.servers import Moto, RcloneSftp, Sshd, free_ports, make_key, program

NASTY = [
    b" leading and trailing ",
    b"a\nb\tc\x01\x7f",
    b"\xff\xfe not UTF-8",
    b"%2F+%20",
    "😀".encode(),
    b"d/-x",
    b"d-/x",
    b"back\\slash",
    b"n" * 255,
]


@pytest.fixture
def home() -> Path:
    """The user's, which is empty."""
    return Path(os.environ["HOME"])


@pytest.fixture
def trusted(sshd: Sshd, home: Path) -> Sshd:
    """OpenSSH, known to the user, who may log in."""
    sshd.trust(home)
    return sshd


# Directions


def test_a_tree_goes_to_a_server_and_back_and_a_sync_copies_nothing(
    adsmig: Adsmig, trusted: Sshd, tmp_path: Path
) -> None:
    tree, there, back = tmp_path / "tree", tmp_path / "there", tmp_path / "back"
    make_tree(tree, 150)
    os.chmod(tree / "d1" / "e1", 0o710)
    file = next((tree / "d1").rglob("*.bin"))
    os.chown(file, 1234, 2345)  # which clears the set-id bits
    os.chmod(file, 0o4711)
    adsmig("cp", f"{tree}/", trusted.address(there))
    assert digest(there) == digest(tree)
    copy = (there / file.relative_to(tree)).stat()
    assert (stat.S_IMODE(copy.st_mode), copy.st_uid, copy.st_gid) == (0o4711, 1234, 2345)
    assert copy.st_mtime == int(file.stat().st_mtime)
    assert stat.S_IMODE((there / "d1" / "e1").stat().st_mode) == 0o710
    assert "copied 0 objects" in adsmig("sync", f"{tree}/", trusted.address(there)).stdout
    adsmig("cp", trusted.address(there), back)
    assert digest(back) == digest(tree)
    assert "copied 0 objects" in adsmig("sync", trusted.address(there), f"{back}/").stdout
    adsmig("verify", f"{tree}/", trusted.address(there))
    assert not list(there.glob(".adsmig-*"))


def test_places_that_lie_within_one_another_are_refused(
    adsmig: Adsmig, trusted: Sshd, tmp_path: Path
) -> None:
    files = {"keep": b"1", "sub/file": b"2", "sub/not selected": b"3"}
    tree, link = put(tmp_path / "tree", files), tmp_path / "link"
    link.symlink_to(tree / "sub")
    words = ["sync", "--delete-dst", "--exclude", "^not"]
    for outer in (trusted.address(tree), str(tree)):
        done = adsmig(*words, trusted.address(link), outer, code=2)
        assert "lie within one another" in done.stderr
    assert "lie within one another" in adsmig(*words, link, trusted.address(tree), code=2).stderr
    done = adsmig("cp", trusted.address(tree), tree / "sub" / "copy", code=3)
    assert "lies within the source" in done.stderr
    assert {key: tree_of(tree)[key] for key in files} == files


def test_links_of_a_mount_are_links_on_a_server_too(
    adsmig: Adsmig, trusted: Sshd, moto: Moto, bucket: BucketFactory, tmp_path: Path
) -> None:
    store = Bucket(moto, bucket(moto)).put({"a": b"1", "b": b"2"})
    moto.client().put_object(Bucket=store.name, Key="p/l", Body=LINK, Metadata={"symlink": "a"})
    there = tmp_path / "there"
    assert "--links makes it one" in adsmig("cp", store.url, trusted.address(there), code=1).stderr
    assert tree_of(there) == {"a": b"1", "b": b"2"}
    adsmig("cp", "--links", store.url, trusted.address(there))
    assert os.readlink(there / "l") == "a"
    adsmig("verify", "--links", store.url, trusted.address(there))


def test_what_changed_is_copied_and_what_is_gone_is_deleted(
    adsmig: Adsmig, trusted: Sshd, tmp_path: Path
) -> None:
    tree = put(tmp_path / "tree", {"a": b"1", "b": b"2", "d/c": b"3"})
    there = put(tmp_path / "there", {"a": b"1", "b": b"2", "old": b"4", "gone/away": b"5"}, 7200)
    done = adsmig("sync", f"{tree}/", trusted.address(there), "--delete-dst")
    assert "copied 3 objects" in done.stdout
    assert tree_of(there) == {"a": b"1", "b": b"2", "d/c": b"3"}
    assert not (there / "gone").exists()
    write(tree / "b", b"!", age_s=60)
    assert "copied 1 object" in adsmig("sync", f"{tree}/", trusted.address(there)).stdout


def test_from_a_server_to_itself_and_the_source_is_removed_once_proven(
    adsmig: Adsmig, trusted: Sshd, tmp_path: Path
) -> None:
    make_tree(tmp_path / "a", 60)
    before = digest(tmp_path / "a")
    src, dst = trusted.address(tmp_path / "a"), trusted.address(tmp_path / "b")
    adsmig("cp", src, dst, "--delete-src")
    assert digest(tmp_path / "b") == before
    assert not [path for path in (tmp_path / "a").rglob("*") if path.is_file()]
    said = adsmig("cp", dst, f"{dst}/inside", code=2).stderr
    assert "within one another" in said


def test_between_a_server_and_a_bucket(
    adsmig: Adsmig, trusted: Sshd, store: Bucket, tmp_path: Path
) -> None:
    tree = put(tmp_path / "tree", {"a": b"1", "d/b": b"22", "d/e/c": b""})
    adsmig("cp", trusted.address(tree), store.url)
    assert store.content() == tree_of(tree)
    assert "copied 0 objects" in adsmig("sync", trusted.address(tree), store.url).stdout
    back = tmp_path / "back"
    adsmig("cp", store.url, trusted.address(back))
    assert tree_of(back) == tree_of(tree)
    assert (back / "a").stat().st_mtime == int((tree / "a").stat().st_mtime)
    # The objects keep the times of the files, and are newer themselves.
    assert "copied 0 objects" in adsmig("sync", store.url, trusted.address(back)).stdout
    store.put({"a": b"2"})
    assert "copied 1 object" in adsmig("sync", store.url, trusted.address(back)).stdout
    assert (back / "a").read_bytes() == b"2"


def test_nasty_names_are_copied_as_they_are(adsmig: Adsmig, trusted: Sshd, tmp_path: Path) -> None:
    tree, there, back = (os.fsencode(tmp_path / name) for name in ("tree", "there", "back"))
    for name in NASTY:
        path = os.path.join(tree, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Path(os.fsdecode(path)).write_bytes(name)
        os.utime(path, (1e9, 1e9))
    adsmig("cp", os.fsdecode(tree), trusted.address(os.fsdecode(there)))
    adsmig("cp", trusted.address(os.fsdecode(there)), os.fsdecode(back))
    found = tree_of(Path(os.fsdecode(back)))
    assert found == {os.fsdecode(name): name for name in NASTY}


def test_links_are_followed_copied_or_recorded(
    adsmig: Adsmig, trusted: Sshd, tmp_path: Path
) -> None:
    tree = put(tmp_path / "tree", {"d/a": b"1", "f": b"2"})
    (tree / "to-d").symlink_to("d")
    (tree / "to-f").symlink_to("f")
    (tree / "d" / "loop").symlink_to("..")
    for src, dst in [
        (f"{tree}/", trusted.address(tmp_path / "out1")),
        (trusted.address(tree), f"{tmp_path}/out2/"),
    ]:
        out = tmp_path / ("out1" if "out1" in dst else "out2")
        said = adsmig("cp", src, dst, code=1).stderr
        assert "a symbolic link to a directory above it" in said
        assert tree_of(out) == {"d/a": b"1", "f": b"2", "to-f": b"2", "to-d/a": b"1"}
        shutil.rmtree(out)
        adsmig("cp", src, dst, "--links")
        assert os.readlink(out / "to-d") == "d"
        assert os.readlink(out / "to-f") == "f"
        assert os.readlink(out / "d" / "loop") == ".."
        shutil.rmtree(out)
        adsmig("cp", src, dst, "--recordName", tmp_path / "links")
        assert tree_of(out) == {"d/a": b"1", "f": b"2", "to-f": b"2"}
        assert (tmp_path / "links").read_text() == f"{tree}/d/loop\n{tree}/to-d\n"


def test_a_single_file_goes_where_it_is_meant_to(
    adsmig: Adsmig, trusted: Sshd, tmp_path: Path
) -> None:
    tree = put(tmp_path / "tree", {"a": b"1"})
    there = put(tmp_path / "there", {"dir/": b""})
    adsmig("cp", tree / "a", trusted.address(there / "dir"))
    adsmig("cp", trusted.address(tree / "a"), there / "new")
    adsmig("cp", trusted.address(tree / "a"), f"{trusted.address(there / 'more')}/")
    assert tree_of(there) == {"dir/a": b"1", "new": b"1", "more/a": b"1"}
    assert (
        "no such file or directory"
        in adsmig("cp", trusted.address(tree / "b"), there / "x", code=3).stderr
    )
    assert "is a file" in adsmig("cp", tree, trusted.address(there / "new"), code=2).stderr
    assert (
        "without the slash"
        in adsmig("cp", f"{trusted.address(tree / 'a')}/", there / "x", code=2).stderr
    )


def test_relative_paths_begin_at_the_login_directory(
    adsmig: Adsmig, rclone: RcloneSftp, home: Path, tmp_path: Path
) -> None:
    rclone.trust(home)
    put(rclone.top / "relative", {"x/a": b"1", "x/d/b": b"2"})
    where = f"{rclone.user}@{rclone.host}"
    adsmig("cp", f"{where}:relative/x/", tmp_path / "there")
    assert tree_of(tmp_path / "there") == {"a": b"1", "d/b": b"2"}
    adsmig("cp", f"sftp://{where}/~/relative/x", tmp_path / "back")
    assert tree_of(tmp_path / "back") == {"a": b"1", "d/b": b"2"}


def test_another_server_takes_a_tree_and_gives_it_back(
    adsmig: Adsmig, rclone: RcloneSftp, home: Path, tmp_path: Path
) -> None:
    """One without fsync or posix-rename, that waits for ever to set the time of an open file."""
    rclone.trust(home)
    make_tree(tmp_path / "tree", 300, most=40_000)
    write(tmp_path / "tree" / "large", os.urandom(80_000_000))
    there = f"sftp://{rclone.user}@{rclone.host}/taken/"
    adsmig("cp", f"{tmp_path / 'tree'}/", there)
    for _ in range(900):  # it answers first, and brings files to their places behind that
        if not list((rclone.top / "taken").rglob("*.partial")):
            break
        time.sleep(0.1)
    assert digest(rclone.top / "taken") == digest(tmp_path / "tree")
    assert "301 unchanged" in adsmig("sync", f"{tmp_path / 'tree'}/", there).stdout
    write(tmp_path / "tree" / "d1" / "e1" / "new", b"new")
    assert "copied 1 object (" in adsmig("sync", f"{tmp_path / 'tree'}/", there).stdout
    adsmig("cp", there, tmp_path / "back")
    assert digest(tmp_path / "back") == digest(tmp_path / "tree")


def test_inventory_and_rm(adsmig: Adsmig, trusted: Sshd, tmp_path: Path) -> None:
    tree = put(tmp_path / "tree", {"a": b"1", "d/b": b"22"})
    assert "2 found (3 B)" in adsmig("inventory", trusted.address(tree)).stdout
    adsmig("rm", trusted.address(tree), "--yes")
    assert list(tree.iterdir()) == []


def test_options_of_stores_are_refused(adsmig: Adsmig, tmp_path: Path) -> None:
    for option in (["--storage-class", "X"], ["--tags"], ["--anonymous", "1"]):
        adsmig("cp", tmp_path, "sftp://me@127.0.0.1:1/x", *option, code=2)


# Ways in


def test_a_password_of_the_address_or_the_environment(
    adsmig: Adsmig, rclone: RcloneSftp, home: Path, tmp_path: Path
) -> None:
    rclone.trust(home)
    os.unlink(home / ".ssh" / "id_ed25519")
    put(rclone.top / "p", {"a": b"1"})
    password = quote(rclone.password, safe="")
    url = f"{rclone.user}:{password}@{rclone.host}:p/"
    done = adsmig("cp", url, tmp_path / "there", "-vv")
    assert rclone.password not in done.stdout + done.stderr
    assert password not in done.stdout + done.stderr
    assert tree_of(tmp_path / "there") == {"a": b"1"}
    address = rclone.address(rclone.top / "p")
    adsmig("cp", address, tmp_path / "back", ADSMIG_SRC_PASSWORD=rclone.password)
    assert tree_of(tmp_path / "back") == {"a": b"1"}
    for path in (home / "state").rglob("*"):
        assert not path.is_file() or rclone.password.encode() not in path.read_bytes()


@COLLECTED
def test_a_password_is_asked_for_once_if_nothing_else_lets_one_in(
    here: Here, rclone: RcloneSftp, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rclone.trust(home)
    os.unlink(home / ".ssh" / "id_ed25519")
    put(rclone.top / "asked", {"a": b"1"})
    prompts: list[str] = []

    def asked(prompt: str) -> str:
        prompts.append(prompt)
        return rclone.password

    monkeypatch.setattr("adsmig.storage.sftplogin.getpass.getpass", asked)
    monkeypatch.setattr("sys.stdin", Terminal())
    here("cp", rclone.address(rclone.top / "asked"), tmp_path / "back")
    assert tree_of(tmp_path / "back") == {"a": b"1"}
    assert prompts == [f"Password of {rclone.user}@{rclone.host}: "]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_key_that_the_environment_names(
    adsmig: Adsmig, sshd: Sshd, home: Path, tmp_path: Path
) -> None:
    sshd.trust(home)
    os.unlink(home / ".ssh" / "id_ed25519")
    put(tmp_path / "tree", {"a": b"1"})
    src = sshd.address(tmp_path / "tree")
    adsmig("cp", src, tmp_path / "back", SSH_PRIVATE_KEY_PATH=str(sshd.key_file))
    assert tree_of(tmp_path / "back") == {"a": b"1"}


@pytest.fixture
def agent(sshd: Sshd) -> Iterator[str]:
    """The socket of an agent that has the user's key."""
    said = subprocess.run(
        [program("ssh-agent"), "-s"], capture_output=True, text=True, check=True
    ).stdout
    values = dict(part.split("=") for part in said.split(";") if "=" in part)
    values = {name.strip(): value for name, value in values.items()}
    env = {**os.environ, **values}
    try:
        subprocess.run(
            [program("ssh-add"), str(sshd.key_file)], env=env, check=True, capture_output=True
        )
        yield values["SSH_AUTH_SOCK"]
    finally:
        os.kill(int(values["SSH_AGENT_PID"]), 15)


def test_the_keys_of_an_agent(
    adsmig: Adsmig, sshd: Sshd, agent: str, home: Path, tmp_path: Path
) -> None:
    sshd.trust(home)
    os.unlink(home / ".ssh" / "id_ed25519")
    put(tmp_path / "tree", {"a": b"1"})
    adsmig("cp", sshd.address(tmp_path / "tree"), tmp_path / "back", SSH_AUTH_SOCK=agent)
    assert tree_of(tmp_path / "back") == {"a": b"1"}


@pytest.mark.parametrize("form", ["root@{host}:{path}/", "sftp://root@{host}{path}/"])
def test_the_addresses_of_the_page_run_as_printed_by_way_of_a_route(
    adsmig: Adsmig, sshd: Sshd, home: Path, tmp_path: Path, form: str
) -> None:
    """The host, and its key, are those of the address."""
    src = put(tmp_path / "src", {"a": b"1", "d/b": b"2"})
    there = form.format(host="nas.example", path=tmp_path / "there")
    options = ["--connect-to", f"nas.example:22:127.0.0.1:{sshd.port}", "--accept-new-host-key"]
    environment = {"SSH_PRIVATE_KEY_PATH": str(sshd.directory / "user_key")}
    adsmig("cp", *options, f"{src}/", there, **environment)
    adsmig("sync", *options, there, f"{tmp_path / 'back'}/", **environment)
    assert tree_of(tmp_path / "back") == tree_of(src)
    known = (home / ".ssh/known_hosts").read_text()
    assert known.startswith("nas.example ")
    assert known.count("\n") == 1


def test_a_new_host_key_is_accepted_and_remembered_if_asked(
    adsmig: Adsmig, sshd: Sshd, home: Path, tmp_path: Path
) -> None:
    (home / ".ssh").mkdir()
    shutil.copy(sshd.key_file, home / ".ssh" / "id_ed25519")
    put(tmp_path / "tree", {"a": b"1"})
    src = sshd.address(tmp_path / "tree")
    said = adsmig("cp", src, tmp_path / "back", code=3).stderr
    assert "--accept-new-host-key" in said
    assert "SHA256:" in said
    assert not (home / ".ssh" / "known_hosts").exists()
    adsmig("cp", src, tmp_path / "back", "--accept-new-host-key")
    assert (home / ".ssh" / "known_hosts").read_text() == sshd.known_hosts
    adsmig("cp", src, tmp_path / "back")


# Ways that are shut


def refused(adsmig: Adsmig, server: Sshd | RcloneSftp, url: str = "", **environment: str) -> str:
    """The one line that a run ends with which cannot begin."""
    url = url or server.address("/nowhere/")
    done = adsmig("cp", url, "/nonexistent/x", code=3, **environment)
    (line,) = done.stderr.splitlines()
    return line


def test_a_wrong_password(adsmig: Adsmig, rclone: RcloneSftp, home: Path) -> None:
    rclone.trust(home)
    line = refused(adsmig, rclone, f"{rclone.user}:Xsecret@{rclone.host}:x")
    assert f"wrong password for {rclone.user}@{rclone.host}" in line
    assert "Xsecret" not in line


def test_a_server_that_takes_no_password(adsmig: Adsmig, trusted: Sshd) -> None:
    line = refused(adsmig, trusted, f"root:Xsecret@{trusted.host}:x")
    assert "takes no password, only: publickey" in line
    assert "Xsecret" not in line


def test_a_changed_host_key(adsmig: Adsmig, trusted: Sshd, home: Path, tmp_path: Path) -> None:
    other = make_key(tmp_path / "other").with_suffix(".pub").read_text().split()[1]
    known = trusted.known_hosts.replace(trusted.host_key.split()[1], other)
    (home / ".ssh" / "known_hosts").write_text(known)
    assert "has changed" in (line := refused(adsmig, trusted))
    assert "ssh-keygen -R" in line
    done = adsmig("cp", trusted.address("/x"), "/x", "--accept-new-host-key", code=3)
    assert "has changed" in done.stderr


def test_a_missing_key_file(adsmig: Adsmig, trusted: Sshd) -> None:
    line = refused(adsmig, trusted, SSH_PRIVATE_KEY_PATH="/no/such/key")
    assert "no key file /no/such/key, which SSH_PRIVATE_KEY_PATH names" in line


def test_a_key_with_a_passphrase(adsmig: Adsmig, trusted: Sshd, home: Path, tmp_path: Path) -> None:
    locked = make_key(tmp_path / "locked", "Xsecret")
    line = refused(adsmig, trusted, SSH_PRIVATE_KEY_PATH=str(locked))
    assert f"the key {locked} is protected by a passphrase" in line
    assert "ssh-add" in line
    shutil.copy(locked, home / ".ssh" / "id_ed25519")
    assert "id_ed25519 is protected by a passphrase: ssh-add it" in refused(adsmig, trusted)


def test_what_is_no_key(adsmig: Adsmig, trusted: Sshd, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("nothing of the kind")
    line = refused(adsmig, trusted, SSH_PRIVATE_KEY_PATH=str(tmp_path / "key"))
    assert "is no private key" in line


def test_a_key_that_the_server_does_not_know(
    adsmig: Adsmig, trusted: Sshd, home: Path, tmp_path: Path
) -> None:
    shutil.copy(make_key(tmp_path / "strange"), home / ".ssh" / "id_ed25519")
    line = refused(adsmig, trusted)
    assert f"refused {home}/.ssh/id_ed25519" in line
    assert "ADSMIG_SRC_PASSWORD" in line
    os.unlink(home / ".ssh" / "id_ed25519")
    assert "there is no key for" in refused(adsmig, trusted)


def test_nobody_there(adsmig: Adsmig, trusted: Sshd) -> None:
    (port,) = free_ports(1)
    line = refused(adsmig, trusted, f"sftp://root@127.0.0.1:{port}/x")
    assert f"nobody answers at 127.0.0.1:{port}: Connection refused" in line


def test_a_destination_that_may_not_be_made(adsmig: Adsmig, trusted: Sshd, tmp_path: Path) -> None:
    tree = put(tmp_path / "tree", {"a": b"1"})
    said = adsmig("cp", f"{tree}/", trusted.address(tree / "a" / "b"), code=3).stderr
    assert "cannot write to" in said


# Small files, which are asked for several at once


def mixed_tree(root: Path) -> Path:
    """Small files, and between them some that are not."""
    make_tree(root, 300, most=3000)
    for at in range(0, 300, 17):
        write(root / f"d{at % 23}" / f"between{at}", os.urandom((200 << 10) + at))
        write(root / f"d{at % 23}" / f"larger{at}", os.urandom((1 << 20) + at))
    return root


@pytest.mark.parametrize("to", ["directory", "server"])
def test_small_files_among_others_are_read_several_at_once(
    trusted: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    tree, copy = mixed_tree(tmp_path / "tree"), tmp_path / "copy"
    together, alone = list[int](), list[Entry]()
    expect, read = SftpStorage.expect, SftpStorage.read

    def expecting(storage: SftpStorage, entries: Sequence[Entry]) -> None:
        together.append(len(entries))
        expect(storage, entries)

    def reading(storage: SftpStorage, entry: Entry, *span: int) -> Body:
        if entry.key not in storage._expected._bodies:
            alone.append(entry)
        return read(storage, entry, *span)

    monkeypatch.setattr(SftpStorage, "expect", expecting)
    monkeypatch.setattr(SftpStorage, "read", reading)
    there = f"{copy}/" if to == "directory" else trusted.address(copy)
    job = Job("cp", parse(f"{trusted.address(tree)}/"), parse(there), workers=1)
    dst = worker.storages(job)[1]
    dst.prepare()
    result = worker.run_slice(job, EVERYTHING, Budget(600, 10**6), Lease("", 0))
    dst.tidy()
    worker.forget()
    assert result.done
    assert (result.counts.copied, result.counts.failed) == (336, 0)
    assert digest(copy) == digest(tree)
    assert sum(together) > 250
    assert max(together) <= 32
    small = [one for one in alone if one.size <= 3000]
    assert len(small) < 50  # one that comes between two others which are not small


def test_small_files_among_others_go_to_a_bucket(
    adsmig: Adsmig, trusted: Sshd, store: Bucket, tmp_path: Path
) -> None:
    tree = mixed_tree(tmp_path / "tree")
    assert "copied 336 objects" in adsmig("cp", trusted.address(tree), store.url).stdout
    assert store.content() == tree_of(tree)


def test_many_directories_get_their_permissions_from_the_inside_out(
    adsmig: Adsmig, trusted: Sshd, tmp_path: Path
) -> None:
    tree, made = tmp_path / "tree", list[Path]()
    for at in range(40):
        path = tree / f"d{at % 7}" / f"e{at % 3}" / f"f{at}" / "g"
        path.mkdir(parents=True, exist_ok=True)
        write(path / "file", b"content")
    made = sorted(path for path in tree.rglob("*") if path.is_dir())
    for at, path in enumerate(reversed(made)):
        path.chmod((0o500, 0o555, 0o750)[at % 3])
        os.utime(path, (1_500_000_000 + at, 1_500_000_000 + at))

    def told(root: Path) -> dict[str, tuple[int, float]]:
        found = (root / path.relative_to(tree) for path in made)
        return {str(p.relative_to(root)): (p.stat().st_mode, p.stat().st_mtime) for p in found}

    adsmig("cp", trusted.address(tree), tmp_path / "here")
    assert told(tmp_path / "here") == told(tree)
    adsmig("cp", tree, trusted.address(tmp_path / "there"))
    assert told(tmp_path / "there") == told(tree)
