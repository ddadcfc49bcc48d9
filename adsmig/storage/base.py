"""The contract of a storage driver, and the function that opens one.

Every driver passes the same conformance suite, ``tests/storage``.  Keys are relative to the
Location that the storage was opened for.  Methods may be called from several threads at once.
Where the text says *tries again*, the method does so itself; the others are units that the caller
tries again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import NamedTuple, Protocol

from adsmig.checksum import NO_SUMS, Sums, Wanted
from adsmig.location import Location
from adsmig.model import Entry, KeyRange, Meta, Part, Upload
from adsmig.routes import Route

Identity = tuple[int, int, int]
"""Device and inode of a directory, and the id of its file system (statvfs(3)), which mostly stays
the same where the device gets another number at the next start of the machine."""

Prune = Callable[[bytes], bool]
"""Whether a directory, relative to the Location and ending in ``/``, is of no interest."""


class Body(Protocol):
    """The bytes of one object, or a span of them, being read.  Closed by whoever opened it."""

    meta: Meta
    md5: str | None
    """What the source says is the MD5 of all of these bytes, hexadecimal; None if it does not."""
    crc32: str | None
    """The same of their CRC-32; see adsmig.checksum."""

    def readinto(self, buffer: memoryview) -> int:
        """Fills as much of ``buffer`` as it can and returns the number of bytes; 0 at the end.

        Before it hands out the last bytes it makes sure that the object is still what its Entry
        said, and raises SourceChanged if not: so a writer never completes a mixture of versions.
        """
        ...

    def rewind(self) -> bool:
        """Begins anew with the first byte, if reading twice asks nobody; whether it did."""
        ...

    def __enter__(self) -> Body: ...

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None: ...


class Stored(NamedTuple):
    """What a destination answered to a write."""

    etag: str | None = None
    md5: str | None = None
    """The MD5 that it computed over what it stored, hexadecimal, where its ETag is one."""
    crc32: str | None = None
    """The CRC-32 that it says it has, where it was told one."""
    size: int | None = None
    """The bytes that it said, afterwards, it has; None if it has to be asked."""


class Storage(Protocol):
    """One Location, open.  Closing is the opener's work."""

    location: Location
    etag_is_md5: bool
    """An ETag of 32 hexadecimal digits is the content's MD5."""
    keeps_files: bool
    """Keys are paths: what is written is durable only after :meth:`sync`."""
    is_local: bool
    """The kernel itself keeps it: what was written need not be looked at again."""
    tick_ns: int
    """Nanoseconds between two times that it tells apart."""

    @property
    def names_ahead(self) -> int:
        """How many files are still to come of the large directory that is being listed, which any
        other process would have to read anew as a whole; 0 if there is none such.
        """
        ...

    def list(self, keys: KeyRange, prune: Prune | None = None) -> Iterator[Entry]:
        """Every entry whose key lies in ``keys``, in ascending byte order, streamed.

        Directories that ``prune`` names are left out with all below them, where that saves work;
        where it does not, what is below them may be given all the same.

        Entries that exist but cannot be copied (an unreadable directory, a broken link) are there
        with ``problem`` set.  Tries again, going on after the last key it gave.  Raises
        ListingError rather than end early, and NotFound if the Location does not exist.
        """
        ...

    def probe(self, after: bytes, guess: bool = False) -> bytes | None:
        """The first key past ``after``, or None.  Tries again.

        ``guess``: what was so a moment ago will do, where it takes long to find out.
        """
        ...

    def stat(self, key: bytes) -> Entry:
        """The entry of exactly this key; NotFound if there is none.  Tries again."""
        ...

    def missing(self, key: bytes, size: int, src: Storage, its_key: bytes) -> str:
        """Why there is no object of this key and size that is another than the one of ``src``; or
        ''.  What a link leads to is none: it is under another key, or the very same.  Tries again.
        """
        ...

    def read(self, entry: Entry, start: int = 0, size: int | None = None) -> Body:
        """The content from byte ``start``, ``size`` bytes or to the end.

        Raises SourceChanged if the object is no longer what ``entry`` says.
        """
        ...

    def part_size(self, entry: Entry, sure: bool = False) -> int | None:
        """Bytes of each part that an object was put in, but for the last, if its ETag is made of
        their MD5s and that can be known; ``sure`` asks for each of them.

        Raises SourceChanged as :meth:`read`.
        """
        ...

    def crc32(self, entry: Entry) -> str | None:
        """What it says is the CRC-32 of the whole content, if it says so; see adsmig.checksum."""
        ...

    def wanted(self) -> Wanted:
        """Which hashes of an object :meth:`write` is best told: what it takes, and what it will
        answer with.
        """
        ...

    def meta(self, entry: Entry) -> Meta:
        """What is kept beside the content; SourceChanged as :meth:`read`."""
        ...

    def write(
        self,
        key: bytes,
        chunks: Iterator[memoryview],
        size: int,
        meta: Meta,
        sums: Sums = NO_SUMS,
    ) -> Stored:
        """Stores the ``size`` bytes of ``chunks`` as ``key``, whole or not at all.

        ``sums`` of the content, as far as they are known: what arrives with others is not
        stored, where what is sent can be damaged on its way.  Each chunk is valid until the next
        is asked for.  Raises ObjectError for a key that this storage cannot hold, before it takes
        the first chunk.
        """
        ...

    def write_link(self, key: bytes, target: bytes, meta: Meta) -> None:
        """Makes a symbolic link; ObjectError where this storage has none."""
        ...

    def set_directory_meta(self, key: bytes, meta: Meta) -> None:
        """Gives a directory permissions and times; one that is not there is no error.

        Where keys are no paths there is nothing to do.
        """
        ...

    def hides(self, key: bytes) -> bool:
        """Whether listings pass over what may be at ``key``: it lies behind a symbolic link that
        is not followed, or leads nowhere.
        """
        ...

    def problem(self, key: bytes) -> str:
        """Why this storage cannot hold ``key``, as far as can be told without trying; or ''."""
        ...

    def delete(self, keys: Sequence[bytes]) -> dict[bytes, str]:
        """Removes the objects; those that could not be removed, with the reasons.  Tries again.

        What is not there is no error.  A directory that is not empty stays, and is no error.
        """
        ...

    def copy_from(self, src: Storage, entry: Entry, key: bytes) -> Stored | None:
        """Copies an object inside the service, without its bytes passing here.

        None where that cannot be done, and the bytes have to be read and written.
        """
        ...

    def begin_upload(self, key: bytes, entry: Entry, meta: Meta, crc32: bool = False) -> Upload:
        """Opens a multipart upload of an object like ``entry``; nothing is visible at ``key``.

        ``crc32``: that of each part can be told ahead; it has to be, if Upload.vouched says that
        the store holds parts against it.

        Uploads of exactly this key that an earlier, killed call may have left are removed.
        """
        ...

    def put_part(
        self,
        key: bytes,
        upload: Upload,
        number: int,
        chunks: Iterator[memoryview],
        sums: Sums = NO_SUMS,
    ) -> Stored:
        """Stores part ``number``, in place of an earlier one of that number; ``sums`` of it as of
        :meth:`write`.
        """
        ...

    def copy_part(self, src: Storage, key: bytes, upload: Upload, number: int) -> Stored | None:
        """As :meth:`copy_from`, for one part."""
        ...

    def complete(self, key: bytes, upload: Upload, parts: Sequence[Part], meta: Meta) -> str | None:
        """Makes the object appear at ``key``, checked; the ETag.

        Tries again, and knows a first try whose answer was lost.  NotFound if the upload is gone.
        """
        ...

    def abort(self, key: bytes, upload_id: str) -> None:
        """Removes an unfinished upload; one that is not there is no error.  Tries again."""
        ...

    def uploads(self) -> Iterator[tuple[bytes, str]]:
        """Key and id of every upload below the Location that was neither completed nor aborted, by
        whomever it was opened; none where they cannot be listed, and none of a file system, where
        :meth:`tidy` finds what they left.
        """
        ...

    def prepare(self) -> None:
        """Makes sure, once before a run, that it can be read, or written to; raises if not."""
        ...

    def identity(self) -> Identity | None:
        """What tells whether the place is still the one that it was; None where nothing can."""
        ...

    def sync(self) -> None:
        """Returns when all that was written is on stable storage."""
        ...

    def tidy(self) -> None:
        """Removes what an ended run left for itself: the staging directory."""
        ...

    def release(self) -> None:
        """Leaves the calling thread's connections to others, until it needs one again."""
        ...

    def close(self) -> None:
        """Drops the connections of the calling thread, and those that were left to others."""
        ...


GONE = "its copy is not there any more"
RESIZED = "its copy has another size by now"
LINKED = "what is in its copy's place is a link, or behind one"
ITSELF = "what is in its copy's place is this very file"
"""What :meth:`Storage.missing` says."""

STAGING = b".adsmig-"
"""What the names of jobs' own directories at a destination begin with."""
MIB = 1 << 20
PART_SIZE = 16 * MIB
MAX_PARTS = 10_000
"""docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html: at most 10,000 parts an upload, each
of 5 MiB to 5 GiB but the last, and 5 TB an object."""


def part_size_for(size: int) -> int:
    """Bytes in each part of an object of ``size`` bytes; whole MiB, at most 10,000 parts."""
    return max(PART_SIZE, -(-size // (MAX_PARTS * MIB)) * MIB)


class Settings(Protocol):
    """What a driver needs to know of the job."""

    @property
    def connect_timeout_s(self) -> float:
        """Seconds to wait for a connection."""

    @property
    def read_timeout_s(self) -> float:
        """Seconds to wait for an answer, or for more of one."""

    @property
    def routes(self) -> Sequence[Route]:
        """Where to connect to instead of what a Location says."""

    @property
    def ca_bundle(self) -> str:
        """The file of the authorities that certificates are to be of; '' for the system's."""

    @property
    def verify_tls(self) -> bool:
        """Whether a server's certificate is checked."""

    @property
    def staging(self) -> str:
        """A name for this job's own files at the destination."""

    @property
    def identities(self) -> tuple[Identity | None, Identity | None]:
        """What the source's and the destination's ``identity()`` was when the run began."""

    @property
    def ticks(self) -> tuple[int, int]:
        """The source's and the destination's ``tick_ns``, as they were found when the run began;
        0 if they were not looked for.
        """

    @property
    def own(self) -> Sequence[bytes]:
        """Real paths of this machine's files that the run itself needs, which are none of the data:
        file systems neither list nor write nor remove them.
        """

    @property
    def by_directory(self) -> bool:
        """Object stores are to be listed one directory at a time, whatever they seem to be."""

    @property
    def links(self) -> str:
        """``follow`` symbolic links of file systems; ``copy``: list each as a link; ``record``: so
        list those to directories, and follow the others."""

    @property
    def accept_new_host_key(self) -> bool:
        """An SFTP server whose host key is not known is to be trusted, and remembered."""

    @property
    def storage_class(self) -> str:
        """The storage class of what is written to an object store; '' for the bucket's own."""

    @property
    def sse(self) -> str:
        """Encryption of what is written: ``AES256``, ``aws:kms``, ``aws:kms:KEY-ID``, or ''."""

    @property
    def tags(self) -> bool:
        """Objects are to be read and written with their tags."""
