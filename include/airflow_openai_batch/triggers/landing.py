"""Lands a small shard right in the triggerer, where the start of a worker would cost more than its rows.

The worker that sent the shard leaves an order among the trigger's arguments: places and rules, checked when it ran,
references and numbers alone. Only steps that bring home what was paid are carried out here. Whatever else the state
machine wants, and whatever goes wrong, is for a worker, which looks again and has the words for it.

It runs in a thread, one shard at a time, and is bounded by what it reads and what comes back: the others that wait in
this triggerer feel less of it than of a look at the list of batches. Landing is repeatable: who clears the task
meanwhile lands once more. A thread cannot be ended from outside, but one that is given up writes nothing more: the job
may have been restarted by the time that it wakes up.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from airflow_openai_batch.access.givers import Giver  # noqa: TC001 - msgspec reads it
from airflow_openai_batch.access.locations import make_resolver, open_place
from airflow_openai_batch.access.settings import lands_in_triggerer
from airflow_openai_batch.errors import OpenAIBatchError
from airflow_openai_batch.job.shard_state import Goal
from airflow_openai_batch.openai_api.endpoints import Endpoint
from airflow_openai_batch.sending.caller import Caller  # noqa: TC001 - msgspec reads it
from airflow_openai_batch.sending.driver import ShardDriver
from airflow_openai_batch.sending.policy import Policy  # noqa: TC001 - msgspec reads it
from airflow_openai_batch.sending.shard_files import LandingRules, open_shard
from airflow_openai_batch.sending.steps import CleanUp, Land, Observe, RecordEnded
from airflow_openai_batch.server_words import describe_error

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from airflow_openai_batch.job.shard_state import ShardState
    from airflow_openai_batch.openai_api.batch import BatchView
    from airflow_openai_batch.sending.shard_files import ShardFiles

log = logging.getLogger(__name__)

MOST_BYTES = 4_000_000
"""Of the requests, and of what came back: some thousand usual answers, a fifth of a second of one core."""
MOST_WAITING = 32
"""Shards that wait for their turn; whoever comes then is faster in a worker."""
PATIENCE_S = 60.0
"""For the turn and the landing together."""
_STEPS = (Observe, RecordEnded, Land, CleanUp)


@dataclass(frozen=True, slots=True, kw_only=True)
class LandingOrder:
    """What the triggerer has to know besides the connection and the batch."""

    job: str
    """URI of the job directory."""
    shard: int
    job_giver: Giver
    source_giver: Giver
    """Who named these places: they are held to the same bounds as in the worker."""
    caller: Caller
    policy: Policy
    rules: LandingRules

    def to_dict(self) -> dict[str, Any]:
        order: dict[str, Any] = msgspec.to_builtins(self)
        return order

    @classmethod
    def from_dict(cls, order: Mapping[str, Any]) -> LandingOrder:
        """:raises msgspec.ValidationError: for an order of a release that had others."""
        return msgspec.convert(order, cls)

    def open_files(self, given_up: threading.Event) -> ShardFiles:
        """:raises OpenAIBatchError: as `open_place` and `open_shard`."""
        output = open_place(self.job, "output", self.job_giver).until(given_up)
        files = open_shard(output, self.shard, make_resolver("input", self.source_giver), self.rules)
        return replace(files, most_bytes=MOST_BYTES)


def may_land_here(files: ShardFiles, state: ShardState) -> bool:
    """Whether it is worth an order: a small shard's first send, with a triggerer that can look up connections from a
    thread."""
    shard = files.shard
    is_small = shard.bytes <= MOST_BYTES and shard.endpoint != Endpoint.VIDEOS and not state.ended
    return AIRFLOW_V_3_3_PLUS and is_small and lands_in_triggerer()


class _WorkerNeededError(OpenAIBatchError):
    """What is to be done next is not done here."""


_waiting = 0


async def land_here(order: Mapping[str, Any], conn_id: str, batch: BatchView) -> bool:
    """Whether the shard is done now."""
    global _waiting
    if _waiting >= MOST_WAITING:
        return False
    # In the context of the trigger, so that its lines go to the task's log.
    given_up = threading.Event()
    work = functools.partial(contextvars.copy_context().run, _land, order, conn_id, batch, given_up)
    _waiting += 1
    try:
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.get_running_loop().run_in_executor(_thread(), work)
    except TimeoutError:
        log.info("A worker goes on with the shard: it takes longer than %.0f s here.", PATIENCE_S)
        return False
    except _WorkerNeededError as reason:
        log.info("A worker goes on with the shard: %s.", reason)
        return False
    except Exception as error:  # whatever it is, a worker meets it too, or does not
        log.warning("A worker goes on with the shard: %s", describe_error(error))
        return False
    finally:
        given_up.set()
        _waiting -= 1
    return True


@functools.cache
def _thread() -> Executor:
    """One, of its own: a server that hangs holds up nothing else, and other landings for a minute."""
    return ThreadPoolExecutor(1, thread_name_prefix="openai-batch-landing")


def _land(stored: Mapping[str, Any], conn_id: str, batch: BatchView, given_up: threading.Event) -> None:
    from airflow_openai_batch.hooks import metrics
    from airflow_openai_batch.hooks.openai_batch import OpenAIBatchHook  # a second of imports

    if not lands_in_triggerer():  # said since the worker left the order, or here alone
        raise _WorkerNeededError("[openai_batch] land_in_triggerer says so")
    order, hook = LandingOrder.from_dict(stored), OpenAIBatchHook(conn_id)
    files = order.open_files(given_up)
    tags = {"conn_id": conn_id, "model": files.shard.model, "dag_id": order.caller.dag_id}

    def count(name: str, value: int = 1, **more: str) -> None:
        metrics.count(name, value, **tags, **more)

    with ShardDriver(
        files=files,
        connect=hook.get_batch_client,
        caller=order.caller,
        policy=order.policy,
        own_prices=hook.get_own_prices,
        count=count,
    ) as driver:
        if not driver.knows(
            batch.id
        ):  # on a disk of another machine there may lie another job at the same place
            raise _WorkerNeededError("its ledger knows nothing of this batch")
        _check_size(driver, batch)
        if not driver.drive_within(Goal.DONE, *_STEPS):
            raise _WorkerNeededError("landing is not all it needs")


def _check_size(driver: ShardDriver, batch: BatchView) -> None:
    """:raises _WorkerNeededError: if it is too much for this place, or nobody can say."""
    for file_id in filter(None, (batch.output_file_id, batch.error_file_id)):
        told = driver.client.describe_file(file_id)
        if told is None or told.bytes is None or told.bytes > MOST_BYTES:
            raise _WorkerNeededError("what came back is large, or the server does not say how much it is")
