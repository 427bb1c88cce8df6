"""Source rows with their answers beside them: every row once, in order, beside its own answer."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_openai_batch.errors import AccountingError, ConfigError, JobError
from airflow_openai_batch.job.plan import Plan
from airflow_openai_batch.job.plan_layout import encode_plan
from airflow_openai_batch.tables.join.answer_reader import AnswerReader
from airflow_openai_batch.tables.join.typed_answers import read_answers
from fixtures.prepared_job import PreparedJob, result, vector


def test_the_answers_stand_beside_the_source_rows_in_the_source_order(tmp_path):
    texts = [f"review {number}" for number in range(11)]
    rows = PreparedJob(tmp_path, {"text": texts, "stars": list(range(11))}).write().joined()
    assert [row["text"] for row in rows] == texts
    assert [row["stars"] for row in rows] == list(range(11))
    assert [row["answer"] for row in rows] == [f"answer {number}" for number in range(11)]
    assert {row["answer_status"] for row in rows} == {"ok"}
    assert list(rows[0]) == [
        *("text", "stars"),
        *("answer", "answer_status", "answer_error", "answer_model", "answer_cost_usd"),
    ]


def test_types_of_the_source_stay_as_they_are(tmp_path):
    source = pa.table(
        {
            "id": pa.array([1, None], pa.int32()),
            "at": pa.array([0, 1], pa.timestamp("ns", tz="UTC")),
            "tags": pa.array([["a"], []], pa.list_(pa.string())),
        }
    )
    job = PreparedJob(tmp_path, source).write()
    job.join()
    assert job.read().select(source.column_names).equals(source)


def test_rows_that_were_rejected_before_sending_keep_their_place_and_reason(tmp_path):
    job = PreparedJob(tmp_path, {"text": ["a", "", "c"]}, positions=[0, None, 1]).write()
    joined = job.join()
    rows = job.read().to_pylist()
    assert [row["answer"] for row in rows] == ["answer 0", None, "answer 1"]
    assert (rows[1]["answer_status"], rows[1]["answer_error"]) == ("rejected", "no text")
    assert rows[1]["answer_cost_usd"] is None
    assert joined.statuses == {"ok": 2, "rejected": 1}


def test_requests_that_the_split_rejected_say_why(tmp_path):
    job = PreparedJob(tmp_path, {"text": ["a", "b", "c"]}, rejected={1: "line has 300 MB"})
    rows = job.write().joined()
    assert [row["answer_status"] for row in rows] == ["ok", "rejected", "ok"]
    assert rows[1]["answer_error"] == "too_long: line has 300 MB"


def test_a_failed_request_has_its_error_and_no_answer(tmp_path):
    failed = result(1, status="failed", error_code="refusal", error_message="I cannot.")
    rows = PreparedJob(tmp_path, {"text": ["a", "b"]}, results=[result(0), failed]).write().joined()
    assert rows[1]["answer"] is None
    assert (rows[1]["answer_status"], rows[1]["answer_error"]) == ("failed", "refusal: I cannot.")
    assert rows[0]["answer_error"] is None


def test_duplicates_get_the_answer_of_the_first_and_its_cost_is_counted_once(tmp_path):
    positions = [0, 1, 0, 2, 3, 4, 5, 0, 1, 6, 6]
    job = PreparedJob(tmp_path, {"text": [f"t{at}" for at in positions]}, positions=positions).write()
    joined = job.join()
    rows = job.read().to_pylist()
    assert [row["answer"] for row in rows] == [f"answer {at}" for at in positions]
    costs = [row["answer_cost_usd"] for row in rows]
    assert [cost is not None for cost in costs] == [
        at not in positions[:number] for number, at in enumerate(positions)
    ]
    assert joined.cost_usd == pytest.approx(0.007)


def test_structured_answers_become_typed_columns(tmp_path):
    schema = {
        "type": "object",
        "properties": {
            "tags": {"type": "array", "items": {"type": "string"}},
            "summary": {"type": ["string", "null"]},
            "score": {"type": "number"},
            "count": {"type": "integer"},
            "good": {"type": "boolean"},
            "mood": {"enum": ["glad", "sad"]},
            "author": {"$ref": "#/$defs/person"},
            "maybe": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        },
        "$defs": {"person": {"type": "object"}},
    }
    answer = {
        "tags": ["new", "old"],
        "summary": None,
        "score": 1,
        "count": 3.0,
        "good": True,
        "mood": "glad",
        "author": {"name": "A"},
        "maybe": -7,
    }
    results = [
        result(0, content=json.dumps(answer), parsed=json.dumps(answer)),
        result(1, status="invalid_output", error_code="schema", error_message="no"),
    ]
    job = PreparedJob(tmp_path, {"text": ["a", "b"]}, results=results, answer_schema=schema).write()
    joined = job.join()
    table = job.read()
    types = [table.schema.field(name).type for name in schema["properties"]]
    assert types == [
        *(pa.list_(pa.string()), pa.string(), pa.float64(), pa.int64(), pa.bool_(), pa.string()),
        *(pa.string(), pa.int64()),
    ]
    first, second = table.to_pylist()
    assert {name: first[name] for name in answer} == {**answer, "author": '{"name":"A"}'}
    assert all(second[name] is None for name in answer)
    assert joined.notices == ()


def test_a_value_that_does_not_fit_its_column_is_said(tmp_path):
    schema = {"type": "object", "properties": {"count": {"type": "integer"}}}
    parsed = json.dumps({"count": 10**30})
    results = [result(0, content=parsed, parsed=parsed)]
    job = PreparedJob(tmp_path, {"text": ["a"]}, results=results, answer_schema=schema).write()
    joined = job.join()
    assert job.read().to_pylist()[0]["count"] is None
    assert "1 value of structured answers did not fit" in joined.notices[0]


def test_names_that_the_source_has_already_get_a_prefix(tmp_path):
    schema = {"type": "object", "properties": {"tags": {"type": "string"}}}
    parsed = '{"tags": "new"}'
    results = [result(0, content=parsed, parsed=parsed)]
    source = {"Tags": ["old"], "answer": ["hers"], "openai_answer": ["x"]}
    rows = PreparedJob(tmp_path, source, results=results, answer_schema=schema).write().joined()
    assert rows[0]["Tags"] == "old"
    assert rows[0]["openai_tags"] == "new"
    assert (rows[0]["answer"], rows[0]["openai_openai_answer"]) == ("hers", parsed)


def embeddings(folder):
    """Two rows in one request, then a request whose answer lacks its second vector, then a failed one."""
    results = [
        result(0, embeddings=[vector(0.1, 0.2), vector(0.3, 0.4)]),
        result(1, embeddings=[vector(0.5, 0.6)]),
        result(2, status="failed", error_code="server_error", error_message="no"),
    ]
    return PreparedJob(
        folder,
        {"text": ["a", "b", "c", "d", "e", ""]},
        positions=[0, 0, 1, 1, 2, None],
        indexes=[0, 1, 0, 1, 0, 0],
        results=results,
        endpoint="/v1/embeddings",
    ).write()


def test_embeddings_are_vectors_each_beside_its_row(tmp_path):
    job = embeddings(tmp_path)
    job.join()
    table = job.read()
    assert table.schema.field("embedding").type == pa.list_(pa.float32())
    found = [None if row is None else np.round(row, 3).tolist() for row in table["embedding"].to_pylist()]
    assert found == [[0.1, 0.2], [0.3, 0.4], [0.5, 0.6], None, None, None]
    assert table["answer_status"].to_pylist() == ["ok", "ok", "ok", "missing", "failed", "rejected"]
    assert [cost is not None for cost in table["answer_cost_usd"].to_pylist()] == [
        True,
        False,
        True,
        *[False] * 3,
    ]


def test_of_a_request_that_lacks_a_vector_the_rows_that_have_one_are_good(tmp_path):
    lacking = {
        "status": "invalid_output",
        "error_code": "missing_parts",
        "error_message": "index 1",
        "cost_usd": 0.1,
    }
    job = PreparedJob(
        tmp_path,
        {"text": ["a", "b", "c"]},
        positions=[0, 0, 0],
        indexes=[0, 1, 2],
        results=[result(0, embeddings=[vector(0.5), None, vector(0.25)], **lacking)],
        endpoint="/v1/embeddings",
    ).write()
    job.join()
    table = job.read()
    assert table["embedding"].to_pylist() == [[0.5], None, [0.25]]
    assert table["answer_status"].to_pylist() == ["ok", "invalid_output", "ok"]
    assert table["answer_error"].to_pylist() == [None, "missing_parts: index 1", None]
    assert table["answer_cost_usd"].to_pylist() == [0.1, None, None]
    answers = list(read_answers(job.job, job.prepared))
    assert [(each.value, each.status, each.error) for each in answers] == [
        ([0.5], "ok", None),
        (None, "invalid_output", "missing_parts: index 1"),
        ([0.25], "ok", None),
    ]


@pytest.mark.parametrize("name", ["table.csv", "table.xlsx"])
def test_vectors_are_refused_where_no_cell_holds_them(tmp_path, name):
    with pytest.raises(ConfigError, match=r"cannot hold vectors \(column embedding\).*format=parquet"):
        embeddings(tmp_path).join(name)
    assert not (tmp_path / name).exists()


def test_shards_that_are_not_done_fail_the_join_or_leave_their_rows_empty(tmp_path):
    job = PreparedJob(tmp_path, {"text": list("abcdef")}, unfinished=frozenset({1})).write()
    with pytest.raises(JobError, match=r"1 of 2 shards are not done \(1\).*on_unfinished=keep"):
        job.join()
    rows = job.joined(on_unfinished="keep")
    assert [row["answer_status"] for row in rows] == ["ok"] * 4 + ["unfinished"] * 2


def test_a_source_without_rows_gives_a_table_without_rows(tmp_path):
    job = PreparedJob(tmp_path, pa.table({"text": pa.array([], pa.string())})).write()
    assert job.join().rows == 0
    assert job.read().num_rows == 0


def test_a_job_of_another_preparation_is_refused(tmp_path):
    job = PreparedJob(tmp_path, {"text": list("abc")}, results=[result(0), result(1), result(2)]).write()
    plan = Plan.from_json(job.job.child("plan.json").read_bytes())
    counts = msgspec.structs.replace(plan.counts, positions=4)
    job.job.child("plan.json").write_bytes(encode_plan(msgspec.structs.replace(plan, counts=counts)))
    with pytest.raises(JobError, match="ran on 4 requests"):
        job.join()


def test_an_answer_to_another_request_never_stands_beside_a_row(tmp_path):
    results = [result(0), result(1, custom_id="row-7"), result(2)]
    job = PreparedJob(tmp_path, {"text": list("abc")}, results=results).write()
    with pytest.raises(AccountingError, match="row 1 stands beside the answer to another request"):
        job.join()
    assert not (tmp_path / "table.parquet").exists()


def test_a_result_that_is_gone_fails_the_join(tmp_path):
    job = PreparedJob(tmp_path, {"text": list("abc")}).write()
    path = tmp_path / "job" / "results" / "part-00000.parquet"
    pq.write_table(pq.read_table(path).slice(0, 2), path)
    with pytest.raises(AccountingError, match="request 2 has no result and was not rejected"):
        job.join()


def test_an_answer_that_no_row_asked_for_fails_the_join(tmp_path):
    job = PreparedJob(tmp_path, {"text": list("abc")}, positions=[0, 2, 2]).write()
    with pytest.raises(AccountingError, match="no row asks for request 1"):
        job.join()


def test_a_source_row_that_is_gone_fails_the_join(tmp_path):
    job = PreparedJob(tmp_path, {"text": list("abcdef")}).write()
    path = tmp_path / "prepared" / "rows" / "part-00000.parquet"
    pq.write_table(pq.read_table(path).slice(0, 2), path)
    with pytest.raises(AccountingError, match="row 3 stands where row 2 belongs"):
        job.join()
    assert not list(tmp_path.glob("table*"))


def test_the_last_part_that_is_gone_fails_the_join(tmp_path):
    job = PreparedJob(tmp_path, {"text": list("abcdef")}).write()
    (tmp_path / "prepared" / "rows" / "part-00001.parquet").unlink()
    with pytest.raises(AccountingError, match=r"part-00001.parquet: is not there"):
        job.join()


def test_rows_that_are_gone_from_the_last_part_fail_the_join(tmp_path):
    job = PreparedJob(tmp_path, {"text": list("abcdef")}).write()
    path = tmp_path / "prepared" / "rows" / "part-00001.parquet"
    pq.write_table(pq.read_table(path).slice(0, 1), path)
    with pytest.raises(AccountingError, match="has 4 rows, but 6 were prepared"):
        job.join()


def test_a_part_that_no_manifest_names_is_not_read(tmp_path):
    """An earlier try may have left it."""
    job = PreparedJob(tmp_path, {"text": list("abc")}).write()
    rows = tmp_path / "prepared" / "rows"
    (rows / "part-00001.parquet").write_bytes((rows / "part-00000.parquet").read_bytes())
    assert len(job.joined()) == 3


def test_the_source_is_not_overwritten(tmp_path):
    job = PreparedJob(tmp_path, {"text": ["a"]}).write()
    with pytest.raises(ConfigError, match="would be overwritten"):
        job.join("reviews.csv")


def test_without_a_preparation_the_error_says_what_to_run(tmp_path):
    job = PreparedJob(tmp_path, {"text": ["a"]}).write()
    (tmp_path / "prepared" / "manifest.json").unlink()
    with pytest.raises(ConfigError, match="OpenAIBatchPrepareOperator"):
        job.join()


def make_reader(job, **options):
    plan = Plan.from_json(job.job.child("plan.json").read_bytes())
    parts = [job.job.child(f"results/part-{shard:05d}.parquet") for shard in range(len(plan.shards))]
    return AnswerReader(plan, parts.__getitem__, ["content"], **options)


def test_answers_far_apart_are_read_again_where_the_cache_is_full_and_only_then(tmp_path):
    job = PreparedJob(tmp_path, {"text": [""] * 40}, row_group_bytes=900).write()
    positions = np.array([39, 0, 20, 0, 39])
    with make_reader(job) as reader:
        for _ in range(2):
            table = reader.take(positions)
            assert table["content"].to_pylist() == [f"answer {at}" for at in positions]
        assert reader.groups_read == 3
    with make_reader(job, cache_bytes=1) as reader:
        for _ in range(2):
            reader.take(positions)
        assert reader.groups_read == 6


def test_pieces_hold_no_more_than_their_bytes_of_answers(tmp_path):
    results = [result(at, content="x" * 10_000 if at == 3 else "y") for at in range(8)]
    job = PreparedJob(tmp_path, {"text": [""] * 8}, results=results, row_group_bytes=1).write()
    with make_reader(job, piece_bytes=20_000) as reader:
        pieces = list(reader.cut(np.array([3] * 10 + [0] * 10)))
    assert [piece.stop - piece.start for piece in pieces[:-1]]
    assert pieces[-1].stop == 20
    assert max(piece.stop - piece.start for piece in pieces[:4]) <= 2
    assert [piece.start for piece in pieces[1:]] == [piece.stop for piece in pieces[:-1]]
