"""The lab mail server: real SMTP, POP3 and IMAP, every byte of them to be seen.

    from labserver import Lab
    lab = Lab()

`lab.smtp`, `lab.imap`, … say where it listens, `lab.sessions` what was said there.
"""

import sys

if (sys.argv[:1] == ["-m"] and "labserver" in sys.orig_argv) or "".join(sys.argv[:1]).endswith(
    ("/labserver", "\\labserver", "\\labserver.exe")
):
    # This is how the command line begins: from now on Ctrl-C ends it without a traceback.
    from labserver import ending

    ending.install()

import contextlib
import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from labserver.exercises.checks import check, hint
    from labserver.exercises.conditions import (
        InMailbox,
        Legal,
        LoggedIn,
        Refused,
        Retrieved,
        Said,
        Sent,
        UnderTls,
    )
    from labserver.exercises.predict import predict
    from labserver.exercises.progress import progress
    from labserver.exercises.quiz import quiz
    from labserver.forking import Fork, fork
    from labserver.lab import ACCOUNTS, Lab, LabError
    from labserver.listeners import LISTENERS
    from labserver.logs import Log, Unread, read_log
    from labserver.message import Envelope, Mailbox, Message
    from labserver.network import NetworkError
    from labserver.notebook.widgets.compose import compose
    from labserver.notebook.widgets.faults import faults
    from labserver.notebook.widgets.monitor import monitor
    from labserver.notebook.widgets.reader import mailbox_reader
    from labserver.rules import Delay, Disconnect, Greylist, Limits, Quota, Reply, Throttle
    from labserver.store import StoreError
    from labserver.transcript import Host, Line, Record, Session
    from labserver.views.compare import compare
    from labserver.views.dialogue import replay
    from labserver.views.sequence import sequence
    from labserver.views.show import show
    from labserver.views.states import states
    from labserver.views.timeline import timeline
    from labserver.views.view import View
    from labserver.views.wire import wire

    __version__: str

__all__ = [
    "ACCOUNTS",
    "LISTENERS",
    "Delay",
    "Disconnect",
    "Envelope",
    "Fork",
    "Greylist",
    "Host",
    "InMailbox",
    "Lab",
    "LabError",
    "Legal",
    "Limits",
    "Line",
    "Log",
    "LoggedIn",
    "Mailbox",
    "Message",
    "NetworkError",
    "Quota",
    "Record",
    "Refused",
    "Reply",
    "Retrieved",
    "Said",
    "Sent",
    "Session",
    "StoreError",
    "Throttle",
    "UnderTls",
    "Unread",
    "View",
    "__version__",
    "check",
    "compare",
    "compose",
    "faults",
    "fork",
    "hint",
    "mailbox_reader",
    "monitor",
    "predict",
    "progress",
    "quiz",
    "read_log",
    "replay",
    "sequence",
    "show",
    "states",
    "timeline",
    "wire",
]

_ROOMS = {
    "export": ("Session",),  # of `transcript`, and now it can be written and read as JSON
    "forking": ("Fork", "fork"),
    "lab": ("ACCOUNTS", "Lab", "LabError"),
    "listeners": ("LISTENERS",),
    "logs": ("Log", "Unread", "read_log"),
    "message": ("Envelope", "Mailbox", "Message"),
    "network": ("NetworkError",),
    "exercises.checks": ("check", "hint"),
    "views.compare": ("compare",),
    "exercises.conditions": (
        "InMailbox",
        "Legal",
        "LoggedIn",
        "Refused",
        "Retrieved",
        "Said",
        "Sent",
        "UnderTls",
    ),
    "views.dialogue": ("replay",),
    "views.show": ("show",),
    "exercises.predict": ("predict",),
    "exercises.progress": ("progress",),
    "exercises.quiz": ("quiz",),
    "views.sequence": ("sequence",),
    "views.states": ("states",),
    "views.timeline": ("timeline",),
    "views.view": ("View",),
    "notebook.widgets.compose": ("compose",),
    "notebook.widgets.faults": ("faults",),
    "notebook.widgets.monitor": ("monitor",),
    "notebook.widgets.reader": ("mailbox_reader",),
    "views.wire": ("wire",),
    "rules": ("Delay", "Disconnect", "Greylist", "Limits", "Quota", "Reply", "Throttle"),
    "store": ("StoreError",),
    "transcript": ("Host", "Line", "Record"),
}
"""In which room each public name is."""


def __getattr__(name: str) -> object:
    """A public name, brought when it is first asked for: pytest loads the plugin in every project
    of an environment, and most of their tests need no mail server."""
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        with contextlib.suppress(PackageNotFoundError):  # a clone that isn't installed has none
            return version(__name__)
    for room, names in _ROOMS.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{room}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _keep_quiet() -> None:
    """Whoever wants to hear of the servers' troubles gives this logger a handler of their own."""
    import logging

    logging.getLogger(__name__).addHandler(logging.NullHandler())


_keep_quiet()

# Only IPython is told; elsewhere nothing of Jupyter is imported.
if "IPython" in sys.modules:
    from labserver.notebook import display, magics

    display.register()
    magics.register()
