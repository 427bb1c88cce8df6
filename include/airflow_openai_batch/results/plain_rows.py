"""Rows of plain answers, made and priced many at once; `openai_api.plain_answers` says what is plain.

Of a request that has one answer, which is good, all that `reconcile` and `landing` would find out follows from the
answer and its send. Whatever is not so is theirs: several lines for a request, a format that is not met, vectors that
come in pieces, sends one by one, of which each line says how it came.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from airflow_openai_batch.openai_api.lenient_json import clean
from airflow_openai_batch.openai_api.prices import BATCH, price_texts
from airflow_openai_batch.requests.schema_check import is_checked_here
from airflow_openai_batch.results.format_check import check_format
from airflow_openai_batch.results.landing_summary import Spending, Tokens

if TYPE_CHECKING:
    from airflow_openai_batch.job.plan import Shard
    from airflow_openai_batch.openai_api.answer_parts import Vector
    from airflow_openai_batch.openai_api.own_prices import OwnPrices
    from airflow_openai_batch.openai_api.plain_answers import PlainAnswer
    from airflow_openai_batch.openai_api.rates import Numbers
    from airflow_openai_batch.requests.answer_format import Asked
    from airflow_openai_batch.results.raw_index import RawAnswers, SendFiles
    from airflow_openai_batch.results.reconcile import Batch, Settler

Counts = npt.NDArray[np.int64]
"""Of each answer a column: tokens read, read from the cache, written to it, put out, and thought."""


class _Costs(NamedTuple):
    """US dollars of each answer; NaN where the price is not known."""

    actual_usd: Numbers
    standard_usd: Numbers
    unpriced_models: set[str]

    def to_column(self) -> list[float | None]:
        column: list[float | None] = self.actual_usd.tolist()
        return [None if cost != cost else cost for cost in column] if self.unpriced_models else column


class PlainRows(NamedTuple):
    """Rows one after another, and what they come to."""

    columns: dict[str, Sequence[Any]]
    """By name; those that are not there are null."""
    spending: Spending
    unpriced_models: set[str]


class PlainRowMaker:
    """Finds plain answers among the lines of a shard, and makes rows of them."""

    def __init__(self, raw: RawAnswers, settler: Settler, shard: Shard, own_prices: OwnPrices) -> None:
        self._raw = raw
        self._settler = settler
        self._model = shard.model
        self._own_prices = own_prices
        samples = [send.carried for send in raw.sends if send.carried is not None]
        self._behind_samples = max(samples, default=0)

    def make_rows(self, batch: Batch) -> Iterator[PlainRows | int]:
        """In the order of the requests: rows of those that are plain; each other one by its place in the batch."""
        answers: list[PlainAnswer] = []
        send = 0
        for index, (asked, found) in enumerate(zip(batch.asked, batch.found, strict=True)):
            answer = self._raw.read_plain(found)
            if answer is not None and not _is_as_asked(answer.value, asked):
                answer = None
            now = send if answer is None else self._raw.send_of(answer.place)
            if answers and (answer is None or now != send):
                yield self._make(batch, index - len(answers), answers, send)
                answers = []
            if answer is None:
                yield index
            else:
                answers.append(answer)
                send = now
        if answers:
            yield self._make(batch, len(batch.requests) - len(answers), answers, send)

    def _make(self, batch: Batch, start: int, answers: list[PlainAnswer], send: int) -> PlainRows:
        """Of the answers of one send to requests of a batch, from ``start`` on."""
        rows = len(answers)
        requests, asked = batch.requests[start : start + rows], batch.asked[start : start + rows]
        sent = self._raw.sends[send]
        models = [answer.model for answer in answers]
        tokens: dict[str, list[int | None]] = {
            "input_tokens": [answer.input_tokens for answer in answers],
            "cached_input_tokens": [answer.cached_tokens for answer in answers],
            "cache_write_tokens": [answer.written_tokens for answer in answers],
            "output_tokens": [answer.output_tokens for answer in answers],
            "reasoning_tokens": [answer.reasoning_tokens for answer in answers],
        }
        counts = np.array([[count or 0 for count in column] for column in tokens.values()], np.int64)
        costs = self._price(models, sent, counts)
        columns: dict[str, Sequence[Any]] = {
            "position": [request.position for request in requests],
            "source_uri": [_clean_uri(request.source_uri) for request in requests],
            "line_number": [request.line_number for request in requests],
            "custom_id": [each.custom_id for each in asked],
            "status": ["ok"] * rows,
            "status_code": [200] * rows,
            "model": models,
            **tokens,
            "cost_usd": costs.to_column(),
            "attempts": self._count_attempts(batch.first + start, rows, send),
            "sent_as": [BATCH] * rows,
            "batch_id": [sent.batch_id] * rows,
            "openai_request_id": [answer.request_id for answer in answers],
            "completed_at": [sent.completed_at_ms] * rows,
            **_make_values(asked, answers),
        }
        return PlainRows(columns, _add_up(counts, costs), costs.unpriced_models)

    def _count_attempts(self, first: int, rows: int, send: int) -> list[int]:
        """Samples carried only the first requests: of those behind them is one as the other."""
        if first >= self._behind_samples:
            return [self._settler.count_attempts(first, send)] * rows
        return [self._settler.count_attempts(number, send) for number in range(first, first + rows)]

    def _price(self, models: list[str], sent: SendFiles, counts: Counts) -> _Costs:
        numbers = counts[:4].astype(np.float64)
        costs = np.full((2, len(models)), np.nan)
        unpriced_models = set()
        kinds = set(models)
        for model in kinds:
            chosen = slice(None) if len(kinds) == 1 else np.array([each == model for each in models])
            name = model or self._model
            found = price_texts(
                name,
                *numbers[:, chosen],
                at=sent.completed_at,
                asked=self._model,
                own_prices=self._own_prices,
            )
            if found is None:
                unpriced_models.add(name)
            else:
                costs[:, chosen] = found
        return _Costs(costs[0], costs[1], unpriced_models)


def _make_values(asked: list[Asked], answers: list[PlainAnswer]) -> dict[str, Sequence[Any]]:
    values = [answer.value for answer in answers]
    if not isinstance(values[0], str):
        return {"embeddings": [[vector] for vector in values]}
    return {
        "content": values,
        "parsed": [
            None if each.output_format == "text" else value for each, value in zip(asked, values, strict=True)
        ],
        "finish_reason": [answer.finish_reason for answer in answers],
    }


def _is_as_asked(value: str | Vector, asked: Asked) -> bool:
    if not isinstance(value, str):
        return asked.inputs in (1, None) and asked.dimensions in (len(value), None)
    if asked.output_format == "text":
        return True
    if asked.schema is not None and not is_checked_here(asked.schema, len(value)):
        return False  # it may be beyond the limits, and is to be held against them once
    found = check_format(value, asked.output_format, asked.schema)
    return found.violation is None and not found.unchecked and found.text == value


def _add_up(counts: Counts, costs: _Costs) -> Spending:
    read, cached, written, output, reasoning = counts.sum(axis=1).tolist()
    return Spending(
        answers=len(costs.actual_usd),
        tokens=Tokens(input=read, cached=cached, written=written, output=output, reasoning=reasoning),
        cost_usd=float(np.nansum(costs.actual_usd)),
        standard_cost_usd=float(np.nansum(costs.standard_usd)),
        unpriced=int(np.isnan(costs.actual_usd).sum()),
    )


def _clean_uri(uri: str) -> str:
    return uri if uri.isascii() else clean(uri)
