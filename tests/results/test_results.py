"""A part file reads back what was written, in row groups of bounded size."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
import pytest

from airflow_openai_batch.results.result_rows import ResultRow, ResultsWriter
from fixtures.shard_on_disk import EMBEDDINGS, ShardOnDisk, answer, request

if TYPE_CHECKING:
    from airflow_openai_batch.openai_api.answer_parts import Vector

DESIGN_COLUMNS = [
    "position",
    "source_uri",
    "line_number",
    "custom_id",
    "status",
    "status_code",
    "error_code",
    "error_message",
    "content",
    "refusal",
    "parsed",
    "choices",
    "embeddings",
    "media",
    "finish_reason",
    "model",
    "input_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cost_usd",
    "attempts",
    "sent_as",
    "batch_id",
    "openai_request_id",
    "completed_at",
    "response_body",
]


def row(position: int, *, content: str | None = None, embeddings: list[Vector] | None = None) -> ResultRow:
    empty = dict.fromkeys(ResultRow._fields)
    known = {
        "position": position,
        "source_uri": "in.jsonl",
        "line_number": 1,
        "custom_id": "a",
        "status": "ok",
    }
    return ResultRow(**{**empty, **known, "attempts": 1, "content": content, "embeddings": embeddings})


def write(path: Path, rows: list[ResultRow], row_group_bytes: int = 10_000) -> pq.ParquetFile:
    with path.open("wb") as file, ResultsWriter(file, row_group_bytes=row_group_bytes) as writer:
        for item in rows:
            writer.write(item)
    return pq.ParquetFile(path)


def test_columns_are_those_of_the_design(tmp_path: Path) -> None:
    part = write(tmp_path / "part.parquet", [])
    assert part.schema_arrow.names == DESIGN_COLUMNS
    assert part.metadata.num_rows == 0


def test_row_groups_are_cut_by_bytes(tmp_path: Path) -> None:
    long = write(tmp_path / "long.parquet", [row(i, content="x" * 5_000) for i in range(10)])
    short = write(tmp_path / "short.parquet", [row(i, content="x") for i in range(40)])
    assert [long.metadata.row_group(i).num_rows for i in range(long.num_row_groups)] == [2] * 5
    assert short.num_row_groups == 1


def test_vectors_of_any_shape_beside_rows_without_any(tmp_path: Path) -> None:
    shapes = [None, [[1.0, 2.0]], [[0.5], [0.25, -1.0, 3.0]], None, [[]], [[9.0]]]
    rows = [
        row(i, embeddings=None if shape is None else [np.array(vector, np.float32) for vector in shape])
        for i, shape in enumerate(shapes)
    ]
    found = write(tmp_path / "part.parquet", rows).read(["embeddings"]).column(0).to_pylist()
    assert found == shapes


def test_embeddings_land_as_float32_in_the_order_of_their_inputs(tmp_path: Path) -> None:
    shard = ShardOnDisk(
        tmp_path, endpoint=EMBEDDINGS, model="text-embedding-3-small", requests=[request("a")]
    )
    body = {
        "model": "text-embedding-3-small",
        "data": [{"index": 1, "embedding": [3, 4.5]}, {"index": 0, "embedding": [0.1, -2e-3]}],
        "usage": {"prompt_tokens": 1_000_000, "total_tokens": 1_000_000},
    }
    shard.add_send([answer("a", body)])
    landed = shard.land()
    found = shard.rows()[0]
    assert found["embeddings"] == [[float(np.float32(0.1)), float(np.float32(-2e-3))], [3.0, 4.5]]
    assert found["cost_usd"] == pytest.approx(0.01)  # half of 0.02 for a million tokens
    assert landed.spending.standard_cost_usd == pytest.approx(0.02)
