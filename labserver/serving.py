"""`labserver serve`: a lab that runs until Ctrl-C, what it prints, and whose mail it keeps."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import stat
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from labserver.lab import ACCOUNTS, Lab
from labserver.message import Message
from labserver.network import interrupts
from labserver.network.loopback import LoopbackNetwork
from labserver.rules import Limits
from labserver.servers.accounts import Accounts
from labserver.servers.addresses import is_address
from labserver.transcript import Line, Session, readable
from labserver.views.view import count, cut
from labserver.web.sessions import row

_LOOK_UP_SECONDS = 0.5  # some systems hear Ctrl-C only between two waits
_MOST_OCTETS = 1024 * 1024
"""Of a file of accounts."""
_MOST_ACCOUNTS = 10_000
_LONGEST_SUBJECT = 60
_LONGEST_NAME = 60
_UI = "ui"


def serve(options: Namespace) -> None:
    """Run a lab until KeyboardInterrupt, which closes it.

    Raises `NetworkError`, `StoreError`, `FolderError` or `ValueError`, each with one sentence, and
    `ModuleNotFoundError` where the page is wanted and aiohttp or nh3 is missing.
    """
    accounts = _accounts(options)
    ports = _ports(options)
    ended: queue.SimpleQueue[Session] = queue.SimpleQueue()
    with contextlib.ExitStack() as stack:
        # An interrupt waits until all is made, and there is something to be closed.
        with interrupts.deferred():
            network = LoopbackNetwork()
            stack.callback(network.close)
            lab = stack.enter_context(
                Lab(
                    accounts or ACCOUNTS,
                    network=network,
                    data=options.data,
                    catch_all=options.catch_all,
                    limits=Limits(sessions=options.sessions),
                    ports={name: port for name, port in ports.items() if name != _UI},
                )
            )
            page = _page(lab, ports.get(_UI, 0)) if options.ui else ""
        if lab.notice:
            print(lab.notice, file=sys.stderr, flush=True)
        if not options.json:
            lab.on_session(ended.put)
        start = (
            _as_json(lab, page) if options.json else _as_text(lab, options, page, bool(accounts))
        )
        print(start, flush=True)
        while True:
            with contextlib.suppress(queue.Empty):
                session = ended.get(timeout=_LOOK_UP_SECONDS)
                print(
                    f"\n{session.text(exact=True)}" if options.verbose else summary(session),
                    flush=True,
                )


def _page(lab: Lab, port: int) -> str:
    """The address of the lab's page, which is closed with the lab."""
    from labserver.web.server import serve  # nobody else needs aiohttp and nh3

    return serve(lab, port, again=_print_again).url


def _print_again(page: str) -> None:
    """Print a fresh address of the page, for one works once."""
    print(
        f"The page was opened again. This address is fresh and works once: {page}",
        file=sys.stderr,
        flush=True,
    )


# -- options


def _ports(options: Namespace) -> dict[str, int]:
    """The port of each listener, and of the page. Raises `ValueError`."""
    given: dict[str, int] = {}
    for name, port in options.ports:
        if name in given:
            raise ValueError(f"--port gives {name} a port twice; give it one.")
        if name == _UI and not options.ui:
            raise ValueError("--port ui=NUMBER is for the page; add --ui, or leave it out.")
        given[name] = port
    usual = {} if options.ephemeral else {**options.usual_ports, _UI: options.usual_ui_port}
    if not options.ui:
        usual.pop(_UI, None)
    ports = usual | given
    owners: dict[int, str] = {}
    for name, port in ports.items():
        if port and port in owners:
            raise ValueError(
                f"{owners[port]} and {name} would both have port {port}; "
                "give one of them another with --port NAME=NUMBER."
            )
        owners[port] = name
    return ports


def _accounts(options: Namespace) -> dict[str, str]:
    """The accounts of the file and of the command line; none where neither names one.

    Raises `ValueError` for one that makes no sense, or is there twice.
    """
    given = [("--account", *account) for account in options.accounts]
    if options.accounts_file is not None:
        given = [*_in_file(options.accounts_file), *given]
    accounts: dict[str, str] = {}
    seen: set[str] = set()
    for where, address, password in given:
        try:
            Accounts({address: password})
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        if address.casefold() in seen:
            raise ValueError(f"{where}: the account {address} is there twice; name it once.")
        seen.add(address.casefold())
        accounts[address] = password
    return accounts


def _in_file(path: Path) -> Iterator[tuple[str, str, str]]:
    """Of each account in a file: where it stands, address, password. Raises `ValueError`."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            octets = file.read(_MOST_OCTETS + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ValueError(f"The accounts in {path} can't be read: {why}.") from None
    if len(octets) > _MOST_OCTETS:
        raise ValueError(
            f"The file of accounts {path} is too large; it may have {_MOST_OCTETS:,} octets."
        )
    if os.name == "posix" and stat.S_ISREG(mode) and mode & 0o077:
        print(
            f"Other users of this machine can read {path}; chmod 600 keeps it to you.",
            file=sys.stderr,
        )
    number = found = 0
    for number, raw in enumerate(octets.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        where = f"{path}, line {number}"
        try:
            line = raw.decode().strip()
        except UnicodeDecodeError:
            raise ValueError(f"{where}: this isn't UTF-8; save the file as UTF-8.") from None
        if not line or line.startswith("#"):
            continue
        address, colon, password = (part.strip() for part in line.partition(":"))
        if not (colon and password and is_address(address)):
            # What stands there instead may be a password.
            raise ValueError(f"{where}: write an account as ana@lab.example:her-password.")
        found += 1
        if found > _MOST_ACCOUNTS:
            raise ValueError(f"{where}: a lab has at most {_MOST_ACCOUNTS:,} accounts.")
        yield where, address, password
    if not found:
        raise ValueError(
            f"The file {path} has no account; write one ADDRESS:PASSWORD on each line."
        )


# -- what is printed


def _as_json(lab: Lab, page: str) -> str:
    places: dict[str, Any] = {name: list(place) for name, place in lab.listeners.items()}
    places |= {"ca": str(lab.ca), "accounts": dict(lab.accounts)}
    return json.dumps(places | ({"ui": page} if page else {}))


def _as_text(lab: Lab, options: Namespace, page: str, own_accounts: bool) -> str:
    rows = ["The Mail Lab listens on 127.0.0.1, for programs on this machine only."]
    rows += [f"  {name:12} {place.port}" for name, place in lab.listeners.items()]
    rows.append("Accounts:")
    for address, password in lab.accounts.items():
        # Passwords of one's own are not repeated on the screen.
        rows.append(f"  {address}" + ("" if own_accounts else f"  password {password}"))
    if page:
        rows.append(f"To look on, open this in a browser; it works once: {page}")
    rows += [
        f"To trust its TLS, a program needs this file: {lab.ca}",
        f"Mail is kept in {options.data}. Ctrl-C ends the lab.",
    ]
    return "\n".join(rows)


def summary(session: Session) -> str:
    """A session in one line: who spoke, what came of it, and how much was said.

    `3. SMTP on smtp, shop.example: x@y.example → ana@lab.example, done, 5 commands, message of
    1,234 octets, “Hello”`. Texts of a client's are made harmless and short.
    """
    told = row(session)
    name = cut(session.client.name, _LONGEST_NAME)
    commands = sum(map(_answers if session.protocol == "IMAP" else _asks, session.lines))
    parts = [told.about, told.outcome, count(commands, "command"), *_messages(session)]
    facts = ", ".join(dict.fromkeys(filter(None, parts)))
    who = f"{session.protocol} on {session.listener}{f', {name}' if name else ''}"
    return f"{session.number}. {who}: {facts}"


def _asks(line: Line) -> bool:
    return line.who == "C" and line.kind == "command"


def _answers(line: Line) -> bool:
    """An IMAP command may have many lines; it has one tagged answer (RFC 3501 section 2.2.2)."""
    return line.who == "S" and line.kind == "reply" and line.data[:1] not in (b"*", b"+")


def _messages(session: Session) -> Iterator[str]:
    """The size of what a client has sent as mail, and the subject of the first message."""
    sent = list(_contents(session))
    if not sent:
        return
    octets = sum(line.octets for line in sent)
    yield f"{'message' if len(sent) == 1 else 'messages'} of {octets:,} octets"
    subject = Message(sent[0].data, 0, session.started, frozenset(), None)["Subject"]
    if subject:
        shown = readable(subject.encode("utf-8", "backslashreplace"))
        yield f"“{cut(shown, _LONGEST_SUBJECT)}”"


def _contents(session: Session) -> Iterator[Line]:
    command = b""
    for line in session.lines:
        if _asks(line):
            command = line.data.upper()
        mails = session.protocol == "SMTP" or b" APPEND " in command  # other literals are no mail
        if mails and line.who == "C" and line.kind == "content":
            yield line
