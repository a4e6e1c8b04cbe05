"""What IPython shows for the lab's things, in a real IPython of its own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROGRAM = r"""
import json, smtplib
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance()
shell.run_cell("from labserver import Lab\nlab = Lab()")
lab = shell.user_ns["lab"]
with smtplib.SMTP(*lab.smtp) as client:
    client.sendmail("a@b.example", ["ben@lab.example"], "Subject: hi\r\n\r\nhi\r\n")
inbox = lab.inbox("ben@lab.example")
things = {"session": lab.sessions[-1], "mailbox": inbox, "message": inbox[0]}
print(json.dumps({name: shell.display_formatter.format(it)[0] for name, it in things.items()}))
lab.close()
"""


@pytest.mark.process
def test_ipython_shows_sessions_mailboxes_and_messages_as_html() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout.splitlines()[-1])
    for name in ("session", "mailbox", "message"):
        assert '<section class="ml-view ' in shown[name]["text/html"]
    assert shown["session"]["text/plain"] == "<Session 1: SMTP on smtp, closed>"
    assert shown["mailbox"]["text/plain"] == "1. from (none): hi"
    assert shown["message"]["text/plain"] == "<Message 1: hi>"
