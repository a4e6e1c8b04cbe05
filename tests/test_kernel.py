"""A lab in a Jupyter kernel, the way a reader uses it: cell by cell, again, and interrupted."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from tests.kernels import kernel_manager

pytestmark = pytest.mark.process

SECONDS = 60
"""After which a kernel that doesn't answer fails the test."""

SETUP = """
import contextlib, gc, os, smtplib, socket, threading
from labserver import Lab

def send():
    # Not in a `with`: interrupted within DATA, smtplib would wait for QUIT's reply.
    with contextlib.closing(smtplib.SMTP(*lab.smtp)) as client:
        client.sendmail("ana@lab.example", "ben@lab.example", "Subject: Hello")
        client.quit()

def left():
    "Threads, sockets and files of labs."
    gc.collect()
    names = [thread.name for thread in threading.enumerate() if thread.name == "labserver"]
    for number in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd") else ():
        with contextlib.suppress(OSError):
            name = os.readlink(f"/proc/self/fd/{number}")
            if name.startswith("socket:") or "/lab-" in name:
                names.append(name.partition("[")[0].rpartition("/")[2])
    return sorted(names)

lab = Lab()
"""


class Kernel:
    """A real kernel, and a client that runs cells in it."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self.manager, self.client = manager, client

    def run(self, cell: str, *, interrupt: bool = False) -> str:
        """What the cell prints, or the name of what it raises.

        With `interrupt` the kernel is interrupted as soon as the cell has printed something.
        """
        request = self.client.execute(cell)
        printed, raised = "", ""
        while True:
            message: dict[str, Any] = self.client.get_iopub_msg(timeout=SECONDS)
            if message["parent_header"].get("msg_id") != request:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "stream":
                printed += content["text"]
                if interrupt:
                    self.manager.interrupt_kernel()
                    interrupt = False
            elif kind == "error":
                raised = content["ename"]
            elif kind == "status" and content["execution_state"] == "idle":
                return raised or printed


@pytest.fixture(params=["loopback", "inline"])
def kernel(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Kernel]:
    monkeypatch.setenv("LABSERVER_NETWORK", request.param)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.chdir(Path(__file__).parents[1])
    manager = kernel_manager()
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=SECONDS)
        made = Kernel(manager, client)
        assert made.run(SETUP) == ""
        yield made
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


def test_a_lab_in_a_kernel(kernel: Kernel) -> None:
    # It sends, and what happened is there in the next cell and in the same.
    assert kernel.run("send(); print(lab.sessions[-1].closed)") == "True\n"
    assert kernel.run("print(len(lab.sessions), len(lab.inbox('ben@lab.example')))") == "1 1\n"

    # A session shows itself: as text to print(), as HTML to the page.
    assert kernel.run("print(lab.sessions[-1])").startswith("SMTP on smtp\nS: 220 lab.example")
    shown = "from IPython.core.formatters import format_display_data as show\n"
    assert "text/html" in kernel.run(shown + "print(*show(lab.sessions[-1])[0])")

    # Top-level `await` makes the cell a task of the kernel's own loop.
    cell = "import asyncio\nawait asyncio.sleep(0)\nsend()\nprint(len(lab.sessions))"
    assert kernel.run(cell) == "2\n"

    # The same cell again and again.
    before = kernel.run("lab = Lab(); send(); lab.sessions; print(left())")
    for _ in range(5):
        assert kernel.run("lab = Lab(); send(); print(len(lab.sessions))") == "1\n"
    assert kernel.run("lab.sessions; print(left())") == before

    # Interrupted while it sends; then the next delivery works.
    sending = "while True:\n    send()\n    print('sent', flush=True)"
    for _ in range(10):
        assert kernel.run(sending, interrupt=True) == "KeyboardInterrupt"
        count = "before = len(lab.inbox('ben@lab.example'))\nsend()\n"
        check = "print(len(lab.inbox('ben@lab.example')) - before, lab.sessions[-1].closed)"
        assert kernel.run(count + check) == "1 True\n"

    # Interrupted while labs are made.
    making = "while True:\n    lab = Lab()\n    print('made', flush=True)"
    for _ in range(5):
        assert kernel.run(making, interrupt=True) == "KeyboardInterrupt"
        assert kernel.run("lab = Lab(); send(); print(len(lab.sessions))") == "1\n"

    # Nothing is left, and the kernel's own modules are as they were.
    assert (
        kernel.run("lab.close(); print('labserver' in left(), smtplib.socket is socket)")
        == "False True\n"
    )


def test_a_failing_cell_leaves_the_kernel_free(kernel: Kernel) -> None:
    assert kernel.run("lab.inbox('zoe@lab.example')") == "LabError"
    assert kernel.run("lab.close(); lab.inbox('ana@lab.example')") == "LabError"
    assert kernel.run("lab = Lab(); send(); print(len(lab.sessions))") == "1\n"
    with pytest.raises(queue.Empty):
        kernel.client.get_iopub_msg(timeout=0)


def test_a_cell_speaks_to_the_lab_and_a_question_can_be_clicked(kernel: Kernel) -> None:
    magic = "print(get_ipython().run_cell_magic('smtp', '', 'NOOP\\nQUIT\\n'))"
    assert kernel.run(magic).endswith("C: NOOP\nS: 250 OK\nC: QUIT\nS: 221 Bye\n")
    assert kernel.run("print(len(lab.sessions))") == "1\n"
    question = "from labserver import predict\nguess = predict('What?', '250', '550')\n"
    kinds = kernel.run(question + "print(*sorted(guess._repr_mimebundle_()))")
    assert kinds == "application/vnd.jupyter.widget-view+json text/html text/plain\n"
