"""The answers of a server, read as what was asked for: batches, lists and files, in the form that it has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_openai_batch.errors import TransientError
from airflow_openai_batch.openai_api.batch import BatchPage, BatchView, read_has_more
from airflow_openai_batch.openai_api.server_objects import (
    FileView,
    OddAnswerError,
    explain_odd,
    make_answer_error,
    read_object,
    read_page,
)

if TYPE_CHECKING:
    from airflow_openai_batch.openai_api.servers.profile import ServerProfile

T = TypeVar("T")


def read_view(batch: Any, server: ServerProfile) -> BatchView:
    return BatchView.from_dict(
        server.read_batch(batch), expires=server.expires_batches, may_have_twin=server.repeats_calls
    )


def read_batch(answer: Any, doing: str, server: ServerProfile) -> BatchView:
    return read_shown(answer, doing, "the batch", lambda found: read_view(found, server))


def read_batches(answer: Any, doing: str, server: ServerProfile) -> BatchPage:
    def read(page: dict[str, Any]) -> BatchPage:
        batches = [read_view(batch, server) for batch in read_page(page)]
        if server.has_pages:
            return BatchPage(batches, read_has_more(page))
        # Whoever walks through a list ends at the first that is too old.
        return BatchPage(sorted(batches, key=lambda batch: batch.created_at, reverse=True), has_more=False)

    return read_shown(answer, doing, "the list", read, bare_list=server.bare_lists)


def read_files(page: dict[str, Any], server: ServerProfile) -> tuple[list[tuple[str, str]], bool | None]:
    files = [FileView.from_dict(server.read_file(file)) for file in read_page(page)]
    return [(file.id, file.filename) for file in files], read_has_more(page)


def read_shown(
    answer: Any, doing: str, what: str, read: Callable[[dict[str, Any]], T], *, bare_list: bool = False
) -> T:
    """What a server shows, which may be asked for again.

    :raises TransientError: if it is not what was asked for; whoever waits goes on waiting.
    """
    try:
        return read(read_content(answer, doing, bare_list=bare_list))
    except OddAnswerError as error:
        raise TransientError(explain_odd(doing, what, error)) from None


def read_made(answer: Any, doing: str, what: str, read: Callable[[dict[str, Any]], T]) -> T:
    """What a server has made. To ask again would make another one, so what cannot be read ends the task.

    :raises AnswerError: if it is not what was asked for.
    :raises TransientError: if something else than the server has answered.
    """
    try:
        return read(read_content(answer, doing))
    except OddAnswerError as error:
        raise make_answer_error(doing, what, error) from None


def read_content(answer: Any, doing: str, *, bare_list: bool = False) -> dict[str, Any]:
    kind = answer.headers.get("content-type") or ""
    return read_object(answer.content, doing, content_type=kind, bare_list=bare_list)
