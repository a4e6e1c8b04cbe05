"""What one side's next octets are, and how they are to be read."""

from __future__ import annotations

from typing import Literal, NamedTuple

from labserver.transcript import LineKind


class Due(NamedTuple):
    """What one side says next."""

    kind: LineKind
    form: Literal["line", "rows", "dot", "octets", "wait"] = "line"
    """One line; lines of a list up to a dot; message content up to a dot; as many octets as were
    announced; or not known before the other side has answered."""
    octets: int = 0
    """Announced, and to come now (`octets`) or once there is leave (`wait`)."""
    unasked: bool = False
    """They come without leave."""
    rest: bool = False
    """The line goes on with the one before the announced octets."""


COMMAND, REPLY, CREDENTIALS = Due("command"), Due("reply"), Due("credentials")
LIST, MESSAGE = Due("reply", "rows"), Due("content", "dot")
HELD, HELD_LOGIN = Due("command", "wait"), Due("credentials", "wait")
REST_OF_COMMAND, REST_OF_REPLY = COMMAND._replace(rest=True), REPLY._replace(rest=True)
