"""What Airflow's provider list shows of this package."""

from __future__ import annotations

from typing import Any

from airflow_openai_batch import __version__


def get_provider_info() -> dict[str, Any]:
    """The description that the entry point ``apache_airflow_provider`` hands to Airflow."""
    return {
        "package-name": "airflow-provider-openai-batch",
        "name": "OpenAI Batch",
        "description": "Any number of requests through OpenAI's Batch API, one accounted-for result for each.",
        "versions": [__version__],
    }
