"""Where keys, secrets and passwords come from that do not stand in an address."""

from __future__ import annotations

import fcntl
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from adsmig.errors import UsageError
from adsmig.location import Credentials, Location

if TYPE_CHECKING:
    import configparser

AWS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")

ENVIRONMENT = {
    "oss": ("OSS_ACCESS_KEY_ID", "OSS_ACCESS_KEY_SECRET", "OSS_SESSION_TOKEN"),
    "cos": ("COS_SECRETID", "COS_SECRETKEY", "COS_TOKEN"),
    "bos": ("BCE_ACCESS_KEY_ID", "BCE_SECRET_ACCESS_KEY", "BCE_SESSION_TOKEN"),
    "ks3": ("KS3_ACCESS_KEY_ID", "KS3_ACCESS_KEY_SECRET", "KS3_SESSION_TOKEN"),
    "obs": ("OBS_ACCESS_KEY_ID", "OBS_SECRET_ACCESS_KEY", "OBS_SECURITY_TOKEN"),
    "qiniu": ("QINIU_ACCESS_KEY", "QINIU_SECRET_KEY", ""),
    "ufile": ("UCLOUD_PUBLIC_KEY", "UCLOUD_PRIVATE_KEY", ""),
    "minio": ("MINIO_ACCESS_KEY", "MINIO_SECRET_KEY", ""),
}
"""The variables that providers' own tools and SDKs read: key, secret and token."""

_SPELLINGS = {
    "access_key": ("access_key", "aws_access_key_id"),
    "secret_key": ("secret_key", "aws_secret_access_key"),
    "token": ("token", "aws_session_token"),
    "password": ("password",),
}


def with_credentials(at: Location, side: str) -> Location:
    """The location with the credentials of its ``side``, SRC or DST, if it has none yet.

    The first of: the named account; ``ADSMIG_SIDE_...`` in the environment; the variables of the
    provider, then of AWS.  An account that is not in the file of :func:`accounts_file` stays to be
    looked up in the shared files of AWS; where there is nothing at all, so does the rest of boto3's
    chain (storage.aws).  Raises UsageError for half of a pair, for a file that others can read, and
    for what no request can carry, in the address too.
    """
    found = _with_credentials(at, side)
    if found.credentials:
        check(found.credentials, side)
    return found


def check(given: Credentials, where: str) -> None:
    """Raises UsageError for credentials that no request can carry; ``where``: what they are for."""
    for what, value in (("access key", given.access_key), ("token", given.token or "")):
        if not (value.isascii() and value.isprintable()):
            raise UsageError(
                f"the {what} for {where} has characters that none has (not shown): copy it anew to"
                " where it comes from, the address, the environment or a file of accounts"
            )


def _with_credentials(at: Location, side: str) -> Location:
    if at.scheme == "file" or at.anonymous or at.credentials:
        return at
    if at.account:
        return replace(at, credentials=_of_account(at))
    given = _of_side(side)
    if (found := given and given.of_scheme(at.scheme)) or at.scheme == "sftp":
        return replace(at, credentials=found)
    return replace(at, credentials=_of_provider(at.scheme))


def _of_side(side: str) -> Credentials | None:
    """The keys and the password of one side."""
    names = [f"ADSMIG_{side}_{what}" for what in ("ACCESS_KEY", "SECRET_KEY", "TOKEN", "PASSWORD")]
    access_key, secret_key, token, password = map(_from_environment, names)
    if bool(access_key) != bool(secret_key):
        raise UsageError(f"set both {names[0]} and {names[1]}")
    if access_key and secret_key:
        return Credentials(access_key, secret_key, token or None, password, origin=f"of {names[0]}")
    return None if password is None else Credentials("", "", None, password)


def _of_provider(scheme: str) -> Credentials | None:
    for names in (ENVIRONMENT.get(scheme, AWS), AWS):
        access_key, secret_key, token = map(_from_environment, names)
        if names == AWS and os.environ.get("AWS_CREDENTIAL_EXPIRATION"):
            return None  # boto3 knows how to refresh them
        if access_key and secret_key:
            return Credentials(access_key, secret_key, token or None, origin=f"of {names[0]}")
    return None


def _from_environment(name: str) -> str | None:
    """A variable without the end of the line that it may have been read from."""
    value = os.environ.get(name)
    return value and value.rstrip("\r\n")


def accounts_file() -> Path:
    """Named accounts, in sections as those of AWS's shared files; need not exist."""
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "adsmig" / "credentials"


def account_names() -> list[str]:
    """The accounts of that file, in its order; raises UsageError where it cannot be read."""
    parser = _accounts(accounts_file())
    return parser.sections() if parser else []


def keep_account(wanted: str, credentials: Credentials) -> str:
    """Adds an account to that file, which is made if need be; its name.

    That is ``wanted``, or, where such an account has other credentials, the same with a number.
    Raises UsageError for what cannot be kept in such a file, or a file that cannot be written.
    """
    values = {
        "access_key": credentials.access_key,
        "secret_key": credentials.secret_key,
        "token": credentials.token or "",
        "password": credentials.password or "",
    }
    given = {name: value for name, value in values.items() if value}
    if any(not value.isprintable() or value != value.strip() for value in given.values()):
        raise UsageError("a key or a password that has a blank at an end, or is not printable")
    path = accounts_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(path, "a", encoding="utf-8", opener=_private) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            parser = _accounts(path)
            if parser is None:
                raise UsageError(f"{path} is no file of sections [NAME] with lines NAME = VALUE")
            name, number = wanted, 1
            while name in parser and dict(parser[name]) != given:
                number += 1
                name = f"{wanted}-{number}"
            if name not in parser:
                lines = [f"{key} = {value}\n" for key, value in given.items()]
                _append(file.fileno(), f"\n[{name}]\n{''.join(lines)}".encode())
    except OSError as exc:
        raise UsageError(f"cannot write {path}: {exc.strerror}") from exc
    return name


def _append(file: int, data: bytes) -> None:
    """All of it, or nothing: half a section would keep all others from being read."""
    end = os.fstat(file).st_size
    try:
        while data:
            data = data[os.write(file, data) :]
    except OSError:
        os.ftruncate(file, end)
        raise


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _accounts(path: Path) -> configparser.RawConfigParser | None:
    """What the file holds, nothing if it is not there; None if it cannot be understood."""
    import configparser  # takes 5 ms, which most jobs need not

    parser = configparser.RawConfigParser()  # in which a '%' in a secret means itself
    try:
        with open(path, encoding="utf-8") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise UsageError(f"others can read the secrets in {path}: chmod 600 {path}")
            parser.read_file(file)
    except FileNotFoundError:
        pass
    except OSError as exc:
        raise UsageError(f"cannot read {path}: {exc.strerror}") from exc
    except (configparser.Error, UnicodeDecodeError):
        return None  # the error, which shows a line, and so a secret, ends here
    return parser


def _of_account(at: Location) -> Credentials | None:
    """What the file says of the account; None if nothing, and it may be one of AWS's."""
    path = accounts_file()
    parser = _accounts(path)
    if parser is None:
        raise UsageError(f"{path} is no file of sections [NAME] with lines NAME = VALUE")
    if at.account not in parser:
        if at.scheme == "sftp":
            raise UsageError(f"no section [{at.account}] in {path}, for {at}")
        return None
    section = parser[at.account]
    found = {
        name: next((section[one] for one in spellings if one in section), None)
        for name, spellings in _SPELLINGS.items()
    }
    access_key, secret_key = found["access_key"] or "", found["secret_key"] or ""
    if bool(access_key) != bool(secret_key):
        raise UsageError(f"[{at.account}] in {path} has one of access_key and secret_key: add both")
    origin = f"of [{at.account}] in {path}"
    given = Credentials(access_key, secret_key, found["token"], found["password"], origin=origin)
    if not (kept := given.of_scheme(at.scheme)):
        needed = "password" if at.scheme == "sftp" else "access_key and secret_key"
        raise UsageError(f"[{at.account}] in {path} has no {needed}, for {at}")
    return kept
