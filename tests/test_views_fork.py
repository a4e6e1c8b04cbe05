"""A fork as HTML: both sessions, inert and without passwords."""

from __future__ import annotations

import re
import smtplib

from labserver import Lab, fork, show
from labserver.network.inline import InlineNetwork

HOSTILE = "HELO </code><script>alert(1)</script>"


def test_a_fork_is_shown_as_both_of_its_sessions() -> None:
    network = InlineNetwork()
    with Lab(network=network) as lab:
        with smtplib.SMTP(*lab.smtp) as client:
            client.helo("client.example")
        (session,) = lab.sessions
    network.close()
    shown = show(fork(session, 2, HOSTILE)).html
    assert shown.count("<section") == shown.count("</section>") == 2
    assert "&lt;script&gt;" in shown
    assert "<script" not in shown
    assert "Said again with that line, and nothing differs." in shown
    other = show(fork(session, 2, "EXPN all")).html
    assert "Line 2 is the first that differs." in other
    numbered = show(fork(session, 2, "EXPN all"), numbers=True)
    assert re.search(r'"number">2</span> (<mark>)?EXPN', numbered.html)
    assert "2 C: EXPN all" in numbered.text
    late = show(fork(session, len(session.lines) + 1, "NOOP", insert=True)).html
    assert "The changed line could not be said there." in late


def test_a_fork_shows_no_password() -> None:
    network = InlineNetwork()
    with Lab(network=network) as lab:
        with smtplib.SMTP_SSL("localhost", lab.submissions.port, context=lab.tls) as client:
            client.login("ana@lab.example", lab.accounts["ana@lab.example"])
        (session,) = lab.sessions
    network.close()
    assert "AGFuYUBsYWIuZXhhbXBsZQ" not in show(fork(session, 2, "HELO x")).html
