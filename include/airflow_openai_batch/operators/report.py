"""The end of a run: accounts for every request, writes the report, and says whether the run is good."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_2_PLUS, AIRFLOW_V_3_3_PLUS
from airflow.sdk import Asset, AssetAlias, TriggerRule

from airflow_openai_batch.access.givers import find_giver
from airflow_openai_batch.access.locations import open_place
from airflow_openai_batch.access.permissions import check_conn_id
from airflow_openai_batch.costs.sample import choose_sample, extrapolate
from airflow_openai_batch.costs.spending import Spent, read_spending
from airflow_openai_batch.errors import ConfigError, NoPlanError, OpenAIBatchError
from airflow_openai_batch.job import directory
from airflow_openai_batch.job.folding import fold_events
from airflow_openai_batch.job.ledger import JobLedger
from airflow_openai_batch.job.shard_reader import ShardReader
from airflow_openai_batch.job.shard_state import Content, ShardState, has_sample
from airflow_openai_batch.openai_api.batch_durations import LOOK_BACK_S, UsualDurations, measure_past
from airflow_openai_batch.openai_api.own_prices import NO_OWN_PRICES, OwnPrices
from airflow_openai_batch.operators.split import OpenAIBatchSplitOperator
from airflow_openai_batch.operators.task.asset_event import await_turn, make_asset_uri
from airflow_openai_batch.operators.task.base import OpenAIBatchOperator, add_outlets
from airflow_openai_batch.operators.task.done_steps import check_upstream_ran
from airflow_openai_batch.operators.task.failures import task_failures
from airflow_openai_batch.operators.task.own_prices import find_own_prices
from airflow_openai_batch.operators.task.ownership import check_owner, check_same_plan
from airflow_openai_batch.operators.task.parameters import (
    DEFAULT_CONN_ID,
    read_flag,
    read_fraction,
    read_optional_int,
)
from airflow_openai_batch.operators.task.plan_costs import foresee_lane, read_lanes
from airflow_openai_batch.operators.task.source_access import make_source_resolver
from airflow_openai_batch.report.markdown import write_markdown
from airflow_openai_batch.report.report import Report, SampleLine, asset_extra, build_report
from airflow_openai_batch.report.shard_words import NOT_BEGUN
from airflow_openai_batch.results.landing_summary import ShardSummary, read_done
from airflow_openai_batch.storage.read_ahead import read_ahead
from airflow_openai_batch.wording import name_some

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.sdk import Context

    from airflow_openai_batch.access.givers import Giver
    from airflow_openai_batch.job.ledger import Event
    from airflow_openai_batch.job.plan import Plan
    from airflow_openai_batch.job.request_line import RequestLine
    from airflow_openai_batch.storage.location import Location, Resolver

ASSET_ALIAS = "openai_batch_results"
"""Schedule a DAG on this alias to run after any job; on the directory's own asset to run after one."""


class OpenAIBatchReportOperator(OpenAIBatchOperator):
    """Checks that every request is accounted for, writes ``failed.jsonl``, ``report.json`` and ``report.md``.

    It writes the report whatever became of the shards, and then fails where a shard is not done or too many rows
    are bad; the asset event of the job directory, with counts and cost, comes only with success. Returns the
    counts, the cost and the report's URI, and pushes the job's URI under the key ``job``.

    :param job: the job directory, as the split pushes it under the key ``job``.
    :param asset_uri: the asset that gets the event; by default the job directory. The split pushes, under the key
        ``asset``, one that stays the same from run to run where the directory does not.
    :param conn_id: the OpenAI connection, to delete files that earlier tasks left there.
    :param keep_remote_files: do not.
    :param sample_requests: the run sent only the first so many requests: it is good when these have landed, and
        the log says what the whole job would cost.
    :param max_failed_fraction: fail if more than this fraction of the rows is not ``ok``. 0: one bad row is enough;
        0.05: five in a hundred may be bad.
    :param send_mode: of the operators that send, for what the whole job would cost after a sample; as is
        ``realtime_threshold``.
    """

    AFTER_STEPS: ClassVar[TriggerRule] = (
        TriggerRule.ALL_DONE if AIRFLOW_V_3_3_PLUS else TriggerRule.ALL_DONE_MIN_ONE_SUCCESS
    )
    """The trigger rule after a mapped group of upload, create, wait, download and resend: with ``all_done`` a resend
    that has nothing to send is skipped. Airflow 3.1 begins no task after a group that its failed split left unexpanded.
    """
    own_outlets: ClassVar[Sequence[Any]] = (AssetAlias(ASSET_ALIAS),)
    template_fields: Sequence[str] = (
        "job",
        "asset_uri",
        "conn_id",
        "keep_remote_files",
        "sample_requests",
        "max_failed_fraction",
        "send_mode",
        "realtime_threshold",
    )
    ui_color = "#e8f3ee"

    def __init__(
        self,
        *,
        job: str,
        asset_uri: str | None = None,
        conn_id: str = DEFAULT_CONN_ID,
        keep_remote_files: bool | str = False,
        sample_requests: int | str | None = None,
        max_failed_fraction: float | str = 0.0,
        send_mode: Literal["auto", "batch", "flex", "realtime"] | str | None = None,
        realtime_threshold: int | str | None = None,
        outlets: Any = None,
        retries: int = 3,
        retry_delay: timedelta | float = timedelta(minutes=1),
        **kwargs: Any,
    ) -> None:
        outlets = add_outlets(type(self), outlets)
        super().__init__(retries=retries, retry_delay=retry_delay, outlets=outlets, **kwargs)
        self.conn_id = conn_id
        self.keep_remote_files = keep_remote_files
        self.sample_requests = sample_requests
        self.job = job
        self.asset_uri = asset_uri
        self.max_failed_fraction = max_failed_fraction
        self.send_mode = send_mode
        self.realtime_threshold = realtime_threshold

    def execute(self, context: Context) -> dict[str, Any]:
        check_upstream_ran(self, context, OpenAIBatchSplitOperator)
        with task_failures():
            allowed = read_fraction("max_failed_fraction", self.max_failed_fraction)
            sample = read_optional_int("sample_requests", self.sample_requests)
            giver = find_giver(context, "job")
            output, plan = self._open(context["ti"].dag_id, giver)
            check_same_plan(self._find_planned(context["ti"]), plan, output.uri)
            context["ti"].xcom_push("job", output.uri)
            summaries = list(_read_summaries(output, plan))
            giver = find_giver(context, "conn_id")
            prices = self._find_own_prices(context, giver)
            usual = self._measure_durations(giver)
            report = self._write(
                output, plan, summaries, sample, make_source_resolver(context), prices, usual
            )
            if not read_flag("keep_remote_files", self.keep_remote_files):
                self._sweep(output, plan, summaries, giver)
        self.log.info("%s", write_markdown(report))
        if sample is not None and not report.complete:
            return self._end_sample(output, plan, sample, report)
        self._judge(report, allowed)
        extra = asset_extra(report)
        asset = Asset(make_asset_uri(self.asset_uri or output.uri))
        await_turn(asset, self._count_before(context["ti"], plan, asset, output))
        context["outlet_events"][AssetAlias(ASSET_ALIAS)].add(asset, extra=_event_extra(extra))
        return {**extra, "report": output.child(directory.REPORT_MARKDOWN).uri}

    def _count_before(self, ti: Any, plan: Plan, asset: Asset, output: Location) -> int | None:
        """Reports that may send the first event of the same asset just now and go before: that of the run which planned
        this job, and of mapped ones those before it; None where no other can.
        """
        of_another_run = plan.created_by != f"{ti.dag_id}/{ti.run_id}"
        if asset.uri == make_asset_uri(output.uri):
            return 1 if of_another_run else None
        return int(of_another_run) + max(int(ti.map_index), 0)

    def _open(self, dag_id: str, giver: Giver) -> tuple[Location, Plan]:
        if not self.job:
            raise ConfigError(
                "job is empty: the split pushed no job. It did not end by itself (its log says why; somebody may have "
                "marked it as success). Clear it with all that comes after it: nothing is paid twice."
            )
        output = open_place(self.job, "output", giver)
        plan = directory.read_plan(output)
        if plan is None:
            raise NoPlanError(output.uri)
        check_owner(plan.created_by, output.uri, dag_id)
        return output, plan

    def _find_planned(self, ti: Any) -> set[str]:
        """Names of the plans that the splits before it have gone on with."""
        splits = self.upstream_list if self.has_dag() else ()  # type: ignore[no-untyped-call]
        planned: set[str] = set()
        for split in splits:
            if not issubclass(getattr(split, "operator_class", type(split)), OpenAIBatchSplitOperator):
                continue
            in_group = split.get_closest_mapped_task_group() is not None
            found = ti.xcom_pull(
                task_ids=split.task_id, key="plan", **({"map_indexes": ti.map_index} if in_group else {})
            )
            planned |= {found} if isinstance(found, str) else set(found or ())
        return planned

    def _end_sample(self, output: Location, plan: Plan, sample: int, report: Report) -> dict[str, Any]:
        """What the whole job would cost; no asset event, since the job is not finished."""
        if report.sample is None:
            raise AirflowFailException(
                f"The sample of {sample:,} requests has not landed (shards "
                f"{name_some(_find_open(output, plan, sample))}). Clear their tasks."
            )
        self.log.info("The sample has landed. %s", report.sample.outlook)
        return {"sample_requests": sample, "extrapolation": report.sample.outlook}

    def _sweep(self, output: Location, plan: Plan, summaries: Sequence[ShardSummary], giver: Giver) -> None:
        """The results are safe by now: whatever is wrong at OpenAI fails nothing here."""
        from airflow_openai_batch.hooks.openai_batch import (
            OpenAIBatchHook,  # a second of imports, see `DEFAULT_CONN_ID`
        )
        from airflow_openai_batch.sending.remote_cleanup import sweep_files

        sends = {summary.shard: summary.sends for summary in summaries if summary.landed is not None}
        try:
            check_conn_id(self.conn_id, giver)
            with OpenAIBatchHook(self.conn_id).get_batch_client() as client:
                sweep_files(client, plan, output.uri, sends)
        except OpenAIBatchError as error:
            self.log.warning("No look for files left at OpenAI, which expire by themselves: %s", error)

    def _measure_durations(self, giver: Giver) -> UsualDurations:
        """How long batches take in the account: ten calls at most. A report is written without that, too."""
        from airflow_openai_batch.hooks.openai_batch import (
            OpenAIBatchHook,  # a second of imports, see `DEFAULT_CONN_ID`
        )

        try:
            check_conn_id(self.conn_id, giver)
            with OpenAIBatchHook(self.conn_id).get_batch_client() as client:
                return measure_past(client.iter_batches(time.time() - LOOK_BACK_S))
        except OpenAIBatchError as error:
            self.log.warning("The report does not say how long batches take in the account: %s", error)
            return UsualDurations()

    def _find_own_prices(self, context: Context, giver: Giver) -> OwnPrices:
        """A report is written whatever the connection says by now: its prices are for estimates alone."""
        try:
            check_conn_id(self.conn_id, giver)
            context["ti"].xcom_push("conn_id", self.conn_id)  # the page may use it as well
            return find_own_prices(self.conn_id)
        except OpenAIBatchError as error:
            self.log.warning("The estimates are without the connection's prices: %s", error)
            return NO_OWN_PRICES

    def _write(
        self,
        output: Location,
        plan: Plan,
        summaries: Sequence[ShardSummary],
        sample: int | None,
        resolve: Resolver,
        own_prices: OwnPrices,
        usual: UsualDurations,
    ) -> Report:
        """:raises AccountingError: if a request is in no row or in two; no report is written then."""
        from airflow_openai_batch.report.failed_requests import (  # pyarrow, for nothing where a DAG is parsed
            write_failed,
        )
        from airflow_openai_batch.report.row_check import check_accounts

        done = {summary.shard: summary.landed for summary in summaries if summary.landed is not None}
        unfinished = {shard.shard for shard in plan.shards} - done.keys()
        part_bytes = {number: landed.part_bytes for number, landed in done.items()}
        accounts = check_accounts(plan, output, unfinished=unfinished, part_bytes=part_bytes)
        bad = [number for number, landed in done.items() if landed.rows.get("ok", 0) < landed.requests]
        written = write_failed(_read_shards(output, plan, bad, resolve), output.child(directory.FAILED))
        if written:
            self.log.info(
                "%s: %s requests to look at or send again.",
                output.child(directory.FAILED).uri,
                f"{written:,}",
            )
        spent = read_spending(output)
        report = build_report(
            plan,
            summaries,
            job_uri=output.uri,
            created_at=time.time(),
            accounts=accounts,
            unfinished_usd=sum(paid.cost_usd for shard, paid in spent.paid.items() if shard in unfinished),
            sample=self._describe_sample(output, plan, sample, spent, own_prices) if unfinished else None,
            own_prices=own_prices,
            usual=usual,
        )
        output.child(directory.REPORT_MARKDOWN).write_bytes(write_markdown(report).encode())
        output.child(directory.REPORT_JSON).write_bytes(report.to_json())
        return report

    def _describe_sample(
        self, output: Location, plan: Plan, sample: int | None, spent: Spent, own_prices: OwnPrices
    ) -> SampleLine | None:
        if sample is None or _find_open(output, plan, sample):
            return None
        choose_lane = functools.partial(foresee_lane, read_lanes(self))
        outlook = extrapolate(plan, spent, choose_lane=choose_lane, own_prices=own_prices)
        outlook_text = str(outlook or "Nothing was answered, so nothing can be said of costs.")
        return SampleLine(requests=sample, answers=spent.answers, outlook=outlook_text)

    def _judge(self, report: Report, allowed: float) -> None:
        where = f"See {report.job}/{directory.REPORT_MARKDOWN}."
        if not report.complete:
            unfinished = [line for line in report.shards if not line.rows]
            why = "; ".join(f"shard {line.shard}: {line.state}" for line in unfinished[:3])
            raise AirflowFailException(
                f"{len(unfinished)} of {len(report.shards)} shards are not done "
                f"({name_some([line.shard for line in unfinished])}), {report.counts.unfinished:,} requests without "
                f"a row. {why}. Clear their tasks{self._name_joins()}: nothing that was paid is sent again. {where}"
            )
        counts = report.counts
        if counts.bad_fraction > allowed:
            raise AirflowFailException(
                f"{counts.bad:,} of {counts.good + counts.bad:,} rows are not ok ({report.name_problems()}): more than "
                f"max_failed_fraction={allowed:g} allows. All results have landed; {directory.FAILED} has the "
                "requests. Raise max_failed_fraction if this is good enough, or run it again with the same output and "
                f"repair=true to ask for these alone. {where}"
            )

    def _name_joins(self) -> str:
        """Of tables that were written whatever became of the shards: who clears what failed alone leaves them as they
        are."""
        from airflow_openai_batch.operators.join import (  # pyarrow, for nothing where a DAG is parsed
            OpenAIBatchJoinOperator,
        )

        dag = self.get_dag()
        joins = [
            task.task_id
            for task in (dag.tasks if dag else ())
            if isinstance(task, OpenAIBatchJoinOperator) and task.upstream_task_ids & self.upstream_task_ids
        ]
        return f", and {' and '.join(joins)}, written without these rows" if joins else ""


def _find_open(output: Location, plan: Plan, sample: int) -> list[int]:
    """Shards whose part of the sample has not landed."""
    ledger = JobLedger(output.child(directory.STATE), len(plan.shards))
    wanted = choose_sample(plan, sample)
    return [
        number for number, first in wanted.items() if not has_sample(_read_state(ledger, plan, number), first)
    ]


def _read_state(ledger: JobLedger, plan: Plan, shard: int) -> ShardState:
    """Events of another plan, left in the directory, say nothing of this one's shards."""
    events = [event for event in ledger.read(shard) if event.plan == plan.name]
    return fold_events(Content.of(plan.shards[shard]), events)


def _read_summaries(output: Location, plan: Plan) -> Iterator[ShardSummary]:
    ledger = JobLedger(output.child(directory.STATE), len(plan.shards))

    def read(shard: int) -> ShardSummary:
        if (done := read_done(ledger, shard, plan)) is not None:
            return done
        last = ledger.read_last(shard)
        return ShardSummary(shard=shard, state=_describe_unfinished(last) if last else NOT_BEGUN.phase)

    return read_ahead(read, range(len(plan.shards)), output)


def _describe_unfinished(last: Event) -> str:
    """Where the shard stands and, if OpenAI refused something, in which words."""
    reason = " ".join(text for text in (last.code, last.message) if text)
    return f"not done, last step: {last.kind}" + (f" ({reason})" if reason else "")


def _read_shards(
    output: Location, plan: Plan, numbers: list[int], resolve: Resolver
) -> Iterator[tuple[Iterator[RequestLine], Location]]:
    for number in numbers:
        reader = ShardReader(plan.sources, plan.shards[number], output, resolve)
        yield reader.lines(), output.child(directory.part(number))


def _event_extra(extra: dict[str, Any]) -> dict[str, Any]:
    """Airflow 3.1 fails a task whose event on an alias has a dict in its extra (apache/airflow#56882): JSON there."""
    if AIRFLOW_V_3_2_PLUS:
        return extra
    return {key: json.dumps(value) if isinstance(value, dict) else value for key, value in extra.items()}
