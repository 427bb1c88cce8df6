"""What earlier searches of a job found at OpenAI, so that each of them lists only what came since.

Before its first send every shard looks for a batch that its ledger does not know: the ledger may have been lost.
OpenAI lists all batches of a project and filters by nothing, so 20,000 such searches would read 2,000,000 pages.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import msgspec

from airflow_openai_batch.job.ledger import is_plain_id
from airflow_openai_batch.job.plan import job_key

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_openai_batch.job.plan import Plan
    from airflow_openai_batch.openai_api.batch import BatchView
    from airflow_openai_batch.storage.location import Location

WORTH_WRITING = 200
"""New batches that a search must have listed before it writes them down: two pages."""


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


def read_known(place: Location, plan: Plan) -> KnownBatches:
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


def is_of_job(batch: BatchView, uri: str, plan: Plan) -> bool:
    """Whether the key that the batch carries is one of this job's; which run created it does not matter.

    Metadata may be anybody's: only the key tells.
    """
    try:
        shard, send = int(batch.metadata["shard"]), int(batch.metadata["send"])
    except (KeyError, ValueError):
        return False
    return batch.job_key == job_key(uri, plan.fingerprint, plan.generation, shard, send) and (
        0 <= shard < len(plan.shards)
    )


def _name(shard: int | str, send: int | str) -> str:
    return f"{shard}.{send}"
