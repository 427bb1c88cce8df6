"""Answers of ``/v1/videos``: the job of a video, as it was when the batch ended, or later when it was looked at."""

from __future__ import annotations

import re
from typing import Any

from airflow_openai_batch.openai_api import lenient_json
from airflow_openai_batch.openai_api.answer_parts import (
    VIDEO_UNFINISHED,
    Media,
    ResponseContent,
    Usage,
    string,
)
from airflow_openai_batch.openai_api.response_bodies import OddShapeError, ShapeReader, VideoBody

STORED = "stored_bytes"
"""What is added to the job of a video that lies in the job directory: its size there."""
COMPLETED, FAILED = "completed", "failed"
_ID = re.compile(r"[A-Za-z0-9._:=~+@,-]{1,1000}")

_video = ShapeReader(VideoBody).read


def read_video(body: bytes) -> ResponseContent:
    """The job; the video itself, where it was fetched."""
    root = _video(body)
    video_id = find_video_id(root.id)
    if video_id is None:
        raise OddShapeError("id is none")
    status = string(root.status)
    answer = ResponseContent(
        structured=_without_stored(body),
        finish_reason=status,
        model=string(root.model),
        has_text=False,
    )
    if status == FAILED:
        error = root.error if isinstance(root.error, dict) else {}
        answer.defect = string(error.get("code")) or "video_failed"
        answer.defect_message = string(error.get("message")) or f"{video_id} failed, without a reason."
    elif status == COMPLETED and type(root.stored_bytes) is int:
        answer.media = [Media(stored_bytes=root.stored_bytes, told_type="video/mp4")]
        answer.usage = Usage(seconds=_read_seconds(root.seconds))
    else:
        where = "made, and could not be fetched" if status == COMPLETED else f"{status or 'without a status'}"
        answer.defect = VIDEO_UNFINISHED
        answer.defect_message = (
            f"{video_id} was {where} when it was looked at last. A repair looks at it once more, and asks again for "
            "what is not there then."
        )
    return answer


def find_video_id(value: Any) -> str | None:
    """None of what cannot be part of an address without leading anywhere else."""
    return value if isinstance(value, str) and _ID.fullmatch(value) and ".." not in value else None


def _read_seconds(value: Any) -> float | None:
    """A text, with OpenAI."""
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        return None
    return seconds if 0 <= seconds < 1e6 else None


def _without_stored(body: bytes) -> str:
    root = lenient_json.decode(body)
    return lenient_json.encode({name: value for name, value in root.items() if name != STORED})
