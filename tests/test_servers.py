"""The servers do what the tests that use them rely on."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from botocore.exceptions import ClientError

from tests import servers
from tests.servers import MinIOGateway, Moto, SeaweedFS, Server, ServerError

KINDS: list[type[Server]] = [SeaweedFS, MinIOGateway, Moto]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def gone(pid: int) -> bool:
    """Whether the process has ended; a zombie that its parent has yet to wait for has."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_an_object_comes_back_as_it_was_put(
    s3_server: Server, bucket: Callable[[Server], str]
) -> None:
    name, body = bucket(s3_server), os.urandom(100_000)
    client = s3_server.client()
    client.put_object(Bucket=name, Key="a/b c+d", Body=body, Metadata={"mtime": "1"})
    answer = client.get_object(Bucket=name, Key="a/b c+d")
    assert answer["Body"].read() == body
    assert answer["Metadata"] == {"mtime": "1"}
    listed = client.list_objects_v2(Bucket=name, Prefix="a/")["Contents"]
    assert [(one["Key"], one["Size"]) for one in listed] == [("a/b c+d", len(body))]


def test_a_multipart_upload_is_put_together(
    s3_server: Server, bucket: Callable[[Server], str]
) -> None:
    name, parts = bucket(s3_server), [os.urandom(5 << 20), b"the end"]
    client = s3_server.client()
    upload = client.create_multipart_upload(Bucket=name, Key="large")["UploadId"]
    which = {"Bucket": name, "Key": "large", "UploadId": upload}
    done = [
        {"PartNumber": n, "ETag": client.upload_part(**which, PartNumber=n, Body=part)["ETag"]}
        for n, part in enumerate(parts, 1)
    ]
    client.complete_multipart_upload(**which, MultipartUpload={"Parts": done})
    assert client.get_object(Bucket=name, Key="large")["Body"].read() == b"".join(parts)


def test_buckets_are_fresh(seaweedfs: Server, bucket: Callable[[Server], str]) -> None:
    first, second = bucket(seaweedfs), bucket(seaweedfs)
    assert first != second
    assert "Contents" not in seaweedfs.client().list_objects_v2(Bucket=first)


def test_a_wrong_secret_is_refused(minio: Server, bucket: Callable[[Server], str]) -> None:
    stranger = MinIOGateway(minio.directory)
    stranger._ports, stranger.secret_key = minio._ports, "not-the-secret"
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        stranger.client().list_objects_v2(Bucket=bucket(minio))
    stranger.stop()


def test_the_address_is_what_the_command_line_takes(moto: Server) -> None:
    assert moto.url("data", "a/") == f"s3://testkey:testsecret@127.0.0.1:{moto.port}/data/a/"


@every_kind
def test_restart_keeps_address_and_data(kind: type[Server], tmp_path: Path) -> None:
    with kind(tmp_path) as server:
        endpoint = server.endpoint
        server.make_bucket("kept")
        server.client().put_object(Bucket="kept", Key="key", Body=b"body")
        server.kill()
        assert not listening(server.port)
        server.restart()
        assert server.endpoint == endpoint
        if server.keeps_data:
            assert server.client().get_object(Bucket="kept", Key="key")["Body"].read() == b"body"
        else:
            assert server.client().list_buckets()["Buckets"] == []


@every_kind
def test_two_at_once_do_not_meet(kind: type[Server], tmp_path: Path) -> None:
    with kind(tmp_path / "one") as one, kind(tmp_path / "two") as two:
        one.make_bucket("only-in-one")
        assert two.client().list_buckets()["Buckets"] == []


@every_kind
def test_nothing_is_left_after_stop(kind: type[Server], tmp_path: Path) -> None:
    server = kind(tmp_path)
    server.start()
    pid, ports = server.pid, list(server._ports)
    assert pid is not None
    assert listening(server.port)
    server.stop()
    server.stop()
    assert server.pid is None
    assert gone(pid)
    assert not any(listening(port) for port in ports)
    assert not [p for port in ports for p in Path("/tmp").glob(f"seaweedfs-*-{port}.sock")]


@every_kind
def test_listens_on_its_own_loopback_ports_alone(kind: type[Server], tmp_path: Path) -> None:
    with kind(tmp_path) as server:
        found = psutil.Process(server.pid).net_connections("tcp")
        bound = {one.laddr for one in found if one.status == psutil.CONN_LISTEN}
        assert bound == {("127.0.0.1", port) for port in server._ports}


@pytest.mark.skipif(not servers._tied_to_this_process(), reason="no setpriv")
def test_a_server_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    script = f"""
        import time
        from tests.servers import Moto
        server = Moto({str(tmp_path)!r})
        server.start()
        print(server.pid, flush=True)
        time.sleep(600)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        starter.kill()
    deadline = time.monotonic() + 60
    while not gone(pid):
        assert time.monotonic() < deadline, "the server lives on"
        time.sleep(0.02)


def test_no_two_processes_are_given_the_same_ports() -> None:
    # Their numbers follow each other, and both come to where the other began.
    script = "from tests.servers import free_ports; print(*free_ports(250), flush=True); input()"
    given: list[str] = []
    with contextlib.ExitStack() as running:
        others = [
            running.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", script],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(3)
        ]
        for one in others:
            assert one.stdout is not None
            given += one.stdout.readline().split()
        for one in others:
            one.communicate("\n")
    assert len(given) == len(set(given)) == 750


def test_a_port_that_is_taken_is_tried_again_with_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        free = servers.free_ports
        given = [[taken.getsockname()[1]]]
        monkeypatch.setattr(
            servers, "free_ports", lambda count: given.pop() if given else free(count)
        )
        with Moto(tmp_path) as server:
            assert server.port != taken.getsockname()[1]


def test_a_server_that_cannot_start_shows_its_log(tmp_path: Path) -> None:
    class Broken(Moto):
        def command(self) -> list[str]:
            return [sys.executable, "-c", "raise SystemExit('no such luck')"]

    with pytest.raises(ServerError, match=r"status 1(?s:.)*no such luck"):
        Broken(tmp_path).start()


def test_a_server_stuck_in_stop_is_killed(tmp_path: Path) -> None:
    class Deaf(Moto):
        stop_limit_s = 0.1

    with Deaf(tmp_path) as server:
        assert server.pid is not None
        os.kill(server.pid, signal.SIGSTOP)
        pid = server.pid
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
    assert gone(pid)
