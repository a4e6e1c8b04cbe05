"""What a lab is at this moment: where it listens, whose mail it keeps, what happened so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

from labserver import normal_form
from labserver.lab import Lab
from labserver.network import Address
from labserver.transcript import MASK, Session, readable
from labserver.views.card import card

_SESSIONS_SHOWN = 8


@dataclass(frozen=True, slots=True, repr=False)
class State:
    """A frozen picture of a lab. As text it has its ports only where they are asked for."""

    hostname: str
    closed: bool
    listeners: Mapping[str, Address]
    accounts: Mapping[str, str]
    """Addresses and passwords."""
    mailboxes: Mapping[str, Mapping[str, int]]
    """For each address its mailboxes and how many messages each holds."""
    sessions: tuple[Session, ...]
    ports: bool = False
    passwords: bool = False

    def __str__(self) -> str:
        rows = [f"Lab {self.hostname}{', closed' if self.closed else ''}", "Listeners:"]
        for name, (host, port) in self.listeners.items():
            where = f"{host}:{port}  " if self.ports else ""
            rows.append(f"  {name:12} {where}{_purpose(name)}".rstrip())
        rows.append(self._accounts_head)
        for address, password in self.accounts.items():
            secret = f"  password {password}" if self.passwords else ""
            rows.append(f"  {address}{secret}  {self._holds(address)}".rstrip())
        rows.append(f"Sessions: {self._count()}")
        for session in self.sessions[-_SESSIONS_SHOWN:]:
            rows.append(f"  {session.number}. {_session_line(session)}")
        return "\n".join(rows)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        listeners = [
            f"<code>{name}</code>"
            f"<code>{host}, {normal_form.shown(str(port), 'any free port')}</code>"
            f"<span>{escape(_purpose(name))}</span>"
            for name, (host, port) in self.listeners.items()
        ]
        accounts = [
            f"<code>{escape(address)}</code>"
            f"<code>{escape(password if self.passwords else MASK)}</code>"
            f"<span>{escape(self._holds(address))}</span>"
            for address, password in self.accounts.items()
        ]
        recent = [
            f"<span>{session.number}.</span><span>{escape(_session_line(session))}</span>"
            for session in self.sessions[-_SESSIONS_SHOWN:]
        ]
        body = (
            _list("Listeners", "three", listeners)
            + _list(self._accounts_head.rstrip(":"), "three", accounts)
            + _list(f"Sessions: {self._count()}", "two", recent)
        )
        return card(f"Lab {self.hostname}", body, "closed" if self.closed else "")

    @property
    def _accounts_head(self) -> str:
        return "Accounts:" if self.accounts else "Accounts: none"

    def _holds(self, address: str) -> str:
        boxes = self.mailboxes.get(address, {})
        return ", ".join(f"{readable(name.encode())} {count}" for name, count in boxes.items())

    def _count(self) -> str:
        if not self.sessions:
            return "none so far"
        kinds = Counter(session.protocol for session in self.sessions)
        counts = ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items()))
        shown = ", the last ones" if len(self.sessions) > _SESSIONS_SHOWN else ""
        return f"{counts}{shown}"


def state(lab: Lab, *, ports: bool = False, passwords: bool = False) -> State:
    """The lab as it is now; a closed one has no mailboxes to look into."""
    boxes = {} if lab.closed else {address: lab.mailboxes(address) for address in lab.accounts}
    listeners = {} if lab.closed else lab.listeners
    return State(
        lab.hostname, lab.closed, listeners, lab.accounts, boxes, lab.sessions, ports, passwords
    )


def _purpose(name: str) -> str:
    """What a listener is for, as `Lab` itself says it."""
    return (getattr(Lab, name).__doc__ or "").strip()


def _session_line(session: Session) -> str:
    ending = session.ending or ("" if session.closed else "still open")
    return f"{session.protocol} on {session.listener}{f': {ending}' if ending else ''}"


def _list(title: str, columns: str, rows: list[str]) -> str:
    items = "".join(f"<li>{row}</li>" for row in rows)
    return f'<p class="head">{escape(title)}</p><ul class="{columns}">{items}</ul>'
