"""From all lines for one request to the one that counts, over all sends."""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from airflow_openai_batch.openai_api.endpoints import Endpoint
from airflow_openai_batch.openai_api.results_check import RESULT_FILE_GONE
from airflow_openai_batch.requests.answer_format import Asked, read_asked
from airflow_openai_batch.requests.schema_check import ChecksApart
from airflow_openai_batch.results.outcome import MISSING, Outcome, OutcomeRules, Rank, read_outcome
from airflow_openai_batch.results.raw_index import RawAnswers
from airflow_openai_batch.results.vector_pieces import VectorPieces, count_vectors, lacks_some, read_inputs

if TYPE_CHECKING:
    from airflow_openai_batch.job.request_line import RequestLine
    from airflow_openai_batch.results.raw_index import Found, Place, SendFiles

BATCH_REQUESTS = 4_000
BATCH_BYTES = 4 * 2**20
"""Of requests, and of answers, that are looked at together."""


class Judged(msgspec.Struct, frozen=True):
    """What one send says of a request."""

    send: int
    """Index into the sends."""
    outcome: Outcome


class Settled(msgspec.Struct, kw_only=True):
    """What became of one request."""

    request: RequestLine
    custom_id: str
    chosen: Judged | None
    """None where no send returned a line."""
    attempts: int
    retryable: bool
    """Whether it may be sent again."""
    unsent: bool = False
    """No send carried it."""
    pieces: tuple[Judged, ...] = ()
    """The answers that ``chosen`` is put together from, where these are several: each is billed as it was sent."""
    others: tuple[Judged, ...] = ()
    """What the other sends say."""
    duplicates: int = 0


class RequestBatch(msgspec.Struct, frozen=True):
    """Some requests in a row, and where their lines stand."""

    first: int
    """Of the shard's requests the number of its first one, 0-based."""
    requests: list[RequestLine]
    asked: list[Asked]
    found: list[Found]


def take_batches(requests: Iterable[RequestLine], raw: RawAnswers, endpoint: str) -> Iterator[RequestBatch]:
    """All requests, in their order, each with the lines for it. Memory: twice `BATCH_BYTES`, and one line."""
    first = 0
    for some in _take_requests(requests):
        asked = [read_asked(request, endpoint) for request in some]
        found = raw.take_all([each.custom_id for each in asked])
        begin = size = 0
        for end, lines in enumerate(found, start=1):
            size += raw.measure(lines)
            if size >= BATCH_BYTES or end == len(some):
                yield RequestBatch(first + begin, some[begin:end], asked[begin:end], found[begin:end])
                begin, size = end, 0
        first += len(some)


def _take_requests(requests: Iterable[RequestLine]) -> Iterator[list[RequestLine]]:
    some: list[RequestLine] = []
    size = 0
    for request in requests:
        some.append(request)
        size += len(request.line)
        if size >= BATCH_BYTES or len(some) == BATCH_REQUESTS:
            yield some
            some, size = [], 0
    if some:
        yield some


def settle_requests(
    requests: Iterable[RequestLine], raw: RawAnswers, *, endpoint: str, rules: OutcomeRules
) -> Iterator[Settled]:
    """What became of each request, in the order of the requests. A pure function of its arguments."""
    with Settler(raw, endpoint=endpoint, rules=rules) as settler:
        for batch in take_batches(requests, raw, endpoint):
            for index in range(len(batch.requests)):
                yield settler.settle(batch, index)


class Settler:
    """Finds out what became of requests. A context manager: it holds files open."""

    def __init__(self, raw: RawAnswers, *, endpoint: str, rules: OutcomeRules) -> None:
        self._raw = raw
        self._sends = raw.sends
        self._endpoint = endpoint
        self._rules = rules
        carried = [dataclasses.replace(send, files=send.leftover or ()) for send in raw.sends]
        self._leftovers = RawAnswers(carried, [send.leftover_sha256 for send in raw.sends])

    def __enter__(self) -> Settler:
        ChecksApart.begin_shard()
        self._leftovers.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._leftovers.__exit__()

    def settle(self, batch: RequestBatch, index: int) -> Settled:
        """What became of one request of a batch."""
        number, request, asked = batch.first + index, batch.requests[index], batch.asked[index]
        places, rules = self._raw.list_places(batch.found[index]), self._rules
        cut = _find_cut(request, asked, self._leftovers)
        told = _judge_sends(asked, places, self._raw, self._endpoint, rules, cut)
        best, pieces = _put_together(request, asked, told, cut, rules)
        attempts, open_ = _count_attempts(number, best, self._sends, rules.max_attempts)
        chosen = _choose(best)
        used = pieces.get(chosen, ()) if chosen is not None else ()
        return Settled(
            request=request,
            custom_id=asked.custom_id,
            chosen=None if chosen is None else Judged(chosen, best[chosen]),
            attempts=attempts,
            retryable=open_,
            unsent=chosen is None and not any(_carries(send, number) for send in self._sends),
            pieces=tuple(Judged(send, told[send]) for send in used) if len(used) > 1 else (),
            others=_find_others(told, {chosen, *used}) if len(told) > 1 else (),
            # Of a video there is what the batch said, and what was found later.
            duplicates=0 if self._endpoint == Endpoint.VIDEOS else len(places) - len(told),
        )

    def count_attempts(self, number: int, send: int) -> int:
        """Of a request that has one answer, which is good.

        :param number: of the request in its shard, 0-based.
        :param send: of the answer, an index into the sends.
        """
        best = {send: Outcome(rank=Rank.GOOD, status="ok")}
        return _count_attempts(number, best, self._sends, self._rules.max_attempts)[0]


_Cut = dict[int, list[bytes] | None]
"""By send, the inputs that it carried of a request, where these are not all; None where that is not known."""


def _find_cut(request: RequestLine, asked: Asked, leftovers: RawAnswers) -> _Cut:
    if all(send.leftover is None for send in leftovers.sends):
        return {}
    cut: _Cut = {index: None for index, send in enumerate(leftovers.sends) if send.leftover is not None}
    for place in leftovers.list_places(leftovers.take(asked.custom_id)):
        line = leftovers.read(place)
        if line == request.line:
            cut.pop(leftovers.send_of(place), None)
        else:
            cut[leftovers.send_of(place)] = read_inputs(line)
    return cut


def _put_together(
    request: RequestLine, asked: Asked, told: dict[int, Outcome], cut: _Cut, rules: OutcomeRules
) -> tuple[dict[int, Outcome], dict[int, tuple[int, ...]]]:
    """By send, what the request had come to with its answer, and the sends whose answers that is put together from."""
    if cut.keys().isdisjoint(told) and not any(map(lacks_some, told.values())):
        return told, {}
    vectors = VectorPieces(request.line, rules)
    if len(vectors.inputs) != asked.inputs:  # one text, or the token numbers of one
        return told, {}
    best: dict[int, Outcome] = {}
    pieces: dict[int, tuple[int, ...]] = {}
    for send in sorted(told):
        best[send] = vectors.add(send, told[send], cut.get(send, vectors.inputs))
        if best[send] is not told[send]:
            pieces[send] = vectors.sends
    return best, pieces


def _carries(send: SendFiles, number: int) -> bool:
    return send.carried is None or number < send.carried


def _choose(best: dict[int, Outcome]) -> int | None:
    if len(best) == 1:
        return next(iter(best))
    return min(best, key=lambda send: (best[send].rank, -count_vectors(best[send]), send), default=None)


def _find_others(told: dict[int, Outcome], used: Container[int | None]) -> tuple[Judged, ...]:
    return tuple(Judged(send, outcome) for send, outcome in told.items() if send not in used)


def describe_missing(sends: Iterable[SendFiles]) -> tuple[str, str]:
    """Code and message of a request that no send returned a line for."""
    sends = tuple(sends)
    for send in reversed(sends):
        if send.gone:
            kinds = " and ".join(send.gone)
            return RESULT_FILE_GONE, (
                f"The {kinds} file of send {send.send} ({send.batch_id}) was deleted or had expired at the server "
                "before it was fetched; what was in it is lost."
            )
    names = ", ".join(f"{send.send} ({send.ended_as})" for send in sends)
    return MISSING, f"No line came back for this request in send {names}."


def _judge_sends(
    asked: Asked,
    places: Sequence[Place],
    raw: RawAnswers,
    endpoint: str,
    rules: OutcomeRules,
    cut: _Cut,
) -> dict[int, Outcome]:
    """The best line of each send that returned one."""
    best: dict[int, Outcome] = {}
    for place in places:
        send = raw.send_of(place)
        inputs = cut.get(send)
        outcome = read_outcome(
            raw.read(place),
            endpoint,
            asked.output_format,
            asked.schema,
            rules,
            inputs=asked.inputs if inputs is None else len(inputs),
            dimensions=asked.dimensions,
        )
        known = best.get(send)
        if known is None or outcome.rank < known.rank:
            best[send] = outcome
    return best


def _count_attempts(
    number: int, best: dict[int, Outcome], sends: Sequence[SendFiles], max_attempts: int
) -> tuple[int, bool]:
    """Attempts, and whether the request is still open after the last send.

    A request without a line in a batch that completed, or whose output is gone, may have run: that counts. In one
    that expired or was cancelled it did not, nor in a sample that did not carry it. A repair begins to count anew.

    :param number: of the request in its shard, 0-based.
    """
    attempts = counted = 0
    open_, good = True, False
    for index, send in enumerate(sends):
        outcome = best.get(index)
        if outcome is None and not _carries(send, number):
            continue
        if outcome is None:
            ran = open_ and (send.ended_as == "completed" or "output" in send.gone)
        else:
            ran, good = outcome.ran, good or outcome.rank is Rank.GOOD
            open_ = open_ and outcome.retryable
        attempts, counted = attempts + ran, counted + ran
        open_ = open_ and counted < max_attempts
        if send.forgiven:
            counted, open_ = 0, not good
    return attempts, open_
