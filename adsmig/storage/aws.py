"""What boto3 is best at: finding credentials and a region where the address names none."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from adsmig.errors import AdsmigError
from adsmig.location import Credentials, Location


def credentials_for(location: Location) -> Callable[[], Credentials | None]:
    """A function giving the credentials to sign with; it refreshes those that expire.

    Those of the address; else boto3's chain: environment, shared files, container or instance
    role (boto3.amazonaws.com/v1/documentation/api/latest/guide/credentials.html).  Raises
    AdsmigError when there are none.  None, so that requests go unsigned, for an anonymous user.
    """
    if location.anonymous:
        return lambda: None
    given = location.credentials
    if given:
        return lambda: given

    def chain() -> Credentials:
        found = _found()
        if found is None:
            raise AdsmigError(
                f"no credentials for {location}: write ACCESS_KEY:SECRET_KEY@ into the address, or"
                " set ADSMIG_SRC_ACCESS_KEY and ADSMIG_SRC_SECRET_KEY for a source,"
                " ADSMIG_DST_ACCESS_KEY and ADSMIG_DST_SECRET_KEY for a destination, or AWS's own"
            )
        frozen = found.get_frozen_credentials()
        return Credentials(frozen.access_key, frozen.secret_key, frozen.token)

    return chain


def default_region() -> str:
    """The region of boto3's configuration, or ``us-east-1``."""
    return _session().region_name or "us-east-1"


@lru_cache(maxsize=1)
def _session() -> Any:
    import boto3  # late: it takes longer to import than a small job to run

    return boto3.Session()


@lru_cache(maxsize=1)
def _found() -> Any:
    return _session().get_credentials()
