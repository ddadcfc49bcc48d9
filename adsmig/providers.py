"""The object stores that an address can name, and where each answers the S3 protocol.

A row is what providers' pages and other tools' tables say; none was tried on a real account.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Provider(NamedTuple):
    """What a NAME says before its host is looked at."""

    path_style: bool = False
    """HOST/BUCKET, whatever HOST looks like."""
    https: bool = True
    """A public cloud: encrypted unless the host says otherwise."""
    native: str = ""
    """A pattern for the provider's own domains; what it does not match is an endpoint as it is."""
    endpoint: str = ""
    """The endpoint for such a domain; ``{...}`` are the pattern's groups."""


PROVIDERS = {
    "s3": Provider(),
    "minio": Provider(path_style=True, https=False),
    "oss": Provider(
        native=r"(?:s3\.)?oss-(?P<region>[a-z0-9-]+?)(?P<inner>-internal)?\.aliyuncs\.com",
        endpoint="s3.oss-{region}{inner}.aliyuncs.com",
    ),
    "cos": Provider(
        native=r"(?:cos\.)?(?P<region>[a-z]+-[a-z0-9-]+)\.myqcloud\.com",
        endpoint="cos.{region}.myqcloud.com",
    ),
    "bos": Provider(native=r"(?:s3\.)?(?P<region>[a-z]+)\.bcebos\.com",
                    endpoint="s3.{region}.bcebos.com"),
    "ks3": Provider(native=r"ks3-cn-(?P<region>[a-z]+)(?P<inner>-internal)?\.ksyuncs\.com",
                    endpoint="ks3-cn-{region}{inner}.ksyuncs.com"),
    "obs": Provider(native=r"obs\.(?P<region>[a-z0-9-]+)\.myhuaweicloud\.com",
                    endpoint="obs.{region}.myhuaweicloud.com"),
    "qiniu": Provider(native=r"s3[.-](?P<region>[a-z0-9-]+)\.qiniucs\.com",
                      endpoint="s3.{region}.qiniucs.com"),
    "ufile": Provider(native=r"(?:s3-)?(?P<region>[a-z0-9-]+)\.ufileos\.com",
                      endpoint="s3-{region}.ufileos.com"),
}  # fmt: skip
"""One row for each NAME."""


def endpoint_of(name: str, host: str) -> tuple[str, str]:
    """The S3 endpoint and the region to sign for, of a host without its bucket.

    The region is '' where the host does not tell.
    """
    provider = PROVIDERS[name]
    match = re.fullmatch(provider.native, host) if provider.native else None
    if not match:
        return host, ""
    groups = {key: value or "" for key, value in match.groupdict().items()}
    region = groups["region"].upper() if name == "ks3" else groups["region"]
    return provider.endpoint.format(**groups), region
