"""How the POP3 and the IMAP server read what a client says, line by line."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


class Reader(asyncio.StreamReader):
    """What the client sends; tells at once when it will send no more.

    A line longer than `limit` octets is refused.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.ended = asyncio.Event()
        """The client will say nothing more."""
        self._taker: Callable[[bytes], bool] | None = None
        self._time = asyncio.get_running_loop().time
        self._seconds = 0.0
        self._silent_until = 0.0

    def feed_data(self, data: Any) -> None:
        # asyncio has no public way to ask whether all that came has been read.
        if self._taker is not None and not self._buffer:  # type: ignore[attr-defined]
            if data.find(b"\n") + 1 == len(data) and self._taker(data):
                self._silent_until = self._time() + self._seconds
                return
            self._taker = None
        super().feed_data(data)

    def feed_eof(self) -> None:
        super().feed_eof()
        self.ended.set()

    def set_exception(self, exc: Exception) -> None:
        super().set_exception(exc)
        self.ended.set()

    def forget(self) -> None:
        """Throw away what has come and wasn't read."""
        # asyncio has no public way to do this.
        self._buffer.clear()  # type: ignore[attr-defined]
        self._maybe_resume_transport()  # type: ignore[attr-defined]

    async def line(self, seconds: float, taker: Callable[[bytes], bool] | None = None) -> bytes:
        """The next line, its end included.

        While it is waited for, a whole line is offered to the `taker`, which may obey it at once
        and so take it away: to wake the waiting task costs as much as most commands do.

        Raises `TimeoutError` where nothing came for that many seconds, `LimitOverrunError` where
        the line is too long, `IncompleteReadError` at the end, `OSError` where the connection is
        broken.
        """
        self._seconds, self._silent_until = seconds, self._time() + seconds
        self._taker = None if self._buffer else taker  # type: ignore[attr-defined]
        try:
            while True:
                try:
                    async with asyncio.timeout_at(self._silent_until):
                        return await self.readuntil(b"\n")
                except TimeoutError:
                    if self._time() >= self._silent_until:
                        raise
                    # Meanwhile the client said what was taken away.
        finally:
            self._taker = None
