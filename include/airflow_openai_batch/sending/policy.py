"""How a shard is sent and how patient its machine is: what the operators' parameters add up to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.openai_api.batch import CREATE_TIMEOUT_S

Lane = Literal["batch", "flex", "realtime"]
"""How the requests of a send go out: ``flex`` is one by one like real time, at the price of a batch."""
Mode = Literal["auto", "batch", "flex", "realtime"]
OnDeadline = Literal["flex", "realtime", "publish", "fail"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Times in seconds. Checks itself.

    :raises ConfigError: for a value that makes no sense.
    """

    mode: Mode = "batch"
    realtime_threshold: int = 10
    """With ``auto``: up to so many requests go out one by one, through flex or in real time."""
    deadline_at: float | None = None
    """Unix seconds at which the whole shard should be finished."""
    within_s: float = 0.0
    """From the start of the run to the deadline."""
    on_deadline: OnDeadline = "fail"
    clean_up: bool = True
    """Delete the files at OpenAI once the shard's rows are written."""
    first: int | None = None
    """A sample: only so many of the shard's first requests are sent, and the shard rests after that."""

    create_timeout_s: float = 2 * CREATE_TIMEOUT_S
    """A foreign intent to create is taken over only after this long; the call itself is over well before."""
    realtime_claim_s: float = 900.0
    """A send one by one that somebody else began is taken over only after this long."""
    queue_wait_s: float = 60.0
    """First wait after a refusal for queue room, or for flex capacity; doubles up to ``queue_wait_max_s``."""
    queue_wait_max_s: float = 900.0
    grace_s: float = 3600.0
    """A batch that is not final this long after its expiry is cancelled and harvested."""
    max_setbacks: int = 5

    def __post_init__(self) -> None:
        if self.realtime_threshold < 0:
            raise ConfigError(f"realtime_threshold={self.realtime_threshold}: must be at least 0.")
        if self.first is not None and self.first < 1:
            raise ConfigError(f"first={self.first}: a sample has at least one request.")

    def choose_lane(self, requests: int, *, late: bool, has_flex: bool) -> Lane:
        """How a send of so many requests goes out.

        :param late: the deadline has passed.
        :param has_flex: the model is known to have flex. Who asks for flex by name gets it tried in any case.
        """
        if late:
            return "flex" if self.on_deadline == "flex" else "realtime"
        if not self.may_choose_flex(requests):
            return "batch" if self.mode == "auto" else self.mode
        return "flex" if has_flex else "realtime"

    def may_choose_flex(self, requests: int) -> bool:
        """Whether it matters for the lane of a send of so many requests if the model has flex."""
        return self.mode == "auto" and requests <= self.realtime_threshold

    def falls_back(self, *, late: bool) -> bool:
        """Whether what flex has no room for goes out in real time, at the full price: where somebody waits for it."""
        return late or self.mode != "flex"

    def sends_in_realtime(self, requests: int) -> bool:
        """Whether a send of so many requests may come to the full price: where flex has no room, few of them do."""
        return self.mode == "realtime" or (self.mode == "auto" and requests <= self.realtime_threshold)


DEFAULT_POLICY = Policy()
