"""Groq: chat only, no time to live for files, lists that show all there is, oldest first."""

from __future__ import annotations

from airflow_openai_batch.testing.requests import CHAT
from airflow_openai_batch.testing.servers.rules import ServerRules

GROQ = ServerRules(
    name="groq",
    path="/openai/v1",
    takes_expiry=False,
    has_pages=False,
    longest_window_h=7 * 24,
    endpoints=(CHAT,),
)
