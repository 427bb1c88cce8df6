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
_COMMON_TEXT = """
a about after again all also always am an and any anything are as at be because been before behind being below both
but by can cannot could did do does doesn don done down each either else enough even ever every everything few for
from get gets getting give go goes got had has have having he her here him his how i if in into is isn it its just
keep less like many may me might more most much must my never no nor not nothing now of off often on once one only
or other our out over own put rid same say see she should since so some something still such take than that the
their them then there these they thing this those through to too under until up us use very was way we well were
what when where which while who why will with without would yes yet you your
"""
_COMMON = frozenset(_COMMON_TEXT.split())
"""Words that say nothing of what a text is about; they count a little all the same."""


def embed(text: str, dimensions: int) -> NDArray[np.float32]:
    """A unit vector, the same for the same text: the sum of one random vector per word."""
    import numpy as np

    total = np.zeros(dimensions, dtype=np.float32)
    for word in _WORD.findall(text.lower())[:_MOST_WORDS] or [text]:
        vector = _word_vector(word, dimensions)
        total += vector * np.float32(0.1) if word in _COMMON else vector
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
