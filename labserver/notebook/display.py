"""Shows the lab's things: by `show`, and by itself where IPython displays them."""

from __future__ import annotations

import sys
from typing import Any

from labserver.forking import Fork
from labserver.logs import Log
from labserver.message import Mailbox, Message
from labserver.notebook.dialogue import dialogue
from labserver.notebook.fork import fork
from labserver.notebook.log import log
from labserver.notebook.message import mailbox, message
from labserver.notebook.view import View
from labserver.transcript import Session


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


def register() -> None:
    """Where this is IPython, have it show sessions, messages and mailboxes by itself."""
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None:
        return
    formatter = shell.display_formatter.formatters["text/html"]
    for kind in (Session, Message, Mailbox, Log, Fork):
        formatter.for_type(kind, lambda thing: show(thing).html)
