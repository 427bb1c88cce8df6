"""Text that a spreadsheet would run when it opens a CSV, and how it is kept from that.

An apostrophe goes before each sign that a formula may begin with: at the start of a cell, and inside of it after
what ends a cell or a row where the program takes another separator than the comma. There, a quoted cell is cut at
its semicolons, tabs and line breaks. Source: OWASP, "CSV Injection".
"""

from __future__ import annotations

import re

_SIGNS = "=+\\-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b"
"""Also as they are written in Japanese (full width) and Chinese (small)."""
_BREAKS = ";\t\n\r\v\f\x85\u2028\u2029"
_SKIPPED = ' \0-\x08\x0e-\x1f\xa0\u1680\u2000-\u200f\u202f\u205f\u2060\u3000\ufeff,"'
"""What programs drop before they look for a formula. None of it is a break, so each character is looked at once."""
_START = re.compile(f"(^|[{_BREAKS}])([{_SKIPPED}]*)(?=[{_SIGNS}])")
_NUMBER = re.compile(f"[+-]?(\\d+([.,]\\d+)*[.,]?|[.,]\\d+)([eE][+-]?\\d+)?[ %]*(?=[{_BREAKS}]|$)")
_RULE = re.compile(f"[-=+ ]+(?=[{_BREAKS}]|$)")
_ITEM = re.compile("[-+] [^(|!\n\r]*(?=[\n\r]|$)")
_DROPPED = ("\t", "\r")


def guard_formulas(text: str) -> str:
    """The text with an apostrophe before what would run. Left as they are: numbers, lines of nothing but signs, and
    items of a list inside of a text that hold none of ``( | !``, without which no formula calls anything."""
    guarded = _START.sub(_guard, text)
    if guarded.startswith(_DROPPED):
        return f"'{guarded}"
    return guarded


def may_run(text: str) -> bool:
    """Whether a spreadsheet may take the text for a formula when somebody edits it."""
    return _START.match(text) is not None


def _guard(start: re.Match[str]) -> str:
    text, at = start.string, start.end()
    is_list = start[1] in ("\n", "\r") and _ITEM.match(text, at)
    if is_list or _NUMBER.match(text, at) or _RULE.match(text, at):
        return start[0]
    return f"{start[0]}'"
