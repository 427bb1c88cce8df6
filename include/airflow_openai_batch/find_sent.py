"""The search for a batch that a shard's ledger does not know: whoever sent it died, or its ledger was lost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from airflow_openai_batch.core import job
from airflow_openai_batch.core.batch_view import LIST_MARGIN_S
from airflow_openai_batch.core.errors import NotFoundError
from airflow_openai_batch.core.known_batches import WORTH_WRITING, KnownBatches, read_known, write_known
from airflow_openai_batch.core.plan import job_key

if TYPE_CHECKING:
    from airflow_openai_batch.client import BatchClient
    from airflow_openai_batch.core.batch_view import BatchView
    from airflow_openai_batch.shard_files import ShardFiles


def find_sent(client: BatchClient, files: ShardFiles, send: int) -> tuple[BatchView, ...]:
    """All batches that carry this send of the shard, however long ago they were created.

    One call per 100 batches that were created since the last search of any shard that wrote down what it found, and
    one for each batch of this send.
    """
    place, since = files.output.child(job.KNOWN_BATCHES), files.plan.created_at
    known = read_known(place, files.plan)
    listed = list(_list_new(client, known, since))
    new = sum(batch.created_at > known.listed_at for batch in listed) if known.newest else len(listed)
    if new >= WORTH_WRITING:
        write_known(place, known.joined([each for each in listed if _is_of_job(each, files)], listed[0]))
    key = files.key(send)
    found = {batch.id: batch for batch in listed if batch.job_key == key}
    try:
        for batch_id in known.of(files.shard.shard, send):
            if batch_id not in found:
                found[batch_id] = client.fetch(batch_id)
    except NotFoundError:  # OpenAI forgets no batch: one answer is not enough to pay again
        return client.find(key, since)
    return tuple(found.values())


def _list_new(client: BatchClient, known: KnownBatches, since: float) -> Iterator[BatchView]:
    """Newest first. Where the batch that the last search saw first is not there, the connection leads to another
    project than it did then, and what is known says nothing of it."""
    met = False
    for batch in client.iter_batches(since):
        met = met or batch.id == known.newest
        if met and batch.created_at < known.listed_at - LIST_MARGIN_S:
            return
        yield batch


def _is_of_job(batch: BatchView, files: ShardFiles) -> bool:
    """Metadata may be anybody's: only the key tells."""
    shard, send = (batch.metadata.get(name, "") for name in ("shard", "send"))
    if batch.job_key is None or not (shard.isdecimal() and send.isdecimal()):
        return False
    plan = files.plan
    return batch.job_key == job_key(
        files.output.uri, plan.fingerprint, plan.generation, int(shard), int(send)
    )
