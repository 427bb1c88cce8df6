"""Looks at results that are in doubt: how many, how far apart, and the doubt that a batch itself shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_openai_batch.errors import UnprovenError
from airflow_openai_batch.openai_api.results_check import (
    ERRORS_UNPROVEN,
    RESULT_FILE_GONE,
    RESULTS_UNPROVEN,
    VIDEOS_UNFINISHED,
)

if TYPE_CHECKING:
    from airflow_openai_batch.job.shard_state import Ended


LOOK_WAITS_S = (30.0, 60.0, 120.0, 240.0, 300.0)
"""Between the looks at results that are in doubt; the last one lasts for all that follow."""


MOST_LOOKS = {RESULTS_UNPROVEN: 6, ERRORS_UNPROVEN: 6, RESULT_FILE_GONE: 15, VIDEOS_UNFINISHED: 30}
"""By doubt: looks after which it is given up, in 12 minutes; in an hour for a file that may only be late, in
two and a quarter for videos that are being made."""


def check_named(ended: Ended) -> None:
    """Whether a batch that is over names the files that its counts promise.

    :raises UnprovenError: if not.
    """
    if ended.batch_id is None or ended.gone:
        return
    finished = ended.completed + ended.failed
    named = bool(ended.output_file_id or ended.error_file_id)
    if (ended.completed and not ended.output_file_id) or (ended.status == "completed" and not named):
        raise UnprovenError(
            f"{ended.batch_id} is {ended.status}, {ended.completed:,} of {max(finished, ended.total):,} requests "
            "have answers by its counts, and it names no output file",
            code=RESULTS_UNPROVEN,
        )


def count_looks(code: str) -> int:
    """Looks at results in this doubt, all in all."""
    return MOST_LOOKS.get(code, MOST_LOOKS[RESULTS_UNPROVEN])


def wait_before(looks: int) -> float:
    """Seconds between the last of so many looks and the next."""
    return LOOK_WAITS_S[max(1, min(looks, len(LOOK_WAITS_S))) - 1]
