"""Who may come in: a token, a password, sessions, and what tells a request from a forged one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import time
from collections import defaultdict, deque
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from adsmig.credentials import accounts_file
from adsmig.errors import UsageError

COOKIE = "adsmig_session"
IDLE_S = 12 * 3600
LONGEST_S = 7 * 86400
WINDOW_S = 60.0
MOST_WRONG, MOST_WRONG_ALL = 5, 50
"""Wrong attempts in a window: from one address, and from all together."""
SAFE = ("GET", "HEAD", "OPTIONS")
# 16 MiB and some 50 ms for each try: OWASP, Password Storage Cheat Sheet.
_SCRYPT = {"n": 2**14, "r": 8, "p": 5}


@dataclass
class Session:
    """Somebody who came in."""

    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    """What a form has to repeat."""
    began: float = field(default_factory=time.monotonic)
    seen: float = field(default_factory=time.monotonic)
    by_key: bool = False
    """A program, with the key for the API, which no browser sends by itself."""

    @property
    def over(self) -> bool:
        """Whether it is too old, or was not used for too long."""
        now = time.monotonic()
        return now - self.seen > IDLE_S or now - self.began > LONGEST_S


class Access:
    """What this console lets in.  Sessions are forgotten when it ends."""

    def __init__(self) -> None:
        self.password = _read(_password_file())
        """Its hash; '' if there is none, and :attr:`token` lets in instead."""
        self.token = secrets.token_urlsafe(24)
        self.key = _api_key()
        self._sessions: dict[str, Session] = {}
        self._wrong: defaultdict[str, deque[float]] = defaultdict(deque)

    def log_in(self, given: str, address: str) -> str | None:
        """The cookie of a new session, if what was given is right; None if not.

        Whoever was wrong too often has to wait, see :meth:`waits`: it is not even looked at.
        """
        if self.waits(address):
            return None
        right = (
            _matches(self.password, given) if self.password else _same(self.token, given)
        )  # fmt: skip
        if not right:
            for who in (address, ""):
                self._wrong[who].append(time.monotonic())
            return None
        self._sessions = {name: one for name, one in self._sessions.items() if not one.over}
        cookie = secrets.token_urlsafe(32)
        self._sessions[_digest(cookie)] = Session()
        return cookie

    def waits(self, address: str) -> float:
        """Seconds until somebody there may try to log in again; 0: now."""
        now = time.monotonic()
        longest = 0.0
        for who, most in ((address, MOST_WRONG), ("", MOST_WRONG_ALL)):
            times = self._wrong[who]
            while times and now - times[0] > WINDOW_S:
                times.popleft()
            if len(times) >= most:
                longest = max(longest, times[0] + WINDOW_S - now)
            if not times:
                del self._wrong[who]
        return longest

    def log_out(self, request: HTTPConnection) -> None:
        """Ends the session; its cookie is good for nothing from now on."""
        self._sessions.pop(_digest(request.cookies.get(COOKIE, "")), None)

    def session(self, request: HTTPConnection, used: bool = True) -> Session | None:
        """Who makes a request, by the key for the API or by a cookie; None: nobody known.

        Not ``used``, it gets no younger: a page that is left open is nobody at work.
        """
        kind, _, key = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and _same(self.key, key):
            return Session(by_key=True)
        found = self._sessions.get(_digest(request.cookies.get(COOKIE, "")))
        if not found or found.over:
            return None
        if used:
            found.seen = time.monotonic()
        return found

    def is_forged(self, request: HTTPConnection, session: Session, csrf: str) -> bool:
        """Whether what changes something may have been sent by a page of somebody else."""
        if session.by_key:
            return False
        return is_foreign(request) or not _same(session.csrf, csrf)


def is_foreign(request: HTTPConnection) -> bool:
    """Whether the browser says that a page of another origin makes the request."""
    site = request.headers.get("sec-fetch-site", "same-origin")
    origin = request.headers.get("origin")
    other = origin is not None and urlsplit(origin).netloc != request.headers.get("host")
    return other or site not in ("same-origin", "none")


def write_password(password: str) -> Path:
    """Keeps the password's hash, for the next start; where that is."""
    salt = secrets.token_bytes(16)
    hashed = _scrypt(password, salt, **_SCRYPT)
    numbers = "$".join(str(number) for number in _SCRYPT.values())
    text = f"scrypt${numbers}${_text(salt)}${_text(hashed)}"
    path = _password_file()
    _write(path, text)
    return path


def key_file() -> Path:
    """What holds the key for the API, readable by its owner only."""
    return accounts_file().with_name("console-key")


def _password_file() -> Path:
    return accounts_file().with_name("console-password")


def _api_key() -> str:
    key = _read(key_file())
    if not key:
        key = secrets.token_urlsafe(32)
        _write(key_file(), key)
    return key


def _matches(kept: str, password: str) -> bool:
    _, n, r, p, salt, hashed = kept.split("$")
    found = _scrypt(password, base64.b64decode(salt), n=int(n), r=int(r), p=int(p))
    return hmac.compare_digest(found, base64.b64decode(hashed))


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    data = password.encode("utf-8", "surrogatepass")
    return hashlib.scrypt(data, salt=salt, n=n, r=r, p=p, maxmem=256 << 20, dklen=32)


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode("utf-8", "surrogatepass"))


def _digest(cookie: str) -> str:
    return hashlib.sha256(cookie.encode("utf-8", "surrogatepass")).hexdigest()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""
    except OSError as exc:
        raise UsageError(f"cannot read {path}: {exc.strerror}") from exc


def _write(path: Path, text: str) -> None:
    """In one step, readable by its owner only."""
    new = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(new, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(f"{text}\n")
        os.replace(new, path)
    except OSError as exc:
        raise UsageError(f"cannot write {path}: {exc.strerror}") from exc
