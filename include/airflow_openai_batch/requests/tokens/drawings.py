"""How many tokens a picture has that a model draws: by its size and quality, before it is drawn."""

from __future__ import annotations

import math
import re
from typing import Any

from airflow_openai_batch.openai_api.model_table import DrawingRow, find_drawing_row

_SIZE = re.compile(r"(\d{2,5})x(\d{2,5})")
_SQUARE_PIXELS = 1024 * 1024


def count_drawing_tokens(model: str, body: dict[str, Any]) -> int | None:
    """Output tokens of one picture, at most; None where that is not known.

    What is left to the model (``auto``, or nothing said) is taken for the most that it may choose.

    :param body: of a request for pictures: ``size`` and ``quality`` are read.
    """
    row = find_drawing_row(model)
    if row is None:
        return None
    sizes = _find_sizes(row, body.get("quality"))
    return None if sizes is None else _scale(sizes, body.get("size"))


def _find_sizes(row: DrawingRow, quality: object) -> tuple[int, int] | None:
    """Tokens of a square and of an oblong picture."""
    if quality in (None, "auto"):
        return row.high
    match quality:
        case "low":
            return row.low
        case "medium" | "standard":
            return row.medium
        case "high" | "hd":
            return row.high
    return None


def _scale(sizes: tuple[int, int], size: object) -> int:
    """Of any other size than those that are told, in proportion to the pixels of the dearer one."""
    square, oblong = sizes
    if size == "1024x1024":
        return square
    if size in ("1024x1536", "1536x1024"):
        return oblong
    found = _SIZE.fullmatch(size) if isinstance(size, str) else None
    if found is None:
        return max(sizes)
    share = int(found[1]) * int(found[2]) / _SQUARE_PIXELS
    return math.ceil(max(square * share, oblong * share / 1.5))
