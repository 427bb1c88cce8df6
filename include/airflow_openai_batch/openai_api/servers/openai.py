"""OpenAI, in any of its regions, and servers of which nothing is said: everything is sent, and read leniently."""

from __future__ import annotations

import re

from airflow_openai_batch.openai_api.servers.profile import ServerProfile

OPENAI = ServerProfile(
    name="openai",
    title="OpenAI",
    hosts=("api.openai.com", ".api.openai.com"),
    # "Enqueued token limit reached for gpt-6-luna in organization x. Limit: 2,000,000 enqueued tokens."
    full_queue=re.compile(
        r"enqueued (?P<unit>token|request) limit reached(?:.*?Limit:\s*(?P<limit>[\d,]+)(?P<scale>))?",
        re.IGNORECASE | re.DOTALL,
    ),
)
