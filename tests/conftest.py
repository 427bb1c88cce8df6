"""What all tests stand on. Airflow's environment is set here, before anything can import Airflow.

Tests that need no Airflow (core, emulator) do not pay for it: it is imported by the fixture `airflow_db`.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from fixtures.programs import DEBIAN_PACKAGES, find_program

pytest_plugins = [
    "fixtures.airflow_runs",
    "fixtures.api_server",
    "fixtures.object_store",
    "fixtures.real_airflow",
]

ROOT = Path(__file__).resolve().parents[1]
RUN_DAGS = {"dags", "operators", "security"}
"""Folders of tests that run DAGs in their own process."""


def _isolate_airflow() -> None:
    """A fresh home with SQLite, and nothing from the developer's own Airflow or OpenAI account."""
    for name in list(os.environ):
        if name.startswith(("AIRFLOW_", "AIRFLOW__", "OPENAI_", "AWS_", "USE_BATCH_PROCESSING")):
            del os.environ[name]
    home = Path(tempfile.mkdtemp(prefix="airflow-home-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    os.environ |= {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__MAX_MAP_LENGTH": "20000",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }


_isolate_airflow()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a missing program, loudly; in CI a missing program is an error."""
    for mark in item.iter_markers("needs_program"):
        for name in mark.args:
            if find_program(name) is None:
                reason = f"{name} is not installed: apt-get install {DEBIAN_PACKAGES.get(name, name)}"
                if os.environ.get("CI"):
                    pytest.fail(f"{reason} (.ci/run has to do that)", pytrace=False)
                pytest.skip(reason)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Quick tests first: what is wrong shows before a real Airflow has started."""
    items.sort(key=lambda item: item.get_closest_marker("system") is not None)
    for item in items:
        # Several runs of a DAG one after another; the limit is there for what hangs.
        if RUN_DAGS & set(item.path.parts) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(300))
