"""Routes: what curl's options mean, and which connection they are for."""

from __future__ import annotations

import pytest

from adsmig.errors import UsageError
from adsmig.routes import Route, parse_connect_to, parse_resolve, target


@pytest.mark.parametrize(
    ("text", "route"),
    [
        ("h:443:10.0.0.5", Route("h", 443, "10.0.0.5", 0)),
        ("B.Host.CN:80:127.0.0.1", Route("b.host.cn", 80, "127.0.0.1", 0)),
        ("*:80:127.0.0.1", Route("*", 80, "127.0.0.1", 0)),
        ("*.host:80:127.0.0.1", Route("*.host", 80, "127.0.0.1", 0)),
        ("h:443:[::1]", Route("h", 443, "::1", 0)),
        ("h:443:::1", Route("h", 443, "::1", 0)),
        ("[::2]:443:::1", Route("::2", 443, "::1", 0)),
    ],
)
def test_resolve_is_read_as_curl_does(text: str, route: Route) -> None:
    assert parse_resolve(text) == route


@pytest.mark.parametrize(
    "text",
    ["", "h", "h:443", "h:443:", ":443:10.0.0.5", "h::10.0.0.5", "h:0:10.0.0.5", "h:65536:10.0.0.5",
     "h:443:name", "h:443:10.0.0.5:80", "h:x:10.0.0.5", "http://h:443:10.0.0.5"],
)  # fmt: skip
def test_another_resolve_is_told_its_form(text: str) -> None:
    with pytest.raises(UsageError, match="HOST:PORT:ADDRESS"):
        parse_resolve(text)


@pytest.mark.parametrize(
    ("text", "route"),
    [
        ("h:443:other:8443", Route("h", 443, "other", 8443)),
        ("::other:8443", Route("", 0, "other", 8443)),
        ("h:443::", Route("h", 443, "", 0)),
        ("*.H:80:[::1]:9000", Route("*.h", 80, "::1", 9000)),
    ],
)
def test_connect_to_is_read_as_curl_does(text: str, route: Route) -> None:
    assert parse_connect_to(text) == route


@pytest.mark.parametrize(
    "text", ["", "h", "h:443", "h:443:other", "h:443:other:x", "h:443:other:65536", "a:b:c:d:e"]
)
def test_another_connect_to_is_told_its_form(text: str) -> None:
    with pytest.raises(UsageError, match="HOST1:PORT1:HOST2:PORT2"):
        parse_connect_to(text)


ROUTES = (
    Route("b.host", 443, "10.0.0.1", 0),
    Route("*.host", 443, "10.0.0.2", 8443),
    Route("gone", 0, "", 81),
    Route("*", 81, "10.0.0.3", 0),
    Route("", 82, "10.0.0.4", 0),
)


@pytest.mark.parametrize(
    ("host", "port", "there"),
    [
        ("b.host", 443, ("10.0.0.1", 443)),
        ("B.HOST", 443, ("10.0.0.1", 443)),
        ("c.host", 443, ("10.0.0.2", 8443)),
        ("a.b.host", 443, ("10.0.0.2", 8443)),
        ("host", 443, None),
        ("ahost", 443, None),
        ("b.host", 80, None),
        ("gone", 80, ("gone", 81)),
        ("any", 81, ("10.0.0.3", 81)),
        ("any", 82, ("10.0.0.4", 82)),
    ],
)
def test_the_first_route_for_a_host_and_port_counts(
    host: str, port: int, there: tuple[str, int] | None
) -> None:
    assert target(ROUTES, host, port) == there
