"""What a connection says of prices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_openai_batch.access.permissions import check_conn_id
from airflow_openai_batch.operators.task.parameters import DEFAULT_CONN_ID

if TYPE_CHECKING:
    from airflow_openai_batch.access.givers import Giver
    from airflow_openai_batch.openai_api.own_prices import OwnPrices


def find_own_prices(conn_id: str) -> OwnPrices:
    """:raises ConfigError: for what is no price."""
    from airflow_openai_batch.hooks.openai_batch import (
        OpenAIBatchHook,  # a second of imports, see `DEFAULT_CONN_ID`
    )

    return OpenAIBatchHook(conn_id).get_own_prices()


def find_prices_of_named(conn_id: str | None, giver: Giver) -> OwnPrices:
    """As `find_own_prices`, of a connection that need not be named.

    :param giver: who named it.
    :raises NotAllowedError: if that one may not.
    """
    named = (conn_id or "").strip()
    if named:
        check_conn_id(named, giver)
    return find_own_prices(named or DEFAULT_CONN_ID)
