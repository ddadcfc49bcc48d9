"""Real S3 servers on loopback, for the tests and the demo: SeaweedFS, MinIO's code base, moto; and
SFTP servers: OpenSSH, rclone.

Each is a context manager: entering starts the server and returns once a signed PUT and GET have
worked, leaving stops it and everything it started. Nothing here needs pytest.

    with SeaweedFS(tmp / "weed") as server:
        bucket = server.make_bucket("data")
        run("adsmig", "cp", "tree/", server.url(bucket, "tree/"))
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.certificates import self_signed

START_LIMIT_S = 60
START_TRIES = 3

S = TypeVar("S", bound="Server")


class ServerError(Exception):
    """A server that did not start; the message ends with the tail of its log."""


class Server:
    """One server process with its data, log and ports; a subclass says how it is started.

    Ports and data stay the same over ``kill`` and ``restart``, so an address stays valid while
    the server is down. Not for use by several threads at once. Start it from a thread that
    outlives it: the kernel kills the server when that thread ends.
    """

    name: ClassVar[str]
    port_count: ClassVar[int] = 1
    keeps_data: ClassVar[bool] = True
    """Whether objects survive ``restart``."""
    stop_limit_s: ClassVar[float] = 20

    host_name = "127.0.0.1"
    region = "us-east-1"
    access_key = "testkey"
    secret_key = "testsecret"

    def __init__(self, directory: Path | str) -> None:
        """Will keep data and a log in `directory`, made if missing, never removed."""
        self.directory = Path(directory).resolve()
        self.log = self.directory / f"{self.name}.log"
        self._ports: list[int] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._client: Any = None

    def __repr__(self) -> str:
        state = f"pid {self._process.pid}" if self._process else "stopped"
        return f"<{type(self).__name__} {self.host if self._ports else 'no port yet'}, {state}>"

    def __enter__(self: S) -> S:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    # ------------------------------------------------------------------ what a test asks for

    @property
    def port(self) -> int:
        """The port that speaks S3."""
        return self._ports[0]

    @property
    def host(self) -> str:
        return f"{self.host_name}:{self.port}"

    @property
    def endpoint(self) -> str:
        return f"http://{self.host}"

    @property
    def pid(self) -> int | None:
        """The server's process, which leads a process group of its own; None when it is down."""
        return self._process.pid if self._process else None

    def client(self) -> Any:
        """A boto3 S3 client, the same one each time; closed when the server goes down."""
        if self._client is None:
            self._client = boto3.client(
                "s3",
                endpoint_url=self.endpoint,
                region_name=self.region,
                aws_access_key_id=self.access_key,
                aws_secret_access_key=self.secret_key,
                config=Config(
                    s3={"addressing_style": "path"},
                    retries={"total_max_attempts": 2},
                    connect_timeout=5,
                    read_timeout=30,
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                    proxies={},
                ),
            )
        return self._client

    def make_bucket(self, name: str) -> str:
        """Creates the bucket and returns its name; a ClientError if it exists."""
        self.client().create_bucket(Bucket=name)
        return name

    def url(self, bucket: str, prefix: str = "") -> str:
        """The address of `prefix` in `bucket` on the command line, with the credentials in it."""
        return f"s3://{self.access_key}:{self.secret_key}@{self.host}/{bucket}/{prefix}"

    def elsewhere(self: S) -> S:
        """A stand-in for another process: it gives addresses and clients, and cannot stop it."""
        twin = copy.copy(self)
        twin._process = twin._client = None
        return twin

    # ------------------------------------------------------------------ its life

    def start(self) -> None:
        """Returns when the server serves signed requests; ServerError when it does not in time.

        The first start picks free ports, and others if some other process was quicker.
        """
        if self._process is not None:
            raise ServerError(f"{self!r} is already running")
        self.directory.mkdir(parents=True, exist_ok=True)
        first = not self._ports
        for tries_left in reversed(range(START_TRIES if first else 1)):
            if first:
                self._ports = free_ports(self.port_count)
            try:
                self._launch()
                self._wait_until_ready()
                return
            except BaseException as exc:
                self.kill()
                if not (isinstance(exc, _Died) and tries_left):
                    raise

    def stop(self) -> None:
        """Asks the server to end, kills it when it has not after some seconds; may be repeated."""
        if self._process is not None:
            self._signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(self.stop_limit_s)
        self.kill()

    def kill(self) -> None:
        """Ends the server as a crash would: SIGKILL to its process group, then waits for it."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait()
            self._process = None
            self.clean_up()
        if self._client is not None:
            self._client.close()
            self._client = None

    def restart(self) -> None:
        """Starts the server on the same ports and data, after a ``kill`` if it is running."""
        self.kill()
        self.start()

    # ------------------------------------------------------------------ for subclasses

    def command(self) -> list[str]:
        """The command line that runs the server in the foreground on ``self._ports``."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Variables for the server; beside PATH it sees none of the caller's."""
        return {}

    def prepare(self) -> None:
        """Makes what the server expects in its directory; called before each start."""

    def clean_up(self) -> None:
        """Removes what the server leaves outside of its directory; called when it has ended."""

    # ------------------------------------------------------------------ inside

    def _launch(self) -> None:
        self.prepare()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*_tied_to_this_process(), *self.command()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                env=self._environment(),
                start_new_session=True,
            )

    def _environment(self) -> dict[str, str]:
        base = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.directory)}
        return base | self.environment()

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_LIMIT_S
        while True:
            error = self._try_it()
            # Asked after the trial: another server on this port would have passed it.
            status = self._process.poll()
            if status is not None:
                raise _Died(f"{self.name} ended with status {status}{self._tail()}")
            if error is None:
                return
            if time.monotonic() > deadline:
                raise ServerError(
                    f"{self.name} did not serve {self.endpoint} within {START_LIMIT_S} s"
                    f" ({error}){self._tail()}"
                ) from error
            time.sleep(0.1)

    def _try_it(self) -> Exception | None:
        """Stores and reads one object: a listening port does not mean that a store can store."""
        client, where = self.client(), {"Bucket": "is-it-ready", "Key": "probe"}
        exists = (client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou)
        try:
            with contextlib.suppress(*exists):
                client.create_bucket(Bucket=where["Bucket"])
            client.put_object(**where, Body=b"ready")
            client.get_object(**where)["Body"].read()
            client.delete_object(**where)
            client.delete_bucket(Bucket=where["Bucket"])
        except (BotoCoreError, ClientError) as exc:
            return exc
        return None

    def _signal(self, number: signal.Signals) -> None:
        """Signals the group, unless its leader has ended and its number may be another's."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, number)

    def _tail(self, lines: int = 15) -> str:
        last = self.log.read_text(errors="replace").splitlines()[-lines:]
        return "\n".join([f"; the end of {self.log}:", *last])


class SeaweedFS(Server):
    """A whole SeaweedFS in one process: MD5 ETags, multipart, listings in directory order."""

    name = "seaweedfs"
    port_count = 8
    # A graceful stop always waits 15 s for streams that the server holds open to itself. What it
    # has answered for survives a kill.
    stop_limit_s = 0

    def prepare(self) -> None:
        (self.directory / "data").mkdir(exist_ok=True)
        credentials = [{"accessKey": self.access_key, "secretKey": self.secret_key}]
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        identity = {"name": "test", "credentials": credentials, "actions": actions}
        (self.directory / "s3.json").write_text(json.dumps({"identities": [identity]}))

    def environment(self) -> dict[str, str]:
        # A bucket is a collection with volumes of its own, seven by default.
        return {"WEED_MASTER_VOLUME_GROWTH_COPY_1": "2"}

    def command(self) -> list[str]:
        s3, s3_grpc, master, master_grpc, volume, volume_grpc, filer, filer_grpc = self._ports[:8]
        options: dict[str, object] = {
            "dir": self.directory / "data",
            "ip": self.host_name,
            "ip.bind": self.host_name,
            "master.port": master,
            "master.port.grpc": master_grpc,
            # A volume's file grows as it fills. Their number would else be the free disk divided
            # by the size limit, and some dozen buckets use that up.
            "master.volumeSizeLimitMB": 1024,
            "volume.max": 10_000,
            # A restarted master waits this long before it leads itself; ten seconds by default.
            "master.electionTimeout": "1s",
            "master.heartbeatInterval": "100ms",
            "master.telemetry": "false",
            "volume.port": volume,
            "volume.port.grpc": volume_grpc,
            # Ten seconds by default, for load balancers to notice.
            "volume.preStopSeconds": 0,
            "filer": "true",
            "filer.port": filer,
            "filer.port.grpc": filer_grpc,
            "s3": "true",
            "s3.port": s3,
            "s3.port.grpc": s3_grpc,
            "s3.config": self.directory / "s3.json",
            # Two more listeners on fixed ports, were they not off.
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
        }
        options.update(self.more_options())
        return [program("weed"), "server", *(f"-{key}={value}" for key, value in options.items())]

    def more_options(self) -> dict[str, object]:
        """What a subclass adds to the options."""
        return {}

    def clean_up(self) -> None:
        # It leaves its Unix sockets, named after the ports, behind in /tmp.
        for port in self._ports:
            for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                path.unlink(missing_ok=True)


class SecureSeaweedFS(SeaweedFS):
    """It answers over https as well, with a certificate signed by itself."""

    port_count = 9

    @property
    def secure_host(self) -> str:
        """Where it answers over https."""
        return f"{self.host_name}:{self._ports[8]}"

    @property
    def certificate(self) -> Path:
        """Of the host, with its key, as PEM."""
        return self.directory / "certificate.pem"

    def prepare(self) -> None:
        super().prepare()
        self_signed(self.certificate, self.host_name)

    def more_options(self) -> dict[str, object]:
        files = {"s3.cert.file": self.certificate, "s3.key.file": self.certificate}
        return {"s3.port.https": self._ports[8], **files}


class MinIOGateway(Server):
    """MinIO's S3 layer over a JuiceFS volume on local disk: its XML, errors and key rules."""

    name = "minio"
    port_count = 2

    @property
    def _meta_url(self) -> str:
        return f"sqlite3://{self.directory}/meta.db"

    def environment(self) -> dict[str, str]:
        return {"MINIO_ROOT_USER": self.access_key, "MINIO_ROOT_PASSWORD": self.secret_key}

    def prepare(self) -> None:
        if (self.directory / "meta.db").exists():
            return
        with self.log.open("ab") as log:
            command = [program("juicefs"), "--no-agent", "format", self._meta_url, "volume"]
            command += ["--storage", "file", "--bucket", f"{self.directory}/data/"]
            command += ["--trash-days", "0"]
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment(),
            )
        if done.returncode:
            raise ServerError(f"juicefs format ended with status {done.returncode}{self._tail()}")

    def command(self) -> list[str]:
        s3, metrics = self._ports
        # --no-agent: else a profiling listener, by default on a fixed port.
        command = [program("juicefs"), "--no-agent", "gateway", self._meta_url]
        command += [f"{self.host_name}:{s3}", "--metrics", f"{self.host_name}:{metrics}"]
        command += ["--multi-buckets", "--keep-etag", "--object-meta", "--object-tag"]
        # By default the cache lies in /var.
        command += ["--cache-dir", str(self.directory / "cache"), "--cache-size", "0"]
        command += ["--backup-meta", "0", "--no-banner", "--no-usage-report"]
        return command


class Moto(Server):
    """moto: lists in byte order, knows much of S3's grammar, keeps everything in memory."""

    name = "moto"
    keeps_data = False

    def command(self) -> list[str]:
        return [sys.executable, "-m", "moto.server", "-H", self.host_name, "-p", str(self.port)]


class SftpServer(Server):
    """A server that speaks SFTP: who logs in is ``user``, with the key in ``key_file``.

    Its paths are those of this machine, relative to ``top``.
    """

    user = "root"
    password = ""
    top = Path("/")

    @property
    def key_file(self) -> Path:
        """The private key of the user."""
        return self.directory / "user_key"

    @property
    def host_key(self) -> str:
        """The public key of the server, as ``known_hosts`` has it after the names."""
        return " ".join((self.directory / "host_key.pub").read_text().split()[:2])

    @property
    def known_hosts(self) -> str:
        """The line that makes the server known."""
        return f"[{self.host_name}]:{self.port} {self.host_key}\n"

    def address(self, path: Path | str) -> str:
        """The address of a path of this machine on the command line."""
        where = f"{self.user}@{self.host}"
        return f"sftp://{where}/{str(path).removeprefix(str(self.top)).lstrip('/')}"

    def trust(self, home: Path) -> None:
        """Makes the server known, and gives the user's key, to whoever has this home."""
        ssh = home / ".ssh"
        ssh.mkdir(mode=0o700, exist_ok=True)
        with (ssh / "known_hosts").open("a") as file:
            file.write(self.known_hosts)
        shutil.copy(self.key_file, ssh / "id_ed25519")

    def prepare(self) -> None:
        for name in ("host_key", "user_key"):
            if not (self.directory / name).exists():
                make_key(self.directory / name)

    def _try_it(self) -> Exception | None:
        try:
            with socket.create_connection((self.host_name, self.port), 5) as sock:
                sock.settimeout(5)
                hello = sock.recv(64)
            return None if hello.startswith(b"SSH-2.0-") else ServerError("not SSH")
        except OSError as exc:
            return exc


class Sshd(SftpServer):
    """OpenSSH's own, with its internal SFTP server."""

    name = "sshd"
    extensions = True
    """Its SFTP server says what it can do beyond the protocol."""

    def __init__(self, directory: Path | str, **settings: str) -> None:
        """With more of sshd_config(5)'s settings."""
        super().__init__(directory)
        self.settings = settings

    def prepare(self) -> None:
        super().prepare()
        Path("/run/sshd").mkdir(exist_ok=True)
        # Its host key and the authorized keys are what it insists on that nobody else may write.
        config = {
            "Port": self.port,
            "ListenAddress": self.host_name,
            "HostKey": self.directory / "host_key",
            "PidFile": "none",
            "AuthorizedKeysFile": self.directory / "user_key.pub",
            "PermitRootLogin": "yes",
            "PasswordAuthentication": "no",
            "StrictModes": "no",
            "UsePAM": "no",
            "MaxStartups": "100",
            "LogLevel": "ERROR",
            "Subsystem": "sftp internal-sftp",
            **self.settings,
        }
        lines = [f"{name} {value}\n" for name, value in config.items()]
        (self.directory / "sshd_config").write_text("".join(lines))

    def command(self) -> list[str]:
        return [program("sshd"), "-D", "-e", "-f", str(self.directory / "sshd_config")]


class RcloneSftp(SftpServer):
    """rclone's: Go's SFTP library, without fsync, with passwords."""

    name = "rclone"
    user = "someone"
    password = "p@ss:word/+"

    @property
    def top(self) -> Path:  # type: ignore[override]
        """What it serves."""
        return self.directory / "served"

    def prepare(self) -> None:
        super().prepare()
        self.top.mkdir(exist_ok=True)

    def command(self) -> list[str]:
        command = [program("rclone"), "serve", "sftp", str(self.top), "--addr", self.host]
        command += ["--key", str(self.directory / "host_key")]
        command += ["--user", self.user, "--pass", self.password, "--dir-cache-time", "10ms"]
        command += ["--authorized-keys", str(self.directory / "user_key.pub"), "--links"]
        command += ["--vfs-cache-mode", "writes", "--vfs-write-back", "0s", "--cache-dir"]
        return [*command, str(self.directory / "cache"), "--config", "/dev/null"]


def make_key(path: Path, passphrase: str = "") -> Path:
    """A new Ed25519 key, with its public half beside it."""
    command = [program("ssh-keygen"), "-q", "-t", "ed25519", "-N", passphrase, "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    return path


class _Died(ServerError):
    """The process ended before it served; perhaps another took one of its ports."""


def program(name: str) -> str:
    """The path of a program beside this Python or on PATH; ServerError if there is none."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which(name)
    # Debian's sshd is not on the PATH of users.
    found = found or shutil.which(name, path="/usr/sbin")
    if found is None:
        raise ServerError(f"no program {name} beside {sys.executable} or on PATH")
    return found


def _tied_to_this_process() -> list[str]:
    """A command prefix that has the kernel kill the server should this process die first.

    util-linux's setpriv and not ``preexec_fn``, which may deadlock where there are threads.
    """
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL"] if setpriv else []


# Below the ports that the kernel gives to outgoing connections.
_FIRST_PORT, _LAST_PORT, _BLOCK = 10_000, 30_000, 100
_guards: list[socket.socket] = []


def _own_ports() -> Iterator[int]:
    """Ports that no other process gives out here, a block after the other.

    A block is a process's as long as it keeps the block's first port bound. Two servers started
    on the same port are more than one that must be started again: the one that ends takes with
    it the sockets in /tmp that SeaweedFS names after its ports, and the other fails from then on.
    """
    count = (_LAST_PORT - _FIRST_PORT) // _BLOCK
    # Not all from the same end: what a process that has ended talked to is then not met at once.
    for number in range(os.getpid(), os.getpid() + count):
        first = _FIRST_PORT + number % count * _BLOCK
        guard = socket.socket()
        try:
            guard.bind(("127.0.0.1", first))
        except OSError:
            guard.close()
            continue
        _guards.append(guard)
        yield from range(first + 1, first + _BLOCK)
    raise ServerError("no ports are left to give to servers")


_candidates = _own_ports()


def free_ports(count: int) -> list[int]:
    """Loopback ports that nothing is bound to now, none of them given out here before.

    Nor does any other process that asks here get them while this one runs.
    """
    found: list[int] = []
    while len(found) < count:
        port = next(_candidates)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
    return found
