"""What the tests share: real servers, started when first asked for, and a clean environment."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
from hypothesis import settings

from tests.receiver import Receiver
from tests.servers import MinIOGateway, Moto, RcloneSftp, SeaweedFS, Server, Sshd

# The same examples each time, so that a change is not blamed for what it did not do.  To look for
# new ones, ADSMIG_TEST_FUZZ says how many a test is to try.
settings.register_profile("same", derandomize=True, deadline=None, database=None)
settings.register_profile(
    "new",
    deadline=None,
    print_blob=True,
    max_examples=int(os.environ.get("ADSMIG_TEST_FUZZ", "100")),
)
settings.load_profile("new" if "ADSMIG_TEST_FUZZ" in os.environ else "same")

BucketFactory = Callable[[Server], str]


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """SeaweedFS, one for each pytest worker. A test that kills it restarts it."""
    with SeaweedFS(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture(scope="session")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinIOGateway]:
    """MinIO's code base, one for each pytest worker. A test that kills it restarts it."""
    with MinIOGateway(tmp_path_factory.mktemp("minio")) as server:
        yield server


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    """moto, one for each pytest worker."""
    with Moto(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """OpenSSH, one for each pytest worker."""
    with Sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RcloneSftp]:
    """rclone's SFTP server, one for each pytest worker."""
    with RcloneSftp(tmp_path_factory.mktemp("rclone")) as server:
        yield server


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Somebody to send webhooks to."""
    with Receiver() as one:
        yield one


@pytest.fixture(params=["seaweedfs", "minio", "moto"])
def s3_server(request: pytest.FixtureRequest) -> Server:
    """Each of the servers in turn."""
    server: Server = request.getfixturevalue(request.param)
    return server


@pytest.fixture
def bucket() -> BucketFactory:
    """``bucket(server)`` makes an empty bucket there, and returns its name, used nowhere else."""
    return lambda server: server.make_bucket(f"test-{uuid4().hex[:16]}")


@pytest.fixture(scope="session", autouse=True)
def _signals_as_at_a_terminal() -> None:
    """Shells have what they start in the background ignore Ctrl-C, and so would what a test starts.

    A handler is not inherited by another program, which begins with the default.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _no_credentials_of_the_user() -> Iterator[None]:
    """Takes away what would give a test, or a command it starts, credentials or settings."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("AWS_", "ADSMIG_", "SSH_")):
                patch.delenv(name)
        # Else boto3 looks for a cloud's metadata service when it finds no credentials.
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("NO_PROXY", "127.0.0.1,localhost")
        yield


@pytest.fixture(autouse=True)
def _home_of_its_own(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gives each test an empty home: the user's state is neither seen nor changed."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))
    for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, objects of this very moment are copied at once; see await_settled."""
    monkeypatch.setattr("adsmig.transfer.SETTLED_S", 0.0)
