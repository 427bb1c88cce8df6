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
from release.contents import build, find_differences, find_sdist_problems, find_wheel_problems, unpack
from release.pythons import find_python, read_supported
from release.version import find_version_problems

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built with what is installed: no network."""
    return build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, "sdist", tmp_path_factory.mktemp("sdist"))


def test_the_wheel_holds_the_whole_package_and_nothing_else(wheel):
    assert wheel.name == f"airflow_provider_openai_batch-{airflow_openai_batch.__version__}-py3-none-any.whl"
    assert find_wheel_problems(wheel) == []


@pytest.mark.parametrize("lost", ["py.typed", "plugin/static/page.js", "testing/README.md", "errors.py"])
def test_a_wheel_that_lacks_a_file_is_not_released(wheel, tmp_path, lost):
    name = f"airflow_openai_batch/{lost}"
    poorer = tmp_path / wheel.name
    with zipfile.ZipFile(wheel) as whole, zipfile.ZipFile(poorer, "w") as changed:
        for other in set(whole.namelist()) - {name}:
            changed.writestr(other, whole.read(other))
        changed.writestr("notes.txt", "left behind")
    assert find_wheel_problems(poorer) == [
        f"{wheel.name}: {name} is missing",
        f"{wheel.name}: notes.txt does not belong into it",
    ]


def test_the_source_archive_holds_what_dags_and_tests_need_and_makes_the_same_wheel(sdist, wheel, tmp_path):
    assert find_sdist_problems(sdist) == []
    sources = unpack(sdist, tmp_path / "sources")
    assert list(sources.glob("include/samples/*")) != []
    assert list(sources.glob("include/prompts/*.yaml")) != []
    assert find_differences(wheel, build(sources, "wheel", tmp_path / "rebuilt")) == []
    (sources / "include" / "samples" / "README.md").unlink()
    (sources / "include" / "airflow_openai_batch" / "py.typed").unlink()
    poorer = build(sources, "sdist", tmp_path / "poorer")
    assert find_sdist_problems(poorer) == [
        f"{sdist.name}: include/airflow_openai_batch/py.typed is missing",
        f"{sdist.name}: include/samples/README.md is missing",
    ]


@pytest.mark.parametrize(
    ("changelog", "problem"),
    [
        ("## [Unreleased]\n\n## [1.2.0] - 2026-11-29\n\n- All new.\n", None),
        ("## [1.2.0] - 2026-11-29\n\n- All new.\n\n## [1.1.0] - 2026-10-01\n", None),
        ("## [Unreleased]\n\n- All new.\n", "rename [Unreleased] to it"),
        (
            "## [Unreleased]\n\n- More.\n\n## [1.2.0] - 2026-11-29\n\n- All new.\n",
            "[Unreleased] is not empty",
        ),
        (
            "## [1.3.0] - 2026-12-01\n\n- More.\n\n## [1.2.0] - 2026-11-29\n\n- New.\n",
            "newest section is 1.3.0",
        ),
        ("## [1.2.0]\n\n- All new.\n", "has no date"),
        ("## [1.2.0] - soon\n\n- All new.\n", "has no date"),
        ("## [1.2.0] - 2026-11-29\n\n## [1.1.0] - 2026-10-01\n\n- Old.\n", "is empty"),
    ],
)
def test_a_version_that_the_changelog_does_not_tell_of_is_not_released(changelog, problem):
    problems = find_version_problems("1.2.0", f"# Changelog\n\n{changelog}")
    assert len(problems) == (problem is not None)
    assert all(problem in found for found in problems)


def test_the_pythons_it_is_for_are_named_and_the_one_that_runs_is_found():
    """An older one must not install it; a newer one is tried before it is named."""
    supported = read_supported()
    assert supported == [f"3.{minor}" for minor in range(11, 11 + len(supported))]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == f">={supported[0]}"
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert running in supported
    assert find_python(running) is not None
    assert find_python("3.99") is None


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
        line
        for name in ("fast", "tables", "images", "cli", "qdrant", "documents", "video")
        for line in optional[name]
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

    not_installed = (
        "import importlib.metadata as m\n"
        "find = m.distribution\n"
        "def lose(name):\n"
        "    if name == 'airflow-provider-openai-batch':\n"
        "        raise m.PackageNotFoundError(name)\n"
        "    return find(name)\n"
        "m.distribution = lose\n"
    )
    bare = not_installed + shim.replace("from __future__ import annotations", "")
    done = subprocess.run(
        [sys.executable, "-c", f"{bare}\nprint(OpenAIBatchPlugin.name)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "openai_batch"
