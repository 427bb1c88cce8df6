"""What tasks import, for a worker that forks a process for each: what it has, its forks need not import.

Of the 1.7 seconds of a core that a short task took on Celery with S3, more than one went to imports. How to use it:
docs/many-machines.md, "Workers that fork".
"""

from __future__ import annotations

import fsspec
import openai.resources.batches
import openai.resources.chat.completions
import openai.resources.files
import pyarrow.parquet  # noqa: F401
from airflow.sdk.io.fs import has_fs

import airflow_openai_batch.hooks.openai_batch
import airflow_openai_batch.operators.download
import airflow_openai_batch.operators.report
import airflow_openai_batch.operators.split
import airflow_openai_batch.requests.json_schema
import airflow_openai_batch.sending.realtime.send
import airflow_openai_batch.sensors.batch
import airflow_openai_batch.triggers.batch
import airflow_openai_batch.triggers.room  # noqa: F401
from airflow_openai_batch.openai_api.models import list_priced_models


def warm_up(*protocols: str) -> None:
    """Do what importing this module alone does not.

    Starts no thread and opens no connection, since neither would be whole in a fork.

    :param protocols: storages whose file systems are to be imported, as they stand in URIs: ``s3``, ``gs``.
    """
    has_fs("file")  # reads what all providers say of themselves
    openai.OpenAI(api_key="none").close()  # imports what the first client needs
    list_priced_models()  # reads the prices
    for protocol in protocols:
        fsspec.get_filesystem_class(protocol)
