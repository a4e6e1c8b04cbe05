"""A delivered message as plain data: it is hostile input and must show itself all the same."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from email.policy import SMTP

import pytest

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


def test_print_is_readable_and_the_same_on_any_day() -> None:
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
