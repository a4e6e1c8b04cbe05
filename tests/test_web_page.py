"""The page that looks on at a lab, in a real browser."""

from __future__ import annotations

import contextlib
import email.policy
import imaplib
import json
import poplib
import re
import shutil
import smtplib
import socket
import sqlite3
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from labserver import Lab, Limits
from labserver.network.loopback import LoopbackNetwork
from labserver.web.server import serve

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

expect.set_options(timeout=15_000)
ANA, BEN = "ana@lab.example", "ben@lab.example"
TABS = {
    "Dialogue": "dialogue",
    "Sequence": "sequence",
    "States": "states",
    "On the wire": "wire",
    "Times": "timeline",
}


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    limits = getattr(request, "param", Limits())
    with (
        contextlib.closing(LoopbackNetwork()) as network,
        Lab(network=network, limits=limits) as made,
    ):
        yield made


@pytest.fixture
def page(lab: Lab, browser: Browser) -> Iterator[Page]:
    """The lab's page, opened; nothing in it may go wrong unheard."""
    opened = browser.new_page(viewport={"width": 1280, "height": 860})
    troubles: list[str] = []
    opened.on("pageerror", lambda error: troubles.append(str(error)))
    opened.on("console", lambda said: troubles.append(said.text) if _wrong(said) else None)
    opened.goto(serve(lab).url)
    expect(opened.get_by_text("live", exact=True)).to_be_visible()
    yield opened
    opened.close()
    assert troubles == []


@pytest.fixture
def chromium(browser: Browser) -> Any:
    """Starts one that keeps its history in a folder."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    return lambda folder: browser.browser_type.launch_persistent_context(
        folder, executable_path=found, args=["--no-sandbox"]
    )


def _wrong(said: Any) -> bool:
    """What a closed lab, or a message's HTML in its sandbox, makes Chromium say is as it should."""
    expected = "ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED|sandbox|/rendered"
    return said.type == "error" and not re.search(expected, f"{said.text} {said.location}")


def send(lab: Lab, octets: bytes = b"Subject: hi\r\n\r\nhi\r\n", to: str = ANA) -> None:
    with smtplib.SMTP(*lab.smtp) as sender, contextlib.suppress(smtplib.SMTPRecipientsRefused):
        sender.sendmail("shop@shop.example", [to], octets)


def html_mail(html: str) -> bytes:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "Ana Grün <ana@lab.example>", BEN, "Lunch"
    mail.set_content("Hi Ben\n")
    mail.add_alternative(html, subtype="html")
    mail.add_attachment(b"\x00" * 999, maintype="image", subtype="png", filename="menu.png")
    return mail.as_bytes(policy=email.policy.SMTP)


def sessions_of_all_kinds(lab: Lab) -> None:
    with smtplib.SMTP(*lab.submission) as client:
        client.starttls(context=lab.tls)
        client.login(ANA, lab.accounts[ANA])
        client.sendmail(ANA, [BEN, "nobody@lab.example"], html_mail("<h1>Hi Ben</h1>"))
    send(lab, to="nobody@lab.example")
    pop3 = poplib.POP3(*lab.pop3)
    pop3.user(BEN)
    pop3.pass_(lab.accounts[BEN])
    pop3.quit()
    imap = imaplib.IMAP4_SSL(*lab.imaps, ssl_context=lab.tls)
    imap.login(BEN, lab.accounts[BEN])
    imap.select()
    imap.logout()


def session(page: Page, number: int) -> Any:
    return page.locator(f"#session-list-{number}")


def open_mail(page: Page, account: str, subject: str) -> None:
    page.get_by_role("button", name="Mail", exact=True).click()
    page.locator("#mail select[name=mailbox]").select_option(
        json.dumps([account, "INBOX"], separators=(",", ":"))
    )
    page.locator("#message-list").get_by_role("option", name=subject).click()
    expect(page.locator("#message h2")).to_have_text(subject)


# -- sessions


def test_a_mail_appears_without_reload(lab: Lab, page: Page) -> None:
    expect(page.get_by_role("heading", name="Point your program here")).to_be_visible()
    expect(page.locator("#ports")).to_contain_text(f"127.0.0.1:{lab.smtp.port}")
    send(lab)
    session(page, 1).click()
    expect(page.locator(".ml-dialogue")).to_contain_text(
        "RCPT TO:<ana@lab.example>", ignore_case=True
    )
    expect(page.locator("#session-count")).to_have_text("1 session")
    expect(page.locator("#news")).to_have_text("1 new session")


def test_the_token_leaves_the_address_bar_and_the_page_can_be_loaded_again(page: Page) -> None:
    assert "token" not in page.url
    page.reload()
    expect(page.get_by_text("live", exact=True)).to_be_visible()
    assert page.context.cookies() == []


def test_a_room_chosen_before_the_page_is_let_in_is_entered_then(page: Page) -> None:
    page.route("**/api/enter", lambda route: None)  # never answered
    page.route("**/api/lab*", lambda route: None)
    page.reload()
    page.get_by_role("button", name="Mail", exact=True).click()
    page.unroute_all()
    page.reload()
    expect(page.locator("#message-count")).to_have_text("0 messages")


def test_the_address_works_once_and_says_so(lab: Lab, browser: Browser) -> None:
    served = serve(lab)
    address = served.url
    with (
        contextlib.closing(browser.new_context()) as one,
        contextlib.closing(browser.new_context()) as other,
    ):
        first = one.new_page()
        first.goto(address)
        expect(first.get_by_text("live", exact=True)).to_be_visible()
        # Another tab of the same browser is let in by the first; another browser is not.
        second = one.new_page()
        second.goto(address)
        expect(second.get_by_text("live", exact=True)).to_be_visible()
        stranger = other.new_page()
        stranger.goto(address)
        expect(stranger.get_by_role("alert")).to_contain_text("ask the page's `url` for a fresh")
        stranger.goto(f"{address.partition('#')[0]}#/mail")
        stranger.reload()
        expect(stranger.get_by_role("alert")).to_contain_text("Open the address that the lab")
        stranger.goto("about:blank")
        stranger.goto(served.url)
        expect(stranger.get_by_text("live", exact=True)).to_be_visible()


def test_what_a_browser_keeps_lets_nobody_in(lab: Lab, tmp_path: Path, chromium: Any) -> None:
    served = serve(lab)
    context = chromium(tmp_path)
    page = context.new_page()
    page.goto(served.url)
    expect(page.get_by_text("live", exact=True)).to_be_visible()
    context.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "Default" / "History")) as history:
        visited = [url for (url,) in history.execute("SELECT url FROM urls")]
    used = [url for url in visited if "token=" in url]
    assert used, "or it would keep nothing that could be tried"
    for address in used:
        request = urllib.request.Request(
            address.partition("#")[0] + "api/enter",
            address.partition("token=")[2].encode(),
        )
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(request)


def test_an_open_session_grows_while_it_is_looked_at(lab: Lab, page: Page) -> None:
    with smtplib.SMTP(*lab.smtp) as client:
        session(page, 1).click()
        expect(page.locator(".ml-dialogue")).to_contain_text("Still open")
        client.helo("grown.example")
        expect(page.locator(".ml-dialogue")).to_contain_text("grown.example")
    expect(session(page, 1)).to_contain_text("done")
    expect(page.locator(".ml-dialogue")).to_contain_text("goodbye")


def test_each_tab_shows_its_view(lab: Lab, page: Page) -> None:
    sessions_of_all_kinds(lab)
    session(page, 1).click()
    for tab, kind in TABS.items():
        page.get_by_role("tab", name=tab, exact=True).click()
        expect(page.locator(f"#session .ml-{kind}")).to_be_visible()
    # The choice holds for the next session; arrow keys go from tab to tab.
    session(page, 3).click()
    expect(page.locator("#session .ml-timeline")).to_be_visible()
    page.get_by_role("tab", name="Times").press("ArrowLeft")
    expect(page.locator("#session .ml-wire")).to_be_visible()
    assert lab.accounts[BEN] not in page.content()


def test_two_sessions_are_compared(lab: Lab, page: Page) -> None:
    sessions_of_all_kinds(lab)
    session(page, 1).click()
    page.get_by_role("button", name="Compare").click()
    session(page, 2).click()
    expect(page.locator("#session .ml-compare")).to_be_visible()
    expect(page.locator("#session .ml-timeline")).to_be_visible()


def test_sessions_are_filtered(lab: Lab, page: Page) -> None:
    sessions_of_all_kinds(lab)
    options = page.locator("#session-list [role=option]")
    expect(options).to_have_count(4)
    page.get_by_label("Protocol").select_option("POP3")
    expect(options).to_have_count(1)
    page.get_by_label("Protocol").select_option("")
    page.get_by_label("Outcome").select_option("refused")
    expect(options).to_have_count(2)
    page.get_by_label("Find in what was said").fill("nobody@lab.example: nowhere")
    expect(options).to_have_count(0)
    expect(page.locator("#session-count")).to_have_text("0 found of 4 sessions")


def test_a_session_is_downloaded_without_its_password(lab: Lab, page: Page) -> None:
    sessions_of_all_kinds(lab)
    session(page, 3).click()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    saved = download.value
    assert saved.suggested_filename == "session-3-pop3.json"
    text = Path(saved.path()).read_text(encoding="utf-8")
    assert "PASS ****" in text
    assert lab.accounts[BEN] not in text


def test_the_list_is_used_by_keyboard(lab: Lab, page: Page) -> None:
    for _ in range(30):
        send(lab)
    expect(session(page, 30)).to_have_attribute("aria-setsize", "30")
    page.get_by_label("Any outcome").or_(page.get_by_label("Outcome")).focus()
    page.keyboard.press("Tab")
    for key, number in {"ArrowDown": 29, "End": 1, "PageUp": None, "Home": 30}.items():
        page.keyboard.press(key)
        chosen = page.locator("#session-list [aria-selected=true]")
        if number:
            expect(chosen).to_have_id(f"session-list-{number}")
            expect(page.locator("#session h2")).to_have_text(f"Session {number}")
        expect(chosen).to_be_in_viewport()


@pytest.mark.parametrize("lab", [Limits(sessions=10_000)], indirect=True)
def test_ten_thousand_sessions_leave_the_page_usable(lab: Lab, page: Page) -> None:
    """Real ones, and hundreds a second more while the page is used."""
    page.set_default_timeout(10_000)

    def talk(number: int) -> None:
        with socket.create_connection(lab.smtp) as client:
            to = "nobody" if number % 5 == 0 else "ana"
            client.sendall(
                b"HELO c.example\r\nMAIL FROM:<shop%d@shop.example>\r\n"
                b"RCPT TO:<%b@lab.example>\r\nRSET\r\nQUIT\r\n" % (number, to.encode())
            )
            while client.recv(4096):
                pass

    for number in range(10_000):
        talk(number)
    expect(page.locator("#session-count")).to_have_text("10,000 sessions")

    over = threading.Event()

    def more() -> None:
        number = 10_000
        while not over.is_set():
            talk(number)
            number += 1

    talker = threading.Thread(target=more)
    talker.start()
    try:
        for nth in (2, 5, 3, 6):
            option = page.locator("#session-list [role=option]").nth(nth)
            option.click(timeout=5000)
            chosen = page.locator("#session-list [aria-selected=true]").get_attribute("data-key")
            expect(page.locator("#session h2")).to_have_text(f"Session {chosen}", timeout=5000)
            expect(page.locator("#session .ml-dialogue")).to_be_visible(timeout=5000)
        assert page.locator("#session-list [role=option]").count() < 60
        page.get_by_label("Find in what was said").fill("shop9000@")
        expect(page.locator("#session-count")).to_contain_text("1 found of", timeout=30_000)
    finally:
        over.set()
        talker.join()
    page.get_by_label("Find in what was said").fill("")
    page.locator("#session-list").focus()
    page.get_by_label("Outcome").select_option("refused")
    expect(page.locator("#session-list [role=option]").first).to_contain_text("refused")


# -- mail


def test_a_mail_is_shown_in_each_way(lab: Lab, page: Page) -> None:
    send(lab, html_mail("<h1>Hi Ben</h1>"), BEN)
    open_mail(page, BEN, "Lunch")
    expect(page.frame_locator("iframe").get_by_role("heading")).to_have_text("Hi Ben")
    shown = page.locator("#message [role=tabpanel]")
    for tab, text in {
        "Text": "Hi Ben",
        "Headers": "Ana Grün <ana@lab.example>",
        "Parts": "image/png “menu.png”",
        "Raw": "Content-Type: multipart/mixed",
        "Overview": "Its way",
    }.items():
        page.get_by_role("tab", name=tab, exact=True).click()
        expect(shown).to_contain_text(text)
    page.get_by_role("tab", name="Parts").click()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download image/png").click()
    assert download.value.suggested_filename == "menu.png"
    assert Path(download.value.path()).read_bytes() == b"\x00" * 999


def test_mail_that_comes_while_the_mailbox_is_open_appears(lab: Lab, page: Page) -> None:
    send(lab, b"Subject: first\r\n\r\nhi\r\n")
    open_mail(page, ANA, "first")
    send(lab, b"Subject: second\r\n\r\nhi\r\n")
    expect(page.locator("#message-list [role=option]").first).to_contain_text("second")
    page.get_by_label("Find messages", exact=True).and_(page.locator("input")).fill("FIRST")
    expect(page.locator("#message-count")).to_have_text("1 found in 2 messages")


def test_a_hostile_mail_runs_nothing_and_fetches_nothing(lab: Lab, page: Page) -> None:
    with socket.create_server(("127.0.0.1", 0)) as tracker:
        there = f"http://127.0.0.1:{tracker.getsockname()[1]}"
        html = (
            f"<link rel=preconnect href={there}><link rel=dns-prefetch href={there}>"
            f"<link rel=stylesheet href={there}/a.css><meta http-equiv=refresh content='0;{there}'>"
            f"<base href={there}><style>@import url({there}/b.css); h1 {{ color: rgb(0, 1, 2);"
            f"background: url({there}/c.png) }}</style><h1>shown</h1>"
            f"<img src={there}/d.png><img src=x onerror=\"document.title='ran'\">"
            f"<script>document.body.innerHTML = 'ran'; fetch('{there}/e')</script>"
            f"<script src={there}/f.js></script><iframe src={there}/g></iframe>"
            f"<object data={there}/h></object><embed src={there}/i><video src={there}/j></video>"
            f"<svg><image href={there}/k /></svg><a id=away href={there}/l>away</a>"
            f"<a id=self target=_self href={there}/l>away</a>"
            f"<a id=top target=_top href={there}/m>top</a><form action={there}/n><button>go"
            f"</button></form><body background={there}/o onload=\"document.title='ran'\">"
        )
        send(lab, html_mail(html), BEN)
        open_mail(page, BEN, "Lunch")
        frame = page.frame_locator("iframe")
        heading = frame.get_by_role("heading")
        expect(heading).to_have_text("shown")
        expect(heading).to_have_css("color", "rgb(0, 1, 2)")
        for what in ("text=go", "#top", "#away", "#self"):
            frame.locator(what).click()
        expect(
            page.get_by_text("Left out: 1 drawing, 1 form, 1 form field, 3 frames")
        ).to_be_visible()
        page.get_by_text("Where its links lead (4)").click()
        expect(page.locator(".links")).to_contain_text(f"{there}/m")
        page.get_by_role("tab", name="Text").click()
        page.get_by_role("tab", name="Rendered").click()
        expect(heading).to_have_text("shown")
        assert "ran" not in page.title()
        assert page.url.endswith("#/mail")
        # Not even a connection was made.
        tracker.settimeout(1)
        with pytest.raises(TimeoutError):
            tracker.accept()[0].close()


def test_ten_megabytes_are_shown(lab: Lab, page: Page) -> None:
    send(
        lab, b"Subject: big\r\nContent-Type: text/html\r\n\r\n" + b"<p>word</p>\r\n" * 800_000, BEN
    )
    page.get_by_role("button", name="Mail", exact=True).click()
    option = page.locator("#message-list").get_by_role("option", name="big")
    option.click()
    expect(page.frame_locator("iframe").locator("p").first).to_be_visible(timeout=10_000)
    expect(page.get_by_text("Only the beginning is rendered.")).to_be_visible()
    page.get_by_role("tab", name="Raw").click()
    expect(page.get_by_text("more aren't shown; download it to have all.")).to_be_visible()
    page.get_by_role("button", name="Sessions").click()
    session(page, 1).click()
    expect(page.locator(".ml-dialogue")).to_be_visible(timeout=10_000)


# -- the rest


def test_a_pasted_log_is_read(page: Page) -> None:
    page.get_by_role("button", name="Read a log").click()
    page.get_by_label("The log").fill("<-  220 x ESMTP\n -> EHLO a\n<-  250 x\n")
    page.get_by_role("button", name="Read it").click()
    expect(page.locator(".found .ml-dialogue")).to_contain_text("EHLO a")


def test_a_fault_is_switched_on_and_off(lab: Lab, page: Page) -> None:
    page.get_by_role("button", name="Faults").click()
    switch = page.get_by_role("switch", name="Know no recipient")
    switch.check()
    expect(page.locator("#rules")).to_contain_text("550 5.1.1")
    send(lab)
    assert len(lab.inbox(ANA)) == 0
    switch.uncheck()
    expect(page.locator("#rules")).to_contain_text("None")
    send(lab)
    assert len(lab.inbox(ANA)) == 1


def test_the_page_says_when_the_lab_has_ended(lab: Lab, page: Page) -> None:
    lab.close()
    expect(page.locator("#state")).to_have_text(re.compile("doesn't answer|has ended"))


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_everybody_can_use_it(lab: Lab, browser: Browser, axe: str, theme: Any, width: int) -> None:
    sessions_of_all_kinds(lab)
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=theme)
    with contextlib.closing(context):
        page = context.new_page()
        page.goto(serve(lab).url)
        page.evaluate(axe)

        def judge() -> None:
            run = "async () => (await axe.run(document, {iframes: false})).violations"
            found = page.evaluate(run)
            assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []
            assert page.evaluate("document.documentElement.scrollWidth") <= width

        expect(session(page, 4)).to_be_visible()
        judge()
        session(page, 1).click()
        for tab, kind in TABS.items():
            page.get_by_role("tab", name=tab, exact=True).click()
            expect(page.locator(f"#session .ml-{kind}")).to_be_visible()
            judge()
        page.get_by_role("button", name="Compare").click()
        session(page, 2).click()
        expect(page.locator("#session .ml-compare")).to_be_visible()
        judge()
        open_mail(page, BEN, "Lunch")
        for tab in ("Rendered", "Text", "Headers", "Parts", "Raw", "Overview"):
            page.get_by_role("tab", name=tab, exact=True).click()
            expect(page.locator("#message [role=tabpanel] > *").first).to_be_visible()
            judge()
        for room in ("Faults", "Read a log"):
            page.get_by_role("button", name=room).click()
            judge()
