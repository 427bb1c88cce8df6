"""What answers say, through the front door: the right row, asked as often as it helps, billed as it was answered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

from airflow_openai_batch.storage.location import resolve_plain
from airflow_openai_batch.tables.join.typed_answers import read_answers
from fixtures.job import Job, chat_line
from fixtures.shard_on_disk import chat_body

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag

pytestmark = pytest.mark.usefixtures("openai_conn")

JSON_OBJECT = {"response_format": {"type": "json_object"}}
CALL = {"id": "apc_1", "type": "apply_patch_call", "call_id": "call_1", "operation": {"type": "delete_file"}}


def line(custom_id: str, endpoint: str, **body: Any) -> str:
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": f"/v1/{endpoint}", "body": body})


def respond(*output: Any) -> dict[str, Any]:
    return {
        "model": "gpt-6-luna",
        "status": "completed",
        "output": list(output),
        "usage": {"input_tokens": 9},
    }


def said(text: str, phase: str) -> dict[str, Any]:
    return {"type": "message", "phase": phase, "content": [{"type": "output_text", "text": text}]}


ANSWERS: dict[str, dict[str, Any]] = {
    "phases": respond(said("I weigh it.", "commentary"), said('{"mood": "good"}', "final_answer")),
    "patch": respond(said("I look first.", "commentary"), CALL),
    "nan": chat_body('{"score": NaN}'),
    "tab": chat_body('{"why": "one\ttwo \\ud83d"}'),
    "error": {"error": {"message": "Upstream overloaded, try later", "code": 502}},
    "silent": chat_body(None),
}


def test_answers_of_every_kind_end_in_the_right_row(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    openai_server.answer = lambda body: ANSWERS[str(body["user"])]
    schema = {"type": "json_schema", "name": "x", "schema": {"type": "object", "required": ["mood"]}}
    form = {"text": {"format": schema}, "model": "gpt-6-luna", "input": "Which mood?"}
    job = Job(tmp_path).write(
        [
            *(line(name, "responses", user=name, **form) for name in ("phases", "patch")),
            *(chat_line(name, "JSON, please.", user=name, **JSON_OBJECT) for name in ("nan", "tab")),
            *(chat_line(name, user=name) for name in ("error", "silent")),
        ]
    )
    assert run_dag("openai_batch", job.conf(max_attempts=2)).state == "failed"
    rows = {row["custom_id"]: row for row in job.rows()}
    assert {name: (row["status"], row["attempts"]) for name, row in rows.items()} == {
        "phases": ("ok", 1),
        "patch": ("ok", 1),
        "nan": ("invalid_output", 2),
        "tab": ("ok", 1),
        "error": ("failed", 2),
        "silent": ("invalid_output", 2),
    }
    assert rows["phases"]["content"] == rows["phases"]["parsed"] == '{"mood": "good"}'
    assert json.loads(rows["patch"]["parsed"]) == [CALL]
    assert json.loads(rows["tab"]["parsed"]) == {"why": "one\ttwo \ufffd"}
    assert rows["error"]["error_message"] == "Upstream overloaded, try later"
    assert (rows["silent"]["input_tokens"], rows["silent"]["output_tokens"]) == (100, 20)
    assert rows["silent"]["cost_usd"] > 0
    values = {found.custom_id: found.value for found in read_answers(resolve_plain(str(job.output)), None)}
    assert values["tab"] == {"why": "one\ttwo \ufffd"}
    assert values["nan"] is None


@pytest.mark.long
def test_all_choices_stand_in_the_row_and_count_in_the_budget(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    job = Job(tmp_path).write(
        [
            line(
                "prompts", "completions", model="gpt-3.5-turbo-instruct", prompt=["a", "b"], max_tokens=1_000
            ),
            chat_line("votes", n=3, max_tokens=1_000),
        ]
    )
    # Both alone would be within it: 1,000 tokens of $2.00, and 1,000 of $0.60, a million, in a batch.
    assert run_dag("openai_batch", job.conf(max_cost_usd=0.0015)).state == "failed"
    assert openai_server.books.billed["batch"] == 0
    assert run_dag("openai_batch", job.conf(max_cost_usd=0.004)).state == "success"
    prompts, votes = (row["choices"] for row in job.rows())
    assert (len(prompts), len(votes)) == (2, 3)
    drop_column(job, "choices")  # as an earlier release has landed it
    found = list(read_answers(resolve_plain(str(job.output)), None))
    assert [(each.value, each.choices) for each in found] == [(prompts[0], None), (votes[0], None)]


def drop_column(job: Job, name: str) -> None:
    for part in (job.output / "results").glob("part-*.parquet"):
        pq.write_table(pq.read_table(part).drop_columns([name]), part)


@pytest.mark.long
def test_real_time_costs_what_the_tier_costs_that_answered(run_dag: RunDag, tmp_path: Path) -> None:
    tiers = ("default", "flex", "priority")
    job = Job(tmp_path).write(chat_line(tier, model="gpt-5-mini", service_tier=tier) for tier in tiers)
    assert run_dag("openai_batch", job.conf(mode="realtime")).state == "success"
    cost = {row["custom_id"]: row["cost_usd"] for row in job.rows()}
    assert cost["flex"] == pytest.approx(cost["default"] / 2)
    assert cost["priority"] == pytest.approx(cost["default"] * 1.8)
