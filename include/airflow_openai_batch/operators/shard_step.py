"""What all tasks of one shard share: open the job, drive the shard to a goal, defer while there is only waiting."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator

from airflow_openai_batch.core.batch_view import BatchView, describe_duration, describe_progress
from airflow_openai_batch.core.errors import ConfigError
from airflow_openai_batch.core.machine import Pause, Reached, Wait
from airflow_openai_batch.driver import Caller, ShardDriver
from airflow_openai_batch.locations import check_conn_id, check_uri, resolve_location
from airflow_openai_batch.operators.failures import task_failures
from airflow_openai_batch.operators.links import OpenAIBatchLink
from airflow_openai_batch.operators.parameters import DEFAULT_CONN_ID, read_number
from airflow_openai_batch.shard_files import LandingRules, ShardFiles, open_shard

if TYPE_CHECKING:
    from airflow.sdk import BaseOperatorLink, Context

    from airflow_openai_batch.client import BatchClient
    from airflow_openai_batch.core.shard_state import Goal
    from airflow_openai_batch.triggers.batch import OpenAIBatchEndTrigger

ShardRef = Mapping[str, Any]
"""``{"job": <output_uri>, "shard": 0}``: what the split returns a list of, and all that goes through XCom."""

_CERTAINTY_SIGNS = {"exact": "", "upper": "≤ ", "lower": "≥ "}


class ShardStepOperator(BaseOperator):
    """Base of the operators that bring one shard to their goal.

    Each is a door to the one state machine: it takes the shard from wherever it is, so that a cleared or
    retried task sends nothing twice.

    :param shard: the shard, as the split returns it: ``{"job": <output_uri>, "shard": 0}``.
    :param conn_id: the OpenAI connection.
    :param poll_interval: seconds between two looks at a running batch.
    :param deferrable: wait in the triggerer; otherwise the task holds its worker slot while it waits.
    :param retries: for what may pass: network, OpenAI's 5xx, a file that is not visible yet. Permanent
        errors fail at once.
    """

    goal: ClassVar[Goal]

    template_fields: Sequence[str] = ("shard", "conn_id", "poll_interval")
    operator_extra_links: Collection[BaseOperatorLink] = (OpenAIBatchLink(),)
    ui_color = "#e8f3ee"

    def __init__(
        self,
        *,
        shard: ShardRef | None = None,
        conn_id: str = DEFAULT_CONN_ID,
        poll_interval: float | str = 60.0,
        deferrable: bool = True,
        retries: int = 3,
        retry_delay: timedelta | float = timedelta(minutes=1),
        map_index_template: str | None = "{{ task.label }}",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            retries=retries, retry_delay=retry_delay, map_index_template=map_index_template, **kwargs
        )
        self.shard = shard
        self.conn_id = conn_id
        self.poll_interval = poll_interval
        self.deferrable = deferrable
        self.linked_batch_id: str | None = None

    @property
    def label(self) -> str:
        """Names the mapped instance in the UI: ``shard 3 · 50,000 requests · 1,812,334 tokens``.

        Before the tokens ``≈``: from a sample; ``≤``: not counted, but not more; ``≥``: something is unknown.
        """
        if self.shard is None:
            return self.linked_batch_id or ""
        shard = self.files.shard
        sign = "≈ " if shard.estimated_tokens is not None else _CERTAINTY_SIGNS[shard.tokens]
        tokens = f"{sign}{shard.expected_tokens:,} tokens"
        return f"shard {shard.shard} · {shard.requests:,} requests · {tokens}"

    @cached_property
    def files(self) -> ShardFiles:
        """The shard's files. For use after template rendering.

        :raises ConfigError: if the reference, the output or the connection cannot be used.
        """
        job, number = read_ref(self.shard)
        check_uri(job, "output")
        check_conn_id(self.conn_id)
        return open_shard(resolve_location(job), number, resolve_location, self.landing_rules())

    def landing_rules(self) -> LandingRules:
        """How answers become rows; operators that land read their parameters here."""
        return LandingRules()

    def execute(self, context: Context) -> dict[str, Any]:
        return self._go_on(context)

    def resume(self, context: Context, event: Any = None) -> dict[str, Any]:
        """Called by Airflow when the wait is over. What the event says is looked up again at OpenAI.

        :param event: a moment after a pause, else a mapping with the batch's status.
        """
        return self._go_on(context)

    def _go_on(self, context: Context) -> dict[str, Any]:
        while (outcome := self.drive(context)) is not None:
            self._wait(context, outcome)
        return self.result()

    def drive(self, context: Context) -> Wait | Pause | None:
        """Go on until the goal is reached (``None``) or there is only waiting to do."""
        with task_failures(), self._open_driver(make_caller(context)) as driver:
            try:
                outcome = driver.drive(self.goal)
            finally:  # a task that fails leads to its batch, too
                self.linked_batch_id = driver.batch_id
        return None if isinstance(outcome, Reached) else outcome

    def _open_driver(self, caller: Caller) -> ShardDriver:
        return ShardDriver(files=self.files, connect=self._connect, caller=caller)

    def _connect(self) -> BatchClient:
        from airflow_openai_batch.hook import OpenAIBatchHook  # a second of imports, see `DEFAULT_CONN_ID`

        return OpenAIBatchHook(self.conn_id).get_batch_client()

    def result(self) -> dict[str, Any]:
        job, number = read_ref(self.shard)
        return {"job": job, "shard": number}

    def _wait(self, context: Context, outcome: Wait | Pause) -> None:
        """Defer, or sleep for one poll interval where the task is not deferrable."""
        now = time.time()
        if isinstance(outcome, Pause):
            self.log.info("Waiting %s: %s.", describe_duration(max(0.0, outcome.until - now)), outcome.why)
            if self.deferrable:
                self._defer_until(outcome.until)
            time.sleep(max(0.0, min(outcome.until - now, self.poll_interval_s)))
            return
        self.log.info("Waiting for %s: %s", outcome.batch.id, describe_progress(outcome.batch, now))
        if self.deferrable:
            context["ti"].xcom_push("return_value", self.result())  # the trigger may end the task
            self.defer(trigger=self.make_trigger(outcome.batch), method_name="resume")
        time.sleep(self.poll_interval_s)

    def make_trigger(self, batch: BatchView) -> OpenAIBatchEndTrigger:
        from airflow_openai_batch.triggers.batch import OpenAIBatchEndTrigger

        return OpenAIBatchEndTrigger(
            conn_id=self.conn_id, batch_id=batch.id, poll_interval=self.poll_interval_s
        )

    def _defer_until(self, until: float) -> None:
        from airflow.providers.standard.triggers.temporal import DateTimeTrigger

        # a second more, since the trigger refuses moments that have just passed
        moment = datetime.fromtimestamp(max(until, time.time() + 1.0), tz=UTC)
        self.defer(trigger=DateTimeTrigger(moment), method_name="resume")

    @property
    def poll_interval_s(self) -> float:
        return read_number("poll_interval", self.poll_interval, minimum=0.1)


def make_caller(context: Context) -> Caller:
    """Who this task instance is, for ledger and metadata."""
    ti = context["ti"]
    return Caller(
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        task_id=ti.task_id,
        map_index=-1 if ti.map_index is None else ti.map_index,
    )


def read_ref(ref: Any) -> tuple[str, int]:
    """:raises ConfigError: if it is not what the split returns."""
    if isinstance(ref, Mapping) and isinstance(ref.get("job"), str) and str(ref.get("shard", "")).isdigit():
        return ref["job"], int(ref["shard"])
    raise ConfigError(
        f"shard={type(ref).__name__}: must be an item of the split's output, "
        '{"job": <output_uri>, "shard": <number>}. Map over it: .expand(shard=split.output).'
    )
