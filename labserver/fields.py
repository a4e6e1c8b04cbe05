"""Values of structured header fields: comments, quoted strings and parameters.

RFC 5322 section 3.2, RFC 2045 section 5.1 and RFC 2231, read as mail programs really write them.
Nothing here raises, and all of it takes linear time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from urllib.parse import unquote_to_bytes

from labserver.charsets import decoded, unstructured

_FOLD = re.compile(rb"\r?\n(?=[ \t])")
QUOTED = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_COMMENT_MARK = re.compile(rb"\\.|[()]", re.DOTALL)
_NO_COMMENT = re.compile(
    QUOTED + rb"|=\?[^?\s]{1,75}\?[bq]\?[^?\s]*+\?=|\\.|\(", re.DOTALL | re.IGNORECASE
)
_PARAMETER = re.compile(
    # A value without quotation marks may have blanks (RFC 2045 forbids it), but no `name=`.
    rb'(?<![^\s;"])([^\s;="]+)[ \t]*+='
    rb"[ \t]*+(" + QUOTED + rb'|[^;\s][^;\s]*+(?:[ \t]++(?![^\s;="]+[ \t]*+=)[^;\s]++)*+)?',
    re.DOTALL,
)
_PIECE = re.compile(rb"(.+?)(?:\*(\d{1,9}))?(\*)?", re.DOTALL)
_EXTENDED = re.compile(rb"([^']*)'[^']*'(.*)", re.DOTALL)
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
_MOST_PARAMETERS = 100
_MOST_PIECES = 1_000
_NOT_PLAIN = re.compile(rb"[^!#$&+\-.0-9A-Z^_`a-z{|}~]")


def unfolded(value: bytes) -> bytes:
    """A field's value as one line (RFC 5322 section 2.2.3)."""
    return _FOLD.sub(b"", value).strip()


def without_comments(value: bytes) -> bytes:
    """A structured value without its comments in parentheses (RFC 5322 section 3.2.2)."""
    if b"(" not in value:
        return value
    return b"".join(b" " if comment else value[start:end] for comment, start, end in marked(value))


def marked(value: bytes) -> Iterator[tuple[bool, int, int]]:
    """Start and end of the comments in a structured value and of what stands between them.

    Comments nest. A parenthesis that none closes is an ordinary character.
    """
    at = 0
    if b"(" in value:
        closing: dict[int, int] = {}
        opened: list[int] = []
        for mark in _COMMENT_MARK.finditer(value):
            if mark[0] == b"(":
                opened.append(mark.start())
            elif mark[0] == b")" and opened:
                closing[opened.pop()] = mark.end()
        search = 0
        while found := _NO_COMMENT.search(value, search):
            search = found.end()
            if found[0] == b"(" and (end := closing.get(found.start())):
                yield False, at, found.start()
                yield True, found.start(), end
                at = search = end
    yield False, at, len(value)


def unquoted(value: bytes) -> bytes:
    """A quoted-string's content; anything else as it is."""
    if len(value) > 1 and value.startswith(b'"') and value.endswith(b'"'):
        return _ESCAPE.sub(rb"\1", value[1:-1])
    return value.removeprefix(b'"')


def parameters_of(value: bytes) -> tuple[tuple[tuple[bytes, bytes], ...], int]:
    """The parameters in a value without comments, such as `; charset=utf-8`, in order.

    And how many octets weren't looked at, for they had too many. Those in pieces are joined (RFC
    2231 section 3); a name that still ends in `*` has a value with charset, language and percent
    signs (section 4).
    """
    whole: list[tuple[bytes, bytes]] = []
    pieces: dict[bytes, dict[int, tuple[bool, bytes]]] = {}
    unread = 0
    for number, one in enumerate(_PARAMETER.finditer(value)):
        if len(whole) >= _MOST_PARAMETERS or number >= _MOST_PIECES:
            unread = len(value) - one.start()
            break
        said = unquoted(one[2] or b"")
        piece = _PIECE.fullmatch(one[1].lower())
        if piece is None or piece[2] is None:
            whole.append((one[1].lower(), said))
            continue
        if piece[1] not in pieces:
            pieces[piece[1]] = {}
            whole.append((piece[1], b""))  # keeps its place
        pieces[piece[1]].setdefault(int(piece[2]), (bool(piece[3]), said))
    joined = tuple(
        _joined(name, pieces.pop(name)) if name in pieces and not said else (name, said)
        for name, said in whole
    )
    return joined, unread


def _joined(name: bytes, pieces: dict[int, tuple[bool, bytes]]) -> tuple[bytes, bytes]:
    in_order = [pieces[number] for number in sorted(pieces)]
    if not any(extended for extended, _ in in_order):
        return name, b"".join(said for _, said in in_order)
    said = b"".join(said if extended else _percent(said) for extended, said in in_order)
    return name + b"*", said if in_order[0][0] else b"''" + said


def _percent(value: bytes) -> bytes:
    return _NOT_PLAIN.sub(lambda one: b"%%%02X" % one[0][0], value)


def parameter_octets(parameters: Sequence[tuple[bytes, bytes]], name: bytes) -> tuple[bytes, str]:
    """A parameter's value and the label of its charset (RFC 2231 section 4); empty without one."""
    found = dict(reversed(parameters))
    if (value := found.get(name + b"*")) is not None:
        return _extended(value)
    return found.get(name, b""), ""


def _extended(value: bytes) -> tuple[bytes, str]:
    found = _EXTENDED.fullmatch(value)
    text, charset = (found[2], found[1]) if found else (value, b"")
    return unquote_to_bytes(text), charset.decode("latin-1")


def parameter(parameters: Sequence[tuple[bytes, bytes]], name: bytes) -> str:
    """A parameter's value as text; encoded words are read there too, as many programs put them."""
    return _parameter_text(*parameter_octets(parameters, name))


def _parameter_text(octets: bytes, charset: str) -> str:
    return unstructured(octets) if b"=?" in octets else decoded(octets, charset)


def texts_of(parameters: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """All parameters by their names, as text."""
    plain = {name: (value, "") for name, value in reversed(parameters)}
    extended = {n[:-1]: _extended(value) for n, (value, _) in plain.items() if n.endswith(b"*")}
    return {
        name.decode("latin-1"): _parameter_text(*said)
        for name, said in {**plain, **extended}.items()
        if not name.endswith(b"*")
    }
