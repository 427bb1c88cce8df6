"""A join never dies after all was paid: whatever one cell or one answer holds, every row stands in the table."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from airflow_openai_batch.tables.join.typed_answers import read_answers
from fixtures.prepared_job import PreparedJob, result

DAY = pa.struct([("at", pa.date32())])
ODD = {
    "born": pa.array([-719529, 20000, 2**31 - 1], pa.date32()),
    "until": pa.array([253402300799000000, 0, None], pa.timestamp("us", tz="Europe/Berlin")),
    "far": pa.array([2**62, 0, -(2**62)], pa.timestamp("us")),
    "zone": pa.array([0, 1, None], pa.timestamp("us", tz="Mars/Base")),
    "took": pa.array([2**62, 1, None], pa.duration("ms")),
    "nanos": pa.array([[2**40 + 1], [], None], pa.list_(pa.timestamp("ns"))),
    "in": pa.array([{"at": -719529}, {"at": 0}, None], DAY),
    "map": pa.array([[("a", -719529)], [], None], pa.map_(pa.string(), pa.date32())),
    "bytes": pa.array([b"\xff", b"a", None], pa.binary()),
    "nan": pa.array([float("nan"), float("inf"), None]),
    "small": pa.array([float("nan"), 0.1, None], pa.float32()),
    "price": pa.array([Decimal("1.10"), None, None], pa.decimal128(30, 2)),
    "large": pa.array([2**64 - 1, 1, None], pa.uint64()),
    "kind": pa.array(["x", "y", None]).dictionary_encode(),
    "broken": pa.Array.from_buffers(
        pa.string(), 3, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0\2\0\0\0\2\0\0\0"), pa.py_buffer(b"\xffa")]
    ),
}


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv", "out.xlsx", "out.parquet"])
def test_every_format_holds_every_value(tmp_path: Path, name: str) -> None:
    job = PreparedJob(tmp_path, pa.table(ODD)).write()
    assert job.join(name).rows == 3


def test_values_have_one_form(tmp_path: Path) -> None:
    job = PreparedJob(tmp_path, pa.table(ODD)).write()
    job.join("out.jsonl")
    first, second, _ = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert (first["born"], second["born"]) == ("-0001-12-31", "2024-10-04")
    assert first["until"] == "9999-12-31 23:59:59+00:00"
    assert first["in"] == {"at": "-0001-12-31"}
    assert first["map"] == [["a", "-0001-12-31"]]
    assert (first["took"], second["took"]) == (2**62 / 1000, 0.001)
    assert (first["bytes"], first["nan"], first["small"], second["small"]) == ("/w==", None, None, 0.1)
    assert (first["price"], first["large"], first["broken"]) == ("1.10", 2**64 - 1, "\ufffda")


def test_the_rows_of_iter_answers_are_there_too(tmp_path: Path) -> None:
    job = PreparedJob(tmp_path, pa.table(ODD)).write()
    answers = list(read_answers(job.job, job.prepared))
    assert [answer.value for answer in answers] == ["answer 0", "answer 1", "answer 2"]
    assert answers[1].row is not None
    assert answers[1].row["born"] == dt.date(2024, 10, 4)


def nest(depth: int) -> str:
    return '{"a":' * depth + "1" + "}" * depth


@pytest.mark.parametrize(
    "text",
    [
        nest(1_000),
        '{"count": 1%s, "score": 1%s, "any": [1%s]}' % (("0" * 400,) * 3),
        '{"score": NaN}',
        '{"any": "half \\ud83d"}',
        '{"any": {"a": {"b": [1, {"c": null}]}}, "count": 1.5}',
        "[1, 2]",
        "no JSON",
    ],
    ids=["deep", "huge numbers", "NaN", "surrogate", "nested", "no object", "no JSON"],
)
def test_an_odd_answer_is_a_cell(tmp_path: Path, text: str) -> None:
    """As an earlier release may have landed it."""
    schema = {
        "properties": {
            "count": {"type": "integer"},
            "score": {"type": "number"},
            "any": {"type": ["object", "array"]},
        }
    }
    results = [result(0, content=text, parsed=text), result(1, content="{}", parsed='{"count": 2}')]
    job = PreparedJob(tmp_path, {"text": ["a", "b"]}, results=results, answer_schema=schema).write()
    rows = job.joined()
    assert [row["count"] for row in rows] == [None, 2]
    assert rows[0]["answer"] == text


@pytest.mark.parametrize(
    ("properties", "kind"),
    [
        ({"a": {"anyOf": [{"$ref": "#/properties/a"}, {"type": "integer"}]}}, pa.int64()),
        ({"a": {"type": "array", "items": {"$ref": "#/properties/a"}}}, pa.string()),
        ({"a": {"$ref": "#/properties/a"}}, pa.string()),
        (
            {
                "a": {"anyOf": [{"$ref": "#/properties/d0"}]},
                **{f"d{n}": {"anyOf": [{"$ref": f"#/properties/d{n + 1}"}] * 2} for n in range(40)},
                "d40": {"type": "boolean"},
            },
            pa.bool_(),
        ),
    ],
    ids=["anyOf of itself", "list of itself", "itself", "doubling"],
)
def test_schemas_that_lead_back_to_themselves_have_columns(
    tmp_path: Path, properties: dict[str, Any], kind: pa.DataType
) -> None:
    job = PreparedJob(tmp_path, {"text": ["a"]}, answer_schema={"properties": properties}).write()
    job.join()
    assert job.read().schema.field("a").type == kind
