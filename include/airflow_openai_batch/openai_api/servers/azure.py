"""Azure OpenAI and Microsoft Foundry, by their v1 API (https://RESOURCE.openai.azure.com/openai/v1)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from airflow_openai_batch.openai_api.servers.profile import ServerProfile, with_fields

_DOMAINS = ("openai", "cognitiveservices", "services.ai")
_CLOUDS = ("azure.com", "azure.us", "azure.cn")


@dataclass(frozen=True, kw_only=True)
class AzureProfile(ServerProfile):
    """A batch is worked off even when its time is over, so the time that it shows is no end."""

    def read_batch(self, batch: Any) -> Any:
        return with_fields(batch, {"expires_at": None})


AZURE = AzureProfile(
    name="azure",
    title="Azure OpenAI",
    hosts=tuple(f".{domain}.{cloud}" for domain in _DOMAINS for cloud in _CLOUDS),
    base_path="/openai/v1",
    needs_host=True,
    key_header="api-key",
    takes_entra=True,
    processes_files=True,
    expires_batches=False,
    # "The number of enqueued tokens has surpassed the configured limit of 30K for the deployment 'x'."
    full_queue=re.compile(
        r"enqueued (?P<unit>token|request)s has surpassed the configured limit"
        r"(?: of (?P<limit>[\d.,]*\d)(?P<scale>[KMB]?))?",
        re.IGNORECASE,
    ),
    has_deployments=True,
)
