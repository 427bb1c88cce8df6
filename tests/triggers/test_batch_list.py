"""Watched batches are found with as few calls as the list allows, wherever they lie."""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import pytest

from airflow_openai_batch.errors import NotFoundError
from airflow_openai_batch.openai_api.batch import LIST_PAGE, BatchPage, BatchView, read_has_more
from airflow_openai_batch.triggers.batch_list import BatchList
from triggers.account import create_batches

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer


class EmulatedSource:
    """The emulator without the way to it."""

    def __init__(self, server: OpenAIServer) -> None:
        self._server = server
        self.pages = self.gets = 0

    async def fetch(self, batch_id: str) -> BatchView:
        from airflow_openai_batch.testing.refusals import ApiError

        self.gets += 1
        try:
            return BatchView.from_dict(self._call("get_batch", batch_id))
        except ApiError:
            raise NotFoundError("404") from None

    async def list_page(self, after: str | None) -> BatchPage:
        from airflow_openai_batch.testing.refusals import ApiError

        self.pages += 1
        try:
            page = self._call("list_batches", after=after, limit=LIST_PAGE)
        except ApiError:
            raise NotFoundError("404") from None
        return BatchPage([BatchView.from_dict(batch) for batch in page["data"]], read_has_more(page))

    async def cancel(self, batch_id: str) -> None:
        raise AssertionError

    async def close(self) -> None: ...

    def _call(self, name: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        with self._server.lock:
            found: dict[str, Any] = getattr(self._server.emulator, name)(*args, **kwargs)
        return found

    @property
    def calls(self) -> int:
        return self.pages + self.gets


@pytest.fixture
def source(openai_server: OpenAIServer) -> EmulatedSource:
    return EmulatedSource(openai_server)


async def look(known: BatchList, source: EmulatedSource, wanted: Collection[str], **options: Any) -> int:
    """Calls of one cycle that has to see all that is wanted."""
    before = source.calls
    seen = {view.id async for page in known.look(source, wanted, **options) for view in page}
    assert set(wanted) <= seen
    return source.calls - before


async def test_a_thousand_batches_with_those_of_strangers_between_cost_twelve_calls(
    openai_server: OpenAIServer, source: EmulatedSource
) -> None:
    openai_server.configure(creates_per_hour=10_000)
    blocks: list[str] = []
    for _ in range(4):
        blocks += create_batches(openai_server, 250)
        create_batches(openai_server, 150)  # of strangers, the last ones newer than all that is watched
    known = BatchList()
    first = await look(known, source, blocks)
    assert first == 16  # through the whole list, once: where they lie has to be found out
    create_batches(openai_server, 100)
    for _ in range(3):
        assert await look(known, source, blocks) <= 12
    assert source.gets == 0


async def test_no_more_calls_than_gets_wherever_they_lie(
    openai_server: OpenAIServer, source: EmulatedSource
) -> None:
    every = create_batches(openai_server, 1000)
    draw = random.Random(7)
    for count in (1, 2, 7, 60, 500):
        wanted = draw.sample(every, count)
        known = BatchList()
        await look(known, source, wanted)
        least, shown_to = 0, -1
        for place in sorted(999 - every.index(each) for each in wanted):  # pages laid end to end where needed
            if place > shown_to:
                least, shown_to = least + 1, place + LIST_PAGE - 1
        again = await look(known, source, wanted)
        assert again <= max(least, 1)
        assert again <= count


async def test_one_batch_costs_one_page_also_when_hundreds_are_newer(
    openai_server: OpenAIServer, source: EmulatedSource
) -> None:
    (mine,) = create_batches(openai_server, 1)
    known = BatchList()
    assert await look(known, source, [mine]) == 1
    create_batches(openai_server, 250)
    costs = [await look(known, source, [mine]) for _ in range(5)]
    assert sum(costs) <= 5 + 4  # at the top there is nothing before it to begin from: it is found anew, once
    assert costs[-2:] == [1, 1]


async def test_a_batch_far_down_is_fetched_alone_and_not_looked_for_all_the_time(
    openai_server: OpenAIServer, source: EmulatedSource
) -> None:
    (mine,) = create_batches(openai_server, 1)
    create_batches(openai_server, 600)
    known = BatchList()
    for _ in range(32):
        await look(known, source, [mine])
    assert source.gets == 32
    assert source.pages <= 6 * 5  # after 1, 2, 4, 8, 16 cycles again


async def test_batches_that_a_list_does_not_show_yet_are_fetched(
    openai_server: OpenAIServer, source: EmulatedSource
) -> None:
    openai_server.configure(list_lag_s=3600)
    mine = create_batches(openai_server, 3)
    known = BatchList()
    assert await look(known, source, mine) == 1 + 3
    openai_server.clock.advance(3600)
    costs = [await look(known, source, mine) for _ in range(4)]
    assert costs[-1] == 1


async def test_an_unknown_batch_is_not_shown_and_keeps_no_other_from_being_seen(
    openai_server: OpenAIServer, source: EmulatedSource
) -> None:
    (mine,) = create_batches(openai_server, 1)
    pages = [page async for page in BatchList().look(source, {mine, "batch_nowhere"})]
    assert {view.id for page in pages for view in page} == {mine}


async def test_in_another_project_the_old_places_mean_nothing(
    openai_server: OpenAIServer, source: EmulatedSource
) -> None:
    old = create_batches(openai_server, 250)
    known = BatchList()
    await look(known, source, old)
    openai_server.reset()
    mine = create_batches(openai_server, 2)
    assert await look(known, source, mine, hoped=old) <= 3


async def test_what_is_not_kept_is_forgotten(openai_server: OpenAIServer, source: EmulatedSource) -> None:
    mine = create_batches(openai_server, 300)
    known = BatchList()
    await look(known, source, mine)
    known.keep_only({mine[0]})
    assert len(known) == 1
