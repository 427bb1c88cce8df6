"""``@task.openai_batch``: a function yields prompts or rows, the task asks all of them and accounts for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from airflow.providers.common.compat.sdk import DecoratedOperator, determine_kwargs
from airflow.sdk.bases.decorator import _TaskDecorator

from airflow_openai_batch.access.givers import find_giver
from airflow_openai_batch.access.locations import open_place
from airflow_openai_batch.operators.prepare_stream import StreamPrepareOperator
from airflow_openai_batch.operators.task.base import fill_defaults
from airflow_openai_batch.operators.task.parameters import read_fraction
from airflow_openai_batch.operators.whole_job import OpenAIBatchJobOperator, run_within
from airflow_openai_batch.tables.preparation import read_manifest
from airflow_openai_batch.tables.reading.read_items import PROMPT_COLUMN

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import TaskDecorator
    from airflow.sdk import Context

    from airflow_openai_batch.tables.preparation.manifest import Manifest

PREPARED = "prepared"
"""Directory below the job's, in which the rows and requests lie."""


class OpenAIBatchDecoratedOperator(DecoratedOperator, OpenAIBatchJobOperator):
    """The operator behind ``@task.openai_batch``; see `openai_batch_task`."""

    custom_operator_name = "@task.openai_batch"
    is_async = False
    """Airflow would await the function."""

    template_fields: Sequence[str] = (
        *DecoratedOperator.template_fields,
        "model",
        "dedupe",
        "on_bad_row",
        "max_rejected_fraction",
        "preview",
        *(name for name in OpenAIBatchJobOperator.template_fields if name != "input_uri"),
    )
    template_fields_renderers: ClassVar[dict[str, str]] = DecoratedOperator.template_fields_renderers

    def __init__(
        self,
        *,
        prompt: str | Path | Mapping[str, Any] | None = None,
        model: str | None = None,
        system: str | None = None,
        user: str | None = None,
        output_type: Any = None,
        parameters: Mapping[str, Any] | None = None,
        endpoint: str | None = None,
        custom_id: str | None = None,
        dedupe: bool | str = False,
        on_bad_row: Literal["reject", "fail"] | str = "reject",
        max_rejected_fraction: float | str = 1.0,
        preview: int | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.prompt = prompt
        self.model = model
        self.system = system
        self.user = user
        self.output_type = output_type
        self.parameters = parameters
        self.endpoint = endpoint
        self.custom_id = custom_id
        self.dedupe = dedupe
        self.on_bad_row = on_bad_row
        self.max_rejected_fraction = max_rejected_fraction
        self.preview = preview

    def make_input(self, context: Context) -> str | None:
        """The requests, prepared once: a retry does not call the function again."""
        prepare = self._make_prepare(context)
        if run_within(prepare, context) is None:  # it was a preview
            return None
        manifest = self._read_manifest(prepare.output_uri, context)
        return find_requests(prepare.output_uri) if manifest and manifest.counts.requests else None

    def describe(self, where: str, found: Mapping[str, Any], context: Context) -> dict[str, Any]:
        """Rows that could not be asked about were never lines of the job: its report knows nothing of them."""
        prepared = f"{where}/{PREPARED}"
        manifest = self._read_manifest(prepared, context)
        rows = manifest.counts.rejected if manifest else 0
        told = {"rejected": found["rejected"] + rows} if "rejected" in found else {}
        return {"prepared": prepared, **told}

    def _read_manifest(self, prepared: str, context: Context) -> Manifest | None:
        return read_manifest(open_place(prepared, "output", find_giver(context, "output_uri")))

    def _make_prepare(self, context: Context) -> StreamPrepareOperator:
        ti = context["ti"]
        index = "" if ti.map_index is None or ti.map_index < 0 else f"[{ti.map_index}]"
        fields = {
            "model": self.model,
            "system": self.system,
            "user": self.user,
            "response_schema": self.output_type,
            "parameters": self.parameters,
            "endpoint": self.endpoint,
            "custom_id": self.custom_id,
        }
        default = {"name": self.python_callable.__name__, "model": "", "user": f"{{{{ {PROMPT_COLUMN} }}}}"}
        return StreamPrepareOperator(
            task_id=PREPARED,
            call=lambda: self._call(context),
            check=lambda: self._check_first(context),
            instance=f"{ti.dag_id}.{ti.task_id}{index} in run {ti.run_id}",
            arguments=[list(self.op_args), dict(self.op_kwargs)],
            prompt=default if self.prompt is None else self.prompt,
            prompt_overrides=fields,
            output_uri=f"{self.read_job_uri(context)}/{PREPARED}",
            dedupe=self.dedupe,
            on_bad_row=self.on_bad_row,
            max_rejected_fraction=self.max_rejected_fraction,
            on_empty=self.on_empty,
            on_existing=self.on_existing,
            openai_conn_id=self.conn_id,
            preview=self.preview,
        )

    def _call(self, context: Context) -> Any:
        given = {**context, **self.op_kwargs}
        arguments = determine_kwargs(self.python_callable, self.op_args, given)
        return self.python_callable(*self.op_args, **arguments)

    def _check_first(self, context: Context) -> None:
        """What would otherwise fail after the function's work: the preparation's and the split's parameters, the key.

        :raises ConfigError: for a value that cannot be used.
        :raises RemoteError: if OpenAI refuses the key.
        """
        where = self.read_job_uri(context)
        read_fraction("max_rejected_fraction", self.max_rejected_fraction)
        split = self.make_split(find_requests(f"{where}/{PREPARED}"))
        split.check_first(where, context, sends_nothing=bool(self.preview))


class _OpenAIBatchDecorator(_TaskDecorator):  # type: ignore[type-arg]
    """Mapped by ``expand``, a decorated task keeps none of its operator's defaults for the scheduler."""

    def _expand(self, expand_input: Any, *, strict: bool) -> Any:
        made: Any = super()._expand(expand_input, strict=strict)
        arguments = made.operator.partial_kwargs
        fill_defaults(self.operator_class, arguments, given=set(arguments))
        return made


def find_requests(prepared: str) -> str:
    """What the split reads, below a prepared directory."""
    return f"{prepared}/requests-*.jsonl"


def openai_batch_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """Make a task of a function that yields prompts (str) or rows (dict), any number of them.

    ::

        @task.openai_batch(model="gpt-6-luna", system="You judge reviews.", output_type=Verdict)
        def judge(path: str):
            for review in read_reviews(path):
                yield review.text

    The function is consumed as a stream, once: a retry or a cleared task goes on with what was prepared, and nothing
    is paid twice. The task prepares the requests, splits them, sends all shards, waits in the triggerer and reports. It
    returns a small dict (``job``, ``results``, ``prepared``, counts, cost), which `iter_answers` takes.

    :param model: of OpenAI, such as ``gpt-6-luna``.
    :param system: what holds for all; a template, as ``user``.
    :param user: what to ask about a row, with ``{{ column }}`` for its cells (Jinja2 in a sandbox; not rendered by
        Airflow). By default the prompt itself: the text that was yielded, or the column ``prompt``.
    :param output_type: a Pydantic model (or a JSON Schema) that the answers keep; made strict.
    :param parameters: ``max_completion_tokens``, ``temperature`` and what else the endpoint takes.
    :param endpoint: ``chat/completions`` (default) or ``responses``.
    :param prompt: a prompt spec (YAML file or dict) in place of these; what is given beside it wins.
    :param custom_id: template of the requests' ids; must be unique.
    :param output_uri: the job directory. ``{run_id}`` stands for the run id; give each run its own. By default below
        ``[openai_batch] output_root``.
    :param dedupe: equal requests are sent once, and answer all their rows.
    :param on_bad_row: rows that cannot be asked about: ``reject`` them, or ``fail``. ``rejected`` of what the task
        returns says how many.
    :param max_rejected_fraction: with ``reject``: more than this part of the rows rejected fails the task before
        anything is sent. 1 by default: never.
    :param preview: show the first so many requests in the log, contents readable, and send nothing.
    :param kwargs: the other parameters of `OpenAIBatchJobOperator`: ``conn_id``, ``send_mode``, ``max_cost_usd``,
        ``max_failed_fraction``, ``sample_requests`` ..., and those of any task.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        return _OpenAIBatchDecorator(
            function=function,
            multiple_outputs=False,
            operator_class=OpenAIBatchDecoratedOperator,
            kwargs=kwargs,
        )

    return cast("TaskDecorator", decorate if python_callable is None else decorate(python_callable))
