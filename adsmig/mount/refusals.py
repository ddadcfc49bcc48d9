"""What a program is told that uses the mount, where the store refuses."""

from __future__ import annotations

import errno
import logging

from adsmig.errors import AdsmigError, NotFound, ObjectError, SourceChanged, StorageFull

log = logging.getLogger(__name__)


def os_error(exc: AdsmigError) -> OSError:
    """The error of a system call that stands for one of ours; the log has the whole of it."""
    number = errno.EIO
    if isinstance(exc, NotFound):
        number = errno.ENOENT
    elif isinstance(exc, StorageFull):
        number = errno.EDQUOT if "Quota" in str(exc) else errno.ENOSPC
    elif isinstance(exc, SourceChanged):
        number = errno.ESTALE
    elif isinstance(exc, ObjectError):
        number = {
            "denied": errno.EACCES,
            "key": errno.EINVAL,
            "size": errno.EFBIG,
            "metadata": errno.ENOSPC,
        }.get(exc.kind, errno.EIO)
    if number not in (errno.ENOENT, errno.ESTALE):
        log.warning("%s", exc)
    return OSError(number, str(exc))
