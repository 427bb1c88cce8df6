"""What Airflow loads through the entry point ``airflow.plugins``: in every component, so it stays small.

FastAPI, SQLAlchemy's models and the client are imported where the API server asks for the app, and nowhere else.
"""

from __future__ import annotations

import logging
from functools import cached_property
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from airflow_openai_batch.plugin.views import NAME, PREFIX, REACT_APPS

log = logging.getLogger(__name__)


class OpenAIBatchPlugin(AirflowPlugin):
    """Everything this package adds to Airflow beyond operators."""

    name = "openai_batch"
    react_apps = REACT_APPS

    @cached_property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """Asked for by the API server alone. An app that cannot be built must not keep Airflow's from starting."""
        try:
            from airflow_openai_batch.plugin.app import make_app

            return [{"app": make_app(), "url_prefix": PREFIX, "name": NAME}]
        except Exception:
            log.exception("The page 'OpenAI batches' cannot be shown by this version of Airflow.")
            return []
