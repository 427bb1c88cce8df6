"""Groq: chat only, lists without pages, and up to seven days for a batch."""

from __future__ import annotations

from airflow_openai_batch.openai_api.servers.profile import ServerProfile

GROQ = ServerProfile(
    name="groq",
    title="Groq",
    hosts=("api.groq.com",),
    address="https://api.groq.com/openai/v1",
    base_path="/openai/v1",
    takes_expiry=False,
    has_pages=False,
    longest_window_h=7 * 24,
    endpoints=frozenset({"/v1/chat/completions"}),
)
