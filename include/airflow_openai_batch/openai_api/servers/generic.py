"""The least that every server with a Batch API takes: no time to live of files, no metadata.

Servers that check their input answer 400 to what they do not know, and these two came late to the API. Lists are walked
through page by page, as everywhere: to ask for the first alone could miss a batch that is paid already.
A batch is then found again by its input's file. Whoever's server keeps metadata leaves ``server`` away, which sends it.
"""

from __future__ import annotations

from airflow_openai_batch.openai_api.servers.profile import ServerProfile

GENERIC = ServerProfile(
    name="generic",
    title="the server",
    base_path="",
    needs_host=True,
    takes_expiry=False,
    keeps_metadata=False,
    longest_window_h=7 * 24,
)
