"""Plays a dialogue with a lab, so that a protocol test reads like what it checks.

    play(lab, "smtp", '''
        S: 220 lab.example ...
        C: NOOP
        S: 250 2.0.0 OK
        -- client closes
    ''')

`C:` sends a line with CRLF, `C!` sends octets as written (with escapes such as \\r\\n), `S:`
expects a line, `...` standing for anything. `-- TLS` does the handshake, `-- client closes` and
`-- server closes` end it. Listeners with TLS from the first octet begin with the handshake.
"""

from __future__ import annotations

import re
from typing import Any

from labserver import Lab, Session
from labserver.listeners import TABLE


class Client:
    """A blocking client that speaks in lines."""

    def __init__(self, lab: Lab, listener: str) -> None:
        self._lab = lab
        self._sock: Any = lab.network.connect(lab.address(listener), timeout=10)
        if TABLE[listener].implicit:
            self.start_tls()
        else:
            self._file = self._sock.makefile("rb")

    def start_tls(self) -> None:
        self._sock = self._lab.tls.wrap_socket(self._sock, server_hostname="localhost")
        self._file = self._sock.makefile("rb")

    def send(self, octets: bytes) -> None:
        self._sock.sendall(octets)

    def line(self) -> bytes:
        """The next line without its CRLF; empty at the end of the connection."""
        try:
            line: bytes = self._file.readline()
        except ConnectionError:
            return b""
        return line

    def close(self) -> None:
        self._file.close()
        self._sock.close()


def play(lab: Lab, listener: str, script: str) -> Session:
    """Play the script; the session as the lab saw it."""
    client = Client(lab, listener)
    try:
        for row in filter(None, map(str.strip, script.splitlines())):
            _step(client, row)
    finally:
        client.close()
    return lab.sessions[-1]


def _step(client: Client, row: str) -> None:
    mark, _, text = row.partition(" ")
    if mark == "C:":
        client.send(text.encode() + b"\r\n")
    elif mark == "C!":
        client.send(text.encode("latin-1").decode("unicode_escape").encode("latin-1"))
    elif mark == "S:":
        heard = client.line()
        pattern = ".*".join(map(re.escape, text.split("...")))
        shown = heard.decode("utf-8", "backslashreplace")
        assert heard.endswith(b"\r\n"), f"expected {text!r}, the connection ended with {shown!r}"
        assert re.fullmatch(pattern, shown[:-2]), f"expected {text!r}, heard {shown!r}"
    elif row == "-- TLS":
        client.start_tls()
    elif row == "-- server closes":
        heard = client.line()
        assert heard == b"", f"expected the end, heard {heard!r}"
    elif row == "-- client closes":
        client.close()
    else:
        raise AssertionError(f"not a step of a dialogue: {row}")


def said(session: Session) -> str:
    """Commands by their verbs and replies by their codes, to compare a dialogue with another."""
    rows = []
    for line, shown in zip(session.lines, session.texts("normal"), strict=True):
        if line.kind in ("command", "reply"):
            word = re.split(r"[ :]", shown, maxsplit=1)[0]
            rows.append(f"{line.who}: {word}")
    return "\n".join(rows)
