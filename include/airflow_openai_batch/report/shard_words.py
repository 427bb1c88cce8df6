"""What the last event of a shard's ledger means, in words for people: the command line's, and the six of the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

from airflow_openai_batch.job.shard_state import PASSING_DECLINES, PASSING_REFUSALS

if TYPE_CHECKING:
    from airflow_openai_batch.job.ledger import Event, Kind


class ShardWords(NamedTuple):
    """Where a shard stands."""

    phase: str
    """To whoever watches at a terminal."""
    state: str
    """One of `STATES`."""


STATES = ("waiting", "sending", "running", "landing", "done", "failed")
"""In the order that the page shows them."""
NOT_BEGUN = ShardWords("not begun", "waiting")
DONE = ShardWords("done", "done")
REFUSED, REFUSED_FOR_GOOD = ShardWords("refused", "waiting"), ShardWords("refused", "failed")
"""Only the first passes by itself."""

WORDS: dict[Kind, ShardWords] = {
    "sampled": NOT_BEGUN,
    "uploaded": ShardWords("uploaded", "sending"),
    "intent": ShardWords("being created", "sending"),
    "declined": REFUSED,
    "created": ShardWords("sent as batch", "running"),
    "duplicate": ShardWords("sent as batch", "running"),
    "cancelling": ShardWords("being cancelled", "running"),
    "refused": REFUSED,
    "lost": ShardWords("to be uploaded again", "sending"),
    "realtime": ShardWords("sent in real time", "running"),
    "flex": ShardWords("sent through flex", "running"),
    "crowded": ShardWords("waits for flex capacity", "waiting"),
    "ended": ShardWords("answered", "landing"),
    "doubted": ShardWords("waits for its results", "landing"),
    "landed": ShardWords("landed", "landing"),
    "stopped": ShardWords("made no progress", "failed"),
    "done": DONE,
    "cleaned": DONE,
    "reopened": ShardWords("to be repaired", "waiting"),
}
"""By the kind of the last event, in the order that shards go through."""
_PASSING = {"refused": PASSING_REFUSALS, "declined": PASSING_DECLINES}
PHASES = tuple(dict.fromkeys(words.phase for words in WORDS.values()))


def find_words(last: str, *, is_done: bool, told: Event | None = None) -> ShardWords:
    """What is to be said of a shard.

    :param last: kind of its last event; "": there is none. One that this release does not know says nothing.
    :param is_done: see `ledger.is_done`.
    :param told: the last event, where it was read: whether a refusal passes stands in it.
    """
    if is_done:
        return DONE
    if told is not None and told.status not in _PASSING.get(last, {told.status}):
        return REFUSED_FOR_GOOD
    return WORDS.get(cast("Kind", last), NOT_BEGUN)
