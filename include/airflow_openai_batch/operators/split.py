"""Splits an input of any size into shards; everything else maps over what it returns."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from airflow.providers.common.compat.sdk import SkipMixin

from airflow_openai_batch.access.givers import Giver, find_giver
from airflow_openai_batch.access.locations import make_resolver, open_place
from airflow_openai_batch.access.permissions import check_conn_id, check_uri
from airflow_openai_batch.access.settings import find_max_map_length
from airflow_openai_batch.costs.forecast import forecast_costs
from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.job import directory
from airflow_openai_batch.job.plan import Plan, ShardLimits
from airflow_openai_batch.openai_api.account_limits import AccountLimits
from airflow_openai_batch.operators.task.base import OpenAIBatchOperator
from airflow_openai_batch.operators.task.caller import make_caller
from airflow_openai_batch.operators.task.failures import task_failures
from airflow_openai_batch.operators.task.local_disk import SPLIT_HOST, describe_local_places, find_host
from airflow_openai_batch.operators.task.monthly_budget import find_monthly_budget
from airflow_openai_batch.operators.task.ownership import (
    check_below_root,
    check_folders_above,
    check_job_owner,
    check_owner,
)
from airflow_openai_batch.operators.task.parameters import (
    DEFAULT_CONN_ID,
    read_choice,
    read_flag,
    read_list,
    read_optional_int,
)
from airflow_openai_batch.operators.task.plan_costs import PlanCosts, foresee_lane, read_plan_costs
from airflow_openai_batch.operators.task.progress_log import ProgressLog
from airflow_openai_batch.operators.task.run_conf import describe_unknown_keys
from airflow_openai_batch.operators.task.run_place import find_shared_place, make_path_safe, place_of_run
from airflow_openai_batch.operators.task.sending import read_queue_tokens
from airflow_openai_batch.operators.task.skipping import skip_rest
from airflow_openai_batch.operators.task.waiting_steps import describe_waiting_steps
from airflow_openai_batch.planning.first_models import peek_models
from airflow_openai_batch.report.repair import Repair, find_repair, reopen_shards
from airflow_openai_batch.sending.queue.room import QUEUE_SHARE
from airflow_openai_batch.wording import number_of

__all__ = ["OpenAIBatchSplitOperator", "describe_existing", "make_path_safe"]

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_openai_batch.hooks.openai_batch import OpenAIBatchHook
    from airflow_openai_batch.openai_api.account_limits import QueueLimit
    from airflow_openai_batch.planning.split import ChooseLimits
    from airflow_openai_batch.storage.location import Location, Resolver
    from airflow_openai_batch.storage.sources import SourceFile


class OpenAIBatchSplitOperator(OpenAIBatchOperator, SkipMixin):
    """Scans the input once and writes ``plan.json``: contiguous shards within OpenAI's limits.

    Returns one item per shard, ``{"job": <output_uri>, "shard": n}``, to map over, with ``"first": k`` where only the
    first k requests of the shard are wanted for a sample; pushes the job's URI under the key ``job``, the name of its
    plan under ``plan``, requests, shards, tokens and costs under ``estimate``, and under ``asset`` the part of the
    URI that all runs share (what comes before ``{run_id}``). Run again, it goes on with the plan that is there.

    :param input_uri: one URI or path, a list of them, or a glob, of ``.jsonl``, ``.jsonl.gz``, ``.jsonl.zst``.
    :param output_uri: the job directory. ``{run_id}`` stands for the run id in a form fit for a path.
    :param conn_id: the OpenAI connection; checked before the scan. Its extra may say the ``tier`` or
        ``enqueued_token_limit``.
    :param max_requests_per_shard: at most 50,000.
    :param max_bytes_per_shard: at most 200,000,000; 100 MB by default, since larger ones met 413.
    :param max_tokens_per_shard: input tokens; default 95% of the batch queue, where the connection says or implies its
        size for the models that the input begins with.
    :param on_bad_line: ``fail`` (nothing is sent) or ``reject`` (to ``rejected.jsonl``, the rest is sent).
    :param on_empty: an input without requests: ``fail``, or ``skip`` what comes after.
    :param on_existing: a job that is there already: ``resume``, ``fail``, or ``restart``, which pays again.
    :param repair: on a job that is there: ask again only for what has no good result, whatever the reason, and write
        just those parts and the report anew. Returns the shards concerned. ``input_uri`` may be empty then.
    :param plan_only: plan, tokens and cost into the log; what comes after is skipped. A later run goes on with it.
    :param enqueued_token_limit: the account's batch queue limit for the model, in input tokens; wins over the
        connection's extra.
    :param send_mode: how it is going to be sent, for the costs: ``batch``, ``flex`` (at the price of a batch),
        ``realtime``, or ``auto``: one by one where a shard has at most ``realtime_threshold`` requests. Default: the
        environment variable USE_BATCH_PROCESSING (``true``: batch, ``false``: realtime), else ``auto``.
    :param realtime_threshold: requests; 10 by default.
    :param max_cost_usd: the task fails, before anything is uploaded, where what this job has spent and what is left
        of it could cost more together: input as counted, every output as long as its request allows. Requests that
        set no bound count with the mean of what was measured in this job, else with the most that the model can
        write. Where that or a price is not known, it fails, too. Give it to the operators that send as well: they
        check it on what was really paid.
    :param sample_requests: only the first so many requests of the plan are sent. A later run of the same job without
        it uses their answers and knows from them what the rest will cost.
    :param count_tokens: ``auto`` counts where a limit can bind, ``exact`` always, ``bound`` never.
    :param count_images: images that stand in the requests, as the batch queue may count them: by the ``formula`` that
        they are billed by, or as the ``text`` that they are in the file. OpenAI does not say which.
    """

    template_fields: Sequence[str] = (
        "input_uri",
        "output_uri",
        "conn_id",
        "max_requests_per_shard",
        "max_bytes_per_shard",
        "max_tokens_per_shard",
        "on_bad_line",
        "on_empty",
        "on_existing",
        "repair",
        "plan_only",
        "count_tokens",
        "enqueued_token_limit",
        "send_mode",
        "realtime_threshold",
        "max_cost_usd",
        "sample_requests",
        "count_images",
    )
    ui_color = "#e8f3ee"

    def __init__(
        self,
        *,
        input_uri: str | Sequence[str],
        output_uri: str,
        conn_id: str = DEFAULT_CONN_ID,
        max_requests_per_shard: int | str = 50_000,
        max_bytes_per_shard: int | str = 100_000_000,
        max_tokens_per_shard: int | str | None = None,
        on_bad_line: Literal["fail", "reject"] | str = "fail",
        on_empty: Literal["fail", "skip"] | str = "fail",
        on_existing: Literal["resume", "fail", "restart"] | str = "resume",
        repair: bool | str = False,
        plan_only: bool | str = False,
        count_tokens: Literal["auto", "exact", "bound"] | str = "auto",
        enqueued_token_limit: int | str | None = None,
        send_mode: Literal["auto", "batch", "flex", "realtime"] | str | None = None,
        realtime_threshold: int | str | None = None,
        max_cost_usd: float | str | None = None,
        sample_requests: int | str | None = None,
        count_images: Literal["formula", "text"] | str = "formula",
        retries: int = 3,
        retry_delay: timedelta | float = timedelta(minutes=1),
        **kwargs: Any,
    ) -> None:
        super().__init__(retries=retries, retry_delay=retry_delay, **kwargs)
        self.input_uri = input_uri
        self.output_uri = output_uri
        self.conn_id = conn_id
        self.max_requests_per_shard = max_requests_per_shard
        self.max_bytes_per_shard = max_bytes_per_shard
        self.max_tokens_per_shard = max_tokens_per_shard
        self.on_bad_line = on_bad_line
        self.on_empty = on_empty
        self.on_existing = on_existing
        self.repair = repair
        self.plan_only = plan_only
        self.count_tokens = count_tokens
        self.enqueued_token_limit = enqueued_token_limit
        self.send_mode = send_mode
        self.realtime_threshold = realtime_threshold
        self.max_cost_usd = max_cost_usd
        self.sample_requests = sample_requests
        self.count_images = count_images
        self._unknown_keys = ""
        self._givers = _Givers()

    def execute(self, context: Context) -> list[dict[str, Any]]:
        ti = context["ti"]
        self._givers = _Givers.read(context)
        self._unknown_keys = describe_unknown_keys(context)
        if self._unknown_keys:
            self.log.warning("%s", self._unknown_keys)
        with task_failures():
            plan_only = read_flag("plan_only", self.plan_only)
            costs = read_plan_costs(self)
            job_uri = self._read_job_uri(context)
            repair = self._read_repair(job_uri, costs)
            output = self._check_places(job_uri, plan_only, ti.dag_id)
            for warning in describe_local_places(self._inputs, self.output_uri, job_uri):
                self.log.warning("%s", warning)
            run_key = f"{ti.dag_id}/{ti.run_id}"
            plan = self._split(output, run_key)
            check_owner(plan.created_by, output.uri, ti.dag_id)  # another may have been faster
            found = find_repair(plan, output, run_key) if repair else None
            forecast = forecast_costs(
                plan,
                output,
                sample_requests=costs.sample_requests,
                reopening=found.bad if found else {},
                in_realtime=costs.policy.sends_in_realtime,
                choose_lane=functools.partial(foresee_lane, costs.policy),
                own_prices=self._hook.get_own_prices(),
            )
            self.log.info("%s", forecast)
            for notice in costs.check(forecast, find_monthly_budget(self._hook), plan_only=plan_only):
                self.log.warning("%s", notice)
            refs = self._reopen(plan, output, found, context, plan_only) if found else forecast.refs
            if (advice := describe_waiting_steps(self, len(refs))) is not None:
                self.log.warning("%s", advice)
        if output.is_local:
            ti.xcom_push(SPLIT_HOST, find_host())
        ti.xcom_push("plan", plan.name)
        ti.xcom_push("job", output.uri)
        ti.xcom_push("asset", find_shared_place(self.output_uri, ti))
        ti.xcom_push("estimate", {**forecast.to_xcom(), "conn_id": self.conn_id})
        if plan_only or not plan.shards:
            self.log.info("%s; what comes after is skipped.", "Dry run" if plan_only else "No requests")
            skip_rest(self, context, dry=plan_only)
            return []
        return refs

    def _read_repair(self, job_uri: str, costs: PlanCosts) -> bool:
        """Whether it is one; the input is that of the plan where none is given.

        :raises ConfigError: if there is nothing that it could repair, or it is asked to do something else as well.
        """
        if not read_flag("repair", self.repair):
            return False
        if str(self.on_existing).strip() != "resume" or costs.sample_requests is not None:
            raise ConfigError(
                "repair goes on with a job: not with on_existing=fail or restart, nor with a sample."
            )
        plan = directory.read_plan(open_place(job_uri, "output", self._givers.output))
        if plan is None:
            raise ConfigError(
                f"{job_uri}: there is no job to repair. output_uri must be the directory of one."
            )
        if not any(uri.strip() for uri in read_list("input_uri", self.input_uri)):
            self.input_uri = [source.uri for source in plan.sources]
            # Whoever names the directory of a job names what its plan says.
            self._givers = self._givers._replace(input=self._givers.output)
        return True

    def _reopen(
        self, plan: Plan, output: Location, repair: Repair, context: Context, plan_only: bool
    ) -> list[dict[str, Any]]:
        """References of the shards with something to do; of one where there are none, so that the report follows."""
        self.log.info("%s", repair)
        if not plan_only:
            reopen_shards(plan, output, repair, by=make_caller(context).by, now=time.time())
        return [{"job": output.uri, "shard": shard} for shard in repair.shards or [0]]

    def check_first(self, job_uri: str, context: Context, *, sends_nothing: bool) -> None:
        """What can be said before there is an input: for operators that make theirs with effort.

        :raises ConfigError: for a value that cannot be used.
        :raises RemoteError: if OpenAI refuses the key.
        """
        self._givers = _Givers.read(context)
        read_plan_costs(self)
        self._check_places(job_uri, sends_nothing, context["ti"].dag_id)

    def _read_job_uri(self, context: Context) -> str:
        if not (self.output_uri or "").strip():
            raise ConfigError(
                "output_uri is empty: name a directory for the job, for instance s3://bucket/jobs/{run_id}."
            )
        pattern = self.output_uri.strip().rstrip("/")
        return place_of_run(pattern, context["ti"], self._givers.output)

    def _check_places(self, job_uri: str, plan_only: bool, dag_id: str) -> Location:
        """Fail before a long scan, not after it.

        :raises ConfigError: for what the allow-lists forbid or where the output cannot be written.
        :raises ForeignJobError: if the job that lies there is another DAG's.
        :raises RemoteError: if OpenAI refuses the key.
        """
        for uri in self._inputs:
            check_uri(uri, "input", self._givers.input)
        check_conn_id(self.conn_id, self._givers.connection)
        output = open_place(job_uri, "output", self._givers.output)
        check_job_owner(output, dag_id)
        check_folders_above(output, dag_id, self._givers.output)
        check_below_root(output, self._givers.output)
        if (problem := output.find_write_problem()) is not None:
            raise ConfigError(
                f"{job_uri}: cannot be written ({problem}). Choose another output_uri or grant the access."
            )
        self._hook.get_own_prices()  # what is no price is said before the scan
        if not plan_only:
            with self._hook.get_batch_client() as client:
                client.check_key()
        return output

    @functools.cached_property
    def _hook(self) -> OpenAIBatchHook:
        from airflow_openai_batch.hooks.openai_batch import (
            OpenAIBatchHook,  # a second of imports, see `DEFAULT_CONN_ID`
        )

        return OpenAIBatchHook(self.conn_id)

    @property
    def _inputs(self) -> list[str]:
        uris = read_list("input_uri", self.input_uri)
        if len(uris) == 1:  # what was typed into the form: one per line
            uris = [line.strip() for line in uris[0].splitlines() if line.strip()]
        if not uris or not all(uri.strip() for uri in uris):
            raise ConfigError(
                f"input_uri is empty: name a JSONL file, a list of them, or a glob. {self._unknown_keys}".rstrip()
            )
        return uris

    @property
    def _resolver(self) -> Resolver:
        return make_resolver("input", self._givers.input)

    def _split(self, output: Location, run_key: str) -> Plan:
        from airflow_openai_batch.planning.split import (  # numpy, for nothing where a DAG is parsed
            Counting,
            split_job,
        )

        result = split_job(
            self._inputs,
            output,
            resolve=self._resolver,
            limits=self._read_limits(),
            counting=Counting(
                mode=read_choice("count_tokens", self.count_tokens, ("auto", "exact", "bound")),
                count_images=read_choice("count_images", self.count_images, ("formula", "text")),
                deployments=self._hook.get_own_prices().deployments,
            ),
            on_bad_line=read_choice("on_bad_line", self.on_bad_line, ("fail", "reject")),
            on_empty=read_choice("on_empty", self.on_empty, ("fail", "skip")),
            on_existing=read_choice("on_existing", self.on_existing, ("resume", "fail", "restart")),
            run_key=run_key,
            now=time.time(),
            max_shards=find_max_map_length(),
            progress=ProgressLog(self.log),
            model_ends=self._hook.get_model_ends(),
        )
        for notice in result.notices:
            self.log.warning("%s", notice)
        if not result.created:
            self.log.info("%s", describe_existing(result.plan, output))
        return result.plan

    def _read_limits(self) -> ChooseLimits:
        """:raises ConfigError: for a parameter that is no number, before the input is looked at."""
        names = ("max_requests", "max_bytes", "max_tokens")
        given = {
            name: read_optional_int(f"{name}_per_shard", getattr(self, f"{name}_per_shard")) for name in names
        }
        asked = ShardLimits(**{name: value for name, value in given.items() if value is not None})
        account = self._hook.get_limits()
        enqueued = read_queue_tokens(self)

        def choose(files: Sequence[SourceFile]) -> ShardLimits:
            models = peek_models(files) if account != AccountLimits() else ()
            queue = account.smallest_queue_limit(models, tokens=enqueued)
            fits = self._fit_into_queue(queue) if asked.max_tokens is None else asked.max_tokens
            return replace(
                asked,
                max_requests=min(asked.max_requests, queue.requests or asked.max_requests),
                max_tokens=fits,
            )

        return choose

    def _fit_into_queue(self, queue: QueueLimit) -> int | None:
        """Tokens of a shard, by what the queues of the input's models hold."""
        if queue.tokens is None:
            return None
        max_tokens = int(queue.tokens * QUEUE_SHARE)
        self.log.info(
            "Shards of at most %s input tokens, since the batch queue holds %s.",
            f"{max_tokens:,}",
            f"{queue.tokens:,}",
        )
        return max_tokens


class _Givers(NamedTuple):
    """Who gave which parameter."""

    input: Giver = Giver.FORM
    output: Giver = Giver.FORM
    connection: Giver = Giver.FORM

    @classmethod
    def read(cls, context: Context) -> _Givers:
        return cls(*(find_giver(context, field) for field in ("input_uri", "output_uri", "conn_id")))


def describe_existing(plan: Plan, output: Location) -> str:
    """What the log says of a plan that is gone on with; one listing."""
    landed = len(output.child(directory.RESULTS).names())
    return (
        f"The plan of {output.uri} exists: going on with it; {landed:,} of {number_of(len(plan.shards), 'shard')} "
        f"{'has' if landed == 1 else 'have'} results already."
    )
