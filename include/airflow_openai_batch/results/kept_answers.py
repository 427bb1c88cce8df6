"""Plain answers in memory, as Arrow's columns in the order in which they came.

A million of Python's objects that are touched again much later cost more than all that is done with them: each has
left the processor's cache by then. So an answer becomes part of a column as soon as it is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute

if TYPE_CHECKING:
    from airflow_openai_batch.openai_api.answer_parts import Vector
    from airflow_openai_batch.openai_api.plain_answers import PlainAnswer

TOKENS = (
    "input_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
)
"""Columns of numbers."""
_CHUNK_ANSWERS = 500


class KeptAnswers:
    """First all are added, then they are taken, in any order."""

    def __init__(self) -> None:
        self.places: list[int] = []
        """Where the line of each stands."""
        self._waiting: list[PlainAnswer] = []
        self._chunks: list[pa.RecordBatch] = []
        self._answers: pa.RecordBatch
        self.mean_bytes = 0

    def add(self, answers: Sequence[PlainAnswer], places: Sequence[int]) -> int:
        """Returns the number of the last one: 0, 1, 2 ..."""
        self._waiting += answers
        self.places += places
        if len(self._waiting) >= _CHUNK_ANSWERS:
            self._close_chunk()
        return len(self.places) - 1

    def close(self) -> None:
        """No more are added."""
        self._close_chunk()
        if self._chunks:
            (self._answers,) = pa.Table.from_batches(self._chunks).combine_chunks().to_batches()
            self.mean_bytes = self._answers.nbytes // len(self._answers)
            self._chunks = []
            pa.default_memory_pool().release_unused()

    def take(self, numbers: Sequence[int] | npt.NDArray[np.int64]) -> pa.RecordBatch:
        """As `make_columns` makes them."""
        return self._answers.take(pa.array(numbers, pa.int64()))

    def _close_chunk(self) -> None:
        if self._waiting:
            self._chunks.append(make_columns(self._waiting))
            self._waiting = []


def make_columns(answers: Sequence[PlainAnswer]) -> pa.RecordBatch:
    """Answers of one endpoint; tokens that nothing is said of are null."""
    values = [answer.value for answer in answers]
    counts = pa.int64()
    return pa.record_batch(
        {
            "value": pa.array(values, pa.string()) if isinstance(values[0], str) else make_vectors(values),
            "send": pa.array([answer.send for answer in answers], pa.int32()),
            "model": pa.array([answer.model for answer in answers], pa.string()),
            "request_id": pa.array([answer.request_id for answer in answers], pa.string()),
            "input_tokens": pa.array([answer.input_tokens for answer in answers], counts),
            "cached_input_tokens": pa.array([answer.cached_tokens for answer in answers], counts),
            "cache_write_tokens": pa.array([answer.written_tokens for answer in answers], counts),
            "output_tokens": pa.array([answer.output_tokens for answer in answers], counts),
            "reasoning_tokens": pa.array([answer.reasoning_tokens for answer in answers], counts),
        }
    )


def make_vectors(vectors: Sequence[Vector]) -> pa.ListArray:
    """list<float32> without a Python object per number."""
    offsets = np.concatenate([[0], np.cumsum([len(vector) for vector in vectors])]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(vectors)))
