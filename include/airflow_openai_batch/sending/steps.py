"""What the state machine can ask for. Whoever drives it carries these out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_openai_batch.errors import OpenAIBatchError
    from airflow_openai_batch.openai_api.account_limits import QueueLimit
    from airflow_openai_batch.openai_api.batch import BatchView
    from airflow_openai_batch.sending.policy import Lane
    from airflow_openai_batch.sending.queue.refusals import Refusal
    from airflow_openai_batch.sending.queue.room import Need


@dataclass(frozen=True, slots=True)
class Reached:
    """The goal is reached; nothing is left to do."""


@dataclass(frozen=True, slots=True)
class TakeSample:
    """Write down which requests the current send carries: what is open of the first ``requests`` of the shard."""

    requests: int


@dataclass(frozen=True, slots=True)
class Find:
    """List the batches with this send's job_key, back to ``since`` (Unix seconds); ``None``: to the split."""

    since: float | None


@dataclass(frozen=True, slots=True)
class Adopt:
    """Record a batch that is there already; cancel its duplicates."""

    batch: BatchView
    duplicates: tuple[BatchView, ...] = ()


@dataclass(frozen=True, slots=True)
class AwaitRoom:
    """The batch queue must have room for this send, and not before ``not_before`` (Unix seconds)."""

    need: Need
    limit: QueueLimit
    not_before: float
    why: str


@dataclass(frozen=True, slots=True)
class Upload:
    """Upload what this send carries."""


@dataclass(frozen=True, slots=True)
class Create:
    """Record the intent, then create the batch."""


@dataclass(frozen=True, slots=True)
class SendRealtime:
    """Send request by request; the answers go to disk as they come.

    ``why``: where that was not the plan. ``lane``: ``flex`` or ``realtime``. ``falls_back``: what flex has no room for
    within minutes goes out in real time; otherwise it is asked again later. ``until``: Unix seconds, after which
    nothing more is asked, since a deadline decides then. ``rest_per_s``: it is to be kept: what is left is given up as
    soon as there is just time left for it at so many requests a second.
    """

    why: str = ""
    lane: Lane = "realtime"
    falls_back: bool = False
    until: float | None = None
    rest_per_s: float = 0.0


@dataclass(frozen=True, slots=True)
class EndRealtime:
    """Take what a send through flex has answered so far for all of it: the rest goes another way."""


@dataclass(frozen=True, slots=True)
class Observe:
    """Fetch the batch."""

    batch_id: str


@dataclass(frozen=True, slots=True)
class RecordEnded:
    """The batch is final and may carry paid lines."""

    batch: BatchView


@dataclass(frozen=True, slots=True)
class RecordRefused:
    """The batch failed validation; ``error`` is set where waiting does not help."""

    batch: BatchView
    refusal: Refusal
    error: OpenAIBatchError | None


@dataclass(frozen=True, slots=True)
class Cancel:
    """The batch has taken too long: cancel it, its finished lines will be harvested."""

    batch: BatchView
    why: str
    hurries: bool = False
    """For a deadline: the rest goes another way."""


@dataclass(frozen=True, slots=True)
class Wait:
    """The batch runs; look again later."""

    batch: BatchView


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing to do before ``until`` (Unix seconds)."""

    until: float
    why: str


@dataclass(frozen=True, slots=True)
class Land:
    """Fetch the files of the ended sends, write the shard's rows, find what is left over.

    ``final``: what is left over is not sent again; its rows say why. ``gives_up``: doubts about the results that hold
    nothing up any more.
    """

    final: bool = False
    gives_up: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class CleanUp:
    """Delete the shard's files at OpenAI: all of it has landed."""


@dataclass(frozen=True, slots=True)
class Stop:
    """The shard cannot go on; ``error`` says what happened.

    ``forgiving``: write it down, so that whoever clears the task begins to count anew.
    """

    error: OpenAIBatchError
    forgiving: bool = False


Step = (
    Reached
    | TakeSample
    | Find
    | Adopt
    | AwaitRoom
    | Upload
    | Create
    | SendRealtime
    | EndRealtime
    | Observe
    | RecordEnded
    | RecordRefused
    | Cancel
    | Wait
    | Pause
    | Land
    | CleanUp
    | Stop
)
