"""Has IPython show the lab's things by itself."""

from __future__ import annotations

import sys
from typing import Any

from labserver.forking import Fork
from labserver.logs import Log
from labserver.message import Mailbox, Message
from labserver.transcript import Session
from labserver.views.show import show


def register() -> None:
    """Where this is IPython, have it show sessions, messages, mailboxes, logs and forks."""
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None:
        return
    formatter = shell.display_formatter.formatters["text/html"]
    for kind in (Session, Message, Mailbox, Log, Fork):
        formatter.for_type(kind, lambda thing: show(thing).html)
