"""Strings that match a regular expression, for the patterns that JSON schemas use.

rstr was tried in its place: it repeats up to 100 times, so that ``((a*)*)*`` gives 265,000 characters after half a
second, and it knows neither atomic groups nor the characters beyond ASCII that a negated class leaves.
"""

from __future__ import annotations

import re
import string
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random

_LETTERS = string.ascii_lowercase
_ANY = string.ascii_letters + string.digits + " _-.,:;/"
_CATEGORIES = {
    "CATEGORY_DIGIT": string.digits,
    "CATEGORY_NOT_DIGIT": _LETTERS,
    "CATEGORY_WORD": string.ascii_letters + string.digits + "_",
    "CATEGORY_NOT_WORD": " -.",
    "CATEGORY_SPACE": " ",
    "CATEGORY_NOT_SPACE": _LETTERS,
}
_MOST_REPEATS = 4
"""More than the least number of times that an open repetition is drawn."""


def match_pattern(pattern: str, draw: random.Random) -> str:
    """A string in which the pattern is found; lookarounds are not honoured.

    A pattern that Python cannot read gives the empty string: the schema is then broken anyway.
    """
    try:
        parts = _parsed(pattern)
    except re.error:
        return ""
    for _ in range(20):  # back references and anchors inside may need another draw
        made = "".join(_draw_part(op, value, draw) for op, value in parts)
        if re.search(pattern, made):
            break
    return made


@lru_cache(maxsize=256)
def _parsed(pattern: str) -> tuple[tuple[str, Any], ...]:
    # Public since 1.6 in all but name: every generator of strings for patterns stands on it.
    from re import _parser  # type: ignore[attr-defined]

    return tuple(_plain(_parser.parse(pattern)))


def _plain(parsed: Any) -> list[tuple[str, Any]]:
    return [(str(op), value) for op, value in parsed]


def _draw_part(op: str, value: Any, draw: random.Random) -> str:
    match op:
        case "LITERAL":
            return chr(value)
        case "NOT_LITERAL":
            return draw.choice([c for c in _LETTERS if ord(c) != value])
        case "ANY":
            return draw.choice(_LETTERS)
        case "IN":
            return draw.choice(_characters(value))
        case "BRANCH":
            return _draw_all(draw.choice(value[1]), draw)
        case "SUBPATTERN":
            return _draw_all(value[3], draw)
        case "ATOMIC_GROUP":
            return _draw_all(value, draw)
        case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
            least, most, inner = value
            times = draw.randint(least, min(int(most), least + _MOST_REPEATS))
            return "".join(_draw_all(inner, draw) for _ in range(times))
        case _:
            return ""  # anchors and lookarounds


def _draw_all(parsed: Any, draw: random.Random) -> str:
    return "".join(_draw_part(op, value, draw) for op, value in _plain(parsed))


def _characters(items: Any) -> str:
    found: list[str] = []
    negated = False
    for op, value in _plain(items):
        match op:
            case "NEGATE":
                negated = True
            case "LITERAL":
                found.append(chr(value))
            case "RANGE":
                found.extend(chr(c) for c in range(value[0], min(value[1], value[0] + 128) + 1))
            case "CATEGORY":
                found.extend(_CATEGORIES.get(str(value), _LETTERS))
    if negated:
        return "".join(c for c in _ANY if c not in found) or "\u00e9"
    return "".join(found) or "a"
