"""Who acts on a shard: a task instance, or any program that drives one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """For the ledger, the batch's metadata and the patience with foreign intents."""

    dag_id: str = ""
    run_id: str = ""
    task_id: str = ""
    map_index: int = -1
    try_number: int = 0
    """A retry is somebody else: the process of the try before may still be at it, or its call in the air."""
    run_started_at: float = 0.0
    """Unix seconds; clearing a finished run sets it anew."""

    @property
    def instance(self) -> str:
        """The task instance, whichever try it is."""
        return f"{self.dag_id}/{self.run_id}/{self.task_id}[{self.map_index}]"

    @property
    def by(self) -> str:
        return f"{self.instance}#{self.try_number}"

    def takes_up(self, last_by: str) -> bool:
        """Whether going on from there is a recovery: another run's work, or another try's of this task."""
        if not last_by.startswith(f"{self.dag_id}/{self.run_id}/"):
            return bool(last_by)
        return last_by.startswith(f"{self.instance}#") and last_by != self.by

    def to_metadata(self) -> dict[str, str]:
        """Cut to what OpenAI takes: 512 characters a value."""
        values = {
            "dag_id": self.dag_id,
            "run_id": self.run_id,
            "task_id": self.task_id,
            "map_index": str(self.map_index),
        }
        return {name: value[:512] for name, value in values.items() if value}
