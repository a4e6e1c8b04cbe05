"""First lines by which a client shows that it speaks another protocol than mail.

The servers hang up on them, and the annotated transcript says why; both ask here.
"""

from __future__ import annotations

import re

# What HTTP/2 begins with has the same form: PRI * HTTP/2.0 (RFC 9113 section 3.4).
_VERSION = re.compile(rb"HTTP/[0-9]", re.IGNORECASE)
_TARGET = re.compile(rb"[/*]|[a-z]+://", re.IGNORECASE)
# What follows where the request line itself was too long to be read.
_HEADER_FIELD = re.compile(
    rb"(?:Host|Connection|Cookie|Origin|Referer|User-Agent|Cache-Control|Pragma|Upgrade"
    rb"|(?:Accept|Content|Sec)(?:-[A-Za-z-]+)?):",
    re.IGNORECASE,
)
_TLS_HANDSHAKE = b"\x16\x03"
"""How a record with a ClientHello begins (RFC 8446 section 5.1)."""


def spoken_instead(first_line: bytes) -> str:
    """Which protocol a client begins with instead of mail: `HTTP`, `TLS`, or none known here."""
    if first_line.startswith(_TLS_HANDSHAKE):
        return "TLS"
    words = first_line.split()
    return "HTTP" if _is_request(words) or (words and _HEADER_FIELD.match(words[0])) else ""


def _is_request(words: list[bytes]) -> bool:
    """Method, target and version (RFC 9112 section 3), whatever the method is.

    Some clients leave blanks in the target.
    """
    if len(words) < 3:
        return False
    if _VERSION.match(words[2]):
        return True
    return bool(_TARGET.match(words[1]) and _VERSION.match(words[-1]))
