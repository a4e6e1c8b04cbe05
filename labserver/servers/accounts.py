"""Whose mail a lab keeps, who may log in, and how long that takes; asked by all three servers."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field

from labserver.rules import Limits
from labserver.servers.addresses import is_address, one_domain, one_spelling
from labserver.transcript import MASK

LONGEST_WAIT = 30.0
"""Seconds; mail programs wait that long."""
_REMEMBERED_SECONDS = 300.0
"""How long wrong passwords count when no other one comes."""
_NAMES = 1000
"""How many names are remembered, and how many characters of each."""


class Password(str):
    """A password: a `str` like any other, but masked in a representation.

    So neither a mapping of accounts nor a failing test prints it; `print` and an f-string do.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(MASK)


@dataclass(frozen=True, slots=True)
class Accounts:
    """The lab's addresses with their passwords.

    With `catch_all` every address has a mailbox; one that isn't among `passwords` is opened with
    the address itself as password, so that a program's mail to anybody can be read by a client.
    """

    passwords: Mapping[str, str] = field(repr=False)
    catch_all: bool = False
    _names: Mapping[str, str] = field(init=False, repr=False, compare=False)
    """The accounts by the one spelling that all spellings of an address share."""
    _domains: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        named: dict[str, str] = {}
        names: dict[str, str] = {}
        folded: set[str] = set()
        for address, password in self.passwords.items():
            if not isinstance(address, str) or not is_address(address):
                raise ValueError(f"{address!r} is not an address such as ana@lab.example.")
            if not isinstance(password, str) or not password.isprintable() or not password:
                raise ValueError(f"The account {address} needs a password that can be typed.")
            if address.casefold() in folded or one_spelling(address) in names:
                raise ValueError(f"The account {address} is there twice.")
            folded.add(address.casefold())
            local, at, domain = address.rpartition("@")
            # ß and ss are one in a name, and two in a domain.
            account = local.casefold() + at + domain.lower()
            names[one_spelling(address)] = account
            named[account] = password
        object.__setattr__(self, "passwords", named)
        object.__setattr__(self, "_names", names)
        domains = frozenset(name.rpartition("@")[2] for name in names)
        object.__setattr__(self, "_domains", domains)

    def has(self, address: str) -> bool:
        """Whether mail for that address is kept here, however it is spelled."""
        return self.of(address) is not None

    def of(self, address: str) -> str | None:
        """The account that gets the mail for that address, or `None`.

        `postmaster`, alone or at a domain of the lab's, is the first account where it isn't one
        itself (RFC 5321 section 4.5.1).
        """
        address = self.spelled(address)
        if address in self.passwords:
            return address
        local, _, domain = address.partition("@")
        if local == "postmaster" and (not domain or self.is_local(domain)):
            return next(iter(self.passwords), None)
        return address if self.catch_all else None

    def spelled(self, address: str) -> str:
        """The address as the account of that name is spelled here, whether or not there is one."""
        one = one_spelling(address)
        return self._names.get(one, one)

    def is_local(self, domain: str) -> bool:
        """Whether the lab answers for that domain."""
        return one_domain(domain) in self._domains

    def log_in(self, name: str, password: str) -> str | None:
        """The account's address if the password is right, else `None`."""
        address = self.spelled(name)
        right = self.passwords.get(address)
        if right is not None:
            given = password.encode("utf-8", "surrogateescape")
            return address if hmac.compare_digest(right.encode(), given) else None
        anybody = self.catch_all and "@" in address
        return address if anybody and one_spelling(password) == address else None


class Guesses:
    """How often a password was wrong lately, for each name, whatever the connection.

    As many wrong ones as a connection may give cost nothing more. After that each login under the
    name has to wait, the right one too, twice as long with each wrong one: who opens many
    connections at once guesses no faster. Names without an account count as well, or the time would
    tell which exist. The servers of a lab share this; it is asked on their loop.
    """

    def __init__(self, limits: Limits) -> None:
        self._free, self._first = limits.login_failures, limits.login_delay
        self._wrong: dict[str, tuple[int, float]] = {}

    def wait(self, name: str) -> float:
        """Seconds until a password for that name may be looked at."""
        count = self._count(name)
        # The exponent is bounded: a lab may allow any number of failures.
        return min(self._first * 2.0 ** min(count, 99), LONGEST_WAIT) if count >= self._free else 0

    def checked(self, name: str, *, right: bool) -> None:
        """A password for that name was right or wrong."""
        count = self._count(name) + 1
        self._wrong.pop(_remembered(name), None)
        if not right:
            self._wrong[_remembered(name)] = count, asyncio.get_running_loop().time()
        if len(self._wrong) > _NAMES:
            del self._wrong[next(iter(self._wrong))]

    def _count(self, name: str) -> int:
        count, last = self._wrong.get(_remembered(name), (0, 0.0))
        return count if asyncio.get_running_loop().time() - last < _REMEMBERED_SECONDS else 0


def _remembered(name: str) -> str:
    return one_spelling(name[:_NAMES])[:_NAMES]
