"""How the POP3 and the IMAP server read what a client says, line by line."""

from __future__ import annotations

import asyncio


class Reader(asyncio.StreamReader):
    """What the client sends; tells at once when it will send no more.

    A line longer than `limit` octets is refused.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.ended = asyncio.Event()
        """The client will say nothing more."""

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

    async def line(self, seconds: float) -> bytes:
        """The next line, its end included.

        Raises `TimeoutError` where nothing came for that many seconds, `LimitOverrunError` where
        the line is too long, `IncompleteReadError` at the end, `OSError` where the connection is
        broken.
        """
        async with asyncio.timeout(seconds):
            return await self.readuntil(b"\n")
