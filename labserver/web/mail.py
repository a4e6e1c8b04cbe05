"""Mailboxes, search, and a message taken apart: all of it bounded, for a message may be large and
hostile."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from labserver.charsets import unstructured
from labserver.message import Message
from labserver.mime import Part, referred
from labserver.notebook.display import show
from labserver.notebook.message import Seen, said
from labserver.notebook.view import count, cut
from labserver.store import MessageRow
from labserver.transcript import readable

HEAD_OCTETS = 64 * 1024
"""Read of each message for the list and for the search."""
WHERE = ("anywhere", "subject", "from", "to", "text")
"""Where a text can be looked for."""

_TEXT_CHARACTERS = 256 * 1024
_RAW_OCTETS = 128 * 1024
_HTML_OCTETS = 256 * 1024
"""Rendered; a browser needs a second for a few megabytes of it."""
_IMAGE_OCTETS = 1024 * 1024
"""Of each image that the message brings along for its HTML."""
_LONGEST = 200
_FIELDS = {"subject": (b"subject",), "from": (b"from",), "to": (b"to", b"cc", b"bcc")}
_LOOKED_FOR = (
    *(name for names in _FIELDS.values() for name in names),
    *(b"content-type", b"content-transfer-encoding", b"content-disposition"),
)
_IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")
_REACHES = re.compile(
    r"<(?=(?:link|base|meta|iframe|frame|frameset|object|embed|portal|fencedframe)\b)",
    re.IGNORECASE,
)
"""What makes a browser reach for a host before it asks any policy."""
_TARGET = re.compile(r"(<a(?:rea)?\b[^>]*?\s)(?=target\s*=)", re.IGNORECASE)
_DOCTYPE = re.compile(r"\s*<!doctype[^>]*>", re.IGNORECASE)
_NOWHERE = '<base target="_top">'
"""The sandbox refuses it at once; of a link that stays inside, the host would get to know."""


@dataclass(frozen=True, slots=True)
class Head:
    """What is known of a message from its beginning."""

    row: MessageRow
    octets: bytes

    @classmethod
    def read(cls, row: MessageRow, beginning: Callable[[int], bytes]) -> Head:
        """Made of what `beginning` gives: the message's first so many octets.

        Where its header is longer than that, what is looked for is taken from all of it.
        """
        octets = beginning(HEAD_OCTETS)
        if len(octets) < row.size and Part(octets).body_start == len(octets):
            whole = Part(beginning(row.size))
            said = ((name, whole.first(name)) for name in _LOOKED_FOR)
            fields = [b"%b: %b\r\n" % (name, v[:HEAD_OCTETS]) for name, v in said if v is not None]
            body = whole.octets[whole.body_start : whole.body_start + HEAD_OCTETS]
            octets = b"".join((*fields, b"\r\n", body))
        return cls(row, octets)

    def values(self) -> dict[str, Any]:
        """The row of the list, for JSON."""
        seen = Seen(self.octets)
        return {
            "uid": self.row.uid,
            "subject": _field(seen, "subject") or "(no subject)",
            "from": _field(seen, "from") or "(nobody)",
            "to": _field(seen, "to"),
            "octets": self.row.size,
            "received": self.row.received.isoformat(timespec="seconds"),
            "flags": sorted(readable(flag.encode()) for flag in self.row.flags),
        }

    def says(self, text: str, where: str) -> bool:
        """Whether that stands there; case doesn't matter."""
        whole, wanted = Part(self.octets), text.casefold()
        for place, names in _FIELDS.items():
            if where in (place, "anywhere") and any(
                wanted in unstructured(value).casefold()
                for name in names
                for value in whole.all(name)
            ):
                return True
        return where in ("text", "anywhere") and any(
            wanted in part.text().casefold() for part in whole.walk() if part.type == b"text"
        )


class Letter:
    """A message taken apart."""

    def __init__(self, message: Message) -> None:
        self.message = message
        self._seen = Seen(message.octets)
        self._parts = self._seen.whole.walk()

    def values(self) -> dict[str, Any]:
        """All that the page shows of it, for JSON."""
        octets, html = self.message.octets, self._html()
        text, more = self._text()
        return {
            "subject": _field(self._seen, "subject") or "(no subject)",
            "from": _field(self._seen, "from") or "(nobody)",
            "to": _field(self._seen, "to"),
            "facts": [
                count(len(octets), "octet"),
                *sorted(readable(flag.encode()) for flag in self.message.flags),
            ],
            "html": html is not None,
            "cut": html is not None and html.end - html.body_start > _HTML_OCTETS,
            "text": text,
            "more": more,
            "fields": [
                {"name": field.name, "value": field.value, "read": field.decoded}
                for field in self._seen.fields
            ]
            + self._more_fields(),
            "parts": [self._part(number) for number in range(len(self._parts))],
            "raw": _rows(octets[:_RAW_OCTETS]),
            "unshown": max(0, len(octets) - _RAW_OCTETS),
            "view": show(self.message).html,
        }

    def file(self, number: int) -> tuple[str, bytes]:
        """A part's name and its octets out of their encoding. Raises `IndexError`."""
        part = self._parts[number]
        name = re.split(r"[/\\]", part.name)[-1].strip(". ")
        ending = {"message/rfc822": "eml", "text/plain": "txt", "text/html": "html"}
        return (
            name or f"part-{number + 1}.{ending.get(part.kind, 'bin')}",
            part.content(),
        )

    def rendered(self) -> str:
        """Its HTML as a document for a sandbox: what reaches out is taken out of force, and images
        that the message itself brings (RFC 2392) are put in."""
        part = self._html()
        if part is None:
            return "<!doctype html><p>This message has no HTML.</p>"
        html = part.text(_HTML_OCTETS)
        html = _TARGET.sub(r"\1not-", _REACHES.sub("<not-", html))
        brought = self._images()
        html = re.sub(
            r"\bcid:[^\"'<>)]{1,200}", lambda match: referred(match[0], brought) or match[0], html
        )
        begins = match.end() if (match := _DOCTYPE.match(html)) else 0
        return f"{html[:begins]}{_NOWHERE}{html[begins:]}"

    # -- parts

    def _html(self) -> Part | None:
        return self._seen.whole.body_part(b"html")

    def _text(self) -> tuple[str, bool]:
        """The text that mail programs without HTML show, and whether there is more of it."""
        whole = self._seen.whole
        part = whole.body_part(b"plain") or whole.body_part()
        if part is None or part.subtype == b"html":
            return "", False
        text = "\n".join(_safe(row) for row in part.text(_RAW_OCTETS).splitlines())
        more = part.end - part.body_start > _RAW_OCTETS or len(text) > _TEXT_CHARACTERS
        return text[:_TEXT_CHARACTERS], more

    def _more_fields(self) -> list[dict[str, str]]:
        more = self._seen.more_fields
        told = f"{count(more, 'more field')} not shown"
        return [{"name": "…", "value": told, "read": ""}] if more else []

    def _part(self, number: int) -> dict[str, Any]:
        part = self._parts[number]
        return {
            "depth": part.depth,
            "said": said(part),
            "file": not part.kind.startswith("multipart/"),
        }

    def _images(self) -> dict[str, str]:
        """The images of the message by their Content-ID, as data."""
        found = {}
        for part in self._parts:
            if part.kind not in _IMAGES or part.end - part.body_start > _IMAGE_OCTETS * 4 // 3:
                continue
            if part.content_id:
                octets = part.content()
                found[part.content_id] = f"data:{part.kind};base64,{b64encode(octets).decode()}"
        return found


def _field(seen: Seen, name: str) -> str:
    return cut(seen.said(name), _LONGEST)


def _rows(octets: bytes) -> str:
    rows = octets.split(b"\n")
    return "\n".join(readable(row.removesuffix(b"\r").expandtabs(8)) for row in rows)


def _safe(row: str) -> str:
    return readable(row.expandtabs(8).encode("utf-8", "backslashreplace"))
