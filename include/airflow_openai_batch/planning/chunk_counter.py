"""From the bytes of a chunk to its tally: the part of a split that takes the time.

Runs in the task's own process or in workers of its own (`count_worker`); needs nothing but the bytes.
"""

from __future__ import annotations

import math
import operator
from array import array
from typing import TYPE_CHECKING

import msgspec

from airflow_openai_batch.job.plan import CountImages  # noqa: TC001 - msgspec reads it
from airflow_openai_batch.openai_api.endpoints import IMAGES, MAX_EMBEDDING_TOKENS_PER_REQUEST, Endpoint
from airflow_openai_batch.openai_api.models import context_tokens, encoding_of
from airflow_openai_batch.planning.chunk_tally import HASH, KEY, ChunkTally, CountMode, TallyBuilder
from airflow_openai_batch.requests.request import (
    BadLineError,
    Request,
    check_utf8,
    make_request,
    read_chat,
    read_chats,
    read_other,
)
from airflow_openai_batch.requests.tokens.counters import CounterName, TextCounter, open_counter, utf8_bytes
from airflow_openai_batch.requests.tokens.parts import Measure, less_certain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_openai_batch.openai_api.model_table import EncodingName
    from airflow_openai_batch.planning.chunk_tally import OutputSum
    from airflow_openai_batch.planning.chunks import Chunk
    from airflow_openai_batch.requests.plain_bodies import PlainChatLine

_PICTURE = 50
"""A shard takes as many pictures as of embedding inputs a fiftieth, 1,000: their answers come back in one file, of two
or three MB a picture, and each landing reads it."""
_EMBEDDINGS = Endpoint.EMBEDDINGS.value

SAMPLE_EVERY = 256
"""Where bytes stand for tokens, one line in so many is counted for the estimate of the cost."""

_TOGETHER = 64
"""Lines that are read at once: their texts have to stay in the processor's cache until they are added."""

_REMEMBERED_CHARACTERS = 4 * 2**20
"""Of instructions, tools and schemas, whose counts are kept; then forgotten all at once."""


class CountRules(msgspec.Struct, frozen=True, kw_only=True):
    """What a counter must know besides the lines."""

    mode: CountMode
    counter: CounterName = "tiktoken"
    max_tokens: int | None
    max_line_bytes: int
    max_embedding_inputs: int
    count_images: CountImages = "formula"
    models: dict[str, str] = {}
    """Behind the names of deployments."""
    sample_every: int = SAMPLE_EVERY


class _Awaiting(msgspec.Struct, gc=False):
    """A request whose texts wait to be counted together with those of its chunk."""

    line: int
    request: Request
    measure: Measure
    start: int
    middle: int
    """Where its texts end and its images begin, in case they are counted as texts."""
    stop: int


class _Target(msgspec.Struct, gc=False):
    """What requests of one model and endpoint have in common, within a chunk."""

    url: str
    key: int
    safe_tokens: float
    """A bound up to this says that a request fits; above it, only a count says that it does not."""
    texts: _Texts | None
    """Where the texts go if every request is counted."""
    output: OutputSum


class ChunkCounter:
    """Counts chunk after chunk; remembers what repeats."""

    def __init__(self, rules: CountRules) -> None:
        self._rules = rules
        self._images_as_text = rules.count_images == "text"
        self._texts: dict[EncodingName, _Texts] = {}
        self._targets: dict[str, _Target] = {}

    def count(self, data: bytes) -> ChunkTally:
        """Tally the lines of a chunk. What is wrong with a line is in the tally, never raised."""
        self._targets.clear()
        is_utf8 = _is_utf8(data)
        ends = _find_ends(data)
        begins = [0, *(end + 1 for end in ends[:-1])]
        tally = TallyBuilder(list(map(operator.sub, ends, begins)))
        for first in range(0, len(ends), _TOGETHER):
            some = slice(first, first + _TOGETHER)
            chats = None
            if is_utf8 and max(tally.lengths[some]) < self._rules.max_line_bytes:
                chats = read_chats(data, begins[some], ends[some])
            if chats is None:
                lines = [data[begin:end] for begin, end in zip(begins[some], ends[some], strict=True)]
                self._count_lines(lines, first, tally, is_utf8=is_utf8)
            else:
                self._add_chats(chats, first + len(chats), tally)
        for texts in self._texts.values():
            self._settle(texts, tally)
        return tally.finish()

    def _count_lines(self, lines: Sequence[bytes], first: int, tally: TallyBuilder, *, is_utf8: bool) -> None:
        """Lines of whatever kind.

        :param first: index of the first of them.
        """
        longest = self._rules.max_line_bytes
        chats: list[PlainChatLine] = []
        for index, line in enumerate(lines, start=first):
            try:
                if not is_utf8:
                    check_utf8(line)
                if len(line) >= longest and not line.isspace():
                    raise overlong_line(len(line) + 1, longest)
                if line and (chat := read_chat(line)) is not None:
                    chats.append(chat)
                    continue
                self._add_chats(chats, index, tally)
                if not line or line.isspace():
                    tally.set_blank(index)
                else:
                    self._add(index, read_other(line, self._rules.models), len(line), tally)
            except BadLineError as error:
                self._add_chats(chats, index, tally)
                tally.reject(index, error.code, error.message, error.custom_id)
        self._add_chats(chats, first + len(lines), tally)

    def _add_chats(self, chats: list[PlainChatLine], stop: int, tally: TallyBuilder) -> None:
        """Add requests in a row, many at once, as `_add` does one; and empty the list.

        :param stop: index of the line after the last of them.
        """
        if not chats:
            return
        start = stop - len(chats)
        lengths = tally.lengths[start:stop]
        target = self._find_target(make_request(chats[0]), tally)
        model = chats[0].body.model
        if any(chat.body.model != model for chat in chats) or max(lengths) > target.safe_tokens:
            for index, chat in enumerate(chats, start):
                self._add(index, make_request(chat), lengths[index - start], tally)
        else:
            tally.hashes[start:stop] = array(HASH, [hash(chat.custom_id) for chat in chats])
            tally.keys[start:stop] = array(KEY, [target.key]) * len(chats)
            target.output.add([chat.body for chat in chats])
            counted = range(start, stop)
            if target.texts is None:  # lines whose number is a multiple
                every = self._rules.sample_every
                counted = range(-(-start // every) * every, stop, every)
            for index in counted:
                request = make_request(chats[index - start])
                (target.texts or self._texts_of(request)).add(index, request)
        chats.clear()

    def _find_target(self, request: Request, tally: TallyBuilder) -> _Target:
        target = self._targets.get(request.model)
        if target is None or target.url != request.url:
            target = self._aim(request, tally)
        return target

    def _add(self, index: int, request: Request, length: int, tally: TallyBuilder) -> None:
        tally.hashes[index] = hash(request.custom_id)
        target = self._find_target(request, tally)
        if target.key:
            tally.keys[index] = target.key
        if request.inputs:
            self._add_inputs(index, request, tally)
        elif request.url in IMAGES:
            tally.inputs[index] = min(_PICTURE * request.body.choices, self._rules.max_embedding_inputs)
        target.output.add([request.body])
        if not request.is_plain:
            tally.images += self._settle_images(request.measure())
        if target.texts is not None:
            target.texts.add(index, request)
            return
        tokens = length
        if not request.is_plain:
            tokens = _bound(request.measure())
            tally.set_tokens(index, tokens, less_certain(request.measure().certainty, "upper"))
        if tokens > target.safe_tokens or index % self._rules.sample_every == 0:
            self._texts_of(request).add(index, request)

    def _settle_images(self, measure: Measure) -> bool:
        """Whether it has images in it. Their texts are kept only where they are counted."""
        if not measure.image_texts:
            return False
        if not self._images_as_text:
            measure.image_texts, measure.image_tokens = [], 0
        return True

    def _add_inputs(self, index: int, request: Request, tally: TallyBuilder) -> None:
        limit = self._rules.max_embedding_inputs
        if request.inputs > limit:
            raise BadLineError(
                "too_many_inputs",
                f"body.input has {request.inputs:,} texts, limit {limit:,} per shard. Split it into more requests",
                request.custom_id,
            )
        tally.inputs[index] = request.inputs

    def _aim(self, request: Request, tally: TallyBuilder) -> _Target:
        limits = (self._rules.max_tokens, context_tokens(self._model_of(request)))
        target = _Target(
            request.url,
            tally.name_key(request.model, request.url),
            min((limit for limit in limits if limit is not None), default=math.inf),
            self._texts_of(request) if self._rules.mode == "exact" else None,
            tally.output_of(request.model, request.url),
        )
        self._targets[request.model] = target
        return target

    def _model_of(self, request: Request) -> str:
        return self._rules.models.get(request.model, request.model)

    def _texts_of(self, request: Request) -> _Texts:
        encoding = encoding_of(self._model_of(request))[0]
        texts = self._texts.get(encoding)
        if texts is None:
            texts = self._texts[encoding] = _Texts(open_counter(self._rules.counter, encoding))
        return texts

    def _settle(self, texts: _Texts, tally: TallyBuilder) -> None:
        is_exact = self._rules.mode == "exact"
        for waiting, counts, images, repeated in texts.count():
            request, measure, line = waiting.request, waiting.measure, waiting.line
            tokens = measure.fixed_tokens + sum(counts) + repeated
            queued = tokens - measure.image_tokens + sum(images)
            certainty = less_certain(measure.certainty, texts.counter.certainty)
            is_bound = certainty == "upper"
            longest = max(measure.longest_tokens, max(counts, default=0))
            problem = self._too_long(request, tokens, longest, is_bound) or self._too_many(queued, is_bound)
            if problem is not None:
                tally.reject(line, *problem, request.custom_id)
                tally.output_of(request.model, request.url).drop(request)
                continue
            is_counted = is_exact or tally.tokens[line] > (self._rules.max_tokens or math.inf)
            if is_counted:
                tally.set_tokens(line, queued, certainty)
            if line % self._rules.sample_every == 0 and (self._images_as_text or not is_counted):
                tally.samples.append((line, tokens))

    def _too_long(
        self, request: Request, tokens: int, longest: int, is_bound: bool
    ) -> tuple[str, str] | None:
        """Code and message, where the model cannot read it. A bound proves nothing against a context."""
        context = context_tokens(self._model_of(request))
        if not is_bound and context is not None:
            is_embedding = request.url == _EMBEDDINGS
            read = longest if is_embedding else tokens
            if read > context:
                what = "an input text" if is_embedding else "the request"
                return (
                    "context_length",
                    f"{what} has {read:,} tokens, limit {context:,} of {request.model}. Shorten it",
                )
            if is_embedding and tokens > MAX_EMBEDDING_TOKENS_PER_REQUEST:
                return (
                    "too_many_tokens",
                    f"request has {tokens:,} input tokens, limit {MAX_EMBEDDING_TOKENS_PER_REQUEST:,} per "
                    "embeddings request. Split it into more requests",
                )
        return None

    def _too_many(self, tokens: int, is_bound: bool) -> tuple[str, str] | None:
        """Code and message, where the queue can never take it."""
        limit = self._rules.max_tokens
        if limit is not None and tokens > limit:
            has = "may have up to" if is_bound else "has"
            return (
                "too_many_tokens",
                f"request {has} {tokens:,} input tokens, limit {limit:,} per shard: it can never fit into the queue. "
                "Shorten it, or raise max_tokens_per_shard if the account's queue takes more",
            )
        return None


def _bound(measure: Measure) -> int:
    texts = (measure.texts, measure.repeated, measure.image_texts)
    return measure.fixed_tokens - measure.image_tokens + sum(sum(map(utf8_bytes, each)) for each in texts)


def overlong_line(length: int, limit: int) -> BadLineError:
    return BadLineError(
        "too_long",
        f"request has {length:,} bytes, limit {limit:,} per shard. Shorten the prompt or refer to files by URL",
    )


def tally_overlong(chunk: Chunk, limit: int) -> ChunkTally:
    """The tally of a line that was too long to be kept."""
    tally = TallyBuilder([min(chunk.overlong_bytes - 1, 2**32 - 1)])
    error = overlong_line(chunk.overlong_bytes, limit)
    tally.reject(0, error.code, error.message, None)
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
        measure = request.measure()
        self._texts.extend(measure.texts)
        middle = len(self._texts)
        self._texts.extend(measure.image_texts)
        self._awaiting.append(_Awaiting(index, request, measure, start, middle, len(self._texts)))

    def count(self) -> list[tuple[_Awaiting, list[int], list[int], int]]:
        """Each request with the counts of its texts, of its images as texts, and the sum of texts that repeat;
        empties itself.
        """
        counts = self.counter.count(self._texts)
        found = [
            (
                waiting,
                counts[waiting.start : waiting.middle],
                counts[waiting.middle : waiting.stop],
                self._count_repeated(waiting.measure),
            )
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


def _find_ends(data: bytes) -> list[int]:
    """Of the lines, before their newlines. A regular expression takes three times as long."""
    ends = []
    end = data.find(b"\n")
    while end >= 0:
        ends.append(end)
        end = data.find(b"\n", end + 1)
    if data and not data.endswith(b"\n"):
        ends.append(len(data))
    return ends


def _is_utf8(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
