"""The views in a real browser: everybody can read them, in the light, in the dark, on a phone."""

from __future__ import annotations

import json
import smtplib
from contextlib import closing, suppress
from email.message import EmailMessage
from itertools import product
from typing import Any

import pytest
from dialogue import play

from labserver import (
    Lab,
    View,
    compare,
    replay,
    sequence,
    show,
    states,
    timeline,
    wire,
)
from labserver.network.loopback import LoopbackNetwork

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

PAGE = (
    '<!doctype html><html lang="en" data-theme="{theme}"><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width"><title>A view</title>'
    "<style>body {{ margin: 16px; {ground} }}</style>"
    "<body><main><h1>A view</h1>{view}</main></body></html>"
)
GROUNDS = {
    "light": "background: #fff; color: #222",
    "dark": "background: #121212; color: #ddd",
}


@pytest.fixture(scope="module")
def views() -> dict[str, View]:
    """Each view of real sessions."""
    with closing(LoopbackNetwork()) as network, Lab(network=network) as lab:
        return made(lab)


def made(lab: Lab) -> dict[str, View]:
    mail = EmailMessage()
    mail["From"], mail["To"] = "Ana Grün <ana@lab.example>", "ben@lab.example"
    mail["Subject"] = "Lunch on Friday, or on any other day that suits everybody who is coming"
    mail.set_content("Hi Ben\n.a dot\n" + "a long line " * 20 + "\n")
    mail.add_alternative("<p>Hi</p>", subtype="html")
    mail.add_attachment(b"\x00" * 999, maintype="image", subtype="png", filename="menu.png")
    with smtplib.SMTP(*lab.submission) as client:
        client.starttls(context=lab.tls)
        client.login("ana@lab.example", lab.accounts["ana@lab.example"])
        client.send_message(mail, to_addrs=["ben@lab.example", "nobody@lab.example"])
    accepted = lab.sessions[-1]
    with smtplib.SMTP(*lab.smtp) as client, suppress(smtplib.SMTPRecipientsRefused):
        client.sendmail("a@b.example", ["x" * 60 + "@" + "y" * 60 + ".example"], b"x")
    refused = lab.sessions[-1]
    imap = play(
        lab,
        "imap",
        f"""
        S: * OK ...
        C: a1 LOGIN ben@lab.example {lab.accounts["ben@lab.example"]}
        S: a1 OK ...
        C: a2 SELECT INBOX
        S: * FLAGS ...
        -- client closes
        """,
    )
    inbox = lab.inbox("ben@lab.example")
    silent = play(lab, "smtp", "-- client closes")
    return {
        "session": show(accepted),
        "session, refused": show(refused),
        "session, silent": show(silent),
        "message": show(inbox[0]),
        "mailbox": show(inbox),
        "replay": replay(accepted),
        "sequence": sequence(accepted),
        "sequence, cut": sequence(imap),
        "states": states(accepted),
        "states, IMAP": states(imap),
        "timeline": timeline(accepted, refused, imap),
        "wire": wire(accepted),
        "wire, plain": wire(imap, reveal=True),
        "compare": compare(refused, accepted),
        "compare, protocols": compare(accepted, imap),
    }


NAMES = [
    *("session", "session, refused", "session, silent", "message", "mailbox", "replay"),
    *("sequence", "sequence, cut", "states", "states, IMAP", "timeline", "wire", "wire, plain"),
    *("compare", "compare, protocols"),
]

FITS = """() => {
  const out = [], wide = document.documentElement.clientWidth;
  const seen = e => e.getClientRects().length && getComputedStyle(e).clipPath === 'none';
  if (document.documentElement.scrollWidth > wide) out.push('the page is wider than the screen');
  for (const e of document.querySelectorAll('.ml-view *')) {
    if (e.closest('.wide, title, desc, style') || !seen(e)) continue;
    const r = e.getBoundingClientRect();
    if (r.width && (r.right > wide + 1 || r.left < -1))
      out.push('cut off: ' + e.outerHTML.slice(0, 80));
  }
  for (const svg of document.querySelectorAll('.ml-view > svg, .ml-view > div > svg')) {
    const around = svg.getBoundingClientRect();
    const texts = [...svg.querySelectorAll('text')].map(e => [e, e.getBoundingClientRect()]);
    for (const [e, r] of texts)
      if (r.left < around.left - 1 || r.right > around.right + 1 || r.bottom > around.bottom + 1)
        out.push('out of its drawing: ' + e.textContent);
    texts.forEach(([a, r], i) => texts.slice(i + 1).forEach(([b, q]) => {
      if (Math.min(r.right, q.right) - Math.max(r.left, q.left) > 1
          && Math.min(r.bottom, q.bottom) - Math.max(r.top, q.top) > 4)
        out.push('overlap: ' + a.textContent + ' | ' + b.textContent);
    }));
  }
  return out;
}"""


def test_all_views_are_looked_at(views: dict[str, View]) -> None:
    assert list(views) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_everybody_can_read_it(browser: Any, axe: str, views: dict[str, View], name: str) -> None:
    page = browser.new_page()
    page.evaluate(axe)
    for theme, width in product(GROUNDS, (1280, 390)):
        page.set_viewport_size({"width": width, "height": 800})
        page.set_content(PAGE.format(theme=theme, ground=GROUNDS[theme], view=views[name].html))
        looks = f"{theme}, {width} pixels"
        assert (looks, page.evaluate(FITS)) == (looks, [])
        page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert (looks, page.evaluate(FITS)) == (looks, [])
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        assert found["passes"], looks
        faults = [fault(one) for one in found["violations"]]
        assert (looks, json.dumps(faults, indent=1)) == (looks, "[]")
    page.close()


def fault(one: dict[str, Any]) -> dict[str, Any]:
    """What is wrong, and where first."""
    return {"rule": one["id"], "help": one["help"], "where": one["nodes"][0]["html"][:300]}


def test_the_theme_follows_the_reader_where_the_page_says_nothing(
    browser: Any, views: dict[str, View]
) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme)
        page.set_content(f"<!doctype html><title>x</title>{views['session'].html}")
        grounds.append(
            page.evaluate("getComputedStyle(document.querySelector('.ml-view')).backgroundColor")
        )
        page.close()
    assert grounds == ["rgb(255, 255, 255)", "rgb(20, 26, 33)"]


HEIGHTS = "[...document.querySelectorAll('.ml-view')].map(one => one.offsetHeight)"


def test_views_on_one_page_look_as_each_does_alone(browser: Any, views: dict[str, View]) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    alone = []
    for view in views.values():
        page.set_content(PAGE.format(theme="light", ground=GROUNDS["light"], view=view.html))
        alone += page.evaluate(HEIGHTS)
    every = "".join(view.html for view in views.values())
    page.set_content(PAGE.format(theme="light", ground=GROUNDS["light"], view=every))
    assert page.evaluate(HEIGHTS) == alone
    page.close()


OPACITIES = (
    "[...document.querySelectorAll('.ml-view > ol > li')].map(e => +getComputedStyle(e).opacity)"
)


def test_a_replay_plays_when_asked_and_is_whole_otherwise(
    browser: Any, views: dict[str, View]
) -> None:
    page = browser.new_page(reduced_motion="no-preference")
    page.set_content(PAGE.format(theme="light", ground=GROUNDS["light"], view=views["replay"].html))
    assert set(page.evaluate(OPACITIES)) == {1}
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    page.wait_for_function(f"{OPACITIES}[0] === 1 && {OPACITIES}.at(-1) === 0")
    page.emulate_media(media="print")
    assert set(page.evaluate(OPACITIES)) == {1}
    page.emulate_media(media="screen", reduced_motion="reduce")
    assert set(page.evaluate(OPACITIES)) == {1}
    page.emulate_media(reduced_motion="no-preference")
    page.get_by_role("checkbox").uncheck()
    assert set(page.evaluate(OPACITIES)) == {1}
    page.close()


def test_a_replay_is_read_whole_by_a_screen_reader_while_it_plays(
    browser: Any, views: dict[str, View]
) -> None:
    page = browser.new_page(reduced_motion="no-preference")
    page.set_content(PAGE.format(theme="light", ground=GROUNDS["light"], view=views["replay"].html))
    page.get_by_role("checkbox").check()
    assert page.get_by_role("listitem").filter(has_text="221 2.0.0 Bye").count() == 1
    page.close()
