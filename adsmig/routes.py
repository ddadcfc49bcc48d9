"""Other addresses to connect to than those that names stand for, as curl's options give them.

curl.se/docs/manpage.html#--resolve and #--connect-to.  Only the connection goes elsewhere: Host
header, certificate check and signature are those of the name.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import NamedTuple

from adsmig.errors import UsageError

_HOST = r"\[[0-9A-Fa-f:.]+\]|[^:\[\]/@]*"
_RESOLVE = re.compile(rf"(?P<host>{_HOST}):(?P<port>[0-9]{{1,5}}):(?P<address>.+)")
_CONNECT = re.compile(
    rf"(?P<host>{_HOST}):(?P<port>[0-9]{{0,5}}):(?P<to>{_HOST}):(?P<to_port>[0-9]{{0,5}})"
)


class Route(NamedTuple):
    """Connections to ``host`` and ``port`` go to ``to_host`` and ``to_port``."""

    host: str
    """A name in lower case; ``*.NAME``: every name that ends in ``.NAME``; '' or ``*``: any."""
    port: int
    """0: any."""
    to_host: str
    """'': the same."""
    to_port: int
    """0: the same."""


def parse_resolve(text: str) -> Route:
    """The route that ``--resolve HOST:PORT:ADDRESS`` asks for; ADDRESS is numeric, as with curl."""
    match = _RESOLVE.fullmatch(text)
    address = match["address"].removeprefix("[").removesuffix("]") if match else ""
    try:
        ipaddress.ip_address(address)
    except ValueError:
        match = None
    if not match or not match["host"] or not 0 < int(match["port"]) < 65536:
        raise UsageError(
            f"--resolve {text!r}: write HOST:PORT:ADDRESS, as in"
            " bucket.s3.oss-cn-beijing.aliyuncs.com:443:10.0.0.5; HOST can be *, or *.NAME, and"
            " ADDRESS is an IP address; another port takes --connect-to"
        )
    return Route(_bare(match["host"]), int(match["port"]), address, 0)


def parse_connect_to(text: str) -> Route:
    """The route that ``--connect-to HOST1:PORT1:HOST2:PORT2`` asks for; any of them may be empty.

    Empty before the middle is any, after it the same as before.
    """
    match = _CONNECT.fullmatch(text)
    ports = [int(match[name] or 0) for name in ("port", "to_port")] if match else []
    if not match or max(ports) > 65535:
        raise UsageError(
            f"--connect-to {text!r}: write HOST1:PORT1:HOST2:PORT2, as in"
            " bucket.s3.oss-cn-beijing.aliyuncs.com:443:gateway.corp:8443; HOST1 can be *.NAME,"
            " empty means any host or port, or the same one"
        )
    return Route(_bare(match["host"]), ports[0], _bare(match["to"]), ports[1])


def target(routes: Iterable[Route], host: str, port: int) -> tuple[str, int] | None:
    """Where to connect to for ``host`` and ``port``, by the first route for them; None: there."""
    name = host.lower()
    for route in routes:
        if route.port not in (0, port):
            continue
        below = route.host.startswith("*.") and name.endswith(route.host[1:])
        if below or route.host in ("", "*", name):
            return route.to_host or host, route.to_port or port
    return None


def _bare(host: str) -> str:
    """A host as a socket takes it."""
    return host.removeprefix("[").removesuffix("]").lower()
