"""The last look for a job's files at OpenAI: what a crash left between an upload and its entry in the ledger.

Uploads are named after the job_key of their send, and batches carry it, so that they are known again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from airflow_openai_batch.job.plan import job_key
from airflow_openai_batch.openai_api.batch import CLOCK_MARGIN_S, BatchStatus

if TYPE_CHECKING:
    from airflow_openai_batch.job.plan import PlanHead
    from airflow_openai_batch.openai_api.batch import BatchView
    from airflow_openai_batch.openai_api.client import BatchClient

log = logging.getLogger(__name__)


def sweep_files(client: BatchClient, plan: PlanHead, output_uri: str, sends: Mapping[int, int]) -> int:
    """Delete what finished shards left at OpenAI, and return how many files that were. What still runs is cancelled.

    Two listings of files (10,000 a call), one of the batches since the plan was written (100 a call), and a call for
    each file that is still there. A result file that OpenAI lists and will not show yet stays until it expires.

    :param sends: shard to the number of its last send; only finished shards, since a later run may need the
        files of the others.
    :raises RemoteError: if OpenAI cannot be asked; what is left expires by itself.
    """
    keys = set(iter_keys(plan, output_uri, sends))
    since = plan.created_at - CLOCK_MARGIN_S  # that is the clock of the worker that split
    batches = {batch.id: batch for batch in client.iter_batches(since) if batch.job_key in keys}
    _cancel_forgotten(client, batches.values())
    inputs = {batch.input_file_id for batch in batches.values()}
    results = {
        each for batch in batches.values() for each in (batch.output_file_id, batch.error_file_id) if each
    }
    found = [
        file_id
        for file_id, name in client.iter_files("input")
        if file_id in inputs or name.removesuffix(".jsonl") in keys
    ]
    found += [
        file_id
        for file_id, name in client.iter_files("result")
        if file_id in results or name.rpartition("_")[0] in batches  # batch_<id>_output.jsonl
    ]
    deleted = sum(client.delete_file(file_id) for file_id in found)
    if deleted:
        log.info("Deleted %d files at OpenAI that earlier tasks had left.", deleted)
    return deleted


def _cancel_forgotten(client: BatchClient, batches: Iterable[BatchView]) -> None:
    """Whoever created one died, and the list showed it only when another batch of the same send had ended."""
    for batch in batches:
        if not batch.status.is_final and batch.status is not BatchStatus.CANCELLING:
            log.warning("%s runs although its shard is done: cancelling it.", batch.id)
            client.cancel_if_possible(batch.id)


def iter_keys(plan: PlanHead, output_uri: str, sends: Mapping[int, int]) -> Iterator[str]:
    """The job_keys of all sends of these shards."""
    for shard, last in sends.items():
        for send in range(1, last + 1):
            yield job_key(output_uri, plan.fingerprint, plan.generation, shard, send)
