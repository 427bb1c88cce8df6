"""Which request answers which row: positions, texts that share a request, rows that share an answer."""

from __future__ import annotations

import tempfile
from array import array
from typing import TYPE_CHECKING, NamedTuple

from airflow_openai_batch.errors import InputError
from airflow_openai_batch.job.rejected import quote
from airflow_openai_batch.tables.preparation.content_hashes import SeenContents
from airflow_openai_batch.tables.prompts.spec import DEFAULT_CUSTOM_ID

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_openai_batch.tables.preparation.renderer import Rendered, Renderer
    from airflow_openai_batch.tables.prompts.spec import PromptSpec

MAX_EMBEDDING_REQUEST_BYTES = 300_000
"""Of the texts of one request: so many bytes never are more than the 300,000 tokens that it may have."""
_MOST_INDEXES = 4_096


class Place(NamedTuple):
    """Where the answer of a row is going to stand."""

    custom_id: str
    position: int
    """Of the request over all request files, from 0."""
    slot: int
    """Of the text in it, from 0."""


class Assignment:
    """Hands each row to a request and each request to a writer, in the order of rows.

    :param write: takes the custom_id and the JSON body of a request that is complete.
    :param dedupe: whether equal bodies (of embeddings: texts) are sent once. Costs 44 to 81 bytes of memory a distinct
        one; the custom_id is that of the first row then.
    """

    def __init__(
        self, spec: PromptSpec, renderer: Renderer, write: Callable[[str, bytes], None], *, dedupe: bool
    ) -> None:
        self._renderer = renderer
        self._write = write
        self._rows_per_request = spec.rows_per_request
        self._seen = SeenContents() if dedupe else None
        self._sent_ids = _SentIds() if dedupe else None
        self._known_ids = None if spec.custom_id == DEFAULT_CUSTOM_ID else SeenContents()
        self._texts: list[str] = []
        self._texts_bytes = 0
        self._id = ""
        self.requests = 0
        """Begun so far."""
        self.duplicates = 0

    def place(self, number: int, rendered: Rendered) -> Place:
        """The place of a row that can be sent.

        :raises InputError: if its custom_id is that of another request.
        """
        content = rendered.body if rendered.body is not None else (rendered.text or "").encode()
        joins = rendered.body is None and self._has_room(len(content))
        position, index = (self.requests - 1, len(self._texts)) if joins else (self.requests, 0)
        if self._seen is not None and self._sent_ids is not None:
            found = self._seen.find_or_add(content, position * _MOST_INDEXES + index)
            if found is not None:
                self.duplicates += 1
                position, index = divmod(found, _MOST_INDEXES)
                return Place(self._sent_ids.read(position), position, index)
        if not joins:
            self._begin(number, rendered.custom_id)
        if rendered.body is not None:
            self._write(rendered.custom_id, rendered.body)
        else:
            self._texts.append(rendered.text or "")
            self._texts_bytes += len(content)
        return Place(self._id, position, index)

    def finish(self) -> None:
        """Complete what is open."""
        self._end()

    def close(self) -> None:
        """Give back what was needed, whether all went well or not."""
        if self._sent_ids is not None:
            self._sent_ids.close()

    def _has_room(self, size: int) -> bool:
        return (
            0 < len(self._texts) < self._rows_per_request
            and self._texts_bytes + size <= MAX_EMBEDDING_REQUEST_BYTES
        )

    def _begin(self, number: int, custom_id: str) -> None:
        self._end()
        if self._known_ids is not None:
            other = self._known_ids.find_or_add(custom_id.encode(), number)
            if other is not None:
                raise InputError(
                    f"rows {other:,} and {number:,}: both have the custom_id {quote(custom_id)}, which must be unique. "
                    "Add {{ _row }} to the custom_id of the prompt, or a column that tells them apart."
                )
        if self._sent_ids is not None:
            self._sent_ids.add(custom_id)
        self._id = custom_id
        self.requests += 1

    def _end(self) -> None:
        if self._texts:
            self._write(self._id, self._renderer.embed(self._texts))
            self._texts, self._texts_bytes = [], 0


class _SentIds:
    """The custom_id of every request so far, in a temporary file; 8 bytes of memory each."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `close`
        self._ends = array("Q", [0])

    def add(self, custom_id: str) -> None:
        data = custom_id.encode()
        self._file.seek(self._ends[-1])
        self._file.write(data)
        self._ends.append(self._ends[-1] + len(data))

    def read(self, position: int) -> str:
        start = self._ends[position]
        self._file.seek(start)
        return self._file.read(self._ends[position + 1] - start).decode()

    def close(self) -> None:
        self._file.close()
