"""Flex processing: requests one by one at the price of a batch, where the server has room for them.

Sources: OpenAI's guide to flex processing and its table of error codes; how other servers word the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from airflow_openai_batch.openai_api.endpoints import Endpoint

if TYPE_CHECKING:
    from airflow_openai_batch.openai_api.realtime_client import APIStatusError

FLEX_ENDPOINTS = frozenset({Endpoint.CHAT_COMPLETIONS, Endpoint.RESPONSES})
FLEX_TIMEOUT_S = 900.0
"""OpenAI's advice for one call."""

FlexRefusal = Literal["no_capacity", "no_flex"]

_NO_CAPACITY_CODES = frozenset({"resource_unavailable", "capacity_exceeded"})
"""OpenAI's, with status 429, and Groq's, with status 498. A rate limit has others: ``rate_limit_exceeded``."""
_NO_CAPACITY_STATUS = frozenset({429, 498, 503})
_NO_FLEX_STATUS = frozenset({400, 422})


def describe_endpoint_without_flex(endpoint: str) -> str:
    """For errors."""
    return f"flex is for {' and '.join(sorted(FLEX_ENDPOINTS))}, and there are requests for {endpoint}."


def read_flex_refusal(error: APIStatusError) -> FlexRefusal | None:
    """What a refusal of a request with ``service_tier: flex`` says of flex; None where it is about something else.

    Neither is billed. ``no_capacity`` passes. ``no_flex`` is for good: the model has no flex, or the account's project
    does not allow it.
    """
    message = str(error.message).lower()
    if error.status_code in _NO_CAPACITY_STATUS:
        named = {str(each).lower() for each in (error.code, error.type)}
        says_so = bool(named & _NO_CAPACITY_CODES) or "resource unavailable" in message.replace("_", " ")
        return "no_capacity" if says_so else None
    if error.status_code in _NO_FLEX_STATUS:
        # Without a param the words decide: a request's own schema may name a service_tier, too.
        about = error.param if error.param else message.replace(" ", "_")
        return "no_flex" if "service_tier" in about else None
    return None
