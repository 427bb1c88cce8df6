"""From the bytes of a chunk to its tally: the part of a split that takes the time.

Runs in the task's own process or in workers of its own (`count_worker`); needs nothing but the bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from airflow_openai_batch.core.endpoints import MAX_EMBEDDING_TOKENS_PER_REQUEST, Endpoint
from airflow_openai_batch.core.models import EncodingName, context_tokens, encoding_of
from airflow_openai_batch.core.requests import BadLineError, Request, check_utf8, read_request
from airflow_openai_batch.core.tally import CERTAINTIES, ChunkTally, CountMode, TallyBuilder
from airflow_openai_batch.core.tokens.counters import CounterName, TextCounter, open_counter, utf8_bytes
from airflow_openai_batch.core.tokens.measure import Measure, less_certain

if TYPE_CHECKING:
    from airflow_openai_batch.core.chunks import Chunk

SAMPLE_EVERY = 256
"""Where bytes stand for tokens, one line in so many is counted for the estimate of the cost."""

_REMEMBERED_CHARACTERS = 4 * 2**20
"""Of instructions, tools and schemas, whose counts are kept; then forgotten all at once."""


class CountRules(msgspec.Struct, frozen=True, kw_only=True):
    """What a counter must know besides the lines."""

    mode: CountMode
    counter: CounterName = "tiktoken"
    max_tokens: int | None
    max_line_bytes: int
    max_embedding_inputs: int


class _Awaiting(NamedTuple):
    """A request whose texts wait to be counted together with those of its chunk."""

    line: int
    request: Request
    start: int
    stop: int


class ChunkCounter:
    """Counts chunk after chunk; remembers what repeats."""

    def __init__(self, rules: CountRules) -> None:
        self._rules = rules
        self._texts: dict[EncodingName, _Texts] = {}

    def count(self, data: bytes) -> ChunkTally:
        """Tally the lines of a chunk. What is wrong with a line is in the tally, never raised."""
        tally = TallyBuilder()
        is_utf8 = _is_utf8(data)
        lines = data.split(b"\n")
        if not lines[-1]:
            lines.pop()
        for line in lines:
            if not line or line.isspace():
                tally.add_blank(len(line) + 1)
                continue
            try:
                if not is_utf8:
                    check_utf8(line)
                self._check_length(line)
                self._add(read_request(line), line, tally)
            except BadLineError as error:
                tally.add_rejected(len(line) + 1, error.code, error.message, error.custom_id)
        for texts in self._texts.values():
            self._settle(texts, tally)
        return tally.finish()

    def _check_length(self, line: bytes) -> None:
        if len(line) + 1 > self._rules.max_line_bytes:
            raise overlong_line(len(line) + 1, self._rules.max_line_bytes)

    def _add(self, request: Request, line: bytes, tally: TallyBuilder) -> None:
        limit = self._rules.max_embedding_inputs
        if request.measure.embedding_inputs > limit and request.endpoint is Endpoint.EMBEDDINGS:
            raise BadLineError(
                "too_many_inputs",
                f"body.input has {request.measure.embedding_inputs:,} texts, limit {limit:,} per shard. "
                "Split it into more requests",
                request.custom_id,
            )
        index = len(tally.lengths)
        is_embedding = request.endpoint is Endpoint.EMBEDDINGS
        inputs = request.measure.embedding_inputs if is_embedding else 0
        tokens, certainty = 0, request.measure.certainty
        if self._rules.mode == "bound":
            tokens, certainty = _bound(request, len(line)), less_certain(certainty, "upper")
        tally.add_request(
            len(line) + 1,
            tokens,
            hash(request.custom_id),
            (request.model, request.endpoint.value),
            CERTAINTIES.index(certainty),
            inputs,
        )
        if self._rules.mode == "exact" or index % SAMPLE_EVERY == 0 or self._could_break(request, tokens):
            self._texts_of(request.model).add(index, request)

    def _could_break(self, request: Request, bound: int) -> bool:
        """A bound says that a request fits; only a count says that it does not."""
        limits = (self._rules.max_tokens, context_tokens(request.model))
        return any(limit is not None and bound > limit for limit in limits)

    def _texts_of(self, model: str) -> _Texts:
        encoding = encoding_of(model)[0]
        texts = self._texts.get(encoding)
        if texts is None:
            texts = self._texts[encoding] = _Texts(open_counter(self._rules.counter, encoding))
        return texts

    def _settle(self, texts: _Texts, tally: TallyBuilder) -> None:
        for waiting, counts, repeated in texts.count():
            request = waiting.request
            tokens = request.measure.fixed_tokens + sum(counts) + repeated
            certainty = less_certain(request.measure.certainty, texts.counter.certainty)
            problem = self._problem(request, tokens, max(counts, default=0), certainty == "upper")
            if problem is not None:
                tally.reject(waiting.line, *problem, request.custom_id)
            elif self._rules.mode == "exact":
                tally.set_tokens(waiting.line, tokens, CERTAINTIES.index(certainty))
            else:
                self._note_sample(waiting.line, tokens, certainty, tally)

    def _note_sample(self, index: int, tokens: int, certainty: str, tally: TallyBuilder) -> None:
        if index % SAMPLE_EVERY == 0 and certainty != "upper":
            tally.samples.append((index, tokens))
        if self._rules.max_tokens is not None and tally.tokens[index] > self._rules.max_tokens:
            tally.set_tokens(index, tokens, tally.flags[index] >> 2)

    def _problem(self, request: Request, tokens: int, longest: int, is_bound: bool) -> tuple[str, str] | None:
        """Code and message, where the request is too large. A bound proves nothing against a context."""
        context = context_tokens(request.model)
        if not is_bound and context is not None:
            is_embedding = request.endpoint is Endpoint.EMBEDDINGS
            read = max(longest, request.measure.longest_tokens) if is_embedding else tokens
            if read > context:
                what = "an input text" if is_embedding else "the request"
                return "context_length", f"{what} has {read:,} tokens, limit {context:,} of {request.model}. Shorten it"
            if is_embedding and tokens > MAX_EMBEDDING_TOKENS_PER_REQUEST:
                return (
                    "too_many_tokens",
                    f"request has {tokens:,} input tokens, limit {MAX_EMBEDDING_TOKENS_PER_REQUEST:,} per "
                    "embeddings request. Split it into more requests",
                )
        limit = self._rules.max_tokens
        if limit is not None and tokens > limit:
            has = "may have up to" if is_bound else "has"
            return (
                "too_many_tokens",
                f"request {has} {tokens:,} input tokens, limit {limit:,} per shard: it can never fit into the queue. "
                "Shorten it, or raise max_tokens_per_shard if the account's queue takes more",
            )
        return None


def _bound(request: Request, line_bytes: int) -> int:
    if request.is_text:
        return line_bytes
    measure = request.measure
    return measure.fixed_tokens + sum(map(utf8_bytes, measure.texts)) + sum(map(utf8_bytes, measure.repeated))


def overlong_line(length: int, limit: int) -> BadLineError:
    return BadLineError(
        "too_long",
        f"request has {length:,} bytes, limit {limit:,} per shard. Shorten the prompt or refer to files by URL",
    )


def tally_overlong(chunk: Chunk, limit: int) -> ChunkTally:
    """The tally of a line that was too long to be kept."""
    tally = TallyBuilder()
    error = overlong_line(chunk.overlong_bytes, limit)
    tally.add_rejected(chunk.overlong_bytes, error.code, error.message, None)
    return tally.finish()


class _Texts:
    """The texts of a chunk that are counted with one encoding."""

    def __init__(self, counter: TextCounter) -> None:
        self.counter = counter
        self._texts: list[str] = []
        self._awaiting: list[_Awaiting] = []
        self._remembered: dict[str, int] = {}
        self._remembered_characters = 0

    def add(self, index: int, request: Request) -> None:
        start = len(self._texts)
        self._texts.extend(request.measure.texts)
        self._awaiting.append(_Awaiting(index, request, start, len(self._texts)))

    def count(self) -> list[tuple[_Awaiting, list[int], int]]:
        """Each request with the counts of its texts and the sum of those that repeat; empties itself."""
        counts = self.counter.count(self._texts)
        found = [
            (waiting, counts[waiting.start : waiting.stop], self._count_repeated(waiting.request.measure))
            for waiting in self._awaiting
        ]
        self._texts, self._awaiting = [], []
        return found

    def _count_repeated(self, measure: Measure) -> int:
        total = 0
        for text in measure.repeated:
            known = self._remembered.get(text)
            if known is None:
                known = self.counter.count([text])[0]
                self._remember(text, known)
            total += known
        return total

    def _remember(self, text: str, tokens: int) -> None:
        self._remembered_characters += len(text) + 100
        if self._remembered_characters > _REMEMBERED_CHARACTERS:
            self._remembered.clear()
            self._remembered_characters = len(text)
        self._remembered[text] = tokens


def _is_utf8(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
