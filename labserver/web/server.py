"""The HTTP server of the page that looks on at a lab: on 127.0.0.1, for who has its token.

It runs on the network's own loop, between the mail servers. What reads a message, a log or a whole
session is done in a process of its own (`child.py`); the rows of the list of sessions are made in
a thread, slice by slice.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import time
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from html import escape
from importlib.resources import files
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import quote
from weakref import WeakSet

from aiohttp import web

from labserver.faulting import FAULTS, is_on, switch
from labserver.lab import Lab, LabError
from labserver.logs import MOST_CHARACTERS
from labserver.message import Message
from labserver.network import NetworkError
from labserver.network.loopback import HOST, LoopbackNetwork
from labserver.network.recorder import Recorder
from labserver.store import MessageRow, NoSuchMailbox, NoSuchMessage, StoreError
from labserver.transcript import Session
from labserver.views import palette
from labserver.views.view import SHEETS, sheet
from labserver.web import reading
from labserver.web.child import Child, Unread
from labserver.web.connection import HEADERS, accepted
from labserver.web.entrance import Entrance
from labserver.web.mail import HEAD_OCTETS, WHERE, Head
from labserver.web.sessions import OUTCOMES, VIEWS, Filter, Row, row

T = TypeVar("T")
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_PAGE = 200
"""Sessions, or messages, given at once."""
_SLICE = 50
"""Of either, worked on before the servers have their turn again."""
_SEARCH_SECONDS = 2.0
"""A search that takes longer gives what it has found and says how far it came."""
_TICK_SECONDS = 0.25
"""What happens in between is told together."""
_MOST_NEWS = 2000
"""New sessions in one tick; where there are more, the newest page is given anew."""
_MOST_STREAMS = 20
_MOST_ACCOUNTS = 200
_LONGEST_TEXT = 200
_BODY_OCTETS = 4 * MOST_CHARACTERS + 1024
_TOKEN_OCTETS = 200
_ASKED_OCTETS = 4096
_BODY_SECONDS = 10.0
_AGAIN_SECONDS = 5.0
"""From one fresh address that is printed to the next."""

_STATIC = {
    "/page.css": "text/css",
    "/page.js": "text/javascript",
    "/icon.svg": "image/svg+xml",
}
_OPEN = {"/", "/views.css", *_STATIC}
"""They are the same for every lab, and tell nothing of this one."""
_SIGNED = {
    *("/api/news", "/api/session.json"),
    *("/api/message/rendered", "/api/message/part", "/api/message/raw"),
}
"""What a browser fetches without being able to send the secret along."""
_POLICY = (
    # A style attribute is all that a view needs beyond the page's own files.
    "default-src 'none'; script-src 'self'; style-src 'self'; style-src-attr 'unsafe-inline'; "
    "connect-src 'self'; frame-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_SANDBOX = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'"
)
"""For the HTML of a message: it is styled, and does and fetches nothing."""

_FAULTS = {fault.name: fault for fault in FAULTS}

log = logging.getLogger("labserver")


class _Refused(Exception):
    """A request that gets an error; the text is one sentence for people."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


_CLOSED = "Open the address that the lab printed, with its token."
_UNREAD_MESSAGE = "This message {why}; download it instead."


@contextlib.contextmanager
def _unread_as(sentence: str) -> Iterator[None]:
    """What the child could not read is refused with that sentence."""
    try:
        yield
    except Unread as unread:
        raise _Refused(422, sentence.format(why=unread)) from unread


class Page:
    """The page of a lab, being served."""

    def __init__(self, address: str, entrance: Entrance, close: Callable[[], None]) -> None:
        self._address, self._entrance, self._close = address, entrance, close

    @property
    def url(self) -> str:
        """Lets in the browser that opens it. It works once; asked again, this is another one."""
        return f"{self._address}#token={self._entrance.token}"

    def close(self) -> None:
        """Serve it no longer. May be called again; closing the lab does it as well."""
        self._close()

    def __repr__(self) -> str:
        return f"<Page at {self._address}>"


def serve(lab: Lab, port: int = 0, again: Callable[[str], object] | None = None) -> Page:
    """Serve the page that looks on at this lab, until one of both is closed.

    `port` 0 means any that is free. `again` is called with a fresh address when one that has been
    used is opened once more; it is to show it to the lab's owner, and nobody else. Raises
    `LabError` where the lab is closed or its network has no sockets, `NetworkError` where the port
    can't be had.
    """
    network = lab.network
    if not isinstance(network, LoopbackNetwork):
        raise LabError("The page needs sockets: make the lab with LoopbackNetwork().")
    server = _Server(lab, network, again)
    runner = web.AppRunner(server.application(), access_log=None, handler_cancellation=True)
    network.complete(runner.setup)
    http = runner.server
    assert http is not None
    listener = network.serve("the page", lambda: accepted(http), port)
    server.names = {f"{name}:{listener.address.port}" for name in (HOST, "localhost")}

    def stop() -> None:
        listener.close()
        server.stop()
        for connection in http.connections:
            connection.force_close()

    def close() -> None:
        try:
            network.run(stop)
        except NetworkError:
            server.stop()  # the network is closed, and with it all that listened there

    lab.closes_with(close)
    server.address = f"http://{HOST}:{listener.address.port}/"
    return Page(server.address, server.entrance, close)


class _Server:
    """Answers requests. It must not hold the lab, which could not be forgotten then."""

    def __init__(
        self, lab: Lab, network: LoopbackNetwork, again: Callable[[str], object] | None
    ) -> None:
        self.names: set[str] = set()
        """What the Host field may say: another name would be somebody else's page."""
        self.address = ""
        self.entrance = Entrance()
        self._again = again
        self._next_again = 0.0
        """When it may be called, by the loop's clock."""
        self._looked_at = weakref.ref(lab)
        self._store, self._journal = lab.store, lab.journal
        self._hostname, self._listeners = lab.hostname, dict(lab.listeners)
        self._accounts = list(lab.accounts)
        self._rows: dict[int, tuple[Session, Row]] = {}
        self._most_rows = 2 * lab.limits.sessions
        self._worker = ThreadPoolExecutor(1, "labserver-page")
        self._asker = ThreadPoolExecutor(1, "labserver-page-child")
        self._child = Child("labserver.web.reading")
        self._over = asyncio.Event()
        self._streams: set[asyncio.Event] = set()
        """What wakes each of those who wait for news."""

    def application(self) -> web.Application:
        """What aiohttp runs."""
        application = web.Application(middlewares=[self._guarded])
        application.on_response_prepare.append(_headed)
        get: dict[str, _Handler] = {
            "/": self._page,
            "/views.css": self._view_styles,
            **dict.fromkeys(_STATIC, self._static),
            "/api/lab": self._lab,
            "/api/news": self._news,
            "/api/sessions": self._older,
            "/api/session": self._session,
            "/api/session.json": self._session_file,
            "/api/compare": self._compare,
            "/api/faults": self._faults,
            "/api/accounts": self._addresses,
            "/api/messages": self._messages,
            "/api/message": self._message,
            "/api/message/rendered": self._rendered,
            "/api/message/part": self._part,
            "/api/message/raw": self._raw,
        }
        application.add_routes([web.get(path, handler) for path, handler in get.items()])
        application.add_routes(
            [
                web.post("/api/enter", self._enter),
                web.post("/api/signed", self._sign),
                web.post("/api/log", self._log),
                web.post("/api/faults", self._switch),
            ]
        )
        return application

    def stop(self) -> None:
        """Let those go who wait for news."""
        self._over.set()
        for news in self._streams:
            news.set()
        for threads in (self._worker, self._asker):
            threads.shutdown(wait=False, cancel_futures=True)
        self._child.close()

    async def _work(self, function: Callable[..., T], *arguments: Any) -> T:
        """Have it done in the worker thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._worker, function, *arguments)

    async def _read(self, function: Callable[..., T], *arguments: Any) -> T:
        """Have it done in the child. Raises `Unread` where that takes too much."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._asker, self._child.ask, function, *arguments)

    # -- who may ask

    @web.middleware
    async def _guarded(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        try:
            self._admit(request)
            return await handler(request)
        except _Refused as refused:
            return _error(request, refused.status, str(refused))
        except web.HTTPException as error:
            return _error(
                request, error.status, f"{error.reason}: {request.method} {request.path}."
            )
        except (NoSuchMailbox, NoSuchMessage) as error:
            return _error(request, 404, str(error))
        except StoreError as error:
            return _error(request, 503, str(error))
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception:  # the page has to say something, and the log holds the reason
            log.exception("The page could not be told %s", request.path)
            return _error(request, 500, "That failed; the lab's log says why.")

    def _admit(self, request: web.Request) -> None:
        """Raise unless this comes from the page itself, or from who was given its address."""
        if request.headers.get("Host", "") not in self.names:
            raise _Refused(403, "This page is only served at 127.0.0.1 and localhost.")
        if request.path == "/":
            return
        # Pages on other ports of this machine are of the same site.
        origin = request.headers.get("Origin", f"http://{request.headers['Host']}")
        site = request.headers.get("Sec-Fetch-Site", "none")
        if origin.removeprefix("http://") not in self.names or site not in ("same-origin", "none"):
            raise _Refused(403, "Only the lab's own page may ask for this.")
        if request.path in _OPEN or (request.path, request.method) == ("/api/enter", "POST"):
            return
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.entrance.knows(given.strip()):
            return
        signable = request.path in _SIGNED and request.method == "GET"
        if not (signable and self.entrance.is_signed(request.raw_path)):
            raise _Refused(403, _CLOSED)

    async def _enter(self, request: web.Request) -> web.StreamResponse:
        """A token becomes the secret."""
        token = (await self._body(request, _TOKEN_OCTETS)).decode("utf-8", "replace")
        secret = self.entrance.exchange(token)
        if secret is not None:
            self._asker.submit(self._child.ask, abs, 0)  # it has started when it is needed
            return _json({"secret": secret})
        if not self.entrance.was_used(token):
            raise _Refused(403, _CLOSED)
        remedy = "ask the page's `url` for a fresh one"
        if self._again is not None:
            remedy = "the lab has printed a fresh one where it runs"
            now = asyncio.get_running_loop().time()
            if now >= self._next_again:
                self._next_again = now + _AGAIN_SECONDS
                self._again(f"{self.address}#token={self.entrance.token}")
        raise _Refused(403, f"This address has been used, and each works once; {remedy}.")

    async def _sign(self, request: web.Request) -> web.StreamResponse:
        path = (await self._body(request, _ASKED_OCTETS)).decode("utf-8", "replace")
        if path.partition("?")[0] not in _SIGNED or "?" not in path:
            raise _Refused(400, f"Only these can be signed: {', '.join(sorted(_SIGNED))}.")
        return _json({"address": self.entrance.signed(path)})

    async def _body(self, request: web.Request, most: int = _BODY_OCTETS) -> bytes:
        octets = bytearray()
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                async for piece in request.content.iter_any():
                    octets += piece
                    if len(octets) > most:
                        raise _Refused(413, f"At most {most:,} octets can be read here.")
                return bytes(octets)
        except TimeoutError:
            raise _Refused(408, "What was to be read did not come.") from None
        except web.RequestPayloadError:
            raise _Refused(400, "What was to be read came in pieces that don't fit.") from None

    # -- the page

    async def _page(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text=_file("page.html"), content_type="text/html")

    async def _static(self, request: web.Request) -> web.StreamResponse:
        return web.Response(
            text=_file(request.path[1:]), content_type=_STATIC[request.path], charset="utf-8"
        )

    async def _view_styles(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text=_view_styles(), content_type="text/css")

    async def _lab(self, request: web.Request) -> web.StreamResponse:
        return _json(
            {
                "name": self._hostname,
                "listeners": [[name, place.port] for name, place in self._listeners.items()],
                "outcomes": OUTCOMES,
            }
        )

    # -- sessions

    async def _news(self, request: web.Request) -> web.StreamResponse:
        """The newest sessions, then what becomes of them and of new ones, some together."""
        if len(self._streams) >= _MOST_STREAMS:
            raise _Refused(503, f"{_MOST_STREAMS} pages look on already; close one of them.")
        wanted = _filter(request)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):  # who looked on has gone
            async with contextlib.aclosing(self._events(wanted)) as events:
                async for event in events:
                    await response.write(f"data: {_dumped(event)}\n\n".encode())
        return response

    async def _events(self, wanted: Filter) -> AsyncGenerator[dict[str, Any], None]:
        # What the lab no longer keeps falls out by itself, so that it can't grow without bound.
        heard = WeakSet(one for one in self._journal.recorders if not one.ended)
        news = asyncio.Event()
        news.set()

        def hear(recorder: Recorder) -> None:
            heard.add(recorder)
            news.set()

        stop = self._journal.listen(hear)
        self._streams.add(news)
        try:
            newest = self._newest()
            yield {"page": await self._some(wanted, newest + 1)}
            while await self._happened(news):
                recorders, before = sorted(heard, key=lambda one: one.number), newest
                heard.clear()
                newest = self._newest()
                if sum(one.number > before for one in recorders) > _MOST_NEWS:
                    yield {"page": await self._some(wanted, newest + 1)}
                    recorders = [one for one in recorders if one.number <= before]
                looked = [self._journal.session(one.number) for one in recorders]
                if sessions := [session for session in looked if session is not None]:
                    taken, others = await self._work(self._judged, wanted, sessions)
                    rows = [one.values() for one in taken]
                    yield {"rows": rows, "gone": others, **self._numbers()}
        finally:
            stop()
            self._streams.discard(news)

    async def _happened(self, news: asyncio.Event) -> bool:
        """Wait until something has, and a moment for more; whether the lab goes on."""
        await news.wait()
        news.clear()
        try:
            async with asyncio.timeout(_TICK_SECONDS):
                await self._over.wait()
        except TimeoutError:
            return True
        return False

    def _newest(self) -> int:
        return next((session.number for session in self._journal.newest()), 0)

    def _numbers(self) -> dict[str, int]:
        return {"kept": self._journal.kept, "total": self._newest()}

    async def _older(self, request: web.Request) -> web.StreamResponse:
        return _json(await self._some(_filter(request), _number(request, "below")))

    async def _some(self, wanted: Filter, below: int) -> dict[str, Any]:
        """As many sessions as are given at once, newest first, and from where to go on."""
        rows: list[Row] = []
        until = time.monotonic() + _SEARCH_SECONDS
        while len(rows) < _PAGE and time.monotonic() < until:
            sessions = list(islice(self._journal.newest(below=below), _SLICE))
            if not sessions:
                below = 0
                break
            rows += (await self._work(self._judged, wanted, sessions))[0]
            below = sessions[-1].number
        return {"rows": [one.values() for one in rows], "below": below, **self._numbers()}

    def _judged(self, wanted: Filter, sessions: Sequence[Session]) -> tuple[list[Row], list[int]]:
        """The rows of those that are wanted, the numbers of the others. In the worker thread."""
        taken = [session for session in sessions if wanted.takes(session, self._row)]
        numbers = {session.number for session in taken}
        others = [session.number for session in sessions if session.number not in numbers]
        return [self._row(session) for session in taken], others

    def _row(self, session: Session) -> Row:
        known = self._rows.get(session.number)
        if known is None or known[0] is not session:
            if len(self._rows) > self._most_rows:
                self._rows.clear()
            known = self._rows[session.number] = (session, row(session))
        return known[1]

    async def _session(self, request: web.Request) -> web.StreamResponse:
        session, view = self._kept(request, "number"), request.query.get("view", "dialogue")
        if view not in VIEWS:
            raise _Refused(400, f"There is no such view; there are {', '.join(VIEWS)}.")
        with _unread_as("This view of the session {why}; choose another one, or download it."):
            return _json({"html": await self._read(reading.session, session, view)})

    async def _session_file(self, request: web.Request) -> web.StreamResponse:
        session = self._kept(request, "number")
        with _unread_as("This session {why}; the lab's own `sessions` still has it."):
            text = await self._read(reading.session_file, session)
        name = f"session-{session.number}-{session.protocol.lower()}.json"
        return _download(name, text.encode(), "application/json")

    async def _compare(self, request: web.Request) -> web.StreamResponse:
        a, b = self._kept(request, "a"), self._kept(request, "b")
        with _unread_as("The two together {why}; look at each of them."):
            return _json({"html": await self._read(reading.compared, a, b)})

    def _kept(self, request: web.Request, name: str) -> Session:
        number = _number(request, name)
        session = self._journal.session(number)
        if session is None:
            raise _Refused(404, f"Session {number} isn't kept; the lab keeps only the latest.")
        return session

    async def _log(self, request: web.Request) -> web.StreamResponse:
        text = (await self._body(request)).decode("utf-8", "replace")
        try:
            with _unread_as("This log {why}; paste only the lines that matter."):
                return _json({"html": await self._read(reading.log, text)})
        except ValueError as error:
            raise _Refused(400, str(error)) from error

    # -- faults

    async def _faults(self, request: web.Request) -> web.StreamResponse:
        return _json(_switches(self._lab_itself()))

    async def _switch(self, request: web.Request) -> web.StreamResponse:
        lab = self._lab_itself()
        try:
            wanted = json.loads(await self._body(request, _ASKED_OCTETS))
            fault = _FAULTS[wanted["name"]]
            switch(lab, fault, wanted["on"] is True)
        except (ValueError, LookupError, TypeError):
            raise _Refused(400, f"Switch one of these on or off: {'; '.join(_FAULTS)}.") from None
        return _json(_switches(lab))

    def _lab_itself(self) -> Lab:
        lab = self._looked_at()
        if lab is None:
            raise _Refused(503, "The lab is gone.")
        return lab

    # -- mail

    async def _addresses(self, request: web.Request) -> web.StreamResponse:
        text = _text(request).casefold()
        known = dict.fromkeys([*map(str.casefold, self._accounts), *self._store.accounts()])
        fitting = [address for address in known if text in address]
        found = []
        for address in fitting[:_MOST_ACCOUNTS]:
            mailboxes = {"INBOX": 0}
            for one in self._store.mailboxes(address):
                mailboxes[one.name] = self._store.counts(one.id).messages
            found.append({"address": address, "mailboxes": list(mailboxes.items())})
            await asyncio.sleep(0)
        return _json({"accounts": found, "more": max(0, len(fitting) - _MOST_ACCOUNTS)})

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        mailbox = self._store.mailbox(request.query.get("account", ""), _name(request))
        text, where = _text(request), request.query.get("where", WHERE[0])
        if where not in WHERE:
            raise _Refused(400, f"A text can be looked for in: {', '.join(WHERE)}.")
        below = _number(request, "below") if "below" in request.query else None
        until = time.monotonic() + _SEARCH_SECONDS
        found: list[dict[str, Any]] = []
        searched = 0
        while len(found) < _PAGE and time.monotonic() < until:
            rows = self._store.newest(mailbox.id, _SLICE, below)
            if not rows:
                below = 0
                break
            heads = [await self._head(one) for one in rows]
            found += await self._rows_of(heads, text, where)
            below, searched = rows[-1].uid, searched + len(rows)
        number = self._store.counts(mailbox.id).messages
        return _json({"messages": found, "below": below, "searched": searched, "of": number})

    async def _head(self, row: MessageRow) -> Head:
        """What the list reads of a message: its beginning, or where its header is longer than
        that, what is looked for in all of it."""
        head = Head(row, self._store.beginning(row.content, HEAD_OCTETS))
        if head.is_whole:
            return head
        try:
            return await self._read(reading.head, row, self._store.octets(row.content))
        except (Unread, StoreError):
            return head

    async def _rows_of(self, heads: Sequence[Head], text: str, where: str) -> list[dict[str, Any]]:
        """The rows of those in which the text stands; one that can't be read hides no other."""
        try:
            return await self._read(reading.rows, heads, text, where)
        except Unread as unread:
            if len(heads) == 1:
                return [heads[0].unread(f"(this header {unread})")]
        half = len(heads) // 2
        first = await self._rows_of(heads[:half], text, where)
        return first + await self._rows_of(heads[half:], text, where)

    async def _message(self, request: web.Request) -> web.StreamResponse:
        message = self._stored(request)
        with _unread_as(_UNREAD_MESSAGE):
            return _json(await self._read(reading.message, message))

    async def _rendered(self, request: web.Request) -> web.StreamResponse:
        message = self._stored(request)
        try:
            html = await self._read(reading.rendered, message)
        except Unread as unread:
            html = f"<!doctype html><p>{escape(_UNREAD_MESSAGE.format(why=unread))}</p>"
        return web.Response(
            body=html.encode("utf-8", "replace"),
            headers={"Content-Security-Policy": _SANDBOX},
            content_type="text/html",
            charset="utf-8",
        )

    async def _part(self, request: web.Request) -> web.StreamResponse:
        message, number = self._stored(request), _number(request, "part")
        try:
            with _unread_as(_UNREAD_MESSAGE):
                name, octets = await self._read(reading.part, message, number)
        except IndexError:
            raise _Refused(404, f"This message has no part {number}.") from None
        return _download(name, octets)

    async def _raw(self, request: web.Request) -> web.StreamResponse:
        message = self._stored(request)
        return _download(f"message-{message.uid}.eml", message.octets)

    def _stored(self, request: web.Request) -> Message:
        mailbox = self._store.mailbox(request.query.get("account", ""), _name(request))
        uid = _number(request, "uid")
        one = self._store.message(mailbox.id, uid)
        if one is None:
            raise NoSuchMessage("That message has been removed.")
        octets, envelope = self._store.octets(one.content), self._store.envelope(one.content)
        return Message(octets, one.uid, one.received, one.flags, envelope)


def _switches(lab: Lab) -> dict[str, Any]:
    """Which faults are on, and all rules in force, for JSON."""
    return {
        "switches": [
            {
                "name": fault.name,
                "meaning": fault.meaning,
                "rule": repr(fault.rule),
                "on": is_on(lab, fault),
            }
            for fault in FAULTS
        ],
        "rules": [repr(rule) for rule in lab.rules],
    }


# -- what is asked for


def _filter(request: web.Request) -> Filter:
    query = request.query
    return Filter(query.get("protocol", ""), query.get("outcome", ""), _text(request))


def _text(request: web.Request) -> str:
    text = request.query.get("text", "").strip()
    if len(text) > _LONGEST_TEXT:
        raise _Refused(400, f"Look for a text of at most {_LONGEST_TEXT} characters.")
    return text


def _name(request: web.Request) -> str:
    return request.query.get("mailbox", "INBOX")


def _number(request: web.Request, name: str) -> int:
    value = request.query.get(name, "")
    if not re.fullmatch(r"[0-9]{1,15}", value):
        raise _Refused(400, f"{name} must be a whole number.")
    return int(value)


# -- what is answered


async def _headed(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Every answer tells the browser how little it may do with it."""
    response.headers.update(HEADERS)
    response.headers.setdefault("Content-Security-Policy", _POLICY)


def _json(values: Mapping[str, Any]) -> web.Response:
    return web.Response(text=_dumped(values), content_type="application/json")


def _dumped(values: object) -> str:
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"))


def _error(request: web.Request, status: int, sentence: str) -> web.Response:
    if request.path.startswith("/api/"):
        return web.json_response({"error": sentence}, status=status)
    return web.Response(text=sentence, status=status)


def _download(name: str, octets: bytes, kind: str = "application/octet-stream") -> web.Response:
    saved = f"attachment; filename*=UTF-8''{quote(name, safe='')}"
    return web.Response(body=octets, content_type=kind, headers={"Content-Disposition": saved})


@cache
def _file(name: str) -> str:
    return files("labserver.web").joinpath(name).read_text(encoding="utf-8")


@cache
def _view_styles() -> str:
    """The palette, and the style sheets of all views."""
    return "\n".join((palette.css(), *map(sheet, SHEETS)))
