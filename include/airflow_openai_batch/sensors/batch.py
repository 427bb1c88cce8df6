"""Waits until a batch is final: that of a shard, or any."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowSensorTimeout, AirflowSkipException
from airflow.sdk.bases.sensor import BaseSensorOperator, PokeReturnValue

from airflow_openai_batch.errors import BatchRejectedError, ConfigError
from airflow_openai_batch.job.shard_state import Goal
from airflow_openai_batch.openai_api.batch import BatchStatus, BatchView, describe_progress
from airflow_openai_batch.operators.task.caller import make_caller
from airflow_openai_batch.operators.task.failures import task_failures
from airflow_openai_batch.operators.task.handover import MayBeginInTriggerer, may_end_in_triggerer
from airflow_openai_batch.operators.task.sending import read_policy
from airflow_openai_batch.operators.task.shard_step import ShardStepOperator
from airflow_openai_batch.sending.queue.refusals import classify_refusal, describe_refused
from airflow_openai_batch.sending.steps import AwaitRoom

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_openai_batch.triggers.batch import OpenAIBatchEndTrigger

TIMEOUT_S = 7 * 24 * 3600.0
_NEVER_S = 1e12


class OpenAIBatchSensor(MayBeginInTriggerer, ShardStepOperator, BaseSensorOperator):
    """Waits until the batch is final; expired and cancelled count, since they carry paid lines.

    Deferrable by default: one worker start to look, then the triggerer waits and ends the task without another. After
    an `OpenAIBatchCreateOperator` it begins in the triggerer, and needs no worker unless there is something to decide.
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
        trigger = self.make_trigger(batch, context)
        if trigger.finish_task and self.do_xcom_push:
            context["ti"].xcom_push("return_value", {"batch_id": batch.id, "status": "ended"})
        return self.defer(trigger=trigger, method_name="resume")

    def resume(self, context: Context, event: Any = None, **_: Any) -> Any:
        status = event.get("status") if isinstance(event, Mapping) else None
        # Releases before 3 of the trigger's schema said the same where finish_within_h was over.
        if status == "timed_out" or (status == "timeout" and not self._is_late(context)):
            text = (
                f"{event.get('batch_id')} was not final within timeout={float(self.timeout):,.0f} s of its creation"
                f"{self._name_deadline()}; it goes on. Clear the task to wait on."
            )
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
            if isinstance(outcome, AwaitRoom) and self.ask_for_room(outcome):
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
        now = time.time()
        timeout_at = batch.created_at + float(self.timeout)
        # Whoever clears a task that has timed out wants to wait on.
        trigger.timeout_at = timeout_at if timeout_at > now else now + float(self.timeout)
        if self.shard is None:  # nobody here cancels a batch that is not a shard's, or sends it another way
            if trigger.deadline is not None:
                trigger.timeout_at = min(trigger.timeout_at, max(trigger.deadline, now))
            trigger.deadline, trigger.overdue_after = None, _NEVER_S
        trigger.finish_task = may_end_in_triggerer(self)
        return trigger

    def _name_deadline(self) -> str:
        return " or finish_within_h of the run's start" if self.shard is None and self.finish_within_h else ""

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
