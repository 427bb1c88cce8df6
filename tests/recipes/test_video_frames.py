"""Frames of videos at equal distances, written once."""

from __future__ import annotations

import importlib
import wave
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from airflow_openai_batch.errors import ConfigError, InputError
from airflow_openai_batch.recipes.captions.video_frames import Sampling, extract_frames
from airflow_openai_batch.recipes.json_rows import read_rows
from airflow_openai_batch.storage.location import resolve_plain

SAMPLE = Path(__file__).resolve().parents[2] / "include" / "samples" / "video" / "four_scenes.mp4"


def read_frames(uri: str) -> list[dict[str, Any]]:
    return list(read_rows(resolve_plain(uri).child("frames.jsonl"), made_by="test"))


@pytest.mark.parametrize(
    ("sampling", "seconds"),
    [
        (Sampling(), [0, 1, 2, 3, 4, 5, 6, 7]),
        (Sampling(every_s=2.5), [0, 2.5, 5, 7.5]),
        (
            Sampling(every_s=0.25, most=3),
            [0, 0.3, 0.5],
        ),  # ten frames a second: the first that is not too early
        (Sampling(every_s=60), [0]),
    ],
)
def test_frames_are_taken_at_equal_distances(
    tmp_path: Path, sampling: Sampling, seconds: list[float]
) -> None:
    frames = read_frames(extract_frames(str(SAMPLE), str(tmp_path), sampling))
    assert [row["second"] for row in frames] == pytest.approx(seconds)
    assert [row["frame"] for row in frames] == list(range(len(seconds)))


def test_pictures_are_whole_and_not_larger_than_asked(tmp_path: Path) -> None:
    frames = read_frames(extract_frames(str(SAMPLE), str(tmp_path), Sampling(every_s=4, max_side=64)))
    for row in frames:
        with Image.open(row["image"].removeprefix("file://")) as image:
            image.load()
            assert image.size == (64, 36)


def test_what_is_there_is_not_made_again_and_another_sampling_lies_apart(tmp_path: Path) -> None:
    first = extract_frames(str(SAMPLE), str(tmp_path), Sampling(every_s=4))
    picture = Path(read_frames(first)[0]["image"].removeprefix("file://"))
    picture.write_bytes(b"touched")
    assert extract_frames(str(SAMPLE), str(tmp_path), Sampling(every_s=4)) == first
    assert picture.read_bytes() == b"touched"
    assert extract_frames(str(SAMPLE), str(tmp_path), Sampling(every_s=2)) != first


def test_what_has_no_frames_is_named(tmp_path: Path) -> None:
    sound = tmp_path / "sound.wav"
    with wave.open(str(sound), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8_000)
        file.writeframes(b"\0\0" * 8_000)
    with pytest.raises(InputError, match=r"sound\.wav: has no video stream"):
        extract_frames(str(sound), str(tmp_path / "out"), Sampling())
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(SAMPLE.read_bytes()[:300])
    with pytest.raises(InputError, match=r"cut\.mp4: cannot be read as a video"):
        extract_frames(str(cut), str(tmp_path / "out"), Sampling())
    with pytest.raises(InputError, match="there is no such file"):
        extract_frames(str(tmp_path / "none.mp4"), str(tmp_path / "out"), Sampling())


def test_a_missing_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(ConfigError, match=r"airflow-provider-openai-batch\[video\]"):
        extract_frames(str(SAMPLE), str(tmp_path), Sampling())


@pytest.mark.parametrize("wrong", [{"every_s": 0}, {"most": 0}, {"max_side": 5}])
def test_numbers_that_cannot_be_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="must be"):
        Sampling(**wrong)
