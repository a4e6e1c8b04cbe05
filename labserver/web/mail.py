"""Mailboxes, search, and a message taken apart: all of it bounded, for a message may be large and
hostile."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

from labserver.charsets import unstructured
from labserver.message import Message
from labserver.mime import Part, bare_id
from labserver.store import MessageRow
from labserver.transcript import readable
from labserver.views.message import ShownMessage, said
from labserver.views.show import show
from labserver.views.view import count, cut
from labserver.web.sanitizer import MOST_CHARACTERS, Sanitized, sanitized

HEAD_OCTETS = 64 * 1024
"""Read of each message for the list and for the search."""
WHERE = ("anywhere", "subject", "from", "to", "text")
"""Where a text can be looked for."""

_TEXT_CHARACTERS = 256 * 1024
_RAW_OCTETS = 128 * 1024
_HTML_OCTETS = 4 * MOST_CHARACTERS
"""Read of the HTML that is rendered."""
_LONGEST_FILE_NAME = 120
_LONGEST = 200
_FIELDS = {"subject": (b"subject",), "from": (b"from",), "to": (b"to", b"cc", b"bcc")}
_LOOKED_FOR = (
    *(name for names in _FIELDS.values() for name in names),
    *(b"content-type", b"content-transfer-encoding", b"content-disposition"),
)
_IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")


@dataclass(frozen=True, slots=True)
class Head:
    """What is known of a message from its beginning."""

    row: MessageRow
    octets: bytes

    @classmethod
    def of(cls, row: MessageRow, octets: bytes) -> Head:
        """What is looked for in a header of any size, and the beginning of the body."""
        whole = Part(octets)
        said = ((name, whole.first(name)) for name in _LOOKED_FOR)
        fields = [b"%b: %b\r\n" % (name, v[:HEAD_OCTETS]) for name, v in said if v is not None]
        body = octets[whole.body_start : whole.body_start + HEAD_OCTETS]
        return cls(row, b"".join((*fields, b"\r\n", body)))

    @property
    def is_whole(self) -> bool:
        """Whether the header ends within these octets."""
        ends = Part(self.octets).body_start
        return len(self.octets) == self.row.size or ends < len(self.octets)

    def values(self) -> dict[str, Any]:
        """The row of the list, for JSON."""
        seen = ShownMessage(self.octets)
        return {
            "uid": self.row.uid,
            "subject": _field(seen, "subject") or "(no subject)",
            "from": _field(seen, "from") or "(nobody)",
            "to": _field(seen, "to"),
            "octets": self.row.size,
            "received": self.row.received.isoformat(timespec="seconds"),
            "flags": sorted(readable(flag.encode()) for flag in self.row.flags),
        }

    def unread(self, why: str) -> dict[str, Any]:
        """The row where the header can't be read."""
        return replace(self, octets=b"").values() | {"subject": why, "from": ""}

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
        self._seen = ShownMessage(message.octets)
        self._parts = self._seen.whole.walk()

    def values(self) -> dict[str, Any]:
        """All that the page shows of it, for JSON."""
        octets, html = self.message.octets, self._sanitized
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
            "cut": html is not None and html.cut,
            "notes": html.notes if html else [],
            "links": html.links if html else [],
            "more_links": html.more_links if html else 0,
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
            "view": show(self.message).body,
        }

    def file(self, number: int) -> tuple[str, bytes]:
        """A part's name and its octets out of their encoding. Raises `IndexError`."""
        part = self._parts[number]
        ending = {"message/rfc822": "eml", "text/plain": "txt", "text/html": "html"}
        return (
            _file_name(part.name) or f"part-{number + 1}.{ending.get(part.kind, 'bin')}",
            part.content(),
        )

    def rendered(self) -> str:
        """Its HTML as a document that shows and does nothing else, for a sandbox all the same."""
        html = self._sanitized
        return html.document if html else "<!doctype html><p>This message has no HTML.</p>"

    # -- parts

    @cached_property
    def _sanitized(self) -> Sanitized | None:
        part = self._seen.whole.body_part(b"html")
        if part is None:
            return None
        made = sanitized(part.text(_HTML_OCTETS), self._image)
        return replace(made, cut=made.cut or part.end - part.body_start > _HTML_OCTETS)

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

    @cached_property
    def _image(self) -> Callable[[str], str]:
        """Gives an image of the message by its Content-ID, as a `data:` address, or nothing."""
        images = {part.content_id: part for part in self._parts if part.kind in _IMAGES}

        @cache
        def data(identity: str) -> str:
            part = images.get(bare_id(identity)) if identity else None
            if part is None:
                return ""
            return f"data:{part.kind};base64,{b64encode(part.content()).decode()}"

        return data


def _file_name(said: str) -> str:
    """A file's name without folders and without what can't be printed; it may be empty."""
    name = re.split(r"[/\\]", said)[-1]
    name = "".join(c if c.isprintable() else "_" for c in name).strip(". ")
    stem, dot, ending = name.rpartition(".")
    if len(name) > _LONGEST_FILE_NAME:
        name = f"{stem[: _LONGEST_FILE_NAME - 20]}{dot}{ending[:19]}"
    return name


def _field(seen: ShownMessage, name: str) -> str:
    return cut(seen.said(name), _LONGEST)


def _rows(octets: bytes) -> str:
    rows = octets.split(b"\n")
    return "\n".join(readable(row.removesuffix(b"\r").expandtabs(8)) for row in rows)


def _safe(row: str) -> str:
    return readable(row.expandtabs(8).encode("utf-8", "backslashreplace"))
