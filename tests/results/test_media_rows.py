"""Answers that bring files: where they go, what the row says, and what never stands in Parquet."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_openai_batch.storage.first_bytes import PNG
from fixtures.shard_on_disk import CHAT, RESPONSES, ShardOnDisk, answer, chat_body

if TYPE_CHECKING:
    from airflow_openai_batch.results.landing_summary import LandingSummary

IMAGES = "/v1/images/generations"
PICTURE = PNG + b"\x00\x01\x02" * 50
USAGE = {
    "input_tokens": 50,
    "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
    "output_tokens": 1_056,
    "output_tokens_details": {"image_tokens": 1_056, "text_tokens": 0},
}


def encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def ask(custom_id: str, **body: Any) -> bytes:
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": IMAGES, "body": body}).encode()


def drawn(*data: Any, **more: Any) -> dict[str, Any]:
    return {"created": 1, "data": list(data), "output_format": "png", "usage": USAGE, **more}


@pytest.fixture
def shard(tmp_path: Path) -> ShardOnDisk:
    return ShardOnDisk(tmp_path, endpoint=IMAGES, model="gpt-image-1.5", requests=[ask("a")])


def land(shard: ShardOnDisk, *bodies: Any, keep: bool = False) -> tuple[dict[str, Any], LandingSummary]:
    """The row of the request, and the summary."""
    shard.add_send([answer("a", body) for body in bodies])
    landed = shard.land(keep_response_body=keep)
    (row,) = shard.rows()
    return row, landed


KINDS = {
    b"\xff\xd8\xff\xe0": ("jpg", "image/jpeg"),
    b"GIF89a": ("gif", "image/gif"),
    b"RIFF1234WEBPVP8 ": ("webp", "image/webp"),
    b"<svg xmlns=''></svg>": ("svg", "image/svg+xml"),
    b"<?xml version='1.0'?><svg/>": ("svg", "image/svg+xml"),
    b"nothing that is known": ("png", "image/png"),  # then what the server says
}


@pytest.mark.parametrize("data", KINDS)
def test_a_file_is_called_what_its_first_bytes_say(shard: ShardOnDisk, data: bytes) -> None:
    row, landed = land(shard, drawn({"b64_json": encode(data), "revised_prompt": "A red cat"}))
    extension, media_type = KINDS[data]
    path = f"media/shard-00000/000000010.1-1.{extension}"
    assert row["media"] == [
        {
            "path": path,
            "bytes": len(data),
            "media_type": media_type,
            "revised_prompt": "A red cat",
            "url": None,
        }
    ]
    assert (shard.folder / path).read_bytes() == data
    assert (landed.media.files, landed.media.bytes) == (1, len(data))


def test_an_odd_kind_never_becomes_part_of_a_name(shard: ShardOnDisk) -> None:
    row, _ = land(shard, drawn({"b64_json": encode(b"odd")}, output_format="../../x"))
    assert (row["media"][0]["path"], row["media"][0]["media_type"]) == (
        "media/shard-00000/000000010.1-1.bin",
        "application/octet-stream",
    )


def test_an_address_is_kept_as_it_was_told(shard: ShardOnDisk) -> None:
    row, landed = land(shard, drawn({"url": "https://images.invalid/1.png", "revised_prompt": "A cat"}))
    assert row["status"] == "ok"
    assert (row["media"][0]["url"], row["media"][0]["path"]) == ("https://images.invalid/1.png", None)
    assert landed.media.files == 0


WITHOUT = {
    "nothing": (drawn(), "missing_parts", "The answer has no picture in it, where 1 was asked for."),
    "null": (drawn(data=None), "missing_parts", "The answer has no picture in it, where 1 was asked for."),
    "an empty one": (drawn({"b64_json": ""}), "missing_parts", "no picture"),
    "no base64": (drawn({"b64_json": "Sorry!"}), "unreadable_answer", r"data[0].b64_json is not base64"),
    "cut base64": (drawn({"b64_json": encode(PICTURE)[:-1]}), "unreadable_answer", "is not base64"),
    "a number": (drawn({"b64_json": 7}), "missing_parts", "no picture"),
    "no list": (drawn(data="x"), "unreadable_answer", "not what /v1/images/generations returns"),
}


@pytest.mark.parametrize("name", WITHOUT)
def test_an_answer_without_a_picture_is_a_row_with_its_reason_and_was_paid(
    shard: ShardOnDisk, name: str
) -> None:
    body, code, message = WITHOUT[name]
    if "data" in body and not isinstance(body["data"], list):
        body = {**drawn(), "data": body["data"]}
    row, landed = land(shard, body, keep=True)
    assert (row["status"], row["error_code"]) == ("invalid_output", code)
    assert message in row["error_message"]
    assert landed.retryable == 1
    assert row["cost_usd"] == pytest.approx((10 * 2.5 + 40 * 4 + 1_056 * 16) / 1e6)
    assert encode(PICTURE)[:-1] not in (row["response_body"] or "")


def test_of_several_pictures_those_that_came_are_kept(shard: ShardOnDisk) -> None:
    shard.requests = [ask("a", n=3)]
    row, _ = land(shard, drawn({"b64_json": encode(PICTURE)}, {}))
    assert (row["status"], row["error_code"]) == ("invalid_output", "missing_parts")
    assert "of 3 number 2, 3 did not come" in row["error_message"]
    assert [each["path"] for each in row["media"]] == ["media/shard-00000/000000010.1-1.png"]


def test_a_better_answer_leaves_no_file_of_the_one_before(shard: ShardOnDisk) -> None:
    shard.requests = [ask("a", n=2)]
    land(shard, drawn({"b64_json": encode(b"\xff\xd8\xff")}))
    row, _ = land(shard, drawn(*({"b64_json": encode(PICTURE + bytes([n]))} for n in (1, 2))))
    names = sorted(path.name for path in (shard.folder / "media" / "shard-00000").iterdir())
    assert names == ["000000010.2-1.png", "000000010.2-2.png"]
    assert [each["path"].rpartition("/")[2] for each in row["media"]] == names


def test_what_a_later_landing_has_brought_stays(shard: ShardOnDisk) -> None:
    later = shard.folder / "media" / "shard-00000" / "000000010.2-1.png"
    later.parent.mkdir(parents=True)
    later.write_bytes(PICTURE)
    land(shard, drawn({"b64_json": encode(PICTURE)}))
    assert later.exists()


def test_landing_again_writes_no_file_that_is_there(shard: ShardOnDisk) -> None:
    row, _ = land(shard, drawn({"b64_json": encode(PICTURE)}))
    file = shard.folder / row["media"][0]["path"]
    before = file.stat()
    shard.land()
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    file.write_bytes(b"cut")
    shard.land()
    assert file.read_bytes() == PICTURE


def test_a_kept_body_has_all_but_the_picture(shard: ShardOnDisk) -> None:
    body = drawn({"b64_json": encode(PICTURE), "revised_prompt": "A cat"})
    row, _ = land(shard, body, keep=True)
    body["data"][0]["b64_json"] = None
    assert json.loads(row["response_body"]) == body


def test_a_spoken_answer_is_a_file_and_its_transcript(tmp_path: Path) -> None:
    shard = ShardOnDisk(tmp_path, endpoint=CHAT, model="gpt-audio", requests=[ask("a")])
    sound = b"RIFF\x00\x00\x00\x00WAVEfmt " + bytes(40)
    spoken = {"id": "audio_1", "data": encode(sound), "expires_at": 9, "transcript": "Good morning."}
    body = chat_body(None, audio=spoken)
    body["usage"]["prompt_tokens_details"]["audio_tokens"] = 40
    body["usage"]["completion_tokens_details"]["audio_tokens"] = 15
    row, _ = land(shard, {**body, "model": "gpt-audio"}, keep=True)
    assert (row["status"], row["content"]) == ("ok", "Good morning.")
    (found,) = row["media"]
    assert (found["path"], found["media_type"]) == ("media/shard-00000/000000010.1-1.wav", "audio/wav")
    assert (tmp_path / found["path"]).read_bytes() == sound
    assert encode(sound) not in row["response_body"]
    # Half of 60 x 2.5 + 40 x 32 + 5 x 10 + 15 x 64
    assert row["cost_usd"] == pytest.approx((60 * 2.5 + 40 * 32 + 5 * 10 + 15 * 64) / 2e6)


def test_a_picture_within_a_response_is_a_file_beside_its_text(tmp_path: Path) -> None:
    shard = ShardOnDisk(tmp_path, endpoint=RESPONSES, model="gpt-6-luna", requests=[ask("a")])
    call = {
        "type": "image_generation_call",
        "id": "ig_1",
        "status": "completed",
        "result": encode(PICTURE),
        "output_format": "png",
        "revised_prompt": "A cat in a hat",
    }
    text = {"type": "message", "content": [{"type": "output_text", "text": "Here it is."}]}
    body = {
        "status": "completed",
        "model": "gpt-6-luna",
        "output": [call, text],
        "usage": {"input_tokens": 1},
    }
    row, _ = land(shard, body, keep=True)
    assert (row["status"], row["content"], row["parsed"]) == ("ok", "Here it is.", None)
    assert (tmp_path / row["media"][0]["path"]).read_bytes() == PICTURE
    assert row["media"][0]["revised_prompt"] == "A cat in a hat"
    assert encode(PICTURE) not in row["response_body"]


def test_an_answer_of_tens_of_megabytes_lands(shard: ShardOnDisk) -> None:
    picture = PNG + bytes(24 * 2**20)
    row, landed = land(shard, drawn(*({"b64_json": encode(picture)} for _ in range(2))))
    assert [found["bytes"] for found in row["media"]] == [len(picture)] * 2
    assert landed.part_bytes < 20_000
