"""DAGs to copy are short: whoever makes one their own reads its wiring on one page.

Wiring is the code of tasks and how they hang together: the body of ``with DAG(...)`` and the functions beside it,
without blank lines, comments and docstrings. What stands above it (the name of the prompt, words, columns, the
form, the text about the DAG) is what a user changes, and is not counted; nor is the head of ``with DAG(...)``.
"""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path

import pytest

from fixtures.documents import ROOT

DAGS = sorted(ROOT.glob("dags/*.py"))
MOST_LINES = 60
MOST_NAMES = 12
MORE_NAMES = {"openai_batch": 13}
"""It shows each step of a shard as an operator of its own."""
PACKAGE = "airflow_openai_batch"
_NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def count_wiring(code: str) -> int:
    """Lines of code of the wiring."""
    lines: set[int] = set()
    for node in ast.parse(code).body:
        if isinstance(node, ast.With):
            for inner in node.body:
                lines |= find_lines(inner)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            lines |= find_lines(node)
    return len(lines & find_code_lines(code))


def find_lines(node: ast.stmt) -> set[int]:
    first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", []))])
    lines = set(range(first, (node.end_lineno or node.lineno) + 1))
    for each in ast.walk(node):
        if isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant):  # a docstring
            lines -= set(range(each.lineno, (each.end_lineno or each.lineno) + 1))
    return lines


def find_code_lines(code: str) -> set[int]:
    tokens = tokenize.generate_tokens(io.StringIO(code).readline)
    return {
        line
        for token in tokens
        if token.type not in _NO_CODE
        for line in range(token.start[0], token.end[0] + 1)
    }


def find_names(code: str) -> set[str]:
    """What is imported from the package."""
    return {
        alias.name
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == PACKAGE
        for alias in node.names
    }


@pytest.mark.parametrize("path", DAGS, ids=lambda path: path.stem)
def test_the_wiring_of_a_dag_is_one_page(path: Path) -> None:
    assert count_wiring(path.read_text()) <= MOST_LINES


@pytest.mark.parametrize("path", DAGS, ids=lambda path: path.stem)
def test_a_dag_needs_few_names_of_the_package(path: Path) -> None:
    assert len(find_names(path.read_text())) <= MORE_NAMES.get(path.stem, MOST_NAMES)


def test_what_counts_as_wiring() -> None:
    code = '''
PARAMS = {
    "a": 1,
}

def helper():
    """Not counted."""
    return 1


with DAG(
    dag_id="x",
):
    # not counted

    @task
    def read():
        return helper()

    read() >> [
        other
    ]
'''
    assert count_wiring(code) == 2 + 3 + 3
