"""The monthly budget of a connection, and where its book lies."""

from __future__ import annotations

from airflow_openai_batch.access.locations import resolve_location
from airflow_openai_batch.access.settings import find_books_folder
from airflow_openai_batch.costs.monthly_book import MonthlyBook
from airflow_openai_batch.costs.monthly_budget import MonthlyBudget


def find_monthly_budget(conn_id: str) -> MonthlyBudget | None:
    """``None`` where the connection says none.

    :raises ConfigError: if what it says is no amount, or a price of it none.
    """
    from airflow_openai_batch.hooks.openai_batch import (
        OpenAIBatchHook,  # a second of imports, see `DEFAULT_CONN_ID`
    )

    hook = OpenAIBatchHook(conn_id)
    amount_usd = hook.get_limits().monthly_budget_usd
    if amount_usd is None:
        return None
    book = MonthlyBook(resolve_location(find_books_folder(conn_id)))
    return MonthlyBudget(
        book=book, conn_id=conn_id, monthly_budget_usd=amount_usd, own_prices=hook.get_own_prices()
    )
