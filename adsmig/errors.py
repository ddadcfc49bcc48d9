"""What can go wrong, told apart by who has to act.

One bad object is a :class:`ObjectError`: it becomes a recorded failure and the run goes on.
A :class:`TransientError` is tried again by :func:`adsmig.retry.retry`.
Any other :class:`AdsmigError` ends the command with its ``exit_code`` and its message, which is
one line: what, where, what to do next.  Messages never hold a secret.
"""

from __future__ import annotations


class AdsmigError(Exception):
    """A job that cannot run, or cannot go on (exit code 3)."""

    exit_code = 3


class UsageError(AdsmigError):
    """The command line asks for something that makes no sense (exit code 2)."""

    exit_code = 2


class ManifestError(AdsmigError):
    """The manifest is locked, damaged, of a newer schema, or of another job."""


class ManifestInUse(ManifestError):
    """Another process has it."""


class DamagedManifest(ManifestError):
    """A manifest that was torn, overwritten or lost in part."""

    def __init__(self, path: object, why: str) -> None:
        super().__init__(
            f"the manifest {path} is damaged ({why}): restore it, or have cp or sync go on without"
            " it, with --rebuild-manifest"
        )


class Interrupted(AdsmigError):
    """The user asked for an end at a time when there was nothing to settle (exit code 130)."""

    exit_code = 130


class ListingError(AdsmigError):
    """A listing that is not provably complete and ordered; it settles nothing."""


class OrderError(ListingError):
    """A store listed keys out of byte order; it has to be listed one directory at a time."""


class NotFound(AdsmigError):
    """The object, bucket or directory that was asked for is not there."""


class StorageFull(AdsmigError):
    """The destination has no room left.  What was settled stays settled; resume later."""


class ObjectError(AdsmigError):
    """One object that cannot be copied; ``kind`` is a short word that reports group by."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[type[ObjectError], tuple[str, str]]:
        return type(self), (self.kind, str(self))


class TransientError(AdsmigError):
    """Worth another try: a lost connection, a 500, a timeout, a check that did not match.

    ``immediate`` is true where waiting is of no use: a kept-alive connection that the server
    had closed meanwhile.
    """

    def __init__(self, message: str, *, immediate: bool = False) -> None:
        super().__init__(message)
        self.immediate = immediate


class Throttled(TransientError):
    """The store asked for fewer requests (503, 429, SlowDown)."""


class Expired(TransientError):
    """The credentials are no longer good; those that refresh themselves may be at the next try."""


class Unreachable(TransientError):
    """Nobody answers at the address: a job that cannot run once the tries are used up."""


BLAMELESS = (Unreachable, Throttled, Expired)
"""What no object is to blame for: the next one would fare no better, and the run has to end."""


class SourceChanged(TransientError):
    """The source object changed between listing and reading, or while it was read."""
