"""A component that is warm has what the tasks and DAG files of its forks import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_openai_batch import warm

DAGS = Path(__file__).resolve().parents[2] / "dags"
SEE = """
import runpy, sys
from airflow_openai_batch import warm
warm.{begin}
known = set(sys.modules)
runpy.run_path({dag!r})
more = sorted(name for name in set(sys.modules) - known if name.startswith(("airflow_openai_batch", "airflow.sdk")))
print("imported:", *more)
print("heavy:", *(name for name in ("numpy", "openai", "pyarrow") if name in sys.modules))
"""


def run_python(*arguments: str, home: Path) -> str:
    env = os.environ | {"AIRFLOW_HOME": str(home), "AIRFLOW__CORE__UNIT_TEST_MODE": "false"}
    done = subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True, check=True)
    return done.stdout


def test_it_is_the_command_that_it_is_given(tmp_path: Path) -> None:
    said = run_python("-m", "airflow_openai_batch.warm", "version", home=tmp_path)
    assert said == run_python("-m", "airflow", "version", home=tmp_path)


@pytest.mark.parametrize(
    ("begin", "heavy"), [("_import(warm.IN_DAG_FILES)", ""), ("warm_up()", " numpy openai pyarrow")]
)
def test_the_main_dag_needs_no_import_more(tmp_path: Path, begin: str, heavy: str) -> None:
    code = SEE.format(begin=begin, dag=str(DAGS / "openai_batch.py"))
    assert run_python("-c", code, home=tmp_path).splitlines()[-2:] == ["imported:", f"heavy:{heavy}"]


def test_a_module_of_others_may_be_elsewhere_in_another_release_and_none_of_ours() -> None:
    warm._import(("airflow.of_another_release",))
    with pytest.raises(ModuleNotFoundError):
        warm._import(("airflow_openai_batch.gone",))
