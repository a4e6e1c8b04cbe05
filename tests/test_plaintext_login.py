"""Where a password is taken without TLS: `Lab(plaintext_login=…)` in all three protocols."""

from __future__ import annotations

import base64
import imaplib
import poplib
import smtplib
from collections.abc import Iterator

import pytest
from dialogue import Client, play, said

from labserver import Lab
from labserver.catalog import explain, legal
from labserver.network import Network

pytestmark = pytest.mark.protocol

ANA, PASSWORD = "ana@lab.example", "ana-lab-password"
PLAIN = base64.b64encode(f"\0{ANA}\0{PASSWORD}".encode()).decode()


@pytest.fixture
def strict(network: Network) -> Iterator[Lab]:
    with Lab(network=network, plaintext_login=False) as lab:
        yield lab


@pytest.fixture
def loose(network: Network) -> Iterator[Lab]:
    with Lab(network=network, plaintext_login=True) as lab:
        yield lab


def lines_of(lab: Lab, listener: str, *, until: bytes, said: bytes, tls: bytes = b"") -> list[str]:
    """The lines of one answer, after the greeting, and after TLS if that is how it is asked for."""
    client = Client(lab, listener)
    client.line()
    if tls:
        client.send(tls)
        client.line()
        client.start_tls()
    client.send(said)
    rows: list[bytes] = []
    while not rows or not rows[-1].startswith(until):
        rows.append(client.line())
        assert rows[-1]
    client.close()
    return [row.decode().rstrip("\r\n") for row in rows]


def capabilities(lab: Lab, listener: str, tls: bytes = b"") -> set[str]:
    if listener.startswith("pop3"):
        return set(lines_of(lab, listener, until=b".", said=b"CAPA\r\n", tls=tls)[1:-1])
    if listener.startswith("imap"):
        row = lines_of(lab, listener, until=b"*", said=b"a CAPABILITY\r\n", tls=tls)[0]
        return set(row.split()[2:])
    rows = lines_of(lab, listener, until=b"250 ", said=b"EHLO client.example\r\n", tls=tls)
    return {row[4:] for row in rows[1:]}


# -- which one it is


@pytest.mark.process
@pytest.mark.parametrize("given", [None, True, False])
def test_a_lab_tells_what_it_was_given(given: bool | None) -> None:
    with Lab(plaintext_login=given) as lab:
        assert lab.plaintext_login is given


@pytest.mark.parametrize("wrong", [1, 0, "", "yes", "True", (), [True], 1.0, b""])
def test_what_is_neither_is_refused_in_one_sentence(wrong: object) -> None:
    sentence = r"\ALab\(plaintext_login=…\) takes True, False or None, not .*\.\Z"
    with pytest.raises(TypeError, match=sentence):
        Lab(plaintext_login=wrong)  # type: ignore[arg-type]


# -- by default


def test_by_default_pop3_and_imap_take_passwords_and_smtp_does_not(lab: Lab) -> None:
    assert lab.plaintext_login is None
    assert {"USER", "SASL PLAIN", "STLS"} <= capabilities(lab, "pop3")
    assert {"AUTH=PLAIN", "STARTTLS"} <= capabilities(lab, "imap")
    assert "LOGINDISABLED" not in capabilities(lab, "imap")
    for listener in ("smtp", "submission"):
        assert not any(name.startswith("AUTH") for name in capabilities(lab, listener))
    play(
        lab,
        "submission",
        f"S: 220 ...\nC: AUTH PLAIN {PLAIN}\nS: 530 5.7.0 Must issue a STARTTLS command first",
    )


# -- False: nobody


def test_imap_says_logindisabled_until_there_is_tls(strict: Lab) -> None:
    before = capabilities(strict, "imap")
    assert {"LOGINDISABLED", "STARTTLS"} <= before
    assert not any(name.startswith("AUTH=") for name in before)
    for after in (capabilities(strict, "imap", b"s STARTTLS\r\n"), capabilities(strict, "imaps")):
        assert "AUTH=PLAIN" in after
        assert "LOGINDISABLED" not in after


@pytest.mark.parametrize(
    "login",
    [
        f"a LOGIN {ANA} {PASSWORD}",
        f'a LOGIN "{ANA}" "{PASSWORD}"',
        f"a LOGIN {ANA} wrong",
        f"a AUTHENTICATE PLAIN {PLAIN}",
        "a AUTHENTICATE PLAIN",
        f"a authenticate plain {PLAIN}",
    ],
)
def test_imap_refuses_a_password_without_tls(strict: Lab, login: str) -> None:
    session = play(
        strict,
        "imap",
        f"""
        S: * OK [... LOGINDISABLED] ...
        C: {login}
        S: a NO [PRIVACYREQUIRED] Plaintext authentication disallowed on non-secure ...
        C: b SELECT INBOX
        S: b BAD ...
        C: c STARTTLS
        S: c OK ...
        -- TLS
        C: d LOGIN {ANA} {PASSWORD}
        S: d OK ...
        C: e SELECT INBOX
        S: * ...
        """,
    )
    titles = [meaning.title for meaning in explain(session)]
    assert "You aren't logged in." in titles
    assert PASSWORD not in str(session)


def test_pop3_offers_no_login_until_there_is_tls(strict: Lab) -> None:
    before = capabilities(strict, "pop3")
    assert "STLS" in before
    assert not any(name.split()[0] in ("USER", "SASL") for name in before)
    for after in (capabilities(strict, "pop3", b"STLS\r\n"), capabilities(strict, "pop3s")):
        assert {"USER", "SASL PLAIN"} <= after


@pytest.mark.parametrize(
    "login", [f"USER {ANA}", f"PASS {PASSWORD}", "AUTH PLAIN", f"AUTH PLAIN {PLAIN}", "auth plain"]
)
def test_pop3_refuses_a_password_without_tls(strict: Lab, login: str) -> None:
    session = play(
        strict,
        "pop3",
        f"""
        S: +OK ...
        C: {login}
        S: -ERR [AUTH] Plaintext authentication disallowed on non-secure (SSL/TLS) connections.
        C: STAT
        S: -ERR log in before STAT
        C: STLS
        S: +OK ...
        -- TLS
        C: USER {ANA}
        S: +OK ...
        C: PASS {PASSWORD}
        S: +OK maildrop has ...
        C: QUIT
        S: +OK ...
        """,
    )
    told = dict(zip(session.lines, explain(session), strict=True))
    (refusal,) = [line for line in session.lines if b"[AUTH]" in line.data]
    assert "without TLS" in told[refusal].detail


def test_smtp_takes_none_without_tls_either(strict: Lab) -> None:
    for listener in ("smtp", "submission"):
        assert not any(name.startswith("AUTH") for name in capabilities(strict, listener))


def test_clients_that_use_tls_do_not_notice(strict: Lab) -> None:
    pop = poplib.POP3(*strict.pop3, timeout=10)
    with pytest.raises(poplib.error_proto, match="Plaintext authentication disallowed"):
        pop.user(ANA)
    pop.stls(strict.tls)
    pop.user(ANA)
    pop.pass_(PASSWORD)
    pop.quit()
    with imaplib.IMAP4(*strict.imap, timeout=10) as imap:
        with pytest.raises(imaplib.IMAP4.error, match="PRIVACYREQUIRED"):
            imap.login(ANA, PASSWORD)
        imap.starttls(strict.tls)
        imap.login(ANA, PASSWORD)


# -- True: SMTP as well


@pytest.mark.parametrize("listener", ["smtp", "submission"])
def test_smtp_offers_auth_without_tls(loose: Lab, listener: str) -> None:
    assert {"AUTH LOGIN PLAIN", "STARTTLS"} <= capabilities(loose, listener)
    assert "AUTH LOGIN PLAIN" in capabilities(loose, listener, b"STARTTLS\r\n")


@pytest.mark.parametrize("listener", ["smtp", "submission"])
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_mail_is_sent_with_a_password_that_anyone_can_read(
    loose: Lab, listener: str, mechanism: str
) -> None:
    name, password = (base64.b64encode(word.encode()).decode() for word in (ANA, PASSWORD))
    login = {
        "PLAIN": f"C: AUTH PLAIN {PLAIN}",
        "LOGIN": f"C: AUTH LOGIN\nS: 334 ...\nC: {name}\nS: 334 ...\nC: {password}",
    }
    session = play(
        loose,
        listener,
        "S: 220 ...\nC: EHLO client.example\n"
        + "S: 250-...\n" * 10
        + f"""
        S: 250 HELP
        {login[mechanism]}
        S: 235 2.7.0 Authentication successful
        C: MAIL FROM:<ben@lab.example>
        S: 553 5.7.1 <...>: Sender address rejected: not owned by user ana@lab.example
        C: MAIL FROM:<ana@lab.example>
        S: 250 2.1.0 OK
        C: RCPT TO:<ben@lab.example>
        S: 250 2.1.5 OK
        C: DATA
        S: 354 ...
        C: Subject: unsecured
        C:
        C: .
        S: 250 2.0.0 ...
        C: QUIT
        S: 221 ...
        """,
    )
    assert legal(session) == ()
    told = dict(zip(session.lines, explain(session), strict=True))
    (offer,) = [line for line in session.lines if line.data.startswith(b"250-AUTH")]
    assert "Offered without TLS" in told[offer].detail
    assert any("without TLS: anyone on the way" in meaning.title for meaning in told.values())
    (mail,) = loose.inbox("ben@lab.example")
    assert "with ESMTPA;" in mail["Received"]
    assert PASSWORD not in str(session)
    assert PLAIN not in str(session)


def test_on_smtp_strangers_still_bring_mail_without_login(loose: Lab) -> None:
    play(
        loose,
        "smtp",
        """
        S: 220 ...
        C: HELO client.example
        S: 250 ...
        C: MAIL FROM:<eve@far.example>
        S: 250 ...
        C: RCPT TO:<ben@lab.example>
        S: 250 ...
        C: RCPT TO:<somebody@far.example>
        S: 550 5.7.1 ...
        """,
    )


def test_on_submission_nobody_sends_without_login(loose: Lab) -> None:
    play(
        loose,
        "submission",
        """
        S: 220 ...
        C: HELO client.example
        S: 250 ...
        C: MAIL FROM:<ana@lab.example>
        S: 530 5.7.0 Authentication required
        """,
    )


def test_pop3_and_imap_are_as_by_default(loose: Lab) -> None:
    assert {"USER", "SASL PLAIN", "STLS"} <= capabilities(loose, "pop3")
    assert {"AUTH=PLAIN", "STARTTLS"} <= capabilities(loose, "imap")


@pytest.mark.parametrize("listener", ["smtp", "submission"])
def test_smtplib_logs_in_without_tls(loose: Lab, listener: str) -> None:
    with smtplib.SMTP(*loose.address(listener), timeout=10) as client:
        client.login(ANA, PASSWORD)
        client.sendmail(ANA, [ANA], b"Subject: to myself\r\n\r\n")
    assert len(loose.inbox(ANA)) == 1
    assert "AUTH" in said(loose.sessions[-1])
