"""What Airflow loads through the entry point ``airflow.plugins``."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin


class OpenAIBatchPlugin(AirflowPlugin):
    """Everything this package adds to Airflow beyond operators."""

    name = "openai_batch"
