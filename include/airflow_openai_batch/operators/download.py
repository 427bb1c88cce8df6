"""Brings the answers home: a shard's into rows, any batch's into files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import DownstreamTasksSkipped

from airflow_openai_batch.access.givers import find_giver
from airflow_openai_batch.access.locations import open_place
from airflow_openai_batch.access.permissions import check_conn_id
from airflow_openai_batch.errors import ConfigError, TransientError
from airflow_openai_batch.job.shard_state import Goal, is_reached
from airflow_openai_batch.operators.report import OpenAIBatchReportOperator
from airflow_openai_batch.operators.shard import LandingOperator, OpenAIBatchResendOperator
from airflow_openai_batch.operators.task.done_steps import find_done_steps
from airflow_openai_batch.operators.task.failures import task_failures
from airflow_openai_batch.operators.task.ownership import check_folder
from airflow_openai_batch.operators.task.run_place import make_path_safe

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_openai_batch.openai_api.client import BatchClient
    from airflow_openai_batch.storage.location import Location


class OpenAIBatchDownloadOperator(LandingOperator):
    """Streams output and error file into object storage and, for a shard, writes its result rows.

    For a shard it returns the shard; for a bare batch ``{"batch_id", "status", "output", "error"}`` with the URIs
    of the files (``None`` where OpenAI wrote none).

    Where all rows have landed, a resend after it is skipped, if only reports with the trigger rule ``all_done`` come
    after that one.

    :param batch_id: instead of ``shard``: any batch that is final.
    :param output_uri: with ``batch_id``: the directory for ``<batch_id>.output.jsonl`` and ``.error.jsonl``.
    """

    goal: ClassVar[Goal] = Goal.LANDED
    hands_over: ClassVar[bool] = True
    template_fields: Sequence[str] = (*LandingOperator.template_fields, "batch_id", "output_uri")

    def __init__(self, *, batch_id: str | None = None, output_uri: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.batch_id = batch_id
        self.output_uri = output_uri

    def execute(self, context: Context) -> dict[str, Any]:
        if self.shard is not None:
            return super().execute(context)
        with task_failures():
            return self._download_bare(context)

    def _hand_over(self, context: Context) -> None:
        """A task that begins in the triggerer only to end there costs no worker, but its run 2.5 s in the end."""
        is_done = self._state is not None and is_reached(self._state, Goal.DONE)
        steps = find_done_steps(self, OpenAIBatchResendOperator, OpenAIBatchReportOperator) if is_done else []
        if not steps:
            return super()._hand_over(context)
        ti = context["ti"]
        if self.do_xcom_push:
            ti.xcom_push("return_value", self.result())  # Airflow forgets it after this error
        # Airflow's own `skip` leaves mapped task groups alone.
        raise DownstreamTasksSkipped(tasks=[(step, ti.map_index) for step in steps])  # type: ignore[no-untyped-call]

    def _download_bare(self, context: Context) -> dict[str, Any]:
        if not (self.batch_id and self.output_uri):
            raise ConfigError(
                "either shard (an item of the split's output) or batch_id and output_uri must be given."
            )
        giver = find_giver(context, "output_uri")
        folder = open_place(self.output_uri.rstrip("/"), "output", giver)
        check_folder(folder, context["ti"].dag_id, giver)
        check_conn_id(self.conn_id, find_giver(context, "conn_id"))
        with self._connect() as client:
            return self._download_files(client, self.batch_id, folder)

    def _download_files(self, client: BatchClient, batch_id: str, folder: Location) -> dict[str, Any]:
        batch = client.fetch(batch_id)
        self.linked_batch_id = batch.id
        if not batch.status.is_final:
            raise TransientError(f"{batch.id} is {batch.status}: wait for it with OpenAIBatchSensor first.")
        if batch.completed and not batch.output_file_id:
            raise TransientError(
                f"{batch.id} is {batch.status} with {batch.completed:,} answers by its counts, and names no output "
                "file yet. The file is looked for again when the task is tried again."
            )
        result: dict[str, Any] = {"batch_id": batch.id, "status": str(batch.status)}
        lines = 0
        for kind, file_id in (("output", batch.output_file_id), ("error", batch.error_file_id)):
            target = folder.child(f"{make_path_safe(batch_id)}.{kind}.jsonl")  # as asked, not as answered
            least = batch.completed if kind == "output" else max(0, batch.completed + batch.failed - lines)
            if file_id:
                received = client.download(file_id, target, lines_at_least=least)
                lines += received.lines
                self.log.info("Downloaded %s bytes to %s.", f"{received.bytes:,}", target.uri)
            result[kind] = target.uri if file_id else None
        return result
