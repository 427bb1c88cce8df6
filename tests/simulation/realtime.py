"""Sends one by one in virtual time: what `airflow_openai_batch.sending.realtime.send` does, one request after another.

The answers' lines, segments and buffer are the real ones; threads and the event loop are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import openai

from airflow_openai_batch.errors import FatalAccountError, NoCapacityError, NoFlexError
from airflow_openai_batch.openai_api.client_errors import translate_error
from airflow_openai_batch.openai_api.flex import read_flex_refusal
from airflow_openai_batch.sending.realtime.capacity import FLEX_PATIENCE_S
from airflow_openai_batch.sending.realtime.lines import Call, read_call, write_answer
from airflow_openai_batch.sending.realtime.segments import SegmentBuffer
from airflow_openai_batch.sending.realtime.send import RealtimeSend
from airflow_openai_batch.sending.realtime.time_left import TimeLeft
from simulation.sdk import SimulatedOpenAI

if TYPE_CHECKING:
    from airflow_openai_batch.job.shard_state import ShardState
    from airflow_openai_batch.sending.shard_files import ShardFiles
    from airflow_openai_batch.sending.steps import SendRealtime
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
        self._refused_since: float | None = None

    def send(self, state: ShardState, show_life: Callable[[], None], step: SendRealtime) -> RealtimeSend:
        """:raises RemoteError: if OpenAI cannot be reached, or will not serve the account, or flex has no room."""
        segments = self._files.open_segments(state.send)
        answered = set(segments.read_answered())
        flex = step.lane == "flex"
        self._job.purse.check_one_by_one(self._job.emulator, state.content, len(answered), flex=flex)
        buffer = SegmentBuffer(segments, clock=self._world.now)
        began_at = self._world.now()
        self._show_life, self._shown_at, self._refused_since = show_life, began_at, None
        budget_s = None if step.until is None else step.until - began_at
        time_left = TimeLeft(budget_s, requests=state.content.requests, rest_per_s=step.rest_per_s)
        asked = 0

        def tell(*, finished: bool) -> RealtimeSend:
            self._flush(buffer)
            seconds = self._world.now() - began_at
            return RealtimeSend(
                answered=asked, failed=0, kept=len(answered), segments=0, seconds=seconds, finished=finished
            )

        try:
            for request in self._files.read_content(state.content):
                call = read_call(request, self._endpoint, flex=flex)
                if call.custom_id in answered:
                    continue
                if time_left.is_over(self._world.now() - began_at, len(answered) + asked):
                    return tell(finished=False)
                self._world.sleep(self._world.scenario.answer_s.get(step.lane, 0.0))
                buffer.add(self._ask(call))
                asked += 1
                if buffer.is_due:
                    self._flush(buffer)
            return tell(finished=True)
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

    def _ask(self, call: Call) -> bytes:
        body: Any = msgspec.json.decode(call.body)
        tries_left = TRIES
        while True:
            if self._world.now() - self._shown_at >= SIGN_OF_LIFE_S:
                self._show_life()
                self._shown_at = self._world.now()
            try:
                answer = self._api.call_model(
                    self._endpoint, body, lambda: self._unwritten.add(call.custom_id)
                )
            except openai.OpenAIError as error:
                self._lose({call.custom_id})
                if call.flex and self._meets_no_room(error):
                    continue
                tries_left -= 1
                meaning = translate_error(error, "sending in real time")
                if isinstance(meaning, FatalAccountError):
                    raise meaning from None
                if tries_left and not meaning.permanent:
                    self._world.sleep(2.0)
                    continue
                if not isinstance(error, openai.APIStatusError):
                    raise meaning from None
                refusal = msgspec.json.encode({"error": error.body})
                return write_answer(call.custom_id, error.status_code, None, refusal, flex=call.flex)
            self._refused_since = None
            return write_answer(
                call.custom_id, 200, "req_realtime", msgspec.json.encode(answer), flex=call.flex
            )

    def _meets_no_room(self, error: openai.OpenAIError) -> bool:
        refusal = read_flex_refusal(error) if isinstance(error, openai.APIStatusError) else None
        if refusal == "no_flex":
            raise NoFlexError("OpenAI answered 400") from None
        if refusal is None:
            return False
        now = self._world.now()
        self._refused_since = now if self._refused_since is None else self._refused_since
        if now - self._refused_since > FLEX_PATIENCE_S:
            raise NoCapacityError("flex has no capacity") from None
        self._world.sleep(30.0)
        return True
