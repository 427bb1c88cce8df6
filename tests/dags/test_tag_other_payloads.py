"""Transcripts of another shape than the sample: calls in segments, below an object, beside tags of others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_openai_batch.recipes.qdrant.qdrant_points import PointStore

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import FinishedRun, RunDag

pytestmark = pytest.mark.usefixtures("openai_conn")

Tag = Callable[..., "FinishedRun"]
KEYS = {"tags_field": "topics", "summary_field": "gist", "tagging_field": "topics-by"}


def make_call(number: int) -> dict[str, Any]:
    said = [
        f"Hotline, good morning, call {number}.",
        f"My boiler in the cellar of house {number} drips, and the pressure gauge shows nothing.",
        "We send somebody with a new valve tomorrow morning.",
    ]
    segments = [
        {"start": 2.5 * at, "end": 2.5 * at + 2, "speaker": "ab"[at % 2], "text": f" {each}"}
        for at, each in enumerate(said)
    ]
    return {
        "call": {"segments": segments, "subject": f"Boiler {number}", "seconds": 7},
        "tags": ["hotline", f"agent-{number}"],
    }


@pytest.fixture(autouse=True)
def usual_answers(openai_server: OpenAIServer) -> None:
    answer = json.dumps({"tags": ["Boiler", "valve", "house call"], "summary": "A boiler drips."})
    openai_server.answer = lambda body: answer


@pytest.fixture
def store(form_roots: Path) -> PointStore:
    store = PointStore(collection="calls", name="tag_transcripts")
    with store.open() as points:
        points.create(None)
        points.write(list(range(1, 13)), [make_call(number) for number in range(1, 13)])
    return store


@pytest.fixture
def tag(run_dag: RunDag, store: PointStore, tmp_path: Path) -> Tag:
    """Run the DAG on the calls, into ``tmp_path/<output>``."""

    def run(output: str, **conf: Any) -> FinishedRun:
        form = {
            "collection": "calls",
            "text_field": "call.segments",
            "title_field": "call.subject",
            "output_uri": f"file://{tmp_path}/{output}",
            "poll_interval": 0.1,
            "mode": "batch",
        }
        return run_dag("tag_transcripts", {**form, **KEYS, **conf})

    return run


def read_points(store: PointStore) -> dict[Any, dict[str, Any]]:
    with store.open() as points:
        return {point.id: point.payload for page in points.read_pages(None) for point in page}


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_answers_go_under_the_keys_that_the_form_names_and_nothing_else_changes(
    tag: Tag, store: PointStore, tmp_path: Path
) -> None:
    theirs = {"topics": ["by", "hand"]}
    with store.open() as points:
        points.set_payloads({5: theirs})
    run = tag("out")
    assert run.state == "success", run.failures
    for number, payload in read_points(store).items():
        before = make_call(number)
        if number == 5:
            assert payload == before | theirs, "what others wrote stays"
            continue
        assert {key: payload[key] for key in before} == before
        assert payload.keys() - before.keys() == {"topics", "gist", "topics-by"}
        assert payload["topics"] == ["boiler", "valve", "house-call"]
        assert payload["gist"] == "A boiler drips."
        assert payload["topics-by"]["prompt"] == "tags"
    summary = (tmp_path / "out" / "summary.md").read_text()
    assert "1 left alone with tags or a summary of their own (topics of 1" in summary
    requests = b"".join(path.read_bytes() for path in (tmp_path / "out" / "prepared").glob("requests-*"))
    assert b"good morning, call 7.\\nb: My boiler in the cellar of house 7 drips" in requests


@pytest.mark.long
def test_without_other_keys_the_tags_of_others_are_left_alone_and_the_key_is_named(
    tag: Tag, store: PointStore, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    run = tag("out", tags_field="tags")
    assert run.state == "success", run.failures
    assert not openai_server.books.billed
    assert (
        "12 left alone with tags or a summary of their own (tags of 12"
        in (tmp_path / "out" / "summary.md").read_text()
    )
    assert read_points(store) == {number: make_call(number) for number in range(1, 13)}


def test_refused_transcripts_with_the_lowest_ids_stop_one_run_and_are_paid_for_once(
    tag: Tag, store: PointStore, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    rules = [
        openai_server.script(line="content_filter", contains=f"call {number}.", times=None)
        for number in (1, 2, 3)
    ]
    run = tag("first")
    assert run.state == "failed"
    assert "3 of 5 sampled answers cannot be used" in run.errors("check_sample")
    assert not any("topics" in payload for payload in read_points(store).values())
    asked = openai_server.books.good.total()

    run = tag("second")
    assert run.state == "success", run.failures
    assert openai_server.books.good.total() == asked + 9
    assert {number for number, payload in read_points(store).items() if "topics" in payload} == set(
        range(4, 13)
    )
    named = read_lines(tmp_path / "second" / "set_aside.jsonl")
    assert [(each["point_id"], each["code"]) for each in named] == [(n, "failed") for n in (1, 2, 3)]
    assert "content_filter" in named[0]["reason"]
    assert "3 set aside" in (tmp_path / "second" / "summary.md").read_text()

    for rule in rules:
        openai_server.unscript(rule)
    with store.open() as points:
        points.write([13], [make_call(13)])
    run = tag("fourth", retry_failed=True, sample_requests=1)
    assert run.state == "success", run.failures
    first, *_ = (tmp_path / "fourth" / "sample.jsonl").read_text().splitlines()
    assert json.loads(first)["point_id"] == "13", "what failed comes after all others"
    points_now = read_points(store)
    assert all("topics" in payload for payload in points_now.values())
    assert not any("failed" in payload["topics-by"] for payload in points_now.values())


def test_a_run_that_is_red_for_answers_against_the_rules_says_what_asks_again(
    tag: Tag, store: PointStore, openai_server: OpenAIServer
) -> None:
    usual = openai_server.answer
    assert usual is not None
    three_tags = usual({})
    two_tags = json.dumps({"tags": ["boiler", "valve", "boiler"], "summary": "A boiler drips."})
    openai_server.answer = lambda body: two_tags if "call 7." in str(body) else three_tags
    form = {"max_failed_fraction": 0.01}
    for repair in (False, True):
        run = tag("first", **form, repair=repair)
        assert run.state == "failed"
        assert "A new run with another output and retry_failed=true asks about them again" in run.errors(
            "judge"
        )
        assert "not about what is against_the_rules" in run.errors("judge")
        assert openai_server.books.good.total() == 12
    openai_server.answer = usual
    run = tag("second", **form, retry_failed=True)
    assert run.state == "success", run.failures
    assert all("topics" in payload for payload in read_points(store).values())
    assert openai_server.books.good.total() == 13


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("text", "none of the 12 points that match has anything there"),
        pytest.param("call.seconds", "what is there is no text", marks=pytest.mark.long),
    ],
)
def test_a_wrong_key_is_an_error_that_names_those_with_a_text(
    tag: Tag, openai_server: OpenAIServer, name: str, words: str
) -> None:
    run = tag("out", text_field=name)
    assert run.state == "failed"
    assert words in run.errors("read")
    assert "Keys with a text there: call.segments, call.subject, tags" in run.errors("read")
    assert not openai_server.books.billed


@pytest.mark.long
def test_typed_instructions_tag_again_where_it_is_asked_for(
    tag: Tag, store: PointStore, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    assert tag("first").state == "success"
    before = read_points(store)
    typed = {"instructions": "Three tags, about the machine alone. Title again: {{ title }}"}
    run = tag("second", **typed)
    assert run.state == "success", run.failures
    assert read_points(store) == before, "nobody has asked for it"

    run = tag("third", **typed, retag="changed")
    assert run.state == "success", run.failures
    after = read_points(store)
    assert all(
        after[number]["topics-by"]["prompt_digest"] != payload["topics-by"]["prompt_digest"]
        for number, payload in before.items()
    )
    (requests,) = (tmp_path / "third" / "prepared").glob("requests-*")
    said = [json.loads(line)["body"]["messages"] for line in requests.read_text().splitlines()]
    assert said[6][0]["content"] == "Three tags, about the machine alone. Title again: Boiler 7"
    assert "cellar of house 7 drips" in said[6][1]["content"]


@pytest.mark.parametrize(
    "typed",
    [
        "{{ conn.openai_default.password }}",
        pytest.param("{{ ''.__class__.__mro__ }}", marks=pytest.mark.long),
        pytest.param("{{ var.value.secret }}", marks=pytest.mark.long),
    ],
)
def test_typed_instructions_reach_nothing_but_a_transcript(
    tag: Tag, openai_server: OpenAIServer, tmp_path: Path, typed: str
) -> None:
    run = tag("out", instructions=typed)
    assert run.state == "failed"
    assert not openai_server.books.billed
    assert "sk-test" not in run.errors("prepare")
    assert not list((tmp_path / "out").rglob("requests-*"))
