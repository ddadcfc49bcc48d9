"""What a run is to do: chosen once from the command line, the same in every process."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from adsmig.errors import ManifestError, UsageError
from adsmig.filters import Filters
from adsmig.location import Location
from adsmig.model import KeyRange
from adsmig.providers import OPAQUE
from adsmig.routes import Route

LARGE_SIZE = 64 << 20
"""Bytes; an object beyond this is copied in parts, by many workers."""
MOST_TIMEOUT_S = 1_000_000
"""Eleven days; the clocks of sockets end somewhere."""

COMPARISONS = ("", "size", "checksum", "manifest")
LINKS = ("follow", "copy", "record")
_WORD = re.compile("[!-~]*")
"""What a header can hold without an escape."""
_SELECTION = ("single", "start", "end", "filters", "files_from", "links", "against", "sample",
              "seed")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Job:
    """One migration.  Checks itself; raises UsageError for what makes no sense."""

    command: str
    """``cp``: copy everything; ``sync``: copy what is new or changed; ``verify``: compare; ``rm``:
    remove; ``inventory``: look."""
    src: Location
    dst: Location | None = None
    """None for ``rm`` and ``inventory``.  For a directory, a prefix that ends in ``/`` or is empty.
    """
    single: tuple[bytes, bytes] | None = None
    """A single object: its key below ``src``, and the key below ``dst`` to copy it to."""
    start: bytes | None = None
    end: bytes | None = None
    """The first and last key of the selection, inclusive."""
    filters: Filters = Filters()  # noqa: RUF009 - it is immutable
    files_from: str = ""
    """A file that names the keys to look at, one a line; ``-`` for what can be read only once."""
    names: str = ""
    """What that is, and then where a copy of it is; see keylist."""
    against: str = ""
    """For ``verify``: the manifest whose checksums the destination is held against, in place of the
    source."""
    sample: int = 0
    """For ``verify``: only keys whose hash is below this, of 2 ** 64; 0: all."""
    seed: int = 0
    """Of that hash."""
    compare: str = ""
    """When an object at the destination counts as equal: by ``size``, by ``checksum``, by what the
    ``manifest`` says was copied; by default as :func:`adsmig.comparison.changed` says, or never,
    for ``cp``."""
    existing: bool = False
    """Only what is at the destination already, in whatever version."""
    ignore_existing: bool = False
    """Only what is not."""
    update: bool = False
    """Leave alone what is newer at the destination."""
    delete_src: bool = False
    """Remove at the source what was copied, or found equal."""
    delete_dst: bool = False
    """Remove at the destination what the source does not have."""
    max_delete: int | None = None
    """Remove nothing at the destination if it would be more than this."""
    yes: bool = False
    """Remove without asking, and even if the source is empty."""
    perms: bool = True
    """Keep permissions and owner."""
    links: str = "follow"
    """See storage.base.Settings."""
    record: str = ""
    """The file that takes the paths of links which are not followed."""
    storage_class: str = ""
    sse: str = ""
    tags: bool = False
    """See storage.base.Settings."""
    accept_new_host_key: bool = False
    """Trust, and remember, SFTP servers that are not known."""
    threads: int | None = None
    """Objects and parts in flight, all processes together; None: as many as are of use."""
    workers: int | None = None
    """Processes; None: one for each processor, if those have time for them."""
    bwlimit_mbps: float = 0
    """Megabits a second, all processes together; 0: unlimited."""
    connect_timeout_s: float = 10
    read_timeout_s: float = 60
    routes: tuple[Route, ...] = ()
    """Where to connect to instead of what an address says."""
    ca_bundle: str = ""
    verify_tls: bool = True
    """See storage.base.Settings."""
    dryrun: bool = False
    names_keys: bool = False
    """A dry run names each key that would be copied or removed."""
    depth: int = 1
    """Of the directories that the inventory of a dry run tells apart."""
    by_directory: bool = False
    """An object store was found to list out of byte order."""
    identities: tuple[tuple[int, int, int] | None, tuple[int, int, int] | None] = (None, None)
    """See storage.base.Settings."""
    ticks: tuple[int, int] = (0, 0)
    """See storage.base.Settings."""
    own: tuple[bytes, ...] = ()
    """See storage.base.Settings."""
    began_ns: int = 0
    """When the run began, which ages are measured from; Unix time."""
    known: str = ""
    """The manifest to compare with, if ``compare`` says so."""
    doubts: bool = False
    """That manifest has failures: what the destination has of these may be damaged."""
    retries: bool = False
    """Only these are looked at."""
    keys_file: str = ""
    """What ``files_from`` names, sorted; see keylist."""
    rebuild: bool = False
    """The manifest was lost: what is equal at the destination is taken for copied, also by ``cp``
    and where the manifest was to tell."""
    check: bool = True
    """Whether it is known which of SRC and DST are directories, and they can be compared."""

    def __post_init__(self) -> None:
        if self.start is not None and self.end is not None and self.end < self.start:
            raise UsageError(
                f"--end {os.fsdecode(self.end)!r} comes before --start"
                f" {os.fsdecode(self.start)!r} in byte order: nothing lies between"
            )
        if any(number is not None and number < 1 for number in (self.threads, self.workers)):
            raise UsageError("--threads and --workers are numbers from 1")
        if not 0 <= self.bwlimit_mbps < math.inf:
            raise UsageError("--bwlimit is a number of megabits a second; write 0 for unlimited")
        timeouts = {"--connTimeout": self.connect_timeout_s, "--timeout": self.read_timeout_s}
        for name, seconds in timeouts.items():
            if not 0 < seconds <= MOST_TIMEOUT_S:
                raise UsageError(f"{name} is more than 0 and up to {MOST_TIMEOUT_S:,} seconds")
        assert self.compare in COMPARISONS
        assert self.links in LINKS
        for wrong, why in self._contradictions():
            if wrong:
                raise UsageError(why)
        if self.check:
            self._check_overlap()

    def _contradictions(self) -> Iterator[tuple[object, str]]:
        """Options that cannot go together, or have no meaning for these storages."""
        looks = self.existing or self.ignore_existing or self.update
        paths = [at.is_path for at in (self.src, self.dst) if at]
        unsure = {"size": "--size-only", "manifest": "--compare manifest"}
        yield (
            self.delete_src and self.delete_dst,
            "--delete-src and --delete-dst together: the next run would find an empty source, and"
            " remove everything at the destination; choose one",
        )
        yield (
            self.delete_src and self.compare in unsure,
            "--delete-src removes only what was found equal by content: leave out"
            f" {unsure.get(self.compare)}",
        )
        yield (
            self.existing and self.ignore_existing,
            "--existing and --ignore-existing together leave nothing to copy; choose one",
        )
        yield (
            self.compare == "manifest" and self.command != "sync",
            "--compare manifest copies what changed since the last run: it belongs to sync",
        )
        yield (
            self.compare == "manifest" and looks,
            "--compare manifest does not look at the destination, as --existing,"
            " --ignore-existing and --update do; choose one",
        )
        yield (
            self.files_from and self.delete_dst,
            "--delete-dst removes what the source does not have, which the names of --files-from"
            " do not tell; leave one of them out",
        )
        yield (
            self.max_delete is not None and not self.delete_dst,
            "--max-delete limits --delete-dst, which is not there",
        )
        yield (
            self.links == "copy" and self.record,
            "--links copies links, --recordName skips them; choose one",
        )
        yield (
            (self.storage_class or self.sse) and paths[-1],
            "--storage-class and --sse are for a destination in an object store",
        )
        yield self.tags and any(paths), "--tags are copied between object stores only"
        yield (
            self.sse and not re.fullmatch(r"AES256|aws:kms(:[!-~]+)?", self.sse),
            f"--sse {self.sse!r}: write AES256, aws:kms, or aws:kms:KEY-ID",
        )
        yield (
            not _WORD.fullmatch(self.storage_class),
            f"--storage-class {self.storage_class!r}: write the store's own word, as STANDARD_IA",
        )
        for side, at in (("src", self.src), ("dst", self.dst)):
            if at and not _WORD.fullmatch(at.region):
                yield True, f"--{side}-region {at.region!r}: write the provider's, as cn-beijing"

    def _check_overlap(self) -> None:
        src, dst = self.src, self.dst
        if dst is None or self.command not in ("cp", "sync"):
            return
        if src.is_path != dst.is_path or (src.is_path and src.scheme != dst.scheme):
            return
        if src.scheme == "file":
            one, other = (os.path.join(os.path.realpath(at.path), b"") for at in (src, dst))
        elif src.scheme == "sftp":
            if src.host != dst.host:
                return
            one, other = (os.path.join(at.path, b"") for at in (src, dst))
        elif (_service(src), src.bucket) == (_service(dst), dst.bucket):
            one, other = src.path, dst.path
        else:
            return
        if self.single:
            if one + self.single[0] == other + self.single[1]:
                raise UsageError(f"SRC and DST are the same object in {src}")
        elif one.startswith(other) or other.startswith(one):
            raise UsageError(f"{src} and {dst} lie within one another: choose separate places")

    @property
    def id(self) -> str:
        """Names the job by what it selects and where that goes, not by how or how fast."""
        text = json.dumps(self._identity(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    @property
    def manner(self) -> str:
        """What is done with each object: an unfinished run goes on only where it is the same."""
        names = ("command", "compare", "existing", "ignore_existing", "update", "delete_src",
                 "delete_dst", "perms", "record", "storage_class", "sse", "tags")  # fmt: skip
        manner = {name: getattr(self, name) for name in names}
        # The same name, with other content: other keys.
        return json.dumps(
            {**manner, "files": _digest(self.names or self.files_from)}, sort_keys=True
        )

    @property
    def keeps_directories(self) -> bool:
        """Whether directories have permissions and times that are to be copied."""
        both = all(at and at.is_path for at in (self.src, self.dst))
        return self.command in ("cp", "sync") and not self.dryrun and both

    @property
    def lists_destination(self) -> bool:
        """Whether what is at the destination makes a difference."""
        if self.dst is None:
            return False
        asks = self.existing or self.ignore_existing or self.update or self.delete_dst
        return self.command != "cp" or bool(self.compare) or asks or self.rebuild

    @property
    def by_record(self) -> bool:
        """Whether the manifest tells what is at the destination."""
        return self.compare == "manifest" and not self.rebuild

    @property
    def by_content(self) -> bool:
        """Whether what the listings leave open is told from the content; else from the time that is
        kept with it.
        """
        told = self.command == "verify" or self.delete_src
        return told or self.compare not in ("", "manifest")

    @property
    def tick_ns(self) -> int:
        """Nanoseconds between two times that a destination on a file system tells apart."""
        return self.ticks[1] if self.dst and self.dst.scheme == "file" else 1

    @property
    def follows_links(self) -> bool:
        """Whether the source may have one file under several keys, of which only one is its own."""
        return self.src.is_path and self.links != "copy"

    @property
    def over_sftp(self) -> bool:
        """Whether the bytes pass through an SFTP server, to which each connection is dear."""
        return any(at.scheme == "sftp" for at in (self.src, self.dst) if at)

    @property
    def keeps_own_marker(self) -> bool:
        """Whether the marker of SRC itself, an object of the key ``SRC/``, can be an object at the
        other side, too: not where that is a directory or a whole bucket, which have no name there.
        """
        return all(not at.is_path and at.path for at in (self.src, self.dst) if at)

    @property
    def is_local(self) -> bool:
        """Whether they stay on this machine."""
        return all(at.scheme == "file" for at in (self.src, self.dst) if at)

    @property
    def max_put(self) -> int:
        """Bytes; the destination takes no larger object in one piece."""
        return (self.dst or self.src).profile.max_put

    @property
    def etags_tell(self) -> bool:
        """Whether ETags of both sides that look like an MD5 are one, and can be compared."""
        return all(at.profile.etag != OPAQUE for at in (self.src, self.dst) if at)

    @property
    def staging(self) -> str:
        """The name of the job's own directory at the destination."""
        return f".adsmig-{self.id}"

    @property
    def places(self) -> tuple[Location, Location | None]:
        """Source and destination, as a person is told: of a single object, its own place."""
        if not self.single:
            return self.src, self.dst
        src, dst = self.single
        return self.src.below(src), self.dst and self.dst.below(dst)

    @property
    def origin(self) -> str:
        """What the destination is held against, as a person is told."""
        return f"the manifest {self.against}" if self.against else str(self.places[0])

    @property
    def target(self) -> str:
        """Where it is, as a person is told; '' where there is none."""
        return str(self.places[1] or "")

    @property
    def keys(self) -> KeyRange:
        """The keys that the job selects."""
        chosen = KeyRange(self.start or b"", self.end, closed=True)
        if self.single:
            key = self.single[0]
            return KeyRange(key, key, closed=key in chosen)
        return chosen

    @property
    def processes(self) -> int:
        """How many processes work: ``workers``, or fewer if there are not so many ``threads``."""
        workers = (os.cpu_count() or 1) if self.workers is None else self.workers
        return workers if self.threads is None else min(workers, self.threads)

    @property
    def threads_per_worker(self) -> int | None:
        """Threads in each process; all together, at most ``threads``, if that is given."""
        return self.threads // self.processes if self.threads else None

    def dst_key(self, key: bytes) -> bytes:
        """Where the source's ``key`` is copied to, below ``dst``."""
        return self.single[1] if self.single else key

    def _identity(self) -> dict[str, Any]:
        chosen = {name: _json(getattr(self, name)) for name in _SELECTION}
        plain = {name: value for name, value in chosen.items() if value != _json(_default(name))}
        family = "copy" if self.command in ("cp", "sync") else self.command
        places = [at.identity if at else None for at in (self.src, self.dst)]
        return {"family": family, "src": places[0], "dst": places[1], **plain}

    def to_json(self) -> str:
        """All but the secrets, for the manifest; :meth:`from_json` reads it."""
        left_out = {"src", "dst", "check", "identities", "ticks", "own", "began_ns", "known",
                    "doubts", "retries", "names", "keys_file", "dryrun", "names_keys",
                    "yes"}  # fmt: skip
        names = [one.name for one in fields(self) if one.name not in left_out]
        places = {"src": _plain(self.src), "dst": _plain(self.dst) if self.dst else None}
        return json.dumps({**places, **{name: _json(getattr(self, name)) for name in names}})

    @classmethod
    def from_json(cls, text: str) -> Job:
        """The job that a manifest holds, which holds no credentials."""
        try:
            kept = json.loads(text)
            for side in ("src", "dst"):
                if place := kept[side]:
                    path = os.fsencode(place.pop("path"))
                    place["overrides"] = tuple(place.get("overrides", ()))
                    kept[side] = Location(path=path, **place)
            for name in ("start", "end"):
                kept[name] = None if kept[name] is None else os.fsencode(kept[name])
            kept["routes"] = tuple(Route(*route) for route in kept.get("routes", ()))
            if kept["single"]:
                kept["single"] = tuple(os.fsencode(key) for key in kept["single"])
            chosen: dict[str, Any] = {
                name: tuple(v) if isinstance(v, list) else v
                for name, v in kept.pop("filters", {}).items()
            }
            return cls(**{**kept, "filters": Filters(**chosen)})
        except (ValueError, TypeError, KeyError, AttributeError) as exc:
            raise ManifestError(
                "the manifest holds no job that this adsmig can read: restore it, or have cp or"
                " sync go on without it, with --rebuild-manifest"
            ) from exc

    def sorted_by_directory(self) -> Job:
        """The same job, distrusting the order in which object stores list."""
        return replace(self, by_directory=True)


def _service(at: Location) -> str:
    """The host, or one name for all of AWS, where no two buckets have the same name."""
    name = at.host.partition(":")[0]
    return "" if name.endswith((".amazonaws.com", ".amazonaws.com.cn")) else at.host


def _default(name: str) -> Any:
    return next(one.default for one in fields(Job) if one.name == name)


def _json(value: Any) -> Any:
    """A field in a form that JSON has."""
    if isinstance(value, bytes):
        return os.fsdecode(value)
    if isinstance(value, Filters):
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(value).items()}
    return [_json(one) for one in value] if isinstance(value, tuple) else value


def _digest(path: str) -> str:
    """Of a file's content; '' for no file."""
    if not path:
        return ""
    try:
        with open(path, "rb") as file:
            digest = hashlib.sha256()
            while chunk := file.read(1 << 20):
                digest.update(chunk)
            return digest.hexdigest()
    except OSError as exc:
        raise UsageError(f"cannot read --files-from {path}: {exc.strerror}") from exc


def _plain(location: Location) -> dict[str, Any]:
    names = ("scheme", "bucket", "host", "path_style", "https", "region", "trailing_slash",
             "anonymous", "overrides", "user", "account")  # fmt: skip
    return {"path": os.fsdecode(location.path), **{n: getattr(location, n) for n in names}}
