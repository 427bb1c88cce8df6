"""What a person may type into the trigger form."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from airflow.sdk import Param
from jsonschema.validators import Draft7Validator, validator_for

from airflow_openai_batch.dag_params import make_form, make_params
from fixtures.job import Job, chat_line

if TYPE_CHECKING:
    from fixtures.airflow_runs import RunDag


@pytest.mark.usefixtures("openai_conn")
def test_several_inputs_are_given_one_per_line(run_dag: RunDag, tmp_path: Path) -> None:
    job = Job(tmp_path)
    paths = [tmp_path / "b.jsonl", tmp_path / "a.jsonl"]
    for path in paths:
        path.write_text(chat_line(path.stem) + "\n")
    typed = f" {paths[0]}\n\n{paths[1]}\n"
    assert run_dag("openai_batch", job.conf(input_uri=typed)).state == "success"
    assert [row["custom_id"] for row in job.rows()] == ["b", "a"]


def test_every_field_is_held_against_a_draft_that_is_quick_to_check() -> None:
    own = {"own": Param("", type="string", title="Own", description="Of the DAG.")}
    for name, param in {**make_params(), **make_form(own)}.items():
        assert validator_for(param.schema) is Draft7Validator, name
        Draft7Validator.check_schema(param.schema)


def test_each_field_is_described_and_says_its_name() -> None:
    for name, param in make_params().items():
        assert param.schema["title"]
        assert len(param.description or "") > len(name) + 15
        assert f"({name})" in (param.description or "")
