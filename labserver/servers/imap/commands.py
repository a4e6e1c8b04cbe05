"""How the commands are read that pymap reads differently from RFC 3501, or not at all.

What they do is in `state.py`. Commands whose extension isn't offered are not known here, so that
a client gets BAD instead of something half right.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import ClassVar, cast

from pymap.frozen import frozenlist
from pymap.parsing import EndLine, Params, Space
from pymap.parsing.command import (
    Command,
    CommandAuth,
    CommandNoArgs,
    CommandSelect,
    auth,
    nonauth,
    select,
)
from pymap.parsing.commands import Commands, InvalidCommand
from pymap.parsing.exceptions import NotParseable
from pymap.parsing.message import AppendMessage
from pymap.parsing.primitives import LiteralString
from pymap.parsing.specials import (
    DateTime,
    ExtensionOptions,
    FetchAttribute,
    Flag,
    Mailbox,
    SearchKey,
    SequenceSet,
    StatusAttribute,
)
from pymap.parsing.state import ParsingState

from labserver.servers.imap import atoms
from labserver.servers.imap.atoms import AString, Atom, Buffer, Refused, Tag
from labserver.servers.imap.fetch import MOST, Items
from labserver.servers.imap.names import MailboxName, decoded, with_inbox

_FIELDS = re.compile(rb"((?:[1-9][0-9]*\.)*)(HEADER\.FIELDS(?:\.NOT)?) *(?=\()", re.IGNORECASE)
_FIELD_NAME = re.compile(rb"[ -~]*")
_INITIAL_RESPONSE = re.compile(rb"=|[A-Za-z0-9+/]+={0,2}")
_KEY_OF_KEYS = re.compile(rb" *(?:(NOT|OR) +|(?=\())", re.IGNORECASE)
_OF_KEYWORD = re.compile(rb" *((?:UN)?KEYWORD) +", re.IGNORECASE)
_CHARSETS = {b"US-ASCII": "ascii", b"UTF-8": "utf-8"}
_BAD_CHARSET = b"BADCHARSET (US-ASCII UTF-8)"
_MOST_ITEMS = 100
"""What one FETCH, or one STATUS, can ask for."""
_MOST_FIELDS = 1000
"""Names of header fields in one FETCH."""
_MOST_KEYS = 100
"""Search keys; those that are made of others don't count."""


# -- logging in


class LoginCommand(nonauth.LoginCommand):
    """LOGIN"""

    @classmethod
    def parse(cls, buf: Buffer, params: Params) -> tuple[LoginCommand, Buffer]:
        _, buf = Space.parse(buf, params)
        name, buf = AString.parse(buf, params)
        _, buf = Space.parse(buf, params)
        password, buf = AString.parse(buf, params)
        _, buf = EndLine.parse(buf, params)
        return cls(params.tag, name.value, password.value), buf


class AuthenticateCommand(nonauth.AuthenticateCommand):
    """AUTHENTICATE, with the client's first answer where it comes at once (RFC 4959)."""

    def __init__(self, tag: bytes, mech_name: bytes, initial: bytes | None = None) -> None:
        super().__init__(tag, mech_name)
        self.initial = initial
        """In base64; empty where the client said `=`, `None` where it waits to be asked."""

    @classmethod
    def parse(cls, buf: Buffer, params: Params) -> tuple[AuthenticateCommand, Buffer]:
        _, buf = Space.parse(buf, params)
        mechanism, buf = Atom.parse(buf, params)
        initial = None
        if not _at_end(buf, params):
            _, buf = Space.parse(buf, params)
            response = _INITIAL_RESPONSE.match(buf)
            if response is None:
                raise NotParseable(buf)
            initial = bytes(response[0]).removeprefix(b"=")
            buf = buf[response.end() :]
        _, buf = EndLine.parse(buf, params)
        return cls(params.tag, mechanism.value.upper(), initial), buf


# -- mailbox names


def _mailbox(buf: Buffer, params: Params) -> tuple[MailboxName, Buffer]:
    _, buf = Space.parse(buf, params)
    return MailboxName.parse(buf, params)


def _at_end(buf: Buffer, params: Params) -> bool:
    try:
        EndLine.parse(buf, params)
    except NotParseable:
        return False
    return True


class _OnMailbox(auth.CommandMailboxArg):
    """A command with one argument, a mailbox's name; without the options of RFC 4466."""

    @classmethod
    def parse(cls, buf: Buffer, params: Params) -> tuple[_OnMailbox, Buffer]:
        name, buf = _mailbox(buf, params)
        _, buf = EndLine.parse(buf, params)
        return cls(params.tag, name), buf


class CreateCommand(_OnMailbox):
    """CREATE"""

    command = b"CREATE"


class DeleteCommand(_OnMailbox):
    """DELETE"""

    command = b"DELETE"


class SubscribeCommand(_OnMailbox):
    """SUBSCRIBE"""

    command = b"SUBSCRIBE"


class UnsubscribeCommand(_OnMailbox):
    """UNSUBSCRIBE"""

    command = b"UNSUBSCRIBE"


class SelectCommand(_OnMailbox):
    """SELECT"""

    command = b"SELECT"
    readonly: ClassVar[bool] = False


class ExamineCommand(SelectCommand):
    """EXAMINE"""

    command = b"EXAMINE"
    delegate = SelectCommand
    readonly: ClassVar[bool] = True


class RenameCommand(auth.RenameCommand):
    """RENAME, without the options of RFC 4466."""

    @classmethod
    def parse(cls, buf: Buffer, params: Params) -> tuple[RenameCommand, Buffer]:
        before, buf = _mailbox(buf, params)
        after, buf = _mailbox(buf, params)
        _, buf = EndLine.parse(buf, params)
        return cls(params.tag, before, after, ExtensionOptions.empty()), buf


class ListCommand(auth.ListCommand):
    """LIST, without LIST-EXTENDED (RFC 5258)."""

    @classmethod
    def parse(cls, buf: Buffer, params: Params) -> tuple[ListCommand, Buffer]:
        reference, buf = _mailbox(buf, params)
        _, buf = Space.parse(buf, params)
        # Unlike a name, a pattern may have wildcards outside quotes.
        bare = atoms.LIST_PATTERN.match(buf)
        if bare:
            octets, buf = bytes(bare[0]), buf[bare.end() :]
        else:
            octets, buf = atoms.string(buf, params)
        _, buf = EndLine.parse(buf, params)
        pattern = decoded(octets, buf)
        # Of a reference and a pattern only what they are together is a name.
        return cls(params.tag, "", with_inbox(reference.value + pattern) if pattern else ""), buf


class LSubCommand(ListCommand):
    """LSUB"""

    command = b"LSUB"
    delegate = ListCommand
    only_subscribed: ClassVar[bool] = True


class StatusItem(StatusAttribute):
    """What STATUS can be asked for: RFC 3501, SIZE (RFC 8438) and APPENDLIMIT (RFC 7889)."""

    valid_statuses = StatusAttribute.valid_statuses - {b"MAILBOXID"} | {b"SIZE", b"APPENDLIMIT"}


class StatusCommand(auth.StatusCommand):
    """STATUS"""

    @classmethod
    def parse(cls, buf: Buffer, params: Params) -> tuple[StatusCommand, Buffer]:
        name, buf = _mailbox(buf, params)
        _, buf = Space.parse(buf, params)
        items, buf = atoms.items(StatusItem, buf, params, _MOST_ITEMS)
        if not items:
            raise NotParseable(buf)
        _, buf = EndLine.parse(buf, params)
        return cls(params.tag, name, items), buf


class AppendCommand(auth.AppendCommand):
    """APPEND of one message: no MULTIAPPEND (RFC 3502), no BINARY (RFC 3516)."""

    @classmethod
    def parse(cls, buf: Buffer, params: Params) -> tuple[AppendCommand, Buffer]:
        name, buf = _mailbox(buf, params)
        flags: frozenset[Flag] = frozenset()
        when = None
        _, buf = Space.parse(buf, params)
        if bytes(buf[:1]) == b"(":
            flags, buf = atoms.flags(buf)
            _, buf = Space.parse(buf, params)
        if bytes(buf[:1]) == b'"':
            date, buf = DateTime.parse(buf, params)
            when = date.value
            _, buf = Space.parse(buf, params)
        message, buf = LiteralString.parse(buf, params)
        if message.binary:
            raise NotParseable(buf)
        _, buf = EndLine.parse(buf, params)
        octets = atoms.without_nul(message.value, buf)
        messages = [AppendMessage(octets, when, flags)]
        return cls(params.tag, name, messages, cancelled=not octets), buf


# -- commands on messages


def _messages_and_mailbox(buf: Buffer, params: Params) -> tuple[SequenceSet, Mailbox, Buffer]:
    """Which messages, and the mailbox that they are to go to."""
    _, buf = Space.parse(buf, params)
    numbers, buf = SequenceSet.parse(buf, params)
    name, buf = _mailbox(buf, params)
    _, buf = EndLine.parse(buf, params)
    return numbers, name, buf


class CopyCommand(select.CopyCommand):
    """COPY"""

    @classmethod
    def parse(cls, buf: Buffer, params: Params) -> tuple[CopyCommand, Buffer]:
        numbers, name, buf = _messages_and_mailbox(buf, params.copy(uid=cls.uid))
        return cls(params.tag, numbers, name), buf


class UidCopyCommand(CopyCommand):
    """UID COPY"""

    command = b"UID COPY"
    delegate = CopyCommand
    uid = True


class MoveCommand(select.MoveCommand):
    """MOVE (RFC 6851)"""

    @classmethod
    def parse(cls, buf: Buffer, params: Params) -> tuple[MoveCommand, Buffer]:
        numbers, name, buf = _messages_and_mailbox(buf, params.copy(uid=cls.uid))
        return cls(params.tag, numbers, name), buf


class UidMoveCommand(MoveCommand):
    """UID MOVE"""

    command = b"UID MOVE"
    delegate = MoveCommand
    uid = True


class StoreCommand(select.StoreCommand):
    """STORE"""

    @classmethod
    def parse(cls, buf: Buffer, params: Params) -> tuple[StoreCommand, Buffer]:
        _, buf = Space.parse(buf, params)
        numbers, buf = SequenceSet.parse(buf, params.copy(uid=cls.uid))
        options, buf = ExtensionOptions.parse(buf, params)
        _, buf = Space.parse(buf, params)
        mode, silent, buf = cls._parse_store_info(buf, params)
        _, buf = Space.parse(buf, params)
        flags, buf = atoms.flags_to_the_end(buf, params)
        return cls(params.tag, numbers, flags, mode, silent, options), buf


class UidStoreCommand(StoreCommand):
    """UID STORE"""

    command = b"UID STORE"
    delegate = StoreCommand
    uid = True


class FieldName(AString):
    """The name of a header field."""

    @classmethod
    def parse(cls, buf: Buffer, params: Params) -> tuple[FieldName, Buffer]:
        name, after = super().parse(buf, params)
        if not _FIELD_NAME.fullmatch(name.value):
            # It would have to be told back, and can't be in any header.
            raise Refused(buf, b"A header field's name has no such characters.")
        return cls(name.value), after


class FetchItem(FetchAttribute):
    """What FETCH can be asked for: RFC 3501's items, not those of BINARY or OBJECTID."""

    class Section(FetchAttribute.Section):
        """A section; the names of header fields stay in the client's order."""

        def __init__(
            self,
            parts: Sequence[int],
            specifier: bytes | None = None,
            names: Sequence[bytes] = (),
        ) -> None:
            super().__init__(parts, specifier, frozenset(names))
            self.names = tuple(names)

    @classmethod
    def parse(cls, buf: Buffer, params: Params) -> tuple[FetchAttribute, Buffer]:
        item, after = super().parse(buf, params)
        if item.value.startswith(b"BINARY") or item.value in (b"EMAILID", b"THREADID"):
            raise NotParseable(buf)
        return item, after

    @classmethod
    def _parse_section(cls, buf: Buffer, params: Params) -> tuple[FetchAttribute.Section, Buffer]:
        fields = _FIELDS.match(buf)
        if fields is None:
            section, after = super()._parse_section(buf, params)
            if section.headers:
                raise NotParseable(buf)
            return section, after
        # pymap takes quotes for a part of a name, and doesn't keep the names' order.
        parts = [int(number) for number in fields[1].split(b".")[:-1]]
        listed, after = atoms.items(FieldName, buf[fields.end() :], params, _MOST_FIELDS)
        if not listed:
            raise NotParseable(after)
        names = [name.value for name in listed]
        return cls.Section(parts, bytes(fields[2]).upper(), names), after

    @property
    def for_response(self) -> FetchAttribute:
        if self.partial is None or self.partial.length is None:
            return self
        partial = type(self.partial)(self.partial.start)
        return FetchItem(self.value, self.section, partial)

    @property
    def names(self) -> tuple[bytes, ...]:
        """The header fields that it names."""
        return self.section.names if isinstance(self.section, FetchItem.Section) else ()

    @property
    def raw(self) -> bytes:
        raw = super().raw
        if self.names:
            before, _, rest = raw.partition(b" (")
            names = b" ".join(bytes(AString(name)) for name in self.names)
            return b"%b (%b)%b" % (before, names, rest.partition(b")")[2])
        return raw


_MACROS: dict[bytes, tuple[bytes, ...]] = {
    b"FAST": (b"FLAGS", b"INTERNALDATE", b"RFC822.SIZE"),
    b"ALL": (b"FLAGS", b"INTERNALDATE", b"RFC822.SIZE", b"ENVELOPE"),
    b"FULL": (b"FLAGS", b"INTERNALDATE", b"RFC822.SIZE", b"ENVELOPE", b"BODY"),
}


class FetchCommand(select.FetchCommand):
    """FETCH, without the modifiers of RFC 4466."""

    @classmethod
    def parse(cls, buf: Buffer, params: Params) -> tuple[FetchCommand, Buffer]:
        _, buf = Space.parse(buf, params)
        numbers, buf = SequenceSet.parse(buf, params.copy(uid=cls.uid))
        _, buf = Space.parse(buf, params)
        items, buf = _items(buf, params, uid=cls.uid)
        return cls(params.tag, numbers, items), buf

    def __init__(self, tag: bytes, numbers: SequenceSet, items: Items) -> None:
        super().__init__(tag, numbers, items.items)
        self.items = items

    def is_quick(self, exists: int) -> bool:
        """Whether it takes but a moment, in a mailbox with so many messages."""
        if not self.items.octets:
            return exists <= MOST
        numbers = self.sequence_set.value
        return len(numbers) == 1 and not isinstance(numbers[0], tuple)


def _items(buf: Buffer, params: Params, *, uid: bool) -> tuple[Items, Buffer]:
    """The items to the end of a FETCH command; UID FETCH always tells the UID."""
    items: list[FetchAttribute]
    macro = _MACROS.get(bytes(buf).strip().upper())
    if macro:
        items = [FetchItem(name) for name in macro]
        buf = buf[len(bytes(buf).rstrip()) :]
    elif bytes(buf[:1]) == b"(":
        items, buf = atoms.items(FetchItem, buf, params, _MOST_ITEMS)
    else:
        item, buf = FetchItem.parse(buf, params)
        items = [item]
    if not items:
        raise NotParseable(buf)
    if sum(len(item.names) for item in items if isinstance(item, FetchItem)) > _MOST_FIELDS:
        text = b"A FETCH can name at most %d header fields." % _MOST_FIELDS
        raise Refused(buf, text, b"LIMIT")
    if uid and b"UID" not in [item.value for item in items]:
        items.append(FetchItem(b"UID"))
    _, buf = EndLine.parse(buf, params)
    return Items(items), buf


class UidFetchCommand(FetchCommand):
    """UID FETCH"""

    command = b"UID FETCH"
    delegate = FetchCommand
    uid = True


_FETCH = re.compile(
    rb"([A-Za-z0-9.]{1,50}) (UID )?FETCH (N(?::N)?(?:,N(?::N)?)*) ([^{]{1,200}\n)".replace(
        b"N", rb"(?:[1-9][0-9]{0,9}|\*)"
    ),
    re.IGNORECASE,
)


def fetch_command(line: Buffer) -> FetchCommand | None:
    """The FETCH in a line, read the short way; `None` where the line has to be read as any other.

    Mail programs say the same again and again, so their items are read only once.
    """
    found = _FETCH.fullmatch(line)
    if found is None:
        return None
    tag, uid, numbers, items = found.groups()
    try:
        read = _known_items(items, uid is not None)
        if numbers.isdigit():
            wanted = SequenceSet([int(numbers)], uid is not None)
        else:
            wanted, _ = SequenceSet.parse(memoryview(numbers), Params(uid=uid is not None))
    except (NotParseable, ValueError, RecursionError):
        return None
    return (UidFetchCommand if uid else FetchCommand)(tag, wanted, read)


@lru_cache(maxsize=64)
def _known_items(text: bytes, uid: bool) -> Items:
    items, _ = _items(memoryview(text), Params(), uid=uid)
    return items


class _Counting(ParsingState):
    """What is known while a SEARCH is read: how many keys it has so far."""

    keys = 0


class Key(SearchKey):
    """A search key. NOT may negate NOT, parentheses are never empty (RFC 3501 section 9)."""

    @classmethod
    def parse(cls, buf: Buffer, params: Params) -> tuple[SearchKey, Buffer]:
        made_of_keys = _KEY_OF_KEYS.match(buf)
        if made_of_keys is None:
            return cls._parse_one(buf, params)
        operator, buf = (made_of_keys[1] or b"").upper(), buf[made_of_keys.end() :]
        if not operator:
            listed, buf = atoms.items(cls, buf, params, _MOST_KEYS + 1)
            if not listed:
                raise NotParseable(buf)
            return cls(b"KEYSET", frozenlist(listed)), buf
        key, buf = cls.parse(buf, params)
        if operator == b"NOT":
            return key.not_inverse, buf
        _, buf = Space.parse(buf, params)
        other, buf = cls.parse(buf, params)
        return cls(b"OR", (key, other)), buf

    @classmethod
    def _parse_one(cls, buf: Buffer, params: Params) -> tuple[SearchKey, Buffer]:
        if isinstance(params.state, _Counting):
            params.state.keys += 1
            if params.state.keys > _MOST_KEYS:
                text = b"A search can have at most %d keys." % _MOST_KEYS
                raise Refused(buf, text, b"LIMIT")
        of_keyword = _OF_KEYWORD.match(buf)
        if of_keyword is not None:
            name, after = Atom.parse(buf[of_keyword.end() :], params)
            return cls(of_keyword[1].upper(), Flag(name.value)), after
        key, after = super().parse(buf, params)
        if key.value in (b"EMAILID", b"THREADID"):
            raise NotParseable(buf)
        return key, after

    @classmethod
    def _parse_astring_filter(cls, buf: Buffer, params: Params) -> tuple[str, Buffer]:
        said, after = AString.parse(buf, params)
        return said.value.decode(params.charset or "ascii"), after


class SearchCommand(select.SearchCommand):
    """SEARCH. Numbers that don't follow UID are message sequence numbers, in UID SEARCH too."""

    @classmethod
    def parse(cls, buf: Buffer, params: Params) -> tuple[SearchCommand, Buffer]:
        _, buf = Space.parse(buf, params)
        charset = "ascii"
        if bytes(buf[:8]).upper() == b"CHARSET ":
            name, buf = AString.parse(buf[8:], params)
            if name.value.upper() not in _CHARSETS:
                raise NotParseable(buf, _BAD_CHARSET)
            charset = _CHARSETS[name.value.upper()]
            _, buf = Space.parse(buf, params)
        keys = []
        counting = _Counting(continuations=cast("Sequence[Buffer]", params.state.continuations))
        params = params.copy(counting, charset=charset)
        try:
            while True:
                key, buf = Key.parse(buf, params)
                keys.append(key)
                if _at_end(buf, params):
                    break
                _, buf = Space.parse(buf, params)
        except UnicodeDecodeError as error:
            raise NotParseable(buf) from error
        _, buf = EndLine.parse(buf, params)
        return cls(params.tag, keys, charset), buf


class UidSearchCommand(SearchCommand):
    """UID SEARCH"""

    command = b"UID SEARCH"
    delegate = SearchCommand
    uid = True


# -- extensions


class IdleCommand(CommandNoArgs, CommandAuth):
    """IDLE, which needs no selected mailbox (RFC 2177 section 4)."""

    command = b"IDLE"


class NamespaceCommand(CommandNoArgs, CommandAuth):
    """NAMESPACE (RFC 2342)"""

    command = b"NAMESPACE"


class UnselectCommand(CommandNoArgs, CommandSelect):
    """UNSELECT (RFC 3691)"""

    command = b"UNSELECT"


class EnableCommand(CommandAuth):
    """ENABLE (RFC 5161)"""

    command = b"ENABLE"

    @classmethod
    def parse(cls, buf: Buffer, params: Params) -> tuple[EnableCommand, Buffer]:
        while True:
            _, buf = Space.parse(buf, params)
            _, buf = Atom.parse(buf, params)
            if _at_end(buf, params):
                break
        _, buf = EndLine.parse(buf, params)
        return cls(params.tag), buf


class UnreadableCommand(InvalidCommand):
    """Octets that can't be read as a command; `code` says why, where there is a code for it."""

    def __init__(self, params: Params, code: bytes | None = None) -> None:
        super().__init__(params, NotParseable(memoryview(b""), code))

    @property
    def message(self) -> bytes:
        return b"That can't be read as a command."


_CORRECTED: tuple[type[Command], ...] = (
    AppendCommand,
    AuthenticateCommand,
    CopyCommand,
    CreateCommand,
    DeleteCommand,
    EnableCommand,
    ExamineCommand,
    FetchCommand,
    IdleCommand,
    ListCommand,
    LoginCommand,
    LSubCommand,
    MoveCommand,
    NamespaceCommand,
    RenameCommand,
    SearchCommand,
    SelectCommand,
    StatusCommand,
    StoreCommand,
    SubscribeCommand,
    UidCopyCommand,
    UidFetchCommand,
    UidMoveCommand,
    UidSearchCommand,
    UidStoreCommand,
    UnselectCommand,
    UnsubscribeCommand,
)


class _Commands(Commands):
    """How a command is told by its tag and its name."""

    def parse(self, buf: Buffer, params: Params) -> tuple[Command, Buffer]:
        name = b""
        try:
            tag, buf = Tag.parse(buf, params)
            params = params.copy(tag=tag.value)
            while not name or self.commands[name].compound:
                _, buf = Space.parse(buf, params)
                word, buf = Atom.parse(buf, params)
                name = b" ".join((name, word.value.upper())).lstrip()
                if name not in self.commands:
                    return InvalidCommand(params, None, name), buf[:0]
        except NotParseable as error:
            return InvalidCommand(params, error), buf[:0]
        known = self.commands[name]
        try:
            return known.parse(buf, params.copy(command_name=name))
        except NotParseable as error:
            return InvalidCommand(params, error, name, known), buf[:0]


def all_commands() -> Commands:
    """All commands that this server knows."""
    commands = _Commands()
    # RFC 2971 wants more of ID than pymap reads, and nothing is lost without it.
    commands.deregister(b"ID")
    for command in _CORRECTED:
        commands.register(command)
    return commands
