"""The search for a batch that a shard's ledger does not know: whoever sent it died, or its ledger was lost.

Before its first send every shard looks. OpenAI lists all batches of a project and filters by nothing, so 20,000 such
searches would read 2,000,000 pages: a search writes down what it found, and the next lists only what came since.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from airflow_openai_batch.errors import NotFoundError
from airflow_openai_batch.job import directory
from airflow_openai_batch.job.ledger import is_plain_id
from airflow_openai_batch.job.plan import job_key
from airflow_openai_batch.openai_api.batch import CLOCK_MARGIN_S, LIST_MARGIN_S

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_openai_batch.job.plan import PlanHead
    from airflow_openai_batch.job.shard_state import ShardState
    from airflow_openai_batch.openai_api.batch import BatchView
    from airflow_openai_batch.openai_api.client import BatchClient
    from airflow_openai_batch.sending.shard_files import ShardFiles
    from airflow_openai_batch.storage.location import Location


WORTH_WRITING = 200
"""New batches that a search must have listed before it writes them down: two pages."""


def find_sent(client: BatchClient, files: ShardFiles, state: ShardState) -> tuple[BatchView, ...]:
    """All batches that carry the current send of the shard, however long ago they were created.

    One call per 100 batches that were created since the last search of any shard that wrote down what it found, and
    one for each batch of this send.

    :raises ListError: if the list of batches cannot be read to its end.
    """
    place, plan = files.output.child(directory.KNOWN_BATCHES), files.plan.head
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


class KnownBatches(msgspec.Struct, frozen=True, kw_only=True):
    """The content of ``known_batches.json``: each writer's is whole, the last one stays. 50 bytes a batch."""

    plan: str
    """`Plan.name`: batches of another plan are not this one's."""
    newest: str
    """The id of the batch, of this job or another, that OpenAI listed first."""
    listed_at: float
    """When that one was created, by OpenAI's clock (Unix seconds): what was listed then stands here."""
    batches: dict[str, list[str]]
    """Ids of batches by shard and send: ``"3.0"``."""

    def of(self, shard: int, send: int) -> list[str]:
        return self.batches.get(_name(shard, send), [])

    def joined(self, listed: Iterable[BatchView], newest: BatchView) -> KnownBatches:
        """With those that a search has listed since, which have to be the job's."""
        batches = {name: list(ids) for name, ids in self.batches.items()}
        for batch in listed:
            ids = batches.setdefault(_name(batch.metadata["shard"], batch.metadata["send"]), [])
            if batch.id not in ids:
                ids.append(batch.id)
        return KnownBatches(plan=self.plan, newest=newest.id, listed_at=newest.created_at, batches=batches)


def read_known(place: Location, plan: PlanHead) -> KnownBatches:
    """Nothing, as of the split, where no search of this plan has written anything yet."""
    nothing = KnownBatches(plan=plan.name, newest="", listed_at=plan.created_at, batches={})
    try:
        known = msgspec.json.decode(place.read_bytes(), type=KnownBatches)
    except (FileNotFoundError, msgspec.MsgspecError):  # torn: the search then goes back to the split
        return nothing
    is_ours = known.plan == plan.name and all(map(is_plain_id, itertools.chain(*known.batches.values())))
    return known if is_ours else nothing


def write_known(place: Location, known: KnownBatches) -> None:
    place.write_bytes(msgspec.json.encode(known))


def is_of_job(batch: BatchView, uri: str, plan: PlanHead) -> bool:
    """Whether the key that the batch carries is one of this job's; which run created it does not matter.

    Metadata may be anybody's: only the key tells.
    """
    try:
        shard, send = int(batch.metadata["shard"]), int(batch.metadata["send"])
    except (KeyError, ValueError):
        return False
    return batch.job_key == job_key(uri, plan.fingerprint, plan.generation, shard, send)


def _name(shard: int | str, send: int | str) -> str:
    return f"{shard}.{send}"
