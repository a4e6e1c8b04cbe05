"""The command line, run as its users run it: in a process of its own."""

from __future__ import annotations

import imaplib
import json
import os
import poplib
import re
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urljoin
from urllib.request import Request, urlopen

import pytest

from labserver.cli import PORTS, main

POSIX = sys.platform != "win32"


@contextmanager
def serving(*options: str, end: int = signal.SIGINT) -> Iterator[subprocess.Popen[str]]:
    """`python -m labserver serve` with its first line read; ended by a signal."""
    process = subprocess.Popen(
        [sys.executable, "-m", "labserver", "serve", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONIOENCODING": "utf-8", "LABSERVER_NETWORK": "inline"},
    )
    try:
        yield process
        process.send_signal(end)
        rest, errors = process.communicate(timeout=20)
        process.output = rest  # type: ignore[attr-defined]
        assert (process.returncode, errors) == (0, "")
    finally:
        process.kill()
        process.communicate()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def failing(*arguments: str) -> tuple[int, str]:
    """Exit status and what was said by a command that is expected to fail."""
    done = subprocess.run(
        [sys.executable, "-m", "labserver", *arguments],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


def test_json_is_one_line_and_then_silence(tmp_path: Path) -> None:
    with serving("--json", "--ephemeral", "--data", str(tmp_path / "mail")) as process:
        place: dict[str, Any] = json.loads(first_line(process))
        assert list(place) == [
            "smtp",
            "submission",
            "submissions",
            "pop3",
            "pop3s",
            "imap",
            "imaps",
            "ca",
            "accounts",
        ]
        assert place["smtp"][0] == "127.0.0.1"
        context = ssl.create_default_context(cafile=place["ca"])
        host, port = place["submissions"]
        with smtplib.SMTP_SSL(host, port, context=context) as client:
            client.login("ana@lab.example", place["accounts"]["ana@lab.example"])
            client.sendmail("ana@lab.example", ["ben@lab.example"], b"Subject: hi\r\n\r\nhi\r\n")
    assert process.output == ""  # type: ignore[attr-defined]


def test_sessions_are_printed_with_passwords_masked(tmp_path: Path) -> None:
    account = "cara@shop.example:a-secret-word"
    with serving("--ephemeral", "--account", account, "--data", str(tmp_path)) as process:
        said = [first_line(process) for _ in range(12)]
        assert said[0].startswith("The Mail Lab listens on 127.0.0.1")
        port = next(int(row.split()[1]) for row in said if row.split()[:1] == ["pop3"])

        client = poplib.POP3("127.0.0.1", port)
        client.user("cara@shop.example")
        client.pass_("a-secret-word")
        client.quit()
        heard = []
        while "QUIT" not in "".join(heard):
            heard.append(first_line(process))
    everything = "".join(said + heard)
    assert "C: PASS ••••" in everything
    assert "a-secret-word" not in everything


def test_mail_is_kept_between_runs(tmp_path: Path) -> None:
    for run in range(2):
        with serving("--json", "--ephemeral", "--data", str(tmp_path)) as process:
            place = json.loads(first_line(process))

            client = poplib.POP3(*place["pop3"])
            client.user("ben@lab.example")
            client.pass_(place["accounts"]["ben@lab.example"])
            assert client.stat()[0] == run
            client.quit()
            with smtplib.SMTP(*place["smtp"]) as sender:
                sender.sendmail("x@y.example", ["ben@lab.example"], b"Subject: hi\r\n\r\nhi\r\n")


def test_catch_all_keeps_mail_for_everybody(tmp_path: Path) -> None:
    with serving("--json", "--ephemeral", "--catch-all", "--data", str(tmp_path)) as process:
        place = json.loads(first_line(process))
        with smtplib.SMTP(*place["smtp"]) as sender:
            sender.sendmail("x@y.example", ["Who@Ever.example"], b"Subject: hi\r\n\r\nhi\r\n")

        client = imaplib.IMAP4(*place["imap"])
        client.login("who@ever.example", "who@ever.example")
        assert client.select()[1] == [b"1"]
        client.logout()


def test_ui_serves_a_page_of_the_sessions_kept_that_ends_with_the_lab(tmp_path: Path) -> None:
    few = ("--sessions", "2")
    with serving("--json", "--ui", "--ephemeral", *few, "--data", str(tmp_path)) as process:
        place = json.loads(first_line(process))
        assert list(place)[-2:] == ["accounts", "ui"]
        with urlopen(place["ui"]) as page:
            assert b"<title>Mail Lab</title>" in page.read()
            cookie = page.headers["Set-Cookie"].partition(";")[0]
        for _ in range(3):
            smtplib.SMTP(*place["smtp"]).quit()
        news = urljoin(place["ui"], "/api/news")
        # One who looks on must not keep the lab from ending.
        onlooker = urlopen(Request(news, headers={"Cookie": cookie}))
        said = json.loads(onlooker.readline().removeprefix(b"data: "))
        assert (said["page"]["kept"], said["page"]["total"]) == (2, 3)
    with pytest.raises((URLError, ConnectionError)):
        urlopen(place["ui"])
    onlooker.close()


def test_the_address_of_the_page_is_printed_with_its_token(tmp_path: Path) -> None:
    with serving("--ui", "--ephemeral", "--data", str(tmp_path)) as process:
        said = [first_line(process) for _ in range(13)]
        (row,) = [row for row in said if "http://" in row]
        assert re.search(r": http://127\.0\.0\.1:\d+/\?token=[\w-]{32}$", row)


def test_the_page_has_a_fixed_port(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", 2080))
        taken.listen()
        status, said = failing("serve", "--ui", "--data", str(tmp_path))
    assert (status, said.count("\n")) == (1, 1)
    assert "Port 2080 (the page) is in use" in said


def test_without_aiohttp_ui_says_how_to_get_it(tmp_path: Path) -> None:
    code = "import sys; sys.modules['aiohttp'] = None; from labserver.cli import main; "
    code += f"sys.exit(main(['serve', '--ui', '--ephemeral', '--data', {str(tmp_path)!r}]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "--ui needs aiohttp; get it with: python -m pip install aiohttp\n"


@pytest.mark.skipif(not POSIX, reason="Windows has no SIGTERM to catch")
def test_a_polite_request_to_end_ends_it_cleanly(tmp_path: Path) -> None:
    with serving("--ephemeral", "--data", str(tmp_path), end=signal.SIGTERM) as process:
        assert first_line(process)


def test_the_same_folder_twice_is_refused_with_a_sentence(tmp_path: Path) -> None:
    with serving("--json", "--ephemeral", "--data", str(tmp_path)) as process:
        assert first_line(process)
        status, said = failing("serve", "--ephemeral", "--data", str(tmp_path))
        assert status == 1
        assert said.count("\n") == 1
        assert "in use by another lab" in said


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", PORTS["smtp"]))
        taken.listen()
        status, said = failing("serve", "--data", str(tmp_path))
    assert status == 1
    assert said.count("\n") == 1
    assert "Port 2525 (smtp) is in use" in said


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    status, said = failing("serve", "--ephemeral", "--data", str(tmp_path / "file"))
    assert (status, said.count("\n")) == (1, 1)
    assert "can't be used" in said
    status, said = failing("serve", "--ephemeral", "--data", str(tmp_path / "file" / "below"))
    assert (status, said.count("\n")) == (1, 1)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "command"),
        (["frob"], "frob"),
        (["serve", "--host", "0.0.0.0"], "--host"),
        (["serve", "--port", "25"], "--port"),
        (["serve", "--account", "ana"], "'ana' is not an account"),
        (["serve", "--account", "ana@lab.example:"], "is not an account"),
        (["serve", "--data"], "--data"),
        (["serve", "--sessions", "many"], "'many' is no number of sessions; write a whole number"),
        (["serve", "--sessions", "0"], "'0' is no number of sessions"),
        (["serve", "--sessions", "-5"], "'-5' is no number of sessions"),
        (["serve", "--sessions", "1.5"], "'1.5' is no number of sessions"),
    ],
)
def test_a_wrong_option_gets_one_sentence(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.count("\n") == 1
    assert named in said
    assert "--help" in said
