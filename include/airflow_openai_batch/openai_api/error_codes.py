"""Answers that are about the account or the way, not about what was asked: nothing else would be answered better.

The codes are OpenAI's; they come on HTTP level, on a batch and on single lines alike.
"""

from __future__ import annotations

ACCOUNT_CODES = frozenset(
    {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "account_deactivated"}
)
"""The account cannot pay or is closed. A 401 and a 403 mean the same, whatever their code."""

SPOILED_BODY = "We could not parse the JSON body of your request"
"""How the message of a 400 without a code begins. What is sent was read as JSON before: the way has spoiled it."""
