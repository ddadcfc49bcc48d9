"""A new job as a person describes it, the command line that it comes to, and its secrets."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from typing import Annotated, Any, Literal
from urllib.parse import quote

import click
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from adsmig.asked import job_of
from adsmig.commandline import MIGRATION
from adsmig.credentials import keep_account
from adsmig.errors import AdsmigError, UsageError
from adsmig.job import Job
from adsmig.location import Credentials
from adsmig.options import Command
from adsmig.providers import PROVIDERS
from adsmig.uri import parse
from adsmig.web.console import Console
from adsmig.web.text import gettext as _
from adsmig.web.text import marked

CLOUDS = {
    "oss": marked("Alibaba Cloud OSS"),
    "cos": marked("Tencent Cloud COS"),
    "bos": marked("Baidu AI Cloud BOS"),
    "ks3": marked("Kingsoft Cloud KS3"),
    "s3": marked("Amazon S3"),
    "obs": marked("Huawei Cloud OBS"),
    "qiniu": marked("Qiniu Cloud KODO"),
    "ufile": marked("UCloud US3"),
}
"""Third-party clouds by name; each is a row of the table of profiles."""
DOMAINS = {
    "oss": "oss-cn-beijing.aliyuncs.com", "cos": "ap-beijing.myqcloud.com",
    "bos": "bj.bcebos.com", "ks3": "ks3-cn-beijing.ksyuncs.com",
    "s3": "s3.cn-north-1.amazonaws.com.cn", "obs": "obs.cn-north-4.myhuaweicloud.com",
    "qiniu": "s3.cn-east-1.qiniucs.com", "ufile": "cn-bj.ufileos.com",
}  # fmt: skip
"""An example of each cloud's domain names."""

SideName = Literal["src", "dst"]
Text = Annotated[str, Field(max_length=4096)]
Secret = Annotated[SecretStr, Field(max_length=4096)]
Patterns = Annotated[list[Text], Field(max_length=100)]


class FieldError(UsageError):
    """What is wrong with one field of a form."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class Side(BaseModel):
    """Where data comes from, or goes to.  Keys and passwords can be given, and are never shown."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["file", "object", "cloud", "sftp"] = "file"
    path: Text = Field(default="", description="A local path, or one on an SFTP server.")
    provider: Literal["s3", "minio", "oss", "cos", "bos", "ks3", "obs", "qiniu", "ufile"] = "s3"
    endpoint: Text = Field(default="", description="The domain name, without the bucket.")
    bucket: Text = Field(default="", description="BUCKET/ for all of it, or BUCKET/folder/.")
    host: Text = Field(default="", description="HOST or HOST:PORT of an SFTP server.")
    user: Text = ""
    account: Text = Field(default="", description="The name of keys that were kept before.")
    access_key: Secret = SecretStr("")
    secret_key: Secret = SecretStr("")
    token: Secret = SecretStr("")
    password: Secret = SecretStr("")

    def credentials(self) -> Credentials | None:
        """Those that were given; None: none were."""
        if self.kind == "sftp":
            password = self.password.get_secret_value()
            return Credentials("", "", None, password) if password else None
        if self.kind == "file":
            return None
        key, secret, token = (
            one.get_secret_value().strip() for one in (self.access_key, self.secret_key, self.token)
        )
        if bool(key) != bool(secret):
            name = "secret_key" if key else "access_key"
            raise FieldError(name, _("Give both keys, or neither."))
        return Credentials(key, secret, token or None) if key else None


class NewJob(BaseModel):
    """A job to be started, or to be tried."""

    model_config = ConfigDict(extra="forbid")

    command: Literal["sync", "cp", "verify"] = "sync"
    source: Side = Side()
    destination: Side = Side()
    include: Patterns = []
    exclude: Patterns = []
    include_dir: Patterns = []
    exclude_dir: Patterns = []
    min_size: Text = ""
    max_size: Text = ""
    newer_than: Text = ""
    older_than: Text = ""
    start: Text = ""
    end: Text = ""
    compare: Literal["", "size", "checksum", "manifest"] = ""
    delete: Literal["", "source", "destination"] = ""
    max_delete: int | None = Field(default=None, ge=0, le=2**53)
    bandwidth_mbps: float | None = Field(default=None, ge=0, le=10**9, allow_inf_nan=False)
    threads: int | None = Field(default=None, ge=1, le=4096)
    workers: int | None = Field(default=None, ge=1, le=256)
    https: bool | None = None
    accept_new_host_key: bool = False
    region: Text = Field(default="", description="The region to sign for at the source.")
    destination_region: Text = ""
    storage_class: Text = ""

    def sides(self) -> Iterator[tuple[str, Side]]:
        """Both, with what their options begin with."""
        yield "src", self.source
        yield "dst", self.destination


@click.command(cls=Command)
@MIGRATION
def _parser(**options: Any) -> None:
    """Takes what ``cp`` and ``sync`` take; it is parsed with, never run."""


def address(side: Side, name: str, console: Console) -> str:
    """What the command line has for it, without keys; FieldError for what is wrong with it."""
    if side.kind == "file":
        return _path(side, name, console)
    if side.kind == "sftp":
        return _sftp(side, name)
    bucket, slash, prefix = side.bucket.strip().partition("/")
    if not bucket:
        raise FieldError(f"{name}_bucket", _("Write BUCKET/ or BUCKET/folder/."))
    if not slash or (prefix and not prefix.endswith("/")):
        raise FieldError(
            f"{name}_bucket",
            _("It has to end in “/”: BUCKET/ for the whole bucket, or BUCKET/folder/."),
        )
    scheme = side.provider
    if side.kind == "cloud" and scheme not in CLOUDS:
        raise FieldError(f"{name}_provider", _("Choose a cloud from the list."))
    endpoint = _without_protocol(side.endpoint)
    if not endpoint:
        if scheme != "s3" or side.kind == "cloud":
            raise FieldError(f"{name}_endpoint", _("Write the domain name, such as %(example)s.")
                             % {"example": DOMAINS.get(scheme, "10.0.0.5:9000")})  # fmt: skip
        text = f"s3://{bucket}/{prefix}"
    else:
        text = f"{scheme}://{bucket}.{endpoint}/{prefix}"
        if scheme == "minio" or re.fullmatch(
            r"(\[.*\]|[0-9.]+|localhost|[^:]*(?=:))(:\d+)?", endpoint
        ):
            text = f"{scheme}://{endpoint}/{bucket}/{prefix}"
    try:
        at = parse(text)
    except UsageError as exc:
        raise FieldError(f"{name}_bucket", str(exc)) from exc
    if (at.bucket, at.path) != (bucket, prefix.encode()):
        raise FieldError(f"{name}_bucket", _("This bucket cannot be reached at this domain name."))
    return text


def arguments(job: NewJob, console: Console, accounts: dict[str, str]) -> list[str]:
    """The command line, for launch(); ``accounts``: of each side, where it has one.

    Raises UsageError, as the command would, as far as that can be told without a look at either
    side; :func:`checked` takes that.
    """
    words: list[str] = [job.command]

    def add(option: str, value: object) -> None:
        if value is not None and value is not False and value != "":
            words.append(option if value is True else f"{option}={value}")

    for name in ("include", "exclude", "include_dir", "exclude_dir"):
        for pattern in getattr(job, name):
            add(f"--{name.replace('_', '-')}", pattern)
    for name in ("start", "end", "min_size", "max_size", "newer_than", "older_than"):
        add(f"--{name.replace('_', '-')}", getattr(job, name).strip())
    if job.command != "verify":
        add("--compare", job.compare)
        add("--delete-src", job.delete == "source")
        add("--delete-dst", job.delete == "destination")
        if job.delete == "destination":
            add("--max-delete", job.max_delete)
        add("--storage-class", job.storage_class)
    for name, account in accounts.items():
        add(f"--{name}-profile", account)
    add("--src-region", job.region)
    add("--dst-region", job.destination_region)
    add("--bwlimit", job.bandwidth_mbps and f"{job.bandwidth_mbps:g}")
    add("--threads", job.threads)
    add("--workers", job.workers)
    if job.https is not None:
        words.append("--https" if job.https else "--no-https")
    for name, side in job.sides():
        protocol, separator, _rest = side.endpoint.strip().partition("://")
        if separator and side.kind in ("object", "cloud"):
            add(f"--{name}-endpoint", f"{protocol}://{parse(address(side, name, console)).host}")
    add("--accept-new-host-key", job.accept_new_host_key)
    return [*words, "--", *(address(side, name, console) for name, side in job.sides())]


def checked(words: list[str]) -> Job:
    """The Job that a command line asks for, through the command line's own parser.

    Looks at both sides, as the command does when it begins.  Raises UsageError, or AdsmigError for
    a side that cannot be reached.
    """
    try:
        with _parser.make_context(words[0], words[1:], resilient_parsing=False) as context:
            options = dict(context.params)
    except click.ClickException as exc:
        raise UsageError(exc.format_message().rstrip(".")) from exc
    return job_of(words[0], options.pop("src"), options.pop("dst"), options)


def keep_secrets(job: NewJob) -> dict[str, str]:
    """Puts the keys and passwords that were given into the credentials file; the accounts to name
    on the command line.
    """
    accounts = {}
    for name, side in job.sides():
        if given := side.credentials():
            where = side.user or side.host if side.kind == "sftp" else side.bucket.partition("/")[0]
            kind = side.provider if side.kind != "sftp" else "sftp"
            wanted = re.sub(r"[^A-Za-z0-9_-]+", "-", f"{kind}-{where}").strip("-")
            accounts[name] = keep_account(wanted[:60], given)
        elif side.account and side.kind != "file":
            accounts[name] = side.account
    return accounts


def placeholder_accounts(job: NewJob) -> dict[str, str]:
    """As :func:`keep_secrets`, without keeping anything: the names that it would begin with."""
    found = {}
    for name, side in job.sides():
        if side.kind == "file":
            continue
        found[name] = side.account or ("NAME" if side.credentials() else "")
    return found


def shown(words: list[str]) -> str:
    """The command line, to be copied to a shell; no secret stands in it."""
    return shlex.join(["adsmig", *(word for word in words if word != "--")])


def _path(side: Side, name: str, console: Console) -> str:
    path = os.path.expanduser(side.path.strip())
    if not path.startswith("/"):
        raise FieldError(f"{name}_path", _("Write a path from the root on: /data/photos/"))
    if "\0" in path:
        raise FieldError(f"{name}_path", _("This cannot be a path."))
    try:
        console.check_path(path)
    except UsageError as exc:
        raise FieldError(f"{name}_path", str(exc)) from exc
    except (OSError, ValueError) as exc:
        raise FieldError(f"{name}_path", _("This cannot be a path.")) from exc
    return path


def _sftp(side: Side, name: str) -> str:
    host = side.host.strip()
    if not host:
        raise FieldError(f"{name}_host", _("Write HOST or HOST:PORT."))
    if not side.user.strip():
        raise FieldError(f"{name}_user", _("Write the name of the user."))
    path = side.path.strip() or "/~/"
    path = path if path.startswith("/") else f"/~/{path}"
    text = f"sftp://{quote(side.user.strip(), safe='')}@{host}{path}"
    try:
        parse(text)
    except AdsmigError as exc:
        raise FieldError(f"{name}_host", str(exc)) from exc
    return text


def _without_protocol(endpoint: str) -> str:
    return re.sub(r"^https?://", "", endpoint.strip(), flags=re.IGNORECASE).rstrip("/").lower()


assert set(CLOUDS) < set(PROVIDERS)
