"""What all forms share: their two looks, what happens at a click, and their end.

Where a kernel runs, a form is made of ipywidgets; what is stored of it is plain HTML and text.
A form doesn't keep its lab alive, and it ends when its cell is run again.
"""

from __future__ import annotations

import logging
import sys
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from html import escape
from typing import Any

from labserver.lab import Lab
from labserver.notebook.widgets.sending import Done
from labserver.views.show import show
from labserver.views.view import View, frame, styles

_log = logging.getLogger("labserver")

_MOST = 40
"""Forms that are open at once; one more closes the oldest."""
NO_LAB = "This lab is closed; make a new one with Lab(), then run this cell again."
_BUSY = "The last one isn't done yet; wait for the server's answer."
_STORED = "This is how it looked when the page was stored; with a running kernel it can be used."

_open: list[Live] = []


class Live(ABC):
    """A form. A notebook shows it, `print` its plain form; `close` ends it.

    At a click the work is done beside the kernel's thread, where the lab has threads, so that a
    slow server doesn't stop the notebook.
    """

    title: str

    def __init__(self, lab: Lab) -> None:
        self._lab = weakref.ref(lab)
        self._at_work = threading.Lock()
        self._worker: threading.Thread | None = None
        self._box: Any = None
        self.closed = False
        self.cell, self.run = _where()

    def _show(self, *rows: Any, said: tuple[Any, ...] = ()) -> None:
        """Put the form together once its parts are made; `said` comes above the dialogue."""
        import ipywidgets

        self._said = ipywidgets.HTML()
        self._dialogue = ipywidgets.HTML()
        head = ipywidgets.HTML(f'{styles("live")}<p class="ml-title">{escape(self.title)}</p>')
        self._box = ipywidgets.VBox([head, *rows, self._said, *said, self._dialogue])
        for name in ("ml-view", "ml-form"):
            self._box.add_class(name)
        _opened(self)

    @property
    def lab(self) -> Lab | None:
        """The lab, as long as somebody keeps it and it isn't closed."""
        lab = self._lab()
        return None if lab is None or lab.closed else lab

    # -- its two looks

    @abstractmethod
    def view(self) -> View:
        """What is stored of it: HTML and text that need no kernel."""

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        view = self.view()
        plain = {"text/plain": view.text, "text/html": view.html}
        return plain if self._box is None else self._box._repr_mimebundle_() | plain

    def __str__(self) -> str:
        return self.view().text

    __repr__ = __str__

    # -- what a click does

    def act(self, work: Callable[[Lab], Done | None]) -> None:
        """Do that with the lab, one thing at a time, and show what came of it."""
        lab = self.lab
        if lab is None:
            self.tell(Done(NO_LAB, False))
        elif not self._at_work.acquire(blocking=False):
            self.tell(Done(_BUSY, False))
        elif lab.can.threads:
            # A daemon: a server that doesn't answer must not keep the kernel from ending.
            self._worker = threading.Thread(target=self._do, args=(work, lab), daemon=True)
            self._worker.start()
        else:
            self._do(work, lab)

    def wait(self, timeout: float = 60.0) -> None:
        """Return when the work of the last click is done, or after so many seconds."""
        if self._worker is not None:
            self._worker.join(timeout)

    def _do(self, work: Callable[[Lab], Done | None], lab: Lab) -> None:
        try:
            done = work(lab)
        except Exception:  # nobody else would tell who clicked
            _log.exception("%s couldn't do it", self.title)
            done = Done("The lab itself failed at this; its log says more.", False)
        try:
            if done is not None:
                self.tell(done)
        finally:
            self._at_work.release()

    def tell(self, done: Done) -> None:
        """Show the sentence, and under it the dialogue that was caused."""
        if self._box is None:
            return
        sign, css = ("✓", "ok") if done.well else ("✕", "no")
        self._said.value = (
            f'<p class="said {css}" role="alert"><span aria-hidden="true">{sign}</span> '
            f"{escape(done.sentence)}</p>"
        )
        self._dialogue.value = show(done.session).html if done.session else ""

    # -- its end

    def close(self) -> None:
        """Take it off the page and forget its parts. May be called again."""
        self.closed = True
        box, self._box = self._box, None
        if self in _open:
            _open.remove(self)
        for part in _parts(box) if box is not None else ():
            part.close()


def _parts(widget: Any) -> Iterator[Any]:
    """A widget and all that was made with it; each would be kept for ever by ipywidgets."""
    for child in getattr(widget, "children", ()):
        yield from _parts(child)
    yield widget
    yield from (getattr(widget, name) for name in ("layout", "style") if widget.has_trait(name))


def _opened(live: Live) -> None:
    """Note a new form; those that it takes the place of are closed."""
    for other in tuple(_open):
        again = live.cell and other.cell == live.cell and other.run != live.run
        if again or other.lab is None:
            other.close()
    for oldest in _open[: max(0, len(_open) + 1 - _MOST)]:
        oldest.close()
    _open.append(live)


def _where() -> tuple[str, str]:
    """Which cell is running, and which run of it; empty where nobody tells."""
    ipython: Any = sys.modules.get("IPython")
    kernel = getattr(ipython.get_ipython() if ipython else None, "kernel", None)
    try:
        request = kernel.get_parent("shell") if kernel is not None else {}
        return str(request["metadata"]["cellId"]), str(request["header"]["msg_id"])
    except (AttributeError, KeyError, TypeError, LookupError):
        return "", ""


def button(name: str, tooltip: str, work: Callable[[], None]) -> Any:
    """A button that does that."""
    import ipywidgets

    made = ipywidgets.Button(description=name, tooltip=tooltip)
    made.on_click(lambda _: work())
    return made


def steps(choices: Any, up: str, down: str) -> list[Any]:
    """Buttons that go through a list. JupyterLab takes the arrow keys for its cells, also from a
    list that has the focus, so without a mouse there would be no other way."""

    def go(step: int) -> None:
        most = len(choices.options) - 1
        if most >= 0:
            start = -1 if choices.index is None else choices.index
            choices.index = min(max(start + step, 0), most)

    return [
        button(up, "Choose the one above in the list", lambda: go(-1)),
        button(down, "Choose the one below in the list", lambda: go(1)),
    ]


def in_a_row(buttons: list[Any]) -> Any:
    """Buttons beside each other, in more rows where there is no room."""
    import ipywidgets

    row = ipywidgets.Box(buttons)
    row.add_class("ml-buttons")
    return row


def plain(title: str, inside: str, text: list[str]) -> View:
    """A form's stored look; `inside` is HTML."""
    body = frame("live", title, f'{inside}<p class="more">{escape(_STORED)}</p>')
    return View("live", body, "\n".join([title, *(f"  {row}" for row in text)]))
