"""The lab mail server: real SMTP, POP3 and IMAP, every byte of them to be seen.

    from labserver import Lab
    lab = Lab()

`lab.smtp`, `lab.imap`, … say where it listens, `lab.sessions` what was said there.
"""

import logging

from labserver.lab import ACCOUNTS, LISTENERS, Lab, LabError
from labserver.message import Envelope, Mailbox, Message
from labserver.network import NetworkError
from labserver.notebook.display import register
from labserver.rules import Limits
from labserver.store import StoreError
from labserver.transcript import Line, Record, Session

# Whoever wants to hear of the servers' troubles gives this logger a handler of their own.
logging.getLogger(__name__).addHandler(logging.NullHandler())

# Only IPython is told; elsewhere nothing of Jupyter is imported.
register()

__all__ = [
    "ACCOUNTS",
    "LISTENERS",
    "Envelope",
    "Lab",
    "LabError",
    "Limits",
    "Line",
    "Mailbox",
    "Message",
    "NetworkError",
    "Record",
    "Session",
    "StoreError",
]
