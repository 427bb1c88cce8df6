"""Real time against a real server: each request one line, none asked twice, never faster than allowed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openai
import pytest

from airflow_openai_batch.errors import FatalAccountError, InputChangedError, JobError
from airflow_openai_batch.job.request_line import RequestLine
from airflow_openai_batch.openai_api.rate_limits import RealtimeLimits
from airflow_openai_batch.results.outcome import OutcomeRules
from airflow_openai_batch.results.raw_index import RawAnswers, SendFiles
from airflow_openai_batch.results.reconcile import settle_requests
from airflow_openai_batch.sending.realtime.segments import Segments
from airflow_openai_batch.sending.realtime.send import send_realtime
from airflow_openai_batch.sending.realtime.slots import RealtimeBusyError, take_slot
from airflow_openai_batch.storage.location import Location
from fixtures.realtime import ENDPOINT, KEY, make_requests, open_segments, read_lines, send, statuses

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.object_store import ObjectStore

POST = f"POST {ENDPOINT}"
ROOT = Path(__file__).resolve().parents[2]


def input_lines(requests: list[RequestLine]) -> list[bytes]:
    return [request.line for request in requests]


def test_every_request_gets_a_line_that_landing_reads_like_a_batchs(
    openai_server: OpenAIServer, tmp_path: Path
) -> None:
    requests = make_requests(250)
    done = send(openai_server.base_url, tmp_path, requests)
    assert (done.answered, done.failed, done.kept) == (250, 0, 0)
    places = open_segments(tmp_path).places()
    assert done.segments == len(places) >= 3
    with RawAnswers([SendFiles(send=2, sent_as="realtime", files=places)]) as raw:
        settled = list(settle_requests(requests, raw, endpoint=ENDPOINT, rules=OutcomeRules()))
        assert raw.strays == 0
    assert {row.chosen.outcome.status for row in settled if row.chosen} == {"ok"}
    assert [row.duplicates for row in settled] == [0] * 250
    assert all(row.chosen and row.chosen.outcome.request_id for row in settled)


def test_answers_go_to_an_object_store(openai_server: OpenAIServer, s3: ObjectStore) -> None:
    segments = Segments(Location(s3.filesystem(), f"{s3.bucket}/job", s3.uri("job")), shard=0, send=1)
    for requests, kept in ((120, 0), (150, 120)):
        done = send_realtime(
            make_requests(requests),
            open_client=lambda: openai.AsyncOpenAI(base_url=openai_server.base_url, api_key=KEY),
            endpoint=ENDPOINT,
            segments=segments,
            limits=RealtimeLimits(),
        )
        assert (done.answered, done.kept) == (requests - kept, kept)
    assert len(set(segments.read_answered())) == openai_server.books.billed["realtime"] == 150


def test_the_body_goes_out_as_it_stands_in_the_line(openai_server: OpenAIServer, tmp_path: Path) -> None:
    seen: list[bytes] = []
    body = (
        '{"model": "gpt-4o-mini", "seed": 9007199254740993, "temperature": 0.10,\t"top_p":1.0, '
        '"messages": [{"role": "user", "content": "caf\\u00e9 \u2028"}]}'
    )
    line = f'{{"custom_id": "x", "method": "POST", "url": "{ENDPOINT}", "body": {body}}}'.encode()

    async def look(request: Any) -> None:
        seen.append(request.content)

    client = openai.AsyncOpenAI(
        base_url=openai_server.base_url,
        api_key=KEY,
        http_client=openai.DefaultAsyncHttpxClient(event_hooks={"request": [look]}),
    )
    send_realtime(
        [RequestLine(0, "in.jsonl", 1, line)],
        open_client=lambda: client,
        endpoint=ENDPOINT,
        segments=open_segments(tmp_path),
        limits=RealtimeLimits(),
    )
    assert seen == [body.encode()]
    assert client.is_closed()


def test_a_second_run_asks_only_for_what_has_no_line(openai_server: OpenAIServer, tmp_path: Path) -> None:
    requests = make_requests(40)
    rule = openai_server.script(http=POST, status=401, code="invalid_api_key", times=None, skip=17)
    with pytest.raises(FatalAccountError):
        send(openai_server.base_url, tmp_path, requests)
    assert len(read_lines(tmp_path)) == 17
    openai_server.unscript(rule)
    done = send(openai_server.base_url, tmp_path, requests)
    assert (done.answered, done.kept) == (23, 17)
    assert len(read_lines(tmp_path)) == 40
    assert not list(openai_server.books.paid_twice(input_lines(requests)))
    assert send(openai_server.base_url, tmp_path, requests).answered == 0


def test_an_error_in_the_input_loses_no_answer(openai_server: OpenAIServer, tmp_path: Path) -> None:
    openai_server.configure(realtime_latency_s=0.05)

    def broken() -> Iterator[RequestLine]:
        yield from make_requests(23)
        raise InputChangedError("in.jsonl: changed")

    with pytest.raises(InputChangedError):
        send(openai_server.base_url, tmp_path, broken())
    assert len(read_lines(tmp_path)) == openai_server.books.billed["realtime"] == 23


def test_an_interrupt_saves_what_was_answered(openai_server: OpenAIServer, tmp_path: Path) -> None:
    """As Airflow's time-outs do: a signal whose handler raises on the main thread."""
    openai_server.configure(realtime_latency_s=0.02)

    class TimeoutSignalError(BaseException):
        pass

    def strike(*_: object) -> None:
        raise TimeoutSignalError

    def watch() -> None:
        while openai_server.books.billed["realtime"] < 30:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGALRM)

    before = signal.signal(signal.SIGALRM, strike)
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with pytest.raises(TimeoutSignalError):
            send(openai_server.base_url, tmp_path, make_requests(2_000))
    finally:
        watcher.join()
        signal.signal(signal.SIGALRM, before)
    time.sleep(0.1)  # what the server was still answering is in its books then
    written = len(read_lines(tmp_path))
    assert written >= 25
    assert openai_server.books.billed["realtime"] - written <= 5  # what was in the air


def wait_until_still(server: OpenAIServer) -> int:
    """What the server was paid for once it has answered what a killed sender left in the air."""
    paid, since = server.books.billed["realtime"], time.monotonic()
    while time.monotonic() - since < 0.5:
        time.sleep(0.02)
        if server.books.billed["realtime"] != paid:
            paid, since = server.books.billed["realtime"], time.monotonic()
    return paid


@pytest.mark.long
def test_a_kill_loses_at_most_one_flush_and_what_is_in_the_air(
    openai_server: OpenAIServer, tmp_path: Path
) -> None:
    openai_server.configure(realtime_latency_s=0.005)
    requests = make_requests(400)
    command = [sys.executable, "-m", "fixtures.realtime", openai_server.base_url, str(tmp_path), "400"]
    path = f"{ROOT / 'include'}{os.pathsep}{ROOT / 'tests'}"
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}) as process:
        while openai_server.books.billed["realtime"] < 160 and process.poll() is None:
            time.sleep(0.01)
        process.kill()
    paid = wait_until_still(openai_server)
    lost = paid - len(read_lines(tmp_path))
    assert 0 <= lost <= 100 + 5 + 5  # a segment, what was read meanwhile, what was in the air
    assert paid > lost
    done = send(openai_server.base_url, tmp_path, requests)
    assert done.kept == paid - lost
    assert len(read_lines(tmp_path)) == 400
    assert openai_server.books.billed["realtime"] == 400 + lost


def test_answers_are_written_while_the_send_waits(
    openai_server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three answers are no reason to write, but their age is: here while the server says stop."""
    monkeypatch.setattr("airflow_openai_batch.sending.realtime.segments.FLUSH_S", 0.1)
    openai_server.script(http=POST, status=429, retry_after_s=1, times=1, skip=3)
    seen: list[int] = []

    async def look(_: Any) -> None:
        seen.append(len(open_segments(tmp_path).places()))

    hooks = {"request": [look]}
    send_realtime(
        make_requests(5),
        open_client=lambda: openai.AsyncOpenAI(
            base_url=openai_server.base_url,
            api_key=KEY,
            http_client=openai.DefaultAsyncHttpxClient(event_hooks=hooks),
        ),
        endpoint=ENDPOINT,
        segments=open_segments(tmp_path),
        limits=RealtimeLimits(concurrency=1),
    )
    assert seen[3] == 0
    assert seen[4] == 1


def test_a_send_ends_when_its_time_is_over_and_the_next_goes_on(
    openai_server: OpenAIServer, tmp_path: Path
) -> None:
    openai_server.configure(realtime_latency_s=0.2)
    requests = make_requests(20)
    first = send(openai_server.base_url, tmp_path, requests, budget_s=0.5)
    assert not first.finished
    assert 0 < first.answered == len(read_lines(tmp_path)) == openai_server.books.billed["realtime"] < 20
    second = send(openai_server.base_url, tmp_path, requests, budget_s=60)
    assert (second.finished, second.kept, second.answered) == (True, first.answered, 20 - first.answered)
    assert openai_server.books.billed["realtime"] == 20


def test_a_fatal_answer_that_comes_after_the_time_counts(openai_server: OpenAIServer, tmp_path: Path) -> None:
    openai_server.script(http=POST, status=401, code="invalid_api_key", delay_s=0.6, times=None)
    with pytest.raises(FatalAccountError):
        send(openai_server.base_url, tmp_path, make_requests(20), budget_s=0.3)


def test_a_send_shows_life_also_while_it_waits(
    openai_server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_openai_batch.sending.realtime.send.ALIVE_S", 0.3)
    openai_server.script(http=POST, status=429, retry_after_s=2, times=1)
    lives: list[float] = []
    send(openai_server.base_url, tmp_path, make_requests(1), on_alive=lambda: lives.append(time.monotonic()))
    assert len(lives) >= 2


def test_a_send_that_may_not_go_on_ends(
    openai_server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_openai_batch.sending.realtime.send.ALIVE_S", 0.3)
    openai_server.configure(realtime_latency_s=0.1)

    def stop() -> None:
        raise JobError("another run took over")

    with pytest.raises(JobError, match="took over"):
        send(openai_server.base_url, tmp_path, make_requests(500), on_alive=stop)
    assert 0 < len(read_lines(tmp_path)) == openai_server.books.billed["realtime"] < 500


def test_no_more_are_in_the_air_than_allowed(openai_server: OpenAIServer, tmp_path: Path) -> None:
    openai_server.configure(realtime_latency_s=0.03)
    now = most = 0

    async def went(_: Any) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)

    async def came(_: Any) -> None:
        nonlocal now
        now -= 1

    hooks = {"request": [went], "response": [came]}
    send_realtime(
        make_requests(60),
        open_client=lambda: openai.AsyncOpenAI(
            base_url=openai_server.base_url,
            api_key=KEY,
            http_client=openai.DefaultAsyncHttpxClient(event_hooks=hooks),
        ),
        endpoint=ENDPOINT,
        segments=open_segments(tmp_path),
        limits=RealtimeLimits(concurrency=7),
    )
    assert most == 7


def test_requests_are_pulled_as_places_become_free(openai_server: OpenAIServer, tmp_path: Path) -> None:
    openai_server.configure(realtime_latency_s=0.01)
    ahead: list[int] = []

    def watched() -> Iterator[RequestLine]:
        for number, request in enumerate(make_requests(80)):
            ahead.append(number - openai_server.books.billed["realtime"])
            yield request

    send(openai_server.base_url, tmp_path, watched(), concurrency=4)
    assert max(ahead) <= 4


@pytest.mark.parametrize(("kind", "per_minute"), [("requests", 600), ("tokens", 6_000)])
def test_the_servers_headers_slow_down_a_preset_that_is_too_high(
    openai_server: OpenAIServer, tmp_path: Path, kind: str, per_minute: int
) -> None:
    """Ten requests a second, of about ten tokens each; the preset is a hundred times as much."""
    openai_server.configure(**{f"{kind}_per_minute": per_minute}, burst_s=1.0, realtime_latency_s=0.02)
    began = time.monotonic()
    limits = {f"{kind}_per_minute": 100 * per_minute}
    done = send(openai_server.base_url, tmp_path, make_requests(25), **limits)
    assert done.answered == 25
    assert openai_server.books.calls[f"{POST} 429"] == 0
    assert time.monotonic() - began > 1.0


def test_a_chosen_rate_is_not_raised_by_headers(openai_server: OpenAIServer, tmp_path: Path) -> None:
    openai_server.configure(requests_per_minute=60_000)
    began = time.monotonic()
    send(openai_server.base_url, tmp_path, make_requests(12), requests_per_minute=600, chosen=True)
    assert time.monotonic() - began > 0.8


def test_a_third_send_of_the_account_does_not_start(openai_server: OpenAIServer, tmp_path: Path) -> None:
    base_url = f"{openai_server.base_url}/"
    with take_slot(base_url, KEY), take_slot(base_url, KEY):
        with pytest.raises(RealtimeBusyError, match="2 real-time sends") as caught:
            send(openai_server.base_url, tmp_path, make_requests(3))
        assert caught.value.retry_after_s == 10
        assert KEY not in str(caught.value)
        assert openai_server.books.calls.total() == 0
    with take_slot(base_url, KEY):
        assert send(openai_server.base_url, tmp_path, make_requests(3)).answered == 3


def test_nothing_is_sent_where_a_segment_was_cut(openai_server: OpenAIServer, tmp_path: Path) -> None:
    requests = make_requests(6)
    send(openai_server.base_url, tmp_path, requests[:3])
    (place,) = open_segments(tmp_path).places()
    Path(place.path).write_bytes(place.read_bytes()[:-20])
    with pytest.raises(JobError, match=r"00000\.2\.output\.0001\.jsonl:3: the line is cut"):
        send(openai_server.base_url, tmp_path, requests)
    assert openai_server.books.billed["realtime"] == 3


def test_answers_of_lone_surrogates_and_odd_requests_come_through(
    openai_server: OpenAIServer, tmp_path: Path
) -> None:
    line = make_requests(1)[0].line.replace(b"text 0.", b"half a pair: \\ud83d")
    assert send(openai_server.base_url, tmp_path, [RequestLine(0, "in.jsonl", 1, line)]).answered == 1
    assert statuses(tmp_path) == {"r-0": 200}
