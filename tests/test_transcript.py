"""A session as text: what was said, honest, and safe to show."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest

from labserver.catalog import load
from labserver.dialogue import dialogue
from labserver.transcript import (
    MASK,
    VERBS,
    Line,
    LineKind,
    ProtocolName,
    Record,
    Session,
    Side,
    readable,
)


def line(
    who: Side,
    data: bytes,
    kind: LineKind = "command",
    *,
    tls: bool = False,
    octets: int | None = None,
    secret: tuple[int, int] | None = None,
) -> Line:
    return Line(0, who, data, tls, kind, len(data) if octets is None else octets, secret)


def session(
    protocol: ProtocolName,
    *lines: Line,
    closed: bool = True,
    ending: str = "",
    dropped: int = 0,
    records: tuple[Record, ...] = (),
) -> Session:
    started = datetime(2026, 1, 1, tzinfo=UTC)
    return Session(7, protocol, "test", started, lines, records, 1.0, closed, "", ending, dropped)


def said(protocol: ProtocolName, script: str) -> Session:
    """A session from a script of `C: …` and `S: …`."""
    cutter = dialogue(protocol)
    for row in filter(None, map(str.strip, script.splitlines())):
        who, _, text = row.partition(":")
        cutter.feed(0, "C" if who == "C" else "S", text[1:].encode() + b"\r\n", False)
    return session(protocol, *cutter.lines, *cutter.rest())


def rows(of: Session, **options: bool | int) -> list[str]:
    """The text's rows behind its heading."""
    return of.text(**options).split("\n")[1:]  # type: ignore[arg-type]


# -- as it was said


def test_the_text_names_protocol_and_listener_first() -> None:
    assert session("SMTP").text() == "SMTP on test"
    assert str(session("POP3")) == "POP3 on test"


ODD = {
    "SMTP": "S: 220 hi\nC: ehlo my-laptop\nC: eHlO  [IPv6:2001:db8::1]\nS: 250 hi\n"
    "C: mail FROM:<a@b> size=9 Body=8BIT\nC: Received: from me; 3 Nov 2026 01:02:03 GMT\n"
    "C:   QUIT ",
    "POP3": "S: +OK\nC: user  Ana\nC: retr 1\nS: -ERR at Tue, 3 Nov 2026 01:02:03 GMT",
    "IMAP": "S: * OK\nC: KPFJ1 nooP\nS: KPFJ1 OK\nS: + \nC: idle Uid fetch 1 (FLAGS)",
}


@pytest.mark.parametrize("protocol", ODD)
def test_it_shows_what_was_said(protocol: ProtocolName) -> None:
    expected = [row.strip("\n") for row in ODD[protocol].split("\n")]
    of = said(protocol, ODD[protocol])
    lines = [(line.who, line.data.decode().removesuffix("\r\n")) for line in of.lines]
    assert rows(of) == [f"{who}: {text}" for who, text in lines]
    assert [text.rstrip() for text in rows(of)] == [row.rstrip() for row in expected]
    assert list(of.texts()) == [text for _, text in lines]


def test_message_content_is_shown_as_it_was_said() -> None:
    text = (
        "Received: from me by x; Mon, 02 Nov 2026 10:11:12 +0000\r\n"
        "Date: Tue, 3 Nov 2026 01:02:03 GMT\r\nMessage-ID: <my@own>\r\n"
        "Content-Type: multipart/mixed; boundary================123==\r\n\r\nGrüße \r\n"
    )
    of = session("SMTP", line("C", text.encode(), "content"))
    assert "\r\n".join(row.removeprefix("C:").removeprefix(" ") for row in rows(of)) == text[:-2]


def test_lines_are_numbered_from_one_where_that_is_wanted() -> None:
    content = line("C", b"Subject: x\r\n\r\nHi\r\n", "content")
    spoken = [line("S", b"250-a\r\n", "reply"), line("S", b"250 b\r\n", "reply")] * 4
    of = session("SMTP", *spoken, content, line("C", b".\r\n", "end", tls=True))
    assert rows(of, numbers=True)[6:] == [
        " 7 S: 250-a",
        " 8 S: 250 b",
        " 9 C: Subject: x",
        "   C:",
        "   C: Hi",
        "-- TLS from here on --",
        "10 C: .",
    ]


@pytest.mark.parametrize("kind", ["command", "reply", "content", "credentials", "end"])
@pytest.mark.parametrize(
    "letter", [b"x", b"\xff", "é".encode(), "漢".encode(), b"\x00", b"\n", b"<"]
)
def test_a_very_long_line_is_cut_and_says_how_much_is_left_out(
    kind: LineKind, letter: bytes
) -> None:
    sizes = []
    for many in (200_000, 400_000, 800_000):
        data = letter * (many // len(letter))
        (row,) = rows(session("SMTP", line("C", data, kind)))
        shown, _, told = row.removeprefix("C: ").rpartition(" … ")
        left = int(told.removesuffix(" octets more").replace(",", ""))
        whole = readable(data)
        assert whole.startswith(shown)
        assert readable(data[: len(data) - left]) == shown
        sizes.append(len(row))
    assert max(sizes) <= 10_003
    assert min(sizes) > 7_000


def test_a_line_that_fits_is_whole() -> None:
    for text in ("x" * 10_000, "漢" * 10_000):
        assert rows(session("SMTP", line("C", text.encode() + b"\r\n"))) == [f"C: {text}"]
    for most in range(1, 60):
        for text in ("x" * 50, "é漢" * 10, "\x00" * 9, "🙂" * 12):
            shown = readable(text.encode(), most)
            assert len(shown) <= max(most, 24)
            assert shown == readable(text.encode()) or shown.endswith(" more")


# -- in normal form


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs are stored and compared here."""
    monkeypatch.setenv("LABSERVER_OUTPUT", "normal")


@pytest.mark.usefixtures("stored")
def test_what_clients_choose_has_a_normal_form() -> None:
    one = said(
        "SMTP", "S: 220 hi\nC: ehlo my-laptop\nS: 250 hi\nC: mail FROM:<a@b> size=9 Body=8BIT"
    )
    two = said(
        "SMTP", "S: 220 hi\nC: EHLO [127.0.0.1]\nS: 250 hi\nC: MAIL from:<a@b> SIZE=9 body=8BIT"
    )
    assert one.text() == two.text()
    assert rows(one)[1] == "C: EHLO client.example"
    assert rows(one)[3] == "C: MAIL FROM:<a@b> SIZE=9 BODY=8BIT"
    assert rows(one, exact=True)[1] == "C: ehlo my-laptop"
    assert rows(one, exact=True)[3] == "C: mail FROM:<a@b> size=9 Body=8BIT"
    assert one.texts("said")[1] == "ehlo my-laptop"


@pytest.mark.usefixtures("stored")
def test_imap_tags_are_numbered_in_their_order() -> None:
    random_tags = said("IMAP", "S: * OK\nC: KPFJ1 noop\nS: KPFJ1 OK\nC: KPFJ2 logout\nS: KPFJ2 OK")
    assert rows(random_tags) == ["S: * OK", "C: a1 NOOP", "S: a1 OK", "C: a2 LOGOUT", "S: a2 OK"]
    assert rows(random_tags, exact=True)[1] == "C: KPFJ1 noop"


@pytest.mark.usefixtures("stored")
def test_dates_boundaries_and_message_ids_have_a_normal_form() -> None:
    def body(date: str, boundary: str, name: str) -> Session:
        head = (
            f"Received: from {name} by x; {date}\r\nDate: {date}\r\nMessage-ID: <{name}@{name}>\r\n"
        )
        text = f"{head}Content-Type: multipart/mixed; boundary={boundary!r}\r\n\r\n--{boundary}\r\n"
        return session("SMTP", line("C", text.encode(), "content"))

    one = body("Mon, 02 Nov 2026 10:11:12 +0000", "===============123==", "one.example")
    two = body("Tue, 3 Nov 2026 01:02:03 GMT", "===============456789==", "two.example")
    assert one.text() == two.text()
    assert one.text(exact=True) != two.text(exact=True)
    assert "(date)" in one.text()


@pytest.mark.parametrize("value", ["NORMAL", "1", "exact", " normal", "x" * 10_000])
def test_another_form_is_refused_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("LABSERVER_OUTPUT", value)
    with pytest.raises(
        ValueError, match=r"\ALABSERVER_OUTPUT is '[^\n]{1,60}; [^\n]+\.\Z"
    ) as caught:
        str(session("SMTP"))
    assert len(str(caught.value)) < 250
    assert session("SMTP").text(exact=True) == "SMTP on test"


def test_an_empty_value_is_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABSERVER_OUTPUT", "")
    assert rows(said("SMTP", "S: 220 hi\nC: ehlo me"))[1] == "C: ehlo me"


# -- honest


def test_tls_is_marked_where_it_begins() -> None:
    of = session("SMTP", line("C", b"STARTTLS\r\n"), *[line("C", b"NOOP\r\n", tls=True)] * 2)
    assert rows(of) == ["C: STARTTLS", "-- TLS from here on --", "C: NOOP", "C: NOOP"]


def test_how_it_ended_is_said() -> None:
    assert rows(session("SMTP", ending="the client went away")) == ["-- the client went away --"]
    assert rows(session("SMTP", closed=False)) == ["-- still open --"]
    assert rows(session("SMTP", dropped=1234)) == ["-- 1,234 octets more, counted but not kept --"]


def test_a_long_body_is_cut_and_says_so() -> None:
    data = b"".join(b"line %d\r\n" % n for n in range(50))
    of = session("SMTP", line("C", data, "content", octets=99_999))
    told = rows(of)
    assert told[39:] == [
        "C: line 39",
        "   [10 more lines of this message not shown]",
        f"   [99,999 octets in all; the transcript keeps the first {len(data)}]",
    ]
    assert len(rows(of, body_lines=3)) == 5
    assert len(rows(session("SMTP", line("C", data, "content")), body_lines=50)) == 50


def test_line_ends_that_are_not_crlf_are_made_visible() -> None:
    assert rows(session("SMTP", line("C", b"NOOP\n"))) == ["C: NOOP\\n"]
    assert rows(session("SMTP", line("C", b"a\nb\r\n.\r\n", "content"))) == ["C: a\\nb", "C: ."]


def test_octets_and_round_trips_are_counted() -> None:
    records = (Record(0, "S", "plain", 20), Record(0, "C", "handshake", 300))
    of = session("SMTP", records=records)
    assert (of.octets(), of.octets("S"), of.octets("C")) == (320, 20, 300)
    talk = said(
        "SMTP", "S: 220\nC: MAIL FROM:<>\nC: RCPT TO:<a@b>\nS: 250\nS: 250\nC: QUIT\nS: 221"
    )
    assert talk.round_trips == 2


def test_things_show_themselves_shortly() -> None:
    assert repr(session("SMTP", closed=False)) == "<Session 7: SMTP on test, open>"
    assert repr(line("S", b"220 hi\r\n")) == "<S: 220 hi\\r\\n>"
    assert repr(Record(0, "C", "handshake", 300)) == "<C: handshake, 300 octets>"
    assert line("C", b"x", octets=2).shortened
    assert not line("C", b"x").shortened


# -- secrets

PASSWORD = "correct horse"


@pytest.mark.parametrize(
    ("protocol", "script", "hidden", "shown"),
    [
        ("SMTP", "S: 220\nC: AUTH PLAIN AGEAYg==", "AGEAYg==", f"C: AUTH PLAIN {MASK}"),
        ("SMTP", "S: 220\nC: AUTH PLAIN\nS: 334 \nC: AGEAYg==", "AGEAYg==", f"C: {MASK}"),
        ("POP3", f"S: +OK\nC: pass {PASSWORD}", PASSWORD, f"C: pass {MASK}"),
        ("POP3", "S: +OK\nC: APOP ana c4c9334b", "c4c9334b", f"C: APOP ana {MASK}"),
        ("IMAP", f'S: * OK\nC: x LOGIN ana "{PASSWORD}"', PASSWORD, f"C: x LOGIN ana {MASK}"),
        ("IMAP", f'S: * OK\nC: x LOGIN "ana" "{PASSWORD}"', PASSWORD, f'C: x LOGIN "ana" {MASK}'),
    ],
)
def test_passwords_are_masked_unless_asked_for(
    protocol: ProtocolName, script: str, hidden: str, shown: str
) -> None:
    of = said(protocol, script)
    assert shown in rows(of)
    for text in (of.text(), of.text(exact=True), str(of), repr(of), repr(of.lines)):
        assert hidden not in text
    assert hidden in of.text(reveal=True)


def test_the_mask_tells_nothing_of_the_length() -> None:
    short, long = (said("POP3", f"S: +OK\nC: PASS {'x' * n}") for n in (1, 500))
    assert short.text() == long.text()


# -- safe to show


def test_octets_become_text_that_disturbs_no_screen() -> None:
    assert readable("Grüße ☕".encode()) == "Grüße ☕"
    assert readable(b"\xff\x1b[31m\x00\t") == "\\xff\\x1b[31m\\x00\\t"
    assert readable("\u202eevil\u2028".encode()) == "\\u202eevil\\u2028"


def test_no_octets_can_forge_a_row_of_the_text() -> None:
    kinds: tuple[LineKind, ...] = ("command", "reply", "credentials", "content", "end")
    forged = b"x\r\nS: 250 forged\r\n-- TLS from here on --\n\x85\x0b\xe2\x80\xa8\r"
    for protocol in ("SMTP", "POP3", "IMAP"):
        for kind in kinds:
            of = session(protocol, line("C", forged, kind))  # type: ignore[arg-type]
            for reveal in (False, True):
                for row in rows(of, reveal=reveal):
                    assert row.startswith("C:"), (kind, row)
                    assert row.isprintable()


@pytest.mark.parametrize("protocol", ["SMTP", "POP3", "IMAP"])
def test_any_octets_can_be_shown(protocol: ProtocolName) -> None:
    kinds: tuple[LineKind, ...] = ("command", "reply", "credentials", "content", "end")
    for seed in range(200):
        source = random.Random(seed)
        lines = []
        for _ in range(20):
            data = source.randbytes(source.randrange(30)) + source.choice((b"", b"\r\n", b"\n"))
            secret = (0, len(data)) if source.random() < 0.2 else None
            lines.append(line(source.choice(("C", "S")), data, source.choice(kinds), secret=secret))
        of = session(protocol, *lines)
        for options in ({}, {"reveal": True}, {"exact": True}):
            assert all(row.isprintable() for row in rows(of, **options))
        assert len(of.texts()) == len(of.texts("normal")) == len(lines)


def test_the_verbs_are_the_catalogs() -> None:
    for protocol in ("SMTP", "POP3"):
        commands = load(protocol).commands.values()
        assert VERBS[protocol] == {command.verb.split()[0] for command in commands if command.typed}


def test_a_line_that_is_no_command_is_shown_as_it_was() -> None:
    assert "C: line three" in str(session("SMTP", line("C", b"line three\r\n")))
