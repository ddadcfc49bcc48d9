"""The proxy that makes a near server a distant one."""

from __future__ import annotations

import contextlib
import gc
import socket

from scripts.slowproxy import SlowProxy


def test_connections_that_are_in_use_end_with_the_proxy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        with SlowProxy(f"127.0.0.1:{server.getsockname()[1]}", 0.02) as proxy:
            host, _, port = proxy.host.partition(":")
            near = socket.create_connection((host, int(port)), timeout=20)
            far, _ = server.accept()
            far.settimeout(20)
            near.sendall(b"there")
            assert far.recv(10) == b"there"
            far.sendall(b"and back")
            assert near.recv(10) == b"and back"
        with near, far:
            for one in (near, far):
                with contextlib.suppress(ConnectionResetError):
                    assert one.recv(10) == b""
    gc.collect()  # which tells of transports that were not closed
