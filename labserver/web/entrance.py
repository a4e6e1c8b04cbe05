"""Who may ask the page: tokens, the secret they are exchanged for, and signed addresses.

- A token stands in the address that the lab prints, behind `#`, which no browser sends or gives to
  another page. It works once: what a browser's history keeps of it opens nothing.
- The secret that a token is exchanged for goes with each question, as `Authorization: Bearer`.
  Unlike a cookie it never goes to another port of this machine.
- A signed address lets a browser fetch one thing where no such field can be sent: a frame, a
  download, an event stream. It works for a minute.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections import deque

SIGNED_SECONDS = 60
_MOST_USED = 1000


class Entrance:
    """Admits to one page."""

    def __init__(self) -> None:
        self.token = secrets.token_urlsafe(24)
        """The one that hasn't been used."""
        self._secret = secrets.token_urlsafe(24)
        self._key = secrets.token_bytes(32)
        self._used: deque[str] = deque(maxlen=_MOST_USED)

    def exchange(self, token: str) -> str | None:
        """The secret, for the token; from then on there is another token."""
        if not _same(token, self.token):
            return None
        self._used.append(self.token)
        self.token = secrets.token_urlsafe(24)
        return self._secret

    def was_used(self, token: str) -> bool:
        """Whether it has been exchanged before."""
        return any(_same(token, used) for used in self._used)

    def knows(self, given: str) -> bool:
        """Whether that is the secret, or the token, which a program may use as it is."""
        return _same(given, self._secret) or _same(given, self.token)

    def signed(self, path: str) -> str:
        """The path, which has a query, good for a minute without the secret."""
        until = f"{path}&until={int(time.monotonic()) + SIGNED_SECONDS}"
        return f"{until}&signature={self._signature(until)}"

    def is_signed(self, path: str) -> bool:
        """Whether it was signed here, less than a minute ago."""
        until, _, signature = path.rpartition("&signature=")
        if not _same(signature, self._signature(until)):
            return False
        return int(until.rpartition("&until=")[2]) >= time.monotonic()

    def _signature(self, path: str) -> str:
        return hmac.new(self._key, path.encode("utf-8", "replace"), "sha256").hexdigest()


def _same(given: str, wanted: str) -> bool:
    return secrets.compare_digest(given.encode("utf-8", "replace"), wanted.encode())
