"""The search for a batch that a shard's ledger does not know: whoever sent it died, or its ledger was lost."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from airflow_openai_batch.core import job
from airflow_openai_batch.core.errors import NotFoundError
from airflow_openai_batch.core.known_batches import WORTH_WRITING, read_known, write_known
from airflow_openai_batch.core.plan import job_key

if TYPE_CHECKING:
    from airflow_openai_batch.client import BatchClient
    from airflow_openai_batch.core.batch_view import BatchView
    from airflow_openai_batch.shard_files import ShardFiles


def find_sent(client: BatchClient, files: ShardFiles, send: int, now: float) -> tuple[BatchView, ...]:
    """All batches that carry this send of the shard, however long ago they were created.

    One call per 100 batches that were created since the last search of any shard that wrote down what it found, and
    one for each batch of this send.

    :param now: Unix seconds.
    """
    place = files.output.child(job.KNOWN_BATCHES)
    known = read_known(place, files.plan)
    listed, ours = 0, {}
    for batch in client.iter_batches(known.listed_at):
        listed += 1
        if _is_of_job(batch, files):
            ours[batch.id] = batch
    if listed >= WORTH_WRITING:
        write_known(place, known.joined(ours.values(), now))
    key = files.key(send)
    found = [batch for batch in ours.values() if batch.job_key == key]
    for batch_id in known.of(files.shard.shard, send):
        if batch_id not in ours:
            with contextlib.suppress(NotFoundError):  # the connection's key is of another project now
                found.append(client.fetch(batch_id))
    return tuple(found)


def _is_of_job(batch: BatchView, files: ShardFiles) -> bool:
    """Metadata may be anybody's: only the key tells."""
    shard, send = (batch.metadata.get(name, "") for name in ("shard", "send"))
    if batch.job_key is None or not (shard.isdecimal() and send.isdecimal()):
        return False
    plan = files.plan
    return batch.job_key == job_key(
        files.output.uri, plan.fingerprint, plan.generation, int(shard), int(send)
    )
