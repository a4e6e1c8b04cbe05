"""Which maildrops are locked; asked by all POP3 servers of a lab."""

from __future__ import annotations


class Maildrops:
    """The exclusive-access locks on the maildrops of one lab (RFC 1939 section 4).

    IMAP and SMTP don't ask: a lock keeps out other POP3 clients, and a snapshot keeps this one's
    message-numbers right.
    """

    def __init__(self) -> None:
        self._locked: set[str] = set()

    def lock(self, account: str) -> bool:
        """Lock the account's maildrop; `False` where another client has it."""
        if account in self._locked:
            return False
        self._locked.add(account)
        return True

    def release(self, account: str) -> None:
        """Give the maildrop back."""
        self._locked.discard(account)
