"""What public functions are given: a value of another type is refused in one sentence.

Only types are looked at here; whether a value of the right type makes sense is for the function
itself to say.
"""

from __future__ import annotations

from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

_NAMES: dict[type, str] = {
    bool: "True or False",
    float: "a number",
    int: "a whole number",
    str: "a text",
    NoneType: "None",
}
_LONGEST = 60
"""Characters of a wrong value that a sentence repeats."""


def expect(where: str, value: object, *kinds: type, wanted: str = "") -> None:
    """Check that `value` is of one of these types; True and False are no numbers.

    `where` names the argument or the function, `wanted` says what it takes. Raises `TypeError`,
    one sentence.
    """
    if isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool)):
        return
    takes = wanted or _either([_NAMES.get(kind, kind.__name__) for kind in kinds])
    raise TypeError(f"{where} takes {takes}, not {shown(value)}.")


def expect_fields(made: Any) -> None:
    """Check the fields of a dataclass against its annotations: plain types, choices and unions.

    Raises `TypeError` for another type, `ValueError` for a choice that there isn't, each one
    sentence.
    """
    for name, annotation in get_type_hints(type(made)).items():
        value = getattr(made, name)
        where = f"{type(made).__name__}({name}=…)"
        union = get_origin(annotation) is UnionType or NoneType in get_args(annotation)
        options = get_args(annotation) if union else (annotation,)
        listed = [get_args(one) for one in options if get_origin(one) is Literal]
        choices = [choice for some in listed for choice in some]
        kinds = [one for one in options if isinstance(one, type)]
        if choices and value not in choices and not (value is None and NoneType in kinds):
            raise ValueError(f"{where} takes {_either(choices)}, not {shown(value)}.")
        if not choices:
            expect(where, value, *kinds)


def shown(value: object) -> str:
    """A wrong value as a sentence repeats it: short plain ones as they are, else its type."""
    text = repr(value)
    if value is None or (isinstance(value, (str, bytes, int, float)) and len(text) <= _LONGEST):
        return text
    return f"a value of type {type(value).__name__}" if not isinstance(value, type) else "a class"


def _either(words: list[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last
