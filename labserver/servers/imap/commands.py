"""How the commands are read that pymap reads differently from RFC 3501, or not at all.

What they do is in `state.py`. Commands whose extension isn't offered are not known here, so that
a client gets BAD instead of something half right.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import ClassVar

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
from pymap.parsing.primitives import Atom, List, LiteralString, String
from pymap.parsing.specials import (
    AString,
    DateTime,
    ExtensionOptions,
    FetchAttribute,
    Flag,
    Mailbox,
    SearchKey,
    SequenceSet,
    StatusAttribute,
)

from labserver.servers.imap.fetch import MOST, Items
from labserver.servers.imap.mailboxes import DELIMITER

_INITIAL_RESPONSE = re.compile(rb"=|[A-Za-z0-9+/]+={0,2}")
_SHIFTED = re.compile(r"&([A-Za-z0-9+,]*)-")
_KEY_OF_KEYS = re.compile(rb" *(?:(NOT|OR) +|(?=\())", re.IGNORECASE)
_CHARSETS = {b"US-ASCII": "ascii", b"UTF-8": "utf-8"}
_BAD_CHARSET = b"BADCHARSET (US-ASCII UTF-8)"

Buffer = memoryview


# -- logging in


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


class MailboxName(Mailbox):
    """A mailbox's name in modified UTF-7 (RFC 3501 section 5.1.3).

    INBOX is INBOX in any letter case, where it is a name's first level as well.
    """

    @classmethod
    def parse(cls, buf: Buffer, params: Params) -> tuple[MailboxName, Buffer]:
        name, after = AString.parse(buf, params)
        return cls(_with_inbox(decoded_name(name.value, buf))), after


def _with_inbox(name: str) -> str:
    first, delimiter, rest = name.partition(DELIMITER)
    return f"INBOX{delimiter}{rest}" if first.upper() == "INBOX" else name


def decoded_name(octets: bytes, buf: Buffer) -> str:
    """A name, or a pattern of names, as text. Raises `NotParseable`."""
    try:
        text = octets.decode("ascii")
        if "&" in _SHIFTED.sub("", text):
            raise ValueError("a shift to base64 has no end")
        return _SHIFTED.sub(lambda found: _unshifted(found[1]) if found[1] else "&", text)
    except ValueError as error:
        raise NotParseable(buf) from error


def _unshifted(letters: str) -> str:
    try:
        octets = base64.b64decode(letters.replace(",", "/") + "=" * (-len(letters) % 4))
    except binascii.Error as error:
        raise ValueError("not base64") from error
    return octets.decode("utf-16-be")


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
        bare = cls._list_mailbox_pattern.match(buf)
        if bare:
            octets, buf = bare.group(0), buf[bare.end(0) :]
        else:
            string, buf = String.parse(buf, params)
            octets = string.value
        _, buf = EndLine.parse(buf, params)
        pattern = decoded_name(bytes(octets), buf)
        # Of a reference and a pattern only what they are together is a name.
        return cls(params.tag, "", _with_inbox(reference.value + pattern) if pattern else ""), buf


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
        items, buf = List.parse(buf, params.copy(expected=[StatusItem]))
        if not items.value:
            raise NotParseable(buf)
        _, buf = EndLine.parse(buf, params)
        return cls(params.tag, name, items.get_as(StatusItem)), buf


class AppendCommand(auth.AppendCommand):
    """APPEND of one message: no MULTIAPPEND (RFC 3502), no BINARY (RFC 3516)."""

    @classmethod
    def parse(cls, buf: Buffer, params: Params) -> tuple[AppendCommand, Buffer]:
        name, buf = _mailbox(buf, params)
        flags: Sequence[Flag] = ()
        when = None
        _, buf = Space.parse(buf, params)
        if bytes(buf[:1]) == b"(":
            listed, buf = List.parse(buf, params.copy(expected=[Flag]))
            flags = listed.get_as(Flag)
            _, buf = Space.parse(buf, params)
        if bytes(buf[:1]) == b'"':
            date, buf = DateTime.parse(buf, params)
            when = date.value
            _, buf = Space.parse(buf, params)
        message, buf = LiteralString.parse(buf, params)
        if message.binary:
            raise NotParseable(buf)
        _, buf = EndLine.parse(buf, params)
        messages = [AppendMessage(message.value, when, frozenset(flags))]
        return cls(params.tag, name, messages, cancelled=not message.value), buf


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
        section, after = super()._parse_section(buf, params)
        if not section.headers:
            return section, after
        # pymap takes quotes for a part of a name, and doesn't keep the names' order.
        start = bytes(buf).index(b"(")
        listed, after = List.parse(buf[start:], params.copy(expected=[AString]))
        names = [name.value for name in listed.get_as(AString)]
        return cls.Section(section.parts, section.specifier, names), after

    @property
    def for_response(self) -> FetchAttribute:
        if self.partial is None or self.partial.length is None:
            return self
        partial = type(self.partial)(self.partial.start)
        return FetchItem(self.value, self.section, partial)

    @property
    def raw(self) -> bytes:
        raw = super().raw
        if isinstance(self.section, FetchItem.Section) and self.section.names:
            before, _, rest = raw.partition(b" (")
            names = b" ".join(bytes(AString(name)) for name in self.section.names)
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
        listed, buf = List.parse(buf, params.copy(expected=[FetchItem]))
        items = list(listed.get_as(FetchItem))
    else:
        item, buf = FetchItem.parse(buf, params)
        items = [item]
    if not items:
        raise NotParseable(buf)
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


class Key(SearchKey):
    """A search key. NOT may negate NOT, parentheses are never empty (RFC 3501 section 9)."""

    @classmethod
    def parse(cls, buf: Buffer, params: Params) -> tuple[SearchKey, Buffer]:
        made_of_keys = _KEY_OF_KEYS.match(buf)
        if made_of_keys is None:
            key, after = super().parse(buf, params)
            if key.value in (b"EMAILID", b"THREADID"):
                raise NotParseable(buf)
            return key, after
        operator, buf = (made_of_keys[1] or b"").upper(), buf[made_of_keys.end() :]
        if not operator:
            listed, buf = List.parse(buf, params.copy(expected=[cls]))
            if not listed.value:
                raise NotParseable(buf)
            return cls(b"KEYSET", listed.get_as(SearchKey)), buf
        key, buf = cls.parse(buf, params)
        if operator == b"NOT":
            return key.not_inverse, buf
        _, buf = Space.parse(buf, params)
        other, buf = cls.parse(buf, params)
        return cls(b"OR", (key, other)), buf


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
        try:
            while True:
                key, buf = Key.parse(buf, params.copy(charset=charset))
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
    LSubCommand,
    MoveCommand,
    NamespaceCommand,
    RenameCommand,
    SearchCommand,
    SelectCommand,
    StatusCommand,
    SubscribeCommand,
    UidCopyCommand,
    UidFetchCommand,
    UidMoveCommand,
    UidSearchCommand,
    UnselectCommand,
    UnsubscribeCommand,
)


def all_commands() -> Commands:
    """All commands that this server knows."""
    commands = Commands()
    # RFC 2971 wants more of ID than pymap reads, and nothing is lost without it.
    commands.deregister(b"ID")
    for command in _CORRECTED:
        commands.register(command)
    return commands
