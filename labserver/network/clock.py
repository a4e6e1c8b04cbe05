"""What time it is: real on loopback, virtual where a network says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta


@dataclass(frozen=True, slots=True)
class Clock:
    """The one clock of a network: the date, and seconds that only go forward."""

    start: datetime
    """The date, with a time zone, at which `seconds` was 0."""
    seconds: Callable[[], float]
    """Seconds since the clock's start."""

    def now(self) -> datetime:
        """The date and time in UTC."""
        return (self.start + timedelta(seconds=self.seconds())).astimezone(UTC)
