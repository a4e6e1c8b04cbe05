"""A web page can't speak to the lab: what begins like HTTP, or like TLS, is never obeyed."""

from __future__ import annotations

import base64

import pytest
from dialogue import Client, play

from labserver import Lab, show
from labserver.catalog import explain, legal
from labserver.catalog.strangers import spoken_instead
from tests.fuzz_targets import converse

pytestmark = pytest.mark.protocol

ANA, PASSWORD = "ana@lab.example", "ana-lab-password"
LISTENERS = ("smtp", "submission", "submissions", "pop3", "pop3s", "imap", "imaps")
GREETING = {"smtp": b"220 ", "subm": b"220 ", "pop3": b"+OK ", "imap": b"* OK "}
GOODBYE = {
    "smtp": b"421 4.7.0 That is %b, and this is an SMTP server; goodbye\r\n",
    "subm": b"421 4.7.0 That is %b, and this is an SMTP server; goodbye\r\n",
    "pop3": b"-ERR that is %b, and this is a POP3 server; good bye\r\n",
    "imap": b"* BYE [CLIENTBUG] That is %b, and this is an IMAP server.\r\n",
}
DESTRUCTIVE = {
    "smtp": b"HELO evil\r\nMAIL FROM:<eve@far.example>\r\nRCPT TO:<ben@lab.example>\r\n"
    b"DATA\r\nSubject: from a page\r\n\r\n.\r\nQUIT\r\n",
    "subm": b"EHLO evil\r\nAUTH PLAIN "
    + base64.b64encode(f"\0{ANA}\0{PASSWORD}".encode())
    + b"\r\nMAIL FROM:<ana@lab.example>\r\nRCPT TO:<ben@lab.example>\r\nDATA\r\n\r\n.\r\nQUIT\r\n",
    "pop3": f"USER {ANA}\r\nPASS {PASSWORD}\r\nDELE 1\r\nDELE 2\r\nQUIT\r\n".encode(),
    "imap": f"a LOGIN {ANA} {PASSWORD}\r\nb SELECT INBOX\r\n".encode()
    + b"c STORE 1:* +FLAGS (\\Deleted)\r\nd EXPUNGE\r\ne LOGOUT\r\n",
}
REQUESTS = [
    b"POST / HTTP/1.1",
    b"GET /index.html HTTP/1.0",
    b"get / http/1.1",
    b"M-SEARCH * HTTP/1.1",
    b"x0 /a HTTP/1.1",
    b"QUIT / HTTP/1.1",
    b"NOOP /noop HTTP/1.1",
    b"CONNECT 127.0.0.1:143 HTTP/1.1",
    b"OPTIONS * HTTP/1.1",
    b"GET http://lab.example/ HTTP/1.1",
    b"GET /a b HTTP/1.1",
    b"POST\t/\tHTTP/1.1",
    b" POST / HTTP/1.1",
    b"PRI * HTTP/2.0",
    b"Host: 127.0.0.1:2110",
    b"content-type: text/plain",
]


def page(request: bytes, body: bytes) -> bytes:
    """What Chromium sends for a cross-origin POST of plain text."""
    head = b"""%b
Host: 127.0.0.1:2110
Connection: keep-alive
Content-Length: %d
sec-ch-ua-platform: "Linux"
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0.0.0 Safari/537.36
sec-ch-ua: "Chromium";v="140", "Not=A?Brand";v="24"
Content-Type: text/plain;charset=UTF-8
sec-ch-ua-mobile: ?0
Accept: */*
Origin: http://evil.example
Sec-Fetch-Site: cross-site
Sec-Fetch-Mode: no-cors
Sec-Fetch-Dest: empty
Referer: http://evil.example/
Accept-Encoding: gzip, deflate, br, zstd

"""
    return (head % (request, len(body))).replace(b"\n", b"\r\n") + body


def say(lab: Lab, listener: str, octets: bytes) -> bytes:
    """All that the server says to somebody who says that at once, until it hangs up."""
    client = Client(lab, listener)
    try:
        client.send(octets)
        return b"".join(iter(client.line, b""))
    finally:
        client.close()


def two_mails(lab: Lab) -> None:
    mail = b"MAIL FROM:<eve@far.example>\r\nRCPT TO:<ana@lab.example>\r\nDATA\r\n\r\n.\r\n"
    converse(lab, "smtp", [b"HELO client.example\r\n" + 2 * mail + b"QUIT\r\n"])
    assert len(lab.inbox(ANA)) == 2


@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize("request_line", [b"POST / HTTP/1.1", b"post /mail http/1.1"])
def test_a_page_can_neither_read_nor_delete_nor_send(
    lab: Lab, listener: str, request_line: bytes
) -> None:
    two_mails(lab)
    kind = listener[:4]
    heard = say(lab, listener, page(request_line, DESTRUCTIVE[kind]))
    greeting, goodbye = heard.splitlines(keepends=True)
    assert greeting.startswith(GREETING[kind])
    assert goodbye == GOODBYE[kind] % b"HTTP"
    assert len(lab.inbox(ANA)) == 2
    assert not any("\\Deleted" in message.flags for message in lab.inbox(ANA))
    assert not lab.inbox("ben@lab.example")
    assert lab.sessions[-1].closed


@pytest.mark.parametrize("listener", ["smtp", "pop3", "imap"])
@pytest.mark.parametrize(
    ("before", "request_line"),
    [
        *((b"", request_line) for request_line in REQUESTS),
        *((before, REQUESTS[0]) for before in (b"\r\n", b"\n", b"\n\r\n  \r\n")),
    ],
    ids=repr,
)
def test_every_request_is_hung_up_on(
    lab: Lab, listener: str, before: bytes, request_line: bytes
) -> None:
    said = before + request_line + b"\r\n" + DESTRUCTIVE[listener]
    heard = say(lab, listener, said).splitlines(keepends=True)
    assert heard[-1] == GOODBYE[listener] % b"HTTP"
    assert len(heard) == 2 + before.count(b"\n")
    assert not lab.inbox("ben@lab.example")


@pytest.mark.parametrize("listener", ["smtp", "pop3", "imap"])
@pytest.mark.parametrize("octets", [300, 5_000, 14_000, 60_000])
def test_a_request_too_long_to_be_read_is_hung_up_on_all_the_same(
    lab: Lab, listener: str, octets: int
) -> None:
    two_mails(lab)
    line = b"POST /" + b"x" * octets + b" HTTP/1.1"
    heard = say(lab, listener, page(line, DESTRUCTIVE[listener])).splitlines()
    assert len(heard) <= 3
    assert b"log" not in b"".join(heard[1:])
    assert len(lab.inbox(ANA)) == 2
    assert not lab.inbox("ben@lab.example")


@pytest.mark.parametrize("listener", ["smtp", "pop3", "imap"])
def test_commands_hidden_in_a_tls_handshake_are_not_obeyed(lab: Lab, listener: str) -> None:
    """A server's name or session ticket can hold line ends; a browser sends them unencrypted."""
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03ticket\r\n"
    heard = say(lab, listener, hello + DESTRUCTIVE[listener]).splitlines(keepends=True)
    assert heard[1:] == [GOODBYE[listener] % b"TLS"]
    assert not lab.inbox("ben@lab.example")


@pytest.mark.parametrize(
    "line",
    [
        *(b"EHLO client.example", b"MAIL FROM:<a@b.example> SIZE=10 BODY=7BIT", b"HELP"),
        *(b"USER ana", b"PASS GET / HTTP/1.1"[:9], b"CAPA", b"RETR 1", b"AUTH PLAIN"),
        *(b"a1 LOGIN ana@lab.example HTTP/1.1", b"GET NOOP", b"host NOOP", b"a: NOOP", b"Z CHECK"),
        *(b"HTTP/1.1 200 OK", b"GET /", b"", b"\x80.\x01\x03", b"a1 APPEND x {10+}"),
    ],
)
def test_mail_is_not_taken_for_http(line: bytes) -> None:
    assert spoken_instead(line) == ""


def test_a_long_line_is_judged_in_one_go() -> None:
    words = spoken_instead(b"a " * 32_000) or spoken_instead(b"a" + b" " * 64_000 + b"\r\n")
    assert words == ""


# -- unknown commands before login

UNKNOWN = {
    "pop3": ("-ERR Unknown command.", "-ERR Too many bad commands."),
    "imap": ("... BAD ...", "* BYE [CLIENTBUG] Too many invalid IMAP commands."),
    "smtp": ("500 ...", "421 4.7.0 lab.example Error: too many errors"),
}


@pytest.mark.parametrize("listener", UNKNOWN)
def test_before_login_there_may_be_only_so_many_unknown_commands(lab: Lab, listener: str) -> None:
    refused, last = UNKNOWN[listener]
    first = {"pop3": "+OK ...", "imap": "* OK ...", "smtp": "220 ..."}[listener]
    words = [f"C: a{n} BOGUS{n}\nS: {refused}" for n in range(4)]
    known = {"pop3": "C: CAPA", "imap": "C: k NOOP\nS: k OK ...", "smtp": "C: NOOP\nS: 250 ..."}
    between = known[listener] if listener != "pop3" else "C: USER ana\nS: +OK ..."
    play(
        lab,
        listener,
        f"S: {first}\n" + f"\n{between}\n".join(words) + f"\nC: z WRONG\nS: {last}\n"
        "-- server closes",
    )


@pytest.mark.parametrize(
    ("listener", "login", "unknown"),
    [
        ("pop3", f"S: +OK ...\nC: USER {ANA}\nS: +OK ...\nC: PASS {PASSWORD}\nS: +OK ...", "-ERR"),
        ("imap", f"S: * OK ...\nC: l LOGIN {ANA} {PASSWORD}\nS: l OK ...", "b BAD"),
    ],
)
def test_after_login_an_unknown_command_is_a_typing_error(
    lab: Lab, listener: str, login: str, unknown: str
) -> None:
    play(lab, listener, login + f"\nC: b BOGUS\nS: {unknown} ..." * 8)


# -- what the transcript says of it


@pytest.mark.parametrize("listener", ["smtp", "pop3", "imap"])
def test_the_transcript_explains_it(lab: Lab, listener: str) -> None:
    say(lab, listener, page(b"POST / HTTP/1.1", DESTRUCTIVE[listener]))
    session = lab.sessions[-1]
    said = dict(zip(session.lines, explain(session), strict=True))
    first, *rest = [line for line in session.lines if line.who == "C"]
    name = listener.upper()
    assert said[first].title.endswith(f"that is HTTP, not {name}.")
    assert "hangs up on the first line" in said[first].detail
    assert said[first].sources
    unheard = f"The server answers nothing from here on, for the first line wasn't {name}."
    assert [said[line].title for line in rest] == ([unheard] + [""] * len(rest))[: len(rest)]
    assert [problem.sentence for problem in legal(session)] == [f"That is HTTP, not {name}."]
    assert f"that is HTTP, not {name}." in str(show(session))
    assert PASSWORD not in str(show(session))
