"""The command line: `python -m labserver serve` runs a lab for any mail program.

Here are its options; `serving.py` does what they say. All that takes time is brought when it is
needed, so that Ctrl-C finds its handler (`ending.py`) from the beginning.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from labserver import ending
from labserver.listeners import TABLE

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

PORTS: Mapping[str, int] = {one.name: 2000 + one.port for one in TABLE.values()} | {"smtp": 2525}
"""The fixed ports: the usual ones among those that nobody needs to be root for."""

UI_PORT = 2080
"""The page's."""

_FOLDER = "lab-mail"
_UI = "ui"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status (0 done, 1 failed, 2 not understood).

    Without `arguments` it is the program itself: Ctrl-C and SIGTERM then end it, with status 0.
    """
    if arguments is None:
        ending.install()
    options = _parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A terminal that can't show a character must not end the server.
            stream.reconfigure(errors="backslashreplace")
    try:
        return ending.over(_run(options))
    except KeyboardInterrupt:
        return 0
    except BrokenPipeError:
        # Whoever read the output has gone; Python would complain once more at its exit.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(options: Namespace) -> int:
    from labserver import serving
    from labserver.folder import FolderError
    from labserver.network import NetworkError, PortTaken
    from labserver.store import StoreError

    try:
        with ending.unwinding():
            serving.serve(options)
    except PortTaken as error:
        name = error.name if error.name in PORTS else _UI
        said = f"{error.what}; stop what uses it, choose another one with --port {name}=NUMBER, "
        said += "or let the lab take any free ports with --ephemeral."
    except FolderError as error:
        said = f"{error} Name another one with --data."
    except (NetworkError, StoreError, ValueError) as error:
        said = str(error)
    except ModuleNotFoundError as error:
        if error.name not in ("aiohttp", "nh3"):
            raise
        said = "--ui needs aiohttp and nh3; get them with: python -m pip install aiohttp nh3"
    print(said, file=sys.stderr)
    return 1


def _parser() -> ArgumentParser:
    from argparse import ArgumentParser

    from labserver.rules import Limits

    class Parser(ArgumentParser):
        def error(self, message: str) -> NoReturn:
            """One sentence instead of the usage."""
            command = self.prog.replace("__main__.py", "python -m labserver")
            self.exit(2, f"{message[:1].upper()}{message[1:]}; see {command} --help.\n")

    parser = Parser(
        prog="python -m labserver",
        description="The Mail Lab's servers, on this machine only.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    serve = commands.add_parser(
        "serve",
        help="run the servers until Ctrl-C, with a line for each session",
        description="Runs SMTP, POP3 and IMAP on 127.0.0.1 until Ctrl-C, keeps the mail in a "
        "folder, and prints one line for each session when it has ended.",
        allow_abbrev=False,
    )
    serve.add_argument(
        "--data",
        metavar="FOLDER",
        default=_FOLDER,
        help=f"where the mail is kept between runs (default: {_FOLDER} in this folder)",
    )
    serve.add_argument(
        "--account",
        metavar="ADDRESS:PASSWORD",
        dest="accounts",
        action="append",
        default=[],
        type=_account,
        help="an account; may be given again; replaces the default accounts",
    )
    serve.add_argument(
        "--accounts",
        metavar="FILE",
        dest="accounts_file",
        type=Path,
        help="a file of accounts, one ADDRESS:PASSWORD a line (# begins a comment), so that "
        "passwords stand in no list of processes; --account adds to them",
    )
    serve.add_argument(
        "--ephemeral", action="store_true", help="take any free ports instead of the fixed ones"
    )
    serve.add_argument(
        "--port",
        metavar="NAME=NUMBER",
        dest="ports",
        action="append",
        default=[],
        type=_port,
        help=f"the port of one listener, 0 for any free one; may be given again; NAME is "
        f"{', '.join(PORTS)}, or {_UI} for the page",
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
        default=Limits().sessions,
        help=f"how many sessions are kept to be looked at (default: {Limits().sessions:,})",
    )
    serve.add_argument(
        "--ui",
        action="store_true",
        help="also serve a page, on this machine only, that shows sessions and mail as they come",
    )
    serve.add_argument(
        "--verbose", action="store_true", help="print each session whole, every line of it"
    )
    serve.add_argument(
        "--json",
        action="store_true",
        help="print one line of JSON that says where everything is, then nothing more",
    )
    parser.set_defaults(usual_ports=PORTS, usual_ui_port=UI_PORT)
    return parser


def _account(text: str) -> tuple[str, str]:
    from argparse import ArgumentTypeError

    address, colon, password = text.partition(":")
    if not (colon and "@" in address and password):
        # What follows the colon is a password, and stays out of the sentence.
        raise ArgumentTypeError(
            f"{address!r} is not an account; write it as ana@lab.example:her-password"
        )
    return address, password


def _port(text: str) -> tuple[str, int]:
    from argparse import ArgumentTypeError

    name, equals, number = text.partition("=")
    if name not in PORTS and name != _UI:
        raise ArgumentTypeError(
            f"{text!r} names no listener; write NAME=NUMBER, where NAME is "
            f"{', '.join(PORTS)} or {_UI}"
        )
    digits = number.isascii() and number.isdigit() and len(number) <= 5
    if not (equals and digits and int(number) <= 65535):
        raise ArgumentTypeError(
            f"{text!r} gives {name} no port; write {name}=NUMBER with 0 (any free) to 65535, "
            f"for any of {', '.join(PORTS)} or {_UI}"
        )
    return name, int(number)


def _sessions(text: str) -> int:
    from argparse import ArgumentTypeError

    from labserver.rules import Limits

    try:
        return Limits(sessions=int(text)).sessions
    except ValueError:
        raise ArgumentTypeError(
            f"{text!r} is no number of sessions; write a whole number above 0, such as 10000"
        ) from None
