"""One function for whatever there is to look at."""

from __future__ import annotations

from labserver.forking import Fork
from labserver.logs import Log
from labserver.message import Mailbox, Message
from labserver.transcript import Session
from labserver.views.dialogue import dialogue
from labserver.views.fork import fork
from labserver.views.log import log
from labserver.views.message import mailbox, message
from labserver.views.view import View


def show(
    thing: Session | Message | Mailbox | Log | Fork,
    *,
    reveal: bool = False,
    numbers: bool = False,
) -> View:
    """A session, a message, a mailbox, a log that was read or a fork to look at.

    A session's passwords are masked unless `reveal` is set. With `numbers` each line of a session
    has its number, from 1, as `fork` takes it. Raises TypeError, one sentence, for anything else.
    """
    if isinstance(thing, Session):
        return dialogue(thing, reveal=reveal, numbers=numbers)
    if isinstance(thing, Message):
        return message(thing)
    if isinstance(thing, Mailbox):
        return mailbox(thing)
    if isinstance(thing, Log):
        return log(thing, numbers=numbers)
    if isinstance(thing, Fork):
        return fork(thing, numbers=numbers)
    raise TypeError(
        f"show() takes a session, message, mailbox, log or fork, not {type(thing).__name__}."
    )
