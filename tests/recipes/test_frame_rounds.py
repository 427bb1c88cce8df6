"""Frames that a model is asked about, round by round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_openai_batch.recipes.captions.frame_rounds import (
    AskedModel,
    find_captioned,
    open_rounds,
    read_captioned,
    read_models,
)
from airflow_openai_batch.recipes.json_rows import read_rows, write_rows
from airflow_openai_batch.storage.location import Location, resolve_plain

FORM = {"conn_id": "openai_default", "mode": "batch"}


@pytest.fixture
def video(tmp_path: Path) -> Location:
    place = resolve_plain(str(tmp_path / "video-1"))
    rows = ({"frame": n, "second": float(n), "image": f"{n}.jpg"} for n in range(6))
    write_rows(place.child("frames.jsonl"), rows)
    return place


def begin(video: Location, most: int | None, **how: Any) -> list[int]:
    """The frames of the round of one model."""
    model = AskedModel("model_1", "gpt-6-luna", "", ("batch",))
    places = open_rounds(video.uri, [model], most=most, **how)
    rows = resolve_plain(f"{places['model_1_batch']}/rows.jsonl") if places else None
    return [] if rows is None else [row["frame"] for row in read_rows(rows, made_by="test")]


def answer(video: Location, name: str, **statuses: str) -> None:
    rows = [
        {"frame": int(frame[1:]), "answer": f"caption by {name}", "answer_status": status}
        for frame, status in statuses.items()
    ]
    write_rows(video.child(f"gpt-6-luna/batch/{name}"), rows)


def test_more_frames_are_asked_about_and_a_repair_takes_those_without_a_caption(video: Location) -> None:
    assert begin(video, 3) == [0, 1, 2]
    answer(video, "round-001/answers.jsonl", f0="ok", f1="failed", f2="rejected")
    assert begin(video, 5, repair=True) == [1]
    assert begin(video, 5) == [3, 4]
    answer(video, "round-002/answers.jsonl", f3="ok", f4="unfinished")
    assert begin(video, 2) == []
    assert begin(video, 5) == [4]
    answer(video, "round-002/answers.jsonl", f3="ok", f4="ok")
    assert begin(video, 5) == []
    assert begin(video, 5, repair=True) == [1]
    assert begin(video, 2, restart_of="run-1") == [0, 1]


def test_captions_of_an_older_release_count(video: Location) -> None:
    answer(video, "captions.jsonl", f0="ok", f1="failed")
    assert begin(video, 2) == []
    assert begin(video, 2, repair=True) == [1]
    answer(video, "round-001/answers.jsonl", f1="ok")
    ((model, way, folder),) = find_captioned(video)
    assert (model, way) == ("gpt-6-luna", "batch")
    found = {frame: row["answer"] for frame, row in read_captioned(folder).items()}
    assert found == {0: "caption by captions.jsonl", 1: "caption by round-001/answers.jsonl"}


def test_a_good_caption_stays_where_a_restart_brings_none(video: Location) -> None:
    answer(video, "round-001/answers.jsonl", f0="ok")
    write_rows(video.child("gpt-6-luna/batch/round-001/rows.jsonl"), [{"frame": 0}])
    write_rows(video.child("gpt-6-luna/batch/round-002/rows.jsonl"), [{"frame": 0}])
    answer(video, "round-002/answers.jsonl", f0="failed")
    (row,) = read_captioned(video.child("gpt-6-luna/batch")).values()
    assert row["answer_status"] == "ok"


def test_models_of_the_form(video: Location) -> None:
    slots = ("model_1", "model_2", "model_3", "model_4")
    params: dict[str, Any] = {
        **FORM,
        **{f"{each}_{what}": None for each in slots for what in ("conn_id", "mode")},
    }
    params |= {"model_1": "a", "model_2": "", "model_3": "a", "model_4": " a "}
    params |= {"model_3_conn_id": "local", "model_3_mode": "both", "model_4_conn_id": "openai_default"}
    assert read_models(params, slots) == [
        AskedModel("model_1", "a", "", ("batch",)),
        AskedModel("model_3", "a", "local", ("realtime", "batch")),
    ]
    places = open_rounds(video.uri, read_models(params, slots), most=1)
    assert list(places) == ["model_1_batch", "model_3_realtime", "model_3_batch"]
    assert len({place.rsplit("/", 3)[1] for place in places.values()}) == 2
