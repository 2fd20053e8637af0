"""An authority of the tests' own, for servers on loopback that speak TLS."""

from __future__ import annotations

import ssl
from functools import cache
from pathlib import Path

import trustme

__all__ = ["AUTHORITY", "CERTIFICATE", "KEY", "issue", "trusting"]

#: The files that :func:`issue` writes.
CERTIFICATE, KEY, AUTHORITY = "server.pem", "server.key", "authority.pem"


@cache
def authority() -> trustme.CA:
    return trustme.CA()


def issue(directory: Path) -> None:
    """Write a certificate for loopback, its key, and the certificate of who has signed it."""
    issued = authority().issue_cert("localhost", "127.0.0.1")
    issued.private_key_pem.write_to_path(directory / KEY)
    issued.cert_chain_pems[0].write_to_path(directory / CERTIFICATE)
    authority().cert_pem.write_to_path(directory / AUTHORITY)


@cache
def trusting() -> ssl.SSLContext:
    """Return what a client needs that trusts these certificates and no others."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority().configure_trust(context)
    return context
