"""The wheel holds all, registers itself, and works where the repository is not."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from importlib.metadata import entry_points, packages_distributions
from pathlib import Path

import pytest

import airflow_openai_batch

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built with what is installed: no network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_the_whole_package_and_nothing_else(wheel):
    assert wheel.name == f"airflow_provider_openai_batch-{airflow_openai_batch.__version__}-py3-none-any.whl"
    names = set(zipfile.ZipFile(wheel).namelist())
    package = ROOT / "include" / "airflow_openai_batch"
    sources = {
        f"airflow_openai_batch/{path.relative_to(package)}"
        for path in package.rglob("*")
        if path.suffix in {".py", ".toml", ".typed", ".html", ".css", ".js", ".svg", ".json", ".md"}
    }
    assert sources <= names
    assert {name.split("/")[0].split("-")[0] for name in names} == {
        "airflow_openai_batch",
        "airflow_provider_openai_batch",
    }
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_every_entry_point_of_the_wheel_can_be_loaded(wheel, tmp_path):
    """In an environment of its own that sees the dependencies, but neither the repository nor its .pth file."""
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    site = next((tmp_path / "venv" / "lib").glob("python*")) / "site-packages"
    zipfile.ZipFile(wheel).extractall(site)
    code = """
import sys
sys.path.append(sys.argv[1])
from importlib.metadata import distribution
found = distribution("airflow-provider-openai-batch")
print(found.locate_file(""))
for entry in found.entry_points:
    print(entry.group, entry.load())
"""
    dependencies = next(Path(sys.prefix).glob("lib/python*/site-packages"))
    done = subprocess.run(
        [python, "-c", code, str(dependencies)],
        cwd=tmp_path,
        env={"AIRFLOW_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert Path(lines[0]) == site
    assert {line.split()[0] for line in lines[1:]} == {
        "apache_airflow_provider",
        "airflow.plugins",
        "console_scripts",
        "pytest11",
    }


def test_every_imported_distribution_is_declared():
    """What only comes along with Airflow today may be gone with its next release."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    extras = [
        line for name in ("fast", "tables", "images", "cli", "qdrant", "video") for line in optional[name]
    ]
    declared = {normalize(line) for line in [*project["dependencies"], *extras]}
    # Airflow is several distributions that come as one; pytest is there where its plugin is loaded.
    declared |= {"apache-airflow-core", "apache-airflow-task-sdk", "pytest"}
    owners = packages_distributions()
    missing = set()
    for path in (ROOT / "include" / "airflow_openai_batch").rglob("*.py"):
        for name in read_top_level_imports(path) - sys.stdlib_module_names - {"airflow_openai_batch"}:
            if not {normalize(owner) for owner in owners.get(name, [name])} & declared:
                missing.add(f"{path.relative_to(ROOT)}: {name}")
    assert not missing


def normalize(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9_.-]", requirement)[0].lower().replace("_", "-")


def read_top_level_imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


def test_airflow_lists_the_provider():
    from airflow.providers_manager import ProvidersManager

    provider = ProvidersManager().providers["airflow-provider-openai-batch"]
    assert provider.version == airflow_openai_batch.__version__


def test_the_shim_registers_the_plugin_only_where_the_package_is_not_installed():
    shim = (ROOT / "plugins" / "openai_batch_plugin.py").read_text()
    assert any(entry.name == "openai_batch" for entry in entry_points(group="airflow.plugins"))
    namespace: dict[str, object] = {}
    exec(shim, namespace)  # noqa: S102 - as Airflow executes it
    assert "OpenAIBatchPlugin" not in namespace

    bare = (
        "import importlib.metadata as m; m.entry_points = lambda **_: []\n"
        + shim
        + "\nprint(OpenAIBatchPlugin.name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", bare.replace("from __future__ import annotations", "")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "openai_batch"
