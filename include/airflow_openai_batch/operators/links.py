"""The button that leads from a task to its batch at OpenAI."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

OPENAI_PAGE = "https://platform.openai.com/batches/{batch_id}"


class OpenAIBatchLink(BaseOperatorLink):
    """Shown once the task knows its batch; while it waits, too.

    Airflow asks for the link in the worker, at the end of each run of the task (also when it defers), and keeps
    the answer as an XCom.
    """

    name = "OpenAI batch"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        batch_id = getattr(operator, "linked_batch_id", None)
        return describe_link(batch_id)


def describe_link(batch_id: str | None) -> str:
    """The address of a batch's page at OpenAI; "" where there is no batch."""
    return OPENAI_PAGE.format(batch_id=batch_id) if batch_id else ""
