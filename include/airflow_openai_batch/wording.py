"""How numbers, times, money and lists stand in messages: ``1,204 shards``, ``3 h 20 min``, ``$0.0041``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def number_of(number: int, noun: str, plural: str = "") -> str:
    """The number and the noun in its form; the plural is the noun with an s unless it is given."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def shorten(text: str, limit: int = 60) -> str:
    """For messages: what a person needs to recognise it."""
    return text if len(text) <= limit else f"{text[:limit]}..."


def name_some(numbers: Sequence[object]) -> str:
    """The first ten of many, and how many more there are."""
    more = f" and {len(numbers) - 10:,} more" if len(numbers) > 10 else ""
    return ", ".join(map(str, numbers[:10])) + more


def describe_duration(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3 h 20 min``: the two largest units a person needs."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def format_amount(amount: int) -> str:
    """``950``, ``90K``, ``0.4M``, ``1.35M``, ``15.0B``: as OpenAI's tables write limits."""
    if amount >= 10**9:
        return f"{_round(amount / 10**9)}B"
    if amount >= 10**5:
        return f"{_round(amount / 10**6)}M"
    return f"{amount / 1000:.0f}K" if amount >= 10**4 else f"{amount:,}"


def _round(number: float) -> str:
    text = f"{number:.2f}"
    return text[:-1] if text.endswith("0") else text


_MORE_DECIMALS = 2
"""That a small amount may ask of a large one beside it: $4.5000 beside $0.0022, but not $4.50000000."""


def format_duration(seconds: float) -> str:
    """``850 ms``, ``12 s``, ``4 min 5 s``, ``3 h 20 min``, ``2 d 4 h``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms" if seconds else "0 s"
    whole = round(seconds)
    for size, name, small_size, small_name in (
        (86_400, "d", 3_600, "h"),
        (3_600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            small = whole % size // small_size
            return f"{whole // size} {name}" + (f" {small} {small_name}" if small else "")
    return f"{whole} s"


def format_usd(amount: float | None, *, beside: Iterable[float | None] = ()) -> str:
    """``$1,234.56``; small amounts keep two significant digits.

    :param beside: amounts that are read together with it: all are given the same number of digits.
    """
    if amount is None:
        return "unknown"
    needed = [_decimals(other) for other in (amount, *beside) if other]
    decimals = min(max(needed), min(needed) + _MORE_DECIMALS) if needed else 2
    return f"${amount:,.{decimals}f}"


def _decimals(amount: float) -> int:
    """Digits after the point that show two significant ones, at least cents."""
    return max(2, 1 - math.floor(math.log10(abs(amount))))


BOUND_SIGNS = {"exact": "", "upper": "≤ ", "lower": "≥ "}
"""Before a number that is a bound, in tables."""
BOUND_WORDS = {"exact": "", "upper": "at most ", "lower": "at least "}
"""The same in sentences."""
