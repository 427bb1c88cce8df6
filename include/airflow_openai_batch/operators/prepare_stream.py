"""Prepares requests from rows that a function hands out one by one."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.operators.prepare import OpenAIBatchPrepareOperator
from airflow_openai_batch.operators.task.found_source import FoundSource
from airflow_openai_batch.tables.preparation import read_manifest
from airflow_openai_batch.tables.preparation.manifest import SourceNote
from airflow_openai_batch.tables.preparation.renderer import Renderer, check_asks_of_rows
from airflow_openai_batch.tables.reading.read_items import PROMPT_COLUMN, read_item_rows
from airflow_openai_batch.tables.reading.spool import spool_table

if TYPE_CHECKING:
    from airflow_openai_batch.storage.location import Location
    from airflow_openai_batch.tables.prompts import PromptSpec
    from airflow_openai_batch.tables.reading import RowTable

Items = Iterable[str | Mapping[str, Any]]


class StreamPrepareOperator(OpenAIBatchPrepareOperator):
    """As `OpenAIBatchPrepareOperator`, from what a function yields; part of ``@task.openai_batch``.

    The function is called once, when all that can be wrong without it has been looked at, and not again once its
    rows are prepared. They go through a compressed temporary file on the worker's disk.

    :param call: calls the function.
    :param check: what else to look at before; only where the function is going to be called.
    :param instance: names the task instance: what another one prepared is not gone on with.
    :param arguments: of the call; what was prepared with others is not gone on with.
    """

    def __init__(
        self,
        *,
        call: Callable[[], Items],
        check: Callable[[], None],
        instance: str,
        arguments: Sequence[Any],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.call = call
        self.check = check
        self.instance = instance
        self.arguments = arguments

    def find_source(self, output: Location, spec: PromptSpec) -> FoundSource:
        note = note_function(self.instance, self.arguments)
        manifest = read_manifest(output)
        if manifest is None or manifest.source.sha256 != note.sha256:
            self._check_other(manifest.source.named if manifest else (), note, output)
            check_templates(spec)
            self.check()
        return FoundSource(note=note, open=self._open)

    def _check_other(self, named: Sequence[str], note: SourceNote, output: Location) -> None:
        """:raises ConfigError: if another task instance prepared what is there."""
        if named and tuple(named) != note.named and self.on_existing == "resume":
            raise ConfigError(
                f"{output.uri}: was prepared by {named[0]}, this is {note.named[0]}. Put {{run_id}} (of a mapped task "
                "{{ ti.map_index }}, too) into output_uri, so that each has a directory of its own, or set "
                "on_existing=restart, which pays again."
            )

    @contextlib.contextmanager
    def _open(self, max_rows: int | None) -> Iterator[RowTable]:
        items = check_items(self.call())
        try:
            with spool_table(read_item_rows(itertools.islice(items, max_rows)), max_rows=max_rows) as table:
                yield table
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()


def check_items(items: Any) -> Iterator[str | Mapping[str, Any]]:
    """What the function returned, as a stream.

    :raises ConfigError: if it is none.
    """
    if isinstance(items, str | bytes | Mapping) or not isinstance(items, Iterable):
        kind = "nothing" if items is None else f"a {type(items).__name__}"
        if inspect.iscoroutine(items) or inspect.isasyncgen(items):
            kind = "a coroutine or an async generator"
        if inspect.iscoroutine(items):
            items.close()
        raise ConfigError(
            f"The function returned {kind}: it must yield prompts (str) or rows (dict), or return a list of them."
        )
    return iter(items)


def check_templates(spec: PromptSpec) -> None:
    """:raises ConfigError: for templates of the prompt that are none; which columns there are is not known yet."""
    check_asks_of_rows(spec, ())
    Renderer(msgspec.structs.replace(spec, images=[]) if spec.user else spec, [PROMPT_COLUMN])


def note_function(instance: str, arguments: Sequence[Any]) -> SourceNote:
    """What was called by whom with which arguments; of those that are no JSON, their types."""
    try:
        data = msgspec.json.encode([instance, arguments], enc_hook=_describe_type, order="deterministic")
    except (TypeError, ValueError, OverflowError):
        data = msgspec.json.encode([instance, [type(value).__qualname__ for value in arguments]])
    return SourceNote(kind="function", named=(instance,), sha256=hashlib.sha256(data).hexdigest())


def _describe_type(value: Any) -> str:
    return type(value).__qualname__
