"""The first requests as they would go out, with tokens and cost. Nothing is written, nothing is sent.

A preview shows contents of rows. Whoever asks for one asks for that; nothing else in this package shows any.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_openai_batch.openai_api.own_prices import NO_OWN_PRICES, OwnPrices
from airflow_openai_batch.openai_api.prices import estimate_cost
from airflow_openai_batch.requests.request import read_request
from airflow_openai_batch.requests.tokens import count_request_tokens
from airflow_openai_batch.tables.preparation.assignment import Assignment
from airflow_openai_batch.tables.preparation.renderer import Renderer, check_asks_of_rows
from airflow_openai_batch.tables.reading.row_table import read_rows
from airflow_openai_batch.wording import BOUND_WORDS, number_of

if TYPE_CHECKING:
    from airflow_openai_batch.storage.location import Location
    from airflow_openai_batch.tables.prompts.spec import PromptSpec
    from airflow_openai_batch.tables.reading.row_table import RowTable

MOST_SHOWN_CHARACTERS = 20_000
"""Of one request; a log is no place for more."""
_DATA_URL = re.compile(r"(data:image/[a-z+.-]+;base64,)([A-Za-z0-9+/=]{40,})")


def preview_requests(
    spec: PromptSpec,
    table: RowTable,
    requests: int,
    *,
    images_root: Location | None = None,
    own_prices: OwnPrices = NO_OWN_PRICES,
) -> Iterator[str]:
    """Texts for the log: what the first ``requests * rows_per_request`` rows become.

    Rows that would be rejected say why. Equal ones are shown one by one.

    :param own_prices: of the connection that the requests are for, and the models behind its deployments.
    """
    check_asks_of_rows(spec, table.schema.names)
    renderer = Renderer(spec, table.schema.names, images_root=images_root, deployments=own_prices.deployments)
    made: list[tuple[str, bytes]] = []
    assignment = Assignment(
        spec, renderer, lambda custom_id, body: made.append((custom_id, body)), dedupe=False
    )
    totals = _Totals(spec, own_prices)
    rows = itertools.islice(_number_rows(table, renderer), requests * spec.rows_per_request)
    for number, rendered in enumerate(renderer.render_all(rows)):
        if rendered.reason is not None:
            yield f"Row {number:,} would be rejected: {rendered.reason}."
            continue
        assignment.place(number, rendered)
        yield from map(totals.show, made)
        made.clear()
    assignment.finish()
    yield from map(totals.show, made)
    yield totals.summarize()


def _number_rows(table: RowTable, renderer: Renderer) -> Iterator[tuple[int, Any, str | None]]:
    number = 0
    for block in table.blocks:
        for at, values in enumerate(read_rows(block, renderer.columns)):
            yield number, values, block.problems.get(at)
            number += 1


class _Totals:
    """Sums over what was shown."""

    def __init__(self, spec: PromptSpec, own_prices: OwnPrices) -> None:
        self._spec = spec
        self._own_prices = own_prices
        self._model = own_prices.deployments.find_model(spec.model)
        self._requests = self._tokens = 0
        self._cost: float | None = 0.0
        self._is_bounded = True

    def show(self, request: tuple[str, bytes]) -> str:
        custom_id, raw = request
        body = msgspec.json.decode(raw)
        count = count_request_tokens({**body, "model": self._model}, self._spec.url)
        cost = self._price(custom_id, raw, count.tokens)
        self._requests += 1
        self._tokens += count.tokens
        self._cost = None if self._cost is None or cost is None else self._cost + cost
        shown = _DATA_URL.sub(_shorten_data, msgspec.json.format(raw, indent=2).decode())
        if len(shown) > MOST_SHOWN_CHARACTERS:
            shown = (
                f"{shown[:MOST_SHOWN_CHARACTERS]}\n... {len(shown) - MOST_SHOWN_CHARACTERS:,} characters more"
            )
        tokens = number_of(count.tokens, "input token")
        return f"{custom_id}: {BOUND_WORDS[count.certainty]}{tokens}, {self._dollars(cost)}\n{shown}"

    def summarize(self) -> str:
        if not self._requests:
            return "No request was made."
        each = self._tokens / self._requests
        return (
            f"{number_of(self._requests, 'request')} for {self._spec.model}: {self._tokens:,} input tokens "
            f"({each:,.0f} each), {self._dollars(self._cost)}. Nothing was sent, nothing was written."
        )

    def _price(self, custom_id: str, raw: bytes, tokens: int) -> float | None:
        """At the batch price, the answer as long as the request allows; input alone where it sets no limit."""
        line = b'{"custom_id":%b,"method":"POST","url":%b,"body":%b}'
        request = read_request(
            line % (msgspec.json.encode(custom_id), msgspec.json.encode(self._spec.url), raw)
        )
        most = request.body.output_tokens
        self._is_bounded &= most is not None
        found = estimate_cost(
            self._spec.model,
            self._spec.url,
            tokens,
            most or 0,
            at_most=most is not None,
            own_prices=self._own_prices,
        )
        return None if found is None else found[0]

    def _dollars(self, cost: float | None) -> str:
        if cost is None:
            return "price not known"
        if self._is_bounded:
            return f"at most ${cost:.6f} as a batch"
        return f"${cost:.6f} as a batch for the input alone (the prompt sets no limit on the answer)"


def _shorten_data(found: re.Match[str]) -> str:
    return f"{found[1]}... {len(found[2]):,} characters"
