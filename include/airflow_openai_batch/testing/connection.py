"""The emulator as an Airflow connection."""

from __future__ import annotations

import json
from typing import Any


def airflow_connection(base_url: str, key: str = "sk-emulator", **extra: Any) -> str:
    """The value of an environment variable ``AIRFLOW_CONN_<ID>`` that leads to an emulator.

    :param extra: of the connection, for instance ``enqueued_token_limit=90_000``.
    """
    return json.dumps({"conn_type": "openai", "password": key, "host": base_url, "extra": extra})
