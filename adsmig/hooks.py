"""What is called when a scheduled run has failed: a command, and a webhook.

Whatever goes wrong here is logged, and nothing else: the run is over.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

log = logging.getLogger(__name__)

TRIES = 3
PAUSE_S = 2.0
TIMEOUT_S = 10.0


def run_command(command: str, variables: Mapping[str, str]) -> None:
    """Has the shell run ``command``, with the variables added to its environment, to its end."""
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            stdin=subprocess.DEVNULL,
            env={**os.environ, **variables},
            check=False,
        )
    except (OSError, ValueError) as exc:
        log.error("the command of --on-failure cannot be run: %s", exc)
        return
    if done.returncode:
        log.error("the command of --on-failure ended with %d", done.returncode)


def post(url: str, body: Mapping[str, object]) -> None:
    """Sends ``body`` as JSON, a few times if need be.

    A 4xx answer is final, but for 408 and 429.  Of the URL only its host is ever logged: with many
    services the rest is the secret that lets one in.
    """
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    data = json.dumps(body).encode()
    headers = {"Content-Type": "application/json", "User-Agent": "adsmig"}
    where = urlsplit(url).hostname
    for left in reversed(range(TRIES)):
        final = False
        try:
            with urlopen(Request(url, data, headers), timeout=TIMEOUT_S):
                return
        except HTTPError as exc:
            exc.close()
            trouble = f"HTTP {exc.code}"
            final = 400 <= exc.code < 500 and exc.code not in (408, 429)
        except Exception as exc:  # urllib lets many kinds of it through, http.client's too
            trouble = type(exc).__name__ if url in str(exc) else str(exc)
        if final or not left:
            log.error("the webhook at %s was not told: %s", where, trouble)
            return
        time.sleep(PAUSE_S)
