"""What the three protocols have in common: exchanges, content, and what may be said next."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from labserver.tables import PROTOCOLS, Catalog, Command, load
from labserver.transcript import LineKind, ProtocolName, Side
from labserver.turns import due
from labserver.turns.due import Due
from labserver.turns.turn import Answer, Exchange, Expected, Turn

HEAD = 1024
"""Octets of a command that are remembered until it is answered; no verb or tag is longer."""


class Turns:
    """Whose turn it is in one dialogue, whoever listens: client, server, recorder or reader.

    `hear` takes what is said in the order in which it is understood: what a client sends behind a
    command that holds it up (the form `wait`) comes after the answer. Nothing here does I/O,
    judges what is said, or grows with the length of the dialogue.
    """

    protocol: ProtocolName
    _of: ClassVar[dict[ProtocolName, type[Turns]]] = {}
    _out_of_turn: tuple[str, ...] = ()
    """Replies that a server may say without being asked."""

    def __init_subclass__(cls, protocol: ProtocolName) -> None:
        cls.protocol = protocol
        cls._of[protocol] = cls

    def __new__(cls, protocol: ProtocolName, *, states: bool = True) -> Turns:
        if protocol not in cls._of:
            raise ValueError(f"No turns of {protocol!r}: there are {', '.join(PROTOCOLS)}.")
        return super().__new__(cls._of[protocol])

    def __init__(self, protocol: ProtocolName, *, states: bool = True) -> None:
        """`states` follows the dialogue through the catalog's states, as `next` needs it."""
        self.asking = self.answered = Exchange("greeting", typed=False)
        """What each side's latest line belongs to."""
        self.open = [self.asking]
        """What isn't answered yet, the oldest first."""
        self.due: dict[Side, Due] = {"C": due.COMMAND, "S": due.REPLY}
        """How the next octets of each side are to be read."""
        self.tls = False
        self.tls_due = False
        """The server is ready for TLS."""
        self._greeted = False
        self._half = ""
        """The code of a reply whose last line hasn't come yet."""
        self._catalog: Catalog | None = load(protocol) if states else None
        self.state = self._catalog.start if self._catalog else ""

    def hear(self, who: Side, line: bytes, kind: LineKind | None = None) -> Turn:
        """What a line is that is said now. Content may come line by line; or, like all whose
        `kind` is known already, as a whole.
        """
        if kind is None:
            now = self.due[who]
            kind = now.kind
            if now.form == "line":
                pass
            elif now.form == "wait":
                kind = "command"
            elif now.form != "octets":
                kind = "end" if line.rstrip(b"\r\n") == b"." else kind
            elif len(line) > now.octets:
                self.hear(who, line[: now.octets])
                return self.hear(who, line[now.octets :])
            elif len(line) < now.octets:
                self.due[who] = now._replace(octets=now.octets - len(line))
                e = self.asking if who == "C" else self.answered
                return Turn(who, kind, e, self.due["S" if who == "C" else "C"], begins=False)
        if who == "S":
            return self._answer(line, kind)
        return self._command(line) if kind == "command" else self._add(kind)

    def start_tls(self) -> None:
        """TLS begins: what isn't answered never will be, but for a greeting after nothing else."""
        self.tls = True
        if self._greeted or len(self.open) > 1:
            for e in self.open:
                e.void = True
            self.forget()

    def forget(self) -> None:
        """Expect no more of what was said so far: a log may have lost the answers."""
        self.open.clear()
        self.due = {"C": due.COMMAND, "S": due.REPLY}
        self._half, self._greeted, self.tls_due = "", True, False

    def speaker(self, line: bytes) -> Side:
        """Who says this line, where nothing but the dialogue so far tells it."""
        for side, now in self.due.items():
            if now.form in ("dot", "octets", "rows") or now.rest:
                return side
        return "S" if self._is_reply(line) else "C"

    @property
    def idles(self) -> bool:
        """Whether an IDLE goes on, which only DONE ends."""
        return False

    @property
    def answer_due(self) -> bool:
        """Whether the server owes an answer, or the rest of one."""
        now = self.due["C"]
        client_is_done = (now.kind == "command" and not now.rest) or now.form == "wait"
        return self.due["S"] is not due.REPLY or (client_is_done and bool(self.open))

    def next(self) -> Expected:
        """Who may speak now, and what, with what the catalog says of it."""
        if self._catalog is None:
            raise ValueError("Turns without states can't tell what comes next.")
        if self.tls_due:
            return Expected(None, self.due["S"], False, True, (), ())
        client = None if self.due["C"].form == "wait" else self.due["C"]
        commands = tuple(self._commands(self._catalog)) if client is due.COMMAND else ()
        if client is due.COMMAND and not commands:
            client = None
        answers = tuple(self._answers(self._catalog))
        return Expected(client, self.due["S"], self.answer_due, False, commands, answers)

    def after(self, catalog: Catalog, state: str, e: Exchange, code: str) -> str:
        """The state that this answer to it leads to."""
        return catalog.after(state, e.verb, code)

    # -- what a protocol adds

    def _command(self, line: bytes) -> Turn:
        """The client says a command, or goes on with one."""
        raise NotImplementedError

    def _answer(self, line: bytes, kind: LineKind) -> Turn:
        """The server says something."""
        raise NotImplementedError

    def _is_reply(self, line: bytes) -> bool:
        """Whether only a server says such a line."""
        raise NotImplementedError

    def _answerable(self) -> list[Exchange]:
        """What may be answered now: replies come in the order of the commands."""
        return self.open[:1]

    def _may_go_on(self, e: Exchange) -> bool:
        """Whether a `+` may tell the client to go on with it."""
        return False

    # -- what they share

    def _ask(self, e: Exchange) -> Exchange:
        """The client says something that is to be answered."""
        self.asking = e
        self.open.append(e)
        return e

    def _add(self, kind: LineKind) -> Turn:
        """The client adds content or credentials to what it asks."""
        begins = kind == "end" or not self.asking.typed
        if begins:
            self._ask(Exchange("end of data" if kind == "end" else ""))
        if self.due["C"] is not due.MESSAGE or kind == "end":
            self.due["C"] = due.HELD_LOGIN if kind == "credentials" else due.COMMAND
        return Turn("C", kind, self.asking, self.due["S"], begins)

    def _settle(self, e: Exchange, code: str) -> None:
        """This reply completes it."""
        e.code, e.settled = code, True
        self._greeted = True
        if self._catalog:
            self.state = self.after(self._catalog, self.state, e, code)

    def _listed(self, catalog: Catalog, e: Exchange) -> dict[str, str]:
        """The replies that the catalog lists for it."""
        command = catalog.commands.get(e.verb)
        return {**dict(catalog.everywhere), **dict(command.replies if command else ())}

    def _commands(self, catalog: Catalog) -> Iterator[Command]:
        """What is allowed in a state that the answers still to come can lead to."""
        states = {self.state} if self._greeted else set()
        for e in self.open:
            codes = self._listed(catalog, e)
            states |= {self.after(catalog, state, e, code) for state in states for code in codes}
        for command in catalog.commands.values():
            under_tls = self.tls and command.verb in ("STARTTLS", "STLS")
            if command.typed and not under_tls and not states.isdisjoint(command.states):
                yield command

    def _answers(self, catalog: Catalog) -> Iterator[Answer]:
        for e in self._answerable():
            for code, meaning in self._listed(catalog, e).items():
                if self._half in ("", code):
                    yield Answer(code, meaning, e)
            if self._may_go_on(e):
                yield Answer("+", catalog.replies["+"].title, e)
        for code in self._out_of_turn if self._greeted and not self._half else ():
            title = catalog.replies[code].title if code in catalog.replies else ""
            yield Answer(code, title or catalog.notes["untagged-ok"].title, None)
