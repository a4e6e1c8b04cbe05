"""A list of sessions as they happen; the chosen one is explained under it while it goes on."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable
from html import escape

from labserver.given import expect
from labserver.lab import Lab
from labserver.network import NetworkError
from labserver.network.recorder import Recorder
from labserver.notebook.widgets.live import Live, button, in_a_row, plain, steps
from labserver.notebook.widgets.watching import Beat, Feed, Row, row
from labserver.transcript import Session
from labserver.views.show import show
from labserver.views.view import View

_STORED_ROWS = 20


class Monitor(Live):
    """A lab's sessions, the last one first, from their beginning on.

    It listens until it is closed or its lab is.
    """

    title = "Sessions as they happen"

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self.feed = Feed()
        self._rows: dict[int, tuple[Session, Row]] = {}
        self._drawing = threading.RLock()
        self._held = False
        self._explained: Session | None = None
        """Whose dialogue is shown, as far as it is shown."""
        self._stop_listening: Callable[[], None] = lambda: None
        me = weakref.ref(self)

        def heard(recorder: Recorder) -> None:
            # The lab must not keep a monitor that nobody shows any more.
            monitor = me()
            if monitor is not None:
                monitor.feed.hear(recorder)
                monitor.beat.due()

        def begin() -> None:
            for recorder in lab.journal.recorders:
                self.feed.hear(recorder)
            self.feed.look(lab.journal)
            self._stop_listening = lab.journal.listen(heard)
            weakref.finalize(self, self._stop_listening)

        self.beat = Beat(self.refresh, threads=lab.can.threads)
        if lab.closed:
            begin()
        else:
            with contextlib.suppress(NetworkError):
                lab.network.settle()
                lab.network.run(begin)
        try:
            import ipywidgets
        except ModuleNotFoundError:
            return
        self.list = ipywidgets.Select(options=(), rows=8, description="Sessions")
        self.list.observe(lambda change: self._chosen(change["new"]), "value")
        self.count = ipywidgets.HTML()
        self.hold = ipywidgets.Checkbox(
            value=False, description="Hold the list still", indent=False
        )
        self.hold.observe(lambda change: self._hold(change["new"]), "value")
        clear = button("Clear", "Forget the sessions that have ended", self.clear)
        buttons = in_a_row([*steps(self.list, "Newer", "Older"), clear])
        self._show(self.count, self.list, self.hold, buttons)
        self.refresh()

    def refresh(self) -> None:
        """Show what has happened since the last time."""
        if self._box is None or self._held:
            return
        self._look()
        with self._drawing:
            if self._box is None or self._held:
                return
            self._rows = {one.number: self._row(one) for one in self.feed.latest}
            options = tuple((each.text, number) for number, (_, each) in self._rows.items())
            self.count.value = f'<p class="more">{escape(self._counts())}</p>'
            chosen = self.list.value
            if options != self.list.options:
                # One message to the browser, so that a list with focus keeps its place.
                with self.list.hold_sync():
                    self.list.index = None
                    self.list.options = options
                    if chosen in self._rows:
                        self.list.value = chosen
            self._chosen(self.list.value)

    def _look(self, *, settled: bool = False) -> None:
        """See how far the open sessions have come, as long as there is a lab to be asked."""
        lab = self.lab
        if lab is not None:
            journal, network = lab.journal, lab.network
            with contextlib.suppress(NetworkError):
                if settled:
                    network.settle()
                network.run(lambda: self.feed.look(journal))

    def _row(self, session: Session) -> tuple[Session, Row]:
        known = self._rows.get(session.number)
        return known if known is not None and known[0] is session else (session, row(session))

    def _counts(self) -> str:
        return self.feed.told() + ("" if self.lab is not None else " The lab is closed.")

    def _chosen(self, number: int | None) -> None:
        """Show the dialogue of that session, as far as it has come."""
        with self._drawing:
            session = next((one for one in self.feed.latest if one.number == number), None)
            if self._box is not None and session is not None and session is not self._explained:
                self._explained = session
                self._dialogue.value = show(session).html

    def _hold(self, on: bool) -> None:
        self._held = on
        self.refresh()

    def clear(self) -> None:
        """Forget the sessions that have ended."""
        self.feed.clear()
        with self._drawing:
            if self._box is not None:
                self._dialogue.value = ""
                self._explained = None
        self.refresh()

    def close(self) -> None:
        self._stop_listening()
        self.beat.stop()
        with self._drawing:
            super().close()

    def view(self) -> View:
        self._look(settled=True)
        rows = [row(session) for session in self.feed.latest[:_STORED_ROWS]]
        told = self._counts()
        if not rows:
            return plain(self.title, f'<p class="more">{escape(told)}</p>', [told])
        names = ("No.", "Session", "What happened")
        heads = "".join(f'<th scope="col">{name}</th>' for name in names)
        cells = (
            f"<tr><td>{one.number}</td><td>{escape(one.what)}</td><td>{escape(one.facts)}</td></tr>"
            for one in rows
        )
        table = f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(cells)}</tbody></table>"
        inside = f'<p class="more">{escape(told)}</p>{table}'
        return plain(self.title, inside, [told, *(one.text for one in rows)])


def monitor(lab: Lab) -> Monitor:
    """A list of the lab's sessions as they happen, each explained when it is chosen."""
    expect("monitor()", lab, Lab, wanted="a lab")
    return Monitor(lab)
