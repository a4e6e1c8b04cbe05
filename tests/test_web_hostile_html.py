"""Mail whose HTML attacks whoever opens it on the page, in a real browser.

All is tried with real connections: what reaches for a host reaches for a listener of the test's.
"""

from __future__ import annotations

import contextlib
import json
import smtplib
import socket
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import Browser, Page, expect

from labserver import Lab
from labserver.network.loopback import LoopbackNetwork
from labserver.web.server import serve

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

ANA = "ana@lab.example"
RAN = "document.title='ran';parent.document.title='ran';top.location='{there}/ran'"

# {there} is where nobody may come to; a name that a browser would look up is no use here, for
# the test has no name server to watch.
HOSTILE = {
    "images": "<img src={there}/1><img srcset='{there}/2 2x'><picture><source srcset={there}/3>"
    "<img></picture><image src={there}/4><input type=image src={there}/5>",
    "sound and film": "<video src={there}/1 poster={there}/2 autoplay></video><audio autoplay "
    "src={there}/3></audio><video autoplay><source src={there}/4><track default src={there}/5>",
    "backgrounds": "<body background={there}/1><table background={there}/2><tr><td "
    "background={there}/3>x",
    "style sheets that import": "<style>@import url({there}/1);@import '{there}/2';</style>x",
    "styles that fetch": "<p style=\"background:url('{there}/1');border-image:url({there}/2);"
    "cursor:url({there}/3),auto;background:image-set('{there}/4' 1x)\">x",
    "styles with escapes": "<p style='background:u\\72l({there}/1)'>x<style>p{{list-style:"
    "\\75\\72\\6c({there}/2);background:url\\28 {there}/3)}}@im\\70ort '{there}/4';</style>",
    "fonts": "<style>@font-face{{font-family:x;src:url({there}/1)}}*{{font-family:x}}</style>x",
    "links that fetch": "".join(
        f"<link rel='{rel}' href={{there}}/{rel} as=script>"
        for rel in "stylesheet preload prefetch preconnect dns-prefetch modulepreload icon".split()
    ),
    "refreshes": "<meta http-equiv=refresh content='0;url={there}/1'><META HTTP-EQUIV=Refresh "
    "CONTENT='0; {there}/2'><svg><meta http-equiv=refresh content='0;{there}/3'></svg>",
    "a base": "<base href={there}/><img src=1><a href=2>x</a><base target=_top>",
    "a form": "<form action={there}/1 method=post><input name=p autofocus><button>x</button></form>"
    "<form id=f></form><button form=f formaction={there}/2>x</button>",
    "frames": "<iframe src={there}/1></iframe><object data={there}/2></object><embed src={there}/3>"
    "<frameset><frame src={there}/4></frameset><portal src={there}/5></portal><fencedframe>",
    "a frame's own document": f'<iframe srcdoc="<script>{RAN}</script><img src={{there}}/1>">',
    "SVG": "<svg><image href={there}/1 /><use href={there}/2#x /><feImage href={there}/3 />"
    f"<script>{RAN}</script><set attributeName=href to={{there}}/4 /><style>*{{{{background:"
    "url({there}/5)}}</style><foreignObject><img src={there}/6></foreignObject></svg>",
    "SVG links": "<svg width=99 height=99><a xlink:href={there}/1><rect width=99 height=99 /></a>"
    "<a href={there}/2><text y=20>x</text></a><a href={there}/3 target=_top><circle r=9 /></a>",
    "MathML": f"<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src="
    f"{{there}}/1 onerror={RAN}&gt;'></mglyph></table></mtext><maction xlink:href={{there}}/2>x",
    "MathML links": "<math href={there}/1><mi href={there}/2>x</mi></math><a href={there}/3>x",
    "mutations": f"<svg></p><style><a id='</style><img src={{there}}/1 onerror={RAN}>'>"
    "<form><math><mtext></form><form><mglyph><style></math><img src={there}/2>",
    "scripts": f"<script>{RAN}</script><script src={{there}}/1></script><p onclick={RAN}>x</p>"
    f"<img src=x onerror={RAN}><body onload={RAN}><details open ontoggle={RAN}>",
    "javascript addresses": f"<a href=javascript:{RAN}>x</a><a href='java&#10;script:{RAN}'>x</a>"
    f"<iframe src=javascript:{RAN}></iframe><form action=javascript:{RAN}><button>x",
    "data addresses": f"<a href='data:text/html,<script>{RAN}</script>'>x</a><iframe "
    f"src='data:text/html,<script>{RAN}</script>'></iframe><object data='data:text/html,x'>",
    "markup left open": "x<img alt='<a href={there}/1>y</a><img src={there}/2>",
    "attributes left open": '<a href="{there}/1?x=<p>one</p>\n<img src={there}/2>',
    "speculation rules": '<script type=speculationrules>{{"prefetch":[{{"urls":["{there}/1"]}}]}}'
    "</script><a href={there}/2>x</a>",
    "a shadow": "<div><template shadowrootmode=open><img src={there}/1><a href={there}/2>x</a>"
    "</template></div><template><img src={there}/3></template>",
    "no script": "<noscript><img src={there}/1><a href={there}/2>x</a></noscript><noscript><p "
    "title='</noscript><img src={there}/3>'>",
    "a quoted bracket": '<a title=">" href={there}/1 target=_self>x</a>',
    "no space": '<a href="{there}/1"target=_self>x</a>',
    "a target twice": "<a target=x target=_self href={there}/1>x</a>",
    "a target behind": '<a target=_top x="1"target=_self href={there}/1>x</a>',
    "an area": "<img usemap=#m width=99 height=99><map name=m><area/target=_self shape=default "
    "href={there}/1></map>",
    "a ping": "<a ping={there}/1 href={there}/2 target=_blank download>x</a>",
    "popups": "<a href={there}/1 target=_blank>x</a><a href={there}/2 target=name>x</a>",
    "comments": "<!--><a href={there}/1>x</a>--><!--[if IE]><img src={there}/2><![endif]--><![if "
    "!IE]><img src={there}/3><![endif]><?xml-stylesheet href={there}/4?>",
    "a manifest": "<html manifest={there}/1 xmlns:xlink=x><body><p>x",
}


class Scene(NamedTuple):
    lab: Lab
    page: Page
    tracker: socket.socket
    popups: list[Any]
    requests: list[str]


@pytest.fixture(scope="module")
def scene(browser: Browser) -> Iterator[Scene]:
    with (
        contextlib.closing(LoopbackNetwork()) as network,
        Lab(network=network) as lab,
        socket.create_server(("127.0.0.1", 0)) as tracker,
        contextlib.closing(browser.new_context(viewport={"width": 1280, "height": 860})) as context,
    ):
        tracker.setblocking(False)
        requests: list[str] = []
        popups: list[Any] = []
        page = context.new_page()
        context.on("request", lambda request: requests.append(request.url))
        context.on("page", lambda popup: popups.append(popup))
        page.on("dialog", lambda dialog: popups.append(dialog))
        page.goto(serve(lab).url)
        expect(page.get_by_text("live", exact=True)).to_be_visible()
        page.get_by_role("button", name="Mail", exact=True).click()
        page.locator("#mail select[name=mailbox]").select_option(
            json.dumps([ANA, "INBOX"], separators=(",", ":"))
        )
        yield Scene(lab, page, tracker, popups, requests)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_mail_reaches_nobody_leads_nowhere_and_runs_nothing(
    scene: Scene, name: str
) -> None:
    page = scene.page
    there = f"http://127.0.0.1:{scene.tracker.getsockname()[1]}"
    html = f"{HOSTILE[name].format(there=there)}<p id=last>end of {name}</p>"
    octets = f"Subject: {name}\r\nContent-Type: text/html\r\n\r\n{html}\r\n"
    with smtplib.SMTP(*scene.lab.smtp) as client:
        client.sendmail("eve@evil.example", [ANA], octets.encode())
    number = len(scene.lab.inbox(ANA))
    page.locator(f"#message-list-{number}").click()
    expect(page.locator("#message h2")).to_have_text(name)
    shown = page.locator(f"#message iframe[src*='uid={number}&']")
    expect(shown).to_be_attached()
    framed = shown.element_handle().content_frame()
    framed.wait_for_load_state("load")
    frame = shown.content_frame
    for element in frame.locator("a, area, [title], p, img, table, details, summary").all():
        for act in ("mouseover", "mousedown", "mouseup", "focus", "auxclick"):
            element.dispatch_event(act)
        if element.is_visible():
            element.click(force=True)
    page.locator("#message h2").click()

    home = page.url.partition("#")[0]
    assert [one for one in scene.requests if not one.startswith((home, "data:"))] == []
    with pytest.raises(BlockingIOError):
        scene.tracker.accept()
    assert scene.popups == []
    assert len(page.frames) == 2
    assert page.frames[1].url.startswith(f"{home}api/message/rendered?")
    assert page.url == f"{home}#/mail"
    assert page.title() == f"Mail Lab – {scene.lab.hostname}"
    assert framed.evaluate("document.links.length + document.forms.length + frames.length") == 0
