"""What a connection says of its account's limits: a tier, or numbers, which win over it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.openai_api import tiers
from airflow_openai_batch.openai_api.models import base_model

if TYPE_CHECKING:
    from airflow_openai_batch.openai_api.tiers import Tier

DEFAULT_CONCURRENCY = 5
"""Real-time requests in the air at once where nothing is known of the account."""
ANY_MODEL = "*"

ByModel = Mapping[str, int]
"""A number per model, under `ANY_MODEL` that of all others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountLimits:
    """Made by `read_account_limits`; without anything said, nothing is known and nothing is limited."""

    tier: Tier | None = None
    tokens: ByModel = field(default_factory=dict)
    """Enqueued input tokens."""
    requests: ByModel = field(default_factory=dict)
    """Enqueued requests."""
    per_minute_requests: int | None = None
    per_minute_tokens: int | None = None
    concurrency: int | None = None
    max_retries: int | None = None
    """Of one real-time request."""
    monthly_budget_usd: float | None = None
    """What all jobs that use the connection may spend in a month."""

    def queue_limit(
        self, model: str, *, tokens: int | None = None, requests: int | None = None
    ) -> QueueLimit:
        """The limit of a model's batch queue: by the tier, by the connection's numbers over it, by the run's
        parameters over both."""
        preset = QueueLimit()
        if self.tier is not None:
            preset = QueueLimit(
                tokens=tiers.enqueued_tokens(model, self.tier),
                requests=tiers.enqueued_requests(model),
                tokens_by="tier",
                requests_by="tier",
            )
        said = QueueLimit(tokens=_pick(self.tokens, model), requests=_pick(self.requests, model))
        asked = QueueLimit(tokens=tokens, requests=requests, tokens_by="parameter", requests_by="parameter")
        return preset.overridden_by(said).overridden_by(asked)

    def smallest_queue_limit(self, models: Iterable[str], *, tokens: int | None = None) -> QueueLimit:
        """The smallest limits that one of these models has; with none, what is said of `ANY_MODEL`."""
        limits = [self.queue_limit(model, tokens=tokens) for model in models]
        limits = limits or [self.queue_limit(ANY_MODEL, tokens=tokens)]
        return QueueLimit(
            tokens=min((limit.tokens for limit in limits if limit.tokens is not None), default=None),
            requests=min((limit.requests for limit in limits if limit.requests is not None), default=None),
        )

    @property
    def requests_per_minute(self) -> int | None:
        """Of real-time requests; ``None`` where nothing is known."""
        if self.per_minute_requests is not None or self.tier is None:
            return self.per_minute_requests
        return tiers.REQUESTS_PER_MINUTE[self.tier]

    def tokens_per_minute(self, model: str) -> int | None:
        """Of real-time requests; ``None`` where nothing is known."""
        if self.per_minute_tokens is not None or self.tier is None:
            return self.per_minute_tokens
        return tiers.tokens_per_minute(model, self.tier)

    @property
    def realtime_concurrency(self) -> int:
        """Real-time requests in the air at once."""
        if self.concurrency is not None:
            return self.concurrency
        return DEFAULT_CONCURRENCY if self.tier is None else tiers.REALTIME_CONCURRENCY[self.tier]


def read_account_limits(extra: Mapping[str, Any], where: str) -> AccountLimits:
    """From a connection's extra.

    :param where: for messages, for instance ``connection 'openai_default'``.
    :raises ConfigError: for a value that is no limit.
    """
    return AccountLimits(
        tier=_read_tier(extra.get("tier"), where),
        tokens=_read_by_model(extra, "enqueued_token_limit", where),
        requests=_read_by_model(extra, "enqueued_request_limit", where),
        per_minute_requests=_read_optional(extra, "requests_per_minute", where),
        per_minute_tokens=_read_optional(extra, "tokens_per_minute", where),
        concurrency=_read_optional(extra, "realtime_concurrency", where),
        max_retries=_read_optional(extra, "max_retries", where, minimum=0),
        monthly_budget_usd=_read_amount(extra.get("monthly_budget_usd"), where),
    )


def _read_tier(value: Any, where: str) -> Tier | None:
    if value is None or value == "":
        return None
    name = str(value).strip().lower().removeprefix("tier").strip(" -_")
    if isinstance(value, bool) or name not in tiers.TIERS:
        raise ConfigError(f'{where}: tier={value!r} in its extra must be "free" or 1 to 5.')
    return name


def _read_by_model(extra: Mapping[str, Any], name: str, where: str) -> ByModel:
    value = extra.get(name)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        return {ANY_MODEL: _read_number(value, name, where)}
    return {
        base_model(str(model)): _read_number(number, f"{name}[{model!r}]", where)
        for model, number in value.items()
    }


def _read_optional(extra: Mapping[str, Any], name: str, where: str, *, minimum: int = 1) -> int | None:
    value = extra.get(name)
    return None if value is None else _read_number(value, name, where, minimum=minimum)


def _read_number(value: Any, name: str, where: str, *, minimum: int = 1) -> int:
    """A connection written as a URI has texts for numbers."""
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= minimum:
        return value
    wanted = "a positive whole number" if minimum else "a whole number, at least 0"
    raise ConfigError(f"{where}: {name}={value!r} in its extra must be {wanted}.")


def _read_amount(value: Any, where: str) -> float | None:
    if value is None or value == "":
        return None
    try:
        amount = float(value)
    except (TypeError, ValueError):
        amount = -1.0
    if isinstance(value, bool) or not 0 <= amount < math.inf:
        raise ConfigError(
            f"{where}: monthly_budget_usd={value!r} in its extra must be US dollars, at least 0."
        )
    return amount


def _pick(limits: ByModel, model: str) -> int | None:
    return limits.get(base_model(model), limits.get(ANY_MODEL))


LimitSource = Literal["tier", "connection", "parameter", "refusal"]
"""Who said a limit, the weakest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimit:
    """What the queue of a model holds; ``None``: not known, or no limit."""

    tokens: int | None = None
    requests: int | None = None
    tokens_by: LimitSource = "connection"
    requests_by: LimitSource = "connection"

    def overridden_by(self, other: QueueLimit) -> QueueLimit:
        """What ``other`` says in the place of what this one says."""
        tokens = self if other.tokens is None else other
        requests = self if other.requests is None else other
        return QueueLimit(
            tokens=tokens.tokens,
            tokens_by="connection" if tokens.tokens is None else tokens.tokens_by,
            requests=requests.requests,
            requests_by="connection" if requests.requests is None else requests.requests_by,
        )

    def to_dict(self) -> dict[str, Any]:
        """For events and arguments that go through Airflow's database."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Any) -> QueueLimit:
        """From what `to_dict` of any release gives; empty where it is something else."""
        if not isinstance(fields, Mapping):
            return cls()
        return cls(**{name: fields[name] for name in cls.__dataclass_fields__ if name in fields})

    def only_by(self, source: LimitSource) -> QueueLimit:
        """What of this was said by ``source``."""
        return QueueLimit(
            tokens=self.tokens if self.tokens_by == source else None,
            requests=self.requests if self.requests_by == source else None,
            tokens_by=source,
            requests_by=source,
        )
