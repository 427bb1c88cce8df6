"""How many requests through flex are in the air at once: learnt, since nobody says what flex has room for.

A call may take minutes, so that few at once would take hours; and too many at once are refused.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

FLEX_MOST = 50
"""As many as the largest accounts have in the air in real time."""


class Width:
    """Grows by one with each answer, which doubles it from round to round; after the first refusal by one a round.

    :param start: at once, at first.
    :param most: never more.
    """

    def __init__(self, start: int, most: int) -> None:
        self.most = most
        self._width = float(min(start, most))
        self._in_air = 0
        self._was_refused = False
        self._changed = asyncio.Condition()

    @property
    def width(self) -> int:
        """Requests that may be in the air now."""
        return int(self._width)

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold one of the places; wait until one is free."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._in_air < self.width)
            self._in_air += 1
        try:
            yield
        finally:
            self._in_air -= 1
            async with self._changed:
                self._changed.notify_all()

    def grow(self) -> None:
        """One was answered."""
        self._width = min(float(self.most), self._width + (1 / self._width if self._was_refused else 1))

    def shrink(self) -> None:
        """There was no room."""
        self._was_refused = True
        self._width = max(1.0, self._width / 2)
