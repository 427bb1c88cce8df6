"""From page to page of a server's list: where the next one begins, and when there is none.

Servers that speak OpenAI's language cap pages below the limit that was asked for, leave ``has_more`` out, ignore
``after``, or leave out what they cannot read, until a page is empty. What is looked for in a list decides whether
something is paid for, so that a list that was not read to its end must never pass for one that was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from airflow_openai_batch.errors import ListError

MOST_ITEMS = 2_000_000
"""No account has more to look through: a list that goes on is made up as it is asked for."""


@dataclass(slots=True, kw_only=True)
class ListWalk:
    """One walk through one list.

    :param what: what is listed, for the error.
    :param limit: the items a page that were asked for.
    """

    what: str
    limit: int
    after: str | None = None
    """The id after which the next page begins; ``None``: at the top."""
    _seen: set[str] = field(default_factory=set)

    def is_new(self, item_id: str) -> bool:
        """Whether no page before has shown it."""
        return item_id not in self._seen

    def advance(self, ids: Sequence[str], has_more: bool | None) -> bool:
        """Take note of a page; whether there may be another.

        A page of which the server does not say whether it is the last is followed by another, however short it is.

        :param ids: of the page, in its order.
        :param has_more: what the server says; ``None`` where it says nothing.
        :raises ListError: if the server says that there is more and shows nothing, or what it has shown before, or
            more than `MOST_ITEMS`.
        """
        if has_more is False or not (ids or has_more):
            return False
        if not ids:
            where = "" if self.after is None else f" after {self.after}"
            raise self._explain(
                f"the server says that there is more{where} and shows none of it", "why a page of it is empty"
            )
        if ids[-1] in self._seen:
            # A server without pages shows all it has, whatever was asked for: that is less than a page could hold.
            if has_more is None and len(ids) < self.limit and self._seen.issuperset(ids):
                return False
            raise self._explain(
                f"the server was asked for what comes after {self.after} and showed {ids[-1]} again",
                "why lists ignore 'after'",
            )
        self._seen.update(ids)
        self.after = ids[-1]
        if len(self._seen) >= MOST_ITEMS:
            raise self._explain("the server always says that there is more", "its lists have no end")
        return True

    def _explain(self, what: str, why: str) -> ListError:
        return ListError(
            f"listing {self.what}: {what}, so that the list cannot be read to its end ({len(self._seen):,} "
            f"{self.what} were seen). Nothing was created. Ask whoever runs the server, or a proxy before it, {why}; "
            "then clear the task."
        )
