"""Our errors as Airflow takes them: permanent ones fail the task without retries."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_openai_batch.core.errors import NoPlanError, OpenAIBatchError
from airflow_openai_batch.operators.local_disk import explain_missing_plan


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
        raise AirflowFailException(explain_missing_plan(error)) from None
    except OpenAIBatchError as error:
        kind = AirflowFailException if error.permanent else OpenAIBatchException
        raise kind(str(error)) from None
