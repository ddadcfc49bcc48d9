"""Connecting and logging in to an SFTP server; the connections that a thread keeps."""

from __future__ import annotations

import contextlib
import getpass
import logging
import os
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace

import paramiko
from paramiko import PKey, Transport
from paramiko.pkey import UnknownKeyType
from paramiko.ssh_exception import IncompatiblePeer

from adsmig.errors import AdsmigError, TransientError, Unreachable
from adsmig.location import Credentials, Location
from adsmig.retry import retry
from adsmig.routes import target
from adsmig.storage import hostkeys
from adsmig.storage.base import Settings
from adsmig.storage.sftpwire import SftpWire
from adsmig.storage.sshchannel import LONG_PACKET, WINDOW, DirectChannel, Packets, direct

log = logging.getLogger(__name__)

KEY_VARIABLE = "SSH_PRIVATE_KEY_PATH"
KEY_FILES = ("id_ed25519", "id_ecdsa", "id_rsa")
"""Of ``~/.ssh``, in the order in which they are tried."""
MOST_AGENT_KEYS = 4
"""Keys of an agent that are tried: OpenSSH's sshd ends a connection at the sixth refusal
(MaxAuthTries, sshd_config(5))."""

_GCM = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")

# It tells of every connection that ends, with a traceback; what there is to say, we say.
logging.getLogger("paramiko").setLevel(logging.CRITICAL + 1)


class LoginRefused(AdsmigError):
    """The server does not let the user in."""


class Connection:
    """A session with a server, closed when it is forgotten."""

    def __init__(self, location: Location, settings: Settings) -> None:
        with _connecting:
            self._transport = _log_in(location, settings)
        try:
            with _translated(location):
                channel = self._transport.open_session(timeout=settings.connect_timeout_s)
                channel.settimeout(settings.read_timeout_s)
                channel.invoke_subsystem("sftp")
                self._channel = direct(channel, self._transport, settings.read_timeout_s)
                self.wire = SftpWire(self._channel, shown(location))
        except BaseException:
            self.close()
            raise

    @property
    def fit(self) -> bool:
        """Whether it can go on."""
        worn = isinstance(self._channel, DirectChannel) and self._channel.worn
        return not (self.wire.lost or worn)

    def close(self) -> None:
        """Ends it; may be called again."""
        self._transport.close()

    def __del__(self) -> None:
        if hasattr(self, "_transport"):
            self.close()


class _Kept(threading.local):
    """A thread's connections, by whom and where they are logged in."""

    def __init__(self) -> None:
        self.connections: dict[object, Connection] = {}


_kept = _Kept()
_released: dict[object, list[Connection]] = {}
"""Those that no thread has a use for just now."""
_releasing = threading.Lock()
_connecting = threading.Lock()
"""Held during a login: OpenSSH's sshd drops some of many at once (MaxStartups)."""


def wire_to(location: Location, settings: Settings) -> SftpWire:
    """The calling thread's connection, which it keeps; taken over from another thread or made anew
    if there is none, or it was lost or is worn.
    """
    key = _key_of(location)
    kept = _kept.connections.get(key)
    if kept and kept.fit:
        return kept.wire
    drop(location)
    kept = _kept.connections[key] = _taken_over(key) or Connection(location, settings)
    return kept.wire


def _taken_over(key: object) -> Connection | None:
    with _releasing:
        left = _released.get(key, [])
        while left:
            if (found := left.pop()).fit:
                return found
            found.close()
    return None


def release(location: Location) -> None:
    """Leaves the calling thread's connection to the next who asks for one, with nothing left to be
    sent: that may be a while, and servers hold open what is not closed.
    """
    key = _key_of(location)
    if kept := _kept.connections.pop(key, None):
        if kept.fit:
            with contextlib.suppress(TransientError):
                kept.wire.flush()
        with _releasing:
            _released.setdefault(key, []).append(kept)


def drop_released(location: Location) -> None:
    """Closes the connections that were left and not taken over."""
    with _releasing:
        left = _released.pop(_key_of(location), [])
    for connection in left:
        connection.close()


def drop(location: Location) -> None:
    """Closes the calling thread's connection, if it has one."""
    if kept := _kept.connections.pop(_key_of(location), None):
        kept.close()


def _key_of(location: Location) -> object:
    return location.host, location.user, location.credentials


def shown(location: Location) -> str:
    """The server, for messages."""
    return f"{location.user}@{location.host}"


def with_login(location: Location, settings: Settings) -> Location:
    """The location, with a password if one is needed to log in: it is asked for at a terminal.

    Raises LoginRefused if the server wants one and there is nobody to ask, and whatever else is
    wrong with the way there: so that a job which cannot run ends before it begins.
    """

    def connect() -> None:
        wire_to(location, settings)

    try:
        retry(connect, f"logging in at {shown(location)}", tries=3, final=(Unreachable,))
    except LoginRefused:
        if location.credentials or not sys.stdin.isatty():
            raise
        password = getpass.getpass(f"Password of {shown(location)}: ")
        return with_login(replace(location, credentials=Credentials("", "", None, password)),
                          settings)  # fmt: skip
    return location


def _log_in(location: Location, settings: Settings) -> Transport:
    host, port = location.address
    known = hostkeys.known_keys(host, port)
    with _translated(location):
        transport = _greet(location, known, settings)
    try:
        hostkeys.check(
            host, port, transport.get_remote_server_key(), known, settings.accept_new_host_key
        )
        with _translated(location):
            _authenticate(transport, location)
    except BaseException:
        transport.close()
        raise
    return transport


def _greet(location: Location, known: dict[str, PKey], settings: Settings) -> Transport:
    """An encrypted connection with whoever answers."""
    try:
        there = target(settings.routes, *location.address) or location.address
        sock = socket.create_connection(there, settings.connect_timeout_s)
    except OSError as exc:
        reason = "it did not answer in time" if isinstance(exc, TimeoutError) else exc.strerror
        raise Unreachable(
            f"nobody answers at {location.host}: {reason}; check the host and its port"
        ) from exc
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    transport = Transport(sock, WINDOW, LONG_PACKET, packetizer_class=Packets)
    try:
        transport.daemon = True
        transport.banner_timeout = transport.auth_timeout = settings.read_timeout_s
        transport.set_keepalive(30)
        options = transport.get_security_options()
        # One pass of the processor's own instructions, where others take a second for the MAC.
        gcm = [name for name in _GCM if name in options.ciphers]
        options.ciphers = [*gcm, *(name for name in options.ciphers if name not in gcm)]
        # A server with keys of several types is to show one that is known.
        first = [one for one in options.key_types if _of_type(one) in known]
        options.key_types = [*first, *(one for one in options.key_types if one not in first)]
        transport.start_client(timeout=settings.connect_timeout_s)
        if not transport.initial_kex_done:  # it returns all the same when the time is up
            raise TimeoutError("no greeting in time")
    except BaseException:
        transport.close()
        sock.close()
        raise
    return transport


def _of_type(algorithm: str) -> str:
    """The type of key that goes with an algorithm (RFC 8332)."""
    return "ssh-rsa" if algorithm.startswith("rsa-sha2-") else algorithm


def _authenticate(transport: Transport, location: Location) -> None:
    where = shown(location)
    if location.credentials:
        try:
            # Keyboard-interactive, where that is what the server calls a password.
            transport.auth_password(location.user, location.credentials.password or "")
        except paramiko.BadAuthenticationType as exc:
            raise LoginRefused(
                f"{where} takes no password, only: {', '.join(exc.allowed_types)}"
            ) from exc
        except paramiko.AuthenticationException as exc:
            raise LoginRefused(f"wrong password for {where}, or no such user there") from exc
        return
    tried, locked = list[str](), list[str]()
    for name, key in _keys(locked):
        try:
            transport.auth_publickey(location.user, key)
            log.info("logged in at %s with %s", where, name)
            return
        except paramiko.AuthenticationException:
            tried.append(name)
        except paramiko.SSHException:
            if not transport.is_active():
                break  # it has had enough of our keys
            tried.append(name)
    reasons = [f"{where} refused {', '.join(tried)}" if tried else f"there is no key for {where}"]
    reasons += [f"{name} is protected by a passphrase: ssh-add it" for name in locked]
    raise LoginRefused(
        "; ".join(reasons) + f"; or name another key in {KEY_VARIABLE}, or give a password, as"
        " USER:PASSWORD@HOST or in ADSMIG_SRC_PASSWORD or ADSMIG_DST_PASSWORD"
    )


def _keys(locked: list[str]) -> Iterator[tuple[str, PKey]]:
    """Private keys, each with its name, in the order to be tried; adds those in need of a
    passphrase to ``locked``.
    """
    if path := os.environ.get(KEY_VARIABLE):
        yield path, _key_at(os.path.expanduser(path))
        return
    agent = paramiko.Agent()
    try:
        for key in agent.get_keys()[:MOST_AGENT_KEYS]:
            yield f"the agent's {key.get_name()} key", key
    finally:
        agent.close()
    for name in KEY_FILES:
        path = os.path.expanduser(f"~/.ssh/{name}")
        if not os.path.exists(path):
            continue
        try:
            yield path, _key_at(path)
        except _Locked:
            locked.append(path)


class _Locked(LoginRefused):
    """The key needs a passphrase."""


def _key_at(path: str) -> PKey:
    try:
        return PKey.from_path(path)
    except FileNotFoundError as exc:
        raise AdsmigError(f"no key file {path}, which {KEY_VARIABLE} names") from exc
    except OSError as exc:
        raise AdsmigError(f"cannot read the key file {path}: {exc.strerror}") from exc
    except (paramiko.PasswordRequiredException, TypeError) as exc:  # cryptography's, for one
        raise _Locked(
            f"the key {path} is protected by a passphrase: ssh-add it to an agent, and unset"
            f" {KEY_VARIABLE}"
        ) from exc
    except (paramiko.SSHException, UnknownKeyType, ValueError) as exc:
        raise AdsmigError(f"{path} is no private key that can be read") from exc


@contextlib.contextmanager
def _translated(location: Location) -> Iterator[None]:
    """Turns what paramiko raises into ours."""
    try:
        yield
    except IncompatiblePeer as exc:
        raise AdsmigError(
            f"{location.host} speaks no SSH that is known here: {_line(exc)}"
        ) from exc
    except (paramiko.SSHException, EOFError, OSError) as exc:
        raise TransientError(f"no session with {location.host}: {_line(exc)}") from exc


def _line(exc: Exception) -> str:
    return " ".join(str(exc).split()) or type(exc).__name__
