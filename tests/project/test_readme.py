"""What the README shows works as it stands."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("block", blocks("python"))
def test_python_makes_a_dag_that_airflow_can_store(block: str) -> None:
    from airflow.sdk import DAG
    from airflow.serialization.serialized_objects import DagSerialization

    namespace: dict[str, object] = {}
    exec(compile(block, "README.md", "exec"), namespace)  # noqa: S102 - our own README
    source = re.search(r'DAG\("(\w+)"', block)
    assert source is not None
    dag = next(value.dag for value in namespace.values() if isinstance(getattr(value, "dag", None), DAG))
    assert dag.dag_id == source[1]
    assert set(DagSerialization.to_dict(dag)) >= {"dag"}


def test_the_request_it_shows_is_one() -> None:
    from airflow_openai_batch.core.requests import read_request

    (line,) = blocks("json")
    assert json.loads(line)["custom_id"] == "review/1"
    assert read_request(line.strip().encode()).custom_id == "review/1"


def test_it_names_every_column_of_the_results() -> None:
    from airflow_openai_batch.core.results import SCHEMA

    missing = [name for name in SCHEMA.names if f"`{name}`" not in README]
    assert missing == []
