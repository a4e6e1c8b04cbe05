"""What a lab shows of itself."""

from __future__ import annotations

import imaplib
import re
import smtplib

import pytest
from inert import Checker

from labserver import Lab
from labserver.views.state import state


def test_the_text_is_the_same_on_every_machine(lab: Lab) -> None:
    with smtplib.SMTP(*lab.smtp) as client:
        client.sendmail("you@home.example", ["ben@lab.example"], "Subject: hi\r\n\r\nhi\r\n")
    with imaplib.IMAP4(*lab.imap, timeout=10) as client:
        client.starttls(lab.tls)
        client.login("ben@lab.example", lab.accounts["ben@lab.example"])
        client.create("Sent")
    assert str(state(lab)) == (
        "Lab lab.example\n"
        "Listeners:\n"
        "  smtp         Takes mail for the lab's accounts, as a mail exchanger does on port 25.\n"
        "  submission   Takes mail from the accounts' owners: STARTTLS, then AUTH, as on port 587."
        "\n"
        "  submissions  The same with TLS from the first octet, as on port 465.\n"
        "  pop3         POP3 with STLS, as on port 110.\n"
        "  pop3s        POP3 with TLS from the first octet, as on port 995.\n"
        "  imap         IMAP with STARTTLS, as on port 143.\n"
        "  imaps        IMAP with TLS from the first octet, as on port 993.\n"
        "Accounts:\n"
        "  ana@lab.example  INBOX 0\n"
        "  ben@lab.example  INBOX 1, Sent 0\n"
        "Sessions: 1 IMAP, 1 SMTP\n"
        "  1. SMTP on smtp\n"
        "  2. IMAP on imap"
    )


def test_ports_and_passwords_are_shown_when_asked_for(lab: Lab) -> None:
    told = str(state(lab, ports=True, passwords=True))
    assert f"127.0.0.1:{lab.pop3.port}" in told
    assert "password ana-lab-password" in told
    assert "ana-lab-password" not in str(state(lab)) + state(lab)._repr_html_()
    assert "ana-lab-password" in state(lab, passwords=True)._repr_html_()


def test_the_page_has_the_ports_but_not_in_normal_form(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = state(lab)._repr_html_()
    Checker(page)
    ports = re.findall(r"<code>127.0.0.1, (\d+)</code>", page)
    assert [int(port) for port in ports] == [address.port for address in lab.listeners.values()]
    assert "none so far" in page
    monkeypatch.setenv("LABSERVER_OUTPUT", "normal")
    assert state(lab)._repr_html_().count("<code>127.0.0.1, any free port</code>") == len(ports)


def test_only_the_last_sessions_are_listed(lab: Lab) -> None:
    for _ in range(10):
        lab.network.connect(lab.smtp).close()
    told = str(state(lab))
    assert "Sessions: 10 SMTP, the last ones\n  3. SMTP" in told
    assert told.endswith("10. SMTP on smtp: the client went away without a word")


@pytest.mark.process
def test_names_of_mailboxes_are_inert() -> None:
    with Lab() as lab:
        with imaplib.IMAP4(*lab.imap, timeout=10) as client:
            client.starttls(lab.tls)
            client.login("ben@lab.example", lab.accounts["ben@lab.example"])
            client.create("<script>")
        page = state(lab)._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt; 0" in page


def test_a_closed_lab_is_shown_as_such(lab: Lab) -> None:
    lab.network.connect(lab.smtp).close()
    assert len(lab.sessions) == 1
    lab.close()
    told = str(state(lab))
    assert told.startswith("Lab lab.example, closed\n")
    assert "Sessions: 1 SMTP" in told
    assert "<span>closed</span>" in state(lab)._repr_html_()
