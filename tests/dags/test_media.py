"""Images, videos and sound through the front door: files in the job directory, and rows that name them."""

from __future__ import annotations

import base64
import io
import json
import struct
import wave
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import pyarrow.parquet as pq
import pytest

from airflow_openai_batch.openai_api.results_check import VIDEOS_UNFINISHED
from airflow_openai_batch.sending import result_looks
from airflow_openai_batch.storage.location import resolve_plain
from airflow_openai_batch.tables.join.typed_answers import read_answers
from fixtures.job import Job, chat_line

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag
    from fixtures.object_store import ObjectStore

pytestmark = pytest.mark.usefixtures("openai_conn")

PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5E"
    "rkJggg=="
)


def line(custom_id: str, endpoint: str, **body: Any) -> str:
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": f"/v1/{endpoint}", "body": body})


def draw(custom_id: str, **more: Any) -> str:
    body = {"model": "gpt-image-2", "prompt": f"A cat called {custom_id}", "size": "1024x1024", **more}
    return line(custom_id, "images/generations", **body)


def edit(custom_id: str, **more: Any) -> str:
    body = {"model": "gpt-image-2", "prompt": "In blue", "images": [{"image_url": PIXEL}], **more}
    return line(custom_id, "images/edits", **body)


def read_size(file: Path) -> tuple[int, int]:
    """Of a PNG."""
    head = file.read_bytes()[:24]
    assert head.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", head[16:24])
    return width, height


def files_of(job: Job) -> dict[str, bytes]:
    """Everything in the job directory but what OpenAI returned, verbatim."""
    return {
        str(path.relative_to(job.output)): path.read_bytes()
        for path in sorted(job.output.rglob("*"))
        if path.is_file() and "raw" not in path.relative_to(job.output).parts
    }


def test_images_become_files_that_their_rows_name(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job = Job(tmp_path).write(
        [
            *(draw(f"{n}", quality="low", n=n, size="1536x1024") for n in (1, 2)),
            edit("blue", quality="low"),
        ]
    )
    run = run_dag("openai_batch", job.conf(keep_response_body=True))
    assert run.state == "success", run.failures
    one, two, blue = job.rows()
    assert [len(row["media"]) for row in (one, two, blue)] == [1, 2, 1]
    for row in (one, two, blue):
        assert (row["status"], row["content"]) == ("ok", None)
        assert row["cost_usd"] > 0
        for found in row["media"]:
            file = job.output / found["path"]
            assert file.stat().st_size == found["bytes"]
            assert found["media_type"] == "image/png"
            assert read_size(file) == ((1024, 1024) if row is blue else (1536, 1024))
    assert two["media"][0]["path"] == "media/shard-00000/000000001.1-1.png"
    assert blue["media"][0]["path"] == "media/shard-00001/000000002.1-1.png"
    assert job.report()["media"] == {
        "files": 4,
        "bytes": sum(found["bytes"] for row in job.rows() for found in row["media"]),
    }
    assert "4 files" in (job.output / "report.md").read_text()
    answers = list(read_answers(resolve_plain(job.uri), None))
    assert answers[1].media == tuple(f"{job.uri}/{found['path']}" for found in two["media"])
    encoded = base64.b64encode((job.output / two["media"][0]["path"]).read_bytes())[:60]
    for name, content in files_of(job).items():
        assert encoded not in content, name
    assert encoded.decode() not in json.dumps([row["response_body"] for row in job.rows()])
    assert encoded.decode() not in caplog.text
    before = files_of(job)
    assert run_dag("openai_batch", job.conf(keep_response_body=True)).state == "success"
    again = files_of(job)
    assert {name for name in again if name.startswith("media/")} == {
        name for name in before if name.startswith("media/")
    }
    assert openai_server.books.billed["batch"] == 3


def film(custom_id: str, **more: Any) -> str:
    body = {"model": "sora-2", "prompt": f"A cat called {custom_id}", "size": "1280x720", **more}
    return line(custom_id, "videos", **body)


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_openai_batch.sending.result_looks.LOOK_WAITS_S", (0.05,))
    monkeypatch.setitem(result_looks.MOST_LOOKS, VIDEOS_UNFINISHED, 3)  # thirty, in two hours and more


@pytest.mark.usefixtures("short_waits")
@pytest.mark.openai_server(video_looks=3)
def test_videos_are_fetched_once_they_are_made(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(result_looks.MOST_LOOKS, VIDEOS_UNFINISHED, 30)
    openai_server.script(line="failed_video", custom_id="blocked", times=None)
    job = Job(tmp_path).write([film("good", seconds="8"), film("blocked")])
    run = run_dag("openai_batch_one_task", job.conf(max_failed_fraction=0.5))
    assert run.state == "success", run.failures
    good, blocked = job.rows()
    assert (good["status"], good["finish_reason"], good["error_code"]) == ("ok", "completed", None)
    assert json.loads(good["parsed"])["seconds"] == "8"
    (found,) = good["media"]
    assert (found["path"], found["media_type"]) == ("media/shard-00000/000000000.1-1.mp4", "video/mp4")
    file = job.output / found["path"]
    assert file.stat().st_size == found["bytes"]
    with av.open(str(file)) as video:
        assert len(list(video.decode(video=0))) == 4
    assert (blocked["status"], blocked["error_code"], blocked["media"]) == (
        "failed",
        "moderation_blocked",
        None,
    )
    assert blocked["error_message"] == "Your request was blocked by our moderation system."
    assert len(list((job.output / "state/00000").glob("*-doubted.json"))) == 3
    assert openai_server.books.billed["batch"] == 2


@pytest.mark.usefixtures("short_waits")
def test_a_video_that_is_never_made_is_given_up_in_words_and_never_asked_again(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    openai_server.script(line="stuck_video", custom_id="stuck", times=None)
    job = Job(tmp_path).write([film("stuck"), film("good")])
    assert run_dag("openai_batch_one_task", job.conf(max_failed_fraction=0.5)).state == "success"
    stuck, good = job.rows()
    assert (stuck["status"], stuck["error_code"]) == ("missing", "video_unfinished")
    assert "was queued when it was looked at last" in stuck["error_message"]
    assert (good["status"], len(good["media"])) == ("ok", 1)
    assert [line["custom_id"] for line in job.lines("failed.jsonl")] == ["stuck"]
    assert openai_server.books.billed["batch"] == 2


@pytest.mark.usefixtures("short_waits")
@pytest.mark.openai_server(video_looks=5)
def test_a_repair_looks_once_more_at_a_video_before_it_asks_for_another(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    job = Job(tmp_path).write([film("late")])
    assert run_dag("openai_batch_one_task", job.conf()).state == "failed"
    assert [row["error_code"] for row in job.rows()] == ["video_unfinished"]
    assert openai_server.books.calls_of("GET /v1/videos/*") == 4
    openai_server.emulator.get_video(json.loads(job.rows()[0]["parsed"])["id"])  # somebody else looks, too
    assert run_dag("openai_batch_one_task", job.conf(repair=True)).state == "success"
    (row,) = job.rows()
    assert (row["status"], len(row["media"])) == ("ok", 1)
    assert openai_server.books.billed["batch"] == 1


@pytest.mark.long
def test_a_budget_binds_pictures_by_their_size_and_quality(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    """10 x 7,034 x $15 a million in a batch: $1.0551."""
    job = Job(tmp_path).write(draw(str(n), quality="high") for n in range(10))
    run = run_dag("openai_batch", job.conf(max_cost_usd=1.05))
    assert run.state == "failed"
    assert "may cost up to $1.05" in run.errors("split")
    assert openai_server.books.billed["batch"] == 0
    assert run_dag("openai_batch", job.conf(max_cost_usd=1.06)).state == "success"
    assert sum(row["cost_usd"] for row in job.rows()) == pytest.approx(1.0551, abs=0.001)


@pytest.mark.long
def test_a_video_costs_what_the_connection_says_a_second_costs(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path, define_connection: Callable[..., str]
) -> None:
    job = Job(tmp_path).write([film("a", seconds="8"), film("b")])
    run = run_dag("openai_batch", job.conf(max_cost_usd=1))
    assert run.state == "failed"
    assert (
        "Say it in the connection's extra, in US dollars per second: "
        '{"prices": {"sora-2": {"input": 0, "output": 0, "second": ...}}}' in run.errors("split")
    )
    define_connection(
        "openai_default",
        conn_type="openai",
        password="sk-test",
        host=openai_server.base_url,
        extra={"prices": {"sora-2": {"input": 0, "output": 0, "second": 0.1}}},
    )
    assert "may cost up to $0.6" in run_dag("openai_batch", job.conf(max_cost_usd=0.5)).errors("split")
    assert run_dag("openai_batch", job.conf(max_cost_usd=0.6)).state == "success"
    assert [row["cost_usd"] for row in job.rows()] == pytest.approx([0.4, 0.2])  # half, in a batch
    assert job.report()["cost"]["actual_usd"] == pytest.approx(0.6)


def test_sound_pictures_and_vectors_land_beside_their_texts(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    say = {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}
    embed = {"model": "text-embedding-3-small", "input": ["one", "two"], "dimensions": 256}
    job = Job(tmp_path).write(
        [
            chat_line("said", model="gpt-audio", **say),
            line(
                "drawn", "responses", model="gpt-6-luna", input="A cat", tools=[{"type": "image_generation"}]
            ),
            line("numbers", "embeddings", **embed),
            line("base64", "embeddings", **embed, encoding_format="base64"),
        ]
    )
    run = run_dag("openai_batch_one_task", job.conf())
    assert run.state == "success", run.failures
    said, drawn, numbers, encoded = job.rows()
    assert said["content"]
    assert [each["media_type"] for each in said["media"]] == ["audio/wav"]
    with wave.open(str(job.output / said["media"][0]["path"])) as sound:
        assert sound.getnframes() == 800
    assert drawn["content"]
    assert read_size(job.output / drawn["media"][0]["path"]) == (1024, 1024)
    assert [len(vector) for vector in numbers["embeddings"]] == [256, 256]
    for told, read in zip(encoded["embeddings"], numbers["embeddings"], strict=True):
        assert told == pytest.approx(read, abs=1e-6)  # numbers are written with fewer digits
    assert job.report()["media"]["files"] == 2


def test_a_picture_asked_in_real_time_lands_the_same_way(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    job = Job(tmp_path).write([draw("a", quality="low", output_format="jpeg")])
    assert run_dag("openai_batch_one_task", job.conf(mode="auto")).state == "success"
    (row,) = job.rows()
    assert (row["sent_as"], row["media"][0]["media_type"]) == ("realtime", "image/jpeg")
    assert (job.output / row["media"][0]["path"]).read_bytes().startswith(b"\xff\xd8\xff")


WITHOUT_PICTURE = {
    "empty": ("missing_parts", "The answer has no picture in it, where 1 was asked for."),
    "missing_image": ("missing_parts", "The answer has no picture in it, where 1 was asked for."),
    "not_base64": ("unreadable_answer", "data[0].b64_json is not base64"),
}


def test_an_answer_without_a_picture_is_asked_again_and_then_a_row_with_its_reason(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    for fault in WITHOUT_PICTURE:
        openai_server.script(line=fault, custom_id=fault, times=2)
    openai_server.script(line="not_base64", custom_id="once", times=1)
    job = Job(tmp_path).write(draw(name, quality="low") for name in [*WITHOUT_PICTURE, "once"])
    run = run_dag("openai_batch_one_task", job.conf(max_attempts=2))
    assert run.state == "failed"
    *bad, once = job.rows()
    assert (once["status"], once["attempts"], len(once["media"])) == ("ok", 2, 1)
    for row in bad:
        code, message = WITHOUT_PICTURE[row["custom_id"]]
        assert (row["status"], row["error_code"], row["attempts"]) == ("invalid_output", code, 2)
        assert message in row["error_message"]
        assert row["cost_usd"] > 0
    assert "Sorry, no picture" not in (job.output / "failed.jsonl").read_text()


@pytest.mark.usefixtures("form_names_s3")
def test_pictures_lie_in_object_storage_where_the_job_does(
    run_dag: RunDag, openai_server: OpenAIServer, s3: ObjectStore
) -> None:
    s3.put("in/a.jsonl", "\n".join(draw(str(n), quality="low") for n in range(2)).encode())
    openai_server.script(line=500, custom_id="1", times=1)  # so that the shard lands twice
    conf = {"input_uri": s3.uri("in/a.jsonl"), "output_uri": s3.uri("jobs/one"), "poll_interval": 0.1}
    assert run_dag("openai_batch_one_task", {**conf, "mode": "batch"}).state == "success"
    rows = pq.read_table(io.BytesIO(s3.get("jobs/one/results/part-00000.parquet"))).to_pylist()
    paths = [row["media"][0]["path"] for row in rows]
    assert paths == ["media/shard-00000/000000000.1-1.png", "media/shard-00000/000000001.2-1.png"]
    assert [len(s3.get(f"jobs/one/{path}")) for path in paths] == [row["media"][0]["bytes"] for row in rows]
    assert [key for key in s3.keys() if "/media/" in key] == [f"jobs/one/{path}" for path in paths]  # noqa: SIM118
