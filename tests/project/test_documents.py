"""Documents lead to what is there, and name what the code knows."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import get_args

import pytest

from fixtures.documents import DOCUMENTS, PAGES, README, ROOT, SHOWN, Document

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
each_shown = pytest.mark.parametrize("document", SHOWN, ids=lambda document: document.name)
OPERATIONS = next(page for page in PAGES if page.path.stem == "operations")
OURS = (
    "include/**/*.py",
    "include/**/*.yaml",
    "dags/*.py",
    "tests/**/*.py",
    "Makefile",
    "pyproject.toml",
    "*.yaml",
)


@each_document
def test_links_lead_somewhere(document: Document) -> None:
    anchors = {known.path: known.anchors for known in DOCUMENTS}
    for target in document.links:
        name, _, anchor = target.partition("#")
        path = (document.path.parent / name).resolve() if name else document.path
        assert path.exists(), target
        assert not anchor or anchor in anchors[path], target


def test_the_readme_leads_to_every_page() -> None:
    assert {f"docs/{page.path.name}" for page in PAGES} <= set(README.links)


@each_document
def test_no_document_speaks_of_a_folder_that_is_gone(document: Document) -> None:
    assert not re.findall(
        r"\bcore/|`core`|airflow_openai_batch\.(?:core|hook)\b(?!s|` is now)", document.text
    )


PLACES = (ROOT, ROOT / "include", ROOT / "include" / "airflow_openai_batch")


def find_missing(named: Iterable[str]) -> list[str]:
    return [name for name in named if not any((place / name).exists() for place in PLACES)]


@each_document
def test_files_of_ours_are_there(document: Document) -> None:
    """Below the project's folder, or the package's."""
    assert find_missing(document.quoted(r"[a-z_]+/[\w./-]*\w\.(?:py|toml)") - {"dags/<name>.py"}) == []


@pytest.mark.parametrize("path", sorted(ROOT.glob("dags/*.py")), ids=lambda path: path.name)
def test_files_that_a_dag_speaks_of_are_there(path: Path) -> None:
    """In its documentation, which says what to change."""
    assert find_missing(re.findall(r"`((?:recipes|include|dags)/[\w./-]+)`", path.read_text())) == []


def read_options() -> set[str]:
    from airflow_openai_batch.provider_info import get_provider_info

    return set(get_provider_info()["config"]["openai_batch"]["options"])


@each_document
def test_settings_are_ours(document: Document) -> None:
    named = re.findall(r"\[openai_batch\] (\w+)", document.text)
    named += [name.lower() for name in re.findall(r"AIRFLOW__OPENAI_BATCH__([A-Z_]+)", document.text)]
    assert set(named) <= read_options()


def test_the_runbook_lists_every_setting() -> None:
    _, _, settings = OPERATIONS.text.partition("## Settings")
    rows = re.findall(r"^\| (`.*?`) \|", settings, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == read_options()


@cache
def read_parameters() -> frozenset[str]:
    """Of the forms, the operators, the decorator and what else a document may show with a value."""
    import importlib

    from airflow_openai_batch.dag_params import make_params

    names = set(make_params())
    for path in (ROOT / "include" / "airflow_openai_batch" / "operators").glob("[!_]*.py"):
        module = importlib.import_module(f"airflow_openai_batch.operators.{path.stem}")
        for value in vars(module).values():
            if inspect.isclass(value) and value.__module__ == module.__name__:
                names |= set(inspect.signature(value.__init__).parameters)
    for name in ("decorators.openai_batch", "sensors.batch", "task_group", "answers", "alerts.alerts"):
        module = importlib.import_module(f"airflow_openai_batch.{name}")
        for value in vars(module).values():
            if callable(value) and getattr(value, "__module__", "") == module.__name__:
                names |= set(inspect.signature(value).parameters)
    for path in (ROOT / "dags").glob("*.py"):
        names |= set(re.findall(r'"(\w+)": Param\(', path.read_text()))
    return frozenset(names)


OTHERS = {"pool", "max_active_runs", "weight_rule", "new_name"}
"""Parameters of Airflow's that a document gives a value; what stands in the value of ``renamed_dags``."""


@each_shown
def test_parameters_with_a_value_are_ours(document: Document) -> None:
    given = {name.partition("=")[0] for name in document.quoted(r"[a-z_]+=[^=].*|[a-z_]+=")}
    assert given <= read_parameters() | OTHERS | read_options()


@cache
def read_words() -> frozenset[str]:
    """Every word of the code, and of Airflow's configuration."""
    from airflow.configuration import conf

    words = {name for section in conf.as_dict(display_sensitive=False).values() for name in section}
    for pattern in OURS:
        for path in ROOT.glob(pattern):
            words |= set(re.findall(r"\w+", path.read_text()))
    return frozenset(words)


FOREIGN = {
    "worker_prefetch_multiplier",
    "visibility_timeout",
    "celery_broker_transport_options",
    "task_acks_late",
}
FOREIGN |= {"statement_timeout", "max_execution_time", "max_statement_time"}
"""Settings of Celery, whose provider adds them where it is loaded, and of databases."""


@each_shown
def test_names_in_documents_are_names_in_the_code(document: Document) -> None:
    """A parameter, column or event that was renamed is found here."""
    assert document.quoted(r"[a-z]+(?:_[a-z0-9]+)+") - read_words() - FOREIGN == set()
    classes = document.quoted(r"(?:OpenAI|Alert)[A-Za-z]+")
    assert classes - read_words() == set()


@cache
def read_texts() -> str:
    """All texts of the code, f-strings with a hole for each value; what is written in parts is joined."""
    return "\n".join(_read_texts())


def _read_texts() -> Iterator[str]:
    for path in (ROOT / "include" / "airflow_openai_batch").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            elif isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)
                yield "".join(str(part) for part in parts)


WORDS_OF_OTHERS = {"connection refused", "incorrect_hostname"}
"""Messages of systems and of OpenAI that pass through."""
HOLES = re.compile(
    r"\.\.\.|\b[NMABXY]\b|'[^']*'|\[[^\]]*\]|\b[\d,.]*\d\b|[`:;()]|batch_|file-|leftover/|\.jsonl"
)


def list_messages() -> list[str]:
    _, _, tables = OPERATIONS.text.partition("## What you read")
    tables, _, _ = tables.partition("## The page")
    rows = re.findall(r"^\| (`.*?) \| ", tables, re.MULTILINE)
    return [message for row in rows for message in re.findall(r"`([^`]+)`", row)]


@pytest.mark.parametrize("message", [each for each in list_messages() if each not in WORDS_OF_OTHERS])
def test_a_message_of_the_runbook_is_one_of_ours(message: str) -> None:
    """A run of its words, without numbers and names, stands in a text of the code."""
    parts = [part.split() for part in HOLES.split(message)]
    longest = max(parts, key=len)
    most = min(4, len(longest))
    runs = [" ".join(part[at : at + most]) for part in parts for at in range(len(part) - most + 1)]
    assert [run for run in runs if run in read_texts()]


@each_document
def test_make_has_the_targets(document: Document) -> None:
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert targets is not None
    named = re.findall(r"(?:`|^\$ )make ([a-z][a-z-]*)", document.text, re.MULTILINE)
    assert set(named) <= set(targets[1].split())


@each_shown
def test_extras_are_there(document: Document) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    lists = re.findall(r"openai-batch\[([\w,]+)\]|extras? `\[([\w,]+)\]`", document.text)
    assert {name for pair in lists for names in pair for name in names.split(",") if name} <= set(extras)


def test_pictures_are_small() -> None:
    assert sum(path.stat().st_size for path in ROOT.glob("docs/pictures/*.png")) <= 150_000


def test_the_commands_of_the_command_line_are_there() -> None:
    (page,) = (page for page in PAGES if page.path.stem == "getting-started")
    _, _, table = page.text.partition("| command |")
    named = re.findall(r"^\| `(\w+)", table, re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-c", "from airflow_openai_batch.cli.app import run; run(['--help'])"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert named
    assert [name for name in named if name not in done.stdout] == []


def test_the_architecture_names_every_event_and_every_folder() -> None:
    from airflow_openai_batch.job.directory import FILES, FOLDERS
    from airflow_openai_batch.job.ledger import Kind

    (page,) = (page for page in PAGES if page.path.stem == "architecture")
    package = ROOT / "include" / "airflow_openai_batch"
    folders = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    wanted = {f"`{kind}`" for kind in get_args(Kind)} | folders | FILES | {f"{name}/" for name in FOLDERS}
    assert [name for name in sorted(wanted) if name not in page.text] == []
