"""Messages and mailboxes to look at: all of it as text, whatever it is and however large."""

from __future__ import annotations

import imaplib
import random
import re
import smtplib
from datetime import UTC, datetime
from email.message import EmailMessage

import pytest
from inert import HOSTILE, inert, words

from labserver import Envelope, Lab, Mailbox, Message, show
from tests.steps import LINEAR, growth, steps

RECEIVED = datetime(2026, 1, 1, tzinfo=UTC)


def message(octets: bytes, envelope: Envelope | None = None) -> Message:
    return Message(octets, 1, RECEIVED, frozenset(), envelope)


def section(view_text: str, name: str, following: str) -> list[str]:
    """The rows of the text between two headings."""
    rows = view_text.split("\n")
    return [row.strip() for row in rows[rows.index(name) + 1 : rows.index(following)]]


def test_envelope_header_and_body_stand_beside_each_other(lab: Lab) -> None:
    with smtplib.SMTP(*lab.smtp, local_hostname="client.example") as client:
        said = b"From: boss@b.example\r\nTo: all@b.example\r\nSubject: Hi\r\n\r\nHello\r\n"
        client.sendmail("eve@b.example", ["ben@lab.example", "ana@lab.example"], said)
    (received,) = lab.inbox("ben@lab.example")
    view = show(received)
    inert(view)
    text = str(view)
    assert section(text, "Envelope", "Header") == [
        "MAIL FROM: <eve@b.example>",
        "RCPT TO: <ben@lab.example>",
        "RCPT TO: <ana@lab.example>",
    ]
    header = section(text, "Header", "Body (text/plain)")
    assert "From: boss@b.example" in header
    assert any(
        re.match(
            r"Received: from client.example \(\[127.0.0.1\]\) by lab.example with ESMTP; \w", row
        )
        for row in header
    )
    assert section(text, "Body (text/plain)", "Its way") == ["Hello"]


def test_each_received_field_is_a_hop_the_first_one_first() -> None:
    view = show(
        message(
            b"Received: from mx.two.example (mx.two.example [192.0.2.2])\r\n"
            b"\tby three.example with ESMTPS id 7;\r\n\tMon, 02 Nov 2026 10:11:14 +0000\r\n"
            b"Received: by two.example; Mon, 02 Nov 2026 10:11:13 +0000\r\n"
            b"Received: nonsense <script>\r\n"
            b"\r\n"
        )
    )
    inert(view)
    assert section(str(view), "Its way", "Parts") == [
        "1. nonsense <script>",
        "2. (itself) -> two.example Mon, 02 Nov 2026 10:11:13 +0000",
        "3. mx.two.example -> three.example with ESMTPS id 7; Mon, 02 Nov 2026 10:11:14 +0000",
    ]
    assert "mx.two.example → three.example" in words(view)
    assert "(itself) → two.example" in words(view)


def test_the_mime_tree_shows_each_part_within_its_parent() -> None:
    made = EmailMessage()
    made["Subject"] = "Menu"
    made.set_content("Lunch?\n")
    made.add_alternative("<p>Lunch?</p>\n", subtype="html")
    made.add_attachment(b"\x00" * 30, maintype="image", subtype="png", filename="menu <1>.png")
    inner = EmailMessage()
    inner.set_content("inner\n")
    made.add_attachment(inner)
    octets = made.as_bytes().replace(b"\n", b"\r\n")
    view = show(message(octets))
    inert(view)
    rows = str(view).split("\n")
    tree = rows[rows.index("Parts") + 1 : rows.index("Octets as SMTP carries them")]
    assert [row.partition(", ")[0] for row in tree] == [
        "  multipart/mixed",
        "    multipart/alternative",
        "      text/plain",
        "      text/html",
        "    image/png “menu <1>.png”",
        "    message/rfc822",
        "      text/plain",
    ]
    assert tree[2].endswith("text/plain, 8 octets, 7bit")
    assert section(str(view), "Body (text/plain)", "Parts") == ["Lunch?"]


def test_parts_are_those_that_pythons_parser_finds() -> None:
    for seed in range(60):
        octets = tree(random.Random(seed)).as_bytes().replace(b"\n", b"\r\n")
        found = show(message(octets)).text.split("\n")
        kinds = [
            row.strip().partition(", ")[0]
            for row in found[found.index("Parts") + 1 : found.index("Octets as SMTP carries them")]
        ]
        assert kinds == [part.get_content_type() for part in message(octets).email.walk()]


def tree(source: random.Random, depth: int = 0) -> EmailMessage:
    """A message with parts within parts."""
    made = EmailMessage()
    made.set_content(f"text {source.random()}\n")
    if depth < 3 and source.random() < 0.8:
        made.make_mixed()
        for _ in range(source.randrange(3)):
            made.attach(tree(source, depth + 1))
    return made


@pytest.mark.parametrize(
    ("head", "body", "read"),
    [
        ("text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64", "R3LDvMOfZQ==", "Grüße"),
        (
            "text/plain; charset=latin-1\r\nContent-Transfer-Encoding: quoted-printable",
            "Gr=FC=DFe",
            "Grüße",
        ),
        ("text/plain; charset=no-such\r\nContent-Transfer-Encoding: x", "Hello", "Hello"),
        ("text/plain; charset=utf-8", "\u202eevil\x1b[31m", "\\u202eevil\\x1b[31m"),
    ],
)
def test_the_body_is_read_out_of_its_encoding(head: str, body: str, read: str) -> None:
    view = show(message(f"Content-Type: {head}\r\n\r\n{body}\r\n".encode()))
    inert(view)
    assert section(str(view), "Body (text/plain)", "Parts") == [read]


def test_html_is_shown_as_its_source() -> None:
    view = show(message(b"Content-Type: text/html\r\n\r\n<p onclick='x()'>Hi</p>\r\n"))
    inert(view)
    assert "<p onclick='x()'>Hi</p>" in words(view)
    assert "text/html, as its source" in words(view)


def test_encoded_words_are_shown_as_written_and_as_read() -> None:
    view = show(message(b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nTo: =?x?q?=FF?=\r\n\r\n"))
    inert(view)
    assert "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= Grüße" in words(view)


def test_line_ends_and_the_dots_that_smtp_adds_are_shown() -> None:
    view = show(message(b"Subject: x\r\n\r\n.dot\r\nbare\nend"))
    rows = str(view).split("\n")
    assert rows[rows.index("Octets as SMTP carries them") + 1 :] == [
        "  Subject: x\\r\\n",
        "  \\r\\n",
        "  ..dot\\r\\n",
        "  bare\\n",
        "  end",
        "  .\\r\\n",
    ]
    assert '<mark>.</mark>.dot<i class="end">\\r\\n</i>' in view.html


def test_hostile_mail_is_inert(lab: Lab) -> None:
    with smtplib.SMTP(*lab.smtp) as client:
        client.sendmail("eve@evil.example", ["ben@lab.example"], HOSTILE)
    inbox = lab.inbox("ben@lab.example")
    for view in (show(inbox), show(inbox[0])):
        inert(view)
    assert "</section><script>" in words(show(inbox))


def test_any_octets_are_a_message() -> None:
    parts = (
        *(
            b"Content-Type: multipart/mixed; boundary=b\r\n",
            b"--b\r\n",
            b"--b--\r\n",
            b"\r\n",
            b"\n",
        ),
        *(b"Content-Type: message/rfc822\r\n", b"Received: from by\r\n", b"=?utf-8?b?////?=", b":"),
        *(b"Content-Type: text/plain; charset*=''%ff\r\n", b"\xff\x00", b"Subject:\r\n\t", b"."),
        b"Content-Disposition: attachment; filename*=x'y'%FF\r\n",
        b"Content-Transfer-Encoding: base64\r\n",
    )
    for seed in range(500):
        source = random.Random(seed)
        octets = b"".join(source.choices(parts, k=source.randrange(20)))
        inert(show(message(octets)))


def test_what_did_not_come_by_smtp_says_so(lab: Lab) -> None:
    client = imaplib.IMAP4(*lab.imap)
    client.login("ana@lab.example", lab.accounts["ana@lab.example"])
    client.append("INBOX", "\\Flagged", None, b"Subject: x\r\n\r\nx\r\n")
    client.logout()
    view = show(lab.inbox("ana@lab.example")[0])
    assert "It didn't come by SMTP." in words(view)
    assert "\\Flagged" in words(view)


def test_the_null_reverse_path_is_shown() -> None:
    view = show(message(b"\r\n", Envelope("", ("ana@lab.example",))))
    assert "MAIL FROM: <>" in str(view)


LARGE = {
    "one part": b"Subject: x\r\n\r\n" + b"word " * 15 + b"\r\n" * 5_000_000,
    "base64": b"Content-Transfer-Encoding: base64\r\n\r\n" + (b"QUJD" * 19 + b"\r\n") * 140_000,
    "many parts": b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    + b"--b\r\n\r\nx\r\n" * 900_000,
    "deep parts": b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" * 200_000,
    "almost boundaries": b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    + b"--bb\r\n" * 1_700_000,
    "one line": b"x" * 10_000_000,
    "one field": b"Subject: " + b"=?utf-8?q?x?= " * 700_000,
    "many fields": b"Received: from a by b; c\r\n" * 400_000,
    "folded field": b"Received: from a\r\n " + b" x\r\n" * 2_500_000,
}


@pytest.mark.parametrize("name", LARGE)
def test_ten_megabytes_take_no_more_than_twice_the_steps_of_five(name: str) -> None:
    large, half = message(LARGE[name]), message(LARGE[name][: len(LARGE[name]) // 2])
    assert len(large.octets) > 9_000_000
    assert steps(lambda: show(large)) <= LINEAR * steps(lambda: show(half))
    view = show(large)
    inert(view)
    assert len(view.html) < 300_000


def test_an_empty_mailbox_says_so(lab: Lab) -> None:
    view = show(lab.inbox("ana@lab.example"))
    inert(view)
    assert "No message here." in view.html


def test_a_large_mailbox_is_shown_in_part() -> None:
    one = message(b"From: =?utf-8?q?Gr=C3=BC?= <a@b.example>\r\nSubject: x\r\n\r\n")
    assert growth(lambda messages: show(Mailbox([one] * messages)), 1_000) <= LINEAR
    view = show(Mailbox([one] * 2_000))
    inert(view)
    assert "1,500 more messages not shown" in words(view)


def test_only_sessions_messages_and_mailboxes_are_shown() -> None:
    with pytest.raises(TypeError, match=r"^show\(\) takes a session, message, mailbox"):
        show("text")  # type: ignore[arg-type]


def test_what_differs_between_machines_is_shown_but_not_in_normal_form(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = []
    for name in ("one.example", "two.example"):
        with smtplib.SMTP(*lab.smtp, local_hostname=name) as client:
            client.sendmail("a@b.example", ["ben@lab.example"], b"Subject: x\r\n\r\nx\r\n")
        shown = show(lab.inbox("ben@lab.example")[-1])
        assert f"Received: from {name} " in words(shown)
        assert f"Received: from {name} " in shown.text
        assert f"1. {name} -> lab.example" in shown.text
        with monkeypatch.context() as stored:
            stored.setenv("LABSERVER_OUTPUT", "normal")
            views.append(show(lab.inbox("ben@lab.example")[-1]))
    assert views[0] == views[1]


def test_what_the_sender_wants_to_hear_is_told_with_the_envelope(lab: Lab) -> None:
    with smtplib.SMTP(*lab.smtp) as client:
        client.ehlo()
        client.mail("zoe@else.example", ["SIZE=12", "RET=HDRS"])
        client.rcpt("ana@lab.example")
        client.rcpt("ben@lab.example", ["NOTIFY=SUCCESS,FAILURE"])
        client.data("Subject: x\r\n\r\n")
    view = show(lab.inbox("ben@lab.example")[0])
    assert "  MAIL FROM: <zoe@else.example> RET=HDRS\n" in str(view)
    assert "  RCPT TO: <ana@lab.example>\n" in str(view)
    assert "  RCPT TO: <ben@lab.example> NOTIFY=SUCCESS,FAILURE\n" in str(view)
    inert(view)


def test_what_bare_line_feeds_part_is_shown_as_well() -> None:
    """`smtplib.sendmail(…, message.as_bytes())` is everyday code."""
    made = EmailMessage()
    made["Subject"] = "Menu"
    made.set_content("Lunch?\n")
    made.add_alternative("<p>Lunch?</p>\n", subtype="html")
    view = show(message(made.as_bytes()))
    inert(view)
    assert section(str(view), "Body (text/plain)", "Parts") == ["Lunch?"]
    assert "text/html, 14 octets, 7bit" in section(
        str(view), "Parts", "Octets as SMTP carries them"
    )


def test_octets_that_are_not_utf_8_are_read_and_marked() -> None:
    view = show(message(b"Subject: raw \xe4\xf6\r\nX-Own: \xc3\xa4\r\n\r\n"))
    inert(view)
    assert "raw \\xe4\\xf6 raw äö (not UTF-8: read as windows-1252)" in words(view)
    assert "X-Own: ä" in words(view)
    assert str(view).startswith("raw äö: ")


LEFT_OUT = {
    "15 more fields not shown": b"X-Own: x\r\n" * 75 + b"\r\n",
    "10 earlier hops not shown": b"Received: from a by b; c\r\n" * 40 + b"\r\n",
    "461 more parts not shown": b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    + b"--b\r\n\r\nx\r\n" * 500,
    "299,961 more parts not shown": b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    + b"--b\r\n\r\nx\r\n" * 300_000,
    "61 more parts not shown": b"Content-Type: message/rfc822\r\n\r\n" * 2_000,
    "40 more lines not shown": b"\r\n" + b"x\r\n" * 100,
    "34,464 more octets not shown": b"\r\n" + b"x" * 100_000,
    "… (1 more character)": b"\r\n" + b"x" * 501,
    "… (2,000 more octets)": b"Subject: " + b"x" * 3_000 + b"\r\n\r\n",
    "RCPT TO: 5 more": b"\r\n",
}


@pytest.mark.parametrize("sentence", LEFT_OUT)
def test_each_bound_says_what_it_leaves_out(sentence: str) -> None:
    recipients = tuple(f"a{number}@b.example" for number in range(65))
    view = show(message(LEFT_OUT[sentence], Envelope("a@b.example", recipients)))
    inert(view)
    assert sentence in str(view)
    assert sentence.replace("RCPT TO: ", "RCPT TO ") in words(view)


def test_what_is_looked_for_is_found_behind_any_number_of_fields() -> None:
    """A header that big providers write has more than 60 fields."""
    for before in (
        b"X-Own: x\r\n" * 75,
        b"X-Own: x\r\n" * 100_000,
        b"X: " + b"y" * 200_000 + b"\r\n",
    ):
        octets = before + b"Subject: found\r\nFrom: ana\r\nContent-Type: text/x-log\r\n\r\nx\r\n"
        assert str(show(message(octets))).startswith("found: ")
        assert "Body (text/x-log)" in str(show(message(octets)))
        assert "ana found" in words(show(Mailbox([message(octets)])))
