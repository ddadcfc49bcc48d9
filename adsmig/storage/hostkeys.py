"""The keys by which servers are known: ``known_hosts``, as OpenSSH keeps it (sshd(8))."""

from __future__ import annotations

import contextlib
import os

from paramiko import PKey, SSHException
from paramiko.hostkeys import HostKeyEntry, HostKeys, InvalidHostKey

from adsmig.errors import AdsmigError

SYSTEM_FILE = "/etc/ssh/ssh_known_hosts"
SSH_PORT = 22


class HostKeyRefused(AdsmigError):
    """The server is not, or cannot be known to be, the one that was meant."""


def user_file() -> str:
    """The user's own, which new keys are written to."""
    return os.path.expanduser("~/.ssh/known_hosts")


def name_of(host: str, port: int) -> str:
    """As the file has it."""
    return host if port == SSH_PORT else f"[{host}]:{port}"


def known_keys(host: str, port: int) -> dict[str, PKey]:
    """What is known of a server: by the type of the key.  A file that is not there knows nothing.

    A server on another port than 22 has a line of its own, ``[host]:port``.
    """
    return _found(name_of(host, port), "")


def _found(name: str, marker: str) -> dict[str, PKey]:
    """What the lines with this marker, or without one, say of a name; the first of each type."""
    found: dict[str, PKey] = {}
    for path in (SYSTEM_FILE, user_file()):
        try:
            with open(path, encoding="utf-8") as file:
                entries = [_entry(line, marker) for line in file]
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as exc:
            raise AdsmigError(f"cannot read {path}: {exc}; mend it") from exc
        for entry in reversed(entries):
            if entry and any(_is(name, one) for one in entry.hostnames):
                found[entry.key.get_name()] = entry.key
    return found


def _entry(line: str, marker: str) -> HostKeyEntry | None:
    """What stands in a line; None if it has another marker, as ``@cert-authority``, or is none."""
    fields = line.split()
    if fields and fields[0].startswith("@"):
        if fields.pop(0) != marker:
            return None
    elif marker or line.lstrip().startswith("#"):
        return None
    try:
        return HostKeyEntry.from_line(" ".join(fields))
    except (SSHException, InvalidHostKey):
        return None  # as ssh passes over it


def _is(name: str, kept: str) -> bool:
    """Whether a name is the one in the file, which may have been hashed."""
    with contextlib.suppress(ValueError, IndexError, AssertionError):  # of what is no hash
        return name == kept or (kept.startswith("|1|") and HostKeys.hash_host(name, kept) == kept)
    return False


def check(host: str, port: int, key: PKey, known: dict[str, PKey], accept_new: bool) -> None:
    """HostKeyRefused unless the server showed the key that is known; remembers a new one if asked.

    A server that no longer has a key of any known type has changed, too.
    """
    name, kind = name_of(host, port), key.get_name()
    print_ = f"{kind} {key.fingerprint}"
    revoked = _found(name, "@revoked").get(kind)
    if revoked and revoked.asbytes() == key.asbytes():
        raise HostKeyRefused(f"the host key of {name}, {print_}, is marked as revoked")
    if known:
        same = known.get(kind)
        if same is None or same.asbytes() != key.asbytes():
            raise HostKeyRefused(
                f"the host key of {name} has changed, to {print_}: someone may be in between; if it"
                f" was changed on purpose, remove the old one with: ssh-keygen -R '{name}'"
            )
        return
    if not accept_new:
        raise HostKeyRefused(
            f"the host key of {name} is not known: {print_}; if that is its key, say"
            " --accept-new-host-key, or log in once with ssh"
        )
    _remember(name, key)


def _remember(name: str, key: PKey) -> None:
    path = user_file()
    line = f"{name} {key.get_name()} {key.get_base64()}\n".encode()
    try:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(fd).st_size
            if size and os.pread(fd, 1, size - 1) != b"\n":
                line = b"\n" + line
            os.write(fd, line)
        finally:
            os.close(fd)
    except OSError as exc:
        raise AdsmigError(f"cannot write the host key to {path}: {exc.strerror}") from exc
