"""A place where objects are: printed without its secrets, identified."""

from __future__ import annotations

import os
import re
import urllib.parse
from dataclasses import dataclass, field, replace

from adsmig.providers import Profile, profile_of

HOST = re.compile(
    r"(?P<name>\[[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*\]|[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*)"
    r"(?P<port>:[0-9]{1,5})?"
)
"""A host, perhaps with a port."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """An access key with its secret, decoded, or a password, or both; prints as ``***``."""

    access_key: str
    secret_key: str
    token: str | None = None
    password: str | None = None
    """Of a user of SFTP."""
    origin: str = field(default="", compare=False)
    """Where they come from, to be said after ``the keys``; '' of those that a form gave."""

    def of_scheme(self, scheme: str) -> Credentials | None:
        """What of it is good for such addresses; None if nothing is."""
        if scheme == "sftp":
            return None if self.password is None else Credentials("", "", None, self.password)
        return replace(self, password=None) if self.access_key else None

    def __repr__(self) -> str:
        return "***"


ADDRESS = "in the address"
"""An origin of credentials."""


@dataclass(frozen=True, slots=True, repr=False)
class Location:
    """Where objects are: a local path, or a prefix in a bucket of a store.

    Prints without its credentials, on one line, so that it can go into any log.  Equality and
    hash take in every field, credentials too, so a cache of connections can be keyed by it;
    :attr:`identity` tells whether two locations are the same place.  A pickle holds the secret.
    """

    scheme: str
    """``file``, ``sftp``, or a NAME of an object store."""
    path: bytes
    """Absolute path without trailing slashes, or the prefix exactly as it was written.  With SFTP,
    a path that is relative to the login directory, ``.`` for itself, until addresses.resolve has
    asked the server for that."""
    bucket: str = ""
    host: str = ""
    """Endpoint ``HOST[:PORT]`` without the bucket, lower case; empty for the default of AWS."""
    path_style: bool = False
    https: bool = False
    region: str = ""
    """Named by the host of a public cloud, else empty."""
    credentials: Credentials | None = None
    trailing_slash: bool = False
    """A directory: it was written with a ``/`` at its end, or it is a whole bucket."""
    anonymous: bool = False
    """Requests carry no credentials, whatever could be found."""
    overrides: tuple[str, ...] = ()
    """``FIELD=VALUE`` in place of what the provider's profile says."""
    user: str = ""
    """Who logs in, with SFTP."""
    account: str = ""
    """The name under which its credentials are kept, if one was given."""

    def __repr__(self) -> str:
        if self.scheme == "file":
            return one_line(self.path)
        if self.scheme == "sftp":
            who = "***" if self._hides else one_line(self.user.encode())
            path = self.path if self.path.startswith(b"/") else b"/~/" + self.path
            return f"sftp://{who}@{self.host}{one_line(path)}"
        secret = "***@" if self._hides else ""
        if self.path_style:
            authority = f"{self.host}/{self.bucket}"
        else:
            authority = f"{self.bucket}.{self.host}" if self.host else self.bucket
        return f"{self.scheme}://{secret}{authority}/{one_line(self.path)}"

    def below(self, key: bytes) -> Location:
        """The place of one object of it."""
        path = os.path.join(self.path, key) if self.is_path else self.path + key
        return replace(self, path=path, trailing_slash=False)

    @property
    def _hides(self) -> bool:
        """Whether its address is shown without what stands in it: not where keys come from else."""
        return self.credentials is not None and self.credentials.origin == ADDRESS

    @property
    def profile(self) -> Profile:
        """What the provider makes of the protocol."""
        return profile_of(self.scheme, self.overrides)

    @property
    def is_path(self) -> bool:
        """Whether it is a directory tree, here or elsewhere; else it is an object store's."""
        return self.scheme in ("file", "sftp")

    @property
    def tells_seconds(self) -> bool:
        """Whether it keeps its owner's times, but whole seconds only."""
        return self.scheme == "sftp"

    @property
    def address(self) -> tuple[str, int]:
        """The host and port to connect to, with SFTP."""
        match = HOST.fullmatch(self.host)
        assert match
        return match["name"].strip("[]"), int(match["port"][1:]) if match["port"] else 22

    @property
    def identity(self) -> str:
        """The place as ASCII text, to be hashed: no credentials, the same for http and https.

        Virtual-hosted and path style give the same text.  A slash at the end counts, for files
        as for prefixes: as a destination, ``name`` and ``name/`` are not the same place.
        """
        path = urllib.parse.quote(self.path, safe="/")
        if self.scheme == "file":
            return f"file://{path}{'/' if self.trailing_slash and path != '/' else ''}"
        if self.scheme == "sftp":
            user = urllib.parse.quote(self.user, safe="")
            end = "/" if self.trailing_slash and path != "/" else ""
            return f"sftp://{user}@{self.host}{'' if path.startswith('/') else '/~/'}{path}{end}"
        return f"{self.scheme}://{self.host}/{self.bucket}/{path}"


def one_line(text: str | bytes) -> str:
    """Text that stays on its line, can be encoded, and does nothing to a terminal."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)
