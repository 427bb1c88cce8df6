"""A whole job in one deferrable task: split, every shard, report. The operators for these do all the work."""

from __future__ import annotations

import inspect
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow.providers.common.compat.sdk import AirflowFailException, SkipMixin, TaskDeferred

from airflow_openai_batch.access.givers import find_giver
from airflow_openai_batch.access.locations import open_place
from airflow_openai_batch.access.settings import find_output_root
from airflow_openai_batch.costs.sample import choose_sample, make_refs
from airflow_openai_batch.errors import ConfigError, NoPlanError
from airflow_openai_batch.job import directory
from airflow_openai_batch.operators.report import OpenAIBatchReportOperator
from airflow_openai_batch.operators.shard import LandingOperator, OpenAIBatchShardOperator
from airflow_openai_batch.operators.split import OpenAIBatchSplitOperator
from airflow_openai_batch.operators.task.base import add_outlets
from airflow_openai_batch.operators.task.caller import make_caller
from airflow_openai_batch.operators.task.failures import OpenAIBatchException, task_failures
from airflow_openai_batch.operators.task.ownership import check_same_plan
from airflow_openai_batch.operators.task.parameters import read_fraction, read_optional_int
from airflow_openai_batch.operators.task.run_place import find_shared_place, place_of_run
from airflow_openai_batch.operators.task.sending import read_policy
from airflow_openai_batch.wording import name_some, number_of

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context

    from airflow_openai_batch.triggers.held import HeldTrigger

MOST_WAITS = 256
"""Batches that are waited for at once."""
MOST_IN_LINE = 12
"""Shards that stand in the line for room of a model at once."""
MOST_HICCUPS = 8
"""Times in a row that a failure of a shard is met with another look, before it is the task's."""
HICCUP_DELAY_S = 60.0
HICCUP = "hiccup"
"""Name of the pause after it."""
_MESSAGE_CHARS = 400


class OpenAIBatchJobOperator(LandingOperator, SkipMixin):
    """Takes an input of any size through split, all of its shards and the report, in one task.

    It waits in the triggerer, for all shards at once; when one of them moves, it goes on with each as far as that
    goes. For hundreds of shards, and for a grid that shows each of them, map `OpenAIBatchShardOperator` over a split
    (or use `openai_batch_task_group`).

    Takes all parameters of `OpenAIBatchSplitOperator`, `OpenAIBatchShardOperator` and `OpenAIBatchReportOperator` but
    ``shard``, ``job`` and ``deferrable``. Returns ``job`` and ``results`` (URIs), counts of requests and rows, tokens
    and cost; never an answer.

    :param input_uri: see `OpenAIBatchSplitOperator`.
    :param output_uri: the job directory. ``{run_id}`` stands for the run id. By default one for each task instance
        below ``[openai_batch] output_root`` of Airflow's configuration, or ``$AIRFLOW_HOME/openai_batch``.
    """

    part_fields: ClassVar[Mapping[str, str]] = {
        "job": "output_uri",
        "openai_conn_id": "conn_id",
        "shard": "output_uri",
    }
    """What its operators call the job directory, see `find_giver`."""
    own_outlets: ClassVar[Sequence[Any]] = OpenAIBatchReportOperator.own_outlets
    template_fields: Sequence[str] = (
        *dict.fromkeys(
            name
            for part in (LandingOperator, OpenAIBatchSplitOperator, OpenAIBatchReportOperator)
            for name in part.template_fields
            if name not in ("shard", "job")
        ),
    )

    def __init__(
        self,
        *,
        input_uri: str | Sequence[str] = "",
        output_uri: str | None = None,
        max_requests_per_shard: int | str = 50_000,
        max_bytes_per_shard: int | str = 100_000_000,
        max_tokens_per_shard: int | str | None = None,
        on_bad_line: Literal["fail", "reject"] | str = "fail",
        on_empty: Literal["fail", "skip"] | str = "fail",
        on_existing: Literal["resume", "fail", "restart"] | str = "resume",
        repair: bool | str = False,
        plan_only: bool | str = False,
        count_tokens: Literal["auto", "exact", "bound"] | str = "auto",
        count_images: Literal["formula", "text"] | str = "formula",
        sample_requests: int | str | None = None,
        max_failed_fraction: float | str = 0.0,
        asset_uri: str | None = None,
        map_index_template: str | None = None,
        outlets: Any = None,
        **kwargs: Any,
    ) -> None:
        outlets = add_outlets(type(self), outlets)
        super().__init__(map_index_template=map_index_template, outlets=outlets, **kwargs)
        self.input_uri = input_uri
        self.output_uri = output_uri
        self.max_requests_per_shard = max_requests_per_shard
        self.max_bytes_per_shard = max_bytes_per_shard
        self.max_tokens_per_shard = max_tokens_per_shard
        self.on_bad_line = on_bad_line
        self.on_empty = on_empty
        self.on_existing = on_existing
        self.repair = repair
        self.plan_only = plan_only
        self.count_tokens = count_tokens
        self.count_images = count_images
        self.sample_requests = sample_requests
        self.max_failed_fraction = max_failed_fraction
        self.asset_uri = asset_uri

    def execute(self, context: Context) -> dict[str, Any]:
        self._settle_output(context)
        with task_failures():
            if not self.deferrable:
                raise ConfigError(
                    "deferrable=False: a whole job waits in the triggerer only. Map OpenAIBatchShardOperator over a "
                    "split to wait in workers."
                )
            read_fraction("max_failed_fraction", self.max_failed_fraction)  # before anything is sent
            self.landing_rules()
            read_policy(self, make_caller(context))
            _ = self.poll_interval_s
        input_uri = self.make_input(context)
        refs = [] if input_uri is None else run_within(self.make_split(input_uri), context)
        if not refs:
            return {"job": None, "requests": 0}
        return self._go_through(context, refs, {})

    def make_input(self, context: Context) -> str | Sequence[str] | None:
        """What is split; None where there is nothing to do. Operators that make it themselves do so here."""
        return self.input_uri or ""  # None, from a task that found nothing, is an error

    def describe(self, where: str, found: Mapping[str, Any], context: Context) -> dict[str, Any]:
        """What such an operator adds to what the task returns.

        :param where: the job directory.
        :param found: what the report returned.
        """
        return {}

    def resume(
        self,
        context: Context,
        event: Any = None,
        *,
        given_up: Mapping[str, str] | None = None,
        hiccups: int = 0,
        **_: Any,
    ) -> dict[str, Any]:
        """Called by Airflow when a shard may go on. Another release may have deferred the task with more arguments.

        :param given_up: the shards that cannot, by number; of the first, what ended it.
        :param hiccups: looks in a row at which a shard failed in a way that may pass.
        """
        self._settle_output(context)
        events = event.get("events") if isinstance(event, Mapping) else None
        with task_failures():
            refs = self._read_refs(context)
        return self._go_through(context, refs, dict(given_up or {}), events or {}, hiccups)

    def _go_through(
        self,
        context: Context,
        refs: Sequence[Mapping[str, Any]],
        given_up: dict[str, str],
        events: Mapping[str, Any] | None = None,
        hiccups: int = 0,
    ) -> dict[str, Any]:
        """Go on with each shard until all there is to do is waiting, and wait; at the end report."""
        waits: dict[str, HeldTrigger] = {}
        failure: OpenAIBatchException | None = None
        for ref in refs:
            name = str(ref["shard"])
            if name in given_up:
                continue  # until the task is cleared: a shard that stopped would begin to count anew
            try:
                self._make_shard(ref).resume(context, (events or {}).get(name))
            except TaskDeferred as wish:
                waits[name] = wish.trigger
            except AirflowFailException as error:
                self.log.error("Shard %s: %s", name, error)
                # The words of the first are told; Airflow keeps them while the task waits.
                given_up[name] = "" if given_up else str(error)[:_MESSAGE_CHARS]
            except OpenAIBatchException as error:
                self.log.warning("Shard %s: %s", name, error)
                failure = error
        if failure is not None and (hiccups >= MOST_HICCUPS or not waits):
            raise failure
        if not waits:
            return self._publish(context, str(refs[0]["job"]), given_up, len(refs))
        if failure is not None:
            waits[HICCUP] = self._make_pause(time.time() + HICCUP_DELAY_S)
        self._defer(context, waits, given_up, hiccups + 1 if failure is not None else 0)
        raise AssertionError("defer raises")

    def _defer(
        self, context: Context, waits: Mapping[str, HeldTrigger], given_up: dict[str, str], hiccups: int
    ) -> None:
        from airflow_openai_batch.triggers.first_of import FirstOfTrigger

        self.log.info("Waiting for %s.", number_of(len(waits.keys() - {HICCUP}), "shard"))
        self.defer(
            trigger=FirstOfTrigger.of(choose_waits(waits), poll_interval=self.poll_interval_s),
            method_name="resume",
            kwargs={"given_up": given_up, "hiccups": hiccups},
        )

    def _publish(self, context: Context, where: str, given_up: dict[str, str], shards: int) -> dict[str, Any]:
        """The report is written whatever became of the shards, and then says whether the job is good."""
        report = self._make(
            OpenAIBatchReportOperator,
            job=where,
            asset_uri=self.asset_uri or find_shared_place(str(self.output_uri), context["ti"]),
        )
        try:
            found = run_within(report, context)
        except AirflowFailException as error:
            if not given_up:
                raise
            number, why = next(iter(given_up.items()))
            others = f" So did {name_some(sorted(map(int, given_up))[1:])}." if len(given_up) > 1 else ""
            raise AirflowFailException(
                f"Shard {number} of {shards:,} failed: {why}{others} {error}"
            ) from None
        results = f"{where}/{directory.RESULTS}"
        return {**found, "job": where, "results": results, **self.describe(where, found, context)}

    def make_split(self, input_uri: str | Sequence[str]) -> OpenAIBatchSplitOperator:
        """With the parameters of this task."""
        split: OpenAIBatchSplitOperator = self._make(
            OpenAIBatchSplitOperator, input_uri=input_uri, output_uri=self.output_uri
        )
        return split

    def _make_shard(self, ref: Mapping[str, Any]) -> OpenAIBatchShardOperator:
        shard: OpenAIBatchShardOperator = self._make(
            OpenAIBatchShardOperator, shard=dict(ref), cancel_on_kill=self.cancel_on_kill
        )
        shard.waits_alone = False
        return shard

    def _make(self, kind: type[Any], **own: Any) -> Any:
        """An operator of that kind, which shares with this one what both know."""
        shared = {name: getattr(self, name) for name in kind.template_fields if name in self.template_fields}
        return kind(task_id=self.task_id.rpartition(".")[2], **{**shared, **own})

    def _read_refs(self, context: Context) -> list[dict[str, Any]]:
        """What the split returned, from its plan.

        :raises NoPlanError: if the plan has gone since.
        """
        output = open_place(self.read_job_uri(context), "output", find_giver(context, "output_uri"))
        plan = directory.read_plan(output)
        if plan is None:
            raise NoPlanError(output.uri, "it was there; clear the task.")
        ti = context["ti"]
        planned = ti.xcom_pull(task_ids=ti.task_id, key="plan", map_indexes=ti.map_index)
        check_same_plan({planned} if planned else (), plan, output.uri)
        wanted = choose_sample(plan, read_optional_int("sample_requests", self.sample_requests))
        return make_refs(plan, output.uri, wanted)

    def _settle_output(self, context: Context) -> None:
        """A place of its own for each task instance, where none was named."""
        if self.output_uri and self.output_uri.strip():
            return
        ti = context["ti"]
        index = "" if ti.map_index is None or ti.map_index < 0 else f"/{ti.map_index}"
        self.output_uri = f"{find_output_root()}/{ti.dag_id}/{{run_id}}/{ti.task_id}{index}"

    def read_job_uri(self, context: Context) -> str:
        """The job directory of this run."""
        pattern = str(self.output_uri).strip().rstrip("/")
        return place_of_run(pattern, context["ti"], find_giver(context, "output_uri"))


def run_within(operator: BaseOperator, context: Context) -> Any:
    """Run an operator as a part of the task at hand.

    Without the guard that Airflow puts around ``execute``, which warns of operators that are run like that.
    """
    return inspect.unwrap(type(operator).execute)(operator, context)


def choose_waits(waits: Mapping[str, HeldTrigger]) -> dict[str, HeldTrigger]:
    """Those that are stored, so that what Airflow keeps of a task does not grow with its shards: the first batches, the
    heads of the lines for room, and the pause that is over first. When one of them moves, all shards are looked at."""
    from airflow_openai_batch.triggers.pause import OpenAIBatchPauseTrigger
    from airflow_openai_batch.triggers.room import OpenAIBatchRoomTrigger

    pauses = {name: wait for name, wait in waits.items() if isinstance(wait, OpenAIBatchPauseTrigger)}
    chosen: dict[str, HeldTrigger] = {}
    in_line: Counter[str] = Counter()
    for name, wait in waits.items():
        if isinstance(wait, OpenAIBatchRoomTrigger):
            in_line[wait.model] += 1
            if in_line[wait.model] <= MOST_IN_LINE and sum(in_line.values()) <= 4 * MOST_IN_LINE:
                chosen[name] = wait
        elif name not in pauses and len(chosen) < MOST_WAITS:
            chosen[name] = wait
    soonest = sorted(pauses.items(), key=lambda item: item[1].until)[:1]
    return {**chosen, **dict(soonest)}
