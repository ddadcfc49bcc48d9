"""Serves the console on one address, to nobody who may not come in."""

from __future__ import annotations

import contextlib
import getpass
import ipaddress
import os
import re
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import uvicorn

from adsmig.errors import AdsmigError, UsageError
from adsmig.web import clockwork
from adsmig.web.access import Access, write_password
from adsmig.web.app import make_app
from adsmig.web.console import Console

SHORTEST_PASSWORD = 8


def serve(listen: str, allowed: Sequence[Path], language: str) -> int:
    """Serves until a signal asks for the end, and returns 0.  Says on stdout where, and how to come
    in.

    Raises UsageError for an address that is no such thing, or that others can reach while there is
    no password; AdsmigError for one that cannot be listened on.
    """
    host, port = _address(listen)
    inside = _is_loopback(host)
    access = Access()
    if not inside and not access.password:
        raise UsageError(
            f"{listen} can be reached from other machines, and there is no password: set one with"
            " adsmig web --set-password, and put TLS in front (see The console in the README)"
        )
    server = _listening(host, port)
    # Nobody is there to be asked for the password of an SFTP server.
    os.dup2(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), sys.stdin.fileno())
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{server.getsockname()[1]}/"
    print(f"the console: {url if access.password else f'{url}login?token={access.token}'}")
    if not inside:
        print(
            "this is http: let a proxy on this machine speak https to the others", file=sys.stderr
        )
    sys.stdout.flush()
    config = uvicorn.Config(
        make_app(Console(tuple(allowed)), access, language),
        access_log=False,  # which would show the token
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=1,  # of streams of events, which have no end
    )
    clock = clockwork.scheduler()
    if clock:
        clock.start()
    try:
        with contextlib.suppress(KeyboardInterrupt):  # which uvicorn passes on; all is well
            uvicorn.Server(config).run(sockets=[server])
    finally:
        if clock:
            clock.stop()
    return 0


def set_password() -> int:
    """Asks for a password, twice at a terminal, and keeps its hash; raises UsageError if it is too
    short, or not the same.
    """
    if sys.stdin.isatty():
        password = getpass.getpass("New password of the console: ")
        if getpass.getpass("The same again: ") != password:
            raise UsageError("these are two passwords; nothing was changed")
    else:
        password = sys.stdin.readline().rstrip("\n")
    if len(password) < SHORTEST_PASSWORD:
        raise UsageError(f"a password has {SHORTEST_PASSWORD} characters at least")
    print(f"its hash is in {write_password(password)}; start the console anew to use it")
    return 0


def _address(listen: str) -> tuple[str, int]:
    match = re.fullmatch(r"(?:(\[[0-9A-Fa-f:.]+\]|[^:\[\]]*):)?([0-9]{1,5})", listen)
    if not match or int(match[2]) > 65535:
        raise UsageError(f"--listen {listen!r}: write ADDRESS:PORT, such as 127.0.0.1:8080")
    return (match[1] or "127.0.0.1").strip("[]"), int(match[2])


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as exc:
        raise AdsmigError(f"cannot listen on {host}:{port}: {exc.strerror}") from exc
