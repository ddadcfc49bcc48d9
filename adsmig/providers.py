"""The object stores that an address can name, and what each makes of the S3 protocol: one table.

A row is what providers' pages and other tools' tables say; none was tried on a real account, so
every field can be overruled from the command line.  ``verified`` names the servers of the test
suite that a row was run against.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

from adsmig.errors import UsageError

MIB = 1 << 20
GIB = 1 << 30

AWS, MD5, OPAQUE = "aws", "md5", "opaque"
VIRTUAL, PATH, BOTH = "virtual", "path", "both"
MANY, ONE = "many", "one"


class Profile(NamedTuple):
    """What a NAME says of its stores.  Sizes are bytes."""

    native: str = ""
    """A pattern for the provider's own domains; what it does not match is an endpoint as it is."""
    endpoint: str = ""
    """The endpoint for such a domain; ``{...}`` are the pattern's groups."""
    region: str = "us-east-1"
    """The region to sign for; ``{region}`` as in the domain, ``{REGION}`` in capitals."""
    style: str = BOTH
    """Where requests have the bucket: ``virtual``, in the host name; ``path``; ``both`` will do."""
    https: bool = True
    """A public cloud: encrypted unless the host says otherwise."""
    list_version: int = 2
    """ListObjects: 1, with a marker, or 2, with a token."""
    url_encoding: bool = True
    """Listings may be asked for escaped keys."""
    max_keys: int = 1000
    """Keys in a page of a listing."""
    etag: str = AWS
    """``md5``: that of an object put in one piece is its MD5; ``aws``: and that of one put in parts
    the MD5 of theirs; ``opaque``: it is nothing that anybody else could compute."""
    min_part: int = 5 * MIB
    max_part: int = 5 * GIB
    """Of every part but the last; the same as ``min_part``: no other size is taken."""
    max_parts: int = 10_000
    max_put: int = 5 * GIB
    """The largest object that one PUT stores; beyond, it goes in parts."""
    max_copy: int = 5 * GIB
    """The largest object, or part, that the service copies by itself with one request."""
    delete: str = MANY
    """``many``: so many keys a request, with a Content-MD5; ``one``: one by one."""
    crc32: bool = False
    """It may know ``x-amz-checksum-crc32``: its answers tell."""
    max_key: int = 1024
    """Bytes of a key; docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html."""
    leading_slash: bool = True
    """A key may begin with ``/``."""
    max_meta: int = 0
    """Bytes of user metadata, names and values; 0: the store tells by itself."""
    verified: str = "the test suite's quirk server"
    """Nobody has run it against the real cloud."""

    @property
    def max_size(self) -> int:
        """The largest object there can be: as many parts as there may be, of the largest size."""
        return max(self.max_put, self.max_parts * self.max_part)


PROVIDERS = {
    "s3": Profile(region="{region}", crc32=True, verified="SeaweedFS, MinIO's code base and moto"),
    "minio": Profile(
        style=PATH,
        https=False,
        crc32=True,
        verified="MinIO's code base (JuiceFS gateway)",
    ),
    "oss": Profile(
        native=r"(?:s3\.)?oss-(?P<region>[a-z0-9-]+?)(?P<inner>-internal)?\.aliyuncs\.com",
        endpoint="s3.oss-{region}{inner}.aliyuncs.com",
        region="{region}",
        style=VIRTUAL,
        etag=MD5,
        min_part=100 << 10,
    ),
    "cos": Profile(
        native=r"(?:cos\.)?(?P<region>[a-z]+-[a-z0-9-]+)\.myqcloud\.com",
        endpoint="cos.{region}.myqcloud.com",
        region="{region}",
        style=VIRTUAL,
        list_version=1,
        etag=MD5,
        min_part=1 * MIB,
    ),
    "bos": Profile(
        native=r"(?:s3\.)?(?P<region>[a-z]+)\.bcebos\.com",
        endpoint="s3.{region}.bcebos.com",
        region="{region}",
        list_version=1,  # asked for V2, it says that a listing goes on, and gives no token
        etag=MD5,
        min_part=100 << 10,
        leading_slash=False,
        max_meta=2048,
    ),
    "ks3": Profile(
        native=r"ks3-cn-(?P<region>[a-z]+)(?P<inner>-internal)?\.ksyuncs\.com",
        endpoint="ks3-cn-{region}{inner}.ksyuncs.com",
        region="{REGION}",
        style=VIRTUAL,
        list_version=1,
        etag=MD5,
    ),
    "obs": Profile(
        native=r"obs\.(?P<region>[a-z0-9-]+)\.myhuaweicloud\.com",
        endpoint="obs.{region}.myhuaweicloud.com",
        region="{region}",
        style=VIRTUAL,
        list_version=1,
        etag=MD5,
        min_part=100 << 10,
    ),
    "qiniu": Profile(
        native=r"s3[.-](?P<region>[a-z0-9-]+)\.qiniucs\.com",
        endpoint="s3.{region}.qiniucs.com",
        region="{region}",
        url_encoding=False,
        etag=MD5,
    ),
    "ufile": Profile(
        native=r"(?P<inner>internal\.)?(?:s3-)?(?P<region>[a-z0-9-]+)\.ufileos\.com",
        endpoint="{inner}s3-{region}.ufileos.com",
        region="{region}",
        list_version=1,
        etag=OPAQUE,
        min_part=8 * MIB,
        max_part=8 * MIB,
        max_put=1 * GIB,
        max_copy=100 * MIB,
        delete=ONE,  # it knows no Content-MD5
    ),
}
"""One row for each NAME."""

_CHOICES = {
    "style": (VIRTUAL, PATH, BOTH),
    "list_version": ("1", "2"),
    "etag": (AWS, MD5, OPAQUE),
    "delete": (MANY, ONE),
}
_ELSEWHERE = ("native", "endpoint", "region", "https", "verified")
"""Fields that have options of their own, or none."""
FIELDS = tuple(name for name in Profile._fields if name not in _ELSEWHERE)
"""What ``--src-set`` and ``--dst-set`` set."""
_UNITS = {"": 1, "K": 1 << 10, "M": MIB, "G": GIB, "T": 1 << 40}


def endpoint_of(name: str, host: str) -> tuple[str, str]:
    """The S3 endpoint and the region to sign for, of a host without its bucket.

    The region is '' where the host does not tell.
    """
    profile = PROVIDERS[name]
    match = re.fullmatch(profile.native, host) if profile.native else None
    if not match:
        return host, ""
    groups = {key: value or "" for key, value in match.groupdict().items()}
    groups["REGION"] = groups["region"].upper()
    return profile.endpoint.format(**groups), profile.region.format(**groups)


@lru_cache(maxsize=64)
def profile_of(name: str, overrides: tuple[str, ...] = ()) -> Profile:
    """The row of a NAME, with ``FIELD=VALUE`` overrides; the plain S3 one for what has none.

    UsageError, which lists the fields or the values, for what cannot be overruled so.
    """
    profile = PROVIDERS.get(name, Profile())
    chosen = dict(_override(text) for text in overrides)
    profile = profile._replace(**chosen)
    if not 0 < profile.min_part <= profile.max_part:
        raise UsageError(
            f"min_part={profile.min_part} and max_part={profile.max_part}: parts are of a size from"
            " the one to the other; set both"
        )
    return profile


def _override(text: str) -> tuple[str, Any]:
    field, equals, value = text.partition("=")
    if not equals or field not in FIELDS:
        raise UsageError(
            f"{text!r} sets no field of a provider's profile: write FIELD=VALUE, FIELD one of"
            f" {', '.join(FIELDS)} (see adsmig providers)"
        )
    if field in _CHOICES and value not in _CHOICES[field]:
        raise UsageError(f"{text!r}: {field} is one of {', '.join(_CHOICES[field])}")
    default = Profile._field_defaults[field]
    if isinstance(default, bool):
        if value not in ("yes", "no"):
            raise UsageError(f"{text!r}: {field} is yes or no")
        return field, value == "yes"
    if isinstance(default, int):
        match = re.fullmatch(r"([0-9]{1,16})([KMGT]?)", value.upper())
        if not match or (not int(match[1]) and field != "max_meta"):
            raise UsageError(f"{text!r}: {field} is a number, such as 1000, 100K, 8M or 5G")
        return field, int(match[1]) * _UNITS[match[2]]
    return field, value


def places() -> Iterable[tuple[str, ...]]:
    """NAME, native domain, S3 endpoint and what it was verified against, of each row, readable."""
    yield "NAME", "its own domain", "S3 endpoint"
    for name, profile in PROVIDERS.items():
        if profile.native:
            words = {"region": "REGION", "inner": "[-internal]", "REGION": "REGION"}
            if "internal\\." in profile.native:
                words["inner"] = "[internal.]"
            endpoint = profile.endpoint.format(**words)
            own = re.sub(r"\(\?P<region>.*?\)", "REGION", profile.native)
            own = re.sub(r"\(\?P<inner>(.*?)\)\?", r"[\1]", own)
            own = re.sub(r"\(\?:(.*?)\)\?", r"[\1]", own).replace("\\", "").replace("[.-]", ".")
            yield name, own, endpoint
        else:
            host = "HOST:PORT" if profile.style == PATH else "s3.REGION.amazonaws.com[.cn], any"
            yield name, host, "the same"


def traits() -> Iterable[tuple[str, ...]]:
    """Every field that can be overruled, with its value in each row."""
    yield "", *PROVIDERS
    yield "region", *(one.region.strip("{}") for one in PROVIDERS.values())
    for field in FIELDS:
        yield field, *(_shown(field, getattr(one, field)) for one in PROVIDERS.values())


def _shown(field: str, value: object) -> str:
    """A value as it would be set."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and field not in ("max_parts", "max_keys", "list_version"):
        for unit in "GMK":
            if value and not value % _UNITS[unit]:
                return f"{value // _UNITS[unit]}{unit}"
    return str(value)
