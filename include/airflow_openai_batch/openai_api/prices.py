"""What answers cost, from the prices that `genai-prices` carries with it, or from those of a connection: no network.

Prices are of the tokens alone; fees of hosted tools (web search) are not in an answer's usage.
``calc_price`` takes 0.2 ms, too slow for a million answers, so the rates it would use are read once
per model and day and applied here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Literal, NamedTuple

from airflow_openai_batch.openai_api.endpoints import IMAGES, WITHOUT_OUTPUT, Endpoint
from airflow_openai_batch.openai_api.models import find_price_entry
from airflow_openai_batch.openai_api.own_prices import NO_OWN_PRICES, OwnPrices, find_own_price
from airflow_openai_batch.openai_api.rates import DEARER_TIERS, MediaRate, MediaTokens, Rate, Rates

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, TieredPrices

    from airflow_openai_batch.openai_api.rates import Numbers

    Price = Decimal | TieredPrices | None

SentAs = Literal["batch", "flex", "realtime"]
BATCH_SHARE = 0.5
"""OpenAI's Batch API and its flex tier cost half; applied where genai-prices knows no such price (embeddings)."""
BATCH: Literal["batch"] = "batch"
FLEX = "flex"
STANDARD = "standard"
PRIORITY = "priority"
_TIERS = frozenset({BATCH, FLEX, *DEARER_TIERS})
_MEDIA_KINDS = ("input_image", "input_audio", "output_image", "output_audio")


class Cost(NamedTuple):
    """US dollars."""

    actual_usd: float
    standard_usd: float
    """The same tokens at the price of real time."""


def price_answer(
    model: str,
    sent_as: SentAs,
    input_tokens: float,
    output_tokens: float,
    cached_tokens: float = 0,
    at: float | None = None,
    service_tier: str | None = None,
    *,
    written_tokens: float = 0,
    written_long_tokens: float = 0,
    media: MediaTokens | None = None,
    asked: str | None = None,
    own_prices: OwnPrices = NO_OWN_PRICES,
) -> Cost | None:
    """The cost of one answer; None where the model's price, or that of its tier, is not known.

    :param model: that answered.
    :param at: Unix seconds of the answer, since prices change; now by default.
    :param service_tier: that the answer names; it decides the price outside of batches.
    :param written_tokens: of the input, those that were written to the cache.
    :param written_long_tokens: of these, those that are kept for twelve hours.
    :param media: of input and output, those of pictures and sound.
    :param asked: the model that the request named, for a price that is not known of the one that answered.
    :param own_prices: of the connection; they win over what is known of either model.
    """
    found = _find_prices(model, asked, at, _find_way(sent_as, service_tier), own_prices)
    if found is None:
        return None
    standard, rates = found
    if media is not None and media.seconds is not None and not all(map(_has_seconds, found)):
        return None
    tokens = (input_tokens, cached_tokens, written_tokens, output_tokens, media, written_long_tokens)
    full = standard.at(input_tokens).price(*tokens)
    return Cost(full if rates is standard else rates.at(input_tokens).price(*tokens), full)


def price_texts(
    model: str,
    inputs: Numbers,
    cached: Numbers,
    written: Numbers,
    outputs: Numbers,
    *,
    at: float | None,
    asked: str,
    own_prices: OwnPrices,
) -> tuple[Numbers, Numbers] | None:
    """(actual_usd, standard_usd) of each of many answers of a batch by one model that are text alone.

    The numbers are tokens; all else as of `price_answer`.
    """
    found = _find_prices(model, asked, at, BATCH, own_prices)
    if found is None:
        return None
    standard, rates = found
    tokens = (inputs, cached, written, outputs)
    full = standard.price_texts(*tokens)
    return full if rates is standard else rates.price_texts(*tokens), full


def _has_seconds(rates: Rates) -> bool:
    return rates.base.media is not None and rates.base.media.second is not None


def estimate_cost(
    model: str,
    endpoint: str,
    input_tokens: float,
    output_tokens: float,
    *,
    requests: int = 1,
    at_most: bool = False,
    dearer_share: float = 0.0,
    own_prices: OwnPrices = NO_OWN_PRICES,
) -> tuple[float, float] | None:
    """(batch_usd, standard_usd) before anything is sent; None where the model's price is not known.

    :param requests: how many requests the tokens are of: each is priced as the mean of them, since a long
        input is priced in another tier.
    :param at_most: with all of the input written to the cache, where that is dearer: no answer tells beforehand.
    :param dearer_share: of the requests, how many ask for a tier above the standard, which ``standard_usd`` counts
        as such. None where that price is not known.
    """
    if endpoint in WITHOUT_OUTPUT:
        output_tokens = 0
    share = 1 / max(1, requests)
    tokens = (input_tokens * share, output_tokens * share)
    media = None
    if endpoint in IMAGES:  # what is edited is read as a picture, which costs more than its words
        media = MediaTokens(input_image=tokens[0] if at_most else 0, output_image=tokens[1])
    elif endpoint == Endpoint.VIDEOS:  # what is said of their output is seconds
        media, tokens = MediaTokens(seconds=tokens[1]), (tokens[0], 0.0)
    price = partial(price_answer, model, media=media, own_prices=own_prices)
    most_written = (0.0, tokens[0]) if at_most else (0.0,)
    found = [price(BATCH, *tokens, written_tokens=written) for written in most_written]
    if dearer_share:
        dear = [
            price("realtime", *tokens, service_tier=PRIORITY, written_tokens=written)
            for written in most_written
        ]
    else:
        dear = found
    costs, dear_costs = list(filter(None, found)), list(filter(None, dear))
    if not costs or not dear_costs:
        return None
    batch_usd = max(cost.actual_usd for cost in costs)
    standard_usd = max(cost.standard_usd for cost in costs)
    if dearer_share:
        standard_usd += dearer_share * (max(cost.actual_usd for cost in dear_costs) - standard_usd)
    return batch_usd / share, standard_usd / share


def _find_way(sent_as: SentAs, service_tier: str | None) -> str:
    if sent_as == BATCH:
        return BATCH
    if service_tier is None and sent_as == FLEX:
        return FLEX
    return service_tier if service_tier in _TIERS and service_tier is not None else STANDARD


def _find_prices(
    model: str, asked: str | None, at: float | None, way: str, own_prices: OwnPrices
) -> tuple[Rates, Rates] | None:
    """At the standard price, and the way it was asked."""
    names = [model] if asked is None or asked == model else [model, asked]
    if own_prices:
        for name in names:
            if (own := find_own_price(own_prices, name)) is not None:
                rates = own.rates(way)
                return None if rates is None else (own.standard, rates)
    day = _today() if at is None else int(at // 86_400)
    names = [own_prices.deployments.find_model(name) for name in names]
    return next((found for name in names if (found := find_known_prices(name, day, way))), None)


def _today() -> int:
    return int(datetime.now(UTC).timestamp() // 86_400)


@lru_cache(maxsize=1_024)
def find_known_prices(model: str, day: int, way: str) -> tuple[Rates, Rates] | None:
    """What `genai-prices` knows: at the standard price, and the way it was asked.

    :param day: since 1970, UTC.
    :param way: ``standard``, ``batch``, or the service tier of an answer.
    """
    standard = _read_rates(model, day, {})
    if standard is None or way == STANDARD:
        return None if standard is None else (standard, standard)
    rates = _read_rates(model, day, {"processing": way} if way == BATCH else {"service_tier": way})
    if rates is None:
        return None if way in DEARER_TIERS else (standard, standard.halved())
    return standard, rates


def has_flex(model: str, day: int | None = None) -> bool:
    """Whether OpenAI says what a model costs through flex, which it does of those that have it.

    :param day: since 1970, UTC; today by default.
    """
    return _read_rates(model, _today() if day is None else day, {"service_tier": FLEX}) is not None


def _read_rates(model: str, day: int, context: dict[str, str]) -> Rates | None:
    """None where the model is not known, or not what it costs in this context."""
    entry, moment = find_price_entry(model), datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)
    if entry is None or (context and not any(_list_variants(entry, moment, context))):
        return None
    prices = entry.get_prices(moment, context)
    cached = prices.input_mtok if prices.cache_read_mtok is None else prices.cache_read_mtok
    written = prices.input_mtok if prices.cache_write_mtok is None else prices.cache_write_mtok
    kinds = (prices.input_mtok, cached, written, prices.output_mtok)
    tiered = [price for price in kinds if price is not None and not isinstance(price, Decimal)]
    starts = {tier.start for price in tiered for tier in price.tiers}
    tiers = tuple((start, _read_rate_at(kinds, start + 1)) for start in sorted(starts))
    # No model has both, tiers and a price for pictures or sound.
    return Rates(_read_rate_at(kinds, 0)._replace(media=_read_media_rate(prices)), tiers)


def _read_rate_at(kinds: Sequence[Price], input_tokens: int) -> Rate:
    read, cached, written, output = (_read_rate(price, input_tokens) for price in kinds)
    return Rate(read, cached, written, output)


def _read_media_rate(prices: ModelPrice) -> MediaRate | None:
    """A kind without a price of its own costs what text costs."""
    own = [getattr(prices, f"{kind}_mtok", None) for kind in _MEDIA_KINDS]
    if all(price is None for price in own):
        return None
    text = [prices.input_mtok, prices.input_mtok, prices.output_mtok, prices.output_mtok]
    found = (other if price is None else price for price, other in zip(own, text, strict=True))
    return MediaRate(*(_read_rate(price, 0) for price in found))


def _list_variants(model: ModelInfo, moment: datetime, context: dict[str, str]) -> Iterator[bool]:
    """One for each price that is said of the context; of gpt-3.5-turbo-1106 it is that a batch costs the same."""
    for variant in model.price_variants or ():
        holds = variant.constraint is None or variant.constraint.active(moment)
        if holds and variant.when == context:
            yield True


def _read_rate(price: Price, input_tokens: int) -> float:
    if price is None:
        return 0.0
    if isinstance(price, Decimal):
        return float(price)
    reached = [tier.price for tier in price.tiers if input_tokens > tier.start]
    return float(reached[-1] if reached else price.base)
