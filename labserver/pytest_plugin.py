"""A pytest plugin: the fixture `mail_lab` gives a test a running lab of its own.

    def test_a_welcome_is_sent(mail_lab):
        welcome("ana@lab.example", server=mail_lab.smtp)
        (message,) = mail_lab.inbox("ana@lab.example")
        assert message["Subject"] == "Welcome"

It loads in every pytest of an environment that has labserver; the servers are brought only for a
test that asks for them. What was said to them is added to the report of a test that fails.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from labserver.lab import Lab
    from labserver.network import Network

_NETWORKS = ("loopback", "inline")
_SESSIONS_SHOWN = 20
_LAB = pytest.StashKey["Lab"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """`mail_lab_network` in the settings, `--mail-lab-network` on the command line."""
    meaning = "how bytes travel to a mail_lab: loopback (real TCP, as it is) or inline (no sockets)"
    parser.addini("mail_lab_network", meaning, default="")
    parser.getgroup("mail_lab").addoption(
        "--mail-lab-network", choices=_NETWORKS, default=None, help=meaning
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known; refuse a network that isn't there."""
    config.addinivalue_line(
        "markers",
        "mail_lab(**options): the options of this test's mail_lab, those of labserver.Lab: "
        "accounts, catch_all, limits, rules, network, …",
    )
    network = config.getini("mail_lab_network")
    if network not in ("", *_NETWORKS):
        raise pytest.UsageError(
            f"mail_lab_network is {network!r}; set it to {' or '.join(_NETWORKS)}."
        )


@pytest.fixture
def mail_lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A running lab, for this test alone: SMTP, POP3 and IMAP on this machine only.

    The marker `mail_lab` gives it options: `@pytest.mark.mail_lab(catch_all=True)`.
    """
    from labserver.lab import Lab

    options = _options(request.node)
    own, network = _network(options.pop("network", None) or _chosen(request.config))
    try:
        try:
            lab = Lab(network=network, **options)
        except ValueError as error:
            _refuse(str(error))
        request.node.stash[_LAB] = lab
        with lab:
            yield lab
    finally:
        if own and network is not None:
            network.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what was said to the lab to the report of a test that fails."""
    report = yield
    lab = item.stash.get(_LAB, None)
    if lab is not None and report.failed:
        report.sections.append(("mail_lab sessions", _told(lab)))
    return report


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Without this pytest would show how two texts differ, of which one is a password."""
    servers = sys.modules.get("labserver.servers.accounts")
    if servers is None or not any(isinstance(one, servers.Password) for one in (left, right)):
        return None
    return [f"{left!r} {op} {right!r}"]


def _options(node: pytest.Item) -> dict[str, Any]:
    """What the markers say; a function's marker outdoes its class's, and that its module's."""
    from labserver.lab import Lab

    options: dict[str, Any] = {}
    for marker in node.iter_markers("mail_lab"):
        if marker.args:
            _refuse("The marker takes options by name, as in mail_lab(catch_all=True).")
        options = dict(marker.kwargs) | options
    known = inspect.signature(Lab).parameters
    for name in options:
        if name not in known:
            _refuse(f"The marker mail_lab takes {', '.join(known)}, not {name}.")
    return options


def _chosen(config: pytest.Config) -> str:
    return str(config.getoption("--mail-lab-network") or config.getini("mail_lab_network"))


def _network(choice: Network | str) -> tuple[bool, Network | None]:
    """Whether the network is made here, and the network; `None` is the lab's own choice."""
    if not isinstance(choice, str):
        return False, choice
    if choice == "inline":
        from labserver.network.inline import InlineNetwork

        return True, InlineNetwork()
    if choice == "loopback":
        from labserver.network.loopback import LoopbackNetwork

        return True, LoopbackNetwork()
    if choice:
        _refuse(f"There is no network {choice!r}; it is loopback or inline.")
    return True, None


def _refuse(sentence: str) -> NoReturn:
    """Fail the test's setup with a sentence, without the plugin's own traceback."""
    pytest.fail(sentence, pytrace=False)


def _told(lab: Lab) -> str:
    """The lab's sessions as they were, passwords masked."""
    from labserver.network import NetworkError

    try:
        sessions = lab.sessions
    except NetworkError as error:
        return str(error)
    if not sessions:
        return "Nobody connected to the lab."
    rows = [session.text(exact=True) for session in sessions[-_SESSIONS_SHOWN:]]
    more = len(sessions) - len(rows)
    return "\n\n".join(([f"({more} earlier sessions not shown)"] if more else []) + rows)
