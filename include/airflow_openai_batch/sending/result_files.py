"""A batch's result files on their way into ``raw/``: fetched, checked, and fetched anew where they turn out wrong."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from airflow_openai_batch.errors import DownloadError, NotFoundError, UnprovenError
from airflow_openai_batch.openai_api.results_check import (
    ERRORS_UNPROVEN,
    RESULT_FILE_GONE,
    RESULTS_UNPROVEN,
    ResultCheck,
    measure_file,
)
from airflow_openai_batch.sending.result_looks import check_named

if TYPE_CHECKING:
    from airflow_openai_batch.job.shard_state import Ended
    from airflow_openai_batch.openai_api.client import BatchClient
    from airflow_openai_batch.storage.location import Location

log = logging.getLogger(__name__)


def fetch_results(
    ended: Ended,
    places: Mapping[str, Location],
    client: BatchClient,
    *,
    checked: bool,
    gives_up: Collection[str] = (),
    most_bytes: int | None = None,
) -> tuple[str, ...]:
    """Bring output and error file of a batch to their places; what is there and sound stays.

    :param places: by kind, ``output`` and ``error``.
    :param checked: the batch's answers have landed before: what is there is not measured again.
    :param gives_up: doubts that hold nothing up any more; see `openai_api.results_check`.
    :param most_bytes: of a file; see `BatchClient.download`.
    :return: kinds of which the server has no file (any more) and nothing was there.
    :raises UnprovenError: if there is a doubt that is not given up; its code says which.
    """
    if not checked and RESULTS_UNPROVEN not in gives_up:
        check_named(ended)
    finished = ended.completed + ended.failed
    gone: list[str] = []
    lines = 0
    for kind, file_id in (("output", ended.output_file_id), ("error", ended.error_file_id)):
        least = ended.completed if kind == "output" else ended.failed if gone else max(0, finished - lines)
        if file_id is None or (checked and places[kind].exists()):
            continue
        try:
            lines += _obtain(
                file_id, places[kind], client, 0 if checked else least, ended, kind, gives_up, most_bytes
            )
        except NotFoundError as error:
            if RESULT_FILE_GONE not in gives_up:
                raise UnprovenError(
                    f"{ended.batch_id}, {kind} file: {_sentence(error)}", code=RESULT_FILE_GONE
                ) from None
            gone.append(kind)
    unnamed = not checked and not ended.error_file_id and not gone and "error" not in ended.gone
    if unnamed and ended.failed and lines < finished and ERRORS_UNPROVEN not in gives_up:
        raise UnprovenError(
            f"{ended.batch_id} names no error file, though {ended.failed:,} requests failed by its counts and "
            f"{lines:,} of {finished:,} lines have arrived",
            code=ERRORS_UNPROVEN,
        )
    return tuple(gone)


def _obtain(
    file_id: str,
    place: Location,
    client: BatchClient,
    least: int,
    ended: Ended,
    kind: str,
    gives_up: Collection[str],
    most_bytes: int | None,
) -> int:
    """:return: the lines that the place holds then."""
    code = RESULTS_UNPROVEN if kind == "output" else ERRORS_UNPROVEN
    if place.exists():
        kept = measure_file(place)
        try:
            ResultCheck(name=place.uri, lines_at_least=least).judge(kept)
        except DownloadError as error:
            log.warning("%s is not believed and fetched anew: %s.", place.uri, error)
        else:
            return kept.lines
    try:
        received = client.download(
            file_id, place, lines_at_least=least, believe_all=code in gives_up, most_bytes=most_bytes
        )
    except DownloadError as error:
        raise UnprovenError(f"{ended.batch_id}, {kind} file: {_sentence(error)}", code=code) from None
    log.info("Downloaded %s bytes of %s to %s.", f"{received.bytes:,}", file_id, place.uri)
    return received.lines


def _sentence(error: Exception) -> str:
    """Without its full stop: it becomes part of another one."""
    return str(error).rstrip(".")
