"""Qdrant's files hold what is executed when they are read: nobody may say where they lie."""

from __future__ import annotations

import json
import os
import pickle
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from fixtures.airflow_runs import RunDag

pytestmark = pytest.mark.usefixtures("openai_conn")


class _Command:
    """Runs a shell command where it is unpickled."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> Any:
        return os.system, (self._command,)


def plant(folder: Path, collection: str, mark: Path) -> None:
    """A store as Qdrant's client writes it, with a row that is a command."""
    place = folder / "collection" / collection
    place.mkdir(parents=True)
    (folder / "meta.json").write_text(
        json.dumps({"collections": {collection: {"vectors": {}}}, "aliases": {}})
    )
    with sqlite3.connect(place / "storage.sqlite") as file:
        file.execute("CREATE TABLE points (id TEXT PRIMARY KEY, point BLOB)")
        file.execute("INSERT INTO points VALUES ('a', ?)", (pickle.dumps(_Command(f"touch {mark}")),))
    file.close()


@pytest.mark.parametrize("dag_id", ["embed_documents", "tag_transcripts"])
@pytest.mark.parametrize("typed", ["path", "collection"])
def test_a_store_that_was_planted_is_not_opened(
    run_dag: RunDag, tmp_path: Path, dag_id: str, typed: str
) -> None:
    mark, planted = tmp_path / "executed", tmp_path / "planted"
    plant(planted, "things", mark)
    conf = {"poll_interval": 0.1, "qdrant_path": str(planted), "collection": "things"}
    if typed == "collection":
        conf |= {"collection": "../../../planted/collection/things"}
    run = run_dag(dag_id, conf)
    assert not mark.exists(), "the worker ran a command that a form led to"
    if typed == "collection":
        assert run.state == "failed"
        assert "is no name" in "".join(text for _, _, text in run.failures)


@pytest.mark.long
@pytest.mark.parametrize("how", ["link", "open"])
def test_a_folder_that_others_may_have_filled_is_not_opened(
    run_dag: RunDag, tmp_path: Path, how: str
) -> None:
    mark, planted = tmp_path / "executed", tmp_path / "planted"
    plant(planted, "documents", mark)
    folder = tmp_path / ".qdrant"
    folder.mkdir()
    if how == "link":
        (folder / "embed_documents").symlink_to(planted, target_is_directory=True)
    else:
        planted.rename(folder / "embed_documents")
        folder.chmod(0o777)
    run = run_dag("embed_documents", {"poll_interval": 0.1})
    assert not mark.exists()
    assert "executed when they are read" in run.errors("read")


def test_the_folder_is_for_the_user_of_the_workers_alone(run_dag: RunDag, tmp_path: Path) -> None:
    run = run_dag("embed_documents", {"poll_interval": 0.1, "queries": []})
    assert run.state == "success", run.failures
    assert (tmp_path / ".qdrant" / "embed_documents").stat().st_mode & 0o777 == 0o700
