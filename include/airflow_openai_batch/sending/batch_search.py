"""The search for a batch that a shard's ledger does not know: whoever sent it died, or its ledger was lost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from airflow_openai_batch.errors import NotFoundError
from airflow_openai_batch.job import directory
from airflow_openai_batch.openai_api.batch import CLOCK_MARGIN_S, LIST_MARGIN_S
from airflow_openai_batch.sending.known_batches import (
    WORTH_WRITING,
    KnownBatches,
    is_of_job,
    read_known,
    write_known,
)

if TYPE_CHECKING:
    from airflow_openai_batch.job.shard_state import ShardState
    from airflow_openai_batch.openai_api.batch import BatchView
    from airflow_openai_batch.openai_api.client import BatchClient
    from airflow_openai_batch.sending.shard_files import ShardFiles


def find_sent(client: BatchClient, files: ShardFiles, state: ShardState) -> tuple[BatchView, ...]:
    """All batches that carry the current send of the shard, however long ago they were created.

    One call per 100 batches that were created since the last search of any shard that wrote down what it found, and
    one for each batch of this send.

    :raises ListError: if the list of batches cannot be read to its end.
    """
    place, plan = files.output.child(directory.KNOWN_BATCHES), files.plan
    since = plan.created_at - CLOCK_MARGIN_S  # that is the clock of the worker that split
    known = read_known(place, plan)
    key = files.key(state.send)
    newest: BatchView | None = None
    ours: list[BatchView] = []
    found: dict[str, BatchView] = {}
    new = 0
    for batch in _list_new(client, known, since):
        newest = newest or batch
        new += batch.created_at > known.listed_at or not known.newest
        if is_of_job(batch, files.output.uri, plan):
            ours.append(batch)
        if batch.is_of(key, files=state.sent_files, former=state.former_batches):
            found[batch.id] = batch
    if newest is not None and new >= WORTH_WRITING:
        write_known(place, known.joined(ours, newest))
    try:
        for batch_id in known.of(files.shard.shard, state.send):
            if batch_id not in found:
                found[batch_id] = client.fetch(batch_id)
    except NotFoundError:  # OpenAI forgets no batch: one answer is not enough to pay again
        return client.find(key, since, files=state.sent_files, former=state.former_batches)
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
