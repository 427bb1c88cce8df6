"""Patience with calls that may be repeated without harm. A task's own retries come after these."""

from __future__ import annotations

import tenacity

from airflow_openai_batch.errors import DownloadError, TransientError

RETRY = tenacity.Retrying(
    retry=tenacity.retry_if_exception_type(TransientError),
    wait=tenacity.wait_exponential_jitter(initial=1, max=20),
    stop=tenacity.stop_after_attempt(5),
    reraise=True,
)
DOWNLOAD_RETRY = RETRY.copy(retry=tenacity.retry_if_exception_type((TransientError, DownloadError)))
DESCRIBE_RETRY = RETRY.copy(stop=tenacity.stop_after_attempt(2))
