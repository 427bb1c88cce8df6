"""The search for a batch that a shard's ledger does not know: whoever sent it died, or its ledger was lost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from airflow_openai_batch.core import job
from airflow_openai_batch.core.batch_view import LIST_MARGIN_S
from airflow_openai_batch.core.errors import NotFoundError
from airflow_openai_batch.core.known_batches import (
    WORTH_WRITING,
    KnownBatches,
    is_of_job,
    read_known,
    write_known,
)

if TYPE_CHECKING:
    from airflow_openai_batch.client import BatchClient
    from airflow_openai_batch.core.batch_view import BatchView
    from airflow_openai_batch.shard_files import ShardFiles


def find_sent(client: BatchClient, files: ShardFiles, send: int) -> tuple[BatchView, ...]:
    """All batches that carry this send of the shard, however long ago they were created.

    One call per 100 batches that were created since the last search of any shard that wrote down what it found, and
    one for each batch of this send.
    """
    place, plan = files.output.child(job.KNOWN_BATCHES), files.plan
    known = read_known(place, plan)
    newest: BatchView | None = None
    ours: list[BatchView] = []
    new = 0
    for batch in _list_new(client, known, plan.created_at):
        newest = newest or batch
        new += batch.created_at > known.listed_at or not known.newest
        if is_of_job(batch, files.output.uri, plan):
            ours.append(batch)
    if newest is not None and new >= WORTH_WRITING:
        write_known(place, known.joined(ours, newest))
    key = files.key(send)
    found = {batch.id: batch for batch in ours if batch.job_key == key}
    try:
        for batch_id in known.of(files.shard.shard, send):
            if batch_id not in found:
                found[batch_id] = client.fetch(batch_id)
    except NotFoundError:  # OpenAI forgets no batch: one answer is not enough to pay again
        return client.find(key, plan.created_at)
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
