"""Octets of mail as text: charsets, encoded words and transfer encodings.

RFC 2045 section 6, 2047 and 6532, read as mail programs really write them. Nothing here raises,
and all of it takes linear time.
"""

from __future__ import annotations

import binascii
import codecs
import contextlib
import re
from collections.abc import Iterator
from functools import lru_cache

_ENCODED_WORD = re.compile(
    # Its text ends at the first `?=`, and where another word seems to begin.
    rb"=\?([^?\s]{1,75})\?([bq])\?((?:[^?=]|=(?!\?[^=])|\?(?!=))*+)\?=",
    re.IGNORECASE,
)
IDENTITY = (b"", b"7bit", b"8bit", b"binary")
"""Transfer encodings that leave the octets as they are."""
_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/=]+")
_BLANKS_AT_END = re.compile(rb"(?<![ \t])[ \t]++(?=\r?\n|\Z)")


def unstructured(value: bytes) -> str:
    """A field's text: encoded words read (RFC 2047), where one can't be it stays as it came.

    Octets beyond ASCII are UTF-8 (RFC 6532), or else what `decoded` takes them for.
    """
    if b"=?" not in value:
        return decoded(value)
    text: list[str] = []
    label, octets, at = "", b"", 0
    for word in _ENCODED_WORD.finditer(value):
        between, at = value[at : word.start()], word.end()
        charset = word[1].partition(b"*")[0].decode("latin-1")
        if codec(charset) is None:
            text += decoded(octets, label), decoded(between + word[0])
            label, octets = "", b""
            continue
        if not label or between.strip():
            text += decoded(octets, label), decoded(between)
            octets = b""
        elif codec(label) != codec(charset):
            text.append(decoded(octets, label))
            octets = b""
        # A character may be divided between two words.
        octets += _octets_of_word(word)
        label = charset
    return "".join((*text, decoded(octets, label), decoded(value[at:])))


def _octets_of_word(word: re.Match[bytes]) -> bytes:
    if word[2] in b"bB":
        return unencoded(word[3], b"base64")
    return binascii.a2b_qp(word[3].replace(b"\n", b""), header=True)


def is_guessed(value: bytes) -> bool:
    """Whether `decoded` can only guess at the charset of octets that say none."""
    try:
        value.decode()
    except UnicodeDecodeError:
        return True
    return False


def unencoded(data: bytes, encoding: bytes) -> bytes:
    """Octets out of their transfer encoding (RFC 2045 section 6), as far as it is kept."""
    if encoding == b"base64":
        return b"".join(map(_base64, _NOT_BASE64.sub(b"", data).split(b"=")))
    if encoding == b"quoted-printable":
        return binascii.a2b_qp(_BLANKS_AT_END.sub(b"", data))
    if encoding in (b"x-uuencode", b"x-uue", b"uuencode", b"uue"):
        return b"".join(_uuencoded(data))
    return data


def _base64(piece: bytes) -> bytes:
    """One piece, without its padding: a body may consist of several that were joined."""
    kept = len(piece) - (len(piece) % 4 == 1)
    return binascii.a2b_base64(piece[:kept] + b"=" * (-kept % 4))


def _uuencoded(data: bytes) -> Iterator[bytes]:
    rows = iter(data.splitlines())
    for row in rows:
        if row.startswith(b"begin"):
            break
    for row in filter(None, rows):
        if row.startswith(b"end"):
            return
        # Some write more than the count at a row's beginning says.
        digits = ((row[0] - 32 & 63) * 4 + 2) // 3
        with contextlib.suppress(binascii.Error):
            yield binascii.a2b_uu(row[: 1 + digits])


_LABELS = {
    label: name
    for name, labels in {
        "utf-8": "unicode-1-1-utf-8 unicode11utf8 unicode20utf8 utf8mb4",
        "utf-7": "unicode-1-1-utf-7",
        "utf-16le": "csunicode iso-10646-ucs-2 ucs-2 unicode unicodefeff",
        "utf-16be": "unicodefffe",
        "cp932": "windows-31j",
        "cp949": "cseuckr csksc56011987 iso-ir-149 ksc_5601 ks_c_5601-1989",
        "gb18030": "csgb2312 gb_2312 gb_2312-80",
        "big5": "cn-big5",
        "euc-jp": "cseucpkdfmtjapanese",
        "iso8859-7": "sun_eu_greek",
        "iso8859-8": "visual logical",
        "iso8859-15": "csisolatin9",
        "koi8-r": "koi koi8",
        "koi8-u": "koi8-ru",
        "mac-roman": "mac csmacintosh",
        "mac-cyrillic": "mac-ukrainian",
    }.items()
    for label in labels.split()
}
"""Labels that the WHATWG Encoding Standard (section 4.2) or mail knows, and Python doesn't."""
_LABEL_FORMS = (
    (re.compile(r"(?:cs)?iso[-_]?8859[-_]?(\d+)(?:[-_]?[ei])?"), r"iso8859-\1"),
    (re.compile(r"(?:windows|cp|ibm|dos|ms|oem)[-_]?(\d+)"), r"cp\1"),
)
_WIDER = {
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "euc_kr": "cp949",
    "shift_jis": "cp932",
    "big5": "big5hkscs",
    "iso2022_jp": "iso2022_jp_ext",
}
"""What is written under these names really is one that has more characters (the same section)."""
_IS_TEXT = re.compile(r"ascii|big5|cp\d|euc|gb|hp|hz|iso|johab|koi8|kz|mac|ptcp|shift|tis|utf")
"""Python has codecs, too, that make no text or need more than linear time."""


@lru_cache(512)
def codec(label: str) -> str | None:
    """The name of Python's codec for a charset's label; `None` where nobody knows it."""
    label = label.strip(" \t\r\n\"'").lower()
    if not label.isascii() or len(label) > 75:
        return None
    for name in (label, label.removeprefix("x-").removeprefix("x-")):
        name = _LABELS.get(name, name)
        for form, replacement in _LABEL_FORMS:
            name = replacement and form.sub(replacement, name) if form.fullmatch(name) else name
        try:
            known = codecs.lookup(name).name
        except (LookupError, ValueError):
            continue
        if _IS_TEXT.match(known):
            return _WIDER.get(known, known)
    return None


def decoded(octets: bytes, label: str = "", *, whole: bool = True) -> str:
    """Octets as text. What can't be decoded is written as `\\xe4`.

    Without a label, or with that of ASCII, they are UTF-8 or else windows-1252, as mail programs
    that say nothing write. Where they aren't `whole`, a last character may be incomplete.
    """
    if octets.isascii() and not label:
        return octets.decode("ascii")
    name = codec(label) if label else "ascii"
    if name in (None, "ascii"):
        try:
            return _decode(octets, "utf-8", "strict", whole)
        except UnicodeDecodeError:
            name = "cp1252" if name else "utf-8"
    try:
        return _decode(octets, name, "backslashreplace", whole)
    except UnicodeError:
        return octets.decode("utf-8", "backslashreplace")


def _decode(octets: bytes, name: str, errors: str, whole: bool) -> str:
    text = codecs.getincrementaldecoder(name)(errors).decode(octets, whole)
    # UTF-7 can write what no other encoding can.
    return text.encode("utf-8", "backslashreplace").decode().removeprefix("\ufeff")
