"""The lab's own certificate authority, and the two ends' TLS contexts made from it.

The authority's private key is forgotten as soon as it has signed the lab's one certificate,
which is good for this machine only. Trusting the authority therefore trusts nothing else.
"""

from __future__ import annotations

import importlib.util
import ssl
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labserver import folder as files

_AUTHORITY = ("Mail Lab", "this machine")
"""Organization and unit of the lab's authority, by which its certificates are known again."""


class _NotOurs(Exception):
    """Certificates that the lab has not made, or that can't be trusted; the text says why."""


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
    notice: str = ""
    """One sentence on what was set aside; empty where nothing was."""


def certificates(folder: Path, hostname: str) -> Tls:
    """The certificates in `folder`, made there when they are missing.

    They name `localhost`, 127.0.0.1 and `hostname`. What stands in their place and isn't a pair
    that a lab has made, or has a key that others can read, is renamed; `notice` then says so.
    Raises `OSError` where the folder can't be written.
    """
    ca, chain = folder / "ca.pem", folder / "server.pem"
    notice = ""
    try:
        if files.exists(ca) or files.exists(chain):
            return _pair(ca, chain, hostname)
    except _NotOurs as why:
        names = " and ".join(files.set_aside((ca, chain), "aside"))
        notice = (
            f"The certificates ca.pem and server.pem in {folder} can't be used ({why}); "
            f"kept as {names}, they make room for new ones."
        )
    _make(ca, chain, hostname)
    server, client = _contexts(ca, chain)
    return Tls(server, client, ca, notice)


def _pair(ca: Path, chain: Path, hostname: str) -> Tls:
    """The pair that is there. Raises `_NotOurs`."""
    for path in (ca, chain):
        if not files.exists(path):
            raise _NotOurs(f"{path.name} is missing")
        if odd := files.oddity(path):
            raise _NotOurs(f"{path.name}: {odd}")
    if files.others_may(ca, write=True) or files.others_may(chain):
        raise _NotOurs("they are open to other users of this machine")
    try:
        server, client = _contexts(ca, chain)
    except (OSError, ValueError) as error:  # `ssl.SSLError` is an `OSError`
        raise _NotOurs("OpenSSL can't read them") from error
    if [_name(authority) for authority in client.get_ca_certs()] != [_AUTHORITY]:
        raise _NotOurs("the lab didn't make them")
    try:
        _shake_hands(server, client, "localhost")
    except ssl.SSLError as error:
        raise _NotOurs("they don't belong together, or are out of date") from error
    try:
        _shake_hands(server, client, hostname)
    except ssl.SSLError as error:
        raise _NotOurs(f"they don't name {hostname}") from error
    return Tls(server, client, ca)


def _contexts(ca: Path, chain: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The server's and the client's."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # Without a password OpenSSL would ask the terminal for that of an encrypted key.
    server.load_cert_chain(chain, password="")
    return server, ssl.create_default_context(cafile=str(ca))


def _name(authority: Mapping[str, Any]) -> tuple[str, str]:
    parts = dict(pair for part in authority["subject"] for pair in part)
    return parts.get("organizationName", ""), parts.get("organizationalUnitName", "")


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> None:
    """Try the two out in memory. Raises `ssl.SSLError` where the client refuses that name."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    while ends:
        for end in tuple(ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            ends.remove(end)


def _make(ca: Path, chain: Path, hostname: str) -> None:
    # Imported here: it is 100 ms that a lab with certificates at hand doesn't need.
    import trustme

    organization, unit = _AUTHORITY
    authority = trustme.CA(organization_name=organization, organization_unit_name=unit)
    # fetchmail wants a common name.
    leaf = authority.issue_cert("localhost", "127.0.0.1", hostname, common_name="localhost")
    pems = [leaf.private_key_pem.bytes(), *(pem.bytes() for pem in leaf.cert_chain_pems)]
    files.write(chain, b"".join(pems))
    files.write(ca, authority.cert_pem.bytes())
