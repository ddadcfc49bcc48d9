"""Where bytes come from and go to: one protocol, one driver a kind of storage."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from adsmig.errors import AdsmigError
from adsmig.providers import PROVIDERS

if TYPE_CHECKING:
    from adsmig.location import Location
    from adsmig.storage.base import Settings, Storage


# paramiko would load it for a line of ~/.ssh/config that is not read here, and would take twice as
# long as without it.
_modules: dict[str, Any] = sys.modules
_modules.setdefault("invoke", None)


def open_storage(location: Location, settings: Settings, destination: bool = False) -> Storage:
    """The driver for ``location``, ready.  Makes no request yet.

    ``destination`` says that it will be written to.
    """
    return driver_of(location)(location, settings, destination)


def driver_of(location: Location) -> Callable[[Location, Settings, bool], Storage]:
    """The driver for ``location``, to be called as :func:`open_storage`; imports only that.

    AdsmigError if there is none.
    """
    if location.scheme == "file":
        from adsmig.storage.local import LocalStorage

        return LocalStorage
    if location.scheme == "sftp":
        from adsmig.storage.sftp import SftpStorage

        return SftpStorage
    if location.scheme in PROVIDERS:
        from adsmig.storage.s3 import S3Storage

        return S3Storage
    raise AdsmigError(f"no driver for addresses of the form {location.scheme}://")
