"""The whole flow as one task group, for DAGs of one's own."""

from __future__ import annotations

import difflib
import inspect
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import XComArg
from airflow.sdk import BaseOperator, TaskGroup, TriggerRule
from airflow.sdk.definitions.mappedoperator import MappedOperator
from airflow.sdk.definitions.xcom_arg import PlainXComArg

from airflow_openai_batch.dag_params import (
    landing_arguments,
    report_arguments,
    sending_arguments,
    split_arguments,
)
from airflow_openai_batch.operators.join import OpenAIBatchJoinOperator
from airflow_openai_batch.operators.report import OpenAIBatchReportOperator
from airflow_openai_batch.operators.shard import OpenAIBatchShardOperator
from airflow_openai_batch.operators.split import OpenAIBatchSplitOperator
from airflow_openai_batch.operators.task.parameters import read_fraction

if TYPE_CHECKING:
    from collections.abc import Sequence

SPLIT_OPTIONS = frozenset(OpenAIBatchSplitOperator.template_fields)
SHARD_OPTIONS = frozenset(
    {*OpenAIBatchShardOperator.template_fields, "deferrable", "cancel_on_kill"} - {"shard"}
)
REPORT_OPTIONS = frozenset(OpenAIBatchReportOperator.template_fields) - {"job"}


class OpenAIBatchTaskGroup(TaskGroup):
    """What `openai_batch_task_group` returns: a task group with a name for what comes out of it."""

    from_params = False
    """Whether it takes from the run's form what the call does not give."""

    @property
    def job(self) -> Any:
        """The job directory's URI, once all has landed: for a join or a task of one's own (an ``XComArg``)."""
        return XComArg(self.report, key="job")

    @property
    def counts(self) -> Any:
        """What `OpenAIBatchReportOperator` returns: counts, cost and the report's URI (an ``XComArg``)."""
        return XComArg(self.report)

    @property
    def begun_job(self) -> str:
        """The job directory's URI as soon as the split knows it, for what does not wait for the verdict of the report;
        see `join_rows`. A template; empty where the split failed."""
        return _pull(self._find(OpenAIBatchSplitOperator), "job")

    @property
    def shards(self) -> Any:
        """The mapped task of the shards: what comes after it, and not after the group, does not wait for the verdict of
        the report, which then ends the run on its own and turns it red where it must."""
        return next(task for task in self.children.values() if isinstance(task, MappedOperator))

    @property
    def report(self) -> BaseOperator:
        """The task that writes the report, and judges."""
        return self._find(OpenAIBatchReportOperator)

    def join_rows(
        self, prepare: BaseOperator, output_uri: str, *, task_id: str = "join", **options: Any
    ) -> OpenAIBatchJoinOperator:
        """A join beside the report, not after it: there is a table whatever becomes of the shards, and the report turns
        the run red where it must. Rows without an answer say why; those of shards that are not done are ``unfinished``.

        Who clears shards that failed clears the join, too, or has a table without their answers: a last task with
        `check_joined` (`airflow_openai_batch.operators.own_tasks`) tells them.

        :param prepare: the `OpenAIBatchPrepareOperator` whose requests the group sends.
        :param output_uri: the file to write.
        :param options: of `OpenAIBatchJoinOperator`.
        """
        join = OpenAIBatchJoinOperator(
            task_id=task_id,
            prepared=f"{{{{ ti.xcom_pull(task_ids='{prepare.task_id}', key='prepared') }}}}",
            job=self.begun_job,
            output_uri=output_uri,
            **{
                "on_unfinished": "keep",
                "trigger_rule": TriggerRule.ALL_DONE,
                **self._read_form(),
                **options,
            },
        )
        self.shards.set_downstream(join)
        return join

    def _read_form(self) -> dict[str, str]:
        """What a form says of a table; that of `make_params` says nothing."""
        is_there = self.from_params and "overwrite" in self.dag.params
        return {"overwrite": "{{ params.overwrite }}"} if is_there else {}

    def _find(self, kind: type[BaseOperator]) -> BaseOperator:
        return next(task for task in self.children.values() if isinstance(task, kind))


def openai_batch_task_group(
    group_id: str = "openai_batch",
    *,
    input_uri: str | Sequence[str] | Any = None,
    output_uri: str | Any = None,
    from_params: bool = False,
    tooltip: str = "",
    prefix_group_id: bool = True,
    default_args: dict[str, Any] | None = None,
    **options: Any,
) -> OpenAIBatchTaskGroup:
    """Split, one deferrable task per shard, report: ``<group_id>.split``, ``.shard``, ``.publish``.

    The group fails where a shard does, or where more than ``max_failed_fraction`` of the rows are not ``ok``; what
    comes after it runs only once every request is accounted for. Must be called within a DAG.

    :param input_uri: requests, as `OpenAIBatchSplitOperator` takes them; the output of
        `OpenAIBatchPrepareOperator`, for instance.
    :param output_uri: the job directory; ``{run_id}`` stands for the run's id.
    :param from_params: take from the run's form what is not given here; the DAG needs
        ``params=make_params()`` (`airflow_openai_batch.dag_params`) for it.
    :param default_args: of the three tasks, above those of the DAG: ``retries``, ``pool``, ``queue`` ...
    :param options: any keyword of the three operators; it goes to each of them that knows it.
    :raises ConfigError: for a ``max_failed_fraction`` that is none.
    :raises TypeError: for a keyword that none of them knows, or ``from_params`` in a DAG without the form.
    """
    places = {"input_uri": input_uri, "output_uri": output_uri}
    given = options | {name: value for name, value in places.items() if value is not None}
    _check_names(given)
    allowed = given.get("max_failed_fraction", 0.0)
    if isinstance(allowed, int | float) or (isinstance(allowed, str) and "{" not in allowed):
        read_fraction("max_failed_fraction", allowed)  # else the report would say it, when all is paid
    if not from_params and (missing := {"input_uri", "output_uri"} - given.keys()):
        raise TypeError(f"{group_id}: {' and '.join(sorted(missing))} must be given, or from_params=True.")
    split_args = (split_arguments() if from_params else {}) | _choose(given, SPLIT_OPTIONS)
    shard_args = _read_shard_arguments(from_params) | _choose(given, SHARD_OPTIONS)
    report_args = (report_arguments() if from_params else {}) | _choose(given, REPORT_OPTIONS)
    defaults: Any = default_args or {}
    group = OpenAIBatchTaskGroup(
        group_id, prefix_group_id=prefix_group_id, tooltip=tooltip, default_args=defaults
    )
    group.from_params = from_params
    if from_params and not SPLIT_OPTIONS & set(group.dag.params):
        raise TypeError(f"{group_id}: from_params=True needs a form: give the DAG params=make_params().")
    with group:
        split = OpenAIBatchSplitOperator(task_id="split", **split_args)
        shard = OpenAIBatchShardOperator.partial(task_id="shard", **shard_args).expand(shard=split.output)
        publish = OpenAIBatchReportOperator(
            task_id="publish",
            job=_pull(split, "job"),
            **{"asset_uri": _pull(split, "asset"), **_name_xcoms(report_args)},
            # Whatever became of the shards; not where the split failed or there is nothing to publish.
            trigger_rule=TriggerRule.ALL_DONE_MIN_ONE_SUCCESS,
        )
        shard >> publish
        split >> publish
    for value in given.values():
        if isinstance(value, XComArg):
            value.set_downstream(split)
    return group


def _read_shard_arguments(from_params: bool) -> dict[str, Any]:
    return {**sending_arguments(), **landing_arguments()} if from_params else {}


def _choose(given: dict[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name in names}


def _name_xcoms(arguments: dict[str, Any]) -> dict[str, Any]:
    """Other tasks' results as templates: given as they are, they would be upstream of the report, which runs as soon as
    one of its upstream tasks has succeeded, and would then have nothing to report where the split never ran."""
    return {
        name: f"{{{{ ti.xcom_pull(task_ids='{value.operator.task_id}', key='{value.key}') }}}}"
        if isinstance(value, PlainXComArg)
        else value
        for name, value in arguments.items()
    }


def _pull(split: BaseOperator, key: str) -> str:
    """Empty where the split pushed nothing, so that the report can say so."""
    return f"{{{{ ti.xcom_pull(task_ids='{split.task_id}', key='{key}') or '' }}}}"


def _check_names(given: dict[str, Any]) -> None:
    known = SPLIT_OPTIONS | SHARD_OPTIONS | REPORT_OPTIONS
    for name in given.keys() - known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        if name in inspect.signature(BaseOperator.__init__).parameters:
            hint = f" Give what holds for any task in default_args={{{name!r}: ...}}."
        raise TypeError(f"openai_batch_task_group: none of its operators has the parameter {name!r}.{hint}")
