"""The command line: `python -m labserver serve` runs a lab for any mail program."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from labserver.lab import ACCOUNTS, LISTENERS, Lab
from labserver.network import NetworkError
from labserver.network.loopback import LoopbackNetwork
from labserver.rules import Limits
from labserver.store import StoreError
from labserver.transcript import Session

PORTS: Mapping[str, int] = dict(
    zip(LISTENERS, (2525, 2587, 2465, 2110, 2995, 2143, 2993), strict=True)
)
"""The fixed ports: 2000 above the real ones, so that nobody needs to be root."""

UI_PORT = 2080

_FOLDER = "lab-mail"
_SESSIONS = Limits().sessions
_LOOK_UP_SECONDS = 0.5  # some systems hear Ctrl-C only between two waits


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One sentence instead of the usage."""
        command = self.prog.replace("__main__.py", "python -m labserver")
        self.exit(2, f"{message[:1].upper()}{message[1:]}; see {command} --help.\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status (0 done, 1 failed, 2 not understood)."""
    options = _parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A terminal that can't show a character must not end the server.
            stream.reconfigure(errors="backslashreplace")
    try:
        return _serve(options)
    except KeyboardInterrupt:
        return 0
    except BrokenPipeError:
        # Whoever read the output has gone; Python would complain once more at its exit.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (NetworkError, StoreError, ValueError) as error:
        print(error, file=sys.stderr)
    except ModuleNotFoundError as error:
        if error.name != "aiohttp":
            raise
        print("--ui needs aiohttp; get it with: python -m pip install aiohttp", file=sys.stderr)
    except OSError as error:
        why = error.strerror or error
        print(
            f"The folder {options.data} can't be used: {why}. Name another one with --data.",
            file=sys.stderr,
        )
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m labserver",
        description="The Mail Lab's servers, on this machine only.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    serve = commands.add_parser(
        "serve",
        help="run the servers until Ctrl-C, printing each session",
        description="Runs SMTP, POP3 and IMAP on 127.0.0.1 until Ctrl-C, keeps the mail in a "
        "folder, and prints each session when it has ended.",
        allow_abbrev=False,
    )
    serve.add_argument(
        "--data",
        metavar="FOLDER",
        type=Path,
        default=Path(_FOLDER),
        help=f"where the mail is kept between runs (default: {_FOLDER} in this folder)",
    )
    serve.add_argument(
        "--account",
        metavar="ADDRESS:PASSWORD",
        dest="accounts",
        action="append",
        type=_account,
        help="an account; may be given again; replaces the default accounts",
    )
    serve.add_argument(
        "--ephemeral", action="store_true", help="take any free ports instead of the fixed ones"
    )
    serve.add_argument(
        "--catch-all",
        action="store_true",
        help="accept and keep mail for every address, to test a program of your own "
        "(an address without an account is read with the address as password)",
    )
    serve.add_argument(
        "--sessions",
        metavar="N",
        type=_sessions,
        default=_SESSIONS,
        help=f"how many sessions are kept to be looked at (default: {_SESSIONS:,})",
    )
    serve.add_argument(
        "--ui",
        action="store_true",
        help="also serve a page, on this machine only, that shows sessions and mail as they come",
    )
    serve.add_argument(
        "--json",
        action="store_true",
        help="print one line of JSON that says where everything is, then nothing more",
    )
    return parser


def _account(text: str) -> tuple[str, str]:
    address, colon, password = text.partition(":")
    if not (colon and "@" in address and password):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an account; write it as ana@lab.example:her-password"
        )
    return address, password


def _sessions(text: str) -> int:
    try:
        return Limits(sessions=int(text)).sessions
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no number of sessions; write a whole number above 0, such as 10000"
        ) from None


def _serve(options: Any) -> int:
    accounts = dict(options.accounts or ACCOUNTS)
    ended: queue.SimpleQueue[Session] = queue.SimpleQueue()
    _end_like_ctrl_c()
    with contextlib.ExitStack() as stack:
        network = LoopbackNetwork()
        stack.callback(network.close)
        lab = stack.enter_context(
            Lab(
                accounts,
                network=network,
                data=options.data,
                catch_all=options.catch_all,
                limits=Limits(sessions=options.sessions),
                ports={} if options.ephemeral else PORTS,
            )
        )
        if lab.notice:
            print(lab.notice, file=sys.stderr, flush=True)
        page = _page(lab, options) if options.ui else ""
        if not options.json:
            lab.on_session(ended.put)
        print(_as_json(lab, page) if options.json else _as_text(lab, options, page), flush=True)
        while True:
            with contextlib.suppress(queue.Empty):
                session = ended.get(timeout=_LOOK_UP_SECONDS)
                print(f"\n{session.text(exact=True)}", flush=True)


def _page(lab: Lab, options: Any) -> str:
    """The address of the lab's page, which is closed with the lab."""
    from labserver.web.server import serve  # nobody else needs aiohttp

    return serve(lab, 0 if options.ephemeral else UI_PORT).url


def _end_like_ctrl_c() -> None:
    """A polite request to end is taken like Ctrl-C."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    # A shell that starts something in the background has it ignore Ctrl-C.
    signal.signal(signal.SIGINT, stop)


def _as_json(lab: Lab, page: str) -> str:
    places: dict[str, Any] = {name: list(place) for name, place in lab.listeners.items()}
    places |= {"ca": str(lab.ca), "accounts": dict(lab.accounts)}
    return json.dumps(places | ({"ui": page} if page else {}))


def _as_text(lab: Lab, options: Any, page: str) -> str:
    rows = ["The Mail Lab listens on 127.0.0.1, for programs on this machine only."]
    rows += [f"  {name:12} {place.port}" for name, place in lab.listeners.items()]
    rows.append("Accounts:")
    for address, password in lab.accounts.items():
        # Passwords of one's own are not repeated on the screen.
        rows.append(f"  {address}" + ("" if options.accounts else f"  password {password}"))
    if page:
        rows.append(f"To look on, open this in a browser, with its token: {page}")
    rows += [
        f"To trust its TLS, a program needs this file: {lab.ca}",
        f"Mail is kept in {options.data}. Ctrl-C ends the lab.",
    ]
    return "\n".join(rows)
