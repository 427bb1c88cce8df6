"""``prices`` in a connection's extra: what a model costs, where `genai-prices` does not know it or a contract says
otherwise.

``{"prices": {"gpt-6.2-sol": {"input": 4, "cached_input": 0.4, "cache_write": 5, "output": 20}}}``, in US dollars per
million tokens, at the standard price. ``cached_input`` and ``cache_write`` cost what input costs unless they are given;
so do ``input_image`` and ``input_audio``, and ``output_image`` and ``output_audio`` cost what output costs. ``second``
is for videos, in US dollars per second: ``{"input": 0, "output": 0, "second": 0.1}``.
A batch and flex cost half, unless ``"batch"`` or ``"flex"`` give numbers of their own in the same words; what
``"priority"`` costs is known only where it is given.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.openai_api.deployments import NO_DEPLOYMENTS, Deployments, read_deployments
from airflow_openai_batch.openai_api.models import DEFAULT_MODEL, undated_model
from airflow_openai_batch.openai_api.rates import MediaRate, Rate, Rates

_MEDIA_KINDS = ("input_image", "input_audio", "output_image", "output_audio")
_KINDS = ("input", "cached_input", "cache_write", "output", *_MEDIA_KINDS, "second")
_WAYS = ("batch", "flex", "priority")
_EXAMPLE = '{"input": 2, "output": 10}'


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnPrice:
    """Of one model, by the way it is asked."""

    standard: Rates
    batch: Rates
    flex: Rates
    priority: Rates | None = None

    @classmethod
    def of(cls, input_usd: float, output_usd: float) -> OwnPrice:
        """From the two numbers that everybody knows, US dollars per million tokens in real time."""
        standard = Rates(Rate(input_usd, input_usd, input_usd, output_usd))
        return cls(standard=standard, batch=standard.halved(), flex=standard.halved())

    def rates(self, way: str) -> Rates | None:
        """:param way: ``standard``, ``batch``, or the service tier of an answer."""
        match way:
            case "standard":
                return self.standard
            case "batch":
                return self.batch
            case "flex":
                return self.flex
        return self.priority


class OwnPrices(dict[str, OwnPrice]):
    """What a connection says of prices: those of models, and which model is behind a name.

    :param deployments: see `openai_api.deployments`.
    """

    def __init__(
        self, prices: Mapping[str, OwnPrice] | None = None, *, deployments: Deployments = NO_DEPLOYMENTS
    ) -> None:
        super().__init__(prices or {})
        self.deployments = deployments


NO_OWN_PRICES = OwnPrices()


def find_own_price(prices: OwnPrices, model: str) -> OwnPrice | None:
    """Of a model by its full name, or else without its date, or else of the model behind a deployment."""
    for name in (model, undated_model(model), prices.deployments.find_model(model)):
        if (found := prices.get(name)) is not None:
            return found
    return None


def describe_price_setting(model: str, prices: OwnPrices = NO_OWN_PRICES, *, by_second: bool = False) -> str:
    """Where a price can be said: a sentence for errors.

    :param prices: of the connection, which know whether its server has deployments.
    :param by_second: of a model that makes videos.
    """
    kinds, unit = '"input": ..., "output": ...', "per million tokens"
    if by_second:
        kinds, unit = '"input": 0, "output": 0, "second": ...', "per second"
    name = model[:100]
    if prices.deployments.may_name(model):
        return (
            "Where it is a deployment, say in the connection's extra which model is behind it: "
            f'{{"deployments": {{"{name}": "{DEFAULT_MODEL}"}}}}; or its price, in US dollars {unit}: '
            f'{{"prices": {{"{name}": {{{kinds}}}}}}}.'
        )
    return (
        f'Say it in the connection\'s extra, in US dollars {unit}: {{"prices": {{"{name}": {{{kinds}}}}}}}.'
    )


def read_own_prices(extra: Mapping[str, Any], where: str, *, has_deployments: bool = False) -> OwnPrices:
    """From a connection's extra.

    :param where: for messages, for instance ``connection 'openai_default'``.
    :param has_deployments: whether the connection's server is one where models are called by names of one's own.
    :raises ConfigError: for what is no price, or no deployment.
    """
    deployments = read_deployments(extra, where, has_deployments=has_deployments)
    value = extra.get("prices")
    if value is None or value == "":
        return OwnPrices(deployments=deployments)
    if not isinstance(value, Mapping):
        raise ConfigError(
            f'{where}: prices in its extra must be an object by model, for instance {{"gpt-6.2-sol": {_EXAMPLE}}}.'
        )
    prices = {str(model): _read_price(each, f"{where}: prices[{model!r}]") for model, each in value.items()}
    return OwnPrices(prices, deployments=deployments)


def _read_price(value: Any, what: str) -> OwnPrice:
    standard = _read_rate(value, what, more=_WAYS)
    ways = {way: _read_rate(value[way], f"{what}[{way!r}]") for way in _WAYS if way in value}
    batch = ways.get("batch", standard.halved())
    return OwnPrice(
        standard=standard, batch=batch, flex=ways.get("flex", batch), priority=ways.get("priority")
    )


def _read_rate(value: Any, what: str, more: tuple[str, ...] = ()) -> Rates:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{what} in its extra must be an object with prices, for instance {_EXAMPLE}.")
    known = (*_KINDS, *more)
    if unknown := sorted(str(name) for name in value if name not in known):
        raise ConfigError(
            f"{what} in its extra has {', '.join(map(repr, unknown[:5]))}; known are {', '.join(known)}."
        )
    if missing := [name for name in ("input", "output") if name not in value]:
        raise ConfigError(
            f"{what} in its extra lacks {' and '.join(missing)}; write 0 for what costs nothing."
        )
    dollars = {name: _read_dollars(value[name], f"{what}[{name!r}]") for name in _KINDS if name in value}
    each, written = dollars["input"], dollars["output"]
    media = None
    if not dollars.keys().isdisjoint((*_MEDIA_KINDS, "second")):
        texts = (each, each, written, written)
        kinds = [dollars.get(name, text) for name, text in zip(_MEDIA_KINDS, texts, strict=True)]
        media = MediaRate(*kinds)._replace(second=dollars.get("second"))
    cached, stored = dollars.get("cached_input", each), dollars.get("cache_write", each)
    return Rates(Rate(each, cached, stored, written, media))


def _read_dollars(value: Any, what: str) -> float:
    """A connection written as a URI has texts for numbers."""
    try:
        amount = float(value)
    except (TypeError, ValueError, OverflowError):
        amount = -1.0
    if isinstance(value, bool) or not 0 <= amount < math.inf:
        raise ConfigError(
            f"{what}={value!r:.60} in its extra must be US dollars per million tokens, at least 0."
        )
    return amount
