"""Who answers: the SMTP, POP3 and IMAP servers, as asyncio protocols that a network listens for.

They don't know how bytes travel; a network gives each its transport (`network/`).
"""
