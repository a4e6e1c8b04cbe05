"""Switches that make the lab fail on purpose."""

from __future__ import annotations

from html import escape
from typing import Any

from labserver.faulting import FAULTS, Fault, is_on, switch
from labserver.given import expect
from labserver.lab import Lab
from labserver.notebook.widgets.live import NO_LAB, Live, button, plain
from labserver.notebook.widgets.sending import Done
from labserver.views.view import View


class Faults(Live):
    """One switch for each fault; the lab's other rules stay as they are."""

    title = "Faults"

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self._on = {fault.name: is_on(lab, fault) for fault in FAULTS}
        try:
            import ipywidgets
        except ModuleNotFoundError:
            return
        self.switches: dict[str, Any] = {}
        rows = []
        for fault in FAULTS:
            box = ipywidgets.Checkbox(
                value=self._on[fault.name], description=fault.name, indent=False
            )
            box.observe(lambda change, fault=fault: self.switch(fault, change["new"]), "value")
            self.switches[fault.name] = box
            rows += [box, ipywidgets.HTML(f'<p class="more">{escape(fault.meaning)}</p>')]
        self.off_button = button("All off", "Let the lab work as it should", self.all_off)
        self._show(*rows, self.off_button)

    def switch(self, fault: Fault, on: bool) -> None:
        """Turn a fault on or off; on again, it begins anew."""
        lab = self.lab
        if lab is None:
            self.tell(Done(NO_LAB, False))
            return
        switch(lab, fault, on)
        self._on[fault.name] = on
        self.tell(Done(f"{fault.name}: {'on' if on else 'off'}.", True))

    def all_off(self) -> None:
        """Turn all of them off."""
        for box in self.switches.values():
            box.value = False

    def view(self) -> View:
        lab = self.lab
        if lab is not None:
            self._on = {fault.name: is_on(lab, fault) for fault in FAULTS}
        told = [(fault, "on" if self._on[fault.name] else "off") for fault in FAULTS]
        rows = (
            f"<tr><td>{escape(fault.name)}</td><td>{state}</td><td>{escape(fault.meaning)}</td></tr>"
            for fault, state in told
        )
        names = ("Fault", "Now", "What comes of it")
        heads = "".join(f'<th scope="col">{name}</th>' for name in names)
        table = f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        text = [f"{fault.name} ({state}): {fault.meaning}" for fault, state in told]
        return plain(self.title, table, text)


def faults(lab: Lab) -> Faults:
    """Switches that make the lab refuse, hang up or wait on purpose."""
    expect("faults()", lab, Lab, wanted="a lab")
    return Faults(lab)
