"""Who may import whom, as the design draws it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

INCLUDE = Path(__file__).resolve().parents[2] / "include"
PACKAGE = INCLUDE / "airflow_openai_batch"

LEVELS = (
    {"core"},
    {"redirects", "unreached"},
    {"remote_errors"},
    {"client", "realtime", "realtime_call"},
    {"result_files"},
    {"shard_files"},
    {"find_sent", "shard_journal"},
    {"declined_calls", "shard_landing"},
    {"shard_actions"},
    {"driver", "sweep"},
    {"hook", "settings", "givers", "permissions", "locations", "metrics"},
    {"triggers"},
    {"operators", "sensors"},
    {"dag_params", "recipes", "answers", "run_looks", "alerts"},
    {"task_group", "decorators", "warm"},
)
"""A module imports from its own level and those before it. A new module gets its place here."""
APART = {
    "testing": {"core"},
    "cli": {"core", "testing"},
    "plugin": {
        "core",
        "client",
        "hook",
        "givers",
        "locations",
        "permissions",
        "settings",
        "operators",
        "triggers",
    },
    "provider_info": set(),
}
"""What nothing above imports, with what it may import."""
WITHOUT_AIRFLOW = {
    *(
        "core",
        "cli",
        "testing",
        "redirects",
        "unreached",
        "remote_errors",
        "client",
        "realtime",
        "realtime_call",
        "result_files",
        "shard_files",
        "find_sent",
        "shard_journal",
        "declined_calls",
        "shard_landing",
        "shard_actions",
        "driver",
        "sweep",
    ),
}
WITHOUT_OPENAI = {"core", "cli", "testing", "redirects", "unreached"}


def read_imports(path: Path) -> Iterator[str]:
    """Full names of what a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def find_part(path: Path) -> str:
    """The first name below the package: ``core``, ``client``, ..."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def may_import(part: str) -> set[str]:
    if part in APART:
        return APART[part] | {part}
    level = next(number for number, parts in enumerate(LEVELS) if part in parts)
    return set().union(*LEVELS[: level + 1])


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem != "__init__")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_keep_to_the_layers(path):
    part = find_part(path)
    allowed = may_import(part)
    for name in read_imports(path):
        first, _, rest = name.partition(".")
        if first == "airflow_openai_batch":
            used = rest.partition(".")[0]
            assert used in allowed | {"", "__version__"}, f"{part} may not import {used}"
        assert first != "demo", "the demo is no part of the package"
        assert first != "include", "one import name: trigger class paths are stored in the database"
        assert not (first == "airflow" and part in WITHOUT_AIRFLOW), f"{part} works without Airflow"
        assert not (first == "openai" and part in WITHOUT_OPENAI), f"{part} works without the OpenAI client"


@pytest.mark.parametrize("module", ["core", "cli.app", "testing", "testing.pytest_plugin"])
def test_importing_brings_no_airflow(module):
    """pytest imports the plugin in every project that has the package installed: it has to be light."""
    modules = [f"airflow_openai_batch.{module}"]
    code = f"import sys; [__import__(m) for m in {modules}]; print(sorted({{'airflow', 'openai'}} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(INCLUDE)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_parsing_the_dags_does_not_import_the_openai_client():
    """It takes a second, in every task process, of which many have nothing to ask."""
    code = (
        "import runpy, sys; [runpy.run_path(path) for path in sys.argv[1:]]; print('openai' in sys.modules)"
    )
    dags = sorted(str(path) for path in (INCLUDE.parent / "dags").glob("*.py"))
    done = subprocess.run([sys.executable, "-c", code, *dags], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "False"


def test_the_linter_holds_the_core_too(tmp_path):
    """The rule is in core/ruff.toml; a stray import is seen in the editor, not first in the tests."""
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--stdin-filename", str(PACKAGE / "core" / "stray.py"), "-"],
        input="from airflow.sdk import DAG\nimport openai\n\n__all__ = ['DAG', 'openai']\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.count("TID251") == 2
