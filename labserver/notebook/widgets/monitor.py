"""A list of sessions that grows as they happen; the chosen one is explained under it."""

from __future__ import annotations

import contextlib
import threading
import weakref
from html import escape

from labserver.lab import Lab
from labserver.network import NetworkError
from labserver.notebook.display import show
from labserver.notebook.view import View
from labserver.notebook.widgets.live import Live, button, in_a_row, plain, steps
from labserver.notebook.widgets.watching import MOST, Beat, Feed, Row, row
from labserver.transcript import Session

_STORED_ROWS = 20


class Monitor(Live):
    """A lab's sessions, the last one first. It listens until it is closed or its lab is."""

    title = "Sessions as they happen"

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self.feed = Feed(MOST)
        self._rows: dict[int, Row] = {}
        self._drawing = threading.RLock()
        self._held = False
        self._explained = 0
        """The number of the session whose dialogue is shown."""
        me = weakref.ref(self)

        def heard(session: Session) -> None:
            # The lab must not keep a monitor that nobody shows any more.
            monitor = me()
            if monitor is not None:
                monitor.feed.add(session)
                monitor.beat.due()

        self.beat = Beat(self.refresh, threads=lab.can.threads)
        self._stop_listening = lab.on_session(heard)
        weakref.finalize(self, self._stop_listening)
        with contextlib.suppress(NetworkError):
            self.feed.begin_with(lab.sessions)
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
        clear = button("Clear", "Forget the sessions listed so far", self.clear)
        buttons = in_a_row([*steps(self.list, "Newer", "Older"), clear])
        self._show(self.count, self.list, self.hold, buttons)
        self.refresh()

    def refresh(self) -> None:
        """Show what was heard since the last time."""
        with self._drawing:
            if self._box is None or self._held:
                return
            latest = self.feed.latest
            kept = {one.number: self._rows.get(one.number) or row(one) for one in latest}
            self._rows = kept
            chosen = self.list.value
            self.count.value = f'<p class="more">{escape(self._told())}</p>'
            # One message to the browser, so that a list with focus keeps its place.
            with self.list.hold_sync():
                self.list.index = None
                self.list.options = [(each.text, number) for number, each in kept.items()]
                if chosen in kept:
                    self.list.value = chosen

    def _told(self) -> str:
        return self.feed.told() + ("" if self.lab is not None else " The lab is closed.")

    def _chosen(self, number: int | None) -> None:
        session = next((one for one in self.feed.latest if one.number == number), None)
        if self._box is not None and session is not None and number != self._explained:
            self._explained = session.number
            self._dialogue.value = show(session).html

    def _hold(self, on: bool) -> None:
        self._held = on
        self.refresh()

    def clear(self) -> None:
        """Begin anew with an empty list."""
        self.feed.clear()
        if self._box is not None:
            self._dialogue.value = ""
            self._explained = 0
        self.refresh()

    def close(self) -> None:
        self._stop_listening()
        self.beat.stop()
        with self._drawing:
            super().close()

    def view(self) -> View:
        rows = [row(session) for session in self.feed.latest[:_STORED_ROWS]]
        told = self._told()
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
    return Monitor(lab)
