"""What a job knows of flex: whether its models have it, and which of them it was refused for.

A model without flex refuses each request alike. The first shard that meets it writes it down where the others look.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from airflow_openai_batch.job import directory
from airflow_openai_batch.openai_api.flex import FLEX_ENDPOINTS, describe_endpoint_without_flex
from airflow_openai_batch.openai_api.prices import has_flex

if TYPE_CHECKING:
    from airflow_openai_batch.errors import NoFlexError
    from airflow_openai_batch.job.plan import Shard
    from airflow_openai_batch.sending.policy import Policy
    from airflow_openai_batch.storage.location import Location


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """The content of ``without_flex/<hash>.json``."""

    at: float
    """Unix seconds."""
    model: str
    message: str
    """What the server said."""


@dataclass(frozen=True, slots=True)
class FlexKnowledge:
    """Of one shard's model and endpoint. What is written down holds for the run that met it; clearing asks anew.

    :param output: the job directory.
    """

    output: Location
    shard: Shard
    policy: Policy

    @property
    def has_flex(self) -> bool:
        """Whether it is known to be there."""
        return self.shard.endpoint in FLEX_ENDPOINTS and has_flex(self.shard.model)

    def offers(self, requests: int) -> bool:
        """Whether it is known to be there, where that matters for a send of so many. Where it does not, the prices need
        not be read for it, which takes as long as all else that a task does that sends."""
        return self.policy.may_choose_flex(requests) and self.has_flex

    def find_refusal(self, *, since: float) -> str:
        """Why there is no flex, where that is certain; otherwise an empty text. One read.

        :param since: start of the run as Airflow has it (Unix seconds), which clearing sets anew.
        """
        if self.shard.endpoint not in FLEX_ENDPOINTS:
            return describe_endpoint_without_flex(self.shard.endpoint)
        try:
            refused = msgspec.json.decode(self._place.read_bytes(), type=Refused)
        except (
            FileNotFoundError,
            msgspec.MsgspecError,
        ):  # torn by a crash: whoever asks next meets it himself
            return ""
        if refused.at < since:
            return ""
        return self._describe(refused.message)

    def remember(self, error: NoFlexError, *, now: float) -> str:
        """Write down what the server said; returns what `find_refusal` says of it."""
        refused = Refused(at=now, model=self.shard.model, message=str(error)[:500])
        self._place.write_bytes(msgspec.json.encode(refused))
        return self._describe(refused.message)

    def _describe(self, message: str) -> str:
        return f"there is no flex for {self.shard.model} ({message.rstrip('.')})."

    @property
    def _place(self) -> Location:
        name = hashlib.sha256(self.shard.model.encode()).hexdigest()[:20]
        return self.output.child(f"{directory.WITHOUT_FLEX}/{name}.json")
