"""What refusals teach of a queue that others use, too: how far our own batches can fill it.

The limit is known and strangers are not: other projects of the organisation are in no list of ours. A refusal says
that at so many tokens of our own the queue was full; only another try tells when that is over. One shard tries
for all, ever more rarely while it is refused; once it is admitted, the next may try a little further.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_WAIT_S = 900.0
PROBE_S = 900.0
"""A try of which nothing was heard for so long came to nothing."""


@dataclass(slots=True)
class Backpressure:
    """Of one queue. Levels are tokens of our own in flight, times Unix seconds."""

    level: int | None = None
    """Where a batch was refused; below it nothing is in the way."""
    until: float = 0.0
    """Nobody tries the wall before."""
    wait_s: float = 0.0
    """The last; doubles while each try fails."""
    probe: str = ""
    """job_key of the one that tries it."""
    probe_holder: str = ""
    probe_level: int = 0
    probe_at: float | None = None

    def is_clear(self, level: int) -> bool:
        """Whether nothing is known to be in the way of a batch that would bring us to this level."""
        return self.level is None or level < self.level

    def may_be_tried(self, now: float) -> bool:
        """Whether one batch may go beyond what is clear."""
        return now >= self.until and (self.probe_at is None or now - self.probe_at >= PROBE_S)

    def note_grant(self, job_key: str, holder: str, level: int, now: float) -> None:
        """A batch is going to be sent."""
        if self.level is not None and level >= self.level:
            self.probe, self.probe_holder, self.probe_level, self.probe_at = job_key, holder, level, now

    def note_refusal(self, holder: str, level: int, now: float, not_before: float) -> None:
        """:param not_before: the patience of the shard that was refused."""
        self.drop_probe(holder)
        self.level = level if self.level is None else min(self.level, level)
        if now >= self.until:  # several that were sent together are one failure
            self.wait_s = min(max(not_before - now, 2 * self.wait_s), MAX_WAIT_S)
            self.until = now + self.wait_s

    def note_admission(self, job_key: str) -> None:
        """A batch was admitted; if it was the one that tried, the wall is further away than it was."""
        if self.probe_at is not None and job_key and job_key == self.probe:
            self.level, self.until, self.wait_s = self.probe_level + 1, 0.0, 0.0
            self.drop_probe(self.probe_holder)

    def drop_probe(self, holder: str) -> None:
        """It was refused, or was not sent after all."""
        if holder == self.probe_holder:
            self.probe, self.probe_holder, self.probe_at = "", "", None
