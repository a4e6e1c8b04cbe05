"""The lab's own certificate authority, and the two ends' TLS contexts made from it.

The authority's private key is forgotten as soon as it has signed the lab's one certificate,
which is good for this machine only. Trusting the authority therefore trusts nothing else.
"""

from __future__ import annotations

import importlib.util
import ssl
import sys
from dataclasses import dataclass
from pathlib import Path


def available() -> bool:
    """Whether this Python can do TLS (in a browser it can't)."""
    # Pyodide's `ssl` has all the names and does nothing.
    return sys.platform != "emscripten" and importlib.util.find_spec("trustme") is not None


@dataclass(frozen=True, slots=True)
class Tls:
    """What a lab needs for TLS."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    """Trusts the lab's authority and nobody else."""
    ca: Path
    """The authority's certificate, PEM."""


def certificates(folder: Path, hostname: str) -> Tls:
    """The certificates in `folder`, made there when they are missing.

    They name `localhost`, 127.0.0.1 and `hostname`. Raises `OSError` where the folder can't be
    written.
    """
    ca, chain = folder / "ca.pem", folder / "server.pem"
    if not (ca.exists() and chain.exists()):
        _make(ca, chain, hostname)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        server.load_cert_chain(chain)
        client = ssl.create_default_context(cafile=str(ca))
    except ssl.SSLError:
        # A damaged pair is worth nothing to anybody; a new one is.
        _make(ca, chain, hostname)
        server.load_cert_chain(chain)
        client = ssl.create_default_context(cafile=str(ca))
    return Tls(server, client, ca)


def _make(ca: Path, chain: Path, hostname: str) -> None:
    # Imported here: it is 100 ms that a lab with certificates at hand doesn't need.
    import trustme

    authority = trustme.CA(organization_name="Mail Lab", organization_unit_name="this machine")
    # fetchmail wants a common name.
    leaf = authority.issue_cert("localhost", "127.0.0.1", hostname, common_name="localhost")
    chain.touch(mode=0o600)
    chain.write_bytes(
        leaf.private_key_pem.bytes() + b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
    )
    ca.write_bytes(authority.cert_pem.bytes())
