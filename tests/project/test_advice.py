"""No advice is a dead end: what a message names as a parameter stands in the form of each DAG that may show it."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_openai_batch.dag_params import make_params
from airflow_openai_batch.operators.join import OpenAIBatchJoinOperator
from airflow_openai_batch.operators.prepare import OpenAIBatchPrepareOperator
from airflow_openai_batch.operators.report import OpenAIBatchReportOperator
from airflow_openai_batch.operators.shard import OpenAIBatchShardOperator
from airflow_openai_batch.operators.split import OpenAIBatchSplitOperator
from fixtures.documents import ROOT

PACKAGE = ROOT / "include" / "airflow_openai_batch"
OPERATORS = (
    OpenAIBatchPrepareOperator,
    OpenAIBatchSplitOperator,
    OpenAIBatchShardOperator,
    OpenAIBatchReportOperator,
    OpenAIBatchJoinOperator,
)
FORM_NAMES = {"send_mode": "mode", "plan_only": "dry_run"}
NAMES = {FORM_NAMES.get(name, name) for kind in OPERATORS for name in kind.template_fields} | {*make_params()}
ADVICE = re.compile(
    rf"\b({'|'.join(sorted(NAMES))})=|(?:set|raise|lower|leave|without|with) ({'|'.join(sorted(NAMES))})\b"
)
"""``repair=true``, and ``raise max_cost_usd``."""

OF_TABLES = ("tables", "operators/prepare.py", "operators/join.py", "operators/task/prompt_files.py")
"""Shown by what prepares and joins alone; the rest of the package speaks through split, shards and report."""
OF_OTHERS = ("recipes", "cli", "testing", "plugin", "decorators", "alerts", "triggers", "warm.py")
OF_AUTHORS = {
    "on_unfinished",  # the DAGs say `keep`
    "on_bad_row",  # they say nothing, which is `reject`
    "long_text",  # of a workbook: the one that a join writes says `cut`
    *("encoding", "delimiter", "sheet", "format", "images_root", "dedupe", "preview", "source", "sql"),
    *("count_images", "count_tokens", "job", "prepared", "shard", "asset_uri"),
    "max_rejected_fraction",  # where it is not in the form, it is 1 in the DAG, so that nothing is said of it
    "input_uri",
}
"""Of the arguments that are a matter of whoever writes a DAG: a form that does not have them says what they are."""
SENDING = sorted(path.stem for path in ROOT.glob("dags/*.py") if "OpenAIBatch" in path.read_text())


def read_texts(path: Path) -> Iterator[str]:
    """What a file may say: its texts, f-strings with their values left out, but no docstrings."""
    tree = ast.parse(path.read_text())
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.value


def find_advice(*places: Path) -> dict[str, Path]:
    """Names of parameters that messages advise, and a file that does."""
    found: dict[str, Path] = {}
    for path in places:
        for text in read_texts(path):
            for names in ADVICE.findall(text):
                found.setdefault(next(filter(None, names)), path)
    return found


def list_files(*parts: str) -> list[Path]:
    places = [PACKAGE / part for part in parts]
    return [file for place in places for file in (place.rglob("*.py") if place.is_dir() else [place])]


@functools.cache
def load_dag(name: str) -> Any:
    from fixtures.airflow_versions import DagBag

    return DagBag(str(ROOT / "dags" / f"{name}.py")).dags[name]


def list_sources(name: str) -> list[Path]:
    """The files whose messages a DAG may show."""
    code = (ROOT / "dags" / f"{name}.py").read_text()
    tables, others = list_files(*OF_TABLES), set(list_files(*OF_OTHERS))
    shared = [path for path in PACKAGE.rglob("*.py") if path not in others and path not in tables]
    return [*shared, *(tables if "OpenAIBatchPrepareOperator" in code else ()), *list_recipe(name)]


def list_recipe(name: str) -> list[Path]:
    """The files of the recipes that a DAG is made of."""
    recipes = find_recipes(ROOT / "dags" / f"{name}.py")
    files = list_files(*(f"recipes/{each}" for each in recipes if (PACKAGE / "recipes" / each).is_dir()))
    shared = find_recipes(*files)
    return [*files, *(file for each in shared if (file := PACKAGE / "recipes" / f"{each}.py").exists())]


def find_recipes(*files: Path) -> set[str]:
    """Folders and files of recipes that they import from."""
    code = "".join(file.read_text() for file in files)
    return set(re.findall(r"airflow_openai_batch\.recipes\.(\w+)", code))


@pytest.mark.parametrize("name", SENDING)
def test_what_a_message_advises_stands_in_the_form(name: str) -> None:
    advised = find_advice(*list_sources(name))
    assert {
        "repair",
        "on_existing",
        "max_failed_fraction",
        "sample_requests",
        "max_cost_usd",
    } <= advised.keys()
    missing = {
        each: str(path.relative_to(PACKAGE))
        for each, path in advised.items()
        if each not in load_dag(name).params and each not in OF_AUTHORS
    }
    assert missing == {}


@pytest.mark.parametrize("name", SENDING)
def test_what_the_form_says_reaches_the_operators(name: str) -> None:
    """Each parameter of the shared form stands in a template, or is read by a task of the DAG's own or its recipe."""
    dag = load_dag(name)
    code = " ".join(path.read_text() for path in (ROOT / "dags" / f"{name}.py", *list_recipe(name)))
    given = " ".join(
        str(value)
        for task in dag.tasks
        for value in (getattr(task, "partial_kwargs", None) or vars(task)).values()
    )
    for param in dag.params:
        by_slot = re.sub(r"^model_\d+", "{slot}", param)  # of models by number, read in a loop
        assert f"params.{param}" in given or f'"{param}"]' in code or f'"{by_slot}"]' in code, (
            f"{param} is in the form of {name}, for nothing"
        )
