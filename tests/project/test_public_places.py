"""DAGs and documents import from the public places alone: all else may move from one release to the next."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.documents import DOCUMENTS, ROOT, Document

PUBLIC = (
    "operators",
    "sensors",
    "task_group",
    "answers",
    "dag_params",
    "alerts",
    "testing",
    "decorators",
    "warm",
)
"""``warm`` is for workers that fork, not for DAGs."""
FOR_OUR_DAGS = (*PUBLIC, "recipes")
"""What stands behind a DAG of ours belongs to it."""


def read_modules(code: str) -> Iterator[str]:
    """The modules of this package that it imports, below the package's name."""
    for node in ast.walk(ast.parse(code)):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        yield from (
            name.partition(".")[2] for name in names if name.partition(".")[0] == "airflow_openai_batch"
        )


PRIVATE = "operators.task"
"""What the operators share, which may move: `operators.own_tasks` has what a DAG's own tasks need of it."""


def find_strays(code: str, places: tuple[str, ...]) -> set[str]:
    return {
        module
        for module in read_modules(code)
        if module.partition(".")[0] not in places or f"{module}.".startswith(f"{PRIVATE}.")
    }


@pytest.mark.parametrize("path", sorted(ROOT.glob("dags/*.py")), ids=lambda path: path.name)
def test_a_dag_imports_from_public_places(path: Path) -> None:
    assert find_strays(path.read_text(), FOR_OUR_DAGS) == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_a_document_shows_imports_from_public_places(document: Document) -> None:
    for block in document.blocks("python"):
        assert find_strays(block, PUBLIC) == set()
    named = re.findall(r"airflow_openai_batch\.(\w+)", document.prose)
    known = {path.stem for path in (ROOT / "include" / "airflow_openai_batch").iterdir()} | {"hook"}
    assert set(named) <= known
