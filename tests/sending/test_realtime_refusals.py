"""What real time makes of refusals: whose fault it is decides whether a request gets a line or the send ends."""

from __future__ import annotations

import logging
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_openai_batch.errors import FatalAccountError, TransientError
from airflow_openai_batch.results.outcome import OutcomeRules, read_outcome
from fixtures.realtime import ENDPOINT, KEY, make_requests, open_segments, read_lines, send, statuses

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer

POST = f"POST {ENDPOINT}"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back off for hundredths of seconds."""
    monkeypatch.setattr("airflow_openai_batch.sending.realtime.pacing.BACKOFF_S", 0.02)


def stalls(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if "Rate limit reached" in record.message]


def test_all_workers_wait_while_the_server_says_stop_and_the_log_says_so_once(
    openai_server: OpenAIServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    openai_server.configure(realtime_latency_s=0.2)  # so that all five are in the air
    openai_server.script(http=POST, status=429, retry_after_s=1, times=5)
    began = time.monotonic()
    done = send(openai_server.base_url, tmp_path, make_requests(30), concurrency=5)
    assert time.monotonic() - began > 1.0
    assert (done.answered, done.failed) == (30, 0)
    assert stalls(caplog) == ["Rate limit reached, waiting 1 s."]


def test_after_a_stall_one_request_goes_first(
    openai_server: OpenAIServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Seven refusals: five that were in the air, and then one by one."""
    caplog.set_level(logging.INFO)
    openai_server.configure(realtime_latency_s=0.2)
    openai_server.script(http=POST, status=429, retry_after_s=0.2, times=7)
    done = send(openai_server.base_url, tmp_path, make_requests(20), concurrency=5)
    assert (done.answered, done.failed) == (20, 0)
    assert len(stalls(caplog)) == 3


def test_the_rate_may_be_used_by_others(openai_server: OpenAIServer, tmp_path: Path) -> None:
    """The server has a limit that nobody told us, and no burst: every answer comes in the end."""
    openai_server.configure(requests_per_minute=1_200, burst_s=0.05)
    done = send(
        openai_server.base_url, tmp_path, make_requests(40), concurrency=5, requests_per_minute=60_000
    )
    assert (done.answered, done.failed) == (40, 0)


def test_two_sends_share_a_limit_that_each_takes_for_its_own(
    openai_server: OpenAIServer, tmp_path: Path
) -> None:
    """Twenty a second, of which each would use all: nearly every request is answered within its tries."""
    openai_server.configure(requests_per_minute=1_200, burst_s=0.5, realtime_latency_s=0.02)
    with ThreadPoolExecutor() as pool:
        sends = [
            pool.submit(
                send,
                openai_server.base_url,
                tmp_path / name,
                make_requests(30, user=name),
                requests_per_minute=1_200,
            )
            for name in ("one", "other")
        ]
        done = [future.result() for future in sends]
    assert [send.answered + send.failed for send in done] == [30, 30]
    assert sum(send.failed for send in done) <= 10  # none where the machine is not busy


@pytest.mark.usefixtures("quick")
def test_a_request_that_is_refused_again_and_again_gets_its_line(
    openai_server: OpenAIServer, tmp_path: Path
) -> None:
    openai_server.script(line=500, contains="text 3.", times=None)
    openai_server.script(line=429, contains="text 5.", times=None)
    openai_server.script(line=503, contains="text 7.", times=2)
    openai_server.script(line=400, code="content_policy_violation", contains="text 9.", times=None)
    done = send(openai_server.base_url, tmp_path, make_requests(12))
    assert (done.answered, done.failed) == (9, 3)
    found = statuses(tmp_path)
    assert {custom_id: status for custom_id, status in found.items() if status != 200} == {
        "r-3": 500,
        "r-5": 429,
        "r-9": 400,
    }
    assert (
        openai_server.books.refused["realtime"] == 4 + 4 + 2 + 1
    )  # four tries, but one where trying is no use


@pytest.mark.usefixtures("quick")
def test_refusals_are_judged_by_landing_as_a_batchs(openai_server: OpenAIServer, tmp_path: Path) -> None:
    openai_server.script(line=500, contains="text 0.", times=None)
    openai_server.script(line=400, code="invalid_value", contains="text 1.", times=None)
    send(openai_server.base_url, tmp_path, make_requests(2), max_retries=0)
    (place,) = open_segments(tmp_path).places()
    judged = {}
    for line in place.read_bytes().splitlines():
        outcome = read_outcome(line, ENDPOINT, "text", None, OutcomeRules())
        judged[outcome.status_code] = (outcome.error_code, outcome.retryable, outcome.ran)
    assert judged == {500: ("server_error", True, True), 400: ("invalid_value", False, True)}


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, "invalid_api_key"),
        (403, "unsupported_country_region_territory"),
        (429, "insufficient_quota"),
        (400, "billing_hard_limit_reached"),
    ],
)
def test_an_answer_about_the_account_ends_the_send_and_is_no_line(
    openai_server: OpenAIServer, tmp_path: Path, status: int, code: str
) -> None:
    openai_server.configure(realtime_latency_s=0.02)
    openai_server.script(http=POST, status=status, code=code, times=None, skip=20)
    with pytest.raises(FatalAccountError) as caught:
        send(openai_server.base_url, tmp_path, make_requests(100), concurrency=5)
    assert caught.value.code == code
    assert KEY not in str(caught.value)
    assert "text" not in str(caught.value)
    assert set(statuses(tmp_path).values()) == {200}
    assert len(read_lines(tmp_path)) == openai_server.books.billed["realtime"] == 20
    assert openai_server.books.calls.total() <= 20 + 5  # nothing new after the first


def test_what_is_in_the_air_at_a_fatal_answer_is_taken_in(
    openai_server: OpenAIServer, tmp_path: Path
) -> None:
    """It is paid for: four answers that take a second longer than the refusal."""
    openai_server.script(http=POST, delay_s=1.0, times=4)
    openai_server.script(http=POST, status=401, code="invalid_api_key", times=None)
    with pytest.raises(FatalAccountError):
        send(openai_server.base_url, tmp_path, make_requests(50), concurrency=5)
    assert len(read_lines(tmp_path)) == openai_server.books.billed["realtime"] == 4


@pytest.mark.usefixtures("quick")
def test_a_request_that_takes_too_long_does_not_hold_up_the_others(
    openai_server: OpenAIServer, tmp_path: Path
) -> None:
    openai_server.script(http=POST, delay_s=1.0, times=2)
    requests = make_requests(5)
    done = send(openai_server.base_url, tmp_path, requests, timeout_s=0.3, concurrency=1, max_retries=1)
    assert (done.answered, done.failed) == (4, 1)
    assert statuses(tmp_path)["r-0"] == "request_timeout"
    line = next(line for line in read_raw(tmp_path) if b'"r-0"' in line)
    outcome = read_outcome(line, ENDPOINT, "text", None, OutcomeRules())
    assert (outcome.error_code, outcome.retryable) == ("request_timeout", True)


def read_raw(folder: Path) -> list[bytes]:
    return [line for place in open_segments(folder).places() for line in place.read_bytes().splitlines()]


@pytest.mark.usefixtures("quick")
def test_a_server_that_is_not_there_uses_up_no_attempt(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(TransientError, match="could not be reached"):
        send(f"http://127.0.0.1:{port}/v1", tmp_path, make_requests(8))
    assert read_lines(tmp_path) == {}


@pytest.mark.usefixtures("quick")
def test_a_network_that_goes_away_leaves_what_was_answered(
    openai_server: OpenAIServer, tmp_path: Path
) -> None:
    openai_server.script(http=POST, drop="before", times=None, skip=15)
    with pytest.raises(TransientError):
        send(openai_server.base_url, tmp_path, make_requests(40))
    assert len(read_lines(tmp_path)) == openai_server.books.billed["realtime"] == 15
    openai_server.unscript()
    assert send(openai_server.base_url, tmp_path, make_requests(40)).kept == 15


@pytest.mark.usefixtures("quick")
def test_short_breaks_of_the_network_are_bridged(openai_server: OpenAIServer, tmp_path: Path) -> None:
    openai_server.script(http=POST, drop="before", times=4, skip=3)
    openai_server.script(http=POST, truncate_bytes=20, times=2)
    assert send(openai_server.base_url, tmp_path, make_requests(20)).answered == 20


def test_whoever_is_to_wait_for_an_hour_does_so_elsewhere(
    openai_server: OpenAIServer, tmp_path: Path
) -> None:
    openai_server.script(http=POST, status=429, retry_after_s=3_600, times=None, skip=4)
    with pytest.raises(TransientError, match="asks to wait 3,600 s") as caught:
        send(openai_server.base_url, tmp_path, make_requests(10), concurrency=2)
    assert caught.value.retry_after_s == pytest.approx(3_600, abs=5)
    assert len(read_lines(tmp_path)) == 4


def test_no_server_makes_anybody_wait_without_an_end(openai_server: OpenAIServer, tmp_path: Path) -> None:
    openai_server.script(http=POST, status=429, retry_after_s=float("inf"), times=None, skip=4)
    with pytest.raises(TransientError, match="asks to wait 86,400 s") as caught:
        send(openai_server.base_url, tmp_path, make_requests(10), concurrency=2)
    assert caught.value.retry_after_s == pytest.approx(86_400, abs=5)
    assert len(read_lines(tmp_path)) == 4


def test_headers_that_say_nothing_is_left_are_not_waited_out_in_a_worker(
    openai_server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_openai_batch.sending.realtime.call.STALL_MAX_S", 5.0)
    openai_server.configure(requests_per_minute=2)
    with pytest.raises(TransientError) as caught:
        send(openai_server.base_url, tmp_path, make_requests(4), concurrency=1)
    assert caught.value.retry_after_s == pytest.approx(30, abs=3)
    assert len(read_lines(tmp_path)) == 2
    assert openai_server.books.calls[f"{POST} 429"] == 0


def test_an_address_that_the_server_has_not_ends_the_send(
    openai_server: OpenAIServer, tmp_path: Path
) -> None:
    """It is about no request, and would be the answer to all of them."""
    with pytest.raises(TransientError, match="the server has nothing at"):
        send(f"{openai_server.url}/nowhere", tmp_path, make_requests(1), max_retries=0)
    assert not list(tmp_path.rglob("*.jsonl"))
