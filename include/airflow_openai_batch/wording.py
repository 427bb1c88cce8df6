"""Numbers of things in messages: ``1 shard``, ``1,204 shards``."""

from __future__ import annotations


def number_of(number: int, noun: str, plural: str = "") -> str:
    """The number and the noun in its form; the plural is the noun with an s unless it is given."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
