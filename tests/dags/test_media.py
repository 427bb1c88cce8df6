"""Images, videos and sound through the front door: files in the job directory, and rows that name them."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.job import Job

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag

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
