"""What somebody on the path sees."""

from __future__ import annotations

import imaplib
import poplib
import re
import smtplib
import ssl
from dataclasses import replace

import pytest
from dialogue import play
from inert import HOSTILE, inert, words

from labserver import Lab, Record, wire
from tests.steps import LINEAR, growth

PASSWORD = "ana-lab-password"


def test_without_tls_everything_can_be_read_but_the_password_is_masked_here(lab: Lab) -> None:
    client = poplib.POP3(*lab.pop3)
    client.user("ana@lab.example")
    client.pass_(PASSWORD)
    client.quit()
    view = wire(lab.sessions[-1])
    inert(view)
    assert PASSWORD not in view.html + view.text
    assert "the password could be read" in words(view)
    assert '<b class="masked">••••••••••••</b> hides a password here.' in view.html
    assert "-- •••••••••••• hides a password here; on the path it could be read --" in view.text


def test_a_revealed_password_is_there_in_plain_text(lab: Lab) -> None:
    session = play(
        lab, "pop3", f"S: ...\nC: USER ana@lab.example\nS: ...\nC: PASS {PASSWORD}\nS: ..."
    )
    view = wire(session, reveal=True)
    assert f"C: PASS {PASSWORD}" in view.text
    assert PASSWORD in view.html
    assert "hides a password" not in view.html + view.text


def test_base64_is_told_to_hide_nothing(lab: Lab) -> None:
    code = "AGFuYUBsYWIuZXhhbXBsZQBhbmEtbGFiLXBhc3N3b3Jk"
    session = play(
        lab, "imap", f"S: ...\nC: a AUTHENTICATE PLAIN\nS: + ...\nC: {code}\nS: a OK ..."
    )
    assert code not in wire(session).html
    assert PASSWORD in words(wire(session, reveal=True))
    assert "base64 of" in words(wire(session, reveal=True))


def test_under_tls_only_records_and_sizes_are_seen(lab: Lab) -> None:
    with smtplib.SMTP(*lab.submission, local_hostname="client.example") as client:
        client.starttls(context=lab.tls)
        client.login("ana@lab.example", PASSWORD)
        client.sendmail("ana@lab.example", ["ben@lab.example"], b"Subject: secret\r\n\r\n")
    session = lab.sessions[-1]
    view = wire(session, reveal=True)
    inert(view)
    for hidden in ("AUTH PLAIN", PASSWORD, "ben@lab.example", "secret"):
        assert hidden not in words(view) + view.text
    rows = view.text.split("\n")
    begins = next(i for i, row in enumerate(rows) if row.startswith("-- TLS handshake: "))
    assert rows[begins - 1] == "S: 220 2.0.0 Ready to start TLS"
    # TLS 1.3 adds 22 octets to each piece.
    said = next(line for line in session.lines if line.tls)
    assert rows[begins + 1] == f"C: [application data, {said.octets + 22} octets]"


@pytest.mark.parametrize("listener", ["submissions", "pop3s", "imaps"])
def test_with_tls_from_the_start_nothing_is_read(lab: Lab, listener: str) -> None:
    session = play(lab, listener, "S: ... ready")
    view = wire(session)
    assert "nothing could be read" in words(view)
    size = session.lines[0].octets + 22
    handshake, data = view.text.split("\n")[1:3]
    assert re.fullmatch(r"-- TLS handshake: \d+ records, [\d,]+ octets --", handshake)
    assert data == f"S: [application data, {size} octets]"


def test_the_records_are_all_there(lab: Lab) -> None:
    client = imaplib.IMAP4_SSL(*lab.imaps, ssl_context=lab.tls)
    client.logout()
    session = lab.sessions[-1]
    page = wire(session).html
    assert page.count('class="S tls"') + page.count('class="C tls"') + page.count("</li>") > len(
        session.records
    )
    for record in session.records:
        assert f"{record.octets:,}" in words(wire(session))


def test_a_broken_handshake_is_shown(lab: Lab) -> None:
    with pytest.raises(OSError, match="certificate verify failed"):
        smtplib.SMTP_SSL(*lab.submissions, context=ssl.create_default_context())
    view = wire(lab.sessions[-1])
    inert(view)
    assert "-- TLS handshake: " in view.text


def test_plain_text_where_tls_was_due_is_masked(lab: Lab) -> None:
    connection = lab.network.connect(lab.address("pop3s"), timeout=10)
    connection.sendall(f"PASS {PASSWORD}\r\n".encode())
    connection.makefile("rb").read()
    connection.close()
    session = lab.sessions[-1]
    assert PASSWORD not in wire(session).html + wire(session).text
    assert "23 octets in plain text that no server took as lines" in words(wire(session))
    assert PASSWORD in wire(session, reveal=True).html


def test_hostile_mail_is_inert(lab: Lab) -> None:
    with smtplib.SMTP(*lab.smtp, local_hostname="<script>") as client:
        client.sendmail("eve@evil.example", ["ben@lab.example"], HOSTILE)
    inert(wire(lab.sessions[-1]))
    inert(wire(lab.sessions[-1], reveal=True))


def test_two_machines_see_the_same_in_normal_form(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABSERVER_OUTPUT", "normal")
    views = []
    for _ in range(2):
        with smtplib.SMTP(*lab.submission, local_hostname="client.example") as client:
            client.starttls(context=lab.tls)
            client.ehlo()
        views.append(wire(lab.sessions[-1]))
    assert views[0] == views[1]
    assert "-- TLS handshake --" in views[0].text


def test_what_was_said_is_what_is_seen(lab: Lab) -> None:
    with smtplib.SMTP(*lab.smtp, local_hostname="[IPv6:2001:db8::1]") as client:
        client.sendmail("a@b.example", ["ben@lab.example"], b"Message-ID: <my@own>\r\n\r\ny\r\n")
    for text in (words(wire(lab.sessions[-1])), wire(lab.sessions[-1]).text):
        assert "ehlo [IPv6:2001:db8::1]" in text
        assert "mail FROM:<a@b.example> size=" in text
        assert "Message-ID: <my@own>" in text


def test_each_line_has_its_number_where_that_is_wanted(lab: Lab) -> None:
    session = play(
        lab, "smtp", "S: ...\nC: HELO x\nS: ...\nC! NOOP\\r\\nNOOP\\r\\n\nS: ...\nS: ..."
    )
    view = wire(session, numbers=True)
    inert(view)
    assert view.text.split("\n")[2] == "2 C: HELO x"
    assert re.findall(r'"number">(\d)</span> ', view.html) == [*"1234567"]


def test_twenty_thousand_records_are_shown_in_part_and_soon(lab: Lab) -> None:
    session = play(lab, "pop3s", "S: ...")
    many = (*session.records, *[Record(0, "C", "application data", 99)] * 20_000)
    view = wire(replace(session, records=many))
    assert growth(lambda count: wire(replace(session, records=many[:count])), 10_000) < LINEAR
    assert "more in the middle" in view.text
    assert len(view.html) < 100_000
