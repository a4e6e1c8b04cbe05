"""Which messages SEARCH finds (RFC 3501 section 6.4.4).

pymap reads the search keys; here they become conditions. Strings are compared after decoding,
BODY looks at the body alone, and a message's content is read only for keys that need it.
"""

from __future__ import annotations

import email.utils
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property

from pymap.exceptions import SearchNotAllowed
from pymap.parsing.specials import FetchRequirement, Flag, SearchKey

from labserver.fields import without_comments
from labserver.servers.imap.messages import Content, Message
from labserver.servers.imap.selected import as_runs, within

_FLAGS = (b"ANSWERED", b"DELETED", b"DRAFT", b"FLAGGED", b"RECENT", b"SEEN")


@dataclass
class Candidate:
    """A message that may be found."""

    number: int
    """Its message sequence number."""
    message: Message
    flags: frozenset[Flag]
    was_read: bool = False
    """Whether its content had to be looked into."""

    @cached_property
    def content(self) -> Content:
        """Its content, which is read when it is needed."""
        self.was_read = True
        return self.message.content

    @cached_property
    def all_texts(self) -> list[str]:
        """Its header fields and texts, decoded, in one letter case: what TEXT looks at."""
        return [text.casefold() for text in self.content.texts(header=True)]

    @cached_property
    def body_texts(self) -> list[str]:
        """The same without its own header: what BODY looks at."""
        return [text.casefold() for text in self.content.texts(header=False)]

    @cached_property
    def flag_names(self) -> frozenset[bytes]:
        """Its flags in lower case."""
        return frozenset(flag.value.lower() for flag in self.flags)


Condition = Callable[[Candidate], bool]


def condition(keys: Iterable[SearchKey], numbers: int, max_uid: int) -> Condition:
    """True for messages that fit all keys, in a mailbox with so many messages."""
    # What can be told without a message's content is asked first.
    ordered = sorted(keys, key=lambda key: _needs_content(key))
    conditions = [_condition(key, numbers, max_uid) for key in ordered]
    return lambda one: all(fits(one) for fits in conditions)


def _needs_content(key: SearchKey) -> bool:
    return not key.requirement.has_none(FetchRequirement.CONTENT)


def _condition(key: SearchKey, numbers: int, max_uid: int) -> Condition:
    fits = _positive(key, numbers, max_uid)
    return (lambda one: not fits(one)) if key.inverse else fits


def _positive(key: SearchKey, numbers: int, max_uid: int) -> Condition:
    name = key.value
    if name == b"ALL":
        return lambda one: True
    if name == b"SEQSET":
        return _in_set(key, numbers, max_uid)
    if name == b"KEYSET":
        return condition(key.filter_key_set, numbers, max_uid)
    if name == b"OR":
        left, right = (_condition(one, numbers, max_uid) for one in key.filter_key_or)
        return lambda one: left(one) or right(one)
    return _of_flags(key) or _of_row(key) or _of_content(key)


def _in_set(key: SearchKey, numbers: int, max_uid: int) -> Condition:
    chosen = key.filter_sequence_set
    runs = as_runs(chosen, max_uid if chosen.uid else numbers)
    if chosen.uid:
        return lambda one: within(one.message.uid, runs)
    return lambda one: within(one.number, runs)


def _of_flags(key: SearchKey) -> Condition | None:
    name = key.value
    if name == b"NEW":
        return lambda one: rb"\recent" in one.flag_names and rb"\seen" not in one.flag_names
    if name == b"OLD":
        return lambda one: rb"\recent" not in one.flag_names
    if name in (b"KEYWORD", b"UNKEYWORD"):
        flag = key.filter_flag.value.lower()
    elif name.removeprefix(b"UN") in _FLAGS:
        flag = b"\\" + name.removeprefix(b"UN").lower()
    else:
        return None
    expected = not name.startswith(b"UN")
    return lambda one: (flag in one.flag_names) == expected


def _of_row(key: SearchKey) -> Condition | None:
    if key.value in (b"SMALLER", b"LARGER"):
        octets = key.filter_int
        compare = operator.lt if key.value == b"SMALLER" else operator.gt
        return lambda one: compare(one.message.size, octets)
    if key.value in (b"BEFORE", b"ON", b"SINCE"):
        fits = _day(key.value, key.filter_datetime)
        return lambda one: fits(one.message.internal_date.date())
    return None


def _of_content(key: SearchKey) -> Condition:
    name = key.value
    if name in (b"SENTBEFORE", b"SENTON", b"SENTSINCE"):
        fits = _day(name.removeprefix(b"SENT"), key.filter_datetime)
        return lambda one: (sent := _sent(one.content)) is not None and fits(sent)
    if name in (b"BCC", b"CC", b"FROM", b"TO"):
        wanted = key.filter_str.casefold()
        return lambda one: any(wanted in a.casefold() for a in one.content.get_addresses(name))
    if name == b"SUBJECT":
        return _in_header(name, key.filter_str)
    if name == b"HEADER":
        field, value = key.filter_header
        return _in_header(field.encode("utf-8", "surrogateescape"), value)
    if name == b"TEXT":
        wanted = key.filter_str.casefold()
        return lambda one: any(wanted in text for text in one.all_texts)
    if name == b"BODY":
        wanted = key.filter_str.casefold()
        return lambda one: any(wanted in text for text in one.body_texts)
    raise SearchNotAllowed(key)


def _in_header(field: bytes, value: str) -> Condition:
    wanted = value.casefold()
    return lambda one: any(wanted in text.casefold() for text in one.content.get_header(field))


def _day(name: bytes, wanted: datetime) -> Callable[[date], bool]:
    """Compares days only, whatever the time and the time zone."""
    day = wanted.date()
    if name == b"BEFORE":
        return lambda one: one < day
    return (lambda one: one >= day) if name == b"SINCE" else (lambda one: one == day)


def _sent(content: Content) -> date | None:
    """The day in the Date field, as its sender saw it."""
    value = without_comments((content.message.first(b"date") or b"")[:100])
    try:
        return email.utils.parsedate_to_datetime(value.decode("ascii", "replace")).date()
    except (TypeError, ValueError, OverflowError, IndexError):
        return None  # not a date
