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
from urllib.error import HTTPError, URLError
from urllib.parse import urljoin, urlsplit
from urllib.request import Request, urlopen

import pytest

from labserver import LISTENERS
from labserver.cli import PORTS, UI_PORT, _parser, main
from labserver.serving import _ports

pytestmark = pytest.mark.process

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


def test_verbose_prints_sessions_whole_with_passwords_masked(tmp_path: Path) -> None:
    account = "cara@shop.example:a-secret-word"
    options = ("--ephemeral", "--verbose", "--account", account, "--data", str(tmp_path))
    with serving(*options) as process:
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


def test_each_session_is_one_line(tmp_path: Path) -> None:
    with serving("--ephemeral", "--data", str(tmp_path)) as process:
        ports = {}
        while not (row := first_line(process)).startswith("Mail is kept"):
            name, _, rest = row.strip().partition(" ")
            ports[name] = rest.strip()
        text = "Subject: Grüße\x1b[2J\r\n\r\nhi\r\n".encode()
        with smtplib.SMTP("127.0.0.1", int(ports["smtp"]), local_hostname="shop.example") as smtp:
            smtp.sendmail("x@y.example", ["ana@lab.example", "ben@lab.example"], text)
        smtp = smtplib.SMTP("127.0.0.1", int(ports["smtp"]), local_hostname="b.example")
        with smtp, pytest.raises(smtplib.SMTPRecipientsRefused):
            smtp.sendmail("x@y.example", ["nobody@lab.example"], text)
        pop3 = poplib.POP3("127.0.0.1", int(ports["pop3"]))
        pop3.user("ben@lab.example")
        with pytest.raises(poplib.error_proto):
            pop3.pass_("ben-lab-passwords")
        pop3.close()
        imap = imaplib.IMAP4("127.0.0.1", int(ports["imap"]))
        imap.login("ana@lab.example", "ana-lab-password")
        imap.append("INBOX", "", "", b"Subject: a draft\r\n\r\n")  # type: ignore[arg-type]
        imap.logout()
        rows = [first_line(process) for _ in range(4)]
    size = len(text)
    assert rows == [
        "1. SMTP on smtp, shop.example: x@y.example → ana@lab.example and 1 more, done, "
        f"6 commands, message of {size} octets, “Grüße\\x1b[2J”\n",
        "2. SMTP on smtp, b.example: x@y.example → nobody@lab.example, refused, 5 commands\n",
        "3. POP3 on pop3: ben@lab.example, refused, 2 commands\n",
        "4. IMAP on imap: ana@lab.example, done, 4 commands, message of 20 octets, “a draft”\n",
    ]
    assert process.output == ""  # type: ignore[attr-defined]


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
        for _ in range(3):
            smtplib.SMTP(*place["smtp"]).quit()
        news = urljoin(place["ui"], "/api/news")
        # One who looks on must not keep the lab from ending.
        token = urlsplit(place["ui"]).fragment.removeprefix("token=")
        onlooker = urlopen(Request(news, headers={"Authorization": f"Bearer {token}"}))
        said = json.loads(onlooker.readline().removeprefix(b"data: "))
        assert (said["page"]["kept"], said["page"]["total"]) == (2, 3)
    with pytest.raises((URLError, ConnectionError)):
        urlopen(place["ui"])
    onlooker.close()


def test_an_address_of_the_page_that_was_used_brings_a_fresh_one_to_the_terminal(
    tmp_path: Path,
) -> None:
    with serving("--json", "--ui", "--ephemeral", "--data", str(tmp_path)) as process:
        ui = json.loads(first_line(process))["ui"]
        token = urlsplit(ui).fragment.removeprefix("token=").encode()
        enter = urljoin(ui, "/api/enter")
        urlopen(enter, token).close()
        with pytest.raises(HTTPError, match="403"):
            urlopen(enter, token)
        assert process.stderr is not None
        fresh = process.stderr.readline().rpartition("#token=")[2].strip().encode()
        assert fresh != token
        urlopen(enter, fresh).close()


def test_the_address_of_the_page_is_printed_with_its_token(tmp_path: Path) -> None:
    with serving("--ui", "--ephemeral", "--data", str(tmp_path)) as process:
        said = [first_line(process) for _ in range(13)]
        (row,) = [row for row in said if "http://" in row]
        assert re.search(r": http://127\.0\.0\.1:\d+/#token=[\w-]{32}$", row)


@contextmanager
def taken_port() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken.getsockname()[1]


def test_the_page_s_port_can_be_chosen_and_is_named_when_it_is_in_use(tmp_path: Path) -> None:
    options = ("--ui", "--ephemeral", "--data", str(tmp_path))
    with taken_port() as port:
        status, said = failing("serve", *options, "--port", f"ui={port}")
    assert status == 1
    assert said == (
        f"Port {port} (the page) is in use on this machine; stop what uses it, choose another one "
        "with --port ui=NUMBER, or let the lab take any free ports with --ephemeral.\n"
    )
    with serving("--json", *options, "--port", f"ui={port}") as process:
        assert f"http://127.0.0.1:{port}/" in json.loads(first_line(process))["ui"]


def test_the_fixed_ports_end_as_the_real_ones() -> None:
    real = {"smtp": 25, "submission": 587, "submissions": 465, "pop3": 110, "pop3s": 995}
    real |= {"imap": 143, "imaps": 993}
    assert all(str(PORTS[name]).endswith(str(port)) for name, port in real.items())
    assert all(2000 < port < 3000 for port in PORTS.values())
    assert list(PORTS) == list(LISTENERS)
    assert 2000 < UI_PORT < 3000
    options = _parser().parse_args(["serve", "--ui"])
    assert _ports(options) == {**PORTS, "ui": UI_PORT}
    assert _ports(_parser().parse_args(["serve"])) == PORTS
    assert _ports(_parser().parse_args(["serve", "--ephemeral"])) == {}
    options = _parser().parse_args(["serve", "--port", "smtp=0", "--port", "imaps=4000"])
    assert _ports(options) == {**PORTS, "smtp": 0, "imaps": 4000}


def test_a_port_can_be_chosen_for_each_listener(tmp_path: Path) -> None:
    options = ("--json", "--ephemeral", "--data", str(tmp_path))
    with taken_port() as smtp, taken_port() as imaps:
        pass
    chosen = ("--port", f"smtp={smtp}", "--port", f"imaps={imaps}", "--port", "pop3=0")
    with serving(*options, *chosen) as process:
        place = json.loads(first_line(process))
        assert (place["smtp"][1], place["imaps"][1]) == (smtp, imaps)
        smtplib.SMTP(*place["smtp"]).quit()
        assert len({tuple(place[name]) for name in PORTS}) == len(PORTS)


@pytest.mark.parametrize("missing", ["aiohttp", "nh3"])
def test_without_what_it_needs_ui_says_how_to_get_it(tmp_path: Path, missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from labserver.cli import main; "
    code += f"sys.exit(main(['serve', '--ui', '--ephemeral', '--data', {str(tmp_path)!r}]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "--ui needs aiohttp and nh3; get them with: python -m pip install aiohttp nh3\n"
    )


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


@pytest.mark.parametrize("name", ["smtp", "submissions", "imap"])
def test_a_port_in_use_is_named_with_what_to_do(tmp_path: Path, name: str) -> None:
    with taken_port() as port:
        status, said = failing(
            "serve", "--ephemeral", "--port", f"{name}={port}", "--data", str(tmp_path)
        )
    assert status == 1
    assert said == (
        f"Port {port} ({name}) is in use on this machine; stop what uses it, choose another one "
        f"with --port {name}=NUMBER, or let the lab take any free ports with --ephemeral.\n"
    )


@pytest.mark.parametrize(
    ("ports", "sentence"),
    [
        (["smtp=0", "smtp=0"], "--port gives smtp a port twice; give it one."),
        (["imap=4143", "imap=4144"], "--port gives imap a port twice; give it one."),
        (
            ["smtp=4025", "pop3=4025"],
            "smtp and pop3 would both have port 4025; "
            "give one of them another with --port NAME=NUMBER.",
        ),
        (
            ["imap=2525"],
            "smtp and imap would both have port 2525; "
            "give one of them another with --port NAME=NUMBER.",
        ),
        (["ui=0"], "--port ui=NUMBER is for the page; add --ui, or leave it out."),
    ],
)
def test_ports_that_make_no_sense_together_get_one_sentence(
    tmp_path: Path, ports: list[str], sentence: str
) -> None:
    options = [f"--port={port}" for port in ports]
    status, said = failing("serve", *options, "--data", str(tmp_path / "new"))
    assert (status, said) == (1, f"{sentence}\n")
    assert not (tmp_path / "new").exists()


# -- accounts from a file


def test_accounts_come_from_a_file_and_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "accounts"
    file.write_bytes(
        "\ufeff# the class of 2026\r\n\r\n"
        "zoe@school.example: a-secret:with#signs \r\n"
        "  # nobody else\n\tÅsa@school.example:lösen-ord".encode()
    )
    file.chmod(0o600)
    options = ("--json", "--ephemeral", "--data", str(tmp_path / "mail"))
    more = ("--accounts", str(file), "--account", "ben@school.example:word")
    with serving(*options, *more) as process:
        place = json.loads(first_line(process))
        assert place["accounts"] == {
            "zoe@school.example": "a-secret:with#signs",
            "Åsa@school.example": "lösen-ord",
            "ben@school.example": "word",
        }
        client = poplib.POP3(*place["pop3"])
        client.user("zoe@school.example")
        client.pass_("a-secret:with#signs")
        client.quit()


BAD_FILES = {
    "ana@lab.example:good\nana-secret-word\n": "line 2: write an account as ana@lab.example:her",
    "ana@lab.example:good\n\n#\nsecret:word": "line 4: write an account as ana@lab.example:her",
    "ana@lab.example:\n": "line 1: write an account as ana@lab.example:her-password.",
    "ana@lab.example:a\tb\n": "line 1: The account ana@lab.example needs a password that can be",
    "ana@lab.example:a-word\nANA@lab.example:b-word": "line 2: the account ANA@lab.example",
    "ben@lab.example:b-word": "--account: the account ben@lab.example is there twice;",
    "# nobody\n": "has no account; write one ADDRESS:PASSWORD on each line.",
    "": "has no account; write one ADDRESS:PASSWORD on each line.",
    "ana@lab.example:g\udcfcn\n": "line 1: this isn't UTF-8; save the file as UTF-8.",
    "ana@lab.example:good\n" + "#" * 2**20: "is too large; it may have 1,048,576 octets.",
    "".join(f"u{n}@x.example:y\n" for n in range(10_001)): "line 10001: a lab has at most 10,000",
}


@pytest.mark.parametrize("text", list(BAD_FILES), ids=range(len(BAD_FILES)))
def test_a_bad_file_of_accounts_gets_one_sentence_without_passwords(
    tmp_path: Path, text: str
) -> None:
    file = tmp_path / "accounts"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    file.chmod(0o600)
    options = ("--accounts", str(file), "--account", "ben@lab.example:his-word")
    status, said = failing("serve", "--ephemeral", *options, "--data", str(tmp_path / "new"))
    assert (status, said.count("\n")) == (1, 1)
    assert BAD_FILES[text] in said
    assert not [word for word in ("secret", "a-word", "b-word", "his-word", "good") if word in said]
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["missing", ".", "missing/below"])
def test_a_file_of_accounts_that_can_not_be_read_is_named(tmp_path: Path, name: str) -> None:
    status, said = failing("serve", "--accounts", str(tmp_path / name))
    assert (status, said.count("\n")) == (1, 1)
    assert said.startswith(f"The accounts in {tmp_path / name} can't be read: ")


def test_a_folder_without_a_name_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "labserver", "serve", "--ephemeral", "--data", ""]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "has an empty name" in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not POSIX, reason="Windows has no modes")
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o600])
def test_a_file_of_accounts_that_others_can_read_is_told(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "accounts"
    file.write_text("ana@lab.example:good", encoding="utf-8")
    file.chmod(mode)
    command = [sys.executable, "-m", "labserver", "serve", "--ephemeral", "--json"]
    command += [f"--accounts={file}", f"--data={tmp_path / 'mail'}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
    told = f"Other users of this machine can read {file}; chmod 600 keeps it to you.\n"
    assert errors.decode() == (told if mode != 0o600 else "")


def test_the_same_account_twice_on_the_command_line_is_refused(tmp_path: Path) -> None:
    twice = ("--account", "ana@lab.example:one-word", "--account", "Ana@lab.example:other-word")
    status, said = failing("serve", *twice, "--data", str(tmp_path / "new"))
    assert (status, said) == (
        1,
        "--account: the account Ana@lab.example is there twice; name it once.\n",
    )


# -- the end

END_AT = """
import os, runpy, sys
event, part, number, times = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
left = times

def hook(name, arguments):
    global left
    if left and name == event and any(part in str(one) for one in arguments):
        left -= 1
        if not left:
            os.mkdir("asked")
        os.kill(os.getpid(), number)

sys.argv = sys.argv[5:]
sys.addaudithook(hook)
if sys.argv[0] == "-m":
    sys.orig_argv = [sys.executable, "-m", "labserver"]
    runpy.run_module("labserver", run_name="__main__", alter_sys=True)
else:
    from labserver.cli import main
    sys.exit(main())
"""
MOMENTS = [
    ("import", "logging"),
    ("import", "argparse"),
    ("import", "labserver.rules"),
    ("import", "labserver.serving"),
    ("import", "asyncio.base_events"),
    ("import", "sqlite3"),
    ("import", "_ssl"),
    ("import", "pymap.parsing.commands"),
    ("import", "labserver.catalog.imap"),
    ("import", "labserver.web.sessions"),
    ("open", "smtp.toml"),
    # From here on a lab is being made, and closed.
    ("import", "trustme"),
    ("import", "cryptography.x509"),
    ("os.mkdir", "mail"),
    ("os.rename", "server.pem"),
    ("sqlite3.connect", "mail.sqlite"),
    ("socket.bind", "socket"),
    ("import", "aiohttp.web"),
]


@pytest.mark.skipif(not POSIX, reason="Windows has no such signals")
@pytest.mark.parametrize(
    ("event", "part", "program"),
    [(*moment, "-m") for moment in MOMENTS]
    + [(*moment, "bin/labserver") for moment in MOMENTS[::4]],
)
def test_a_request_to_end_while_it_starts_ends_it_cleanly(
    tmp_path: Path, event: str, part: str, program: str
) -> None:
    """At that moment the process sends the signal to itself."""
    number = (signal.SIGINT, signal.SIGTERM)[MOMENTS.index((event, part)) % 2]
    options = ["serve", "--ui", "--ephemeral", "--json", f"--data={tmp_path / 'mail'}"]
    done = subprocess.run(
        [sys.executable, "-c", END_AT, event, part, str(int(number)), "1", program, *options],
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        cwd=tmp_path,
    )
    assert (tmp_path / "asked").exists()
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not POSIX, reason="Windows has no such signals")
@pytest.mark.parametrize(("event", "part"), [("socket.bind", "socket"), ("import", "aiohttp.")])
def test_several_requests_to_end_while_it_starts_are_one(
    tmp_path: Path, event: str, part: str
) -> None:
    options = ["serve", "--ui", "--ephemeral", "--json", f"--data={tmp_path / 'mail'}"]
    done = subprocess.run(
        [sys.executable, "-c", END_AT, event, part, "2", "3", "-m", *options],
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        cwd=tmp_path,
    )
    assert (tmp_path / "asked").exists()
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not POSIX, reason="Windows has no such signals")
@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_request_to_end_is_as_clean(tmp_path: Path, first: int, second: int) -> None:
    with serving("--json", "--ui", "--ephemeral", "--data", str(tmp_path), end=first) as process:
        place = json.loads(first_line(process))
        client = socket.create_connection(place["smtp"])
        process.send_signal(first)
        process.send_signal(second)
        client.close()


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
        (["serve", "--port", "25"], "smtp, submission, submissions, pop3, pop3s, imap, imaps"),
        (["serve", "--port", "lmtp=24"], "'lmtp=24' names no listener; write NAME=NUMBER"),
        (["serve", "--port", "smtp"], "'smtp' gives smtp no port; write smtp=NUMBER"),
        (["serve", "--port", "smtp="], "'smtp=' gives smtp no port; write smtp=NUMBER"),
        (["serve", "--port", "smtp=65536"], "'smtp=65536' gives smtp no port"),
        (["serve", "--port", "smtp=-1"], "'smtp=-1' gives smtp no port"),
        (["serve", "--port", "smtp=²"], "gives smtp no port"),
        (["serve", "--port", "smtp=" + "9" * 5000], "smtp, submission, submissions, pop3"),
        (["serve", "--account", "ana"], "'ana' is not an account"),
        (["serve", "--account", "ana@lab.example:"], "is not an account"),
        (["serve", "--account", "ana:her-secret"], "'ana' is not an account"),
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
    assert "her-secret" not in said
