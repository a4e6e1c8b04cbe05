"""Whose mail a lab keeps and who may log in, asked by all three servers."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field

from labserver.servers.addresses import is_address


@dataclass(frozen=True, slots=True)
class Accounts:
    """The lab's addresses with their passwords.

    With `catch_all` every address has a mailbox; one that isn't among `passwords` is opened with
    the address itself as password, so that a program's mail to anybody can be read by a client.
    """

    passwords: Mapping[str, str] = field(repr=False)
    catch_all: bool = False

    def __post_init__(self) -> None:
        if not self.passwords:
            raise ValueError("A lab needs at least one account.")
        folded: dict[str, str] = {}
        for address, password in self.passwords.items():
            if not isinstance(address, str) or not is_address(address):
                raise ValueError(f"{address!r} is not an address such as ana@lab.example.")
            if not isinstance(password, str) or not password.isprintable() or not password:
                raise ValueError(f"The account {address} needs a password that can be typed.")
            if address.casefold() in folded:
                raise ValueError(f"The account {address} is there twice.")
            folded[address.casefold()] = password
        object.__setattr__(self, "passwords", folded)

    def has(self, address: str) -> bool:
        """Whether mail for that address is kept here. Case doesn't matter."""
        return self.of(address) is not None

    def of(self, address: str) -> str | None:
        """The account that gets the mail for that address, or `None`.

        `postmaster`, alone or at a domain of the lab's, is the first account where it isn't one
        itself (RFC 5321 section 4.5.1).
        """
        address = address.casefold()
        if address in self.passwords:
            return address
        local, _, domain = address.partition("@")
        if local == "postmaster" and (not domain or self.is_local(domain)):
            return next(iter(self.passwords))
        return address if self.catch_all else None

    def is_local(self, domain: str) -> bool:
        """Whether the lab answers for that domain."""
        return any(a.rpartition("@")[2] == domain.casefold() for a in self.passwords)

    def log_in(self, name: str, password: str) -> str | None:
        """The account's address if the password is right, else `None`."""
        address = name.casefold()
        right = self.passwords.get(address, address if self.catch_all and "@" in address else None)
        if right is None:
            return None
        same = hmac.compare_digest(right.encode(), password.encode("utf-8", "surrogateescape"))
        return address if same else None
