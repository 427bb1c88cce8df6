"""Lists of servers as they are: short pages, no word of more, a cursor that goes round. Finding comes before paying."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import openai
import pytest

from airflow_openai_batch.errors import ListError
from airflow_openai_batch.openai_api.client import BatchClient
from airflow_openai_batch.openai_api.paging import ListWalk
from fixtures.gate import open_gate
from fixtures.split_input import request_line

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer

CHAT = "/v1/chat/completions"


@pytest.fixture
def client(openai_server: OpenAIServer) -> Iterator[BatchClient]:
    with BatchClient(openai.OpenAI(base_url=openai_server.base_url, api_key="sk-test")) as client:
        yield client


def create(client: BatchClient, count: int) -> list[str]:
    """Oldest first; each batch has its number as its key."""
    file_id = client.upload("lines.jsonl", io.BytesIO(request_line().encode() + b"\n")).id
    return [
        client.create(input_file_id=file_id, endpoint=CHAT, metadata={"job_key": str(n)}).id
        for n in range(count)
    ]


@pytest.mark.openai_server(list_page_most=3)
@pytest.mark.parametrize("has_more", [True, False])
@pytest.mark.parametrize("count", [1, 3, 7])
def test_a_batch_behind_short_pages_is_found(
    openai_server: OpenAIServer, client: BatchClient, has_more: bool, count: int
) -> None:
    openai_server.configure(list_has_more=has_more)
    first = create(client, count)[0]
    assert [batch.id for batch in client.find("0", since=0.0)] == [first]


@pytest.mark.openai_server(list_page_most=3)
def test_an_after_that_does_not_advance_ends_the_search_with_an_error(
    openai_server: OpenAIServer, client: BatchClient
) -> None:
    create(client, 7)
    openai_server.script(http="GET /v1/batches", forget_after=True, times=None)
    with pytest.raises(ListError, match=r"cannot be read to its end .*Nothing was created"):
        client.find("0", since=0.0)
    assert openai_server.books.calls_of("GET /v1/batches") == 2


def test_files_are_listed_as_carefully(openai_server: OpenAIServer, client: BatchClient) -> None:
    create(client, 1)
    openai_server.configure(list_has_more=False)
    assert len(list(client.iter_files("input"))) == 1


@pytest.mark.openai_server(list_has_more=False)
def test_a_server_without_pages_shows_each_batch_once(
    openai_server: OpenAIServer, client: BatchClient
) -> None:
    created = create(client, 3)
    openai_server.script(http="GET /v1/batches", forget_after=True, times=None)
    assert [batch.id for batch in client.iter_batches(0.0)] == created[::-1]


def test_a_full_page_that_repeats_is_no_list_without_pages() -> None:
    walk = ListWalk(what="batches", limit=3)
    assert walk.advance(["c", "b", "a"], None)
    with pytest.raises(ListError, match=re.escape("after a and showed a again")):
        walk.advance(["c", "b", "a"], None)


@pytest.mark.openai_server(list_page_most=3)
def test_a_page_that_is_empty_though_there_is_more_ends_the_search_with_an_error(
    openai_server: OpenAIServer,
) -> None:
    """What a gateway shows of rows that it cannot read any more."""
    with open_gate(openai_server.base_url) as gate:
        sdk = openai.OpenAI(base_url=gate.base_url, api_key="sk-test")
        with BatchClient(sdk) as client:
            create(client, 2)
            gate.answer("GET /v1/batches", 200, {"object": "list", "data": [], "has_more": True})
            with pytest.raises(ListError, match=r"there is more and shows none of it.* Nothing was created"):
                client.find("0", since=0.0)
    walk = ListWalk(what="batches", limit=3)
    assert walk.advance(["c", "b", "a"], True)
    with pytest.raises(ListError, match="there is more after a and shows none"):
        walk.advance([], True)


@pytest.mark.parametrize("size", [7, 3])
@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5, 6], [6, 0, 5, 1, 4, 2, 3], [6, 5, 4, 3, 2, 1, 0]])
def test_a_batch_is_found_in_whatever_order_a_server_lists_them(order: list[int], size: int) -> None:
    """An hour apart, on pages of one size; what is looked for is the newest but one."""
    made = [{"id": f"b{n}", "status": "completed", "created_at": 1_790_000_000 + 3_600 * n} for n in range(7)]
    listed = [{**made[n], "metadata": {"job_key": str(n)}} for n in order]
    pages = [
        {"object": "list", "data": listed[at : at + size], "has_more": at + size < 7}
        for at in range(0, 7, size)
    ]
    with open_gate() as gate, BatchClient(openai.OpenAI(base_url=gate.base_url, api_key="sk-test")) as client:
        gate.answer("GET /v1/batches", 200, lambda _: pages[gate.calls["GET /v1/batches"] - 1])
        found = [batch.id for batch in client.iter_batches(1_790_000_000.0 + 3_600 * 4)]
        assert found == ["b6", "b5", "b4"]
