"""What Amazon SES tells of a message as JSON, by mail or as an event."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from labserver.logs.letter import Letter
from labserver.logs.phrases import reply_in, stage_in, status_in
from labserver.logs.report import Failure

__all__ = ["Notice", "notice"]

_WIDEST = 200_000


class Notice:
    """An event that Amazon SES notes."""

    def __init__(self, event: dict[str, Any], row: int) -> None:
        kind = event.get("notificationType", event.get("eventType", ""))
        self.kind = kind.lower() if isinstance(kind, str) else ""
        """`bounce`, `complaint`, `delivery`, …"""
        self.failures = tuple(_failures(event, row)) if self.kind == "bounce" else ()


def notice(letter: Letter) -> Notice | None:
    """The event that a letter's text is, or `None`."""
    for part in letter.parts:
        if part.returned or not part.kind.startswith(("text/", "application/json")):
            continue
        lines = [line for line in part.lines if line.text.strip()]
        if not lines or not lines[0].text.lstrip().startswith("{"):
            continue
        text = "\n".join(line.text for line in lines)
        if "notificationType" in text or "eventType" in text:
            event = _event(text[:_WIDEST])
            if event:
                return Notice(event, lines[0].row)
    return None


def _event(text: str) -> dict[str, Any] | None:
    try:
        # Mail breaks long lines, in the middle of a string as well.
        event, _ = json.JSONDecoder(strict=False).raw_decode(text.lstrip())
        if isinstance(event, dict) and isinstance(event.get("Message"), str):
            event, _ = json.JSONDecoder(strict=False).raw_decode(event["Message"])
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None


def _failures(event: dict[str, Any], row: int) -> Iterator[Failure]:
    bounce = event.get("bounce")
    told = bounce.get("bouncedRecipients") if isinstance(bounce, dict) else None
    for one in told if isinstance(told, list) else ():
        if not isinstance(one, dict):
            continue
        address, action, status, diagnostic = (
            value if isinstance(value := one.get(name), str) else ""
            for name in ("emailAddress", "action", "status", "diagnosticCode")
        )
        text = diagnostic.partition(";")[2].strip() or diagnostic
        reply = reply_in(text)
        yield Failure(
            row,
            recipient=address.strip(),
            action=action.lower(),
            status=status_in(status) or status_in(text),
            reply=reply,
            words="" if reply else text,
            stage=stage_in(text),
        )
