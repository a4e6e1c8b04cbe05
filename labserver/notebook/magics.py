"""`%%smtp`, `%%pop3`, `%%imap` and `%lab`: talk to a lab from a cell, line by line.

    %%smtp
    EHLO me.example
    MAIL FROM:<you@home.example>
    RCPT TO:<ben@lab.example>
    QUIT

Only IPython's side is here; `typed.py` does the talking, `state.py` knows what a lab shows.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from typing import Any, TypeVar, cast

from IPython.core.error import UsageError
from IPython.core.getipython import get_ipython
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class
from IPython.core.magic_arguments import argument, magic_arguments, parse_argstring

from labserver.lab import Lab, LabError, latest
from labserver.network import NetworkError
from labserver.notebook.typed import LINE_ENDS, SECONDS, SPOKEN_ON, LineEnd, Typed, converse
from labserver.transcript import ProtocolName
from labserver.views.state import State, state

Magic = TypeVar("Magic", bound=Callable[..., Any])


def _options(*options: Callable[[Magic], Magic]) -> Callable[[Magic], Magic]:
    """The options of a magic, in the order in which its help shows them."""

    def given(magic: Magic) -> Magic:
        for option in (*reversed(options), magic_arguments()):
            magic = option(magic)
        return magic

    return given


_LAB = argument("--lab", metavar="NAME", help="the variable that holds the lab; else it is: lab")
_SAYING = (
    argument("-l", "--listener", metavar="NAME", help="which listener, such as submission"),
    argument("--login", metavar="ADDRESS", default="", help="log in first, under TLS"),
    argument("--tls", action="store_true", help="start TLS first"),
    argument("--line-ends", metavar="ENDS", default="crlf", help="crlf as it should be, lf or cr"),
    argument("--pipelined", action="store_true", help="send all lines at once"),
    argument("--timeout", metavar="SECONDS", default=f"{SECONDS:g}", help="wait so long, no more"),
    _LAB,
)
_TAGS = argument("--tags", action="store_true", help="put a001, a002, … before the commands")


@magics_class
class LabMagics(Magics):
    """The lab's magics. A mistake in their options is told in one sentence."""

    @_options(*_SAYING)
    @cell_magic
    def smtp(self, line: str, cell: str) -> Typed:
        """Say the cell's lines to the SMTP server, as typed."""
        return self._say("SMTP", parse_argstring(LabMagics.smtp, line), cell)

    @_options(*_SAYING)
    @cell_magic
    def pop3(self, line: str, cell: str) -> Typed:
        """Say the cell's lines to the POP3 server, as typed."""
        return self._say("POP3", parse_argstring(LabMagics.pop3, line), cell)

    @_options(*_SAYING, _TAGS)
    @cell_magic
    def imap(self, line: str, cell: str) -> Typed:
        """Say the cell's lines to the IMAP server, as typed."""
        return self._say("IMAP", parse_argstring(LabMagics.imap, line), cell)

    @_options(
        argument("--ports", action="store_true", help="say the ports in the text, too"),
        argument("--passwords", action="store_true", help="show the accounts' passwords"),
        _LAB,
    )
    @line_magic
    def lab(self, line: str) -> State:
        """Show where the lab listens, whose mail it keeps and what happened so far."""
        options = parse_argstring(LabMagics.lab, line)
        return state(self._lab(options.lab), ports=options.ports, passwords=options.passwords)

    def _say(self, protocol: ProtocolName, options: Namespace, cell: str) -> Typed:
        lab = self._lab(options.lab)
        listener, login = _listener(protocol, options), _login(lab, options.login)
        try:
            return converse(
                lab,
                listener,
                cell,
                login=login,
                tls=options.tls,
                line_end=_line_end(options.line_ends),
                tags=getattr(options, "tags", False),
                pipelined=options.pipelined,
                timeout=_seconds(options.timeout),
            )
        except (LabError, NetworkError) as error:
            raise UsageError(str(error)) from error
        except OSError as error:
            raise UsageError(f"The lab can't be reached: {error}.") from error

    def _lab(self, name: str | None) -> Lab:
        """The lab that is meant. Raises `UsageError` where there is none, or a closed one."""
        found = (self.shell.user_ns if self.shell else {}).get(name or "lab")
        if name and not isinstance(found, Lab):
            raise UsageError(f"{name} is no lab; make one with {name} = Lab().")
        lab = found if isinstance(found, Lab) else latest()
        if lab is None:
            raise UsageError("There is no lab yet; make one with lab = Lab().")
        if lab.closed:
            raise UsageError("This lab is closed; make a new one with lab = Lab().")
        return lab


def _listener(protocol: ProtocolName, options: Namespace) -> str:
    known = SPOKEN_ON[protocol]
    if options.listener in known:
        return str(options.listener)
    if options.listener:
        raise UsageError(f"{protocol} is spoken on {', '.join(known)}, not on {options.listener}.")
    # Only submission knows its users; the other two protocols let them in where they are.
    return "submission" if protocol == "SMTP" and options.login else known[0]


def _login(lab: Lab, name: str) -> str:
    for address in lab.accounts:
        if address.casefold() == name.casefold():
            return address
    if name:
        raise UsageError(lab.no_account(name))
    return ""


def _line_end(name: str) -> LineEnd:
    if name not in LINE_ENDS:
        raise UsageError(f"Lines can end in {', '.join(LINE_ENDS)}, not in {name}.")
    return cast(LineEnd, name)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise UsageError(f"--timeout takes seconds, above 0 and up to 3600, not {text}.")
    return seconds


def register() -> None:
    """Where this is IPython, give it the magics."""
    shell = get_ipython()
    if shell is not None:
        shell.register_magics(LabMagics)
