"""What tokens cost: a rate for each kind of token, and higher ones for long inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Numbers = npt.NDArray[np.float64]

DEARER_TIERS = frozenset({"priority", "fast"})
"""Service tiers above the standard price, by how much depends on the model. Others that an answer may name cost the
standard, or less."""
LONG_WRITE = 2
"""What is written to the cache for twelve hours costs so many times what is written for thirty minutes, says OpenAI."""


class MediaTokens(NamedTuple):
    """What an answer has that is no text; tokens are part of its input or output."""

    input_image: float = 0
    input_audio: float = 0
    output_image: float = 0
    output_audio: float = 0
    seconds: float | None = None
    """Of a video, which has no tokens."""


class MediaRate(NamedTuple):
    """US dollars per million tokens of each kind."""

    input_image: float
    input_audio: float
    output_image: float
    output_audio: float
    second: float | None = None
    """US dollars per second of a video."""

    def halved(self) -> MediaRate:
        """See `Rate.halved`."""
        second = None if self.second is None else self.second / 2
        return MediaRate(
            self.input_image / 2, self.input_audio / 2, self.output_image / 2, self.output_audio / 2, second
        )

    def price_more(self, tokens: MediaTokens, text_in: float, text_out: float) -> float:
        """Millionths of a dollar that these cost more than as many tokens of text."""
        return (
            tokens.input_image * (self.input_image - text_in)
            + tokens.input_audio * (self.input_audio - text_in)
            + tokens.output_image * (self.output_image - text_out)
            + tokens.output_audio * (self.output_audio - text_out)
            + (tokens.seconds or 0.0) * (self.second or 0.0) * 1_000_000
        )


class Rate(NamedTuple):
    """US dollars per million tokens."""

    input: float
    cached: float
    """Of input tokens that were read from the cache."""
    written: float
    """Of input tokens that were written to the cache; from gpt-5.6 on more than those that were not."""
    output: float
    """Reasoning included."""
    media: MediaRate | None = None
    """None where pictures and sound cost what text costs."""

    def price(
        self,
        input_tokens: float,
        cached_tokens: float,
        written_tokens: float,
        output_tokens: float,
        media: MediaTokens | None = None,
        written_long: float = 0,
    ) -> float:
        """US dollars. Cached and written tokens are part of the input, and each is one or the other.

        :param written_long: of the written tokens, those that are kept for twelve hours.
        :param media: tokens of pictures and sound, part of input and output.
        """
        cached = cached_tokens if cached_tokens < input_tokens else input_tokens
        plain = input_tokens - cached
        written = written_tokens if written_tokens < plain else plain
        dollars = (plain - written) * self.input + cached * self.cached + written * self.written
        if written_long:
            dollars += min(written_long, written) * (LONG_WRITE - 1) * self.written
        if media is not None and self.media is not None:
            dollars += self.media.price_more(media, self.input, self.output)
        return (dollars + output_tokens * self.output) / 1_000_000

    def price_texts(self, inputs: Numbers, cached: Numbers, written: Numbers, outputs: Numbers) -> Numbers:
        """What `price` says of each of many answers that are text alone."""
        import numpy as np  # for nothing where a DAG is parsed

        cached = np.minimum(cached, inputs)
        plain = inputs - cached
        written = np.minimum(written, plain)
        dollars = (plain - written) * self.input + cached * self.cached + written * self.written
        return (dollars + outputs * self.output) / 1_000_000

    def halved(self) -> Rate:
        """Of the same tokens in a batch, where nothing else is said."""
        media = None if self.media is None else self.media.halved()
        return Rate(self.input / 2, self.cached / 2, self.written / 2, self.output / 2, media)


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

    def price_texts(self, inputs: Numbers, cached: Numbers, written: Numbers, outputs: Numbers) -> Numbers:
        """See `Rate.price_texts`; each at the rate of its input."""
        import numpy as np  # for nothing where a DAG is parsed

        dollars = self.base.price_texts(inputs, cached, written, outputs)
        for start, rate in self.tiers:
            dearer = rate.price_texts(inputs, cached, written, outputs)
            dollars = np.where(inputs > start, dearer, dollars)
        return dollars

    def halved(self) -> Rates:
        """See `Rate.halved`."""
        return Rates(self.base.halved(), tuple((start, rate.halved()) for start, rate in self.tiers))
