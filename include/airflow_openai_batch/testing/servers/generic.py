"""A server that has what every server has, and refuses the rest."""

from __future__ import annotations

from airflow_openai_batch.testing.servers.rules import ServerRules

GENERIC = ServerRules(
    name="generic",
    purposes=("batch",),
    takes_expiry=False,
    keeps_metadata=False,
    says_has_more=False,
    longest_window_h=7 * 24,
)
