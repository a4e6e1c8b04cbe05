"""Who answers: the SMTP, POP3 and IMAP servers, as asyncio protocols that a network listens for.

They don't know how bytes travel; a network gives each its transport (`network/`). What they are
told, and who decides about mail and passwords, is in `setup.py`; `rulebook.py` says what a lab's
rules want, and `interpreter.py` does it.
"""
