"""Landing: from the raw files of a shard's sends to one row per request, in input order.

A pure function of plan and raw files: landing again writes the same part. Plain answers become rows many at once,
each other one by itself. Memory: the ids of the shard, `raw_index.KEPT_BYTES` of answers, two row groups, one line.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from airflow_openai_batch.errors import AccountingError
from airflow_openai_batch.openai_api.answer_media import leave_out_media
from airflow_openai_batch.openai_api.answer_parts import ResponseContent, Usage
from airflow_openai_batch.openai_api.endpoints import IMAGES, Endpoint
from airflow_openai_batch.openai_api.lenient_json import clean
from airflow_openai_batch.openai_api.own_prices import NO_OWN_PRICES, OwnPrices
from airflow_openai_batch.openai_api.plain_answers import PLAIN_READERS
from airflow_openai_batch.openai_api.prices import BATCH, Cost, SentAs, price_answer
from airflow_openai_batch.openai_api.rates import MediaTokens
from airflow_openai_batch.results.landing_summary import LandingSummary, ProblemTally, SpendingTally
from airflow_openai_batch.results.lanes import LaneTally
from airflow_openai_batch.results.leftovers import LeftoverWriter, make_again
from airflow_openai_batch.results.outcome import NOT_SENT, Outcome
from airflow_openai_batch.results.plain_rows import PlainRowMaker, PlainRows
from airflow_openai_batch.results.raw_index import RawAnswers, SendFiles
from airflow_openai_batch.results.reconcile import Judged, Settled, Settler, describe_missing, take_batches
from airflow_openai_batch.results.result_rows import ResultRow, ResultsWriter

if TYPE_CHECKING:
    import pyarrow as pa

    from airflow_openai_batch.job.plan import Shard
    from airflow_openai_batch.job.request_line import RequestLine
    from airflow_openai_batch.results.media_files import MediaFile, MediaWriter
    from airflow_openai_batch.results.outcome import OutcomeRules
    from airflow_openai_batch.storage.location import Location

_NOT_SAMPLED = "Not sent, since it is not part of the sample. A run without sample_requests asks for it."
_TOO_LATE = "Not sent: the deadline came first."
_NO_ANSWER, _NO_USAGE = ResponseContent(), Usage()


def land_shard(
    requests: Iterable[RequestLine],
    sends: Sequence[SendFiles],
    part: Location,
    *,
    media: MediaWriter,
    shard: Shard,
    rules: OutcomeRules,
    keep_response_body: bool = False,
    own_prices: OwnPrices = NO_OWN_PRICES,
    leftover: LeftoverWriter | None = None,
) -> LandingSummary:
    """Write the part file of a shard, whole or not at all, and what of it is to be sent again, in one pass.

    :param requests: the shard's request lines, in input order.
    :param sends: the sends so far, oldest first, each with the files that came back.
    :param own_prices: of the connection that paid for the answers.
    :param leftover: takes the requests that may be sent again, and is closed by the caller; ``None``: none is.
    :param part: where the Parquet file goes (``results/part-00000.parquet``).
    :param media: takes what answers bring as files.
    :raises InputChangedError: if a request line is none any more.
    :raises AccountingError: if ``requests`` gives more or fewer than the plan says.
    :raises GivenUpError: if nobody waits for the part any more.
    """
    unsent = _TOO_LATE if leftover is None else _NOT_SAMPLED
    landing = _Landing(sends, shard, media, keep_response_body, own_prices, unsent)
    # The body of an answer is more than what is read of a plain one.
    reader = None if keep_response_body else PLAIN_READERS.get(shard.endpoint)
    with (
        RawAnswers(sends, reader=reader) as raw,
        Settler(raw, endpoint=shard.endpoint, rules=rules) as settler,
        part.open_write() as file,
    ):
        plain = PlainRowMaker(raw, settler, shard, own_prices)
        writer = ResultsWriter(file)
        with writer:
            for batch in take_batches(requests, raw, shard.endpoint):
                made, odd = plain.make(batch)
                rows = []
                for index in odd:
                    part.check_wanted()  # a check against a schema may take seconds
                    settled = settler.settle(batch, index)
                    rows.append(landing.to_row(settled))
                    if leftover is not None and settled.retryable:
                        leftover.write(make_again(settled))
                writer.write_mixed(None if made is None else landing.count(made), rows, odd)
        if writer.rows != shard.requests:
            raise AccountingError(
                f"shard {shard.shard}: the plan says {shard.requests:,} requests, {writer.rows:,} were read "
                "from the input. The input or plan.json was changed since the split."
            )
        strays = raw.strays
    media.remove_others(max((send.send for send in sends), default=0))
    return landing.summarize(strays=strays, part_bytes=writer.bytes_written, part_sha256=writer.sha256)


def _find_lane(send: SendFiles, outcome: Outcome) -> SentAs:
    """How one request went out: of a send one by one each line says it."""
    return "flex" if send.sent_as == "realtime" and outcome.flex else send.sent_as


def _count_media(usage: Usage, endpoint: str) -> MediaTokens | None:
    drawn = usage.output_image_tokens
    if drawn is None and endpoint in IMAGES:  # not every answer says it
        drawn = usage.output_tokens
    found = (usage.input_image_tokens, usage.input_audio_tokens, drawn, usage.output_audio_tokens)
    if usage.seconds is None and not any(found):
        return None
    return MediaTokens(*(count or 0 for count in found))._replace(seconds=usage.seconds)


class _Landing:
    """What is the same for all rows of a landing, and the sums over them."""

    def __init__(
        self,
        sends: Sequence[SendFiles],
        shard: Shard,
        media: MediaWriter,
        keep_response_body: bool,
        own_prices: OwnPrices,
        unsent: str,
    ) -> None:
        self._unsent = unsent
        self._sends = sends
        self._shard = shard
        self._media = media
        self._keep_response_body = keep_response_body
        self._own_prices = own_prices
        self._rows: Counter[str] = Counter()
        self._attempts: Counter[int] = Counter()
        self._problems = ProblemTally()
        self._spending = SpendingTally()
        self._replaced = SpendingTally()
        self._lanes = LaneTally()
        self._unpriced_models: set[str] = set()
        self._refused_for_account = 0
        self._retryable = self._duplicates = self._account_errors = self._unchecked = 0
        self._missing = describe_missing(sends)

    def count(self, made: PlainRows) -> pa.RecordBatch:
        """Returns the rows."""
        spending = made.spending
        self._rows["ok"] += spending.answers
        self._attempts.update(made.attempts)
        self._spending.add_all(spending)
        cost = Cost(spending.cost_usd, spending.standard_cost_usd)
        self._lanes.add(BATCH, cost, answers=spending.answers)
        self._unpriced_models.update(model[:100] for model in made.unpriced_models)
        return made.rows

    def to_row(self, settled: Settled) -> ResultRow:
        self._attempts[settled.attempts] += 1
        self._retryable += settled.retryable
        self._refused_for_account += settled.retryable and self._is_refused_for_account(settled)
        self._duplicates += settled.duplicates
        for other in settled.others:
            self._account_errors += other.outcome.account_error
            self._price(other, self._replaced)
        if settled.chosen is None:
            return self._to_missing_row(settled)
        return self._to_answered_row(settled, settled.chosen)

    def summarize(self, *, strays: int, part_bytes: int, part_sha256: str) -> LandingSummary:
        return LandingSummary(
            requests=self._rows.total(),
            rows=dict(self._rows),
            problems=self._problems.list(),
            spending=self._spending.sum(),
            replaced=self._replaced.sum(),
            lanes=self._lanes.sum(),
            unpriced_models=tuple(sorted(self._unpriced_models)[:10]),
            attempts=dict(sorted(self._attempts.items())),
            strays=strays,
            duplicates=self._duplicates,
            retryable=self._retryable,
            refused_for_account=self._refused_for_account,
            account_errors=self._account_errors,
            media=self._media.count(),
            unchecked=self._unchecked,
            part_bytes=part_bytes,
            part_sha256=part_sha256,
        )

    def _is_refused_for_account(self, settled: Settled) -> bool:
        """By what the newest send says of it."""
        judged = [*settled.others, *([settled.chosen] if settled.chosen else [])]
        return any(each.outcome.account_error and each.send == len(self._sends) - 1 for each in judged)

    def _to_missing_row(self, settled: Settled) -> ResultRow:
        code, message = (NOT_SENT, self._unsent) if settled.unsent else self._missing
        self._rows["missing"] += 1
        self._problems.add(code, settled.custom_id, message)
        request = settled.request
        return ResultRow(
            request.position,
            clean(request.source_uri),
            request.line_number,
            settled.custom_id,
            "missing",
            None,
            code,
            message,
            *(None,) * 14,
            settled.attempts,
            *(None,) * 5,
        )

    def _to_answered_row(self, settled: Settled, chosen: Judged) -> ResultRow:
        outcome = chosen.outcome
        send = self._sends[chosen.send]
        answer = outcome.answer or _NO_ANSWER
        usage = answer.usage or _NO_USAGE
        cost = self._price_pieces(settled.pieces) if settled.pieces else self._price(chosen, self._spending)
        self._rows[outcome.status] += 1
        self._account_errors += outcome.account_error
        self._unchecked += outcome.unchecked
        if outcome.error_code is not None:
            self._problems.add(outcome.error_code, settled.custom_id, outcome.error_message or "")
        request = settled.request
        body = self._find_body(outcome)
        # In the order of `SCHEMA`: by name it would take a tenth of the whole landing.
        return ResultRow(
            request.position,
            request.source_uri if request.source_uri.isascii() else clean(request.source_uri),
            request.line_number,
            settled.custom_id,
            outcome.status,
            outcome.status_code,
            outcome.error_code,
            outcome.error_message,
            answer.content,
            answer.refusal,
            outcome.parsed,
            None if answer.choices is None else [choice.shown for choice in answer.choices],
            answer.embeddings,
            self._write_media(request.position, send, answer) if answer.media else None,
            answer.finish_reason,
            answer.model,
            usage.input_tokens,
            usage.cached_input_tokens,
            usage.cache_write_tokens,
            usage.output_tokens,
            usage.reasoning_tokens,
            None if cost is None else cost.actual_usd,
            settled.attempts,
            _find_lane(send, outcome),
            send.batch_id,
            outcome.request_id,
            send.completed_at_ms,
            None if body is None else body.decode("utf-8", "replace"),
        )

    def _write_media(self, position: int, send: SendFiles, answer: ResponseContent) -> list[MediaFile]:
        return self._media.write(position, send.send, answer.media or [])

    def _find_body(self, outcome: Outcome) -> bytes | None:
        """What stands in files is left out."""
        if outcome.body is None or not self._keep_response_body:
            return None
        return leave_out_media(outcome.body)

    def _price_pieces(self, pieces: Sequence[Judged]) -> Cost | None:
        """One answer in its row, of several sends, each at its own price."""
        costs = [
            self._price(piece, self._spending, answers=1 if number == 0 else 0)
            for number, piece in enumerate(pieces)
        ]
        known = [cost for cost in costs if cost is not None]
        if len(known) < len(costs):
            return None
        return Cost(sum(cost.actual_usd for cost in known), sum(cost.standard_usd for cost in known))

    def _price(self, judged: Judged, tally: SpendingTally, *, answers: int = 1) -> Cost | None:
        answer = judged.outcome.answer
        if answer is None:
            return None
        send = self._sends[judged.send]
        lane = _find_lane(send, judged.outcome)
        cost = self._find_cost(answer, send, lane)
        tally.add(answer.usage, cost, answers=answers)
        self._lanes.add(lane, cost, answers=answers)
        if send.hurried:
            in_batch = cost if lane == "flex" else self._find_cost(answer, send, "batch")
            self._lanes.add_hurried(lane, cost, in_batch, answers=answers)
        if cost is None:
            self._unpriced_models.add((answer.model or self._shard.model)[:100])
        return cost

    def _find_cost(self, answer: ResponseContent, send: SendFiles, sent_as: SentAs) -> Cost | None:
        """By the model that answered, or else the one that was asked."""
        usage = answer.usage
        if answer.defect is not None and self._shard.endpoint == Endpoint.VIDEOS:
            return Cost(0.0, 0.0)  # what was not made is not billed
        if usage is None or not self._is_counted(usage):
            return Cost(0.0, 0.0) if self._shard.endpoint == "/v1/moderations" else None
        return price_answer(
            answer.model or self._shard.model,
            sent_as,
            usage.input_tokens or 0,
            usage.output_tokens or 0,
            usage.cached_input_tokens or 0,
            send.completed_at,
            answer.service_tier,
            written_tokens=usage.cache_write_tokens or 0,
            written_long_tokens=usage.long_cache_write_tokens or 0,
            media=_count_media(usage, self._shard.endpoint),
            asked=self._shard.model,
            own_prices=self._own_prices,
        )

    def _is_counted(self, usage: Usage) -> bool:
        """Whether there is anything to price: a server that gives no number has not said that there were none."""
        if self._shard.endpoint == Endpoint.VIDEOS:
            return usage.seconds is not None
        if usage.input_tokens is None:
            return False
        return usage.output_tokens is not None or self._shard.endpoint == "/v1/embeddings"
