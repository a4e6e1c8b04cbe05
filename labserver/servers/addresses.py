"""What an address looks like (RFC 5321 section 4.1.2) and which ones are the same.

Whose an address is, `accounts.py` knows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from unicodedata import normalize

# All of Unicode (RFC 6531 section 3.3) but surrogates, which stand for octets that aren't UTF-8.
_ATOM = r"[^\x00-\x20\x7f\s\"(),.:;<>@\[\]\\\ud800-\udfff]+"
_DOT_STRING = rf"{_ATOM}(?:\.{_ATOM})*"
_QUOTED_STRING = r'"(?:[^"\\\x00-\x1f\x7f-\x9f\ud800-\udfff]|\\[\x20-\x7e])*"'
_LABEL = r"(?:[A-Za-z0-9_-]|[^\x00-\x7f\s\ud800-\udfff])+"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[A-Za-z0-9:.-]+\])"
_LOCAL = rf"(?P<local>{_DOT_STRING}|{_QUOTED_STRING})"
# `postmaster` needs no domain (section 4.5.1). A source route is ignored (section 4.1.1.3).
_MAILBOX = rf"{_LOCAL}(?P<domain>@{_DOMAIN})?"
_PARAMETERS = r"(?:\s+(?P<parameters>.*))?"

# Octets (RFC 5321 section 4.5.3.1).
_LONGEST_LOCAL, _LONGEST_DOMAIN, _LONGEST_PATH = 64, 255, 256

_ADDRESS = re.compile(rf"{_LOCAL}@{_DOMAIN}")
_PATH = re.compile(rf"\s*<(?:(?:@[^:<>\s]+:)?{_MAILBOX})?>{_PARAMETERS}")
_BARE_PATH = re.compile(rf"\s*{_MAILBOX}{_PARAMETERS}")

_LONGEST_LABEL = 63
"""Octets (RFC 1035 section 2.3.4)."""
_U_LABEL = re.compile(_LABEL)
_JOINERS = re.compile("[\u200c\u200d]")
"""Not to be seen, but a part of some words (RFC 5892 appendix A)."""
_FULL_STOPS = re.compile("[\u3002\uff0e\uff61]")
"""They part labels like the dot (RFC 5895 section 2)."""


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


def too_long(address: str) -> str:
    """What of an address is longer than RFC 5321 section 4.5.3.1 lets it be; empty if nothing."""
    if len(address) <= _LONGEST_LOCAL and address.isascii():
        return ""
    local, _, domain = address.rpartition("@") if "@" in address else (address, "", "")
    octets = [len(part.encode("utf-8", "surrogateescape")) for part in (local, domain, address)]
    if octets[0] > _LONGEST_LOCAL:
        return f"A local part may have {_LONGEST_LOCAL} octets"
    if octets[1] > _LONGEST_DOMAIN:
        return f"A domain may have {_LONGEST_DOMAIN} octets"
    # The angle brackets count.
    if octets[2] + 2 > _LONGEST_PATH:
        return f"A path may have {_LONGEST_PATH} octets"
    return ""


def one_spelling(address: str) -> str:
    """The address as all its spellings are compared.

    Letter case doesn't matter, nor how letters are composed (NFC), nor whether a label of the
    domain is in Unicode or in its ASCII form, `xn--…` (RFC 5890 section 2.3.2.1).
    """
    if address.isascii() and "xn--" not in (folded := address.casefold()):
        return folded
    local, at, domain = address.rpartition("@") if "@" in address else (address, "", "")
    return normalize("NFC", normalize("NFD", local).casefold()) + at + one_domain(domain)


def one_domain(domain: str) -> str:
    """The domain as all its spellings are compared: each label in lower case and Unicode."""
    return ".".join(map(_unicode, _FULL_STOPS.sub(".", domain).split(".")))


def ascii_domain(domain: str) -> str:
    """The domain as DNS and TLS know it: each label beyond ASCII in its form `xn--…`."""
    if domain.isascii():
        return domain
    return ".".join(map(_ascii, one_domain(domain).split(".")))


def _mapped(label: str) -> str:
    """As people's spellings are made one (RFC 5895 section 2); ß stays, unlike in IDNA2003."""
    # Letter by letter, for a Greek capital sigma has two small forms.
    return normalize("NFKC", "".join(map(str.lower, normalize("NFKC", label))))


def _unicode(label: str) -> str:
    """A label in Unicode; one that only looks like `xn--…` stays as it is."""
    label = _mapped(label)
    if not label.startswith("xn--") or len(label) > _LONGEST_LABEL:
        return label
    try:
        text = label[4:].encode("ascii").decode("punycode")
    except ValueError:
        return label
    whole = (
        _U_LABEL.fullmatch(text)
        and _JOINERS.sub("", text).isprintable()
        and not text.startswith("xn--")
        and _mapped(text) == text
        and _ascii(text) == label
    )
    return text if whole else label


def _ascii(label: str) -> str:
    return label if label.isascii() else "xn--" + label.encode("punycode").decode("ascii")
