"""Tags for transcripts: from points in Qdrant and back into the same points, read back as a user would."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.recipes.qdrant.qdrant_points import PointStore
from airflow_openai_batch.recipes.qdrant.tag_marks import TAGGING, Fields
from airflow_openai_batch.recipes.qdrant.tag_writing import write_tags
from airflow_openai_batch.recipes.qdrant.tags import TagRules
from airflow_openai_batch.recipes.qdrant.transcripts import seed_transcripts
from airflow_openai_batch.storage.location import resolve_plain

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import FinishedRun, RunDag

pytestmark = pytest.mark.usefixtures("openai_conn")

SAMPLES = Path(__file__).resolve().parents[2] / "include" / "samples" / "transcripts"
TAG = re.compile(r"[^\W_A-Z]+(-[^\W_A-Z]+)*")

Tag = Callable[..., "FinishedRun"]


@pytest.fixture
def store(form_roots: Path) -> PointStore:
    store = PointStore(collection="transcripts", name="tag_transcripts")
    seed_transcripts(store, SAMPLES)
    return store


@pytest.fixture
def tag(run_dag: RunDag, store: PointStore, tmp_path: Path) -> Tag:
    """Run the DAG on the collection, into ``tmp_path/<output>``."""

    def run(output: str, **conf: Any) -> FinishedRun:
        return run_dag(
            "tag_transcripts",
            {
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
    assert openai_server.books.billed == {"flex": 5}
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
    assert openai_server.books.billed == {"flex": 5, "batch": 17}, "the sample's answers are kept"
    assert "| 22 | 22 | 0 |" in (tmp_path / "out" / "summary.md").read_text()


@pytest.mark.long
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


@pytest.mark.long
def test_tags_of_others_are_kept_and_told_unless_the_form_says_otherwise(
    tag: Tag, store: PointStore, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    numbers = list(read_points(store))
    foreign = {
        numbers[0]: {"tags": ["mine"]},
        numbers[1]: {"summary": "By hand."},
        numbers[2]: {TAGGING: "a field of another program"},
    }
    with store.open() as points:
        points.set_payloads(foreign)
    run = tag("first")
    assert run.state == "success", run.failures
    assert sum(openai_server.books.billed.values()) == 19, "nothing is paid for what cannot be written"
    after = read_points(store)
    assert all(after[number].items() >= values.items() for number, values in foreign.items())
    assert (
        "3 left alone with tags or a summary of their own" in (tmp_path / "first" / "summary.md").read_text()
    )

    # What this DAG wrote and somebody has changed since is theirs, too, when the prompt gets a new version.
    older = {TAGGING: {**after[numbers[3]][TAGGING], "prompt_version": 0}}
    change(store, numbers[3], {"tags": ["changed", "by", "hand"], **older})
    change(store, numbers[4], {TAGGING: {**after[numbers[4]][TAGGING], "prompt_version": 0}})
    run = tag("second")
    assert run.state == "success", run.failures
    points_now = read_points(store)
    assert points_now[numbers[3]]["tags"] == ["changed", "by", "hand"]
    assert points_now[numbers[4]][TAGGING]["prompt_version"] == 1
    assert "4 left alone" in (tmp_path / "second" / "summary.md").read_text()

    run = tag("third", overwrite=True)
    assert run.state == "success", run.failures
    assert all(read_points(store)[number][TAGGING]["prompt_version"] == 1 for number in numbers)


def test_where_answers_are_written_no_transcript_is_read() -> None:
    with pytest.raises(ConfigError, match="is where answers are written"):
        Fields(text="summary")


def test_what_cannot_be_tagged_is_skipped_with_its_reason(
    tag: Tag, store: PointStore, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    numbers = list(read_points(store))
    change(store, numbers[0], {"text": ""})
    openai_server.script(line=400, code="invalid_request_error", custom_id="row-9", times=None)
    run = tag("out", max_failed_fraction=0.01)
    assert run.state == "failed"
    assert "1 of 21 points were not tagged (1 failed): more than max_failed_fraction=0.01" in run.errors(
        "judge"
    )
    assert "tags" not in read_points(store)[numbers[0]], "without a text there is nothing to ask"
    assert sum("tags" in payload for payload in read_points(store).values()) == 20

    # What a cleared task meets when people have gone on working.
    with store.open() as points:
        points.set_payloads({numbers[1]: {"text": "Another text."}, numbers[2]: newer()})
        points.delete([numbers[3]])
    done = write_tags(resolve_plain(str(tmp_path / "out")), store, fields=Fields(), rules=TagRules())
    assert done.reasons == {"failed": 1, "changed": 1, "tagged_meanwhile": 1, "gone": 1}
    assert done.written == 17
    lines = (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()
    assert {json.loads(line)["point_id"] for line in lines} >= {numbers[1], numbers[2], numbers[3]}
    assert read_points(store)[numbers[2]]["tags"] == ["by", "hand"]


def newer() -> dict[str, Any]:
    return {"tags": ["by", "hand"], TAGGING: {"prompt": "tags", "prompt_version": 2}}
