"""Answers with one part for each input: embeddings and moderations, placed and counted against what was sent."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import TYPE_CHECKING

import orjson

from airflow_openai_batch.openai_api import lenient_json
from airflow_openai_batch.openai_api.answer_parts import (
    MISSING_PARTS,
    ResponseContent,
    read_usage,
    string,
)
from airflow_openai_batch.openai_api.response_bodies import (
    Embedding,
    EmbeddingBody,
    ModerationBody,
    OddShapeError,
    ShapeReader,
)

if TYPE_CHECKING:
    import msgspec

    from airflow_openai_batch.openai_api.answer_parts import Vector

_NAMED = 10
"""So many indexes are named in a message."""

_embeddings = ShapeReader(EmbeddingBody).read
_moderation = ShapeReader(ModerationBody).read


def read_embeddings(body: bytes, inputs: int | None, dimensions: int | None) -> ResponseContent:
    """:param inputs: that were sent; None where that is not known.
    :param dimensions: that were asked for, if any.
    """
    root = _embeddings(body)
    if not root.data and inputs is None:
        raise OddShapeError("data is empty")
    count = len(root.data) if inputs is None else inputs
    placed: list[Embedding | None] = [None] * count
    for item, index in zip(root.data, _find_indexes(root.data, count), strict=True):
        if placed[index] is not None:
            raise OddShapeError(f"two embeddings have the index {index}")
        placed[index] = item
    vectors = [None if item is None else _read_vector(item.embedding) for item in placed]
    _check_lengths([vector for vector in vectors if vector is not None], dimensions)
    missing = [index for index, item in enumerate(placed) if item is None]
    # Without a gap among the indexes a server may as well have counted anew what it answered.
    told_apart = not missing or missing[0] < len(root.data)
    return ResponseContent(
        embeddings=vectors if told_apart else None,
        defect=MISSING_PARTS if missing else None,
        defect_message=describe_missing("vectors", count, missing) if missing else None,
        model=string(root.model),
        usage=read_usage(root.usage),
        service_tier=string(root.service_tier),
        has_text=False,
    )


def _find_indexes(items: Sequence[Embedding], count: int) -> list[int]:
    """Which input each embedding is of: by what it says, or by its place where none says anything.

    :raises OddShapeError: if that is no input, or cannot be told.
    """
    if items and all(item.index is None for item in items):
        if len(items) != count:
            raise OddShapeError(f"{len(items):,} embeddings without an index for {count:,} inputs")
        return list(range(count))
    indexes = []
    for item in items:
        if item.index is None or not 0 <= item.index < count:
            raise OddShapeError(f"an embedding has the index {item.index}, with {count:,} inputs")
        indexes.append(item.index)
    return indexes


def describe_missing(what: str, count: int, missing: Sequence[int]) -> str:
    more = f" and {len(missing) - _NAMED:,} more" if len(missing) > _NAMED else ""
    named = ", ".join(map(str, missing[:_NAMED]))
    which = f"index {named}{more}, counted from 0"
    return f"The answer lacks parts: of {count:,} inputs {len(missing):,} have no {what} ({which})."


def _check_lengths(vectors: Sequence[Vector], dimensions: int | None) -> None:
    lengths = {len(vector) for vector in vectors}
    if 0 in lengths:
        raise OddShapeError("an embedding is empty")
    if len(lengths) > 1:
        raise OddShapeError(f"the embeddings have {min(lengths):,} to {max(lengths):,} numbers")
    if dimensions is not None and lengths and lengths != {dimensions}:
        raise OddShapeError(
            f"the embeddings have {lengths.pop():,} numbers, not the {dimensions:,} dimensions asked for"
        )


def _read_vector(raw: msgspec.Raw) -> Vector:
    import numpy as np  # for nothing where a DAG is parsed

    try:
        value = orjson.loads(memoryview(raw))
        if isinstance(value, str):
            value = np.frombuffer(base64.b64decode(value, validate=True), dtype="<f4")
        with np.errstate(over="ignore"):
            vector = np.asarray(value, dtype=np.float32)
    except (orjson.JSONDecodeError, binascii.Error, TypeError, ValueError):
        raise OddShapeError("an embedding is neither numbers nor base64") from None
    if vector.ndim != 1 or not np.isfinite(vector).all():
        raise OddShapeError("an embedding is not a list of numbers")
    return vector


def read_moderation(body: bytes, inputs: int | None) -> ResponseContent:
    """:param inputs: that were sent; None where that is not known."""
    root = _moderation(body)
    if inputs is not None and len(root.results) != inputs:
        raise OddShapeError(f"{len(root.results):,} results for {inputs:,} inputs", MISSING_PARTS)
    return ResponseContent(
        structured=lenient_json.encode(root.results),
        model=string(root.model),
        usage=read_usage(root.usage),
        has_text=False,
    )
