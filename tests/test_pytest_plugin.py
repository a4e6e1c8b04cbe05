"""The pytest plugin, in the pytest of a project that has labserver installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import labserver
from labserver import Lab, pytest_plugin

pytestmark = pytest.mark.process

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[1]

SENDS = """
    import smtplib

    def send(lab, to="ben@lab.example"):
        with smtplib.SMTP(*lab.smtp) as client:
            client.sendmail("shop@home.example", [to], "Subject: Welcome\\r\\n\\r\\nHello\\r\\n")
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where labserver is installed from its wheel, entry points included.

    The wheel is built in a copy, for setuptools would leave things in the project.
    """
    source, built, place = map(tmp_path_factory.mktemp, ("source", "wheel", "installed"))
    for file in filter(Path.is_file, ROOT.iterdir()):
        shutil.copy(file, source)
    shutil.copytree(ROOT / "labserver", source / "labserver")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", built, source], check=True)
    (wheel,) = built.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(place)
    return place


class Project:
    """A project of somebody's, with tests."""

    def __init__(self, pytester: pytest.Pytester, *, apart: bool = False) -> None:
        self._pytester, self._apart = pytester, apart

    def test(self, source: str, *options: str) -> pytest.RunResult:
        """Run these tests, in a process apart where the plugin has to be found there."""
        self._pytester.makepyfile(SENDS + source)
        if self._apart:
            return self._pytester.runpytest_subprocess(*options)
        here = ["-p", "no:mail_lab", *options]  # not the one that may be installed
        return self._pytester.runpytest_inprocess(*here, plugins=[pytest_plugin])

    def settings(self, text: str) -> None:
        """Give it a pytest.ini."""
        self._pytester.makeini(f"[pytest]\n{text}\n")


@pytest.fixture(scope="module")
def loaded() -> None:
    """All that a lab needs is loaded: pytester forgets what is loaded within, and cryptography
    can't be loaded twice."""
    Lab().close()


@pytest.fixture
def project(loaded: None, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    for name in ("LABSERVER_NETWORK", "PYTEST_ADDOPTS"):
        monkeypatch.delenv(name, raising=False)
    return Project(pytester)


@pytest.fixture
def project_apart(
    project: Project, pytester: pytest.Pytester, installed: Path, monkeypatch: pytest.MonkeyPatch
) -> Project:
    monkeypatch.setenv("PYTHONPATH", str(installed))
    return Project(pytester, apart=True)


def test_the_fixture_gives_a_running_lab_of_the_test_s_own(project_apart: Project) -> None:
    done = project_apart.test(
        """
    def test_first(mail_lab):
        send(mail_lab)
        (message,) = mail_lab.inbox("ben@lab.example")
        assert message["Subject"] == "Welcome"
        assert type(mail_lab.network).__name__ == "LoopbackNetwork"

    def test_second(mail_lab):
        assert mail_lab.inbox("ben@lab.example") == ()
        assert mail_lab.sessions == ()

    def test_none():
        pass
    """,
        "-W",
        "error",
        "--strict-markers",
    )
    done.assert_outcomes(passed=3)
    done.stdout.fnmatch_lines([f"plugins: *labserver-{labserver.__version__}*"])


def test_the_lab_is_closed_after_the_test(project: Project) -> None:
    project.test(
        """
    import threading
    seen = []

    def test_one(mail_lab):
        seen.append(mail_lab)

    def test_two():
        assert seen[0].closed
        assert not [one for one in threading.enumerate() if one.name == "labserver"]
    """,
        "--mail-lab-network=loopback",
    ).assert_outcomes(passed=2)


def test_a_marker_gives_options_and_the_closest_wins(project: Project) -> None:
    project.test(
        """
    import pytest
    from labserver import Limits

    pytestmark = pytest.mark.mail_lab(catch_all=True, hostname="mx.shop.example")

    @pytest.mark.mail_lab(accounts={"zoe@shop.example": "secret"}, limits=Limits(recipients=1))
    class TestShop:
        @pytest.mark.mail_lab(hostname="mx2.shop.example")
        def test_all(self, mail_lab):
            assert mail_lab.hostname == "mx2.shop.example"
            assert dict(mail_lab.accounts) == {"zoe@shop.example": "secret"}
            assert mail_lab.limits.recipients == 1
            send(mail_lab, "anybody@anywhere.example")
            assert len(mail_lab.inbox("anybody@anywhere.example")) == 1
    """
    ).assert_outcomes(passed=1)


def test_rules_and_their_seed_are_passed_on(project: Project) -> None:
    project.test(
        """
    import pytest
    from labserver import Lab, Reply

    RULES = [Reply("NOOP", "450 4.2.0 Not now", chance=0.5)]

    def said(lab):
        with smtplib.SMTP(*lab.smtp) as client:
            return [client.noop()[0] for _ in range(40)]

    @pytest.mark.mail_lab(rules=RULES, seed=7)
    def test_drawn(mail_lab):
        with Lab(rules=RULES, seed=7) as same, Lab(rules=RULES) as other:
            assert said(mail_lab) == said(same) != said(other)
    """
    ).assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("marker", "sentence"),
    [
        (
            "catchall=True",
            "The marker mail_lab takes accounts, network, data, catch_all, hostname, limits, "
            "ports, rules, seed, plaintext_login, policy, not catchall.",
        ),
        ("rules=['x']", "Rules are a list of Reply, Delay, *, not 'x'."),
        ("seed='x'", "A seed is a whole number, not 'x'."),
        ("True", "The marker takes options by name, as in mail_lab(catch_all=True)."),
        ("network='tcp'", "There is no network 'tcp'; it is loopback or inline."),
        ("hostname='no host'", "'no host' is not a host's name; lab.example is one."),
    ],
)
def test_a_wrong_option_is_one_sentence(project: Project, marker: str, sentence: str) -> None:
    done = project.test(
        f"""
    import pytest

    @pytest.mark.mail_lab({marker})
    def test_it(mail_lab):
        pass
    """
    )
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines([sentence])
    done.stdout.no_fnmatch_line("*pytest_plugin.py*")


KIND = """
    def test_kind(mail_lab):
        send(mail_lab)
        assert len(mail_lab.inbox("ben@lab.example")) == 1
        assert type(mail_lab.network).__name__ == "{}Network"
"""


def test_the_network_is_chosen_by_setting_command_line_or_marker(project: Project) -> None:
    project.settings("mail_lab_network = inline")
    project.test(KIND.format("Inline")).assert_outcomes(passed=1)
    option = "--mail-lab-network=loopback"
    project.test(KIND.format("Loopback"), option).assert_outcomes(passed=1)
    marker = "    import pytest\n    pytestmark = pytest.mark.mail_lab(network='inline')\n"
    project.test(marker + KIND.format("Inline"), option).assert_outcomes(passed=1)


def test_a_network_that_is_not_there_ends_the_run_with_a_sentence(project: Project) -> None:
    project.settings("mail_lab_network = tcp")
    done = project.test("    def test_it():\n        pass\n")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["ERROR: mail_lab_network is 'tcp'; set it to loopback or inline."])


def test_a_failing_test_shows_what_was_said_without_passwords(project: Project) -> None:
    done = project.test(
        """
    import poplib

    def test_wrong(mail_lab):
        send(mail_lab)
        with smtplib.SMTP(*mail_lab.submission, local_hostname="shop.example") as client:
            client.starttls(context=mail_lab.tls)
            client.login("ana@lab.example", "ana-lab-password")
        assert mail_lab.inbox("ana@lab.example")

    def test_right(mail_lab):
        send(mail_lab)

    def test_silent(mail_lab):
        assert mail_lab.sessions
    """
    )
    done.assert_outcomes(failed=2, passed=1)
    done.stdout.fnmatch_lines(
        [
            "*- mail_lab sessions -*",
            "SMTP on smtp",
            "S: 220 lab.example ESMTP ready",
            "S: 250 2.0.0 Stored as message 1",
            "",
            "SMTP on submission",
            "C: ehlo shop.example",
            "C: AUTH *",
            "*- mail_lab sessions -*",
            "Nobody connected to the lab.",
        ]
    )
    assert str(done.stdout).count("- mail_lab sessions -") == 2
    said = [line for line in done.outlines if line[:3] in ("C: ", "S: ")]
    assert not [line for line in said if "password" in line]
    assert not [line for line in said if "YW5hLWxhYi1wYXNzd29yZ" in line]


@pytest.mark.parametrize("options", [[], ["-vv"], ["--showlocals", "--tb=long"]])
def test_a_failing_comparison_of_accounts_tells_no_password(
    project: Project, options: list[str]
) -> None:
    done = project.test(
        """
    import pytest

    pytestmark = pytest.mark.mail_lab(accounts={"ana@lab.example": "".join(("S3cret", "Passw0rd"))})

    def test_all(mail_lab):
        assert mail_lab.accounts == {}

    def test_dict(mail_lab):
        accounts = dict(mail_lab.accounts)
        assert accounts == {"ana@lab.example": "x", "ben@lab.example": "y"}

    def test_list(mail_lab):
        assert list(mail_lab.accounts.values()) == ["x"]

    def test_one(mail_lab):
        password = mail_lab.accounts["ana@lab.example"]
        assert password == "some other"

    def test_part(mail_lab):
        assert "x" in mail_lab.accounts["ana@lab.example"]
    """,
        *options,
    )
    done.assert_outcomes(failed=5)
    assert "S3cretPassw0rd" not in str(done.stdout)
    assert "•••" in str(done.stdout)


def test_mail_that_comes_later_can_be_waited_for(project: Project) -> None:
    done = project.test(
        """
    import threading

    def test_it(mail_lab):
        sending = threading.Timer(0.1, send, [mail_lab])
        sending.start()
        (message,) = mail_lab.wait_for("ben@lab.example")
        sending.join()

    def test_none(mail_lab):
        mail_lab.wait_for("ben@lab.example", messages=2, timeout=0.1)
    """
    )
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(
        ["E*LabError: ben@lab.example has 0 messages after 0.1 seconds; 2 wanted."]
    )


def test_nothing_of_the_lab_is_loaded_where_no_test_asks_for_it(project_apart: Project) -> None:
    project_apart.test(
        """
    import sys

    def test_it(request):
        assert request.config.pluginmanager.get_plugin("mail_lab").__name__ in sys.modules
        loaded = {name for name in sys.modules if name.startswith("labserver.")}
        assert loaded == {"labserver.pytest_plugin"}
        assert not {"aiosmtpd", "pymap"} & set(sys.modules)
    """.replace("import smtplib\n", "")
    ).assert_outcomes(passed=1)


def test_the_wheel_s_plugin_is_this_one(installed: Path) -> None:
    here = (ROOT / "labserver" / "pytest_plugin.py").read_bytes()
    assert (installed / "labserver" / "pytest_plugin.py").read_bytes() == here
    assert os.path.isfile(installed / "labserver" / "data" / "touch.css")


def test_the_examples_of_its_page_work(pytester: pytest.Pytester, project: Project) -> None:
    page = (ROOT / "book" / "pytest-plugin.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(examples) == 4
    reminders = """
import threading


def start_reminders(server):
    threading.Timer(0.01, welcome, ["ana@lab.example", server]).start()
"""
    pytester.makepyfile("\n\n".join([*examples, reminders]))
    done = pytester.runpytest_inprocess("-p", "no:mail_lab", plugins=[pytest_plugin])
    done.assert_outcomes(passed=5)
