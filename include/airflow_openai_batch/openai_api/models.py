"""What is known of OpenAI's models: the encoding they count with and how much they can read.

Prices and newer models come and go; a model that is not known here is counted with the newest encoding
and not checked against a context window.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Literal

EncodingName = Literal["o200k_base", "cl100k_base"]

DEFAULT_MODEL = "gpt-6-luna"
"""What the demo, the example DAGs, the prompts and the docs ask: the cheapest chat model that is not about to end."""
COMPARED_MODEL = "gpt-5.4-mini"
"""What an example compares it with."""

DEFAULT_ENCODING: EncodingName = "o200k_base"
"""Of every model since gpt-4o."""

_ENCODING_BY_PREFIX: tuple[tuple[str, EncodingName], ...] = (
    ("gpt-5", "o200k_base"),
    ("gpt-4o", "o200k_base"),
    ("gpt-4.1", "o200k_base"),
    ("gpt-4.5", "o200k_base"),
    ("chatgpt-4o", "o200k_base"),
    ("gpt-oss", "o200k_base"),
    ("o1", "o200k_base"),
    ("o3", "o200k_base"),
    ("o4", "o200k_base"),
    ("codex-", "o200k_base"),
    ("computer-use", "o200k_base"),
    ("omni-moderation", "o200k_base"),
    ("gpt-4", "cl100k_base"),
    ("gpt-3.5", "cl100k_base"),
    ("gpt-35", "cl100k_base"),
    ("text-embedding-", "cl100k_base"),
    ("text-moderation", "cl100k_base"),
    ("davinci-002", "cl100k_base"),
    ("babbage-002", "cl100k_base"),
)
"""The first prefix that fits counts. Source: ``tiktoken.model``, with the models it leaves out."""

_CONTEXT_TOKENS: dict[str, int] = {
    "gpt-6-luna": 1_050_000,
    "gpt-6-sol": 1_050_000,
    "gpt-6-astra": 1_050_000,
    "gpt-6.1-sol": 1_050_000,
    "gpt-6.1-terra": 1_050_000,
    "gpt-5.4-mini": 400_000,
    "gpt-5": 400_000,
    "gpt-5-mini": 400_000,
    "gpt-5-nano": 400_000,
    "gpt-4.1": 1_047_576,
    "gpt-4.1-mini": 1_047_576,
    "gpt-4.1-nano": 1_047_576,
    "gpt-4o": 128_000,
    "gpt-4o-mini": 128_000,
    "chatgpt-4o-latest": 128_000,
    "o1": 200_000,
    "o3": 200_000,
    "o3-mini": 200_000,
    "o4-mini": 200_000,
    "gpt-4-turbo": 128_000,
    "gpt-4": 8_192,
    "gpt-3.5-turbo": 16_385,
    "gpt-3.5-turbo-instruct": 4_096,
    "text-embedding-3-small": 8_192,
    "text-embedding-3-large": 8_192,
    "text-embedding-ada-002": 8_192,
}
"""Source: OpenAI's model pages. For embeddings: of each input."""

_OUTPUT_TOKENS: dict[str, int] = {
    "gpt-6-luna": 128_000,
    "gpt-6-sol": 128_000,
    "gpt-6-astra": 128_000,
    "gpt-6.1-sol": 128_000,
    "gpt-6.1-terra": 128_000,
    "gpt-5.4-mini": 128_000,
    "gpt-5": 128_000,
    "gpt-5-mini": 128_000,
    "gpt-5-nano": 128_000,
    "gpt-4.1": 32_768,
    "gpt-4.1-mini": 32_768,
    "gpt-4.1-nano": 32_768,
    "gpt-4o": 16_384,
    "gpt-4o-mini": 16_384,
    "chatgpt-4o-latest": 16_384,
    "o1": 100_000,
    "o3": 100_000,
    "o3-mini": 100_000,
    "o4-mini": 100_000,
    "gpt-4-turbo": 4_096,
    "gpt-4": 8_192,
    "gpt-3.5-turbo": 4_096,
    "gpt-3.5-turbo-instruct": 4_096,
}
"""Source: OpenAI's model pages. Reasoning included."""

_DATED = re.compile(r"-20\d\d-\d\d-\d\d$")
_FINE_TUNED = re.compile(r"^ft:([^:]+):")


def undated_model(model: str) -> str:
    """The model without its date."""
    return _DATED.sub("", model)


def base_model(model: str) -> str:
    """The model without its date and without what fine-tuning adds to the name."""
    tuned = _FINE_TUNED.match(model)
    return undated_model(tuned[1] if tuned else model)


@cache
def encoding_of(model: str) -> tuple[EncodingName, bool]:
    """The encoding of a model, and whether that is known.

    False: tiktoken names none (0.14 none for gpt-6), and the newest one is assumed, as users found it to be.
    """
    name = base_model(model)
    for prefix, encoding in _ENCODING_BY_PREFIX:
        if name.startswith(prefix):
            return encoding, True
    return DEFAULT_ENCODING, False


@cache
def most_output_tokens(model: str) -> int | None:
    """The most tokens a model can write in one answer, or None where that is not known here."""
    return _OUTPUT_TOKENS.get(base_model(model))


@cache
def context_tokens(model: str) -> int | None:
    """The most tokens a model can read, or None where that is not known here."""
    return _CONTEXT_TOKENS.get(base_model(model))
