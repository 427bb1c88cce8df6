"""Counting the tokens of texts: exactly with tiktoken, or as a bound where it cannot be had."""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING, Protocol

from airflow_openai_batch.core.ranks import RanksUnavailableError, load_encoding

if TYPE_CHECKING:
    from collections.abc import Sequence

    import tiktoken

    from airflow_openai_batch.core.models import EncodingName
    from airflow_openai_batch.core.plan import Certainty

_log = logging.getLogger(__name__)

_PIECE_CHARACTERS = 400_000
"""tiktoken's regular expression gives up on a run of 999,999 white-space characters."""
_SLACK_PER_CUT = 8
"""A cut inside a token costs a few more; never fewer are wanted."""


class TextCounter(Protocol):
    """Counts tokens of texts."""

    certainty: Certainty

    def count(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each text, in order."""


class TiktokenCounter:
    """OpenAI's own tokenizer."""

    certainty: Certainty = "exact"

    def __init__(self, encoding: tiktoken.Encoding) -> None:
        self._encode = encoding.encode

    def count(self, texts: Sequence[str]) -> list[int]:
        return [self._count_one(text) for text in texts]

    def _count_one(self, text: str) -> int:
        try:
            # not encode_ordinary: it panics, past `except Exception`, where this raises a ValueError
            return len(self._encode(text, disallowed_special=()))
        except ValueError:
            return self._count_pieces(text)

    def _count_pieces(self, text: str) -> int:
        starts = range(0, len(text), _PIECE_CHARACTERS)
        counts = (
            len(self._encode(text[start : start + _PIECE_CHARACTERS], disallowed_special=())) for start in starts
        )
        return sum(counts) + _SLACK_PER_CUT * (len(starts) - 1)


class ByteBound:
    """No token is shorter than a byte: the safe upper bound where nothing better can be had."""

    certainty: Certainty = "upper"

    def count(self, texts: Sequence[str]) -> list[int]:
        return [utf8_bytes(text) for text in texts]


def utf8_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


@cache
def exact_counter(encoding: EncodingName) -> TextCounter:
    """Count with tiktoken; where it or its ranks are missing, say so once and return the byte bound."""
    try:
        return TiktokenCounter(load_encoding(encoding))
    except RanksUnavailableError as error:
        _log.warning(
            "Tokens cannot be counted: %s. Every byte is taken for a token instead, which is safe but about "
            "four times too high: shards get smaller and estimates higher than they need be.",
            error,
        )
        return ByteBound()
