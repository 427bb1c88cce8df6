"""The monthly budget of a connection, and where its book lies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_openai_batch.access.locations import resolve_location
from airflow_openai_batch.access.settings import find_books_folder
from airflow_openai_batch.costs.monthly_book import MonthlyBook
from airflow_openai_batch.costs.monthly_budget import MonthlyBudget

if TYPE_CHECKING:
    from airflow_openai_batch.hooks.openai_batch import OpenAIBatchHook


def find_monthly_budget(hook: OpenAIBatchHook) -> MonthlyBudget | None:
    """``None`` where the connection says none.

    :raises ConfigError: if what it says is no amount, or a price of it none.
    """
    amount_usd = hook.get_limits().monthly_budget_usd
    if amount_usd is None:
        return None
    book = MonthlyBook(resolve_location(find_books_folder(hook.conn_id)))
    return MonthlyBudget(
        book=book, conn_id=hook.conn_id, monthly_budget_usd=amount_usd, own_prices=hook.get_own_prices()
    )
