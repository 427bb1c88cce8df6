"""A shard's ledger as one task sees it: where the shard stands, and what the task writes down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_openai_batch.errors import LedgerError
from airflow_openai_batch.job.folding import fold_events
from airflow_openai_batch.job.ledger import Event, Kind, ShardLedger
from airflow_openai_batch.job.shard_state import Content

if TYPE_CHECKING:
    from airflow_openai_batch.job.shard_state import ShardState
    from airflow_openai_batch.openai_api.batch import BatchView
    from airflow_openai_batch.sending.caller import Caller
    from airflow_openai_batch.sending.shard_files import ShardFiles


@dataclass(kw_only=True)
class ShardJournal:
    """Events are written in the name of the caller and of the shard's plan."""

    files: ShardFiles
    caller: Caller
    clock: Callable[[], float]

    def __post_init__(self) -> None:
        self._ledger = ShardLedger(self.files.state_folder)

    def read_events(self) -> list[Event]:
        """:raises LedgerError: if the ledger is there but cannot be read."""
        return self._ledger.read()

    def read_state(self) -> ShardState:
        """:raises LedgerError: if the ledger is there but cannot be read, or is that of another plan."""
        events = self._ledger.read()
        if any(event.plan != self.files.plan.head.name for event in events):
            raise LedgerError(
                f"{self.files.state_folder.uri}: belongs to another plan, since plan.json was removed or replaced by "
                "hand. Nothing was sent. Use an empty directory for another input, or restore plan.json."
            )
        return fold_events(Content.of(self.files.shard), events)

    def record(self, kind: Kind, state: ShardState, **fields: Any) -> None:
        """Of the current send."""
        self.record_of(state.send, kind, **fields)

    def record_of(self, send: int, kind: Kind, **fields: Any) -> None:
        self._ledger.append(
            Event(
                kind=kind,
                send=send,
                at=self.clock(),
                by=self.caller.by,
                plan=self.files.plan.head.name,
                **fields,
            )
        )

    def record_ended(self, batch: BatchView, state: ShardState) -> None:
        self.record(
            "ended",
            state,
            batch_id=batch.id,
            status=str(batch.status),
            output_file_id=batch.output_file_id,
            error_file_id=batch.error_file_id,
            completed=batch.completed,
            failed=batch.failed,
            total=batch.total,
            times=batch.times,
        )
