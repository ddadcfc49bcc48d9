"""What boto3 is best at: finding credentials and a region that neither the address nor the
environment tells.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from adsmig.credentials import AWS, ENVIRONMENT, accounts_file, check
from adsmig.errors import AdsmigError, Expired, UsageError
from adsmig.location import Credentials, Location, one_line


def credentials_for(location: Location, side: str) -> Callable[[], Credentials | None]:
    """A function giving the credentials to sign with; it refreshes those that expire.

    Those of the location; else boto3's chain: environment, shared files, container or instance
    role (boto3.amazonaws.com/v1/documentation/api/latest/guide/credentials.html).  Raises
    AdsmigError when there are none, and says how the ``side``, SRC or DST, gets some; Expired when
    they cannot be had just now.  None, so that requests go unsigned, for an anonymous user.
    """
    if location.anonymous:
        return lambda: None
    given = location.credentials
    if given:
        return lambda: given

    def chain() -> Credentials:
        try:
            found = _found(location.account)
            frozen = found and found.get_frozen_credentials()
        except AdsmigError:
            raise
        except Exception as exc:  # botocore's, of many kinds, and of what it asks
            raise Expired(
                f"cannot get the credentials for {location}: {one_line(str(exc).strip())}; see to"
                " what gives them, as by logging in anew, then resume"
            ) from exc
        if frozen is None:
            key, secret, _ = ENVIRONMENT.get(location.scheme, AWS)
            raise AdsmigError(
                f"no credentials for {location}: write ACCESS_KEY:SECRET_KEY@ into the address,"
                f" name an account with --{side.lower()}-profile, or set ADSMIG_{side}_ACCESS_KEY"
                f" and ADSMIG_{side}_SECRET_KEY, or {key} and {secret}"
            )
        keys = frozen.access_key, frozen.secret_key, frozen.token
        return _taken(location, found.method, *keys)

    return chain


@lru_cache(maxsize=4)
def _taken(location: Location, method: str, *values: str | None) -> Credentials:
    """Without the end of the line that a variable may have been read from; ``method``: botocore's
    name of where they come from, as shared-credentials-file.
    """
    access_key, secret_key, token = (value and value.rstrip("\r\n") for value in values)
    origin = f"of {method}" + (f", profile {location.account}" if location.account else "")
    given = Credentials(access_key or "", secret_key or "", token, origin=origin)
    check(given, str(location))
    return given


def default_region(location: Location) -> str:
    """That of the environment; of boto3's configuration, if credentials come from there, too; or
    ``us-east-1``, from where the service sends on to the right one.
    """
    named = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if not (named or location.credentials):
        named = _session(location.account).region_name
    region = (named or "us-east-1").strip()
    if not re.fullmatch("[!-~]+", region):
        raise UsageError(
            f"the region {region!r} of the environment or of AWS's files: correct it there, or name"
            " another with --src-region, --dst-region"
        )
    return region


def check_account(location: Location) -> None:
    """Raises AdsmigError for an account of which there are no credentials anywhere."""
    if location.account and not location.credentials:
        _session(location.account)


@lru_cache(maxsize=4)
def _session(account: str) -> Any:
    import boto3  # late: it takes longer to import than a small job to run
    from botocore.exceptions import ProfileNotFound

    try:
        return boto3.Session(profile_name=account or None)
    except ProfileNotFound as exc:
        raise AdsmigError(
            f"no profile {account}: neither a section [{account}] in {accounts_file()}, nor in"
            " the shared files of AWS"
        ) from exc


@lru_cache(maxsize=4)
def _found(account: str) -> Any:
    return _session(account).get_credentials()
