"""Jobs as they are now: Airflow's database, the directories and OpenAI's list, put together for one answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from airflow_openai_batch.operators.parameters import DEFAULT_CONN_ID
from airflow_openai_batch.plugin.accounts import ACCOUNTS, Account
from airflow_openai_batch.plugin.directories import DIRECTORIES, Directory
from airflow_openai_batch.plugin.instances import Instance, Instances, find_instances, find_makers
from airflow_openai_batch.plugin.job_rows import JobRow, find_conn_ids
from airflow_openai_batch.plugin.shard_view import ShardView, view_shards

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from airflow_openai_batch.core.job_snapshot import JobSnapshot


@dataclass
class Job:
    """One job, with all that was found about it."""

    row: JobRow
    directory: Directory
    conn_id: str = DEFAULT_CONN_ID
    instances: Instances = field(default_factory=dict)
    maker: Instance | None = None

    def __post_init__(self) -> None:
        self.snapshot: JobSnapshot | None = self.directory.snapshot
        """As it was when the answer was begun: threads put newer ones in its place."""

    @cached_property
    def account(self) -> Account:
        """OpenAI is asked only where shards are not done."""
        going_on = self.snapshot is not None and not self.snapshot.is_done
        return ACCOUNTS.look(self.conn_id) if going_on else ACCOUNTS.find(self.conn_id)

    @cached_property
    def shards(self) -> list[ShardView]:
        if self.snapshot is None:
            return []
        return view_shards(self.snapshot, self.account.batches, self.instances, self.maker)


def gather(session: Session, rows: Sequence[JobRow]) -> list[Job]:
    """Never waits for object storage or for OpenAI. Of task instances, those are found that have failed or wait."""
    directories = DIRECTORIES.get({row.uri for row in rows})
    open_rows = [row for row in rows if not _is_done(directories[row.uri])]
    instances = find_instances(session, open_rows)
    makers = find_makers(session, [row.id for row in rows])
    conn_ids = find_conn_ids(session, [row.id for row in rows])
    return [
        Job(
            row=row,
            directory=directories[row.uri],
            conn_id=conn_ids.get(row.id, DEFAULT_CONN_ID),
            instances=instances.get(row.id, {}),
            maker=makers.get(row.id),
        )
        for row in rows
    ]


def add_instances(session: Session, job: Job, shards: Sequence[ShardView]) -> None:
    """Of the shards of one page, which are links to their tasks."""
    among = [shard.plan.shard for shard in shards]
    found = find_instances(session, [job.row], among=among)[job.row.id]
    for shard in shards:
        shard.instance = found.get(shard.plan.shard, shard.instance)


def _is_done(directory: Directory) -> bool:
    return directory.snapshot is not None and directory.snapshot.is_done
