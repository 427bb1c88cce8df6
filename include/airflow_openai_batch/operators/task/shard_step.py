"""What all tasks of one shard share: open the job, drive the shard to a goal, defer while there is only waiting."""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_2_PLUS

from airflow_openai_batch.hooks import metrics
from airflow_openai_batch.job.shard_state import Waited
from airflow_openai_batch.openai_api.account_limits import QueueLimit
from airflow_openai_batch.openai_api.batch import BatchView, describe_progress
from airflow_openai_batch.openai_api.rate_limits import foresee_pace
from airflow_openai_batch.operators.links import OpenAIBatchLink
from airflow_openai_batch.operators.task.caller import make_caller
from airflow_openai_batch.operators.task.failures import task_failures
from airflow_openai_batch.operators.task.handover import describe_params, hand_over
from airflow_openai_batch.operators.task.instance_label import show_label
from airflow_openai_batch.operators.task.landing_limit import read_landing_slots, wait_to_land
from airflow_openai_batch.operators.task.monthly_budget import find_monthly_budget
from airflow_openai_batch.operators.task.ownership import check_owner
from airflow_openai_batch.operators.task.parameters import (
    DEFAULT_CONN_ID,
    read_number,
)
from airflow_openai_batch.operators.task.sending import (
    SENDING_FIELDS,
    read_budget_check,
    read_policy,
    read_queue_tokens,
    read_realtime_limits,
)
from airflow_openai_batch.operators.task.shard_operator import ShardOperator
from airflow_openai_batch.operators.task.source_access import make_source_resolver
from airflow_openai_batch.sending.driver import ShardDriver, Waiting
from airflow_openai_batch.sending.judging import find_late_at
from airflow_openai_batch.sending.queue.book import LOOK_BACK_S
from airflow_openai_batch.sending.queue.own_line import OwnLine
from airflow_openai_batch.sending.queue.room import find_room
from airflow_openai_batch.sending.realtime.time_left import TimeLeft
from airflow_openai_batch.sending.steps import AwaitRoom, Pause, Reached
from airflow_openai_batch.wording import describe_duration

if TYPE_CHECKING:
    from airflow.sdk import BaseOperatorLink, Context

    from airflow_openai_batch.access.givers import Giver
    from airflow_openai_batch.job.shard_state import Goal, ShardState
    from airflow_openai_batch.operators.task.shard_ref import ShardRef
    from airflow_openai_batch.sending.policy import Lane
    from airflow_openai_batch.sending.realtime.send import RealtimeSend
    from airflow_openai_batch.sending.steps import SendRealtime
    from airflow_openai_batch.triggers.batch import OpenAIBatchEndTrigger
    from airflow_openai_batch.triggers.pause import OpenAIBatchPauseTrigger

DOUBLING = 2 if AIRFLOW_V_3_2_PLUS else True
"""Of the delay between tries; Airflow 3.1 knows only whether."""

QUEUE_LOOK_BATCHES = 1_000
"""Ten calls at most, for words; the triggerer, which decides, looks at all."""


class ShardStepOperator(ShardOperator):
    """Base of the operators that bring one shard to their goal.

    Each is a door to the one state machine: it takes the shard from wherever it is, so that a cleared or
    retried task sends nothing twice.

    :param shard: the shard, as the split returns it: ``{"job": <output_uri>, "shard": 0}``.
    :param conn_id: the OpenAI connection.
    :param poll_interval: seconds between two looks at a running batch or at the queue.
    :param deferrable: wait in the triggerer; otherwise the task holds its worker slot while it waits.
    :param send_mode: ``batch``, ``flex`` (one by one, at the price of a batch, where the model has it), ``realtime``
        (one by one, at the full price), or ``auto``: a send of at most ``realtime_threshold`` requests goes out through
        flex where the model is known to have it, else in real time. Default: the environment variable
        USE_BATCH_PROCESSING (``true``: batch, ``false``: realtime), else ``auto``. (A sensor's ``mode`` is something
        else in Airflow.)
    :param realtime_threshold: requests, with ``auto``; 10 by default.
    :param realtime_concurrency: requests in the air at once; by default what the connection's tier allows, or 5;
        through flex it begins with so many and goes up to 50, as far as there is room.
    :param enqueued_token_limit: the account's batch queue limit for the model, in input tokens; wins over the
        connection's extra. Nothing is sent before there is room.
    :param max_cost_usd: no send goes out where it could bring the job above this.
    :param finish_within_h: hours since the run's start, after which ``on_deadline`` decides; default: no bound. With
        ``flex`` and ``realtime`` it decides as soon as there is just time left for what a batch has not answered yet.
    :param on_deadline: ``fail`` the task (the batch goes on), or cancel the batch, keep what is finished, and send
        the rest in ``realtime`` or through ``flex`` (in real time where there is none), or ``publish`` without it.
    :param keep_remote_files: do not delete the shard's files at OpenAI once its rows are written.
    :param cancel_on_kill: cancel the batch where the waiting task (or its run) is marked failed; what was finished
        is paid, and the next run collects it. Clearing and marking as success leave the batch alone.
    :param retries: for what may pass: network, OpenAI's 5xx, a file that is not visible yet. Permanent
        errors fail at once. With the delays, which double up to ten minutes, the default outlives an hour without
        OpenAI.
    """

    goal: ClassVar[Goal]
    waits_alone = True
    """Whether the task waits for this shard and no other; not where an operator of many shards makes this one."""
    hands_over: ClassVar[bool] = False
    """Whether the task that comes next may begin in the triggerer."""

    template_fields: Sequence[str] = ("shard", "conn_id", "poll_interval", *SENDING_FIELDS)
    operator_extra_links: Collection[BaseOperatorLink] = (OpenAIBatchLink(),)
    ui_color = "#e8f3ee"

    def __init__(
        self,
        *,
        shard: ShardRef | None = None,
        conn_id: str = DEFAULT_CONN_ID,
        poll_interval: float | str = 60.0,
        deferrable: bool = True,
        send_mode: Literal["auto", "batch", "flex", "realtime"] | str | None = None,
        realtime_threshold: int | str | None = None,
        realtime_concurrency: int | str | None = None,
        enqueued_token_limit: int | str | None = None,
        max_cost_usd: float | str | None = None,
        finish_within_h: float | str | None = None,
        on_deadline: Literal["flex", "realtime", "publish", "fail"] | str = "fail",
        keep_remote_files: bool | str = False,
        cancel_on_kill: bool = True,
        retries: int = 8,
        retry_delay: timedelta | float = timedelta(minutes=1),
        retry_exponential_backoff: float = DOUBLING,
        max_retry_delay: timedelta | float = timedelta(minutes=10),
        map_index_template: str | None = "{{ ti.task.label }}",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            retries=retries,
            retry_delay=retry_delay,
            retry_exponential_backoff=retry_exponential_backoff,
            max_retry_delay=max_retry_delay,
            map_index_template=map_index_template,
            **kwargs,
        )
        self.params_as_written = describe_params(self)
        self.shard = shard
        self.conn_id = conn_id
        self.poll_interval = poll_interval
        self.deferrable = deferrable
        self.send_mode = send_mode
        self.realtime_threshold = realtime_threshold
        self.realtime_concurrency = realtime_concurrency
        self.enqueued_token_limit = enqueued_token_limit
        self.max_cost_usd = max_cost_usd
        self.finish_within_h = finish_within_h
        self.on_deadline = on_deadline
        self.keep_remote_files = keep_remote_files
        self.cancel_on_kill = cancel_on_kill
        self.linked_batch_id: str | None = None
        self.waits_for = ""
        self._learnt = QueueLimit()
        self._giver: Giver | None = None
        self._resolve_source = make_source_resolver(None)
        self._seen_twins: tuple[str, ...] = ()
        self._waited = Waited()
        self._state: ShardState | None = None
        self._own_line = OwnLine()

    def execute(self, context: Context) -> dict[str, Any]:
        return self._go_on(context)

    def resume(self, context: Context, event: Any = None, **_: Any) -> dict[str, Any]:
        """Called by Airflow when the wait is over. What the event says is looked up again at OpenAI; arguments that
        another release deferred the task with are left aside.

        :param event: a moment after a pause, else a mapping with a status: of the batch, or ``room``.
        """
        if isinstance(event, Mapping) and event.get("limit"):
            self._learnt = QueueLimit.from_dict(event["limit"])
        status = event.get("status") if isinstance(event, Mapping) else None
        # What the trigger calls a twin and the state machine does not, is no reason to come back a second time.
        self._seen_twins = tuple(event.get("twins") or ()) if isinstance(event, Mapping) else ()
        return self._go_on(context, admitted=status == "room", twins=status == "duplicate")

    def _go_on(self, context: Context, *, admitted: bool = False, twins: bool = False) -> dict[str, Any]:
        self.check_givers(context)
        while (outcome := self.drive(context, admitted=admitted, twins=twins)) is not None:
            admitted = self._wait(context, outcome)
        self.waits_for = ""
        if self.hands_over:
            self._hand_over(context)
        return self.result()

    def _hand_over(self, context: Context) -> None:
        if (state := self._state) is not None:
            wait = None if state.batch_id is None else self._make_wait(state.batch_id, context)
            hand_over(self, context, state=state, result=self.result(), wait=wait)

    def drive(self, context: Context, *, admitted: bool = False, twins: bool = False) -> Waiting | None:
        """Go on until the goal is reached (``None``) or there is only waiting to do."""
        with task_failures(), self._open_driver(context) as driver:
            _ = self.poll_interval_s  # what is wrong with it is said before there is a batch
            try:
                outcome = driver.drive(self.goal, admitted=admitted, twins=twins)
                if isinstance(outcome, Reached):
                    self.go_further(driver)
            finally:  # a task that fails leads to its batch, too
                self.linked_batch_id = driver.batch_id
                self._waited, self._state = driver.waited, driver.state
        return None if isinstance(outcome, Reached) else outcome

    def go_further(self, driver: ShardDriver) -> None:
        """What a task does for the next one once its own goal is reached."""

    def _open_driver(self, context: Context) -> ShardDriver:
        caller = make_caller(context)
        vars(self).pop("hook", None)  # a task that waits in its worker sees what has changed
        check_owner(self.files.plan.head.created_by, self.files.output.uri, caller.dag_id)
        return ShardDriver(
            files=self.files,
            connect=self._connect,
            caller=caller,
            policy=read_policy(self, caller),
            find_limit=self._find_limit,
            send_realtime=self._send_realtime,
            find_pace=self._find_pace,
            check_budget=read_budget_check(self, self.files),
            monthly_budget=functools.partial(find_monthly_budget, self.hook),
            own_prices=self.hook.get_own_prices,
            count=functools.partial(
                metrics.count, conn_id=self.conn_id, model=self.files.shard.model, dag_id=caller.dag_id
            ),
            landing_slot=functools.partial(
                wait_to_land, read_landing_slots(), show=functools.partial(self._show_wait, context)
            ),
        )

    def _show_wait(self, context: Context, waits_for: str) -> None:
        """In the instance's name, for a wait without deferring."""
        self.waits_for = waits_for
        show_label(context, self.label)

    def _find_limit(self, model: str) -> QueueLimit:
        told = self.hook.get_limits().queue_limit(model, tokens=read_queue_tokens(self))
        return told.overridden_by(self._learnt)

    def _find_pace(self, lane: Lane) -> float:
        limits = read_realtime_limits(self, self.hook.get_limits(), self.files.shard.model)
        return foresee_pace(limits, flex=lane == "flex") / len(self.files.plan.shards)

    def _send_realtime(
        self, state: ShardState, show_life: Callable[[], None], step: SendRealtime
    ) -> RealtimeSend:
        """What the current send carries, request by request."""
        from airflow_openai_batch.sending.realtime.send import send_realtime

        budget_s = None if step.until is None else max(0.0, step.until - time.time())
        return send_realtime(
            self.files.read_content(state.content),
            open_client=self.hook.get_realtime_client,
            endpoint=self.files.shard.endpoint,
            segments=self.files.open_segments(state.send),
            limits=read_realtime_limits(self, self.hook.get_limits(), self.files.shard.model),
            flex=step.lane == "flex",
            falls_back=step.falls_back,
            time_left=TimeLeft(budget_s, requests=state.content.requests, rest_per_s=step.rest_per_s),
            on_alive=show_life,
        )

    def _wait(self, context: Context, outcome: Waiting) -> bool:
        """Defer, or sleep for one poll interval where the task is not deferrable; whether there is room now."""
        if isinstance(outcome, AwaitRoom):
            return self._await_room(context, outcome)
        now = time.time()
        if isinstance(outcome, Pause):
            self.waits_for = outcome.why
            self.log.info("Waiting %s: %s.", describe_duration(max(0.0, outcome.until - now)), outcome.why)
            if self.deferrable:
                show_label(context, self.label)
                self.defer(trigger=self._make_pause(outcome.until), method_name="resume")
            time.sleep(max(0.0, min(outcome.until - now, self.poll_interval_s)))
            return False
        self.waits_for = ""
        self.log.info("Waiting for %s: %s", outcome.batch.id, describe_progress(outcome.batch, now))
        if self.deferrable:
            trigger = self.make_trigger(outcome.batch, context)
            trigger.landing = self.order_landing(context)
            if (trigger.finish_task or trigger.landing) and self.do_xcom_push:
                context["ti"].xcom_push("return_value", self.result())  # nobody comes back to do it
            self.defer(trigger=trigger, method_name="resume")
        time.sleep(self.poll_interval_s)
        return False

    def _await_room(self, context: Context, wish: AwaitRoom) -> bool:
        """Wait for room in the batch queue; see `OpenAIBatchRoomTrigger`."""
        if not self.deferrable:
            has_room = self.ask_for_room(wish)
            if not has_room:
                time.sleep(self.poll_interval_s)
            return has_room
        self._tell_room(wish, self._describe_room(wish))
        from airflow_openai_batch.triggers.room import OpenAIBatchRoomTrigger

        show_label(context, self.label)
        trigger = OpenAIBatchRoomTrigger.for_need(
            wish.need,
            wish.limit,
            conn_id=self.conn_id,
            holder=self._holder,
            asked_at=self._place_in_line,
            not_before=wish.not_before,
            poll_interval=self.poll_interval_s,
            deadline=find_late_at(read_policy(self, make_caller(context)), self._waited.rest_s),
        )
        return self.defer(trigger=trigger, method_name="resume")

    @property
    def _place_in_line(self) -> float:
        """Jobs in the order of their plans, shards in theirs, also after a refusal: who lets the small ones in first
        by chance needs up to 1.7 times as long for all."""
        return self.files.plan.head.created_at + self.files.shard.shard * 1e-3

    @property
    def _holder(self) -> str:
        """Names the shard in the line, whichever send it is."""
        return f"{self.files.output.uri}|{self.files.shard.shard}"

    def ask_for_room(self, wish: AwaitRoom) -> bool:
        """Whether the send may go now, of a task that waits in a worker."""
        with task_failures(), self._connect() as client:
            has_room, text = self._own_line.ask(
                client,
                wish.need,
                wish.limit,
                now=time.time(),
                not_before=wish.not_before,
                holder=self._holder,
            )
        self._tell_room(wish, text)
        return has_room

    def _describe_room(self, wish: AwaitRoom) -> str:
        """A short look at the queue. Nothing is decided by it: the triggerer does that."""
        with task_failures(), self._connect() as client:
            newest = itertools.islice(client.iter_batches(time.time() - LOOK_BACK_S), QUEUE_LOOK_BATCHES)
            return str(find_room(newest, wish.need, wish.limit))

    def _tell_room(self, wish: AwaitRoom, text: str) -> None:
        self.waits_for = f"waits for room: {text}"
        self.log.info("Shard %d waits for room in the batch queue: %s.", self.files.shard.shard, text)
        if wish.why:
            self.log.info("%s.", wish.why)

    def make_trigger(self, batch: BatchView, context: Context) -> OpenAIBatchEndTrigger:
        return self._make_wait(batch.id, context)

    def order_landing(self, context: Context) -> dict[str, Any] | None:
        """What the triggerer has to know to land the shard, where it may."""
        return None

    def _make_wait(self, batch_id: str, context: Context) -> OpenAIBatchEndTrigger:
        from airflow_openai_batch.triggers.batch import OpenAIBatchEndTrigger

        policy = read_policy(self, make_caller(context))
        cancelled = () if self._state is None else self._state.duplicates
        return OpenAIBatchEndTrigger(
            conn_id=self.conn_id,
            batch_id=batch_id,
            poll_interval=self.poll_interval_s,
            overdue_after=policy.grace_s,
            deadline=policy.deadline_at,
            on_deadline=policy.on_deadline,
            deadline_status="late",
            created_at=self._waited.created_at,
            cancel_asked_at=self._waited.cancel_asked_at,
            stopped_at=self._waited.stopped_at,
            rest_s=self._waited.rest_s,
            cancel_on_kill=self.cancel_on_kill,
            settled=tuple(dict.fromkeys((*cancelled, *self._seen_twins))),
        )

    def _make_pause(self, until: float) -> OpenAIBatchPauseTrigger:
        from airflow_openai_batch.triggers.pause import OpenAIBatchPauseTrigger

        return OpenAIBatchPauseTrigger(until=until, poll_interval=self.poll_interval_s)

    @property
    def poll_interval_s(self) -> float:
        return read_number("poll_interval", self.poll_interval, minimum=0.1, unit="seconds")
