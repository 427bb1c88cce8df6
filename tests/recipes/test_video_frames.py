"""Frames of videos at equal distances, written once."""

from __future__ import annotations

import hashlib
import importlib
import struct
import wave
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageStat

from airflow_openai_batch.access.givers import Giver
from airflow_openai_batch.access.locations import open_place
from airflow_openai_batch.errors import ConfigError, InputError
from airflow_openai_batch.recipes.captions.video_frames import Sampling, extract_frames
from airflow_openai_batch.recipes.json_rows import read_rows
from airflow_openai_batch.storage.location import resolve_plain
from airflow_openai_batch.storage.sources import describe_file

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
    frames = read_frames(extract_frames(str(SAMPLE), resolve_plain(str(tmp_path)), sampling))
    assert [row["second"] for row in frames] == pytest.approx(seconds)
    assert [row["frame"] for row in frames] == list(range(len(seconds)))


def test_a_video_that_leaves_frames_out_gives_as_many_as_are_wanted_and_later_all(tmp_path: Path) -> None:
    """A screen that was recorded: for 27 s nothing moves."""
    av = importlib.import_module("av")
    with av.open(str(tmp_path / "screen.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        for tenth in (*range(30), *range(300, 400)):
            frame = av.VideoFrame.from_image(Image.new("RGB", (64, 64), (tenth % 256, 0, 0)))
            frame.pts = tenth
            frame.time_base = Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    whole = [0, 1, 2, *range(30, 40)]
    for most in (5, 8, None):
        uri = extract_frames(
            str(tmp_path / "screen.mp4"), resolve_plain(str(tmp_path / "out")), Sampling(most=most)
        )
        assert [row["second"] for row in read_frames(uri)] == pytest.approx(whole[:most])


def test_pictures_are_whole_and_not_larger_than_asked(tmp_path: Path) -> None:
    frames = read_frames(
        extract_frames(str(SAMPLE), resolve_plain(str(tmp_path)), Sampling(every_s=4, max_side=64))
    )
    for row in frames:
        with Image.open(row["image"].removeprefix("file://")) as image:
            image.load()
            assert image.size == (64, 36)


def test_what_is_there_is_not_made_again_and_another_sampling_lies_apart(tmp_path: Path) -> None:
    first = extract_frames(str(SAMPLE), resolve_plain(str(tmp_path)), Sampling(every_s=4))
    picture = Path(read_frames(first)[0]["image"].removeprefix("file://"))
    picture.write_bytes(b"touched")
    assert extract_frames(str(SAMPLE), resolve_plain(str(tmp_path)), Sampling(every_s=4)) == first
    assert picture.read_bytes() == b"touched"
    assert extract_frames(str(SAMPLE), resolve_plain(str(tmp_path)), Sampling(every_s=2)) != first


def test_what_has_no_frames_is_named(tmp_path: Path) -> None:
    sound = tmp_path / "sound.wav"
    with wave.open(str(sound), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8_000)
        file.writeframes(b"\0\0" * 8_000)
    with pytest.raises(InputError, match=r"sound\.wav: has no video stream"):
        extract_frames(str(sound), resolve_plain(str(tmp_path / "out")), Sampling())
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(SAMPLE.read_bytes()[:300])
    with pytest.raises(InputError, match=r"cut\.mp4: cannot be read as a video"):
        extract_frames(str(cut), resolve_plain(str(tmp_path / "out")), Sampling())
    with pytest.raises(InputError, match="there is no such file"):
        extract_frames(str(tmp_path / "none.mp4"), resolve_plain(str(tmp_path / "out")), Sampling())


def test_a_missing_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(ConfigError, match=r"airflow-provider-openai-batch\[video\]"):
        extract_frames(str(SAMPLE), resolve_plain(str(tmp_path)), Sampling())


@pytest.mark.parametrize("wrong", [{"every_s": 0}, {"most": 0}, {"max_side": 5}])
def test_numbers_that_cannot_be_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="must be"):
        Sampling(**wrong)


def turn_quarter(path: Path) -> Path:
    """The sample as a phone held upright records it: the same pictures, and a matrix that turns them clockwise."""
    data = bytearray(SAMPLE.read_bytes())
    matrix = data.index(b"tkhd") + 44  # ISO/IEC 14496-12, 8.3.2
    one = 1 << 16
    data[matrix : matrix + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, 144 * one, 0, 1 << 30)
    path.write_bytes(data)
    return path


def test_a_video_of_a_phone_held_upright_gives_upright_pictures(tmp_path: Path) -> None:
    plain = read_frames(
        extract_frames(str(SAMPLE), resolve_plain(str(tmp_path / "plain")), Sampling(every_s=4))
    )
    source = turn_quarter(tmp_path / "upright.mp4")
    turned = read_frames(
        extract_frames(str(source), resolve_plain(str(tmp_path / "turned")), Sampling(every_s=4))
    )
    assert len(turned) == len(plain) == 2
    for before, after in zip(plain, turned, strict=True):
        first, second = (Image.open(row["image"].removeprefix("file://")) for row in (before, after))
        assert second.size == (first.height, first.width)
        wanted = first.transpose(Image.Transpose.ROTATE_270)  # clockwise
        difference = ImageStat.Stat(ImageChops.difference(wanted, second)).mean
        assert max(difference) < 3, difference


@pytest.mark.parametrize(("start_s", "seconds"), [(3, [3, 5, 7]), (2.55, [2.6, 4.6, 6.6]), (7.9, [7.9])])
def test_a_start_within_the_video_keeps_its_seconds(
    tmp_path: Path, start_s: float, seconds: list[float]
) -> None:
    rows = read_frames(
        extract_frames(str(SAMPLE), resolve_plain(str(tmp_path)), Sampling(every_s=2, start_s=start_s))
    )
    assert [row["second"] for row in rows] == pytest.approx(seconds)
    assert [row["frame"] for row in rows] == list(range(len(seconds)))
    whole = read_frames(extract_frames(str(SAMPLE), resolve_plain(str(tmp_path)), Sampling(every_s=0.1)))
    same = {row["second"]: Path(row["image"].removeprefix("file://")).read_bytes() for row in whole}
    assert [Path(row["image"].removeprefix("file://")).read_bytes() for row in rows] == [
        same[row["second"]] for row in rows
    ]


def test_a_start_after_the_end_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no frame that can be decoded at second 60 or later \(start_s\)"):
        extract_frames(str(SAMPLE), resolve_plain(str(tmp_path)), Sampling(start_s=60))


def test_more_frames_are_added_to_those_that_are_there(tmp_path: Path) -> None:
    first = extract_frames(str(SAMPLE), resolve_plain(str(tmp_path)), Sampling(most=2))
    picture = Path(read_frames(first)[0]["image"].removeprefix("file://"))
    picture.write_bytes(b"touched")
    before = read_frames(first)
    assert extract_frames(str(SAMPLE), resolve_plain(str(tmp_path)), Sampling(most=5)) == first
    assert read_frames(first)[:2] == before
    assert [row["second"] for row in read_frames(first)] == [0, 1, 2, 3, 4]
    assert picture.read_bytes() == b"touched"
    for most in (3, None, 100):
        assert extract_frames(str(SAMPLE), resolve_plain(str(tmp_path)), Sampling(most=most)) == first
    assert len(read_frames(first)) == 8


def test_frames_of_an_older_release_are_gone_on_with(tmp_path: Path) -> None:
    """Their directory was called by all that was asked for."""
    video = describe_file(open_place(str(SAMPLE), "input", Giver.CODE))
    sampling = "Sampling(every_s=1, most=2, max_side=512)"
    seen = f"{video.uri}\n{video.size}\n{video.etag}\n{sampling}"
    former = tmp_path / f"four_scenes-{hashlib.blake2b(seen.encode(), digest_size=4).hexdigest()}"
    former.mkdir()
    (former / "frames.jsonl").write_text('{"frame": 0, "second": 0.0, "image": "x"}\n')
    found = extract_frames(str(SAMPLE), resolve_plain(str(tmp_path)), Sampling(every_s=1, most=2))
    assert found.removeprefix("file://") == str(former)
