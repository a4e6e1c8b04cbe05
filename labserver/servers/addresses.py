"""What an address looks like (RFC 5321 section 4.1.2); whose it is, `accounts.py` knows."""

from __future__ import annotations

import re
from dataclasses import dataclass

# All of Unicode (RFC 6531 section 3.3) but surrogates, which stand for octets that aren't UTF-8.
_ATOM = r"[^\x00-\x20\x7f\s\"(),.:;<>@\[\]\\\ud800-\udfff]+"
_DOT_STRING = rf"{_ATOM}(?:\.{_ATOM})*"
_QUOTED_STRING = r'"(?:[^"\\\x00-\x1f\x7f-\x9f\ud800-\udfff]|\\[\x20-\x7e])*"'
_LABEL = r"(?:[A-Za-z0-9_-]|[^\x00-\x7f\s\ud800-\udfff])+"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[A-Za-z0-9:.-]+\])"
_LOCAL = rf"(?P<local>{_DOT_STRING}|{_QUOTED_STRING})"
# `postmaster` needs no domain (section 4.5.1). A source route is overread (section 4.1.1.3).
_MAILBOX = rf"{_LOCAL}(?P<domain>@{_DOMAIN})?"
_PARAMETERS = r"(?:\s+(?P<parameters>.*))?"

_ADDRESS = re.compile(rf"{_LOCAL}@{_DOMAIN}")
_PATH = re.compile(rf"\s*<(?:(?:@[^:<>\s]+:)?{_MAILBOX})?>{_PARAMETERS}")
_BARE_PATH = re.compile(rf"\s*{_MAILBOX}{_PARAMETERS}")


@dataclass(frozen=True, slots=True)
class Path:
    """What follows `MAIL FROM:` or `RCPT TO:`."""

    address: str
    """Empty for the null reverse-path."""
    parameters: str


def is_address(text: str) -> bool:
    """Whether that is an address with a domain, without angle brackets."""
    return _ADDRESS.fullmatch(text) is not None


def read_path(text: str) -> Path | None:
    """The path in an SMTP command, or `None` where it isn't one.

    Quotes that aren't needed are taken away: `"ana"@lab.example` is the mailbox of
    `ana@lab.example`. Forgotten angle brackets are forgiven.
    """
    match = _PATH.fullmatch(text) or _BARE_PATH.fullmatch(text)
    if match is None:
        return None
    local, domain = match["local"] or "", match["domain"] or ""
    plain = re.sub(r"\\(.)", r"\1", local[1:-1])
    if local.startswith('"') and re.fullmatch(_DOT_STRING, plain):
        local = plain
    return Path(local + domain, match["parameters"] or "")
