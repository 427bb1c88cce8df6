"""Real-time sends in virtual time: what `airflow_openai_batch.sending.realtime.send` does, one request after another.

The answers' lines, segments and buffer are the real ones; threads and the event loop are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import openai

from airflow_openai_batch.errors import FatalAccountError
from airflow_openai_batch.openai_api.client_errors import translate_error
from airflow_openai_batch.sending.realtime.lines import read_call, write_answer
from airflow_openai_batch.sending.realtime.segments import SegmentBuffer
from simulation.sdk import SimulatedOpenAI

if TYPE_CHECKING:
    from airflow_openai_batch.job.shard_state import ShardState
    from airflow_openai_batch.sending.shard_files import ShardFiles
    from simulation.tasks import Job
    from simulation.world import Process

TRIES = 4
SIGN_OF_LIFE_S = 300.0


class RealtimeSender:
    """Answers what the current send of a shard carries."""

    def __init__(self, job: Job, process: Process, files: ShardFiles) -> None:
        self._job = job
        self._world = job.world
        self._files = files
        self._endpoint = files.shard.endpoint
        self._api = SimulatedOpenAI(job.emulator, process, job.purse)
        self._unwritten: set[str] = set()
        self._show_life: Callable[[], None] = lambda: None
        self._shown_at = 0.0

    def send(self, state: ShardState, show_life: Callable[[], None]) -> None:
        """:raises RemoteError: if OpenAI cannot be reached, or will not serve the account."""
        segments = self._files.open_segments(state.send)
        answered = set(segments.read_answered())
        self._job.purse.check_realtime(self._job.emulator, state.content, len(answered))
        buffer = SegmentBuffer(segments, clock=self._world.now)
        self._show_life, self._shown_at = show_life, self._world.now()
        try:
            for request in self._files.read_content(state.content):
                call = read_call(request, self._endpoint)
                if call.custom_id not in answered:
                    buffer.add(self._ask(call.custom_id, msgspec.json.decode(call.body)))
                if buffer.is_due:
                    self._flush(buffer)
            self._flush(buffer)
        except Exception:
            self._flush(buffer)
            raise
        finally:
            self._lose(set(self._unwritten))

    def _lose(self, custom_ids: set[str]) -> None:
        """Answers that were paid for and will not be written: nobody can know of them."""
        self._job.lost_answers.update(self._unwritten & custom_ids)
        self._unwritten -= custom_ids

    def _flush(self, buffer: SegmentBuffer) -> None:
        buffer.flush()
        self._unwritten.clear()

    def _ask(self, custom_id: str, body: Any) -> bytes:
        for tries_left in reversed(range(TRIES)):
            if self._world.now() - self._shown_at >= SIGN_OF_LIFE_S:
                self._show_life()
                self._shown_at = self._world.now()
            try:
                answer = self._api.call_model(self._endpoint, body, lambda: self._unwritten.add(custom_id))
            except openai.OpenAIError as error:
                self._lose({custom_id})
                meaning = translate_error(error, "sending in real time")
                if isinstance(meaning, FatalAccountError):
                    raise meaning from None
                if tries_left and not meaning.permanent:
                    self._world.sleep(2.0)
                    continue
                if not isinstance(error, openai.APIStatusError):
                    raise meaning from None
                refusal = msgspec.json.encode({"error": error.body})
                return write_answer(custom_id, error.status_code, None, refusal)
            else:
                return write_answer(custom_id, 200, "req_realtime", msgspec.json.encode(answer))
        raise AssertionError("unreachable")
