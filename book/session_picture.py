"""Makes the README's picture of an annotated session: a real one, as Chromium shows it.

python book/session_picture.py
"""

from __future__ import annotations

import smtplib
import sys
from email.message import EmailMessage
from pathlib import Path

from playwright.sync_api import sync_playwright

from labserver import Lab, Session, show

PICTURE = Path(__file__).with_name("_assets") / "session.png"
PAGE = '<!doctype html><html lang="en" data-theme="light"><meta charset="utf-8"><body>{}</body>'


def session() -> Session:
    """A submission in which one of two recipients is refused."""
    message = EmailMessage()
    message["From"], message["To"] = "ana@lab.example", "ben@lab.example"
    message["Subject"] = "hello"
    message.set_content("Hi Ben\n.a dot at the start of a line\n")
    with Lab() as lab:
        with smtplib.SMTP(*lab.submission, local_hostname="client.example") as client:
            client.starttls(context=lab.tls)
            client.login("ana@lab.example", lab.accounts["ana@lab.example"])
            client.send_message(message, to_addrs=["ben@lab.example", "nobody@lab.example"])
        return lab.sessions[-1]


def main() -> None:
    """Write the picture; the first argument names another browser than Debian's Chromium."""
    browser_path = sys.argv[1] if len(sys.argv) > 1 else "/usr/bin/chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 860, "height": 900})
        page.set_content(PAGE.format(show(session()).html))
        # One refusal unfolded, to show what lies behind each line.
        page.locator(".chip.no").locator("xpath=..").locator("summary").click()
        page.locator(".ml-view").screenshot(path=PICTURE)
        browser.close()


if __name__ == "__main__":
    main()
