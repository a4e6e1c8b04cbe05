"""The HTTP server of the page that looks on at a lab: on 127.0.0.1, for who has its token.

It runs on the network's own loop, between the mail servers; whatever takes longer than a moment
(views, search, taking a message apart) is done in one worker thread, slice by slice.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import secrets
import time
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from importlib.resources import files
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import quote
from weakref import WeakSet

from aiohttp import web

from labserver.lab import Lab, LabError
from labserver.logs import MOST_CHARACTERS, read_log
from labserver.message import Message
from labserver.network import NetworkError
from labserver.network.loopback import HOST, LoopbackNetwork
from labserver.network.recorder import Recorder
from labserver.notebook.display import show
from labserver.notebook.widgets.faulting import FAULTS, is_on, switch
from labserver.store import NoSuchMailbox, NoSuchMessage, StoreError
from labserver.transcript import Session
from labserver.web.mail import WHERE, Head, Letter
from labserver.web.sessions import OUTCOMES, VIEWS, Filter, Row, row, two

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

_STATIC = {
    "/page.css": "text/css",
    "/page.js": "text/javascript",
    "/icon.svg": "image/svg+xml",
}
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
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-DNS-Prefetch-Control": "off",
}

_FAULTS = {fault.name: fault for fault in FAULTS}

log = logging.getLogger("labserver")


class _Refused(Exception):
    """A request that gets an error; the text is one sentence for people."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Page:
    """The page of a lab, being served. `url` lets in whoever opens it."""

    def __init__(self, url: str, close: Callable[[], None]) -> None:
        self.url = url
        self._close = close

    def close(self) -> None:
        """Serve it no longer. May be called again; closing the lab does it as well."""
        self._close()

    def __repr__(self) -> str:
        return f"<Page at {self.url.partition('?')[0]}>"


def serve(lab: Lab, port: int = 0) -> Page:
    """Serve the page that looks on at this lab, until one of both is closed.

    `port` 0 means any that is free. Raises `LabError` where the lab is closed or its network has
    no sockets, `NetworkError` where the port can't be had.
    """
    network = lab.network
    if not isinstance(network, LoopbackNetwork):
        raise LabError("The page needs sockets: make the lab with LoopbackNetwork().")
    server = _Server(lab, network)
    runner = web.AppRunner(server.application(), access_log=None, handler_cancellation=True)
    network.complete(runner.setup)
    http = runner.server
    assert http is not None
    listener = network.serve("the page", http, port)
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
    return Page(f"http://{HOST}:{listener.address.port}/?token={server.token}", close)


class _Server:
    """Answers requests. It must not hold the lab, which could not be forgotten then."""

    def __init__(self, lab: Lab, network: LoopbackNetwork) -> None:
        self.names: set[str] = set()
        """What the Host field may say: another name would be somebody else's page."""
        self.token = secrets.token_urlsafe(24)
        self._cookie = secrets.token_urlsafe(24)
        self._looked_at = weakref.ref(lab)
        self._store, self._journal = lab.store, lab.journal
        self._hostname, self._listeners = lab.hostname, dict(lab.listeners)
        self._accounts = list(lab.accounts)
        self._rows: dict[int, tuple[Session, Row]] = {}
        self._most_rows = 2 * lab.limits.sessions
        self._worker = ThreadPoolExecutor(1, "labserver-page")
        self._over = asyncio.Event()
        self._streams: set[asyncio.Event] = set()
        """What wakes each of those who wait for news."""

    def application(self) -> web.Application:
        """What aiohttp runs."""
        application = web.Application(middlewares=[self._guarded], client_max_size=_BODY_OCTETS)
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
            [web.post("/api/log", self._log), web.post("/api/faults", self._switch)]
        )
        return application

    def stop(self) -> None:
        """Let those go who wait for news."""
        self._over.set()
        for news in self._streams:
            news.set()
        self._worker.shutdown(wait=False, cancel_futures=True)

    async def _work(self, function: Callable[..., T], *arguments: Any) -> T:
        """Have it done in the worker thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._worker, function, *arguments)

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
        first = request.path == "/" and "token" in request.query
        given = request.query["token"] if first else request.cookies.get(self._cookie_name(), "")
        wanted = self.token if first else self._cookie
        if not secrets.compare_digest(given.encode("utf-8", "replace"), wanted.encode()):
            raise _Refused(
                403, "Open the address that the lab printed when it started, with its token."
            )
        # Pages on other ports of this machine are of the same site, and have the cookie, too.
        if request.path != "/":
            origin = request.headers.get("Origin", f"http://{request.headers['Host']}")
            site = request.headers.get("Sec-Fetch-Site", "none")
            if origin.removeprefix("http://") not in self.names or site not in (
                "same-origin",
                "none",
            ):
                raise _Refused(403, "Only the lab's own page may ask for this.")

    def _cookie_name(self) -> str:
        """Cookies know no ports, and there may be several labs."""
        return f"labserver-{min(self.names).rpartition(':')[2]}"

    # -- the page

    async def _page(self, request: web.Request) -> web.StreamResponse:
        response = web.Response(text=_file("page.html"), content_type="text/html")
        response.set_cookie(self._cookie_name(), self._cookie, httponly=True, samesite="Strict")
        return response

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
        session = self._kept(request, "number")
        view = VIEWS.get(request.query.get("view", "dialogue"))
        if view is None:
            raise _Refused(400, f"There is no such view; there are {', '.join(VIEWS)}.")
        shown = await self._work(view, session)
        return _json({"html": _bare(shown.html)})

    async def _session_file(self, request: web.Request) -> web.StreamResponse:
        session = self._kept(request, "number")
        text = await self._work(session.to_json)
        name = f"session-{session.number}-{session.protocol.lower()}.json"
        return _download(name, text.encode(), "application/json")

    async def _compare(self, request: web.Request) -> web.StreamResponse:
        a, b = self._kept(request, "a"), self._kept(request, "b")
        views = await self._work(two, a, b)
        return _json({"html": "".join(_bare(view.html) for view in views)})

    def _kept(self, request: web.Request, name: str) -> Session:
        number = _number(request, name)
        session = self._journal.session(number)
        if session is None:
            raise _Refused(404, f"Session {number} isn't kept; the lab keeps only the latest.")
        return session

    async def _log(self, request: web.Request) -> web.StreamResponse:
        text = (await request.read()).decode("utf-8", "replace")
        try:
            found = await self._work(read_log, text)
        except ValueError as error:
            raise _Refused(400, str(error)) from error
        shown = await self._work(show, found)
        return _json({"html": _bare(shown.html)})

    # -- faults

    async def _faults(self, request: web.Request) -> web.StreamResponse:
        return _json(_switches(self._lab_itself()))

    async def _switch(self, request: web.Request) -> web.StreamResponse:
        lab = self._lab_itself()
        try:
            wanted = json.loads(await request.read())
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
            heads = [Head.read(one, partial(self._store.beginning, one.content)) for one in rows]
            found += await self._work(_fitting, heads, text, where)
            below, searched = rows[-1].uid, searched + len(rows)
        number = self._store.counts(mailbox.id).messages
        return _json({"messages": found, "below": below, "searched": searched, "of": number})

    async def _message(self, request: web.Request) -> web.StreamResponse:
        message = self._stored(request)
        values = await self._work(lambda: Letter(message).values())
        return _json({**values, "view": _bare(values["view"])})

    async def _rendered(self, request: web.Request) -> web.StreamResponse:
        message = self._stored(request)
        html = await self._work(lambda: Letter(message).rendered())
        return web.Response(
            body=html.encode("utf-8", "replace"),
            headers={"Content-Security-Policy": _SANDBOX},
            content_type="text/html",
            charset="utf-8",
        )

    async def _part(self, request: web.Request) -> web.StreamResponse:
        message, number = self._stored(request), _number(request, "part")
        try:
            name, octets = await self._work(lambda: Letter(message).file(number))
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


def _fitting(heads: Sequence[Head], text: str, where: str) -> list[dict[str, Any]]:
    return [head.values() for head in heads if not text or head.says(text, where)]


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
    response.headers.update(_HEADERS)
    response.headers.setdefault("Content-Security-Policy", _POLICY)
    response.headers["Server"] = "labserver"


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


def _bare(html: str) -> str:
    """A view without its style sheet, which the page has from `/views.css`."""
    return re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)


@cache
def _file(name: str) -> str:
    return files("labserver.web").joinpath(name).read_text(encoding="utf-8")


@cache
def _view_styles() -> str:
    """The style sheets of all views, the common one first."""
    sheets: Iterator[Any] = files("labserver").joinpath("data").iterdir()
    named = {one.name: one for one in sheets if one.name.endswith(".css")}
    order = sorted(named, key=lambda name: (name != "view.css", name))
    return "\n".join(named[name].read_text(encoding="utf-8") for name in order)
