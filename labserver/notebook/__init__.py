"""What a reader of a notebook sees: sessions, messages and mailboxes as HTML.

No protocol logic: what a line means comes from the catalog. Only `display.py` knows IPython.
"""
