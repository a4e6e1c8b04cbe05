"""A delivered message as plain data: it is hostile input and must show itself all the same."""

from __future__ import annotations

import email
import random
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP

import pytest
from test_mime import steps

from labserver.message import Envelope, Mailbox, Message


def message(octets: bytes, uid: int = 1) -> Message:
    envelope = Envelope("ana@lab.example", ("ben@lab.example",))
    return Message(octets, uid, datetime.now(UTC), frozenset({"\\Seen"}), envelope)


HELLO = message(
    b"Date: Mon, 05 Jan 2026 09:00:00 +0000\r\n"
    b"From: =?utf-8?q?Jos=C3=A9?= <jose@lab.example>\r\n"
    b"Subject: Hello\r\n"
    b"\r\n"
    b"Hi Ben\r\n"
)


def test_fields_are_found_in_any_letter_case() -> None:
    assert HELLO["subject"] == HELLO["SUBJECT"] == "Hello"
    assert HELLO["From"] == "José <jose@lab.example>"
    assert HELLO["Cc"] is None


def test_bytes_are_exactly_what_was_stored() -> None:
    assert bytes(HELLO) is HELLO.octets
    assert HELLO.email.get_content() == "Hi Ben\r\n"


def test_print_shows_what_came() -> None:
    assert str(HELLO) == HELLO.octets.decode().replace("\r\n", "\n").removesuffix("\n")


def test_print_in_normal_form_is_the_same_on_any_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABSERVER_OUTPUT", "normal")
    later = message(HELLO.octets.replace(b"05 Jan 2026 09", b"06 Feb 2027 10"))
    assert str(HELLO).splitlines()[:3] == [
        "Date: (date)",
        "From: =?utf-8?q?Jos=C3=A9?= <jose@lab.example>",
        "Subject: Hello",
    ]
    assert str(HELLO) == str(later)


def test_a_mailbox_lists_its_messages() -> None:
    mailbox = Mailbox([HELLO, message(b"\r\nno header\r\n", 2)])
    assert str(mailbox) == "1. from José <jose@lab.example>: Hello\n2. from (none): (none)"
    assert str(Mailbox()) == "The mailbox is empty."


def test_escapes_and_line_ends_in_fields_cannot_disturb_a_screen() -> None:
    hostile = message(
        b"From: =?utf-8?b?G1szMW1yZWQ=?= <x@x>\r\n"
        b"Subject: =?utf-8?b?YQ0KQmNjOiBldmlsAAc=?=\r\n"
        b"X: \x1b[2J\x07\x9b\r\n\r\n\x1b]0;title\x07 \xe2\x80\xae abc\r\n"
    )
    for text in (str(hostile), repr(hostile), str(Mailbox([hostile]))):
        assert all(c == "\n" or c.isprintable() for c in text), text
    assert len(str(Mailbox([hostile])).splitlines()) == 1
    assert len(repr(hostile).splitlines()) == 1


@pytest.mark.parametrize(
    "subject",
    [
        b"\xff\xfe",
        b"=?utf-8?b?/////w==?=",
        b"=?no-such-charset?q?abc?=",
        b"=?utf-8?q?",
        b"=?utf-8?b?a?=",
        b"=?utf-8?q?=ED=B3=BF?=",
        b"\x00",
        b"a\rb",
        b"x" * 100_000,
    ],
)
def test_any_subject_can_be_shown(subject: bytes) -> None:
    shown = message(b"Subject: " + subject + b"\r\n\r\n")
    for text in (str(shown), repr(shown), str(Mailbox([shown]))):
        assert text.encode("utf-8")


def test_any_octets_can_be_shown() -> None:
    chance = random.Random(5321)
    pieces = [bytes([octet]) for octet in b'<>@"\\()[]:;,. a=?\xff\x00\x1b\r\n']
    pieces += [b"From: ", b"Subject: ", b"Date: ", b"\r\n", b"=?utf-8?q?", b"=?x?b?", b"?=", b"=E9"]
    for _ in range(3000):
        octets = b"".join(chance.choices(pieces, k=chance.randrange(40)))
        shown = message(chance.choice((b"From: ", b"Subject: ", b"")) + octets)
        for text in (str(shown), repr(shown), str(Mailbox([shown]))):
            assert all(c == "\n" or c.isprintable() for c in text), octets


NESTING = {
    "multipart": b"Content-Type: multipart/mixed; boundary=%d\r\n\r\n--%d\r\n",
    "message": b"X-Level: %d/%d\r\nContent-Type: message/rfc822\r\n\r\n",
}


@pytest.mark.parametrize("kind", NESTING)
def test_however_deeply_it_nests_a_message_is_taken_apart_as_far_as_is_sane(kind: str) -> None:
    levels = b"".join(NESTING[kind] % (n, n) for n in range(10_000))
    ends = b"".join(b"\r\n--%d--\r\n" % n for n in reversed(range(10_000)))
    octets = b"Subject: deep\r\n" + levels + b"\r\nhi\r\n" + ends * (kind == "multipart")
    email = message(octets).email
    assert email["Subject"] == message(octets)["Subject"] == "deep"
    parts = list(email.walk())
    assert len(parts) == 101
    assert {part.get_content_maintype() for part in parts[:-1]} == {kind}
    assert not parts[-1].is_multipart()
    assert "hi" in parts[-1].get_content()
    assert email.as_bytes(policy=SMTP) == octets


def test_a_very_long_field_is_given_as_it_came() -> None:
    word = "=?utf-8?q?=3Cb=3E?="
    assert message(f"Subject: {word}\r\n\r\n".encode())["Subject"] == "<b>"
    assert message(f"Subject: {f'{word} ' * 50_000}\r\n\r\n".encode())["Subject"].startswith(word)


MENU = EmailMessage(policy=SMTP)
MENU["Subject"] = "Menu"
MENU.set_content("Lunch?\nAt noon?\n")
MENU.add_alternative("<p>Lunch?</p>\n", subtype="html")
MENU.add_attachment(b"\x00\xff" * 3, maintype="image", subtype="png", filename="menü.png")


@pytest.mark.parametrize("line_end", [b"\r\n", b"\n"])
def test_text_html_and_attachments_are_what_was_sent(line_end: bytes) -> None:
    menu = message(MENU.as_bytes().replace(b"\r\n", line_end))
    assert menu.text.rstrip("\n") == "Lunch?\nAt noon?"
    assert menu.html.rstrip("\n") == "<p>Lunch?</p>"
    (image,) = menu.attachments
    assert (image.name, image.type, image.octets) == ("menü.png", "image/png", b"\x00\xff" * 3)
    assert repr(image) == "<Attachment 'menü.png': image/png, 6 octets>"


@pytest.mark.parametrize(
    ("octets", "text", "html", "attached"),
    [
        (b"\r\nonly text", "only text", "", []),
        (b"Content-Type: text/html\r\n\r\n<p>", "", "<p>", []),
        (b"Content-Type: text/calendar\r\n\r\nBEGIN", "BEGIN", "", []),
        (b"Content-Type: application/pdf\r\n\r\n%PDF", "", "", ["application/pdf"]),
        (b"Content-Disposition: attachment; filename=a.txt\r\n\r\nfile", "", "", ["text/plain"]),
        (b"Content-Type: multipart/mixed; boundary=b\r\n\r\nnever", "never", "", []),
        (
            b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhere\r\n--b\r\n"
            b"Content-Type: message/rfc822\r\n\r\nSubject: in\r\n\r\ninner\r\n--b--\r\n",
            "here",
            "",
            ["message/rfc822"],
        ),
    ],
)
def test_a_message_without_one_of_them_has_an_empty_one(
    octets: bytes, text: str, html: str, attached: list[str]
) -> None:
    shown = message(octets)
    assert (shown.text, shown.html) == (text, html)
    assert [one.type for one in shown.attachments] == attached


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"<1641082187.abc;;eefgij@shop.example>", "<1641082187.abc;;eefgij@shop.example>"),
        (b"<a b@shop.example>", "<a b@shop.example>"),
        (b"<a@b> (c) <d@e>", "<a@b> (c) <d@e>"),
        (b"a" * 100_000, "a" * 100_000),
        (b"=?x-no?q?a?= =?utf-8?q?=C3=A9?=", "=?x-no?q?a?= é"),
        (b"raw \xe9", "raw é"),
        (b"None", "None"),
        (b"", ""),
        (b"[", "["),
        (b'"unclosed <a@b', '"unclosed <a@b'),
    ],
)
@pytest.mark.parametrize("name", ["Message-ID", "From", "Date", "Content-Type", "X-Own"])
def test_a_field_is_given_as_it_came(name: str, field: bytes, value: str) -> None:
    came = message(name.encode() + b": " + field + b"\r\n\r\n")
    assert came[name] == value
    assert came["Absent"] is came["not a name"] is came[""] is None
    if name in ("Message-ID", "Content-Type", "X-Own") and b"=?" not in field:
        assert str(came.email[name]) == value


def test_one_huge_field_does_not_hide_another() -> None:
    for huge in (b"Content-Type: a/b" + b"; a=b" * 200_000, b"To: " + b"(" * 1_000_000):
        shown = message(huge + b"\r\nSubject: x\r\n\r\n")
        assert shown["Subject"] == shown.email["Subject"] == "x"
        name, _, value = huge.decode().partition(": ")
        assert shown[name] == str(shown.email[name]) == value


HUGE = {
    "parts": lambda n: (
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * n
    ),
    "depth": lambda n: b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" * n,
    "parameters": lambda n: (
        b"Content-Type: a/b" + b"".join(b"; n%d=x" % i for i in range(n)) + b"\r\n\r\n"
    ),
    "one parameter": lambda n: b'Content-Type: a/b; x="' + b";" * n + b'"\r\n\r\n',
    "pieces": lambda n: (
        b"Content-Disposition: attachment"
        + b"".join(b"; filename*%d=x" % i for i in range(n))
        + b"\r\n\r\n"
    ),
    "fields": lambda n: b"a: b\r\n" * n + b"\r\n",
}


@pytest.mark.long
@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", HUGE)
def test_taking_a_message_apart_costs_no_more_than_its_size(kind: str) -> None:
    def ask(octets: bytes) -> None:
        for part in message(octets).email.walk():
            part.get_content_type(), part.get_filename(), part.get_content_charset()
            part.get_boundary(), part.is_attachment(), part["Subject"]
        message(octets)["Subject"]
        _ = message(octets).attachments

    ask(HUGE[kind](10))
    small, large = (steps(lambda n=n: ask(HUGE[kind](n))) for n in (10_000, 20_000))
    assert large <= 2.5 * small + 1_000
    ask(HUGE[kind](300_000))


def test_what_email_does_not_take_apart_is_text_and_nothing_is_lost() -> None:
    many = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * 3_000
    taken = message(many + b"--b--\r\n").email
    *_, last = taken.walk()
    assert len(list(taken.walk())) == 1_002
    assert last.get_content_type() == "text/plain"
    assert taken.as_bytes(policy=SMTP) == many + b"--b--\r\n"
    long = b"X-Long: " + b"word " * 2_000 + b"\r\nTo: a@b.example\r\n\r\nx\r\n"
    assert message(long).email.as_bytes(policy=SMTP) == long


def test_email_gives_the_parts_that_came() -> None:
    report = (
        b"Subject: x\r\nContent-Type: multipart/report; boundary=b\r\n\r\nbefore\r\n--b\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n\r\n\xc3\xa9\r\n--b\r\n"
        b"Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; a\r\n\r\n"
        b"Final-Recipient: rfc822; b@c\r\nAction: failed\r\n\r\n--b\r\n"
        b'Content-Type: a/b; name="=?utf-8?q?=C3=A9.pdf?="\r\n\r\nx\r\n--b--\r\nafter\r\n'
    )
    taken = message(report).email
    assert [part.get_content_type() for part in taken.walk()] == [
        part.get_content_type() for part in email.message_from_bytes(report, policy=SMTP).walk()
    ]
    text, status, file = taken.iter_parts()
    assert text.get_content() == "é"
    assert [block["Action"] for block in status.get_payload()] == [None, "failed"]
    assert file.get_filename() == "é.pdf"
    assert (taken.preamble, taken.epilogue) == ("before", "after\r\n")
    assert taken.as_bytes(policy=SMTP) == report


@pytest.mark.parametrize(
    ("octets", "said"),
    [
        (b"a\r\n" * 5_000, "(4,000 more lines not shown)"),
        (b"a\n" * 1_001, "(1 more line not shown)"),
        (b"\n" * 30_000_000, "(29,999,000 more lines not shown)"),
        (b"x" * 10_000, "… (9,000 more octets)"),
        (b"\r" * 30_000_000, "… (29,999,000 more octets)"),
    ],
    ids=range(5),
)
def test_what_print_leaves_out_is_said(octets: bytes, said: str) -> None:
    text = str(message(octets))
    assert text.endswith(said)
    assert len(text) < 10_000
    assert "not shown" not in str(message(b"a\r\n" * 1_000))
