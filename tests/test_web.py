"""What the page that looks on at a lab is given over HTTP, and who is given nothing."""

from __future__ import annotations

import contextlib
import email.policy
import functools
import gc
import http.client
import imaplib
import json
import os
import poplib
import re
import smtplib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from email.message import EmailMessage
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

import pytest
from inert import ATTRIBUTES, EVER_MADE, HOSTILE, STANDARDS, Checker

from labserver import Lab, LabError, Limits, NetworkError, Session
from labserver.faulting import FAULTS
from labserver.logs import MOST_CHARACTERS
from labserver.network.inline import InlineNetwork
from labserver.network.loopback import LoopbackNetwork
from labserver.web import reading
from labserver.web.mail import Head
from labserver.web.server import Page, serve

pytestmark = pytest.mark.process

ANA, BEN = "ana@lab.example", "ben@lab.example"
PATHS = (
    *("/", "/page.css", "/page.js", "/views.css", "/icon.svg", "/elsewhere"),
    *("/api/lab", "/api/news", "/api/sessions?below=9", "/api/session?number=1"),
    *("/api/session.json?number=1", "/api/compare?a=1&b=1", "/api/accounts", "/api/faults"),
    f"/api/messages?account={ANA}",
    *(f"/api/message{which}?account={ANA}&uid=1&part=0" for which in ("", "/raw", "/part")),
    f"/api/message/rendered?account={ANA}&uid=1",
)


def token(page: Page) -> str:
    """The one in the page's address."""
    return urlsplit(page.url).fragment.removeprefix("token=")


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    octets: bytes

    @property
    def text(self) -> str:
        return self.octets.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.octets)


class Client:
    """A browser without a window: it has the secret, if it was given the token."""

    def __init__(self, page: Page, *, admitted: bool = True) -> None:
        parts = urlsplit(page.url)
        assert parts.hostname
        assert parts.port
        self.host, self.port, self.secret = parts.hostname, parts.port, ""
        if admitted:
            entrance = self.get("/api/enter", token(page).encode())
            assert entrance.status == 200
            self.secret = entrance.json["secret"]

    def get(self, path: str, body: bytes | None = None, **headers: str) -> Answer:
        with contextlib.closing(http.client.HTTPConnection(self.host, self.port)) as connection:
            if self.secret:
                headers = {"Authorization": f"Bearer {self.secret}"} | headers
            fields = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request("GET" if body is None else "POST", path, body, fields)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())

    def ask(self, path: str, **values: object) -> Any:
        answer = self.get(f"{path}?{urlencode(values)}")
        assert answer.status == 200, answer.text
        return answer.json

    @contextlib.contextmanager
    def news(self, **values: str) -> Iterator[Iterator[Any]]:
        """The events of `/api/news`, as they come."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=20)
        with contextlib.closing(connection):
            connection.request(
                "GET",
                f"/api/news?{urlencode(values)}",
                headers={"Authorization": f"Bearer {self.secret}"},
            )
            answer = connection.getresponse()
            rows = (row for row in answer if row.startswith(b"data: "))
            with contextlib.closing(answer):
                yield (json.loads(row.removeprefix(b"data: ")) for row in rows)


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    limits = getattr(request, "param", Limits())
    with (
        contextlib.closing(LoopbackNetwork()) as network,
        Lab(network=network, limits=limits) as made,
    ):
        yield made


@pytest.fixture
def page(lab: Lab) -> Page:
    return serve(lab)


@pytest.fixture
def client(page: Page) -> Client:
    return Client(page)


def send(lab: Lab, octets: bytes = b"Subject: hi\r\n\r\nhi\r\n", to: str = ANA) -> Session:
    with smtplib.SMTP(*lab.smtp) as sender, contextlib.suppress(smtplib.SMTPRecipientsRefused):
        sender.sendmail("shop@shop.example", [to], octets)
    return lab.sessions[-1]


def begin(lab: Lab, number: int) -> None:
    """So many sessions without a word, within one turn of the lab's loop."""

    def many() -> None:
        for _ in range(number):
            lab.journal.begin("SMTP", "smtp", implicit_tls=False).close()

    lab.network.run(many)


def log_in(lab: Lab) -> Session:
    client = poplib.POP3(*lab.pop3)
    client.user(ANA)
    client.pass_(lab.accounts[ANA])
    client.quit()
    return lab.sessions[-1]


# -- who may ask


def test_nothing_of_the_lab_is_given_without_the_secret(lab: Lab, page: Page) -> None:
    send(lab)
    secret, stranger = Client(page).secret, Client(page, admitted=False)
    waysin = [
        {},
        {"Cookie": f"labserver-{stranger.port}={secret}; secret={secret}; token={token(page)}"},
        {"Authorization": "Bearer guessed"},
        {"Authorization": f"Basic {secret}"},
        {"Authorization": secret},
        {"X_Token": secret},
    ]
    paths = [path for path in PATHS if path.startswith("/api/")]
    for path in (*paths, f"/api/lab?token={token(page)}", f"/api/lab?secret={secret}"):
        for headers in waysin:
            answer = stranger.get(path, **headers)
            assert answer.status == 403, (path, headers)
            assert "Open the address that the lab printed" in answer.json["error"]
    for path in ("/api/log", "/api/faults", "/api/signed"):
        assert stranger.get(path, b"220 hi").status == 403


def test_the_page_itself_tells_nothing_and_sets_no_cookie(lab: Lab, page: Page) -> None:
    stranger, known = Client(page, admitted=False), Client(page)
    for path in ("/", "/page.css", "/page.js", "/views.css", "/icon.svg"):
        answer = stranger.get(path)
        assert (answer.status, answer.octets) == (200, known.get(path).octets)
        assert "Set-Cookie" not in answer.headers
        assert known.secret not in answer.text
        assert str(lab.smtp.port) not in answer.text
    assert "Set-Cookie" not in known.get("/api/lab").headers


def test_a_token_works_once_and_a_fresh_one_is_shown_where_the_lab_runs(lab: Lab) -> None:
    shown: list[str] = []
    page = serve(lab, again=shown.append)
    used = token(page)
    stranger = Client(page, admitted=False)
    assert stranger.get("/api/enter", used.encode()).status == 200
    assert token(page) not in ("", used)
    for _ in range(3):
        again = stranger.get("/api/enter", used.encode())
        assert again.status == 403
        assert again.json["error"] == (
            "This address has been used, and each works once; "
            "the lab has printed a fresh one where it runs."
        )
    assert stranger.get("/api/lab", Authorization=f"Bearer {used}").status == 403
    assert shown == [page.url]
    assert Client(page).get("/api/lab").status == 200


def test_a_page_of_a_program_s_own_gives_a_fresh_address_when_asked(page: Page) -> None:
    used = token(page).encode()
    assert Client(page).get("/api/lab").status == 200
    again = Client(page, admitted=False).get("/api/enter", used)
    assert again.json["error"].endswith("; ask the page's `url` for a fresh one.")
    assert Client(page).get("/api/lab").status == 200


@pytest.mark.parametrize("guess", [b"", b"guessed", b"\xff", b"\xed\xb2\x80", b"x" * 10_000])
def test_a_guess_is_refused(lab: Lab, guess: bytes) -> None:
    shown: list[str] = []
    answer = Client(serve(lab, again=shown.append), admitted=False).get("/api/enter", guess)
    assert answer.status == (403 if len(guess) < 200 else 413)
    assert shown == []


def test_a_program_may_use_the_token_until_a_browser_has(page: Page) -> None:
    program, bearer = Client(page, admitted=False), f"Bearer {token(page)}"
    assert program.get("/api/lab", Authorization=bearer).status == 200
    assert program.get("/api/lab", Authorization=bearer).status == 200
    assert Client(page).get("/api/lab").status == 200
    assert program.get("/api/lab", Authorization=bearer).status == 403


def test_each_start_has_a_token_of_its_own(lab: Lab) -> None:
    one, other = serve(lab), serve(lab)
    assert token(one) != token(other)
    assert Client(other, admitted=False).get("/api/enter", token(one).encode()).status == 403
    assert (
        Client(other, admitted=False)
        .get("/api/lab", Authorization=f"Bearer {Client(one).secret}")
        .status
        == 403
    )


def test_a_signed_address_opens_one_thing_for_a_minute(
    lab: Lab, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(lab)
    client, stranger = Client(page), Client(page, admitted=False)
    path = f"/api/message/raw?account={ANA}&uid=1"
    address = client.get("/api/signed", path.encode()).json["address"]
    assert stranger.get(address).octets == lab.inbox(ANA)[0].octets
    for changed in (
        address.replace("uid=1", "uid=2"),
        address.replace("/raw", "/part"),
        address.replace("&until=", "&until=9"),
        address[:-1] + ("0" if address[-1] != "0" else "1"),
        address + "&uid=2",
        f"{path}&signature=",
        f"{path}&until=99999999999&signature=" + "0" * 64,
    ):
        assert stranger.get(changed).status == 403, changed
    assert stranger.get(address, Sec_Fetch_Site="cross-site").status == 403
    later = time.monotonic() + 62
    monkeypatch.setattr("labserver.web.entrance.time.monotonic", lambda: later)
    assert stranger.get(address).status == 403


@pytest.mark.parametrize("path", ["/api/faults?", "/api/lab?x", "/", "", "/api/message/raw"])
def test_only_what_a_browser_fetches_by_itself_is_signed(client: Client, path: str) -> None:
    assert client.get("/api/signed", path.encode()).status == 400


@pytest.mark.parametrize("host", ["rebound.example", "rebound.example:{port}", "127.0.0.1", ""])
def test_another_host_name_is_refused(client: Client, host: str) -> None:
    for path in PATHS:
        assert client.get(path, Host=host.format(port=client.port)).status == 403
    assert client.get("/", Host=f"localhost:{client.port}").status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "cross-site"},
    ],
)
def test_other_pages_on_this_machine_are_refused(client: Client, headers: dict[str, str]) -> None:
    for path in PATHS[1:]:
        assert client.get(path, **headers).status == 403
    assert client.get("/api/log", b"220 hi", **headers).status == 403


def test_every_answer_tells_the_browser_how_little_it_may_do(client: Client, lab: Lab) -> None:
    send(lab)
    for path in (path for path in PATHS if path != "/api/news"):
        answer = client.get(path)
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy or policy.startswith("sandbox; ")
        assert "unsafe-eval" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cache-Control"] == "no-store"
        assert not [name for name in answer.headers if name.startswith("Access-Control")]
        assert "aiohttp" not in answer.headers["Server"]


def test_it_listens_on_127_0_0_1_alone(client: Client) -> None:
    assert client.host == "127.0.0.1"
    with socket.socket() as elsewhere:
        assert elsewhere.connect_ex(("127.0.0.2", client.port)) != 0


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/api/nothing", 404, "Not Found"),
        ("/../cli.py", 404, "Not Found"),
        ("/api/session", 400, "number must be a whole number."),
        ("/api/session?number=-1", 400, "number must be a whole number."),
        ("/api/session?number=77", 404, "Session 77 isn't kept"),
        ("/api/session?number=1&view=x", 400, "There is no such view; there are dialogue,"),
        ("/api/session.json?number=77", 404, "Session 77 isn't kept"),
        ("/api/compare?a=1&b=77", 404, "Session 77 isn't kept"),
        ("/api/sessions?below=x", 400, "below must be a whole number."),
        (f"/api/sessions?below=9&text={'x' * 201}", 400, "at most 200 characters"),
        (f"/api/messages?account={ANA}&where=x", 400, "A text can be looked for in: anywhere,"),
        (f"/api/messages?account={ANA}&mailbox=x", 404, "has no mailbox named x."),
        ("/api/messages?account=x@x.example", 404, "has no mailbox named INBOX."),
        (f"/api/message?account={ANA}&uid=77", 404, "That message has been removed."),
        (f"/api/message/part?account={ANA}&uid=1&part=7", 404, "This message has no part 7."),
        (f"/api/message?account={ANA}%00%ff&uid=1", 404, "has no mailbox"),
    ],
)
def test_what_makes_no_sense_gets_a_sentence(
    lab: Lab, client: Client, path: str, status: int, said: str
) -> None:
    send(lab)
    answer = client.get(path)
    assert answer.status == status
    assert said in (answer.json["error"] if path.startswith("/api/") else answer.text)


# -- sessions


def test_the_newest_sessions_come_first(lab: Lab, client: Client) -> None:
    send(lab)
    send(lab, to="nobody@lab.example")
    log_in(lab)
    with client.news() as events:
        first = next(events)["page"]
    assert [(row["number"], row["protocol"], row["outcome"]) for row in first["rows"]] == [
        (3, "POP3", "done"),
        (2, "SMTP", "refused"),
        (1, "SMTP", "done"),
    ]
    assert first["rows"][2]["about"] == f"shop@shop.example → {ANA}"
    assert first["rows"][0]["about"] == ANA
    assert (first["kept"], first["total"], first["below"]) == (3, 3, 0)


def test_a_session_is_told_of_while_it_is_open_and_when_it_ends(lab: Lab, client: Client) -> None:
    with client.news() as events:
        assert next(events)["page"]["rows"] == []
        talker = smtplib.SMTP(*lab.smtp)
        assert next(events)["rows"][0]["outcome"] == "open"
        talker.quit()
        while (row := next(events)["rows"][0])["outcome"] == "open":
            pass
    assert row["outcome"] == "done"


def test_a_session_that_is_open_is_watched_however_old_it_is(lab: Lab, client: Client) -> None:
    with contextlib.closing(smtplib.SMTP(*lab.smtp)) as talker:
        begin(lab, 210)
        with client.news() as events:
            assert 1 not in [row["number"] for row in next(events)["page"]["rows"]]
            talker.noop()
            assert 1 in [row["number"] for row in next(events)["rows"]]


@pytest.mark.parametrize("lab", [Limits(sessions_octets=1)], indirect=True)
def test_sessions_that_were_dropped_are_counted(lab: Lab, client: Client) -> None:
    assert [send(lab).number for _ in range(3)] == [1, 2, 3]
    with client.news() as events:
        first = next(events)["page"]
    assert ([row["number"] for row in first["rows"]], first["kept"], first["total"]) == ([3], 1, 3)


@pytest.mark.parametrize("lab", [Limits(sessions=3000)], indirect=True)
def test_many_sessions_at_once_give_the_newest_page_anew(lab: Lab, client: Client) -> None:
    with client.news() as events:
        next(events)
        begin(lab, 2050)
        page = next(events)["page"]
    assert [row["number"] for row in page["rows"]] == list(range(2050, 1850, -1))
    older = client.ask("/api/sessions", below=page["below"])
    assert [row["number"] for row in older["rows"]] == list(range(1850, 1650, -1))


def test_only_what_the_filter_lets_through_is_told(lab: Lab, client: Client) -> None:
    refused = send(lab, to="nobody@lab.example").number
    send(lab)
    log_in(lab)

    def found(**values: str) -> list[int]:
        page = client.ask("/api/sessions", below=99, **values)
        return [row["number"] for row in page["rows"]]

    assert found() == [3, 2, 1]
    assert found(protocol="POP3") == [3]
    assert found(outcome="refused") == [refused]
    assert found(text="NOBODY@lab") == [refused]
    assert found(text="550 5.1.1") == [refused]
    assert found(text="#2") == [2]
    assert found(text="subject: HI", protocol="SMTP") == [2]
    assert found(text="nowhere to be found") == []
    with client.news(outcome="refused") as events:
        assert len(next(events)["page"]["rows"]) == 1
        send(lab)
        while not (event := next(events))["gone"]:
            pass
        assert event["rows"] == []


def test_a_search_takes_turns_with_the_servers(lab: Lab, client: Client) -> None:
    begin(lab, 120)
    page = client.ask("/api/sessions", below=999, text="went away")
    assert len(page["rows"]) == 120
    assert page["below"] == 0


@pytest.mark.parametrize("view", ["dialogue", "sequence", "states", "wire", "times"])
def test_each_view_is_inert_and_without_the_password(lab: Lab, client: Client, view: str) -> None:
    session = log_in(lab)
    html = client.ask("/api/session", number=session.number, view=view)["html"]
    checked = Checker(html)
    assert checked.elements <= EVER_MADE - {"style"}
    assert checked.attributes <= ATTRIBUTES
    assert all(link.startswith(STANDARDS) for link in checked.links)
    assert lab.accounts[ANA] not in html


def test_no_password_can_be_found_or_downloaded(lab: Lab, client: Client) -> None:
    session = log_in(lab)
    secret = lab.accounts[ANA]
    for text in (secret, secret[:6]):
        assert client.ask("/api/sessions", below=99, text=text)["rows"] == []
    answer = client.get(f"/api/session.json?number={session.number}")
    assert answer.headers["Content-Disposition"].startswith("attachment; ")
    assert secret not in answer.text
    assert Session.from_json(answer.text).lines == Session.from_json(session.to_json()).lines


def test_two_sessions_are_compared(lab: Lab, client: Client) -> None:
    a, b = send(lab).number, send(lab, to="nobody@lab.example").number
    html = client.ask("/api/compare", a=a, b=b)["html"]
    assert "Two sessions compared" in html
    assert "Where the time and the octets went" in html


def test_a_log_from_elsewhere_is_read(client: Client) -> None:
    log = b"<-  220 x ESMTP\n -> EHLO <script>\n<-  250 x\n -> QUIT\n<-  221 bye\n"
    html = client.get("/api/log", log).json["html"]
    assert "Read from swaks" in html
    assert Checker(html).elements <= EVER_MADE - {"style"}
    refused = client.get("/api/log", b"x" * (MOST_CHARACTERS + 1))
    assert refused.status == 400
    assert "characters" in refused.json["error"]
    assert client.get("/api/log", b"x" * (4 * MOST_CHARACTERS + 2048)).status == 413


# -- mail


def letter() -> EmailMessage:
    mail = EmailMessage()
    mail["From"], mail["To"] = "Ana Grün <ana@lab.example>", BEN
    mail["Subject"] = "Lunch – on Friday"
    mail.set_content("Hi Ben\nfish or soup?\n")
    mail.add_alternative('<h1>Hi</h1><img src="cid:logo"><img src="cid:no">', subtype="html")
    parts = mail.get_payload()
    assert isinstance(parts, list)
    parts[1].add_related(b"\x89PNG", "image", "png", cid="<logo>")
    mail.add_attachment(b"\x00\x01", "application", "pdf", filename="../../menu ü.pdf")
    return mail


def test_mailboxes_stand_by_account(lab: Lab, client: Client) -> None:
    send(lab)
    imap = imaplib.IMAP4(*lab.imap)
    imap.login(ANA, lab.accounts[ANA])
    imap.create("Archive")
    imap.logout()
    assert client.ask("/api/accounts") == {
        "accounts": [
            {"address": ANA, "mailboxes": [["INBOX", 1], ["Archive", 0]]},
            {"address": BEN, "mailboxes": [["INBOX", 0]]},
        ],
        "more": 0,
    }
    assert [one["address"] for one in client.ask("/api/accounts", text="BEN")["accounts"]] == [BEN]


def test_mail_for_anybody_is_seen_where_everything_is_kept() -> None:
    with Lab(network=LoopbackNetwork(), catch_all=True) as lab:
        for number in range(205):
            lab.network.run(lambda n=number: lab.store.ensure_mailbox(f"u{n}@x.example", "INBOX"))
        found = Client(serve(lab)).ask("/api/accounts")
        assert len(found["accounts"]) == 200
        assert found["more"] == 7
        lab.network.close()


def test_messages_are_found_by_subject_sender_recipient_and_text(lab: Lab, client: Client) -> None:
    send(lab, letter().as_bytes(policy=email.policy.SMTP), BEN)
    send(lab, b"Subject: fish\r\nFrom: z@z.example\r\n\r\nsoup\r\n", BEN)

    def found(text: str, where: str = "anywhere") -> list[int]:
        page = client.ask("/api/messages", account=BEN, text=text, where=where)
        assert (page["searched"], page["of"]) == (2, 2)
        return [one["uid"] for one in page["messages"]]

    assert found("") == [2, 1]
    assert found("FISH") == [2, 1]
    assert found("fish", "subject") == [2]
    assert found("fish", "text") == [1]
    assert found("grün", "from") == [1]
    assert found("ben@", "to") == [1]
    assert found("– on", "subject") == [1]
    assert found("nothing") == []


def test_messages_come_in_pages(lab: Lab, client: Client) -> None:
    def fill() -> None:
        inbox = lab.store.ensure_mailbox(ANA, "INBOX").id
        for number in range(230):
            octets = b"Subject: %d\r\n\r\n" % number
            lab.store.append(inbox, octets, lab.network.clock.now(), frozenset())

    lab.network.run(fill)
    first = client.ask("/api/messages", account=ANA)
    assert [one["uid"] for one in first["messages"]] == list(range(230, 30, -1))
    last = client.ask("/api/messages", account=ANA, below=first["below"])
    assert [one["uid"] for one in last["messages"]] == list(range(30, 0, -1))
    assert last["below"] == 0


def test_a_message_is_taken_apart(lab: Lab, client: Client) -> None:
    send(lab, letter().as_bytes(policy=email.policy.SMTP), BEN)
    shown = client.ask("/api/message", account=BEN, uid=1)
    assert shown["subject"] == "Lunch – on Friday"
    assert shown["from"] == "Ana Grün <ana@lab.example>"
    assert shown["text"] == "Hi Ben\nfish or soup?"
    assert shown["html"] is True
    assert [(part["depth"], part["file"]) for part in shown["parts"]] == [
        (0, False),
        (1, False),
        (2, True),
        (2, False),
        (3, True),
        (3, True),
        (1, True),
    ]
    assert "Subject: Lunch" in shown["raw"]
    assert {"name": "To", "value": BEN, "read": ""} in shown["fields"]
    assert "ml-message" in shown["view"]
    assert "<style>" not in shown["view"]


def test_parts_are_only_ever_downloaded(lab: Lab, client: Client) -> None:
    send(lab, letter().as_bytes(policy=email.policy.SMTP), BEN)
    answer = client.get(f"/api/message/part?account={BEN}&uid=1&part=6")
    assert answer.octets == b"\x00\x01"
    assert answer.headers["Content-Type"] == "application/octet-stream"
    saved = answer.headers["Content-Disposition"]
    assert saved == "attachment; filename*=UTF-8''menu%20%C3%BC.pdf"
    html = client.get(f"/api/message/part?account={BEN}&uid=1&part=4")
    assert html.octets.startswith(b"<h1>Hi</h1>")
    assert html.headers["Content-Type"] == "application/octet-stream"
    assert html.headers["Content-Disposition"].startswith("attachment; ")
    raw = client.get(f"/api/message/raw?account={BEN}&uid=1")
    assert raw.octets == lab.inbox(BEN)[0].octets
    assert raw.headers["Content-Disposition"].startswith("attachment; ")


def test_html_is_given_to_a_sandbox_alone(lab: Lab, client: Client) -> None:
    send(lab, letter().as_bytes(policy=email.policy.SMTP), BEN)
    answer = client.get(f"/api/message/rendered?account={BEN}&uid=1")
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("sandbox; default-src 'none'; ")
    assert "script" not in policy
    assert "http" not in policy
    assert answer.text.count("data:image/png;base64,iVBORw==") == 1
    assert '<img title="Not shown: cid:no">' in answer.text


def test_what_reaches_for_a_host_by_itself_is_taken_out_of_force(lab: Lab, client: Client) -> None:
    body = b"<LINK rel=preconnect href=//t.example><base href=//t><meta http-equiv=refresh><p>"
    send(lab, b"Content-Type: text/html\r\n\r\n" + body)
    html = client.get(f"/api/message/rendered?account={ANA}&uid=1").text
    assert "t.example" not in html
    assert html.partition("<body>")[2].split() == ["<p>", "</p></body></html>"]
    shown = client.ask("/api/message", account=ANA, uid=1)
    assert shown["notes"] == ["Left out: 1 linked file."]


def test_the_page_is_told_where_links_led(lab: Lab, client: Client) -> None:
    body = b"<a href=http://evil.example/>bank</a><form action=//evil.example/form></form>"
    send(lab, b"Content-Type: text/html\r\n\r\n" + body)
    shown = client.ask("/api/message", account=ANA, uid=1)
    assert shown["links"] == [["link", "http://evil.example/"], ["form", "//evil.example/form"]]
    assert shown["more_links"] == 0


def test_a_hostile_message_only_ever_becomes_text(lab: Lab, client: Client) -> None:
    send(lab, HOSTILE)
    shown = client.ask("/api/message", account=ANA, uid=1)
    checked = Checker(shown["view"])
    assert checked.elements <= EVER_MADE - {"style"}
    assert checked.attributes <= ATTRIBUTES
    assert "\x1b" not in json.dumps(shown, ensure_ascii=False)
    html = client.ask("/api/session", number=1)["html"]
    assert Checker(html).elements <= EVER_MADE - {"style"}


def test_of_a_large_message_only_a_part_is_given(lab: Lab, client: Client) -> None:
    send(lab, b"Content-Type: text/html\r\n\r\n" + b"<p>word</p>\r\n" * 800_000)
    answer = client.get(f"/api/message?account={ANA}&uid=1")
    assert len(answer.octets) < 600_000
    assert answer.json["cut"] is True
    assert answer.json["unshown"] > 9_000_000
    assert len(client.get(f"/api/message/rendered?account={ANA}&uid=1").octets) < 600_000
    assert len(client.get(f"/api/message/raw?account={ANA}&uid=1").octets) > 10_000_000


# -- what is too much


HOLDS = functools.partial(re.fullmatch, "(a+)+b")
"""Given a's, it holds the interpreter for ever."""


def exhausted(*_: object) -> None:
    """Stands for a function that takes more memory than there is."""
    raise MemoryError


def rows_but_of_the_third(heads: list[Head], text: str, where: str) -> list[dict[str, Any]]:
    """Stands for one that one header is too much for."""
    if any(head.row.uid == 3 for head in heads):
        raise MemoryError
    return reading.rows(heads, text, where)


def test_what_holds_the_interpreter_holds_up_no_server_and_is_told_of(
    lab: Lab, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labserver.web.child.PROCESSOR_SECONDS", 1)
    monkeypatch.setattr("labserver.web.server.reading.log", HOLDS)
    answers: list[Answer] = []
    asking = threading.Thread(target=lambda: answers.append(client.get("/api/log", b"a" * 99)))
    asking.start()
    with smtplib.SMTP(*lab.smtp) as mail:
        assert mail.noop()[0] == 250
        assert client.ask("/api/sessions", below=9)["total"] == 1
        assert answers == []
    asking.join()
    assert answers[0].status == 422
    assert answers[0].json["error"] == (
        "This log takes too long to read; paste only the lines that matter."
    )
    monkeypatch.undo()
    assert client.get("/api/log", b"<-  220 x ESMTP\n -> EHLO a\n<-  250 x\n").status == 200


def process_of(_: str) -> str:
    """Which process reads."""
    return str(os.getpid())


@pytest.mark.parametrize(
    ("function", "path", "said"),
    [
        ("message", f"/api/message?account={ANA}&uid=1", "This message {}; download it instead."),
        ("rendered", f"/api/message/rendered?account={ANA}&uid=1", "This message {}; download it"),
        ("part", f"/api/message/part?account={ANA}&uid=1&part=0", "This message {}; download it"),
        ("session", "/api/session?number=1", "This view of the session {}; choose another one"),
        ("session_file", "/api/session.json?number=1", "This session {}; the lab's own"),
        ("compared", "/api/compare?a=1&b=1", "The two together {}; look at each of them."),
    ],
)
def test_what_is_too_much_to_read_gets_a_sentence(
    lab: Lab, client: Client, monkeypatch: pytest.MonkeyPatch, function: str, path: str, said: str
) -> None:
    send(lab)
    monkeypatch.setattr(f"labserver.web.server.reading.{function}", exhausted)
    answer = client.get(path)
    assert answer.status == (200 if function == "rendered" else 422)
    assert said.format("takes too much memory to read") in answer.text
    assert lab.inbox(ANA)[0].octets == client.get(f"/api/message/raw?account={ANA}&uid=1").octets


def test_a_header_that_cannot_be_read_hides_no_other(
    lab: Lab, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        send(lab, b"Subject: %d\r\n\r\n" % number)
    monkeypatch.setattr("labserver.web.server.reading.rows", rows_but_of_the_third)
    found = client.ask("/api/messages", account=ANA)["messages"]
    assert [(one["uid"], one["subject"]) for one in found] == [
        (5, "4"),
        (4, "3"),
        (3, "(this header takes too much memory to read)"),
        (2, "1"),
        (1, "0"),
    ]


@pytest.mark.skipif(os.name != "posix", reason="looks for a process as POSIX does")
@pytest.mark.parametrize("what", ["page", "lab", "network"])
def test_closing_leaves_no_process(
    lab: Lab, page: Page, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr("labserver.web.server.reading.log", process_of)
    process = int(Client(page).get("/api/log", b"x").json["html"])
    os.kill(process, 0)
    {"page": page, "lab": lab, "network": lab.network}[what].close()
    lab.close()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


# -- faults


def test_no_switch_is_on_at_first(client: Client) -> None:
    shown = client.ask("/api/faults")
    assert shown["rules"] == []
    assert not [one for one in shown["switches"] if one["on"]]
    assert len(client.ask("/api/faults")["switches"]) == len(FAULTS)
    assert client.get("/api/faults", b'{"name": "no such", "on": true}').status == 400
    assert client.get("/api/faults", b"[").status == 400


def test_a_switch_puts_its_rule_into_the_lab(lab: Lab, client: Client) -> None:
    turned = client.get("/api/faults", b'{"name": "Know no recipient", "on": true}').json
    assert turned["rules"] == [repr(rule) for rule in lab.rules]
    assert [one["name"] for one in turned["switches"] if one["on"]] == ["Know no recipient"]
    assert any(b"550 5.1.1" in line.data for line in send(lab).lines)
    assert (
        client.get("/api/faults", b'{"name": "Know no recipient", "on": false}').json["rules"] == []
    )
    send(lab)
    assert len(lab.inbox(ANA)) == 1


@pytest.mark.parametrize("name", [fault.name for fault in FAULTS])
def test_each_switch_can_be_turned(lab: Lab, client: Client, name: str) -> None:
    on = json.dumps({"name": name, "on": True}).encode()
    assert len(client.get("/api/faults", on).json["rules"]) == 1
    assert len(client.get("/api/faults", on).json["rules"]) == 1


# -- the end


def test_closing_the_lab_ends_the_page(lab: Lab, client: Client) -> None:
    with client.news() as events:
        next(events)
        lab.close()
        with pytest.raises((StopIteration, http.client.HTTPException, ConnectionError)):
            next(events)
    with pytest.raises(ConnectionRefusedError):
        client.get("/")


def test_closing_the_network_ends_the_page(lab: Lab, client: Client) -> None:
    with client.news() as events:
        next(events)
        lab.network.close()
    with pytest.raises(ConnectionRefusedError):
        client.get("/")


def test_closing_the_page_leaves_the_lab(lab: Lab, page: Page, client: Client) -> None:
    page.close()
    page.close()
    with pytest.raises(ConnectionRefusedError):
        client.get("/")
    send(lab)
    assert len(lab.inbox(ANA)) == 1


def test_a_lab_that_is_forgotten_takes_its_page_with_it() -> None:
    page = serve(Lab(network=LoopbackNetwork()))
    gc.collect()
    with pytest.raises(ConnectionRefusedError):
        Client(page, admitted=False).get("/")


def test_a_page_says_where_it_is_without_its_token(page: Page) -> None:
    assert repr(page) == f"<Page at {page.url.partition('#')[0]}>"


def test_a_page_needs_a_running_lab_with_sockets(lab: Lab) -> None:
    with Lab(network=InlineNetwork()) as inline:
        with pytest.raises(LabError, match="needs sockets"):
            serve(inline)
        inline.network.close()
    lab.close()
    with pytest.raises(LabError, match="This lab is closed"):
        serve(lab)


def test_a_port_in_use_is_named(lab: Lab, client: Client) -> None:
    with pytest.raises(NetworkError, match=rf"Port {client.port} \(the page\) is in use"):
        serve(lab, client.port)


def test_pages_that_look_on_are_bounded(client: Client) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            next(stack.enter_context(client.news()))
        answer = client.get("/api/news")
    assert answer.status == 503
    assert "close one of them" in answer.json["error"]


def test_a_lab_keeps_what_it_is_told_to_and_says_so() -> None:
    with Lab(network=LoopbackNetwork(), limits=Limits(sessions=3)) as lab:
        for _ in range(5):
            send(lab)
        page = Client(serve(lab)).ask("/api/sessions", below=99)
        assert [row["number"] for row in page["rows"]] == [5, 4, 3]
        assert (page["kept"], page["total"]) == (3, 5)
        lab.network.close()


def test_nobody_else_needs_aiohttp() -> None:
    code = "import labserver.cli, sys; labserver.Lab; print('aiohttp' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
