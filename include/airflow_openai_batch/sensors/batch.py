"""Waits until a batch is final: that of a shard, or any."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowSensorTimeout, AirflowSkipException
from airflow.sdk.bases.sensor import BaseSensorOperator, PokeReturnValue

from airflow_openai_batch.core.batch_view import BatchStatus, BatchView, describe_progress
from airflow_openai_batch.core.errors import BatchRejectedError, ConfigError
from airflow_openai_batch.core.refusals import classify_refusal, describe_refused
from airflow_openai_batch.core.shard_state import Goal
from airflow_openai_batch.core.steps import AwaitRoom
from airflow_openai_batch.operators.calling import make_caller
from airflow_openai_batch.operators.failures import task_failures
from airflow_openai_batch.operators.sending import read_policy
from airflow_openai_batch.operators.shard_step import ShardStepOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_openai_batch.triggers.batch import OpenAIBatchEndTrigger

TIMEOUT_S = 7 * 24 * 3600.0


class OpenAIBatchSensor(ShardStepOperator, BaseSensorOperator):
    """Waits until the batch is final; expired and cancelled count, since they carry paid lines.

    Deferrable by default: one worker start to look, then the triggerer waits and ends the task without another.
    With ``deferrable=False`` it pokes every ``poll_interval`` seconds (``mode="reschedule"`` frees the slot).

    For a shard it returns the shard; for a bare batch ``{"batch_id": ..., "status": ...}``.

    :param batch_id: instead of ``shard``: any batch of the connection's project.
    :param timeout: seconds after the batch's creation at which the task fails (or skips, with ``soft_fail``);
        the batch goes on, and clearing the task waits on.
    """

    goal: ClassVar[Goal] = Goal.ENDED
    template_fields: Sequence[str] = (*ShardStepOperator.template_fields, "batch_id")

    def __init__(
        self, *, batch_id: str | None = None, timeout: float | timedelta = TIMEOUT_S, **kwargs: Any
    ) -> None:
        super().__init__(timeout=timeout, **kwargs)
        self.batch_id = batch_id

    def execute(self, context: Context) -> Any:
        self.check_givers(context)
        if not self.deferrable:
            self.poke_interval = self.poll_interval_s
            return BaseSensorOperator.execute(self, context)
        if self.shard is not None:
            return super().execute(context)
        batch = self._look()
        if batch.status.is_final:
            return self._bare_result(batch)
        self.log.info("Waiting for %s: %s", batch.id, describe_progress(batch, time.time()))
        context["ti"].xcom_push("return_value", {"batch_id": batch.id, "status": "ended"})
        return self.defer(trigger=self.make_trigger(batch, context), method_name="resume")

    def resume(self, context: Context, event: Any = None, **_: Any) -> Any:
        if isinstance(event, Mapping) and event.get("status") == "timeout" and not self._is_late(context):
            text = f"{event.get('batch_id')} was not final {float(self.timeout):,.0f} s after its creation; it goes on."
            if self.soft_fail:
                raise AirflowSkipException(text)
            raise AirflowSensorTimeout(text)
        return super().resume(context, event) if self.shard is not None else self.execute(context)

    def _is_late(self, context: Context) -> bool:
        """Whether it was ``finish_within_h`` that ended the wait: then the state machine decides."""
        deadline_at = read_policy(self, make_caller(context)).deadline_at
        return deadline_at is not None and time.time() >= deadline_at

    def poke(self, context: Context) -> PokeReturnValue:
        if self.shard is not None:
            outcome = self.drive(context)
            if isinstance(outcome, AwaitRoom) and self.look_for_room(outcome):
                outcome = self.drive(context, admitted=True)
            done = outcome is None
            return PokeReturnValue(done, self.result() if done else None)
        batch = self._look()
        self.log.info("%s: %s", batch.id, describe_progress(batch, time.time()))
        return PokeReturnValue(
            batch.status.is_final, self._bare_result(batch) if batch.status.is_final else None
        )

    def make_trigger(self, batch: BatchView, context: Context) -> OpenAIBatchEndTrigger:
        trigger = super().make_trigger(batch, context)
        timeout_at = batch.created_at + float(self.timeout)
        trigger.deadline = timeout_at if trigger.deadline is None else min(timeout_at, trigger.deadline)
        trigger.finish_task = True
        return trigger

    def _look(self) -> BatchView:
        with task_failures():
            if not self.batch_id:
                raise ConfigError("either shard (an item of the split's output) or batch_id must be given.")
            self.linked_batch_id = self.batch_id
            with self._connect() as client:
                return client.fetch(self.batch_id)

    def _bare_result(self, batch: BatchView) -> dict[str, Any]:
        if batch.status is BatchStatus.FAILED:
            with task_failures():
                raise BatchRejectedError(describe_refused(batch.id, classify_refusal(batch.errors)))
        return {"batch_id": batch.id, "status": str(batch.status)}
