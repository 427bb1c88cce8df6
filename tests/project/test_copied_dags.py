"""A DAG file that was copied elsewhere runs with the wheel alone: its prompt and its sample come with that."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from release.contents import ROOT, build

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

AIRFLOW = "import sys; sys.path.append(sys.argv.pop(1)); from airflow.__main__ import main; main()"
DEPENDENCIES = next(Path(sys.prefix).glob("lib/python*/site-packages"))
SINKS = {
    "caption_video_frames": "captions.xlsx",
    "catalog_cd_images": "catalogue.xlsx",
    "drain_request_files": "*.output.jsonl",
    "embed_documents": "neighbours.md",
    "openai_batch_table": "answers.csv",
    "reviews_sentiment_nightly": "reviews.parquet",
    "tag_transcripts": "summary.md",
}
Airflow = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Airflow:
    """Airflow's command in an environment that has the wheel and what it depends on, and nothing of the repository."""
    folder = tmp_path_factory.mktemp("wheel")
    venv.create(folder / "venv", with_pip=False)
    site = next((folder / "venv" / "lib").glob("python*")) / "site-packages"
    zipfile.ZipFile(build(ROOT, "wheel", folder)).extractall(site)

    def run(home: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [folder / "venv" / "bin" / "python", "-c", AIRFLOW, str(DEPENDENCIES), *words],
            cwd=folder,
            env={
                "AIRFLOW_HOME": str(home),
                "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
                "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
                **environment,
            },
            capture_output=True,
            text=True,
            check=False,
        )

    empty = folder / "home"
    done = run(empty, "db", "migrate")
    assert done.returncode == 0, done.stderr

    def run_in_a_copy(home: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        for name in ("airflow.db", "airflow.cfg"):
            if (empty / name).exists():
                shutil.copy(empty / name, home / name)
        database = f"sqlite:///{home}/airflow.db"
        return run(home, *words, AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=database, **environment)

    return run_in_a_copy


@pytest.mark.parametrize("dag_id", SINKS)
def test_a_copied_dag_file_runs_from_its_form_as_it_stands(
    airflow: Airflow, openai_server: OpenAIServer, tmp_path: Path, dag_id: str
) -> None:
    (tmp_path / "dags").mkdir()
    shutil.copy(ROOT / "dags" / f"{dag_id}.py", tmp_path / "dags")
    connection = {"conn_type": "openai", "password": "sk-test", "host": openai_server.base_url}
    done = airflow(
        tmp_path,
        *("dags", "test", dag_id, "--conf", json.dumps({"poll_interval": 0.1, "mode": "realtime"})),
        AIRFLOW_CONN_OPENAI_DEFAULT=json.dumps(connection),
    )
    assert done.returncode == 0, f"{done.stdout[-3_000:]}\n{done.stderr[-3_000:]}"
    assert list((tmp_path / "openai_batch").rglob(SINKS[dag_id])) != [], done.stderr[-3_000:]
    assert openai_server.books.good["realtime"] > 0
