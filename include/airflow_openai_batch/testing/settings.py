"""What an emulator can be set to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_openai_batch.testing.servers.choice import RULES

if TYPE_CHECKING:
    from airflow_openai_batch.testing.servers.rules import ServerRules

DAY_S = 86_400.0

KNOWN_MODELS = (
    "gpt-*", "chatgpt-*", "o1*", "o3*", "o4*", "codex-*", "text-embedding-*", "omni-moderation-*",
    "text-moderation-*", "davinci-*", "babbage-*", "dall-e-*", "sora-*", "ft:*",
)  # fmt: skip
"""Patterns of model names that are taken; anything else is refused as OpenAI refuses a typing error."""

FLEX_MODELS = ("gpt-5*", "gpt-6*", "o3", "o4-mini*")
"""Patterns of models with a flex tier; others refuse it as OpenAI does."""

WEBHOOK_SECRET = "whsec_ZW11bGF0b3I="  # noqa: S105 - known to everybody


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All that can be set, with defaults for tests: batches are complete when first polled.

    Times are seconds of the emulator's clock, except where a name says real.

    :raises ValueError: for a value that makes no sense.
    """

    server: str = "openai"
    """Whose API is played: ``openai``, ``azure``, ``groq``, ``together``, ``litellm`` or ``generic``."""
    seed: int = 0
    """Of ids, the order of output lines, and faults that hit a share."""
    organization: str = "org-emulator"
    api_keys: frozenset[str] | None = None
    """Keys that are taken; none means any that is not empty."""
    models: tuple[str, ...] = KNOWN_MODELS
    """Patterns of model names; ``("*",)`` takes any."""

    flex_models: tuple[str, ...] = FLEX_MODELS
    """Patterns of models that take ``service_tier: flex``."""

    validating_s: float = 0.0
    in_progress_s: float = 0.0
    per_request_s: float = 0.0
    """Added to ``in_progress_s`` for each line."""
    finalizing_s: float = 0.0
    cancelling_s: float = 0.0
    window_s: float = DAY_S
    video_s: float = 0.0
    """A video that was asked for is made after so long ..."""
    video_looks: int = 0
    """... and after so many looks at it."""

    queue_limits: Mapping[str, int] = field(default_factory=dict)
    """Enqueued input tokens by model; no entry, no limit. ``*`` stands for every other model."""
    queue_request_limits: Mapping[str, int] = field(default_factory=dict)
    """Enqueued requests by model, as for embeddings."""
    creates_per_hour: int = 2_000
    list_lag_s: float = 0.0
    """A new batch is missing from lists for so long."""
    list_page_most: int | None = None
    """No page of batches holds more, whatever limit was asked for."""
    list_has_more: bool = True
    """Whether lists say if there is more; some compatible servers do not."""
    keeps_metadata: bool = True
    """Whether a batch shows the metadata it was created with; some compatible servers forget it."""
    processing_s: float = 0.0
    """So long an uploaded file is not ``processed`` yet, and no batch can be created of it."""
    clock_skew_s: float = 0.0
    """Added to every time the server shows: its clock is not ours."""
    file_objects: bool = True
    """Whether a single file can be asked for; some compatible servers only give out contents."""

    max_requests_per_batch: int = 50_000
    max_embedding_inputs: int = 50_000
    max_file_bytes: int = 200_000_000

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """Limits of real-time calls, per model: a bucket of `burst_s` seconds that fills evenly."""
    burst_s: float = 60.0
    latency_s: float = 0.0
    """Real seconds that every call takes."""
    realtime_latency_s: float = 0.0
    """Real seconds that a call of a model takes on top."""
    webhook_url: str | None = None
    """Where batch events are sent, from when on this is set; for Airflow
    ``http://127.0.0.1:8080/openai-batch/webhooks/<connection id>``."""
    webhook_secret: str = WEBHOOK_SECRET
    """What they are signed with."""
    webhook_delay_s: float = 0.0
    """Real seconds between a batch's end and its event."""
    webhook_copies: int = 1
    """How often each event is delivered, with the same id: OpenAI promises at least once."""
    ranges: bool = False
    """Whether a file's content honours ``Range`` headers; OpenAI documents no such thing."""

    def __post_init__(self) -> None:
        for name in (
            "validating_s",
            "in_progress_s",
            "finalizing_s",
            "cancelling_s",
            "list_lag_s",
            "processing_s",
            "video_s",
            "latency_s",
            "webhook_delay_s",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: must not be negative.")
        if self.window_s <= 0 or self.burst_s <= 0:
            raise ValueError("window_s and burst_s must be above 0.")
        if self.server not in RULES:
            raise ValueError(f"server={self.server!r}: known are {', '.join(RULES)}.")

    @property
    def rules(self) -> ServerRules:
        """What the server takes and shows."""
        return RULES[self.server]
