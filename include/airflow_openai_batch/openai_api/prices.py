"""What answers cost, from the prices that `genai-prices` carries with it: no network.

Prices are of the tokens alone; fees of hosted tools (web search) are not in an answer's usage.
``calc_price`` takes 0.2 ms, too slow for a million answers, so the rates it would use are read once
per model and day and applied here.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple

import genai_prices
from genai_prices.types import TieredPrices

if TYPE_CHECKING:
    from decimal import Decimal

SentAs = Literal["batch", "realtime"]
BATCH_SHARE = 0.5
"""OpenAI's Batch API and its flex tier cost half; applied where genai-prices knows no such price (embeddings)."""
FLEX = "flex"
_DEARER_TIERS = frozenset({"priority", "fast"})
"""Above the standard price, by how much depends on the model. Other tiers that an answer may name cost the standard."""


class Cost(NamedTuple):
    """US dollars."""

    actual_usd: float
    standard_usd: float
    """The same tokens at the price of real time."""


class _Rate(NamedTuple):
    """USD per million tokens."""

    input: float
    cached: float
    output: float

    def price(self, input_tokens: float, cached_tokens: float, output_tokens: float) -> float:
        cached = cached_tokens if cached_tokens < input_tokens else input_tokens
        dollars = (input_tokens - cached) * self.input + cached * self.cached + output_tokens * self.output
        return dollars / 1_000_000


class _Rates(NamedTuple):
    """Above ``start`` input tokens the rate of the tier holds for all tokens of the request."""

    base: _Rate
    tiers: tuple[tuple[int, _Rate], ...]

    def at(self, input_tokens: float) -> _Rate:
        rate = self.base
        for start, higher in self.tiers:
            if input_tokens > start:
                rate = higher
        return rate


def price_answer(
    model: str,
    sent_as: SentAs,
    input_tokens: float,
    output_tokens: float,
    cached_tokens: float = 0,
    at: float | None = None,
    service_tier: str | None = None,
) -> Cost | None:
    """The cost of one answer; None where the model's price, or that of its tier, is not known.

    :param at: Unix seconds of the answer, since prices change; now by default.
    :param service_tier: that the answer names; it decides the price in real time.
    """
    day = _today() if at is None else int(at // 86_400)
    standard = _find_rates(model, day, "standard")
    if standard is None:
        return None
    full = standard.at(input_tokens).price(input_tokens, cached_tokens, output_tokens)
    way = _find_way(sent_as, service_tier)
    if way == "standard":
        return Cost(full, full)
    rates = _find_rates(model, day, way)
    if rates is not None:
        return Cost(rates.at(input_tokens).price(input_tokens, cached_tokens, output_tokens), full)
    return None if way in _DEARER_TIERS else Cost(full * BATCH_SHARE, full)


def _find_way(sent_as: SentAs, service_tier: str | None) -> str:
    if sent_as == "batch":
        return "batch"
    return service_tier if service_tier is not None and service_tier in {FLEX, *_DEARER_TIERS} else "standard"


def estimate_cost(
    model: str, endpoint: str, input_tokens: float, output_tokens: float, *, requests: int = 1
) -> tuple[float, float] | None:
    """(batch_usd, standard_usd) before anything is sent; None where the model's price is not known.

    :param requests: how many requests the tokens are of: each is priced as the mean of them, since a long
        input is priced in another tier.
    """
    if endpoint in ("/v1/embeddings", "/v1/moderations"):
        output_tokens = 0
    share = 1 / max(1, requests)
    cost = price_answer(
        model, sent_as="batch", input_tokens=input_tokens * share, output_tokens=output_tokens * share
    )
    return None if cost is None else (cost.actual_usd / share, cost.standard_usd / share)


def _today() -> int:
    return int(datetime.now(UTC).timestamp() // 86_400)


@lru_cache(maxsize=1_024)
def _find_rates(model: str, day: int, way: str) -> _Rates | None:
    """Standard rates, or those of another way of asking where they are known to differ."""
    if way == "standard":
        return _read_rates(model, day, {})
    found = _read_rates(model, day, {"processing": way} if way == "batch" else {"service_tier": way})
    return None if found == _find_rates(model, day, "standard") else found


def _read_rates(model: str, day: int, context: dict[str, str]) -> _Rates | None:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)
    try:
        found = genai_prices.calc_price(
            genai_prices.Usage(input_tokens=1, output_tokens=1),
            model_ref=model,
            provider_id="openai",
            genai_request_timestamp=moment,
            price_context=context,
        )
    except LookupError:
        return None
    prices = found.model_price
    cached = prices.input_mtok if prices.cache_read_mtok is None else prices.cache_read_mtok
    kinds = (prices.input_mtok, cached, prices.output_mtok)
    starts = {tier.start for price in kinds if isinstance(price, TieredPrices) for tier in price.tiers}
    return _Rates(
        base=_Rate(*(_read_rate(price, 0) for price in kinds)),
        tiers=tuple(
            (start, _Rate(*(_read_rate(price, start + 1) for price in kinds))) for start in sorted(starts)
        ),
    )


def _read_rate(price: Decimal | TieredPrices | None, input_tokens: int) -> float:
    if price is None:
        return 0.0
    if isinstance(price, TieredPrices):
        reached = [tier.price for tier in price.tiers if input_tokens > tier.start]
        return float(reached[-1] if reached else price.base)
    return float(price)
