"""Flex against a real server: what it has no room for, how long that is waited for, how much is asked at once."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import openai
import pytest

from airflow_openai_batch.errors import NoCapacityError, NoFlexError
from airflow_openai_batch.openai_api.flex import read_flex_refusal
from airflow_openai_batch.openai_api.prices import has_flex
from airflow_openai_batch.sending.realtime.slots import FLEX_SLOTS, RealtimeBusyError, take_slot
from airflow_openai_batch.sending.realtime.width import Width
from fixtures.realtime import ENDPOINT, KEY, make_requests, read_lines, send, statuses

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer

POST = f"POST {ENDPOINT}"
MODEL = "gpt-6-luna"
FULL = {"http": POST, "status": 429, "code": "resource_unavailable"}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back off for hundredths of seconds, and lose patience after one."""
    monkeypatch.setattr("airflow_openai_batch.sending.realtime.pacing.BACKOFF_S", 0.02)
    monkeypatch.setattr("airflow_openai_batch.sending.realtime.pacing.BACKOFF_MAX_S", 0.05)
    monkeypatch.setattr("airflow_openai_batch.sending.realtime.capacity.FLEX_PATIENCE_S", 1.0)


def make_error(status: int, **body: Any) -> openai.APIStatusError:
    response: Any = SimpleNamespace(request=None, status_code=status, headers={})
    return openai.APIStatusError(body.get("message", "No."), response=response, body=body)


@pytest.mark.parametrize(
    ("status", "body", "refusal"),
    [
        (429, {"code": "resource_unavailable"}, "no_capacity"),
        (429, {"type": "resource_unavailable"}, "no_capacity"),
        (429, {"code": None, "message": "Resource Unavailable"}, "no_capacity"),
        (498, {"code": "capacity_exceeded"}, "no_capacity"),
        (429, {"code": "rate_limit_exceeded", "message": "Rate limit reached for gpt-6-luna"}, None),
        (429, {"code": "slow_down", "type": "rate_limit_error"}, None),
        (429, {"code": "insufficient_quota"}, None),
        (503, {"code": "server_is_overloaded", "type": "service_unavailable_error"}, None),
        (400, {"param": "service_tier", "message": "Invalid service_tier argument"}, "no_flex"),
        (400, {"param": None, "message": "Flex is no service tier of this model."}, "no_flex"),
        (422, {"message": "service_tier: extra fields not permitted"}, "no_flex"),
        (400, {"param": "response_format", "message": "Invalid schema: property service_tier"}, None),
        (400, {"code": "context_length_exceeded"}, None),
        (404, {"code": "model_not_found"}, None),
    ],
)
def test_a_want_of_room_is_told_from_a_rate_limit(
    status: int, body: dict[str, Any], refusal: str | None
) -> None:
    assert read_flex_refusal(make_error(status, **body)) == refusal


def test_prices_say_which_models_have_flex() -> None:
    having = {"gpt-6-luna", "gpt-5-mini", "gpt-5-mini-2025-08-07"}
    without = {"gpt-4o-mini", "gpt-4.1", "text-embedding-3-small", "a-model-of-ours"}
    assert {model for model in having | without if has_flex(model)} == having


def test_what_is_answered_stays_where_flex_is_full_for_long(
    openai_server: OpenAIServer, tmp_path: Path
) -> None:
    openai_server.script(**FULL, skip=3, times=None)
    with pytest.raises(NoCapacityError, match="flex has had no capacity for"):
        send(openai_server.base_url, tmp_path, make_requests(9, model=MODEL), concurrency=1, flex=True)
    assert len(read_lines(tmp_path)) == openai_server.books.billed["flex"] == 3
    openai_server.unscript()
    done = send(openai_server.base_url, tmp_path, make_requests(9, model=MODEL), flex=True)
    assert (done.kept, done.answered) == (3, 6)
    assert all(line["id"].startswith("flex_req_") for line in read_lines(tmp_path).values())


def test_a_rate_limit_uses_up_tries_through_flex_too(openai_server: OpenAIServer, tmp_path: Path) -> None:
    openai_server.script(line=429, contains="text 1.", times=None)
    done = send(openai_server.base_url, tmp_path, make_requests(3, model=MODEL), flex=True)
    assert (done.answered, done.failed) == (2, 1)
    assert statuses(tmp_path)["r-1"] == 429


def test_a_model_without_flex_ends_the_send_and_no_line_says_so(
    openai_server: OpenAIServer, tmp_path: Path
) -> None:
    with pytest.raises(NoFlexError, match="Invalid service_tier argument"):
        send(openai_server.base_url, tmp_path, make_requests(20), concurrency=2, flex=True)
    assert read_lines(tmp_path) == {}
    assert openai_server.books.calls[f"{POST} 400"] <= 2


@pytest.mark.parametrize("falls_back", [True, False])
def test_who_waits_for_an_answer_does_not_wait_for_it_twice(
    openai_server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, falls_back: bool
) -> None:
    monkeypatch.setattr("airflow_openai_batch.sending.realtime.send.FLEX_TIMEOUT_S", 0.3)
    openai_server.script(http=POST, delay_s=1.0, times=None)
    requests = make_requests(1, model=MODEL)
    options = {"flex": True, "falls_back": falls_back, "timeout_s": 0.1, "max_retries": 1}
    if falls_back:
        with pytest.raises(NoCapacityError, match="flex gave no answer within"):
            send(openai_server.base_url, tmp_path, requests, **options)
    else:
        assert send(openai_server.base_url, tmp_path, requests, **options).failed == 1
        assert statuses(tmp_path) == {"r-0": "request_timeout"}


def test_more_is_asked_at_once_as_long_as_there_is_room(openai_server: OpenAIServer, tmp_path: Path) -> None:
    """40 answers of 0.2 s each: eight rounds of five would take 1.6 s, 5 and 10 and 20 take less."""
    openai_server.configure(realtime_latency_s=0.2)
    learnt = send(openai_server.base_url, tmp_path / "learnt", make_requests(40, model=MODEL), flex=True)
    chosen = send(
        openai_server.base_url,
        tmp_path / "chosen",
        make_requests(40, model=MODEL),
        flex=True,
        concurrency=5,
        concurrency_chosen=True,
    )
    assert learnt.seconds < chosen.seconds
    assert chosen.seconds > 1.6


async def test_a_width_doubles_until_it_is_refused_and_then_grows_slowly() -> None:
    width = Width(4, most=50)
    for _ in range(4):
        width.grow()
    assert width.width == 8
    width.shrink()
    assert width.width == 4
    for _ in range(5):
        width.grow()
    assert width.width == 5
    for _ in range(9):
        width.shrink()
    assert width.width == 1
    async with width.place():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(_take(width), 0.05)
    await asyncio.wait_for(_take(width), 1.0)


async def _take(width: Width) -> None:
    async with width.place():
        pass


def test_a_send_through_flex_holds_up_none_in_real_time(openai_server: OpenAIServer) -> None:
    url = openai_server.base_url
    with contextlib.ExitStack() as stack:
        for _ in range(FLEX_SLOTS):
            stack.enter_context(take_slot(url, KEY, flex=True))
        with pytest.raises(RealtimeBusyError, match="8 flex sends"), take_slot(url, KEY, flex=True):
            pass
        with take_slot(url, KEY):
            pass
