"""LiteLLM's proxy, as far as it is strict."""

from __future__ import annotations

from airflow_openai_batch.testing.servers.rules import ServerRules

LITELLM = ServerRules(name="litellm", takes_expiry=False, says_has_more=False)
