"""Embeddings: texts that share words get vectors that point the same way, common words counting less."""

from __future__ import annotations

import base64
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from zlib import crc32

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DEFAULT_DIMENSIONS = {
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "text-embedding-ada-002": 1536,
}

_WORD = re.compile(r"\w+")
_MOST_WORDS = 512
_COMMON = frozenset(
    {
        "a",
        "an",
        "the",
        "is",
        "was",
        "are",
        "be",
        "to",
        "of",
        "in",
        "on",
        "at",
        "and",
        "or",
        "it",
        "by",
        "for",
        "as",
    }
)


def embed(text: str, dimensions: int) -> NDArray[np.float32]:
    """A unit vector, the same for the same text: the sum of one random vector per word."""
    import numpy as np

    total = np.zeros(dimensions, dtype=np.float32)
    for word in _WORD.findall(text.lower())[:_MOST_WORDS] or [text]:
        vector = _word_vector(word, dimensions)
        total += vector * np.float32(0.2) if word in _COMMON else vector
    norm = float(np.linalg.norm(total))
    return total / norm if norm else _word_vector(text, dimensions)


def encode_vector(vector: NDArray[np.float32], encoding_format: str) -> Any:
    """As a list of floats or, with ``base64``, as little-endian float32."""
    if encoding_format == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return vector.astype("float64").round(8).tolist()


@lru_cache(maxsize=4096)
def _word_vector(word: str, dimensions: int) -> NDArray[np.float32]:
    import numpy as np

    vector = np.random.default_rng(crc32(word.encode("utf-8", "replace"))).standard_normal(
        dimensions, dtype=np.float32
    )
    return vector / np.float32(np.linalg.norm(vector))
