"""How a server has to prove who it is."""

from __future__ import annotations

import os
import ssl

from adsmig.errors import AdsmigError


def context_for(ca_bundle: str, verify: bool) -> ssl.SSLContext:
    """What connections to a store are made with; certificate and name are checked.

    The authorities to trust are those of ``ca_bundle``, a PEM file or a directory as OpenSSL has
    them, else those of the system, or of SSL_CERT_FILE and SSL_CERT_DIR, which OpenSSL reads.  With
    ``verify`` false, anybody is believed to be the store.  Raises AdsmigError for a bundle that
    cannot be read.
    """
    directory = os.path.isdir(ca_bundle)
    try:
        context = ssl.create_default_context(
            cafile=None if directory else ca_bundle or None,
            capath=ca_bundle if directory else None,
        )
    except OSError as exc:
        reason = "it holds no certificate" if isinstance(exc, ssl.SSLError) else exc.strerror
        raise AdsmigError(
            f"cannot use the --ca-bundle {ca_bundle}: {reason}; name a PEM file of certificates"
        ) from exc
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context
