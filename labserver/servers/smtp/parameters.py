"""The parameters behind the path of MAIL and RCPT (RFC 5321 section 4.1.2): which ones this
server takes, and what each may say."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

_KEYWORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
# What RFC 5321 allows, and UTF-8 (RFC 6531 section 3.3); surrogates stand for other octets.
_VALUE = re.compile(r"[^\x00-\x20=\x7f\ud800-\udfff]+")
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+")
_ORCPT = re.compile(rf"[A-Za-z0-9-]+;{_XTEXT.pattern}")
_ENVID_LENGTH = 100
_ORCPT_LENGTH = 500
_NOTICES = {"SUCCESS", "FAILURE", "DELAY"}


class RefusedError(Exception):
    """A command is not obeyed; `reply` says why."""

    def __init__(self, reply: str) -> None:
        super().__init__(reply)
        self.reply = reply


def mail_parameters(text: str, *, most: int, submission: bool) -> tuple[str, ...]:
    """The parameters of MAIL, each as `KEYWORD` or `KEYWORD=value`.

    `most` is the greatest SIZE (octets). Whom a client vouches for with AUTH is noted by nobody
    here (RFC 4954 section 5), so that one is left out. Raises `RefusedError`.
    """
    if not text:
        return ()
    given = _read(text)
    if submission and "AUTH" in given:
        del given["AUTH"]
    _check(given, _MAIL)
    if int(given.get("SIZE") or 0) > most:
        raise RefusedError("552 5.3.4 Message size exceeds fixed limit")
    return _as_said(given)


def rcpt_parameters(text: str) -> tuple[str, ...]:
    """The parameters of RCPT. Raises `RefusedError`."""
    if not text:
        return ()
    given = _read(text)
    _check(given, _RCPT)
    return _as_said(given)


def _read(text: str) -> dict[str, str | None]:
    given: dict[str, str | None] = {}
    for word in text.split():
        keyword, equals, value = word.partition("=")
        if not _KEYWORD.fullmatch(keyword) or (equals and not _VALUE.fullmatch(value)):
            raise RefusedError("501 5.5.4 A parameter is KEYWORD or KEYWORD=value")
        if keyword.upper() in given:
            raise RefusedError(f"501 5.5.4 {keyword.upper()} is there twice")
        given[keyword.upper()] = value if equals else None
    return given


def _check(given: Mapping[str, str | None], known: Mapping[str, Callable[[str], bool]]) -> None:
    for keyword, value in given.items():
        if keyword not in known:
            raise RefusedError(f"555 5.5.4 Unsupported option: {keyword}")
        if not known[keyword](value or ""):
            raise RefusedError(f"501 5.5.4 Bad {keyword} parameter syntax")


def _as_said(given: Mapping[str, str | None]) -> tuple[str, ...]:
    return tuple(key if value is None else f"{key}={value}" for key, value in given.items())


def _is_size(value: str) -> bool:
    return re.fullmatch(r"[0-9]{1,20}", value) is not None


def _is_notify(value: str) -> bool:
    """NEVER alone, or some of the others, each once (RFC 3461 section 4.1)."""
    words = value.upper().split(",")
    return words == ["NEVER"] or (len(set(words)) == len(words) and set(words) <= _NOTICES)


_MAIL: Mapping[str, Callable[[str], bool]] = {
    "SIZE": _is_size,  # RFC 1870 section 4
    "BODY": lambda value: value.upper() in ("7BIT", "8BITMIME"),  # RFC 6152 section 2
    "SMTPUTF8": lambda value: not value,  # RFC 6531 section 3.4
    "RET": lambda value: value.upper() in ("FULL", "HDRS"),  # RFC 3461 section 4.3
    "ENVID": lambda value: len(value) <= _ENVID_LENGTH and bool(_XTEXT.fullmatch(value)),
}
_RCPT: Mapping[str, Callable[[str], bool]] = {
    "NOTIFY": _is_notify,
    "ORCPT": lambda value: len(value) <= _ORCPT_LENGTH and bool(_ORCPT.fullmatch(value)),
}
