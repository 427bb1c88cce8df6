"""One row of a table as what is sent for it."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from airflow_openai_batch.core.endpoints import MAX_EMBEDDING_TOKENS_PER_REQUEST
from airflow_openai_batch.core.models import context_tokens, encoding_of
from airflow_openai_batch.core.preparation.pictures import PictureLoader
from airflow_openai_batch.core.prompts.bodies import BodyMaker
from airflow_openai_batch.core.prompts.spec import DEFAULT_CUSTOM_ID
from airflow_openai_batch.core.prompts.templates import (
    WHOLE_ROW,
    BadRowError,
    RowContext,
    Template,
    UnknownColumnError,
    describe_unknown,
    known_names,
)
from airflow_openai_batch.core.tokens.counters import exact_counter, utf8_bytes

if TYPE_CHECKING:
    from airflow_openai_batch.core.prompts.spec import PromptSpec
    from airflow_openai_batch.core.storage import Location

MAX_REQUEST_BYTES = 50_000_000
"""Of one body. Source: OpenAI's guide on images names it for all images of a request together."""
PICTURE_THREADS = 8
"""Reading and decoding images waits for the storage and leaves Python's lock alone."""


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
    :raises ConfigError: for a template or an image column that cannot work.
    """

    def __init__(
        self, spec: PromptSpec, columns: Iterable[str], *, images_root: Location | None = None
    ) -> None:
        self._custom_id = Template("custom_id", spec.custom_id)
        self._is_default_id = spec.custom_id == DEFAULT_CUSTOM_ID
        self._system = None if spec.system is None else Template("system", spec.system)
        self._user = None if spec.user is None else Template("user", spec.user)
        self._input = None if spec.input is None else Template("input", spec.input)
        self._maker = BodyMaker(spec)
        self._pictures = PictureLoader(spec.images, images_root) if spec.images else None
        self._limit = context_tokens(spec.model)
        self._encoding = encoding_of(spec.model)[0]
        self._known = known_names(columns)
        templates = [each for each in (self._custom_id, self._system, self._user, self._input) if each]
        named = set(chain.from_iterable(each.names for each in templates))
        images = {each.column for each in spec.images}
        if unknown := sorted(images - set(columns)):
            raise UnknownColumnError(f"images.column: {describe_unknown(unknown[0], columns)}")
        wants_all = WHOLE_ROW in named and WHOLE_ROW not in columns
        self.columns: list[str] = [name for name in columns if wants_all or name in named | images]
        """Those of the table that it looks at."""

    def render_all(self, rows: Iterable[tuple[int, Mapping[str, Any], str | None]]) -> Generator[Rendered]:
        """What each row becomes, in order.

        :param rows: number, values by column, and why it cannot be used, if so.
        """
        if self._pictures is None:
            for number, values, problem in rows:
                yield self.render(number, values, problem)
            return
        with ThreadPoolExecutor(PICTURE_THREADS, "images") as pool:
            waiting: list[Future[Rendered]] = []
            try:
                for row in rows:
                    waiting.append(pool.submit(self.render, *row))
                    if len(waiting) > 2 * PICTURE_THREADS:
                        yield waiting.pop(0).result()
                while waiting:
                    yield waiting.pop(0).result()
            finally:
                for future in waiting:
                    future.cancel()

    def render(self, number: int, values: Mapping[str, Any], problem: str | None = None) -> Rendered:
        """:raises ConfigError: if no row could be rendered."""
        if problem is not None:
            return Rendered(reason=problem)
        context = RowContext(values, number, self._known)
        try:
            custom_id = f"row-{number}" if self._is_default_id else self._fill_id(context)
            if self._input is not None:
                return Rendered(custom_id, text=self._fill_input(self._input, context))
            return Rendered(custom_id, body=self._fill_body(values, context))
        except BadRowError as error:
            return Rendered(reason=str(error))

    def _fill_id(self, context: RowContext) -> str:
        custom_id = self._custom_id.fill(context)
        if not custom_id.strip():
            raise BadRowError("custom_id is empty")
        return custom_id

    def _fill_input(self, template: Template, context: RowContext) -> str:
        text = template.fill(context)
        if not text.strip():
            raise BadRowError("input is empty")
        self._check_length("input", text, self._limit or MAX_EMBEDDING_TOKENS_PER_REQUEST)
        return text

    def _fill_body(self, values: Mapping[str, Any], context: RowContext) -> bytes:
        system = None if self._system is None else self._system.fill(context)
        user = None if self._user is None else self._user.fill(context)
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
