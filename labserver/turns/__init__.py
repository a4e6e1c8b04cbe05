"""Turn-taking: whose turn it is in a dialogue, and what a line answers; each rule stands once.

`Turns(protocol)` listens to both sides and plays neither. `hear(who, line)` tells what a line is
(`Turn`); `due` says how each side's next octets are to be read: a line, content up to a dot, a
number of octets, or not known before the other side has answered; `next()` says who may speak, and
which commands and replies the catalog lists for it (`Expected`).

`due.py` and `turn.py` have these values, `turns.py` what the protocols share, `smtp.py`,
`pop3.py` and `imap.py` the rules of each. What a line means is the catalog's to say; where a
secret stands is `dialogue.py`'s.
"""

from labserver.turns.due import Due
from labserver.turns.imap import ImapTurns, Literal, is_shapeless, literal_of
from labserver.turns.pop3 import Pop3Turns
from labserver.turns.smtp import CHALLENGE, GO_ON, SmtpTurns, goes_on
from labserver.turns.turn import Answer, Exchange, Expected, Turn
from labserver.turns.turns import Turns

__all__ = [
    "CHALLENGE",
    "GO_ON",
    "Answer",
    "Due",
    "Exchange",
    "Expected",
    "ImapTurns",
    "Literal",
    "Pop3Turns",
    "SmtpTurns",
    "Turn",
    "Turns",
    "goes_on",
    "is_shapeless",
    "literal_of",
]
