"""Reads an inbox as a mail program does, over IMAP or POP3, and tells what came of it.

Each action is a session of its own: it logs in, does one thing and says goodbye.
"""

from __future__ import annotations

import contextlib
import imaplib
import poplib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from labserver.lab import Lab, LabError
from labserver.message import Message
from labserver.network import NetworkError
from labserver.notebook.widgets.sending import SECONDS, Done, caused, connection_lost, last_number
from labserver.transcript import readable

By = Literal["IMAP", "POP3"]
Flag = Literal["\\Seen", "\\Flagged"]

MOST = 50
"""Messages that are listed: the latest ones."""

_NO_DATE = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Entry:
    """One message of a list, as the protocol tells of it."""

    key: str
    """Its UID (IMAP) or its unique id (POP3)."""
    number: int
    sender: str
    subject: str
    octets: int
    flags: frozenset[str] = frozenset()
    """Empty over POP3, which knows none."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The latest messages, oldest first, and how many there are in all."""

    done: Done
    entries: tuple[Entry, ...] = ()
    total: int = 0

    def flagged(self, key: str, flag: Flag, on: bool) -> Listing:
        """The same with that flag of one message set, or taken off."""
        return replace(
            self,
            entries=tuple(
                replace(one, flags=one.flags | {flag} if on else one.flags - {flag})
                if one.key == key
                else one
                for one in self.entries
            ),
        )

    def without(self, key: str) -> Listing:
        """The same without one message; those behind it move up (RFC 3501 section 7.4.1)."""
        gone = next((one.number for one in self.entries if one.key == key), None)
        if gone is None:
            return self
        left = [one for one in self.entries if one.key != key]
        moved = (replace(one, number=one.number - (one.number > gone)) for one in left)
        return Listing(self.done, tuple(moved), self.total - 1)


class _Refused(Exception):
    """It can't be done; the text is one sentence."""


def look(lab: Lab, address: str, by: By) -> Listing:
    """List the latest messages."""
    found: list[Entry] = []
    total = 0

    def ask(client: Any) -> str:
        nonlocal total
        total = _list_imap(client, found) if by == "IMAP" else _list_pop3(client, found)
        if not total:
            return "The inbox is empty."
        latest = f", the latest {MOST} listed" if total > MOST else ""
        return f"{total:,} message{'' if total == 1 else 's'}{latest}."

    done = _session(lab, address, by, ask)
    return Listing(done, tuple(found), total) if done.well else Listing(done)


def read(lab: Lab, address: str, by: By, key: str) -> tuple[Done, Message | None]:
    """Fetch one message whole. IMAP then knows it as seen (RFC 3501 section 6.4.5)."""
    octets = b""

    def ask(client: Any) -> str:
        nonlocal octets
        if by == "IMAP":
            octets = _literal(_ok(client.uid("FETCH", key, "(BODY[])")))
        else:
            number = _number(client, key)
            octets = b"\r\n".join(client.retr(number)[1]) + b"\r\n"
        return f"Fetched: {len(octets):,} octets."

    done = _session(lab, address, by, ask)
    if not done.well:
        return done, None
    try:
        kept = next((one for one in lab.inbox(address) if one.octets == octets), None)
    except (LabError, NetworkError):
        kept = None
    # Whoever reads over POP3 or IMAP isn't told the envelope; the lab still has it.
    return done, kept or Message(octets, 0, lab.network.clock.now(), frozenset(), None)


def mark(lab: Lab, address: str, key: str, flag: Flag, on: bool) -> Done:
    """Set a flag or take it off (RFC 3501 section 6.4.6); only IMAP has flags."""

    def ask(client: Any) -> str:
        _ok(client.uid("STORE", key, f"{'+' if on else '-'}FLAGS", f"({flag})"))
        return f"{flag} is {'set' if on else 'taken off'}."

    return _session(lab, address, "IMAP", ask)


def delete(lab: Lab, address: str, by: By, key: str) -> Done:
    """Remove one message for good."""

    def ask(client: Any) -> str:
        if by == "POP3":
            client.dele(_number(client, key))
            return "Deleted: POP3 removes it when the client says QUIT."
        _ok(client.uid("STORE", key, "+FLAGS", r"(\Deleted)"))
        if "UIDPLUS" in client.capabilities:
            _ok(client.uid("EXPUNGE", key))
        else:
            _ok(client.expunge())
        return "Deleted: marked with \\Deleted, then expunged."

    return _session(lab, address, by, ask)


# -- a session


def _session(lab: Lab, address: str, by: By, ask: Callable[[Any], str]) -> Done:
    """Log in, ask one thing, say goodbye."""
    if address not in lab.accounts:
        return Done(lab.no_account(address), False)
    listener = by.lower()
    before = last_number(lab)
    try:
        with _imap(lab, address) if by == "IMAP" else _pop3(lab, address) as client:
            sentence = ask(client)
    except (LabError, NetworkError) as error:
        return Done(str(error), False)
    except _Refused as error:
        return Done(str(error), False, caused(lab, listener, before))
    except (imaplib.IMAP4.abort, EOFError, OSError) as error:
        lost = error.__context__ if isinstance(error.__context__, TimeoutError) else error
        return Done(connection_lost(lost), False, caused(lab, listener, before))
    except (imaplib.IMAP4.error, poplib.error_proto) as error:
        return Done(_refusal(error), False, caused(lab, listener, before))
    return Done(sentence, True, caused(lab, listener, before))


@contextlib.contextmanager
def _imap(lab: Lab, address: str) -> Iterator[imaplib.IMAP4]:
    client = imaplib.IMAP4(*lab.imap, timeout=SECONDS)
    try:
        if lab.can.tls:
            client.starttls(lab.tls)
        client.login(address, lab.accounts[address])
        _ok(client.select("INBOX"))
        yield client
    finally:
        with contextlib.suppress(imaplib.IMAP4.error, OSError):
            client.logout()
        with contextlib.suppress(OSError):
            client.shutdown()  # which a failed LOGOUT leaves out


@contextlib.contextmanager
def _pop3(lab: Lab, address: str) -> Iterator[poplib.POP3]:
    client = poplib.POP3(*lab.pop3, timeout=SECONDS)
    try:
        if lab.can.tls:
            client.stls(lab.tls)
        client.user(address)
        client.pass_(lab.accounts[address])
        yield client
        client.quit()
    except BaseException:
        with contextlib.suppress(poplib.error_proto, EOFError, OSError):
            client.quit()
        raise
    finally:
        client.close()


def _refusal(error: Exception) -> str:
    said = error.args[0] if error.args else ""
    if isinstance(said, bytes):
        return f"The server refused: {_reply_text(said)}"
    if "EOF" in str(said):  # so poplib says that the connection is gone
        return connection_lost(error)
    return f"The client gave up: {_reply_text(said)}."


def _reply_text(said: Any) -> str:
    octets = said if isinstance(said, bytes) else str(said).encode("utf-8", "backslashreplace")
    return readable(octets.strip())[:300]


# -- IMAP


def _ok(answer: tuple[str, list[Any]]) -> list[Any]:
    status, data = answer
    if status != "OK":
        raise _Refused(f"The server refused: {_reply_text(data[0] if data else b'')}")
    return data


def _list_imap(client: imaplib.IMAP4, found: list[Entry]) -> int:
    total = int(client.response("EXISTS")[1][0] or 0)  # what SELECT was answered
    if total:
        wanted = "(UID FLAGS RFC822.SIZE BODY.PEEK[HEADER.FIELDS (FROM SUBJECT)])"
        first = max(1, total - MOST + 1)
        found += _entries(_ok(client.fetch(f"{first}:{total}", wanted)))
    return total


def _entries(data: list[Any]) -> Iterator[Entry]:
    """What imaplib makes of FETCH: pairs of what stands before a literal and the literal, and
    what stands behind it."""
    for index, item in enumerate(data):
        if not isinstance(item, tuple):
            continue
        after = data[index + 1] if index + 1 < len(data) else b""
        told = item[0] + b" " + (after if isinstance(after, bytes) else b"")
        uid, size = (re.search(rb"%s (\d+)" % name, told) for name in (b"UID", rb"RFC822\.SIZE"))
        flags = frozenset(flag.decode("ascii", "replace") for flag in imaplib.ParseFlags(told))
        number = int(item[0].split(maxsplit=1)[0])
        if uid and size:
            yield _entry(uid[1].decode(), number, item[1], int(size[1]), flags)


def _literal(data: list[Any]) -> bytes:
    literals = (bytes(item[1]) for item in data if isinstance(item, tuple))
    octets = next(literals, None)
    if octets is None:
        raise _Refused("That message is gone; list the inbox again.")
    return octets


# -- POP3


def _list_pop3(client: poplib.POP3, found: list[Entry]) -> int:
    sizes = {int(number): int(size) for number, size in map(bytes.split, client.list()[1])}
    for row in client.uidl()[1][-MOST:]:
        number, key = int(row.split()[0]), row.split()[1].decode("ascii", "replace")
        head = b"\r\n".join(client.top(number, 0)[1])
        found.append(_entry(key, number, head, sizes.get(number, 0)))
    return len(sizes)


def _number(client: poplib.POP3, key: str) -> int:
    """The number that a message has in this session (RFC 1939 section 7)."""
    for row in client.uidl()[1]:
        number, unique = row.split()[:2]
        if unique.decode("ascii", "replace") == key:
            return int(number)
    raise _Refused("That message is gone; list the inbox again.")


def _entry(
    key: str, number: int, head: bytes, octets: int, flags: frozenset[str] = frozenset()
) -> Entry:
    fields = Message(head, 0, _NO_DATE, frozenset(), None)
    return Entry(key, number, _field(fields["From"]), _field(fields["Subject"]), octets, flags)


def _field(value: str | None) -> str:
    return readable((value or "(none)").encode("utf-8", "backslashreplace"))[:200]
