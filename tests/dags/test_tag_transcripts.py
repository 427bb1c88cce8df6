"""Tags for transcripts: from points in Qdrant and back into the same points, read back as a user would."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_openai_batch.recipes.qdrant_points import PointStore
from airflow_openai_batch.recipes.transcripts import TAGGING, seed_transcripts

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import FinishedRun, RunDag

pytestmark = pytest.mark.usefixtures("openai_conn")

SAMPLES = Path(__file__).resolve().parents[2] / "include" / "samples" / "transcripts"
TAG = re.compile(r"[^\W_A-Z]+(-[^\W_A-Z]+)*")

Tag = Callable[..., "FinishedRun"]


@pytest.fixture
def store(tmp_path: Path) -> PointStore:
    store = PointStore(collection="transcripts", path=str(tmp_path / "qdrant"))
    seed_transcripts(store, SAMPLES)
    return store


@pytest.fixture
def tag(run_dag: RunDag, store: PointStore, tmp_path: Path) -> Tag:
    """Run the DAG on the collection, into ``tmp_path/<output>``."""

    def run(output: str, **conf: Any) -> FinishedRun:
        return run_dag(
            "tag_transcripts",
            {
                "qdrant_path": store.path,
                "output_uri": f"file://{tmp_path}/{output}",
                "poll_interval": 0.1,
                **conf,
            },
        )

    return run


def read_points(store: PointStore) -> dict[Any, dict[str, Any]]:
    with store.open() as points:
        fields = ["text", "title", "language", "tags", "summary", TAGGING]
        return {point.id: point.payload for page in points.read_pages(fields) for point in page}


def change(store: PointStore, number: Any, payload: dict[str, Any]) -> None:
    with store.open() as points:
        points.set_payloads({number: payload})


def test_every_point_gets_tags_after_a_sample_was_looked_at(
    tag: Tag, store: PointStore, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    run = tag("out", only_sample=True)
    assert run.state == "success", run.failures
    assert openai_server.books.billed == {"realtime": 5}
    sample = [json.loads(line) for line in (tmp_path / "out" / "sample.jsonl").read_text().splitlines()]
    assert len(sample) == 5
    assert all(each["tags"] for each in sample)

    before = read_points(store)
    assert not any("tags" in payload for payload in before.values())
    run = tag("out")
    assert run.state == "success", run.failures
    after = read_points(store)
    assert len(after) == 22
    for number, payload in after.items():
        assert 3 <= len(payload["tags"]) <= 5
        assert len(set(payload["tags"])) == len(payload["tags"])
        assert all(TAG.fullmatch(each) for each in payload["tags"])
        assert payload["summary"]
        assert payload[TAGGING]["prompt"] == "tags"
        assert payload[TAGGING]["prompt_version"] == 1
        assert payload[TAGGING]["cost_usd"] > 0
        assert payload.items() >= before[number].items(), "nothing else is touched"
    counts = run.xcom("write")
    assert (counts["read"], counts["written"], counts["skipped"]) == (22, 22, 0)
    assert openai_server.books.billed == {"realtime": 5, "batch": 17}, "the sample's answers are kept"
    assert "| 22 | 22 | 0 |" in (tmp_path / "out" / "summary.md").read_text()


def test_a_later_run_asks_only_about_what_has_no_tags_by_this_version_of_the_prompt(
    tag: Tag, store: PointStore, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    done = {TAGGING: {"prompt": "tags", "prompt_version": 1}}
    older = {TAGGING: {"prompt": "tags", "prompt_version": 0}}
    numbers = list(read_points(store))
    with store.open() as points:
        points.set_payloads(dict.fromkeys(numbers, done) | {numbers[0]: older})
        texts = {
            1: ("A new transcript about a lighthouse, its keeper and its lamp.", "en"),
            2: ("Neu.", "de"),
        }
        points.write(list(texts), [{"text": text, "language": language} for text, language in texts.values()])
    run = tag("first", filters={"language": ["en"]})
    assert run.state == "success", run.failures
    assert sum(openai_server.books.billed.values()) == 2
    points_now = read_points(store)
    assert points_now[numbers[0]][TAGGING]["prompt_version"] == 1
    assert points_now[1]["tags"]
    assert "tags" not in points_now[2], "the filters hold"

    run = tag("second", filters={"language": ["en"]})
    assert run.state == "success", run.failures
    assert run.states[("prepare", -1)] == run.states[("tag.publish", -1)] == "skipped"
    assert run.states[("report", -1)] == "success"
    assert "0 to tag" in (tmp_path / "second" / "summary.md").read_text()


def test_what_cannot_be_tagged_is_skipped_with_its_reason(
    tag: Tag, store: PointStore, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    numbers = sorted(read_points(store), key=str)
    change(store, numbers[0], {"text": ""})
    openai_server.script(line=400, code="invalid_request_error", custom_id="row-9", times=None)
    run = tag("out", max_failed_fraction=0.05)
    assert run.state == "failed"
    assert "2 of 22 points were not tagged" in run.errors("write")
    skipped = [json.loads(line) for line in (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()]
    assert {each["code"] for each in skipped} == {"rejected", "failed"}
    assert sum("tags" in payload for payload in read_points(store).values()) == 20
