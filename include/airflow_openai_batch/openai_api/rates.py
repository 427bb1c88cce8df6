"""What tokens cost: a rate for each kind of token, and higher ones for long inputs."""

from __future__ import annotations

from typing import NamedTuple


class Rate(NamedTuple):
    """US dollars per million tokens."""

    input: float
    cached: float
    """Of input tokens that were read from the cache."""
    written: float
    """Of input tokens that were written to the cache; from gpt-5.6 on more than those that were not."""
    output: float
    """Reasoning included."""

    def price(
        self, input_tokens: float, cached_tokens: float, written_tokens: float, output_tokens: float
    ) -> float:
        """US dollars. Cached and written tokens are part of the input, and each is one or the other."""
        cached = cached_tokens if cached_tokens < input_tokens else input_tokens
        plain = input_tokens - cached
        written = written_tokens if written_tokens < plain else plain
        dollars = (plain - written) * self.input + cached * self.cached + written * self.written
        return (dollars + output_tokens * self.output) / 1_000_000

    def halved(self) -> Rate:
        """Of the same tokens in a batch, where nothing else is said."""
        return Rate(*(each / 2 for each in self))


class Rates(NamedTuple):
    """Above ``start`` input tokens the rate of the tier holds for all tokens of the request."""

    base: Rate
    tiers: tuple[tuple[int, Rate], ...] = ()

    def at(self, input_tokens: float) -> Rate:
        """The one that a request with so many input tokens has."""
        rate = self.base
        for start, higher in self.tiers:
            if input_tokens > start:
                rate = higher
        return rate

    def halved(self) -> Rates:
        """See `Rate.halved`."""
        return Rates(self.base.halved(), tuple((start, rate.halved()) for start, rate in self.tiers))
