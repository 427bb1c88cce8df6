"""How long a send one by one may go on: until a deadline, or until the rest would just be in time another way."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_openai_batch.openai_api.rate_limits import FLEX_ANSWER_S
from airflow_openai_batch.sending.judging import IN_TIME


@dataclass(frozen=True, slots=True)
class TimeLeft:
    """Of one send, from its beginning.

    :param budget_s: nothing new is asked after so many seconds; ``None``: there is no end.
    :param requests: that the send carries.
    :param rest_per_s: requests a second in real time, for which time is kept free; 0: none is.
    """

    budget_s: float | None = None
    requests: int = 0
    rest_per_s: float = 0.0

    def is_over(self, elapsed_s: float, done: int, slowest_s: float = 0.0) -> bool:
        """Whether nothing more is to be asked this way.

        :param done: requests with a line.
        :param slowest_s: what the slowest answer has taken: those on their way are waited for.
        """
        if self.budget_s is None:
            return False
        left_s = self.budget_s - elapsed_s
        if not self.rest_per_s:
            return left_s <= 0
        rest = max(0, self.requests - done)
        return rest > 0 and rest / self.rest_per_s + max(slowest_s, FLEX_ANSWER_S) >= IN_TIME * left_s
