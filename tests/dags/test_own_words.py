"""DAGs to copy made one's own: a copy of the file, a prompt beside it, data of another shape than the samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openpyxl
import pytest

from airflow_openai_batch.recipes.qdrant.qdrant_points import PointStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk import DAG

    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag

pytestmark = [pytest.mark.usefixtures("openai_conn"), pytest.mark.long]

VIDEO = Path(__file__).resolve().parents[2] / "include" / "samples" / "video" / "four_scenes.mp4"
SHOTS = """response_schema:
  type: object
  properties:
    shot: {type: string, enum: [wide, close-up]}
    caption: {type: string}
parameters:"""
TOPICS = """minItems: 1
      maxItems: 2
      items: {type: string, enum: [Billing, Refund / return]}
    resolved: {type: boolean}"""
CALLS = [
    {
        "id": number,
        "turns": [
            {"speaker": "agent", "text": f"Good morning, call {number}."},
            {"speaker": "caller", "text": "I want my money back."},
        ],
    }
    for number in range(1, 4)
]


def test_what_an_editor_asks_beside_a_caption_has_columns_of_its_own(
    run_dag: RunDag, copied_dag: Callable[..., DAG], tmp_path: Path
) -> None:
    dag = copied_dag("caption_video_frames", "frame_caption.yaml", ("parameters:", SHOTS))
    form = {"video_uri": str(VIDEO), "output_uri": str(tmp_path / "out"), "poll_interval": 0.1}
    run = run_dag(dag, {**form, "max_frames": 2, "model_2": None, "mode": "realtime"})
    assert run.state == "success", run.failures
    workbook = openpyxl.load_workbook(run.xcom("compare")["workbook"].removeprefix("file://"))
    head, *rows = workbook["captions"].iter_rows(values_only=True)
    name = "gpt-6-luna (realtime)"
    assert head == ("frame", "second", name, f"{name}: shot", "problems")
    assert all(row[3] in ("wide", "close-up") and not row[2].startswith("{") for row in rows)


def test_calls_get_the_topics_that_the_prompt_lists(
    run_dag: RunDag, copied_dag: Callable[..., DAG], openai_server: OpenAIServer, tmp_path: Path
) -> None:
    (tmp_path / "calls").mkdir()
    (tmp_path / "calls/calls.jsonl").write_text("".join(json.dumps(call) + "\n" for call in CALLS))
    dag = copied_dag(
        "tag_transcripts",
        "tags.yaml",
        ("minItems: 3\n      maxItems: 5\n      items: {type: string}", TOPICS),
        code=[('sample_path("transcripts")', f'"{tmp_path}/calls"')],
    )
    keys = {"text_field": "turns", "tags_field": "topics", "summary_field": "note"}
    form = {"output_uri": f"file://{tmp_path}/out", "poll_interval": 0.1, "mode": "realtime"}
    run = run_dag(dag, {**form, **keys})
    assert run.state == "success", run.failures
    with PointStore(collection="transcripts", name="tag_transcripts").open() as points:
        found: dict[Any, Any] = {
            point.id: point.payload for page in points.read_pages(None) for point in page
        }
    assert len(found) == 3
    for payload in found.values():
        assert set(payload["topics"]) <= {"Billing", "Refund / return"}
        assert isinstance(payload["tagging"]["answers"]["resolved"], bool)
        assert payload["note"]
    asked = b"".join(path.read_bytes() for path in (tmp_path / "out/prepared").glob("requests-*"))
    assert b"caller: I want my money back." in asked


def test_a_prompt_elsewhere_that_the_author_names_is_read_by_each_task(
    run_dag: RunDag, copied_dag: Callable[..., DAG], tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    """Outside of what forms may name."""
    prompt = tmp_path_factory.mktemp("elsewhere") / "own.yaml"
    dag = copied_dag("embed_documents", "embed_chunks.yaml", code=[('"embed_chunks.yaml"', f'"{prompt}"')])
    prompt.write_text((tmp_path / "copied/embed_chunks.yaml").read_text().replace("512", "64"))
    (tmp_path / "note.md").write_text("# Sitzung\n\nDer Rat beschließt.")
    form = {"documents": str(tmp_path / "note.md"), "queries": ["Rat?"], "poll_interval": 0.1}
    run = run_dag(dag, {**form, "output_uri": f"file://{tmp_path}/out"})
    assert run.state == "success", run.failures
    with PointStore(collection="documents", name="embed_documents").open() as points:
        assert points.dimensions() == 64
