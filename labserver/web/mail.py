"""Mailboxes, search, and a message taken apart: all of it bounded, for a message may be large and
hostile."""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass
from typing import Any

from labserver.message import Message
from labserver.notebook.display import show
from labserver.notebook.message import Part, Seen, octets_of, text_of
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
_FIELDS = {"subject": ("subject",), "from": ("from",), "to": ("to", "cc", "bcc")}
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
        seen, wanted = Seen(self.octets), text.casefold()
        for place, names in _FIELDS.items():
            if where in (place, "anywhere") and any(
                wanted in (field.decoded or field.value).casefold()
                for field in seen.fields
                if field.name.lower() in names
            ):
                return True
        return where in ("text", "anywhere") and any(
            wanted in text_of(self.octets[part.start : part.end], part).casefold()
            for part in seen.parts()
            if part.kind.startswith("text/")
        )


class Letter:
    """A message taken apart."""

    def __init__(self, message: Message) -> None:
        self.message = message
        self._seen = Seen(message.octets)
        self._parts = self._seen.parts()

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
            "cut": html is not None and html.end - html.start > _HTML_OCTETS,
            "text": text,
            "more": more,
            "fields": [
                {"name": field.name, "value": field.value, "read": field.decoded}
                for field in self._seen.fields
            ],
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
            octets_of(self.message.octets[part.start : part.end], part),
        )

    def rendered(self) -> str:
        """Its HTML as a document for a sandbox: what reaches out is taken out of force, and images
        that the message itself brings (RFC 2392) are put in."""
        part = self._html()
        if part is None:
            return "<!doctype html><p>This message has no HTML.</p>"
        end = min(part.end, part.start + _HTML_OCTETS)
        html = text_of(self.message.octets[part.start : end], part)
        html = _TARGET.sub(r"\1not-", _REACHES.sub("<not-", html))
        brought = self._images()
        html = re.sub(
            r"\bcid:([^\s\"'<>)]{1,200})", lambda match: brought.get(match[1], match[0]), html
        )
        begins = match.end() if (match := _DOCTYPE.match(html)) else 0
        return f"{html[:begins]}{_NOWHERE}{html[begins:]}"

    # -- parts

    def _html(self) -> Part | None:
        return next((p for p in self._parts if p.kind == "text/html" and not p.name), None)

    def _text(self) -> tuple[str, bool]:
        """The text that mail programs without HTML show, and whether there is more of it."""
        for part in self._parts:
            if part.kind == "text/plain" and not part.name:
                octets = self.message.octets[part.start : min(part.end, part.start + _RAW_OCTETS)]
                text = "\n".join(_safe(row) for row in text_of(octets, part).splitlines())
                more = part.end - part.start > _RAW_OCTETS or len(text) > _TEXT_CHARACTERS
                return text[:_TEXT_CHARACTERS], more
        return "", False

    def _part(self, number: int) -> dict[str, Any]:
        part = self._parts[number]
        return {
            "depth": part.depth,
            "said": part.said,
            "file": not part.kind.startswith("multipart/"),
        }

    def _images(self) -> dict[str, str]:
        """The images of the message by their Content-ID, as data."""
        found = {}
        for part in self._parts:
            if part.kind not in _IMAGES or part.end - part.start > _IMAGE_OCTETS * 4 // 3:
                continue
            identity = self._identity(part)
            if identity:
                octets = octets_of(self.message.octets[part.start : part.end], part)
                found[identity] = f"data:{part.kind};base64,{b64encode(octets).decode()}"
        return found

    def _identity(self, part: Part) -> str:
        head = self.message.octets[max(0, part.start - HEAD_OCTETS) : part.start]
        head = head[head.rfind(b"\r\n--") + 1 :]
        match = re.search(rb"^Content-ID:\s*<([^>\s]+)>", head, re.IGNORECASE | re.MULTILINE)
        return match[1].decode("ascii", "replace") if match else ""


def _field(seen: Seen, name: str) -> str:
    for field in seen.fields:
        if field.name.lower() == name:
            return cut(field.decoded or field.value, _LONGEST)
    return ""


def _rows(octets: bytes) -> str:
    rows = octets.split(b"\n")
    return "\n".join(readable(row.removesuffix(b"\r").expandtabs(8)) for row in rows)


def _safe(row: str) -> str:
    return readable(row.expandtabs(8).encode("utf-8", "backslashreplace"))
