"""Creates the batch of a shard, or of any file that is at OpenAI already."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_openai_batch.access.givers import find_giver
from airflow_openai_batch.access.permissions import check_conn_id
from airflow_openai_batch.errors import BudgetError, ConfigError
from airflow_openai_batch.job.shard_state import Goal
from airflow_openai_batch.openai_api.batch import BatchView, choose_kept
from airflow_openai_batch.operators.task.caller import make_caller
from airflow_openai_batch.operators.task.failures import task_failures
from airflow_openai_batch.operators.task.handover import MayBeginInTriggerer
from airflow_openai_batch.operators.task.monthly_budget import find_monthly_budget
from airflow_openai_batch.operators.task.shard_step import ShardStepOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_openai_batch.openai_api.client import BatchClient


class OpenAIBatchCreateOperator(MayBeginInTriggerer, ShardStepOperator):
    """Creates the batch once: looks for one that a dead process may have created before it creates.

    Right after an `OpenAIBatchUploadOperator` with the same parameters, which creates the batch where nothing has to be
    waited for, it begins in the triggerer, and ends there where the batch is there (Airflow 3.3).

    For a shard it returns the shard; for a bare file ``{"batch_id": ...}``.

    :param input_file_id: instead of ``shard``: a file that was uploaded with purpose ``batch``.
    :param endpoint: with ``input_file_id``: the endpoint of its lines.
    :param metadata: with ``input_file_id``: pairs to add to the batch's metadata.
    """

    goal: ClassVar[Goal] = Goal.CREATED
    hands_over: ClassVar[bool] = True
    template_fields: Sequence[str] = (
        *ShardStepOperator.template_fields,
        "input_file_id",
        "endpoint",
        "metadata",
    )

    def __init__(
        self,
        *,
        input_file_id: str | None = None,
        endpoint: str = "/v1/chat/completions",
        metadata: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.input_file_id = input_file_id
        self.endpoint = endpoint
        self.metadata = metadata

    def execute(self, context: Context) -> dict[str, Any]:
        if self.shard is not None:
            return super().execute(context)
        with task_failures():
            return self._create_bare(context)

    def _create_bare(self, context: Context) -> dict[str, Any]:
        if not self.input_file_id:
            raise ConfigError("either shard (an item of the split's output) or input_file_id must be given.")
        check_conn_id(self.conn_id, find_giver(context, "conn_id"))
        if find_monthly_budget(self.hook) is not None:
            raise BudgetError(
                f"connection {self.conn_id!r} has a monthly_budget_usd, and what {self.input_file_id} may cost is not "
                "known. Nothing was sent. Use a connection without a budget, or give the requests to a split."
            )
        with self._connect() as client:
            batch = self._find_or_create(client, self.input_file_id, context)
        self.linked_batch_id = batch.id
        return {"batch_id": batch.id}

    def _find_or_create(self, client: BatchClient, input_file_id: str, context: Context) -> BatchView:
        caller = make_caller(context)
        key = hashlib.sha256(f"{input_file_id}|{self.endpoint}|{caller.instance}".encode()).hexdigest()
        # No batch is older than its file, by the server's own clock; the run's start moves when it is cleared.
        file = client.describe_file(input_file_id)
        since = 0.0 if file is None or file.created_at is None else file.created_at
        # Where no metadata is kept, a batch of this file is taken for this task's: better than one that is paid twice.
        files = () if client.keeps_metadata else (input_file_id,)
        batch, duplicates = choose_kept(list(client.find(key, since, files=files)))
        for duplicate in duplicates:
            client.cancel_if_possible(duplicate.id)
        if batch is not None:
            self.log.info("Resumed from created (%s), nothing sent again.", batch.id)
            return batch
        batch = client.create(
            input_file_id=input_file_id,
            endpoint=self.endpoint,
            metadata={**(self.metadata or {}), "job_key": key, **caller.to_metadata()},
        )
        self.log.info("Created %s.", batch.id)
        return batch
