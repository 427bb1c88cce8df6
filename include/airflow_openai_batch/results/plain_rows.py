"""Rows of plain answers, made and priced many at once; `openai_api.plain_answers` says what is plain.

Of a request that has one answer, which is good, all that `reconcile` and `landing` would find out follows from the
answer and its send. Whatever is not so is theirs: several lines for a request, a format that is not met, vectors that
come in pieces, sends one by one, of which each line says how it came.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from airflow_openai_batch.openai_api.endpoints import Endpoint
from airflow_openai_batch.openai_api.lenient_json import clean
from airflow_openai_batch.openai_api.plain_answers import PLAIN_READERS
from airflow_openai_batch.openai_api.prices import BATCH, price_texts
from airflow_openai_batch.requests.schema_check import is_checked_here
from airflow_openai_batch.results.format_check import check_format
from airflow_openai_batch.results.kept_answers import TOKENS, make_columns
from airflow_openai_batch.results.landing_summary import Spending, Tokens
from airflow_openai_batch.results.result_rows import SCHEMA, fill_columns

if TYPE_CHECKING:
    from airflow_openai_batch.job.plan import Shard
    from airflow_openai_batch.openai_api.own_prices import OwnPrices
    from airflow_openai_batch.openai_api.plain_answers import PlainAnswer
    from airflow_openai_batch.openai_api.rates import Numbers
    from airflow_openai_batch.requests.answer_format import Asked
    from airflow_openai_batch.results.raw_index import RawAnswers
    from airflow_openai_batch.results.reconcile import RequestBatch, Settler

Integers = npt.NDArray[np.int64]


class PlainRows(NamedTuple):
    """Rows of the plain answers to a batch of requests, and what they come to."""

    rows: pa.RecordBatch
    attempts: list[int]
    spending: Spending
    unpriced_models: set[str]


class _Costs(NamedTuple):
    """US dollars of each answer; NaN where the price is not known."""

    actual_usd: Numbers
    standard_usd: Numbers
    unpriced_models: set[str]


class PlainRowMaker:
    """Finds plain answers among the lines of a shard, and makes rows of them."""

    def __init__(self, raw: RawAnswers, settler: Settler, shard: Shard, own_prices: OwnPrices) -> None:
        self._raw = raw
        self._settler = settler
        self._shard = shard
        self._own_prices = own_prices
        sends = raw.sends
        # Samples carried only the first requests: of those behind them is one as the other.
        self._behind_samples = max((send.carried for send in sends if send.carried is not None), default=0)
        self._attempts = np.array(
            [settler.count_attempts(self._behind_samples, send) for send in range(len(sends))], np.int64
        )
        self._batch_ids = pa.array([send.batch_id for send in sends], pa.string())
        times = [send.completed_at_ms for send in sends]
        self._times = pa.array(times, SCHEMA.field("completed_at").type)

    def make(self, batch: RequestBatch) -> tuple[PlainRows | None, list[int]]:
        """Rows of the plain answers, if there are some, and the requests without one, by their place in the batch."""
        answers, places = self._find(batch)
        if answers is not None:
            unfit = _find_unfit(answers["value"], [batch.asked[place] for place in places])
            if unfit:
                answers = answers.take(np.delete(np.arange(len(places)), unfit))
                places = np.delete(places, unfit)
        odd = np.delete(np.arange(len(batch.requests)), places).tolist()
        return (None if answers is None or not len(places) else self._make_rows(batch, answers, places)), odd

    def _find(self, batch: RequestBatch) -> tuple[pa.RecordBatch | None, Integers]:
        """The plain answers as columns, and which requests they are for."""
        if set(map(type, batch.found)) == {int} and max(batch.found) < 0:  # type: ignore[type-var, operator]
            return self._raw.kept.take(~np.array(batch.found)), np.arange(len(batch.found))
        kept: list[int] = []
        read: list[PlainAnswer] = []
        places: tuple[list[int], list[int]] = ([], [])
        for place, found in enumerate(batch.found):
            if not isinstance(found, int):
                continue
            if found < 0:
                kept.append(~found)
                places[0].append(place)
            elif (answer := self._raw.read_plain(found)) is not None:
                read.append(answer)
                places[1].append(place)
        parts = [self._raw.kept.take(kept)] if kept else []
        if read:
            parts.append(make_columns(read))
        if len(parts) < 2:
            return (parts[0] if parts else None), np.array(places[0] or places[1], np.int64)
        both = np.array(places[0] + places[1], np.int64)
        order = np.argsort(both)
        (answers,) = pa.Table.from_batches(parts).take(order).combine_chunks().to_batches()
        return answers, both[order]

    def _make_rows(self, batch: RequestBatch, answers: pa.RecordBatch, places: Integers) -> PlainRows:
        whole = len(places) == len(batch.requests)
        requests = batch.requests if whole else [batch.requests[place] for place in places]
        asked = batch.asked if whole else [batch.asked[place] for place in places]
        sends = answers["send"]
        counts = np.array([answers[name].fill_null(0).to_numpy() for name in TOKENS])
        costs = self._price(answers["model"], sends.to_numpy(), counts)
        attempts = self._count_attempts(batch.first + places, sends.to_numpy())
        columns = {
            "position": [request.position for request in requests],
            "source_uri": _make_uris([request.source_uri for request in requests]),
            "line_number": [request.line_number for request in requests],
            "custom_id": [each.custom_id for each in asked],
            "status": pa.repeat("ok", len(places)),
            "status_code": pa.repeat(pa.scalar(200, pa.int32()), len(places)),
            "model": answers["model"],
            **{name: answers[name] for name in TOKENS},
            "cost_usd": pa.array(costs.actual_usd, from_pandas=True),
            "attempts": attempts,
            "sent_as": pa.repeat(BATCH, len(places)),
            "batch_id": self._batch_ids.take(sends),
            "openai_request_id": answers["request_id"],
            "completed_at": self._times.take(sends),
            **self._make_values(answers["value"], asked),
        }
        return PlainRows(
            fill_columns(columns, len(places)), attempts, _add_up(counts, costs), costs.unpriced_models
        )

    def _make_values(self, values: pa.Array, asked: Sequence[Asked]) -> dict[str, pa.Array]:
        if self._shard.endpoint == Endpoint.EMBEDDINGS:
            offsets = pa.array(np.arange(len(values) + 1, dtype=np.int32))
            return {"embeddings": pa.ListArray.from_arrays(offsets, values)}
        formatted = pa.array([each.output_format != "text" for each in asked])
        finish_reason = PLAIN_READERS[self._shard.endpoint].finish_reason
        return {
            "content": values,
            "parsed": pc.if_else(formatted, values, pa.scalar(None, pa.string())),
            "finish_reason": pa.repeat(finish_reason, len(values)),
        }

    def _count_attempts(self, numbers: Integers, sends: Integers) -> list[int]:
        """:param numbers: of the requests in their shard."""
        attempts: list[int] = self._attempts[sends].tolist()
        for index in np.flatnonzero(numbers < self._behind_samples).tolist():
            attempts[index] = self._settler.count_attempts(int(numbers[index]), int(sends[index]))
        return attempts

    def _price(self, models: pa.Array, sends: Integers, counts: Integers) -> _Costs:
        encoded = models.dictionary_encode()
        names = encoded.dictionary.to_pylist()
        kinds = encoded.indices.to_numpy().astype(np.int64) * len(self._raw.sends) + sends
        costs = np.full((2, len(models)), np.nan)
        unpriced_models = set()
        for kind in np.unique(kinds).tolist():
            name, send = divmod(kind, len(self._raw.sends))
            chosen = kinds == kind
            model = names[name] or self._shard.model
            found = price_texts(
                model,
                *counts[:4, chosen].astype(np.float64),
                at=self._raw.sends[send].completed_at,
                asked=self._shard.model,
                own_prices=self._own_prices,
            )
            if found is None:
                unpriced_models.add(model)
            else:
                costs[:, chosen] = found
        return _Costs(costs[0], costs[1], unpriced_models)


def _find_unfit(values: pa.Array, asked: Sequence[Asked]) -> list[int]:
    """Answers that are not what was asked for, or may not be, by their number."""
    if isinstance(values, pa.ListArray):
        lengths = values.value_lengths().to_pylist()
        return [
            number
            for number, (each, length) in enumerate(zip(asked, lengths, strict=True))
            if each.inputs not in (1, None) or each.dimensions not in (length, None)
        ]
    formatted = [number for number, each in enumerate(asked) if each.output_format != "text"]
    return [number for number in formatted if not _is_as_asked(values[number].as_py(), asked[number])]


def _is_as_asked(text: str, asked: Asked) -> bool:
    if asked.schema is not None and not is_checked_here(asked.schema, len(text)):
        return False  # it may be beyond the limits, and is to be held against them once
    found = check_format(text, asked.output_format, asked.schema)
    return found.violation is None and not found.unchecked and found.text == text


def _add_up(counts: Integers, costs: _Costs) -> Spending:
    read, cached, written, output, reasoning = counts.sum(axis=1).tolist()
    return Spending(
        answers=len(costs.actual_usd),
        tokens=Tokens(input=read, cached=cached, written=written, output=output, reasoning=reasoning),
        cost_usd=float(np.nansum(costs.actual_usd)),
        standard_cost_usd=float(np.nansum(costs.standard_usd)),
        unpriced=int(np.isnan(costs.actual_usd).sum()),
    )


def _make_uris(uris: list[str]) -> pa.Array:
    if uris.count(uris[0]) == len(uris):
        return pa.repeat(clean(uris[0]), len(uris))
    return pa.array(map(clean, uris), pa.string())
