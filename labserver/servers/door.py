"""Who is let in: what all three servers ask of a client that hasn't logged in yet.

A web page can make its reader's browser send lines of the page's choosing to any port of the
reader's own machine, inside an HTTP request. A server that answers the request line and the header
with errors, and then obeys the body, lets any page read and delete mail.
"""

from __future__ import annotations

from labserver.catalog.strangers import spoken_instead

_UNKNOWN_COMMANDS = 5
"""Words that aren't commands, in one session; empty lines don't count."""


class Door:
    """One connection's beginning."""

    def __init__(self) -> None:
        self._judged = self._empty = False
        self._unknown = 0

    def stranger(self, line: bytes) -> str:
        """The protocol that the client speaks instead of mail, if its first line shows one.

        Empty lines before it don't count; later lines are never judged.
        """
        self._empty = not line.strip()
        if self._judged or self._empty:
            return ""
        self._judged = True
        return spoken_instead(line)

    def unknown(self) -> bool:
        """Count the line seen last as no command; whether it was one too many."""
        self._unknown += not self._empty
        return self._unknown >= _UNKNOWN_COMMANDS
