"""The connections of the page's HTTP server: how many, how long, and what isn't HTTP."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from aiohttp import web
from aiohttp.http import HttpProcessingError

MOST = 64
"""Open at once. A browser needs seven for a page; whoever holds more would take them from mail."""
HEADER_SECONDS = 10.0
"""For a request's header, and for the next request on the same connection."""

HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "labserver",
    "X-Content-Type-Options": "nosniff",
    "X-DNS-Prefetch-Control": "off",
}
"""Every answer tells the browser how little it may do with it."""

_FULL = f"{MOST} connections to this page are open already; close some of its tabs."
_NO_HTTP = "This is no HTTP request that this page can read."

log = logging.getLogger("labserver")


def accepted(http: web.Server) -> asyncio.BaseProtocol:
    """What speaks on a new connection."""
    if len(http.connections) >= MOST:
        return _Full()
    return _Connection(
        http,
        loop=asyncio.get_running_loop(),
        access_log=None,  # type: ignore[arg-type]
        auto_decompress=False,
        keepalive_timeout=HEADER_SECONDS,
        lingering_time=0.0,  # what wasn't read of a request that was refused never is
    )


class _Connection(web.RequestHandler):
    """Answers what isn't HTTP with a sentence, and says nothing of it on the terminal."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if status == 500:
            log.error("The page could not be told %s", request.path, exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("half an answer can't become another one")
        answer = web.Response(status=status, text=_NO_HTTP if status == 400 else "That failed.")
        answer.headers.update(HEADERS)
        answer.force_close()
        return answer

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        if isinstance(resp, web.HTTPExpectationFailed):
            resp.text = _NO_HTTP  # aiohttp's own sentence quotes the request
        return await super().finish_response(request, resp, start_time)

    def log_exception(self, *arguments: Any, **options: Any) -> None:
        if not isinstance(options.get("exc_info"), HttpProcessingError | web.RequestPayloadError):
            log.error(*arguments, **options)


class _Full(asyncio.Protocol):
    """Says that there are too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        head = f"HTTP/1.1 503 Service Unavailable\r\nContent-Length: {len(_FULL)}\r\n"
        head += "Connection: close\r\nContent-Type: text/plain\r\n\r\n"
        transport.write(f"{head}{_FULL}".encode())
        transport.close()
