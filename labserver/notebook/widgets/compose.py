"""A form that sends a message and shows the dialogue it causes."""

from __future__ import annotations

from html import escape

from labserver.given import expect
from labserver.lab import Lab
from labserver.notebook.widgets.live import Live, button, plain
from labserver.notebook.widgets.sending import Done, Draft, Via, listeners, send
from labserver.transcript import readable
from labserver.views.view import View

_VIA = {
    "submission": "submission, logged in under TLS",
    "smtp": "smtp, as another mail server",
}


class Compose(Live):
    """A message being written. `send` is what its button does."""

    title = "Compose"

    def __init__(self, lab: Lab, draft: Draft, via: Via) -> None:
        super().__init__(lab)
        self._draft, self._via = draft, via
        ways = listeners(lab)
        if via not in ways:
            self._via = via = ways[0]
        try:
            import ipywidgets
        except ModuleNotFoundError:
            return
        self.sender = ipywidgets.Combobox(
            value=draft.sender, options=tuple(lab.accounts), description="From"
        )
        self.to = ipywidgets.Text(value=draft.to, description="To")
        self.subject = ipywidgets.Text(value=draft.subject, description="Subject")
        self.body = ipywidgets.Textarea(value=draft.body, description="Text", rows=4)
        self.login = ipywidgets.Checkbox(
            value=via == "submission",
            disabled=len(ways) == 1,
            description="Log in and submit it; else it comes as from another mail server",
            indent=False,
        )
        self.button = button("Send", "Send it, and show the dialogue", self.send)
        self.button.button_style = "primary"
        self._show(self.sender, self.to, self.subject, self.body, self.login, self.button)

    def send(self) -> None:
        """Send what the fields hold."""
        draft, via = self._now()

        def work(lab: Lab) -> Done:
            self.tell(Done(f"Sending through {via} …", True))
            return send(lab, draft, via)

        self.act(work)

    def _now(self) -> tuple[Draft, Via]:
        if self._box is not None:
            fields = (self.sender, self.to, self.subject, self.body)
            self._draft = Draft(*(field.value for field in fields))
            self._via = "submission" if self.login.value else "smtp"
        return self._draft, self._via

    def view(self) -> View:
        draft, via = self._now()
        fields = {
            "From": draft.sender,
            "To": draft.to,
            "Subject": draft.subject,
            "Text": draft.body,
            "Through": _VIA[via],
        }
        rows_of = {
            name: [readable(row.encode("utf-8", "backslashreplace")) for row in value.split("\n")]
            for name, value in fields.items()
        }
        rows = (
            f"<dt>{name}</dt><dd>{'<br>'.join(map(escape, value))}</dd>"
            for name, value in rows_of.items()
        )
        text = [f"{name}: {' / '.join(value)}".rstrip() for name, value in rows_of.items()]
        return plain(self.title, f"<dl>{''.join(rows)}</dl>", text)


def compose(
    lab: Lab,
    *,
    sender: str = "",
    to: str = "",
    subject: str = "",
    body: str = "",
    via: Via = "submission",
) -> Compose:
    """A form to write and send a message; what is given stands in it already.

    Without `sender` it comes from the lab's first account, without `to` it goes to the last one.
    `via` names the listener: `submission` logs in as the sender, `smtp` is the mail exchanger.
    Raises `ValueError` for another one, `TypeError` for a wrong argument.
    """
    expect("compose()", lab, Lab, wanted="a lab")
    for name, text in (
        ("sender", sender),
        ("to", to),
        ("subject", subject),
        ("body", body),
        ("via", via),
    ):
        expect(f"compose({name}=…)", text, str)
    if via not in _VIA:
        raise ValueError(f"A message is sent through {' or '.join(_VIA)}, not through {via}.")
    accounts = tuple(lab.accounts) or ("",)
    return Compose(lab, Draft(sender or accounts[0], to or accounts[-1], subject, body), via)
