"""What a connection says of prices."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_openai_batch.openai_api.own_prices import OwnPrices


def find_own_prices(conn_id: str) -> OwnPrices:
    """:raises ConfigError: for what is no price."""
    from airflow_openai_batch.hooks.openai_batch import (
        OpenAIBatchHook,  # a second of imports, see `DEFAULT_CONN_ID`
    )

    return OpenAIBatchHook(conn_id).get_own_prices()
