"""The emulator's videos: jobs that take their time, and a short clip for each that is made."""

from __future__ import annotations

import importlib
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_openai_batch.testing.refusals import ApiError

if TYPE_CHECKING:
    from airflow_openai_batch.testing.replies.shapes import ReplyDraft
    from airflow_openai_batch.testing.settings import Settings

JSON = dict[str, Any]

_DEFAULT_SIZE = "720x1280"
_KEPT_S = 86_400
_SHRINK = 20
"""Nobody looks at it: one pixel for so many, each way."""
_FRAMES = 4


@dataclass(slots=True)
class _Job:
    shown: JSON
    ready_at: float
    looks: int
    """Before it is ready."""
    fate: str | None


@dataclass(slots=True)
class Videos:
    """All jobs, by id."""

    _jobs: dict[str, _Job] = field(default_factory=dict)

    def begin(self, draft: ReplyDraft, settings: Settings, spoil: str | None) -> JSON:
        """A new job, as ``POST /v1/videos`` answers.

        :param spoil: ``failed_video`` or ``stuck_video``.
        """
        body, video_id = draft.body, f"video_{draft.id}"
        shown = {
            "id": video_id,
            "object": "video",
            "created_at": draft.created,
            "completed_at": None,
            "expires_at": None,
            "error": None,
            "model": draft.model,
            "progress": 0,
            "prompt": body.get("prompt"),
            "remixed_from_video_id": None,
            "seconds": str(body.get("seconds") or "4"),
            "size": body.get("size") or _DEFAULT_SIZE,
            "status": "queued",
        }
        self._jobs[video_id] = _Job(shown, draft.created + settings.video_s, settings.video_looks, spoil)
        return dict(shown)

    def look_at(self, video_id: str, now: float) -> JSON:
        """:raises ApiError: 404."""
        shown = self._show(video_id, now)
        self._jobs[video_id].looks -= 1
        return shown

    def _show(self, video_id: str, now: float) -> JSON:
        job = self._find(video_id)
        if now < job.ready_at or job.looks > 0 or job.fate == "stuck_video":
            began_at = job.shown["created_at"]
            share = min(0.99, (now - began_at) / max(1.0, job.ready_at - began_at))
            return {**job.shown, "status": "in_progress", "progress": round(100 * share)}
        if job.fate == "failed_video":
            error = {
                "code": "moderation_blocked",
                "message": "Your request was blocked by our moderation system.",
            }
            return {**job.shown, "status": "failed", "error": error}
        done_at = int(job.ready_at)
        times = {"completed_at": done_at, "expires_at": done_at + _KEPT_S}
        return {**job.shown, **times, "status": "completed", "progress": 100}

    def read_content(self, video_id: str, now: float) -> bytes:
        """:raises ApiError: 404; 400 where it is not made."""
        shown = self._show(video_id, now)
        if shown["status"] != "completed":
            raise ApiError(400, f"Video is not ready yet, use GET /v1/videos/{video_id} to check status.")
        width, height = map(int, shown["size"].split("x"))
        return draw_clip(width // _SHRINK * 2, height // _SHRINK * 2, seed=video_id.encode())

    def _find(self, video_id: str) -> _Job:
        if video_id not in self._jobs:
            raise ApiError(404, f"Video with id '{video_id[:100]}' not found.", code="video_not_found")
        return self._jobs[video_id]


def draw_clip(width: int, height: int, seed: bytes) -> bytes:
    """An MP4 of one colour; without the extra ``video`` its first bytes alone."""
    head = b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom"
    try:
        av = importlib.import_module("av")
    except ImportError:
        return head + seed
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=_FRAMES)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        frame = av.VideoFrame(width, height, "yuv420p")
        for number, plane in enumerate(frame.planes):
            plane.update(bytes([seed[-1 - number]]) * plane.buffer_size)
        for number in range(_FRAMES):
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()
