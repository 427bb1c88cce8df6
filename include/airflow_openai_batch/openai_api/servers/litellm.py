"""LiteLLM's proxy, which hands on to another server what it does not know itself."""

from __future__ import annotations

from airflow_openai_batch.openai_api.servers.profile import ServerProfile

LITELLM = ServerProfile(
    name="litellm", title="LiteLLM", needs_host=True, takes_expiry=False, repeats_calls=True
)
