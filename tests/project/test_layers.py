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
    "errors",
    "wording",
    "server_words",
    "installed",
    "processes",
    "storage",
    "openai_api",
    "job",
    "requests",
    "planning",
    "results",
    "costs",
    "tables",
    "sending",
    "report",
    "access",
    "hooks",
    "triggers",
    "operators",
    "sensors",
    "dag_params",
    "answers",
    "alerts",
    "task_group",
    "decorators",
    "recipes",
    "warm",
    "testing",
    "cli",
    "plugin",
)
"""From the ground up: each imports from those before it alone. A new folder gets its place here."""
WITHOUT_AIRFLOW = {*LEVELS[: LEVELS.index("report") + 1], "cli", "testing"}
WITH_OPENAI = {
    "openai_api.async_client",
    "openai_api.client",
    "openai_api.client_errors",
    "openai_api.realtime_client",
    "openai_api.video_client",
}
"""Of those without Airflow."""


def read_imports(path: Path) -> Iterator[str]:
    """Full names of what a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def find_module(path: Path) -> str:
    """``job.plan``; a folder's face has the folder's name."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


FILES = {
    find_module(path): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.parent != PACKAGE or path.stem != "__init__"
}


def find_used(module: str) -> set[str]:
    """The modules of this package that one imports, type-only imports included."""
    used = set()
    for name in read_imports(FILES[module]):
        inside = name.removeprefix("airflow_openai_batch.")
        if inside != name:
            used.add(inside if inside in FILES else inside.rpartition(".")[0])
    return used & FILES.keys() - {module}


@pytest.mark.parametrize("module", [module for module in FILES if module != "provider_info"])
def test_imports_run_downwards(module):
    part = module.partition(".")[0]
    above = set(LEVELS[LEVELS.index(part) + 1 :])
    upwards = {used for used in find_used(module) if used.partition(".")[0] in above}
    assert not upwards, f"{part} stands below these"
    for name in read_imports(FILES[module]):
        first = name.partition(".")[0]
        assert first != "demo", "the demo is no part of the package"
        assert first != "include", "one import name: trigger class paths are stored in the database"
        assert not (first == "airflow" and part in WITHOUT_AIRFLOW), f"{part} works without Airflow"
        if first == "openai" and part in WITHOUT_AIRFLOW:
            assert module in WITH_OPENAI, f"{part} works without the OpenAI client"


def read_all(folder: str) -> set[str]:
    """What a folder's face hands out: names of its own, and modules."""
    for node in ast.parse(FILES[folder].read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def find_strays(module: str) -> Iterator[str]:
    """What a module imports from another folder that does not hand it out."""
    for name in read_imports(FILES[module]):
        inside = name.removeprefix("airflow_openai_batch.")
        if inside == name or inside.partition(".")[0] in (module.partition(".")[0], "__version__"):
            continue
        used = inside if inside in FILES else inside.rpartition(".")[0]
        is_face = FILES[used].stem == "__init__"
        folder, _, wanted = inside.rpartition(".") if is_face and used != inside else used.rpartition(".")
        if folder and wanted != "__main__" and wanted not in read_all(folder):
            yield inside


@pytest.mark.parametrize("module", [module for module in FILES if module != "warm"])
def test_other_folders_are_used_by_what_they_hand_out(module):
    assert not set(find_strays(module)), "see __all__ of the folder's __init__.py"


def test_imports_make_no_circles():
    waiting = {module: find_used(module) for module in FILES}
    while free := {module for module, used in waiting.items() if not used & waiting.keys()}:
        waiting = {module: used for module, used in waiting.items() if module not in free}
    assert not waiting


@pytest.mark.parametrize(
    "module", ["planning.split", "report.report", "cli.app", "testing", "testing.pytest_plugin"]
)
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


@pytest.mark.parametrize(
    ("dags", "heavy"),
    [("*.py", {"openai"}), ("openai_batch.py", {"openai", "numpy", "pyarrow", "genai_prices"})],
)
def test_parsing_the_dags_imports_nothing_that_only_a_task_needs(dags, heavy):
    """They are parsed for every task that ends in the triggerer, and by every task process that was not forked from a
    warm one. The client alone takes a second."""
    code = "import runpy, sys; [runpy.run_path(path) for path in sys.argv[1:]]; print(*sys.modules)"
    paths = sorted(str(path) for path in (INCLUDE.parent / "dags").glob(dags))
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True)
    assert heavy.isdisjoint(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("place", "found"), [("report/stray.py", 2), ("openai_api/client.py", 0), ("hooks/stray.py", 0)]
)
def test_the_linter_holds_it_too(place, found):
    """A stray import is seen in the editor, not first in the tests."""
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--stdin-filename", str(PACKAGE / place), "-"],
        input="from airflow.sdk import DAG\nimport openai\n\n__all__ = ['DAG', 'openai']\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.count("TID251 `") == found
