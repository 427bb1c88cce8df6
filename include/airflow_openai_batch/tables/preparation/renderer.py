"""One row of a table as what is sent for it."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.openai_api.deployments import NO_DEPLOYMENTS, Deployments
from airflow_openai_batch.openai_api.endpoints import MAX_EMBEDDING_TOKENS_PER_REQUEST
from airflow_openai_batch.openai_api.models import context_tokens, encoding_of
from airflow_openai_batch.requests.tokens.counters import exact_counter, utf8_bytes
from airflow_openai_batch.tables.preparation.pictures import PictureLoader
from airflow_openai_batch.tables.prompts.filling import Filling
from airflow_openai_batch.tables.prompts.filling_apart import Filled, FillingApart, Row
from airflow_openai_batch.tables.prompts.request_bodies import BodyMaker
from airflow_openai_batch.tables.prompts.spec import DEFAULT_CUSTOM_ID
from airflow_openai_batch.tables.prompts.templates import BadRowError, UnknownColumnError, describe_unknown
from airflow_openai_batch.wording import shorten

if TYPE_CHECKING:
    from airflow_openai_batch.storage.location import Location
    from airflow_openai_batch.tables.prompts.spec import PromptSpec

MAX_REQUEST_BYTES = 50_000_000
"""Of one body. Source: OpenAI's guide on images names it for all images of a request together."""
PICTURE_THREADS = 8
"""Reading and decoding images waits for the storage and leaves Python's lock alone."""


def check_asks_of_rows(spec: PromptSpec, columns: Iterable[str]) -> None:
    """Whoever forgets the braces pays for the answer to one question, as often as there are rows.

    :param columns: of the table; none where they are not known before its rows.
    :raises ConfigError: if the prompt is the same for every row.
    """
    texts = {"system": spec.system, "user": spec.user, "input": spec.input}
    given = {field: text for field, text in texts.items() if text is not None}
    if spec.images or any(mark in text for text in given.values() for mark in ("{{", "{%", "{#")):
        return
    listed = ", ".join(shorten(name, 40) for name in list(columns)[:20])
    named = f"The columns are {listed}." if listed else "What is yielded as a text is {{ prompt }}."
    raise ConfigError(
        f"{' and '.join(given)}: would ask the same of every row, since no {{{{ column }}}} stands in it. {named} "
        "Where that is meant, write {# same for all #} into it."
    )


class Rendered(NamedTuple):
    """What a row became: exactly one of ``body``, ``text`` and ``reason`` is there."""

    custom_id: str = ""
    body: bytes | None = None
    """JSON."""
    text: str | None = None
    """To embed."""
    reason: str | None = None


class Renderer:
    """Fills the templates of a prompt and loads its images.

    :param images_root: see `PictureLoader`.
    :param columns: of the table.
    :param deployments: which model is behind the prompt's, where that names a deployment.
    :raises ConfigError: for a template or an image column that cannot work.
    """

    def __init__(
        self,
        spec: PromptSpec,
        columns: Iterable[str],
        *,
        images_root: Location | None = None,
        deployments: Deployments = NO_DEPLOYMENTS,
    ) -> None:
        fields = {"custom_id": spec.custom_id, "system": spec.system, "user": spec.user, "input": spec.input}
        if spec.custom_id == DEFAULT_CUSTOM_ID:
            del fields["custom_id"]
        given = {field: text for field, text in fields.items() if text is not None}
        columns = list(columns)
        self._filling = Filling(given, columns)
        self._apart = None if self._filling.is_harmless else FillingApart(given, columns)
        self._maker = BodyMaker(spec)
        model = deployments.find_model(spec.model)
        self._pictures = PictureLoader(spec.images, images_root, model=model) if spec.images else None
        self._limit = context_tokens(model)
        self._encoding = encoding_of(model)[0]
        images = {each.column for each in spec.images}
        if unknown := sorted(images - set(columns)):
            raise UnknownColumnError(f"images.column: {describe_unknown(unknown[0], columns)}")
        wanted = images.union(self._filling.columns)
        self.columns: list[str] = [name for name in columns if name in wanted]
        """Those of the table that it looks at."""

    def render_all(self, rows: Iterable[Row]) -> Generator[Rendered]:
        """What each row becomes, in order.

        :param rows: number, values by column, and why it cannot be used, if so.
        """
        filled: Iterable[tuple[Row, Filled | None]] = ((row, None) for row in rows)
        with contextlib.ExitStack() as stack:
            if self._apart is not None:
                filled = stack.enter_context(contextlib.closing(self._apart.fill_all(rows)))
            if self._pictures is None:
                for row, texts in filled:
                    yield self._render(row, texts)
            else:
                yield from self._render_in_threads(filled)

    def _render_in_threads(self, rows: Iterable[tuple[Row, Filled | None]]) -> Generator[Rendered]:
        with ThreadPoolExecutor(PICTURE_THREADS, "images") as pool:
            waiting: list[Future[Rendered]] = []
            try:
                for row in rows:
                    waiting.append(pool.submit(self._render, *row))
                    if len(waiting) > 2 * PICTURE_THREADS:
                        yield waiting.pop(0).result()
                while waiting:
                    yield waiting.pop(0).result()
            finally:
                for future in waiting:
                    future.cancel()

    def render(self, number: int, values: Mapping[str, Any], problem: str | None = None) -> Rendered:
        """:raises ConfigError: if no row could be rendered."""
        (rendered,) = self.render_all([(number, values, problem)])
        return rendered

    def _render(self, row: Row, filled: Filled | None) -> Rendered:
        number, values, problem = row
        if problem is not None:
            return Rendered(reason=problem)
        try:
            texts = self._filling.fill(number, values) if filled is None else filled.check()
            custom_id = texts.get("custom_id", f"row-{number}")
            if not custom_id.strip():
                raise BadRowError("custom_id is empty")
            if (text := texts.get("input")) is not None:
                return Rendered(custom_id, text=self._check_input(text))
            return Rendered(custom_id, body=self._make_body(values, texts.get("system"), texts.get("user")))
        except BadRowError as error:
            return Rendered(reason=str(error))

    def _check_input(self, text: str) -> str:
        if not text.strip():
            raise BadRowError("input is empty")
        self._check_length("input", text, self._limit or MAX_EMBEDDING_TOKENS_PER_REQUEST)
        return text

    def _make_body(self, values: Mapping[str, Any], system: str | None, user: str | None) -> bytes:
        pictures = self._pictures.load(values) if self._pictures is not None else []
        if not (user or "").strip() and not pictures:
            raise BadRowError("user is empty")
        if self._limit is not None:
            self._check_length("the prompt", (system or "") + (user or ""), self._limit)
        body = msgspec.json.encode(self._maker.ask(system, user, pictures))
        if len(body) > MAX_REQUEST_BYTES:
            raise BadRowError(f"the request has {len(body):,} bytes, limit {MAX_REQUEST_BYTES:,}")
        return body

    def _check_length(self, what: str, text: str, limit: int) -> None:
        """No text has more tokens than bytes, so only long ones are counted."""
        if utf8_bytes(text) <= limit:
            return
        (tokens,) = exact_counter(self._encoding).count([text])
        if tokens > limit:
            raise BadRowError(f"{what} has {tokens:,} tokens, the model reads {limit:,}")

    def embed(self, texts: list[str]) -> bytes:
        """The body of a request for these."""
        return msgspec.json.encode(self._maker.embed(texts))
