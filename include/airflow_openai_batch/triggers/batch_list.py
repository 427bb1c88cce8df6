"""The account's list of batches, and the cheapest way to look at some of them again.

OpenAI lists 100 batches a page, newest first, from any batch on, and has no filter. Whoever remembers which batch
comes before a watched one can ask for the page that begins with it: what lies between, finished batches and those of
strangers, costs nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Collection, Iterable
from dataclasses import dataclass
from typing import Protocol

from airflow_openai_batch.errors import ListError, NotFoundError, RequestRefusedError
from airflow_openai_batch.openai_api.batch import LIST_PAGE, BatchPage, BatchView
from airflow_openai_batch.openai_api.batch_durations import MOST_LISTED
from airflow_openai_batch.openai_api.paging import ListWalk

DRY_PAGES = 5
"""So many pages without a find are worth it even for one batch: once found, it costs one page a cycle for ever."""
MAX_PAGES = 40
"""Nothing is looked for further down than this without a find, or for batches that nobody waits for."""
MAX_SKIPPED = 64


class BatchSource(Protocol):
    """Who is asked; `async_client.AsyncBatchClient`, named by its form so that nobody has to import it for that."""

    async def fetch(self, batch_id: str) -> BatchView: ...

    async def list_page(self, after: str | None) -> BatchPage: ...

    async def cancel(self, batch_id: str) -> None: ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a batch was seen in the list."""

    order: tuple[float, int]
    """Sorts as the list does: by creation, newest first; those of the same second as last seen."""
    after: str | None
    """The batch before it; ``None`` at the top."""


@dataclass(slots=True)
class _Absence:
    """A batch that pages did not show: it is fetched alone, and looked for again after more and more cycles."""

    skip: int = 0
    left: int = 0

    def note(self) -> None:
        self.skip = min(MAX_SKIPPED, max(1, 2 * self.skip))
        self.left = self.skip


class BatchList:
    """Remembers the places of batches between cycles; 200 bytes each."""

    def __init__(self) -> None:
        self._places: dict[str, _Place] = {}
        self._absences: dict[str, _Absence] = {}
        self._listed = 0

    def __len__(self) -> int:
        """Places that are remembered."""
        return len(self._places)

    def keep_only(self, batch_ids: Collection[str]) -> None:
        """Forget the places of all others."""
        self._places = {each: place for each, place in self._places.items() if each in batch_ids}
        self._absences = {each: absence for each, absence in self._absences.items() if each in batch_ids}

    async def look(
        self,
        source: BatchSource,
        wanted: Collection[str],
        *,
        hoped: Collection[str] = (),
        since: float | None = None,
    ) -> AsyncIterator[list[BatchView]]:
        """What was fetched, call by call, until each wanted batch was in it; those OpenAI does not know are not.

        A page is never dearer than the GETs it saves, except while a new batch is looked for.

        :param hoped: looked for in the list only, where they were seen before.
        :param since: go through everything created after this (Unix seconds of OpenAI's clock), too.
        :raises RemoteError: from the first call that failed; what came before it was given out.
        """
        missing = {*wanted, *hoped}
        new = {each for each in wanted if each not in self._places and self._is_due(each)}
        if new or since is not None:
            async for page in self._walk(source, missing, new, since):
                yield page
        for batch_id in sorted(missing & self._places.keys(), key=lambda each: self._places[each].order):
            if batch_id not in missing or batch_id not in self._places:
                continue
            if page := await self._list_from(source, batch_id):
                missing.difference_update(view.id for view in page)
                yield page
        for batch_id in missing.intersection(wanted):
            with contextlib.suppress(NotFoundError):
                view = await source.fetch(batch_id)
                if batch_id in new:
                    self._absences.setdefault(batch_id, _Absence()).note()
                yield [view]

    def _is_due(self, batch_id: str) -> bool:
        absence = self._absences.get(batch_id)
        if absence is None or not absence.left:
            return True
        absence.left -= 1
        return False

    async def _walk(
        self, source: BatchSource, missing: set[str], new: set[str], since: float | None
    ) -> AsyncIterator[list[BatchView]]:
        """Pages from the top, as long as there may be more that is new."""
        walk = ListWalk(what="batches", limit=LIST_PAGE)
        patience = dry_left = min(max(DRY_PAGES, len(new)), MAX_PAGES)
        pages = 0
        while True:
            after = walk.after
            listed = await source.list_page(after)
            page = listed.batches
            pages += 1
            self._note(page, after)
            found = {view.id for view in page}
            dry_left = patience if found & new else dry_left - 1
            missing -= found
            new_left = new & missing
            yield page
            if not _advance(walk, listed):
                return
            goes_on = since is not None and page[-1].created_at >= since and pages < MAX_PAGES
            if not goes_on and (not new_left or dry_left <= 0):
                return

    async def _list_from(self, source: BatchSource, batch_id: str) -> list[BatchView]:
        """The page that begins with a batch, if it is where it was."""
        after = self._places[batch_id].after
        try:
            page = (await source.list_page(after)).batches
        except (NotFoundError, RequestRefusedError):
            if after is None:
                raise
            # The batch before it is gone, which only happens where the connection leads to another project now.
            self._places.clear()
            return []
        self._note(page, after)
        if all(view.id != batch_id for view in page):
            del self._places[batch_id]
        return page

    def _note(self, page: Iterable[BatchView], after: str | None) -> None:
        for view in page:
            self._listed += 1
            self._places[view.id] = _Place((-view.created_at, self._listed), after)
            self._absences.pop(view.id, None)
            after = view.id


async def list_past(source: BatchSource, since: float) -> AsyncIterator[list[BatchView]]:
    """The newest batches of the account back to a moment (Unix seconds), `MOST_LISTED` at most."""
    walk = ListWalk(what="batches", limit=LIST_PAGE)
    for _ in range(MOST_LISTED // LIST_PAGE):
        listed = await source.list_page(walk.after)
        yield listed.batches
        if not _advance(walk, listed) or listed.batches[-1].created_at < since:
            return


def _advance(walk: ListWalk, page: BatchPage) -> bool:
    """Whether to ask for another page. What a list that goes round in circles does not show is fetched alone."""
    try:
        return walk.advance([view.id for view in page.batches], page.has_more)
    except ListError:
        return False
