"""The widgets as a reader has them: in a real JupyterLab, in a real browser, by mouse and keys."""

from __future__ import annotations

import json
import os
import re
import signal
import smtplib
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

ROOT = Path(__file__).resolve().parent.parent

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}
CELLS = (
    "from pathlib import Path\n"
    "from labserver import Lab, compose, faults, mailbox_reader, monitor\n"
    "lab = Lab()\n"
    "Path('port').write_text(str(lab.smtp.port))",
    "faults(lab)",
    'compose(lab, subject="Lunch", body="At noon?")',
    "mailbox_reader(lab)",
    "monitor(lab)",
    "import gc, ipywidgets, threading\n"
    "gc.collect()\n"
    "servers = [thread for thread in threading.enumerate() if thread.name == 'labserver']\n"
    "print('kept', len(ipywidgets.widgets.widget._instances), len(lab._journal.heard),"
    " len(servers))",
)
FORMS = ("Faults", "Compose", "Inbox", "Sessions as they happen")
MANY = (
    "for _ in range(10_000):\n"
    "    with lab.network.connect(lab.smtp) as sock:\n"
    "        sock.sendall(b'QUIT\\r\\n')\n"
    "        while sock.recv(1000):\n"
    "            pass"
)


class Server:
    """A JupyterLab whose folder is `root`."""

    def __init__(self, folder: Path) -> None:
        self.root, self._settings = folder / "root", folder / "settings"
        self.root.mkdir()
        places = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
        env = os.environ | {name: str(folder / name.lower()) for name in places}
        env |= {
            "JUPYTERLAB_SETTINGS_DIR": str(self._settings),
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
        }
        env.pop("LABSERVER_NETWORK", None)
        self._reader: threading.Thread | None = None
        self.write("widgets.ipynb")
        self.theme("light")
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1"),
                f"--ServerApp.root_dir={self.root}",
                "--ServerApp.allow_root=True",
                "--LabApp.extension_manager=readonly",
            ],
            cwd=folder,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
        )

    def listen(self) -> None:
        """Return when it can be reached; from then on `address` and `token` are known."""
        assert self._process.stdout is not None
        for row in self._process.stdout:
            if found := re.search(r"(http://127\.0\.0\.1:\d+)/\S*token=(\w+)", row):
                self.address, self.token = found.groups()
                # Read on: a full pipe would stop the server.
                self._reader = threading.Thread(target=self._process.stdout.read)
                self._reader.start()
                return
        pytest.fail("JupyterLab ended without telling its address")

    @property
    def port(self) -> int:
        """Where the notebook's lab takes mail."""
        return int((self.root / "port").read_text(encoding="utf-8"))

    def kernel_is_idle(self) -> bool:
        """Whether the notebook has a kernel that waits for work."""
        with urllib.request.urlopen(f"{self.address}/api/sessions?token={self.token}") as answer:
            sessions = json.load(answer)
        return [one["kernel"]["execution_state"] for one in sessions] == ["idle"]

    def write(self, name: str) -> None:
        """A notebook with the cells, not yet run."""
        cells = [
            {
                "cell_type": "code",
                "id": f"cell-{number}",
                "execution_count": None,
                "metadata": {},
                "outputs": [],
                "source": source,
            }
            for number, source in enumerate(CELLS)
        ]
        kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
        notebook = {
            "cells": cells,
            "metadata": {"kernelspec": kernel},
            "nbformat": 4,
            "nbformat_minor": 5,
        }
        (self.root / name).write_text(json.dumps(notebook), encoding="utf-8")

    def theme(self, name: str) -> None:
        """What the next page looks like. All cells are on it, and it asks for no news."""
        for plugin, values in (
            ("apputils-extension/themes", {"theme": THEMES[name]}),
            ("apputils-extension/notification", {"fetchNews": "false", "checkForUpdates": False}),
            ("notebook-extension/tracker", {"windowingMode": "none"}),
        ):
            path = self._settings / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(values), encoding="utf-8")

    def close(self) -> None:
        """End it, and with it its kernels."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(timeout=30)
        if self._reader is not None:
            self._reader.join(timeout=30)
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("jupyter"))
    try:
        made.listen()
        yield made
    finally:
        made.close()


@pytest.fixture
def page(server: Server, browser: Browser) -> Iterator[Page]:
    """The notebook, all of it run on a lab of its own."""
    opened = open_notebook(server, browser, "light", 1280)
    yield opened
    opened.close()


def open_notebook(server: Server, browser: Browser, theme: str, width: int) -> Page:
    server.theme(theme)
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(f"{server.address}/doc/tree/widgets.ipynb?token={server.token}")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60_000)
    deadline = time.monotonic() + 60
    while not server.kernel_is_idle():  # cells that are run before are forgotten
        assert time.monotonic() < deadline
        page.wait_for_timeout(200)
    run_all(page)
    return page


def run_all(page: Page) -> str:
    """Run all cells; what the last one says."""
    page.locator(".jp-Notebook .jp-CodeCell").first.click()
    page.get_by_role("menuitem", name="Edit", exact=True).click()
    page.get_by_text("Clear Outputs of All Cells").click()
    page.wait_for_selector("text=/^kept /", state="detached")
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    last = page.wait_for_selector("text=/^kept /", timeout=60_000)
    assert last is not None
    assert page.locator(".jp-OutputArea-output[data-mime-type*=err]").count() == 0
    for title in FORMS:
        form(page, title).wait_for(timeout=60_000)
    return last.inner_text().strip()


def form(page: Page, title: str) -> Locator:
    return page.locator(".ml-form").filter(has=page.locator(f"p.ml-title:text-is('{title}')"))


def send(port: int, subject: str) -> None:
    """As any mail program of this machine would."""
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
        client.sendmail("x@home.example", ["ben@lab.example"], f"Subject: {subject}\r\n\r\nhi\r\n")


def says(where: Locator, text: str) -> None:
    where.get_by_text(text).first.wait_for(timeout=30_000)


def test_what_is_composed_is_sent_and_read(page: Page) -> None:
    write, inbox = form(page, "Compose"), form(page, "Inbox")
    write.get_by_label("Subject").fill("Grüße")
    write.get_by_role("button", name="Send").click()
    says(write, "Sent: the server has taken it for ben@lab.example.")
    says(write, "MAIL FROM:")
    assert "•••" in write.inner_text()
    assert "lab-password" not in page.content()

    messages = inbox.get_by_label("Messages")
    says(inbox, "The inbox is empty.")
    inbox.get_by_role("button", name="List").click()
    says(inbox, "1 message.")
    assert messages.locator("option").count() == 1
    inbox.get_by_role("button", name="Read").click()
    says(inbox, "Fetched:")
    says(inbox, "At noon?")
    says(inbox, "UID FETCH 1 (BODY[])")
    inbox.get_by_role("button", name="Flag").click()
    says(inbox, "\\Flagged is set.")
    assert "(seen, flagged)" in messages.inner_text().replace("\xa0", " ")
    inbox.get_by_label("Over POP3").check()
    says(inbox, "1 message.")
    says(inbox, "TOP 1 0")
    assert inbox.get_by_role("button", name="Flag").is_disabled()
    inbox.get_by_role("button", name="Delete").click()
    says(inbox, "Deleted: POP3 removes it when the client says QUIT.")
    assert messages.locator("option").count() == 0
    says(inbox, "DELE 1")

    write.get_by_role("button", name="Send").click()
    inbox.get_by_label("Over POP3").uncheck()
    says(inbox, "1 message.")
    inbox.get_by_role("button", name="Delete").click()
    says(inbox, "Deleted: marked with \\Deleted, then expunged.")
    says(inbox, "UID EXPUNGE 2")


def test_the_monitor_shows_what_another_program_does_while_it_does_it(
    page: Page, server: Server
) -> None:
    watch = form(page, "Sessions as they happen")
    sessions = watch.get_by_label("Sessions")
    says(watch, "1 IMAP.")  # the inbox was listed
    send(server.port, "from outside")
    says(watch, "✓ 2. SMTP on smtp: 6 round trips")
    with smtplib.SMTP("127.0.0.1", server.port, timeout=30) as talker:
        says(watch, "● 3. SMTP on smtp: open, 0 round trips")
        says(watch, "1 IMAP, 2 SMTP; 1 is open.")
        sessions.select_option(index=0)
        says(watch, "Still open.")
        sessions.focus()
        talker.docmd("NOOP", "while somebody looks on")
        says(watch, "NOOP while somebody looks on")
        says(watch, "● 3. SMTP on smtp: open, 1 round trip")
        watch.get_by_label("Hold the list still").check()
        talker.docmd("NOOP", "unseen")
        send(server.port, "while it is held")
        sessions.focus()
    says(watch, "1 IMAP, 2 SMTP; 1 is open.")
    assert "unseen" not in watch.inner_text()
    watch.get_by_label("Hold the list still").uncheck()
    sessions.focus()
    says(watch, "✓ 3. SMTP on smtp: 3 round trips")
    says(watch, "NOOP unseen")
    says(watch, "1 IMAP, 3 SMTP.")
    assert sessions.locator("option").count() == 4
    assert sessions.evaluate("list => [document.activeElement === list, list.selectedIndex]") == [
        True,
        1,
    ]
    watch.get_by_text("message content").wait_for(state="detached")
    sessions.select_option(index=2)
    watch.get_by_text("message content").click()
    says(watch, "Subject: from outside")


def test_a_switch_makes_the_next_message_refused(page: Page) -> None:
    write, switches = form(page, "Compose"), form(page, "Faults")
    quota = switches.get_by_label("Quota reached")
    quota.check()
    says(switches, "Quota reached: on.")
    write.get_by_role("button", name="Send").click()
    says(write, "Not sent: the server said 550 5.4.5 Daily user sending limit exceeded.")
    switches.get_by_role("button", name="All off").click()
    says(switches, "Quota reached: off.")
    assert not quota.is_checked()
    write.get_by_role("button", name="Send").click()
    says(write, "Sent: ")


def test_all_is_done_by_keys(page: Page) -> None:
    keys, write, inbox = page.keyboard, form(page, "Compose"), form(page, "Inbox")
    watch, switches = form(page, "Sessions as they happen"), form(page, "Faults")
    write.get_by_label("From", exact=True).focus()
    for name in ("To", "Subject", "Text", "Log in and submit it"):
        keys.press("Tab")
        assert focused(page).startswith(name)
    keys.press("Tab")
    keys.press("Enter")
    says(write, "Sent: ")
    assert focused(page) == "Send"  # nobody has to look for the place again
    keys.press("Shift+Tab")
    keys.press("Space")
    keys.press("Tab")
    keys.press("Enter")
    says(watch, "SMTP on smtp")

    inbox.get_by_label("Account").focus()
    for name in ("Over POP3 instead of IMAP", "Messages", "List"):
        keys.press("Tab")
        assert focused(page) == name
    keys.press("Space")
    says(inbox, "2 messages.")
    for name in ("Previous", "Next", "Read"):
        keys.press("Tab")
        assert focused(page) == name
        if name == "Previous":
            keys.press("Enter")
    keys.press("Enter")
    says(inbox, "Fetched:")
    says(inbox, "UID FETCH 1 (BODY[])")

    switches.get_by_label("Refuse RCPT with 451 twice").focus()
    keys.press("Space")
    says(switches, "Refuse RCPT with 451 twice: on.")
    keys.press("Tab")
    assert focused(page) == "Drop the line in DATA"

    watch.get_by_label("Hold the list still").focus()
    keys.press("Tab")
    keys.press("Tab")
    assert focused(page) == "Older"
    keys.press("Space")
    watch.locator("section").wait_for(timeout=30_000)
    assert write.count() == 1  # no key was taken for a command to JupyterLab


def focused(page: Page) -> str:
    """The name of what has the focus, as its label says it."""
    name: str = page.evaluate(
        "(document.activeElement.labels?.[0] ?? document.activeElement).innerText"
    )
    return name.strip()


def test_cells_that_are_run_again_leave_nothing_behind(page: Page) -> None:
    first = run_all(page)
    form(page, "Compose").get_by_role("button", name="Send").click()
    says(form(page, "Compose"), "Sent: ")
    says(form(page, "Sessions as they happen"), "SMTP on submission")
    assert first.endswith(" 1 1")
    assert [run_all(page) for _ in range(2)] == [first, first]


def test_ten_thousand_sessions_leave_the_page_usable(page: Page) -> None:
    watch = form(page, "Sessions as they happen")
    last = page.locator(".jp-Notebook .jp-CodeCell").last
    last.locator(".cm-content").click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(MANY)
    page.keyboard.press("Control+Enter")
    # It grows while the cell still runs.
    page.wait_for_function(
        "() => /[0-9],[0-9]{3} SMTP; the latest 100/.test(document.body.innerText)", timeout=120_000
    )
    says(watch, "10,000 SMTP; the latest 100 are listed.")
    sessions = watch.get_by_label("Sessions")
    assert sessions.locator("option").count() == 100
    sessions.focus()
    page.keyboard.press("End")
    says(watch, "QUIT")
    write = form(page, "Compose")
    write.get_by_role("button", name="Send").click()
    says(write, "Sent: ")
    says(watch, "10,001 SMTP")


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("theme", list(THEMES))
def test_it_fits_on_the_screen_in_both_themes(
    server: Server, browser: Browser, theme: str, width: int
) -> None:
    page = open_notebook(server, browser, theme, width)
    talker = smtplib.SMTP("127.0.0.1", server.port, timeout=30)
    try:
        watch = form(page, "Sessions as they happen")
        says(watch, "open, 0 round trips")
        watch.get_by_role("button", name="Older").click()
        says(watch, "Still open.")
        form(page, "Compose").get_by_role("button", name="Send").click()
        says(form(page, "Compose"), "Sent: ")
        form(page, "Inbox").get_by_role("button", name="List").click()
        says(form(page, "Inbox"), "1 message.")
        form(page, "Inbox").get_by_role("button", name="Read").click()
        says(form(page, "Inbox"), "Fetched:")
        assert page.evaluate("getComputedStyle(document.body).colorScheme") is not None
        for title in FORMS:
            shown = form(page, title)
            shown.scroll_into_view_if_needed()
            assert shown.evaluate(OUTSIDE) == []
            assert shown.evaluate(OVERLAPPING) == []
            if folder := os.environ.get("LAB_SCREENSHOTS"):
                shown.evaluate("element => element.scrollIntoView()")
                page.screenshot(path=f"{folder}/{theme}-{width}-{title.split()[0]}.png")
    finally:
        talker.close()
        page.close()


OUTSIDE = """form => {
  const frame = form.getBoundingClientRect()
  return [...form.querySelectorAll('input, select, textarea, button, label, p, dl, code')]
    .filter(part => part.getClientRects().length)
    .filter(part => part.getBoundingClientRect().right > frame.right + 0.5)
    .map(part => part.outerHTML.slice(0, 200))
}"""
"""What sticks out of a form on its right."""
OVERLAPPING = """form => {
  const parts = [...form.querySelectorAll('input, select, textarea, button, label')]
    .filter(part => part.getClientRects().length && part.innerText !== '')
    .map(part => [part, part.getBoundingClientRect()])
  return parts.flatMap(([one, a], n) => parts.slice(n + 1)
    .filter(([other, b]) => !one.contains(other) && a.left < b.right - 1 && b.left < a.right - 1
      && a.top < b.bottom - 1 && b.top < a.bottom - 1)
    .map(([other]) => one.outerHTML.slice(0, 100) + ' / ' + other.outerHTML.slice(0, 100)))
}"""
"""Which parts of a form lie over each other."""
