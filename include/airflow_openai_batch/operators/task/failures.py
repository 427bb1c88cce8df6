"""Our errors as Airflow takes them: permanent ones fail the task without retries."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException
from airflow.sdk import get_current_context

from airflow_openai_batch.errors import NoPlanError, OpenAIBatchError
from airflow_openai_batch.operators.task.local_disk import explain_missing_plan

ERROR = "error"
"""The XCom with the words of our errors, which hold nothing of requests, answers and keys."""
ERROR_CHARS = 600


class OpenAIBatchException(AirflowException):
    """A failure that a retry may cure; the message is that of the error behind it."""


@contextlib.contextmanager
def task_failures() -> Iterator[None]:
    """Raise `AirflowFailException` for permanent errors, `OpenAIBatchException` for the others.

    The chain is cut: what lies below may hold headers and bodies.
    """
    try:
        yield
    except NoPlanError as error:
        raise AirflowFailException(_tell(explain_missing_plan(error))) from None
    except OpenAIBatchError as error:
        kind = AirflowFailException if error.permanent else OpenAIBatchException
        raise kind(_tell(str(error))) from None


def _tell(message: str) -> str:
    """Leave it for the alert of the run, too: Airflow tells nobody else why a task failed. The next try clears it.

    What UTF-8 cannot hold is escaped: half of a surrogate pair, of a file's name or of a form, ends the task's process
    before it has told Airflow anything.
    """
    message = message.encode(errors="backslashreplace").decode()
    with contextlib.suppress(Exception):
        get_current_context()["ti"].xcom_push(ERROR, message[:ERROR_CHARS])
    return message
