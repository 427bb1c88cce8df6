"""When what arrived of a result file is believed."""

from __future__ import annotations

import pytest

from airflow_openai_batch.errors import DownloadError
from airflow_openai_batch.openai_api.results_check import Received, ResultCheck

WHOLE = Received(bytes=300, lines=3)
CUT = Received(bytes=200, lines=2)


def test_what_nothing_speaks_for_has_to_arrive_twice_alike() -> None:
    check = ResultCheck(name="file-1", twice=True)
    for received in (CUT, WHOLE):
        with pytest.raises(DownloadError, match="has to arrive twice alike"):
            check.judge(received)
    check.judge(WHOLE)


@pytest.mark.parametrize("known", [{"told_bytes": 300}, {"lines_at_least": 3}])
def test_what_bytes_or_counts_speak_for_is_believed_at_once(known: dict[str, int]) -> None:
    ResultCheck(name="file-1", twice=True, **known).judge(WHOLE)
    with pytest.raises(DownloadError, match=r"200 bytes arrived|2 lines arrived"):
        ResultCheck(name="file-1", twice=True, **known).judge(CUT)
