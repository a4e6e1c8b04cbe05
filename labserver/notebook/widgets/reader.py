"""A form that lists, reads, marks and deletes mail, and shows the dialogue each action causes."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

from labserver.given import expect
from labserver.lab import Lab, LabError
from labserver.message import Message
from labserver.notebook.widgets.live import Live, button, in_a_row, plain, steps
from labserver.notebook.widgets.reading import By, Entry, Flag, Listing, delete, look, mark, read
from labserver.notebook.widgets.sending import Done
from labserver.views.show import show
from labserver.views.view import View, cut

_FLAGS = {"\\Seen": "seen", "\\Flagged": "flagged", "\\Answered": "answered", "\\Draft": "draft"}


class MailboxReader(Live):
    """An inbox being read over IMAP or POP3. Its methods are what its buttons do."""

    title = "Inbox"

    def __init__(self, lab: Lab, address: str, by: By) -> None:
        super().__init__(lab)
        self.listing = look(lab, address, by)
        self._address = address
        self._by: By = by
        try:
            import ipywidgets
        except ModuleNotFoundError:
            return
        self.address = ipywidgets.Combobox(
            value=address,
            options=tuple(lab.accounts),
            description="Account",
            continuous_update=False,
        )
        self.pop3 = ipywidgets.Checkbox(
            value=by == "POP3", description="Over POP3 instead of IMAP", indent=False
        )
        for choice in (self.address, self.pop3):
            choice.observe(lambda _: self._chosen(), "value")
        self.list = ipywidgets.Select(options=(), rows=6, description="Messages")
        buttons = [
            button("List", "Log in and list the messages", self.look),
            *steps(self.list, "Previous", "Next"),
            button("Read", "Fetch the chosen message", self.read),
            button("Mark seen", "Set \\Seen, or take it off", lambda: self.mark("\\Seen")),
            button("Flag", "Set \\Flagged, or take it off", lambda: self.mark("\\Flagged")),
            button("Delete", "Remove the chosen message for good", self.delete),
        ]
        self.button = {button.description: button for button in buttons}
        self._message = ipywidgets.HTML()
        self._show(self.address, self.pop3, self.list, in_a_row(buttons), said=(self._message,))
        self._filled(self.listing)
        self.tell(self.listing.done)

    # -- what the buttons do

    def look(self) -> None:
        """List the messages."""
        address, by = self._address, self._by

        def work(lab: Lab) -> Done:
            listing = look(lab, address, by)
            self._filled(listing)
            return listing.done

        self.act(work)

    def read(self) -> None:
        """Fetch the chosen message and show it."""
        address, by = self._address, self._by

        def work(lab: Lab, entry: Entry) -> Done:
            done, message = read(lab, address, by, entry.key)
            self._message_shown(message)
            if done.well and by == "IMAP":
                self._filled(self.listing.flagged(entry.key, "\\Seen", True))
            return done

        self._with_chosen(work)

    def mark(self, flag: Flag) -> None:
        """Set the flag of the chosen message, or take it off where it is set."""
        address = self._address

        def work(lab: Lab, entry: Entry) -> Done:
            on = flag not in entry.flags
            done = mark(lab, address, entry.key, flag, on)
            if done.well:
                self._filled(self.listing.flagged(entry.key, flag, on))
            return done

        self._with_chosen(work)

    def delete(self) -> None:
        """Remove the chosen message."""
        address, by = self._address, self._by

        def work(lab: Lab, entry: Entry) -> Done:
            done = delete(lab, address, by, entry.key)
            if done.well:
                self._message_shown(None)
                self._filled(self.listing.without(entry.key))
            return done

        self._with_chosen(work)

    # -- what stands in it

    def _with_chosen(self, work: Callable[[Lab, Entry], Done]) -> None:
        chosen = self.list.value
        entry = next((one for one in self.listing.entries if one.key == chosen), None)
        if entry is None:
            self.tell(Done("Choose a message of the list first.", False))
        else:
            self.act(lambda lab: work(lab, entry))

    def _chosen(self) -> None:
        self._address = self.address.value
        self._by = "POP3" if self.pop3.value else "IMAP"
        self._message_shown(None)
        self.look()

    def _filled(self, listing: Listing) -> None:
        """Show that list; what was chosen stays so, or else its neighbour is."""
        self.listing = listing
        if self._box is None:
            return
        keys = [entry.key for entry in listing.entries]
        chosen, last = self.list.index, len(keys) - 1
        if self.list.value in keys:
            chosen = keys.index(self.list.value)
        # One message to the browser, so that a list with focus keeps its place.
        with self.list.hold_sync():
            self.list.index = None
            self.list.options = [(_entry_line(entry), entry.key) for entry in listing.entries]
            if keys:
                self.list.index = last if chosen is None else min(chosen, last)
        for name in ("Mark seen", "Flag"):
            self.button[name].disabled = self._by == "POP3"  # which has no flags

    def _message_shown(self, message: Message | None) -> None:
        self._message.value = show(message).html if message is not None else ""

    def view(self) -> View:
        title = f"{self.title} of {self._address}, over {self._by}"
        entries = self.listing.entries
        if not entries:
            sentence = self.listing.done.sentence
            return plain(title, f'<p class="more">{escape(sentence)}</p>', [sentence])
        rows = (
            f"<tr><td>{entry.number}</td><td>{escape(cut(entry.sender, 120))}</td>"
            f"<td>{escape(cut(entry.subject, 120))}</td><td>{escape(_flags(entry))}</td></tr>"
            for entry in entries
        )
        names = ("No.", "From", "Subject", "Flags")
        heads = "".join(f'<th scope="col">{name}</th>' for name in names)
        table = f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        return plain(title, table, [_entry_line(entry) for entry in entries])


def mailbox_reader(lab: Lab, address: str = "", by: By = "IMAP") -> MailboxReader:
    """A form that reads an account's inbox over IMAP or POP3, each action with its dialogue.

    Without `address` it is the lab's last account. Raises `LabError` for an account that the lab
    hasn't got, `ValueError` for another protocol, `TypeError` for a wrong argument.
    """
    expect("mailbox_reader()", lab, Lab, wanted="a lab first")
    expect("mailbox_reader(address=…)", address, str)
    expect("mailbox_reader(by=…)", by, str)
    address = address or next(reversed(tuple(lab.accounts)), "")
    if address not in lab.accounts:
        raise LabError(lab.no_account(address))
    if by not in ("IMAP", "POP3"):
        raise ValueError(f"An inbox is read over IMAP or POP3, not over {by}.")
    return MailboxReader(lab, address, by)


def _entry_line(entry: Entry) -> str:
    flags = _flags(entry)
    told = f"{entry.number}. {cut(entry.subject, 80)}, from {cut(entry.sender, 80)}"
    return f"{told} ({flags})" if flags else told


def _flags(entry: Entry) -> str:
    return ", ".join(name for flag, name in _FLAGS.items() if flag in entry.flags)
