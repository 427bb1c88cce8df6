"""Jobs as they are now: Airflow's database, the directories and OpenAI's list, put together for one answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from airflow_openai_batch.operators.task.ownership import find_other_owner
from airflow_openai_batch.plugin.accounts import ACCOUNTS, Account
from airflow_openai_batch.plugin.directories import DIRECTORIES, Directory
from airflow_openai_batch.plugin.instances import Instance, Instances, find_instances, find_makers
from airflow_openai_batch.plugin.job_rows import JobRow, find_conn_ids
from airflow_openai_batch.plugin.shard_view import ShardView, view_shards

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from airflow_openai_batch.plugin.access import Rights
    from airflow_openai_batch.report.snapshot import JobSnapshot


@dataclass
class Job:
    """One job, with all that was found about it."""

    row: JobRow
    directory: Directory
    conn_id: str | None = None
    """None where nothing tells: then OpenAI is not asked."""
    instances: Instances = field(default_factory=dict)
    maker: Instance | None = None

    def __post_init__(self) -> None:
        self.snapshot: JobSnapshot | None = self.directory.snapshot
        """As it was when the answer was begun: threads put newer ones in its place."""
        self.error = self.directory.error
        self.is_forbidden = False

    def check_owner(self, rights: Rights) -> None:
        """Show nothing of a job that a DAG has planned which the user may not read."""
        owner = (
            None
            if self.snapshot is None
            else find_other_owner(self.snapshot.plan.created_by, self.row.id.dag_id)
        )
        if owner is not None and not rights.may_read(owner):
            self.snapshot, self.is_forbidden = None, True
            self.error = f"You may not read DAG {owner!r}, which has planned this job."

    @cached_property
    def account(self) -> Account:
        """OpenAI is asked only where shards are not done."""
        if self.conn_id is None:
            return Account("")
        going_on = self.snapshot is not None and not self.snapshot.is_done
        return ACCOUNTS.look(self.conn_id) if going_on else ACCOUNTS.find(self.conn_id)

    @cached_property
    def shards(self) -> list[ShardView]:
        if self.snapshot is None:
            return []
        account = self.account
        return view_shards(self.snapshot, account.batches, self.instances, self.maker, account.usual)


def gather(session: Session, rows: Sequence[JobRow], rights: Rights) -> list[Job]:
    """Never waits for object storage or for OpenAI. Of task instances, those are found that have failed or wait."""
    directories = DIRECTORIES.get({row.uri for row in rows})
    open_rows = [row for row in rows if not _is_done(directories[row.uri])]
    instances = find_instances(session, open_rows)
    makers = find_makers(session, [row.id for row in rows])
    conn_ids = find_conn_ids(session, [row.id for row in rows])
    jobs = [
        Job(
            row=row,
            directory=directories[row.uri],
            conn_id=conn_ids.get(row.id),
            instances=instances.get(row.id, {}),
            maker=makers.get(row.id),
        )
        for row in rows
    ]
    for job in jobs:
        job.check_owner(rights)
    return jobs


def add_instances(session: Session, job: Job, shards: Sequence[ShardView]) -> None:
    """Of the shards of one page, which are links to their tasks."""
    among = [shard.plan.shard for shard in shards]
    found = find_instances(session, [job.row], among=among)[job.row.id]
    for shard in shards:
        shard.instance = found.get(shard.plan.shard, shard.instance)


def _is_done(directory: Directory) -> bool:
    return directory.snapshot is not None and directory.snapshot.is_done
