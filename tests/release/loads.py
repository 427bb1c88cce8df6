"""Whether an installed wheel works, in an environment that has nothing else of ours:

python loads.py DAGS_FOLDER VERSION
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

PROVIDER = "airflow-provider-openai-batch"
PACKAGE = "airflow_openai_batch"


def main(dags: Path, version: str) -> None:
    check_modules()
    check_entry_points(version)
    check_plugin()
    check_dags(dags)


def check_modules() -> None:
    """Every one, without any extra: what an extra brings is imported where it is used, with a word on how to get it."""
    package = importlib.import_module(PACKAGE)
    modules = [found.name for found in pkgutil.walk_packages(package.__path__, f"{PACKAGE}.", onerror=_raise)]
    imported = 0
    for name in modules:
        if name.endswith(".__main__"):
            continue  # runs
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != "pytest":  # the plugin for pytest is loaded by it
                raise
        else:
            imported += 1
    print(f"imported {imported:,} modules")


def _raise(name: str) -> None:
    raise ImportError(f"{name} cannot be imported")


def check_entry_points(version: str) -> None:
    found = distribution(PROVIDER)
    expect(found.version == version, f"installed is {found.version}, built was {version}")
    groups = {entry.group for entry in found.entry_points}
    expected = {"apache_airflow_provider", "airflow.plugins", "console_scripts", "pytest11"}
    expect(groups == expected, f"entry points of the groups {sorted(groups)}")
    for entry in found.entry_points:
        if entry.group != "pytest11":
            entry.load()
    from airflow.providers_manager import ProvidersManager

    manager = ProvidersManager()
    listed = manager.providers.get(PROVIDER)
    expect(listed is not None, "Airflow does not list the provider")
    expect(listed.version == version, f"Airflow lists {listed.version}")
    print(f"Airflow lists the provider {version}")


def check_plugin() -> None:
    """Asked of Airflow's command, which imports all plugins."""
    airflow = Path(sys.executable).with_name("airflow")
    done = subprocess.run(
        [airflow, "plugins", "--output", "json"], capture_output=True, text=True, check=True
    )
    listed = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("[{")))
    expect("openai_batch" in {plugin["name"] for plugin in listed}, "Airflow does not list the plugin")
    print("Airflow lists the plugin")


def check_dags(folder: Path) -> None:
    try:
        from airflow.dag_processing.dagbag import DagBag
    except ImportError:  # before Airflow 3.2
        from airflow.models.dagbag import DagBag
    bag = DagBag(str(folder))
    expect(not bag.import_errors, f"DAGs that cannot be imported: {bag.import_errors}")
    expect(len(bag.dags) >= len(list(folder.glob("*.py"))), f"DAGs found: {sorted(bag.dags)}")
    print(f"Airflow reads {len(bag.dags)} DAGs")


def expect(holds: bool, otherwise: str) -> None:
    """Not ``assert``, which is left out where Python optimises."""
    if not holds:
        raise SystemExit(otherwise)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
