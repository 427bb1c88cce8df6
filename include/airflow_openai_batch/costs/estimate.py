"""What a plan will cost, before anything is sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec

from airflow_openai_batch.job.plan import OutputBound
from airflow_openai_batch.openai_api.deployments import NO_DEPLOYMENTS, Deployments
from airflow_openai_batch.openai_api.endpoints import WITHOUT_OUTPUT, Endpoint
from airflow_openai_batch.openai_api.models import most_output_tokens
from airflow_openai_batch.openai_api.own_prices import NO_OWN_PRICES, OwnPrices
from airflow_openai_batch.openai_api.prices import estimate_cost

if TYPE_CHECKING:
    from airflow_openai_batch.job.plan import Plan, PlanHead, Shard
    from airflow_openai_batch.results.landing_summary import LandingSummary

Name = tuple[str, str]
"""Model and endpoint."""
Means = Mapping[Name, float]
"""Measured output tokens per answered request."""


class UnboundedOutputs(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that do not say how long their output may be, and what was taken for it."""

    model: str
    requests: int
    tokens_each: float | None
    """None where nothing is known."""
    measured: bool
    """Whether that is the mean of answers, or else the most that the model can write."""


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """The cost of a plan or of a part of it.

    ``cost_usd`` is that of the input alone, unless a number of output tokens was assumed; ``most_cost_usd`` is with
    every output as long as its request allows, ``expected_cost_usd`` with outputs as long as those measured so far.
    """

    requests: int = 0
    input_tokens: int
    output_tokens: int = 0
    """Assumed, over all requests."""
    cost_usd: float | None
    """At the batch price; None where no model's price is known."""
    standard_cost_usd: float | None
    unpriced_models: tuple[str, ...] = ()
    """Models whose price is not known, and which are not in the sums."""
    unpriced_videos: bool = False
    """Whether some of these make videos."""
    certainty: str = "exact"
    """``exact``, ``upper`` or ``lower``: of the input tokens; ``mixed`` where shards differ in direction."""
    most_output_tokens: int | None = None
    most_cost_usd: float | None = None
    """At the price that each shard is sent at. None where a price or a bound is missing."""
    unbounded: tuple[UnboundedOutputs, ...] = ()
    expected_output_tokens: int | None = None
    expected_cost_usd: float | None = None
    """As ``most_cost_usd``; None where nothing was measured for a model."""

    @property
    def may_be_more(self) -> bool:
        """Whether the input tokens of some shard are a lower bound."""
        return self.certainty in ("lower", "mixed")


def estimate_plan(
    plan: Plan,
    *,
    output_tokens_per_request: float = 0.0,
    parts: Mapping[int, int] | None = None,
    means: Means | None = None,
    in_realtime: Callable[[int], bool] = lambda requests: False,
    own_prices: OwnPrices = NO_OWN_PRICES,
) -> Estimate:
    """Add up the shards of a plan. Free of I/O.

    :param output_tokens_per_request: a mean to assume for ``cost_usd``.
    :param parts: how many requests of each shard, by number; all of all shards by default.
    :param means: what answers of this job had so far; see `spending.measure_means`.
    :param in_realtime: whether so many requests of a shard go out in real time, at the standard price.
    :param own_prices: of the connection.
    """
    outputs = OutputLengths(plan.outputs, means or {}, own_prices.deployments)
    sums = _CostSums(own_prices)
    requests_by_name: Counter[Name] = Counter()
    for shard in plan.shards:
        requests = shard.requests if parts is None else parts.get(shard.shard, 0)
        if requests:
            sums.add(shard, requests, outputs, output_tokens_per_request, in_realtime(requests))
            requests_by_name[shard.model, shard.endpoint] += requests
    kinds = sums.kinds - {"exact"}
    return Estimate(
        requests=sums.requests,
        input_tokens=round(sums.input_tokens),
        output_tokens=round(sums.assumed_tokens),
        cost_usd=sums.cost if sums.priced else None,
        standard_cost_usd=sums.standard if sums.priced else None,
        unpriced_models=tuple(sorted(sums.unpriced)),
        unpriced_videos=sums.unpriced_videos,
        certainty=kinds.pop() if len(kinds) == 1 else "mixed" if kinds else "exact",
        most_output_tokens=None if sums.most_tokens is None else round(sums.most_tokens),
        most_cost_usd=sums.most,
        unbounded=tuple(outputs.describe_unbounded(requests_by_name.items())),
        expected_output_tokens=None if sums.expected_tokens is None else round(sums.expected_tokens),
        expected_cost_usd=sums.expected,
    )


class OutputLengths:
    """How many output tokens a request of each model and endpoint has: at most, and by what was measured."""

    def __init__(
        self, bounds: Iterable[OutputBound], means: Means, deployments: Deployments = NO_DEPLOYMENTS
    ) -> None:
        self._deployments = deployments
        self._bounds = {(bound.model, bound.endpoint): bound for bound in bounds}
        self._means = means

    def most(self, name: Name) -> float | None:
        """A mean over its requests; those without a bound count with what was measured, else with the most that
        the model can write. None where neither is known.
        """
        if name[1] in WITHOUT_OUTPUT:
            return 0.0
        bound = self._bound(name)
        if not bound.unbounded_requests:
            return bound.bounded_tokens / max(1, bound.requests)
        each = self._unbounded(name, bound)
        if each is None:
            return None
        return (bound.bounded_tokens + bound.unbounded_requests * each) / max(1, bound.requests)

    def find_dearer_share(self, name: Name) -> float:
        """Of its requests, those that ask for a tier above the standard price."""
        bound = self._bound(name)
        return min(1.0, bound.dearer_requests / max(1, bound.requests))

    def expected(self, name: Name) -> float | None:
        """What was measured; None where nothing was."""
        return 0.0 if name[1] in WITHOUT_OUTPUT else self._means.get(name)

    def describe_unbounded(self, requests_by_name: Iterable[tuple[Name, int]]) -> Iterable[UnboundedOutputs]:
        """Those among so many requests of each model and endpoint."""
        for name, requests in requests_by_name:
            bound = self._bound(name)
            if bound.unbounded_requests and name[1] not in WITHOUT_OUTPUT:
                yield UnboundedOutputs(
                    model=name[0],
                    requests=max(1, round(requests * bound.unbounded_requests / max(1, bound.requests))),
                    tokens_each=self._unbounded(name, bound),
                    measured=name in self._means,
                )

    def _bound(self, name: Name) -> OutputBound:
        """A plan of a release that did not look says nothing: then no request has a bound."""
        nothing = OutputBound(
            model=name[0],
            endpoint=name[1],
            requests=1,
            bounded_tokens=0,
            unbounded_requests=1,
            unbounded_choices=1,
        )
        return self._bounds.get(name, nothing)

    def _unbounded(self, name: Name, bound: OutputBound) -> float | None:
        measured = self._means.get(name)
        if measured is not None:
            return measured
        most = most_output_tokens(self._deployments.find_model(name[0]))
        return None if most is None else most * bound.unbounded_choices / bound.unbounded_requests


class _CostSums:
    """Over the shards of an estimate."""

    def __init__(self, own_prices: OwnPrices) -> None:
        self._own_prices = own_prices
        self.requests = 0
        self.input_tokens = self.assumed_tokens = 0.0
        self.cost = self.standard = 0.0
        self.priced = False
        self.unpriced: set[str] = set()
        self.unpriced_videos = False
        self.kinds: set[str] = set()
        self.most: float | None = 0.0
        self.most_tokens: float | None = 0.0
        self.expected: float | None = 0.0
        self.expected_tokens: float | None = 0.0

    def add(
        self, shard: Shard, requests: int, outputs: OutputLengths, assumed: float, in_realtime: bool
    ) -> None:
        self.kinds.add(shard.tokens)
        self.requests += requests
        tokens = shard.expected_tokens * requests / shard.requests
        self.input_tokens += tokens
        self.assumed_tokens += requests * assumed
        found = _price(shard, requests, tokens, assumed, own_prices=self._own_prices)
        if found is None:
            self.unpriced.add(shard.model)
            self.unpriced_videos |= shard.endpoint == Endpoint.VIDEOS
        else:
            self.priced = True
            self.cost += found[0]
            self.standard += found[1]
        name = (shard.model, shard.endpoint)
        most, expected = outputs.most(name), outputs.expected(name)
        self.most_tokens = _add(self.most_tokens, None if most is None else most * requests)
        size, dearer = (shard, requests, tokens), outputs.find_dearer_share(name)
        way = (in_realtime, dearer, self._own_prices)
        self.most = _add(self.most, _price_as(*size, most, *way, at_most=True))
        self.expected_tokens = _add(self.expected_tokens, None if expected is None else expected * requests)
        self.expected = _add(self.expected, _price_as(*size, expected, *way))


def estimate_send(
    plan: PlanHead,
    shard: Shard,
    *,
    requests: int,
    input_tokens: int | None = None,
    in_realtime: bool,
    means: Means | None = None,
    own_prices: OwnPrices = NO_OWN_PRICES,
) -> float | None:
    """What one send costs at most, in US dollars; None where a price or a bound is missing.

    A plan has one bound on the output per model and endpoint, so that the sends of a plan add up to what it costs at
    most, but one whose requests allow more than the mean may cost more than this.

    :param requests: that it carries, of the shard.
    :param input_tokens: of these, counted as the shard's are; in proportion by default.
    """
    share = requests / shard.requests
    if input_tokens is not None and shard.input_tokens:
        share = input_tokens / shard.input_tokens
    outputs, name = (
        OutputLengths(plan.outputs, means or {}, own_prices.deployments),
        (shard.model, shard.endpoint),
    )
    size, way = (
        (shard, requests, shard.expected_tokens * share),
        (in_realtime, outputs.find_dearer_share(name)),
    )
    return _price_as(*size, outputs.most(name), *way, own_prices, at_most=True)


def assume_unpriced(
    plan: PlanHead, shard: Shard, landed: LandingSummary, own_prices: OwnPrices = NO_OWN_PRICES
) -> float:
    """What answers that do not say what they used may have cost at most, in US dollars; 0 where no price is known.

    As free they would keep no budget: each try of theirs would be let through.
    """
    unpriced = landed.spending.unpriced + landed.replaced.unpriced
    if not unpriced:
        return 0.0
    in_realtime = "realtime" in landed.lanes
    most = estimate_send(plan, shard, requests=unpriced, in_realtime=in_realtime, own_prices=own_prices)
    return most or 0.0


def _price_as(
    shard: Shard,
    requests: int,
    input_tokens: float,
    output_each: float | None,
    in_realtime: bool,
    dearer_share: float,
    own_prices: OwnPrices,
    *,
    at_most: bool = False,
) -> float | None:
    """:param dearer_share: see `OutputLengths.find_dearer_share`; in a batch all cost the same."""
    if output_each is None:
        return None
    found = _price(
        shard,
        requests,
        input_tokens,
        output_each,
        own_prices=own_prices,
        at_most=at_most,
        dearer_share=dearer_share if in_realtime else 0.0,
    )
    return None if found is None else found[1 if in_realtime else 0]


def _price(
    shard: Shard,
    requests: int,
    input_tokens: float,
    output_each: float,
    *,
    own_prices: OwnPrices,
    at_most: bool = False,
    dearer_share: float = 0.0,
) -> tuple[float, float] | None:
    return estimate_cost(
        shard.model,
        shard.endpoint,
        input_tokens,
        output_each * requests,
        requests=requests,
        at_most=at_most,
        dearer_share=dearer_share,
        own_prices=own_prices,
    )


def _add(total: float | None, value: float | None) -> float | None:
    """Something unknown makes the sum unknown."""
    return None if total is None or value is None else total + value
