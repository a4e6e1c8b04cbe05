"""Tells IPython how the lab's things are displayed."""

from __future__ import annotations

import sys
from typing import Any

from labserver.message import Mailbox, Message
from labserver.notebook import html
from labserver.transcript import Session


def register() -> None:
    """Where this is IPython, have it show sessions, messages and mailboxes as HTML."""
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None:
        return
    formatter = shell.display_formatter.formatters["text/html"]
    formatter.for_type(Session, html.session)
    formatter.for_type(Message, html.message)
    formatter.for_type(Mailbox, html.mailbox)
