"""Mailbox names: how they are written and read, which are allowed, which a pattern fits.

Within the server a name is text. On the wire it is modified UTF-7 (RFC 3501 section 5.1.3).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from functools import cached_property

from pymap.exceptions import MailboxError
from pymap.parsing import Params
from pymap.parsing.primitives import QuotedString
from pymap.parsing.response import ResponseCode
from pymap.parsing.specials import Mailbox

from labserver.servers.imap.atoms import AString, Buffer, Refused

DELIMITER = "/"
_LONGEST_NAME = 255
_INBOX = re.compile(r"INBOX", re.IGNORECASE | re.ASCII)
_SHIFTED = re.compile(r"&([A-Za-z0-9+,]*)-")
_TO_SHIFT = re.compile(r"&|[^ -~]+")
_CONTROLS = re.compile(r"[^ -~]+")
_BARE = re.compile(rb"(?!(?:NIL|[0-9]+)\Z)[!#$&'+-Z^-z|~]+", re.IGNORECASE)
"""Names told without quotes. `[`, `]` and `}` may stand there, and a name may be NIL or a number,
but not all clients know."""
_JOINERS = "\u200c\u200d"
"""They show nothing themselves, but some scripts and emoji need them."""


class BadName(MailboxError):
    """A mailbox can't have that name."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(name, why.encode(), ResponseCode.of(b"CANNOT"))


class MailboxName(Mailbox):
    """A mailbox's name.

    INBOX is INBOX in any letter case, where it is a name's first level as well.
    """

    def __init__(self, name: str) -> None:
        super().__init__("")  # pymap takes more than ASCII's letters for those of INBOX
        self.mailbox = name

    @classmethod
    def parse(cls, buf: Buffer, params: Params) -> tuple[MailboxName, Buffer]:
        name, after = AString.parse(buf, params)
        return cls(with_inbox(decoded(name.value, after))), after

    def __bytes__(self) -> bytes:
        octets = encoded(self.value)
        return octets if _BARE.fullmatch(octets) else bytes(QuotedString(octets))


def with_inbox(name: str) -> str:
    """The same name, with INBOX as its first level in capitals."""
    first, delimiter, rest = name.partition(DELIMITER)
    return f"INBOX{delimiter}{rest}" if _INBOX.fullmatch(first) else name


def encoded(name: str) -> bytes:
    """A name in modified UTF-7."""
    return _TO_SHIFT.sub(lambda run: _shifted(run[0]), name).encode("ascii")


def _shifted(text: str) -> str:
    if text == "&":
        return "&-"
    letters = base64.b64encode(text.encode("utf-16-be"), b"+,").decode("ascii")
    return f"&{letters.rstrip('=')}-"


def decoded(octets: bytes, buf: Buffer) -> str:
    """A name, or a pattern of names, as text. Raises `Refused`.

    Only what `encoded` would write is taken: no other form is permitted, and a name must have
    but one, since clients compare what they say with what LIST tells. Control characters may
    stand as they are here; a mailbox can't have them (`checked`).
    """
    try:
        said = _CONTROLS.sub(lambda run: _shifted(run[0]), octets.decode("ascii"))
        name = _SHIFTED.sub(lambda shifted: _unshifted(shifted[1]), said)
        if encoded(name).decode("ascii") == said:
            return name
    except ValueError:
        pass
    raise Refused(buf, b"That mailbox name isn't modified UTF-7 (RFC 3501 section 5.1.3).")


def _unshifted(letters: str) -> str:
    padding = "=" * (-len(letters) % 4)
    return base64.b64decode(letters + padding, b"+,").decode("utf-16-be") if letters else "&"


def checked(name: str) -> str:
    """A name for a new mailbox. Raises `BadName`."""
    if not all(name.split(DELIMITER)):
        raise BadName(name, "Each level of a mailbox's name needs at least one character.")
    if len(name.encode("utf-8", "replace")) > _LONGEST_NAME:
        raise BadName(name, f"A mailbox's name can have at most {_LONGEST_NAME} octets.")
    if any(not (c.isprintable() or c in _JOINERS) or c in "*%" for c in name):
        raise BadName(name, "A mailbox's name can't contain *, % or characters that don't show.")
    return name


class Pattern:
    """A pattern of LIST or LSUB: `*` is anything, `%` anything within one level.

    To match a name takes a step for each of its characters, whatever the pattern.
    """

    def __init__(self, pattern: str) -> None:
        # Of wildcards in a row one does as well, so no two stand side by side.
        self._text = re.sub(r"[*%]{2,}", lambda row: "*" if "*" in row[0] else "%", pattern)
        self._least = len(self._text) - self._text.count("*") - self._text.count("%")

    def fits(self, name: str) -> bool:
        """Whether it fits the whole name."""
        return name in self.levels(name)

    def levels(self, name: str) -> Iterator[str]:
        """Of the name and its superiors those that the pattern fits, the shortest first."""
        if self._least > len(name):
            return
        # The places reached in the pattern are the bits of one number.
        places_of = self._places_in_capitals if name == "INBOX" else self._places
        wild, anything = places_of["%"] | places_of["*"], places_of["*"]
        end = 1 << len(self._text)
        reached = 1 | (1 & wild) << 1
        for length, character in enumerate(name):
            if character == DELIMITER and reached & end:
                yield name[:length]
            stay = reached & (anything if character == DELIMITER else wild)
            if character not in "*%":
                stay |= (reached & places_of.get(character, 0)) << 1
            reached = stay | (stay & wild) << 1
        if reached & end:
            yield name

    @cached_property
    def _places(self) -> dict[str, int]:
        return _places(self._text)

    @cached_property
    def _places_in_capitals(self) -> dict[str, int]:
        return _places(re.sub(r"[a-z]+", lambda letters: letters[0].upper(), self._text))


def _places(text: str) -> dict[str, int]:
    """Where each character and each wildcard stands, as the bits of a number."""
    places = {"*": 0, "%": 0}
    for place, character in enumerate(text):
        places[character] = places.get(character, 0) | 1 << place
    return places
