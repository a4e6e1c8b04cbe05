"""What the commands do, where pymap does it differently from the RFCs, or not at all.

A `State` is one client's way through the states of RFC 3501 section 3, from the greeting on.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias, cast

from pymap.concurrent import Event
from pymap.config import IMAPConfig
from pymap.exceptions import InvalidAuth
from pymap.imap.state import ConnectionState
from pymap.interfaces.login import LoginInterface
from pymap.parsing.command import Command, CommandSelect, auth, select
from pymap.parsing.command.nonauth import LoginCommand, StartTLSCommand
from pymap.parsing.command.select import CloseCommand, MoveCommand, StoreCommand
from pymap.parsing.commands import InvalidCommand
from pymap.parsing.response import (
    CommandResponse,
    ResponseBad,
    ResponseCode,
    ResponseNo,
    ResponseOk,
    UntaggedResponse,
)
from pymap.parsing.response.code import (
    Capability,
    PermanentFlags,
    UidNext,
    UidValidity,
    Unseen,
)
from pymap.parsing.response.specials import (
    ExistsResponse,
    FlagsResponse,
    RecentResponse,
)
from pymap.parsing.specials import FetchAttribute, SequenceSet
from pymap.parsing.specials.flag import Seen
from pymap.parsing.specials.sequenceset import MaxValue
from pymap.selected import SelectedMailbox
from pysasl.creds.server import ServerCredentials
from pysasl.identity import Identity

from labserver.listeners import Listener
from labserver.servers.imap import commands, fetch
from labserver.servers.imap.atoms import Refused
from labserver.servers.imap.fetch import Fetched, Items
from labserver.servers.imap.mailboxes import Expunged, Session, Snapshot
from labserver.servers.imap.names import DELIMITER, MailboxName
from labserver.servers.imap.selected import Selected
from labserver.servers.setup import INTERNAL_ERROR, NO_PLAINTEXT, Client, Setup, log_in

_Answer: TypeAlias = tuple[CommandResponse, SelectedMailbox | None]

_CAPABILITIES = (
    b"LITERAL+",  # RFC 7888
    b"SASL-IR",  # RFC 4959
    b"ENABLE",  # RFC 5161
    b"IDLE",  # RFC 2177
    b"NAMESPACE",  # RFC 2342
    b"UIDPLUS",  # RFC 4315
    b"MOVE",  # RFC 6851
    b"UNSELECT",  # RFC 3691
    b"CHILDREN",  # RFC 3348
    b"STATUS=SIZE",  # RFC 8438
)
_REFUSALS = {
    b"TOOBIG": b"That is longer than this server takes.",
    b"BADCHARSET": b"Unknown charset.",
}


_NOT_COMPLETED = {
    b"EXPUNGEISSUED": Expunged.TEXT,
    b"CORRUPTION": b"A message in this mailbox was damaged on the disk.",
    b"UNAVAILABLE": b"The mail store can't be read now.",
    b"SERVERBUG": INTERNAL_ERROR.encode(),
}
"""What a command says that couldn't do all that was asked, by its response code."""
_FLAGS = Items([FetchAttribute(b"FLAGS")])
_FLAGS_AND_UID = Items([FetchAttribute(b"FLAGS"), FetchAttribute(b"UID")])


class _Password(Identity):
    """Takes the password out of what a client has said; whether it is right is asked elsewhere."""

    def __init__(self, creds: ServerCredentials) -> None:
        self.said = ""
        creds.verify(self)

    @property
    def authcid(self) -> str:
        return ""

    def compare_authcid(self, authcid: str) -> bool:
        return True

    def compare_secret(self, secret: str) -> bool:
        self.said = secret
        return True

    def get_clear_secret(self) -> None:
        return None


class State(ConnectionState):
    """One client's state."""

    def __init__(
        self,
        config: IMAPConfig,
        setup: Setup,
        listener: Listener,
        client: Client,
        *,
        wire: fetch.Wire,
    ) -> None:
        # pymap would only ask it in `_login`, which is our own.
        super().__init__(cast(LoginInterface, None), config)
        self._setup, self._store, self._limits = setup, setup.store, setup.limits
        self._client, self._wire = client, wire
        self._offers_tls = setup.tls is not None and not listener.implicit
        self._takes_passwords = listener.implicit or setup.plaintext_login is not False

    @property
    def logged_in(self) -> bool:
        return self._session is not None

    def is_quick(self, command: Command | None) -> bool:
        """Whether to obey it takes but a moment."""
        if self._selected is None or not isinstance(command, commands.FetchCommand):
            return False
        return command.is_quick(self._selected.messages.exists)

    @property
    def capability(self) -> Capability:
        names = [*_CAPABILITIES, b"APPENDLIMIT=%d" % self._limits.message]  # RFC 7889
        if not self.logged_in:
            if self._offers_tls:
                names.append(b"STARTTLS")
            if self._takes_passwords:
                names += [b"AUTH=" + mechanism.name for mechanism in self.auth.server_mechanisms]
            else:
                names.append(b"LOGINDISABLED")  # RFC 3501 section 6.2.3
        return Capability(names)

    # -- around each command

    async def news(self, cmd: Command) -> Iterable[UntaggedResponse]:
        """What the client is told before its command is obeyed.

        A UID command allows EXPUNGE responses. They come first, so that no number in the
        command's own responses means one message before and another after them.
        """
        if self._selected and isinstance(cmd, CommandSelect) and getattr(cmd, "uid", False):
            selected = await self.session.check_mailbox(self._selected)
            self._selected, untagged = selected.fork(cmd)
            return untagged
        return ()

    async def do_command(self, cmd: Command) -> CommandResponse:
        if isinstance(cmd, InvalidCommand) and isinstance(cmd.parse_exc, Refused):
            answer = ResponseNo if cmd.parse_exc.code else ResponseBad
            return answer(cmd.tag, cmd.parse_exc.sentence, cmd.parse_exc.code)
        if isinstance(cmd, InvalidCommand) and cmd.parse_exc and cmd.parse_exc.code:
            code = cmd.parse_exc.code
            text = next((why for name, why in _REFUSALS.items() if name in bytes(code)), b"")
            return ResponseNo(cmd.tag, text, code)
        if self._selected is not None:
            self._selected.hide_expunged = False
            numbers = getattr(cmd, "sequence_set", None)
            if numbers is not None and not _within(numbers, self._selected.messages.exists):
                return ResponseBad(cmd.tag, cmd.command + b": Invalid messageset.")
        if getattr(cmd, "options", None):
            return ResponseBad(cmd.tag, cmd.command + b": No options are known here.")
        if isinstance(cmd, commands.FetchCommand) and self._selected is not None:
            # As pymap does it, with fewer detours: mail programs say little else.
            response, _ = await self.do_fetch(cmd)
            self._selected, untagged = self._selected.fork(cmd)
            response.add_untagged(*untagged)
            return response
        return await super().do_command(cmd)

    async def receive_updates(self, cmd: Command, done: Event) -> Iterable[UntaggedResponse]:
        """Wait for something to tell a client that is idle."""
        if self._selected is None:
            await done.wait()
            return ()
        selected = await self.session.check_mailbox(self._selected, wait_on=done)
        self._selected, untagged = selected.fork(cmd)
        return untagged

    # -- not authenticated

    async def do_greeting(self) -> CommandResponse:
        return ResponseOk(b"*", self.config.greeting, self.capability)

    async def do_starttls(self, cmd: StartTLSCommand) -> _Answer:
        if not self._offers_tls:
            why = b"TLS is already active." if self._client.tls else b"TLS support isn't enabled."
            return ResponseBad(cmd.tag, why), None
        self._offers_tls, self._takes_passwords = False, True
        return ResponseOk(cmd.tag, b"Begin TLS negotiation now."), None

    def refused_without_tls(self, cmd: Command) -> CommandResponse | None:
        """The answer to a login where no password may be said yet (RFC 3501 section 6.2.3)."""
        if self._takes_passwords:
            return None
        return ResponseNo(cmd.tag, NO_PLAINTEXT.encode(), ResponseCode.of(b"PRIVACYREQUIRED"))

    async def do_login(self, cmd: LoginCommand) -> _Answer:
        refusal = self.refused_without_tls(cmd)
        return (refusal, None) if refusal else await super().do_login(cmd)

    async def _login(self, creds: ServerCredentials) -> Session:
        password = _Password(creds).said
        account = await log_in(
            self._setup, self._client, creds.authcid, password, acting_for=creds.authzid
        )
        if account is None:
            raise InvalidAuth("Authentication failed.")
        self._store.ensure_mailbox(account, "INBOX")
        self._client.login = account
        return Session(self.config, self._store, self._setup.clock, account)

    # -- authenticated

    async def do_select(self, cmd: auth.SelectCommand | commands.SelectCommand) -> _Answer:
        self._selected = None
        mailbox, selected = await self.session.select_mailbox(cmd.mailbox, cmd.readonly)
        snapshot = cast(Snapshot, mailbox)
        mode = b"READ-ONLY" if selected.readonly else b"READ-WRITE"
        response = ResponseOk(cmd.tag, cmd.command + b" completed.", ResponseCode.of(mode))
        response.add_untagged(FlagsResponse(snapshot.flags))
        permanent = [] if selected.readonly else snapshot.permanent_flags
        response.add_untagged_ok(b"Flags permitted.", PermanentFlags(permanent))
        response.add_untagged(ExistsResponse(selected.messages.exists))
        response.add_untagged(RecentResponse(selected.session_flags.recent))
        told = cast(Selected, selected).messages
        seen = (Seen in told.flags[uid] for uid in told.uids)
        unseen = next((number for number, yes in enumerate(seen, 1) if not yes), None)
        if unseen:
            response.add_untagged_ok(b"First unseen.", Unseen(unseen))
        response.add_untagged_ok(b"UIDs valid.", UidValidity(snapshot.uid_validity))
        response.add_untagged_ok(b"Predicted next UID.", UidNext(snapshot.next_uid))
        return response, selected

    async def do_create(self, cmd: auth.CommandMailboxArg) -> _Answer:
        _, updates = await self.session.create_mailbox(cmd.mailbox, selected=self._selected)
        return _completed(cmd), updates

    async def do_delete(self, cmd: auth.CommandMailboxArg) -> _Answer:
        if cmd.mailbox == "INBOX":
            return ResponseNo(cmd.tag, b"INBOX can't be deleted.", ResponseCode.of(b"CANNOT")), None
        mailbox, _ = await self.session.get_mailbox(cmd.mailbox)
        if self._selected and self._selected.mailbox_id == mailbox.mailbox_id:
            self._selected = None
        updates = await self.session.delete_mailbox(cmd.mailbox, selected=self._selected)
        return _completed(cmd), updates

    async def do_status(self, cmd: auth.StatusCommand) -> _Answer:
        mailbox, updates = await self.session.get_mailbox(cmd.mailbox, selected=self._selected)
        snapshot = cast(Snapshot, mailbox)
        recent = snapshot.recent
        if updates and updates.mailbox_id == snapshot.mailbox_id:
            recent = updates.session_flags.recent
        known = {
            b"MESSAGES": snapshot.exists,
            b"RECENT": recent,
            b"UNSEEN": snapshot.unseen,
            b"UIDNEXT": snapshot.next_uid,
            b"UIDVALIDITY": snapshot.uid_validity,
            b"SIZE": snapshot.size,
            b"APPENDLIMIT": self._limits.message,
        }
        told = {item.value: b"%b %d" % (item.value, known[item.value]) for item in cmd.status_list}
        name = bytes(MailboxName(cmd.mailbox))
        response = _completed(cmd)
        response.add_untagged(
            UntaggedResponse(b"STATUS %b (%b)" % (name, b" ".join(told.values())))
        )
        return response, updates

    async def do_list(self, cmd: auth.ListCommand) -> _Answer:
        found, updates = await self.session.list_mailboxes(
            cmd.ref_name, cmd.filter, cmd.only_subscribed, self._selected
        )
        response = _completed(cmd)
        for name, _, attributes in found:
            marks = b" ".join(b"\\" + attribute for attribute in attributes)
            told = (cmd.command, marks, DELIMITER.encode(), bytes(MailboxName(name)))
            response.add_untagged(UntaggedResponse(b'%b (%b) "%b" %b' % told))
        return response, updates

    async def do_namespace(self, cmd: commands.NamespaceCommand) -> _Answer:
        response = _completed(cmd)
        response.add_untagged(UntaggedResponse(b'NAMESPACE (("" "/")) NIL NIL'))
        return response, None

    async def do_enable(self, cmd: commands.EnableCommand) -> _Answer:
        """Enable nothing: no extension here needs it (RFC 5161 section 3.1)."""
        if self._selected is not None:
            return ResponseBad(cmd.tag, b"ENABLE: Only before a mailbox is selected."), None
        response = _completed(cmd)
        response.add_untagged(UntaggedResponse(b"ENABLED"))
        return response, None

    # -- selected

    async def do_close(self, cmd: CloseCommand) -> _Answer:
        if not self.selected.readonly:
            await self.session.expunge_mailbox(self.selected)
        self._selected = None
        return _completed(cmd), None

    async def do_unselect(self, cmd: commands.UnselectCommand) -> _Answer:
        self._selected = None
        return _completed(cmd), None

    async def do_move(self, cmd: MoveCommand) -> _Answer:
        code, updates = await self.session.move_messages(
            self.selected, cmd.sequence_set, cmd.mailbox
        )
        response = _completed(cmd)
        if code:
            # Before the EXPUNGE responses (RFC 6851 section 4.3).
            response.add_untagged_ok(b"Moved.", code)
        return response, updates

    async def do_fetch(self, cmd: select.FetchCommand) -> _Answer:
        items = cast(commands.FetchCommand, cmd).items
        selected = cast(Selected, self.selected)
        selected.hide_expunged = not cmd.uid
        seen = items.set_seen and not selected.readonly
        runs = selected.messages.runs(cmd.sequence_set)
        await cast(Session, self.session).look(selected, runs if seen else ())
        flagged = selected.tell_all_flags(runs) if seen or items.flags else frozenset()
        response = _completed(cmd)
        response.add_untagged(*selected.tell_keywords())
        there = selected.still_there(runs)
        if sum(len(uids) for _, uids in there) < sum(map(len, runs)):
            _expunged(response)
        response.add_untagged(
            Fetched(self._store, selected, there, items, flagged, response, self._wire)
        )
        return response, selected

    async def do_store(self, cmd: StoreCommand) -> _Answer:
        selected = cast(Selected, self.selected)
        selected.hide_expunged = not cmd.uid
        runs = selected.messages.runs(cmd.sequence_set)
        await cast(Session, self.session).store_flags(
            selected, runs, cmd.flag_set, cmd.mode, silent=cmd.silent
        )
        response = _completed(cmd)
        if cmd.silent:
            # Who doesn't want to be told isn't told of what is gone, either (RFC 2180
            # section 4.2.1).
            return response, selected
        there = selected.still_there(runs)
        if sum(len(uids) for _, uids in there) < sum(map(len, runs)):
            _expunged(response)
        selected.tell_all_flags(runs)
        response.add_untagged(*selected.tell_keywords())
        items = _FLAGS_AND_UID if cmd.uid else _FLAGS
        response.add_untagged(
            Fetched(self._store, selected, there, items, frozenset(), response, self._wire)
        )
        return response, selected


class _Completed(ResponseOk):
    """A command was obeyed; until it is written it may turn out that not all could be done."""

    @property
    def text(self) -> bytes:
        # As pymap writes it, with fewer detours.
        code = b"%b " % bytes(self.code) if self.code else b""
        text = bytes(self._text)
        if self.condition != ResponseOk.condition:
            text = _NOT_COMPLETED.get(code[1:-2], b"Not all of it could be done.")
        return b"%b %b%b" % (self.condition, code, text)


def _completed(cmd: Command) -> ResponseOk:
    return _Completed(cmd.tag, cmd.command + b" completed.")


def _expunged(response: CommandResponse) -> None:
    """Answer NO: not all that was asked for is still there (RFC 2180 section 4.1)."""
    response.condition = ResponseNo.condition
    response.code = ResponseCode.of(b"EXPUNGEISSUED")


def _within(numbers: SequenceSet, exists: int) -> bool:
    """Whether there are messages of all these numbers (RFC 3501 section 9, seq-number)."""
    if numbers.uid:
        return True
    ends = [end for item in numbers.value for end in (item if isinstance(item, tuple) else (item,))]
    return all(exists > 0 if isinstance(end, MaxValue) else end <= exists for end in ends)
