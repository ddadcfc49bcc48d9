"""An address as a user writes it, parsed.

``[NAME://][ACCESS_KEY:SECRET_KEY[:TOKEN]@]BUCKET[.ENDPOINT][/PREFIX]`` for object stores, in path
style ``NAME://[...@]HOST[:PORT]/BUCKET[/PREFIX]``.  ``[USER[:PASSWORD]@]HOST[:PORT]:PATH`` after
``sftp://``, or without it where there is a USER, and ``sftp://[...@]HOST[:PORT]/PATH`` for SFTP.
Anything else without ``NAME://`` is a local path; but what looks like an address to other tools has
to be there, or to be written ``./name``.

No message raised here repeats a part of an address that could hold a key or a secret.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import urllib.parse
from collections.abc import Iterable

from adsmig.errors import UsageError
from adsmig.location import ADDRESS, HOST, Credentials, Location, one_line
from adsmig.providers import PATH, PROVIDERS, endpoint_of

_SUPPORTED = ", ".join(
    ["a local path", "file://", "sftp://", *(f"{name}://" for name in PROVIDERS)]
)

_ESCAPES = "'/' as %2F, '@' as %40, ':' as %3A, '+' as %2B and '%' as %25"

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_PATH_LIKE_STORE = re.compile(r"(?P<directory>/[^:@]+)/[^/:@]+:[^/:@]+@[^:@]*")
_LIKE_HOST = re.compile(HOST.pattern + ":")
_IPV4 = re.compile(r"[0-9]+(?:\.[0-9]+){3}")
# https://docs.aws.amazon.com/general/latest/gr/s3.html, with the older s3-REGION form.
_AWS = re.compile(
    r"(?:(?P<bucket>.+)\.)?"
    r"(?P<host>s3(?:[.-](?:accelerate|dualstack|external-1|fips))*"
    r"(?:[.-](?P<region>[a-z]{2,}(?:-[a-z]+)+-[0-9]+))?\.amazonaws\.com(?:\.cn)?)",
    re.IGNORECASE,
)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")  # ':' is Ceph's TENANT:BUCKET, in a path only
_AWS_BUCKET = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
# AK:SK@BUCKET, //AK:SK@BUCKET, USER@HOST:PATH and rclone's s3:BUCKET
_LIKE_STORE = re.compile(
    rf"(?://)?[^/]*:.*@|[^/\s]+@[^/\s:]+:|(?:{'|'.join(PROVIDERS)}|file):",
    re.DOTALL | re.IGNORECASE,
)
# With sftp://, a path may follow a '/', and then it is absolute; else it follows a ':'.
_LOGIN = r"(?:(?P<user>[^:@/]+)(?P<colon>:(?P<password>[^:@/]*))?@)"
_SFTP = re.compile(rf"{_LOGIN}?(?P<host>{HOST.pattern})(?:(?P<mark>[:/])(?P<path>.*))?", re.DOTALL)
_SCP = re.compile(rf"{_LOGIN}(?P<host>{HOST.pattern})(?P<mark>:)(?P<path>.*)", re.DOTALL)
_LIKE_PORT = re.compile(r"[0-9]{1,5}(?:/|\Z)")


def parse(text: str | bytes, *, https: bool | None = None, path_style: bool = False) -> Location:
    """The location that a user wrote; raises UsageError with a message that is safe to print.

    ``text`` may come from ``sys.argv`` (surrogateescape).  ``https`` is ``--https`` (True),
    ``--no-https`` (False) or neither; ``path_style`` is ``--path-style``.  A local path is made
    absolute against the current directory and need not exist.
    """
    if isinstance(text, bytes):
        text = os.fsdecode(text)
    if not text:
        raise UsageError(f"the address is empty; write one of {_SUPPORTED}")
    if text == "-":
        raise UsageError(
            "'-' is no address: neither standard input nor output is copied; a file of that name is"
            " written ./-"
        )
    name, separator, rest = text.partition("://")
    if not separator or "/" in name:
        if _LIKE_STORE.match(text) and not os.path.lexists(text):
            match = _SCP.fullmatch(text)
            if match and not _may_hide(match, text):
                return _sftp_of(match, bare=True)
            raise UsageError(
                "an address without NAME:// that does not look like a local path (not shown, it"
                " may hold a secret): write s3://..., minio://... or sftp://..., or"
                f" USER[:PASSWORD]@HOST:PATH, and in names and passwords {_ESCAPES}; a local path"
                " with such a name is written ./name"
            )
        if _LIKE_HOST.match(text) and not os.path.lexists(text.partition("/")[0]):
            raise UsageError(
                "a name with a ':' that is not there, as HOST:PATH in scp and rsync (not shown, it"
                " may hold a secret): for SFTP write USER@HOST:PATH, or sftp://HOST/PATH; a local"
                " path with a ':' in its name, as in a time, is written ./name"
            )
        return _parse_path(text)
    scheme = name.lower()
    if scheme == "file":
        if not rest.startswith("/"):
            raise UsageError("file:// needs an absolute path: write file:///path, or just the path")
        return _parse_path(rest)
    if scheme == "sftp":
        return _parse_sftp(rest)
    if scheme in PROVIDERS:
        return _parse_store(scheme, rest, https=https, path_style=path_style)
    shown = f"{name}://" if _NAME.fullmatch(name) else "what stands before ://"
    raise UsageError(f"{shown} is not supported in an address; write one of {_SUPPORTED}")


def paths_among(words: Iterable[str]) -> list[str]:
    """Of local paths among the words of a command line, as they print, those that look as if they
    held a secret, and do not: a directory that is there has an entry, there or not, of such a name.

    In ``/AK:SK@BUCKET``, or in ``S3/AK:SK@BUCKET`` without a directory ``S3``, it could be one.
    """
    found = []
    for word in words:
        at = None
        if ":" in word and "@" in word:
            with contextlib.suppress(UsageError):
                at = parse(word)
        if at and at.scheme == "file":
            match = _PATH_LIKE_STORE.fullmatch(str(at))
            if match and os.path.isdir(match["directory"]):
                found.append(str(at))
    return found


def endpoint_of_text(text: str, https: bool) -> tuple[str, bool, bool]:
    """Host, whether it takes path style (an IP address, localhost, a port), and whether https.

    ``http://`` or ``https://`` in front of it decides about https; without, it stays as it is.
    """
    protocol, separator, rest = text.rpartition("://")
    match = HOST.fullmatch(rest.removesuffix("/"))
    if not match or protocol.lower() not in ("", "http", "https") or (separator and not protocol):
        raise UsageError(
            "an endpoint is HOST, HOST:PORT, or one of them with http:// or https:// in front"
        )
    name = match["name"].lower()
    private = _is_private(name) or bool(match["port"])
    if separator:
        https = protocol.lower() == "https"
    elif _is_private(name):
        https = False
    return name + (match["port"] or ""), private, https


def _is_private(name: str) -> bool:
    """Whether a host is an IP address or this machine."""
    return name.startswith("[") or name.lower() == "localhost" or bool(_IPV4.fullmatch(name))


def _parse_path(text: str) -> Location:
    """A local path; ``..`` is looked up, for the parent of what a link names is another place."""
    if "\0" in text:
        raise UsageError("a local path cannot hold a NUL byte; check the address")
    try:
        path = os.fsencode(os.path.expanduser(text))
        parts = path.split(b"/")
        if b".." in parts:
            below = parts[::-1].index(b"..")
            above = b"/".join(parts[: len(parts) - below])
            path = os.path.join(os.path.realpath(above), *parts[len(parts) - below :])
        absolute = os.path.abspath(path)
    except UnicodeEncodeError as exc:
        raise UsageError("a local path that cannot be a file name; check its characters") from exc
    except OSError as exc:
        raise UsageError(f"no current directory ({exc.strerror}); write an absolute path") from exc
    # POSIX lets '//' at the start mean something else; Linux and macOS do not.
    return Location("file", b"/" + absolute.lstrip(b"/"), trailing_slash=text.endswith("/"))


def _parse_sftp(rest: str) -> Location:
    match = _SFTP.fullmatch(rest)
    if not match or _may_hide(match, rest):
        raise UsageError(
            "sftp://...: not [USER[:PASSWORD]@]HOST[:PORT]/PATH, nor with :PATH, which is relative"
            f" to the login directory; in names and passwords write {_ESCAPES}; for a path with an"
            " '@', give the password in ADSMIG_SRC_PASSWORD or ADSMIG_DST_PASSWORD"
        )
    return _sftp_of(match, bare=False)


def _may_hide(match: re.Match[str], text: str) -> bool:
    """Whether a password with a '/' or an '@' in it may have been taken for a path."""
    if not match["user"]:
        return bool(re.search(":.*@", text, re.DOTALL))
    if match["colon"]:
        return "@" in (match["path"] or "")
    return match["mark"] == ":" and "@" in match["path"].partition("/")[0]


def _sftp_of(match: re.Match[str], bare: bool) -> Location:
    """What matched as an address; ``bare``: without ``sftp://``."""
    where = "sftp://..."
    host, mark, path = match["host"].lower(), match["mark"] or "/", match["path"]
    if bare and not match["port"] and _LIKE_PORT.match(path):
        # AK:SK@HOST:PORT/BUCKET would look like this, too, and its secret is for nobody else.
        raise UsageError(
            "USER@HOST:NUMBER/... without NAME:// can be read in two ways: write"
            " sftp://USER@HOST:PORT/PATH or USER@HOST:./NUMBER/..., or minio://... for an object"
            " store"
        )
    if match["port"] and not 0 < int(match["port"][1:]) <= 65535:
        raise UsageError(f"{where}: a port is a number from 1 to 65535")
    try:
        user = _decode(where, match["user"]) if match["user"] else getpass.getuser()
    except (OSError, KeyError) as exc:
        raise UsageError(f"{where}: write the user's name, USER@HOST") from exc
    credentials = None
    if match["colon"]:
        password = _decode_secret(where, match["password"])
        credentials = Credentials("", "", None, password, origin=ADDRESS)
    data = os.fsencode(path or "")
    if b"\0" in data:
        raise UsageError("a path cannot hold a NUL byte; check the address")
    absolute = mark == "/" or data.startswith(b"/")
    names = [name for name in data.split(b"/") if name not in (b"", b".")]
    if path is None or (names and names[0] == b"~" and not data.startswith((b"/", b"./"))):
        absolute, names = False, names[1:]
    return Location(
        "sftp",
        b"/" + b"/".join(names) if absolute else b"/".join(names) or b".",
        host=host.removesuffix(":22"),
        credentials=credentials,
        # The whole of the login directory, or of the server.
        trailing_slash=not names or data.endswith((b"/", b"/.")),
        user=user,
    )


def _parse_store(scheme: str, rest: str, *, https: bool | None, path_style: bool) -> Location:
    store = PROVIDERS[scheme]
    try:
        data: bytes | None = rest.encode()
    except UnicodeEncodeError:
        data = None
    if data is None:  # not raised above, where it would carry an error that holds the address
        raise UsageError(f"{scheme}:// address that is not UTF-8; object keys are, so write it so")
    # Where a key or a secret could be, whole or cut off at a '/', nothing is shown.
    where = f"{scheme}://{'...' if '@' in rest or ':' in rest else one_line(data)}"

    authority, _, path = rest.partition("/")
    userinfo, at, address = authority.rpartition("@")
    credentials = _parse_credentials(where, userinfo) if at else None
    match = HOST.fullmatch(address)
    if match and match["port"] and int(match["port"][1:]) > 65535:
        match = None
    if not match and ":" in address:
        raise UsageError(
            f"{where}: neither HOST:PORT nor ACCESS_KEY:SECRET_KEY@BUCKET stands before the first"
            f" '/'; in keys and secrets write {_ESCAPES}"
        )
    if not match and address:
        raise UsageError(
            f"{where}: a bucket and its endpoint are letters, digits, '-' and '_' between dots;"
            " check what stands before the first '/' of the prefix"
        )
    name, port = (match["name"], match["port"] or "") if match else ("", "")
    private = _is_private(name)

    aws = None if store.style == PATH else _AWS.fullmatch(name)
    region = (aws["region"] or "").lower() if aws else ""
    if aws and (aws["bucket"] or not path_style):
        # Such a host tells by itself whether it begins with a bucket, so it may have a port too.
        bucket, host, prefix = aws["bucket"] or "", aws["host"] + port, path
    elif store.style == PATH or path_style or private or (port and path):
        host, path_style = name + port, True
        bucket, _, prefix = path.partition("/")
    else:
        # HOST:PORT with nothing after it can only be BUCKET.HOST:PORT.
        bucket, dot, host = name.partition(".")
        bucket, host, prefix = (bucket, host + port, path) if dot or not port else ("", name, path)

    if not bucket:
        form = "HOST[:PORT]/BUCKET[/PREFIX]" if path_style or port else "BUCKET[.ENDPOINT][/PREFIX]"
        raise UsageError(f"{where}: no bucket in the address; write {scheme}://{form}")
    # AK:SE@CR/ET@BUCKET and AK:90/CRET@BUCKET can be read as a bucket, or a port, and a prefix
    # with an '@'.  The names tell: AWS has no such buckets, and hosts can be in lower case.
    if host:
        odd = "." not in name and not private and name != name.lower()
    else:
        odd = not _AWS_BUCKET.fullmatch(bucket)
    if "@" in bucket or ("@" in prefix and odd):
        raise UsageError(
            f"{where}: an '@' after the first '/', as from a secret with a '/' in it; in keys and"
            f" secrets write {_ESCAPES}; if there are none, write the endpoint, in lower case"
        )
    if not _BUCKET.fullmatch(bucket):
        raise UsageError(
            f"{where}: a bucket's name begins with a letter or digit and goes on with those,"
            " '.', '-' and '_'; check what follows the host"
        )
    host = host.lower()
    if not (path_style or aws):
        host, region = endpoint_of(scheme, host)
    if https is None:
        inside = "-internal" in host or host.startswith("internal.")
        https = store.https and not private and not inside
    return Location(
        scheme,
        prefix.encode(),
        bucket=bucket,
        host=host,
        path_style=path_style,
        https=https,
        region=region,
        credentials=credentials,
        trailing_slash=not prefix or prefix.endswith("/"),
    )


def _parse_credentials(where: str, userinfo: str) -> Credentials:
    parts = userinfo.split(":")
    if "@" in userinfo or len(parts) not in (2, 3) or not (parts[0] and parts[1]):
        raise UsageError(
            f"{where}: what stands before '@' is not ACCESS_KEY:SECRET_KEY[:TOKEN];"
            f" in keys and secrets write {_ESCAPES}"
        )
    access_key, secret_key, token = [*(_decode_secret(where, part) for part in parts), ""][:3]
    return Credentials(access_key, secret_key, token or None, origin=ADDRESS)


def _decode_secret(where: str, part: str) -> str:
    """As :func:`_decode`, but no '+', of which nobody can tell whether a blank was meant."""
    if "+" in part:
        raise UsageError(
            f"{where}: a '+' in the keys or the password, which could mean a blank; in keys and"
            f" secrets write {_ESCAPES}"
        )
    return _decode(where, part)


def _decode(where: str, part: str) -> str:
    text: str | None = None
    if not re.search(r"%(?![0-9A-Fa-f]{2})", part):
        with contextlib.suppress(UnicodeDecodeError):
            text = urllib.parse.unquote(part, errors="strict")
    if text is None:
        raise UsageError(
            f"{where}: a '%' in the keys that does not begin an escape of UTF-8 text; in keys and"
            f" secrets write {_ESCAPES}"
        )
    return text
