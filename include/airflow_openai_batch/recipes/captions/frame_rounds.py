"""Which frames are to be asked about, of which model, at which server, in which way; and what was answered so far.

::

    <video>/<model>/<way>/round-001/   rows.jsonl, prepared/, job/, answers.jsonl; a round for each run that asked
    <video>/<model>/<way>/connection   of a model that is asked at another server than the run's

Releases up to 0.2 had one round, in ``<video>/<model>/<way>`` itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_openai_batch.access.givers import find_giver_of
from airflow_openai_batch.access.locations import open_place
from airflow_openai_batch.operators.split import make_path_safe
from airflow_openai_batch.recipes.captions.video_frames import read_frames
from airflow_openai_batch.recipes.cds.rounds import (
    ANSWERS,
    JOB,
    find_first_round,
    list_rounds,
    open_round,
    read_answers,
)
from airflow_openai_batch.recipes.json_rows import Row, read_rows
from airflow_openai_batch.tables.join.answer_reader import UNFINISHED
from airflow_openai_batch.wording import number_of

if TYPE_CHECKING:
    from airflow_openai_batch.storage.location import Location
    from airflow_openai_batch.tables.prompts import PromptSpec

WAYS = ("realtime", "batch")
_FORMER_ANSWERS = ("captions.jsonl", ANSWERS)
_CONNECTION = "connection"

log = logging.getLogger(__name__)


class AskedModel(NamedTuple):
    """A model of the form.

    :param slot: its name there: ``model_1``.
    :param conn_id: of a server of its own; "" for that of the run.
    """

    slot: str
    model: str
    conn_id: str
    ways: tuple[str, ...]


def read_models(params: Mapping[str, Any], slots: Sequence[str]) -> list[AskedModel]:
    """Those that are filled in, each once for a server.

    :param params: of the run: for each slot ``<slot>``, ``<slot>_conn_id`` and ``<slot>_mode``, the latter two empty
        for ``conn_id`` and ``mode``.
    """
    found: dict[tuple[str, str], AskedModel] = {}
    for slot in slots:
        model = str(params[slot] or "").strip()
        conn_id = str(params[f"{slot}_conn_id"] or "").strip()
        conn_id = "" if conn_id == params["conn_id"] else conn_id
        mode = params[f"{slot}_mode"] or params["mode"]
        if model:
            ways = WAYS if mode == "both" else (str(mode),)
            found.setdefault((model, conn_id), AskedModel(slot, model, conn_id, ways))
    return list(found.values())


def open_rounds(
    video_uri: str,
    models: Sequence[AskedModel],
    *,
    most: int | None,
    repair: bool = False,
    restart_of: str | None = None,
    read_prompt_of: Callable[[str], PromptSpec] | None = None,
) -> dict[str, str]:
    """Begin a round for each model and way that has frames that were not asked about yet, or go on with one.

    :param video_uri: the directory that `extract_frames` returned.
    :param most: so many frames at most, from the first.
    :param repair: about those alone that were asked about and have no good caption.
    :param restart_of: the id of a run that asks about all of them anew.
    :param read_prompt_of: the prompt for a model. Without it, it is not looked whether it is the one of before.
    :raises InputChangedError: if frames were asked about with another prompt.
    :returns: the round's directory by ``<slot>_<way>``.
    """
    video = open_place(video_uri.rstrip("/"), "output", find_giver_of(video_uri))
    rounds = {}
    for each in models:
        name = f"{each.model}-at-{each.conn_id}" if each.conn_id else each.model
        folder = video.child(make_path_safe(name))
        for way in each.ways:
            if each.conn_id:
                folder.child(f"{way}/{_CONNECTION}").write_bytes(each.conn_id.encode())
            rows = read_frames(video, most)
            if not repair and restart_of is None:
                done = _find_done(folder.child(way))
                rows = (row for row in rows if row["frame"] not in done)
            place, asked = open_round(
                folder.child(way),
                rows,
                lambda row: str(row["frame"]),
                before=_read_former(folder.child(way)),
                only_failed=repair,
                restart_of=restart_of,
                prompt=None if read_prompt_of is None else read_prompt_of(each.model),
            )
            log.info("%s, %s: %s to be asked about.", name, way, number_of(asked, "frame"))
            if place is not None:
                rounds[f"{each.slot}_{way}"] = place.uri
    return rounds


def read_captioned(folder: Location) -> dict[int, Row]:
    """By frame the last answer, or the last good one. Holds them in memory, some 300 bytes each."""
    found: dict[int, Row] = {}
    for rows in (_read_former(folder), read_answers(folder)):
        for row in rows:
            if row["answer_status"] == "ok" or found.get(row["frame"], {}).get("answer_status") != "ok":
                kept = ("answer", "answer_status", "answer_error")
                found[row["frame"]] = {name: row.get(name) for name in kept}
    return found


def _find_done(folder: Location) -> frozenset[int]:
    """Frames that were asked about to the end, whatever came of it."""
    found = read_captioned(folder)
    return frozenset(frame for frame, row in found.items() if row["answer_status"] != UNFINISHED)


def list_jobs(folder: Location) -> list[Location]:
    """The job directories of a model and a way, of the rounds that count."""
    former = [] if find_first_round(folder) else [folder]
    return [each.child(JOB) for each in (*former, *list_rounds(folder))]


def find_captioned(video: Location) -> Iterator[tuple[str, str, Location]]:
    """Model, way and folder of whatever has answers."""
    video.fs.invalidate_cache()
    depth = len(video.path.rstrip("/").split("/"))
    names = (*_FORMER_ANSWERS, f"round-*/{ANSWERS}")
    paths = [path for name in names for path in video.fs.glob(f"{video.path}/*/*/{name}")]
    found = {tuple(path.split("/")[depth : depth + 2]) for path in paths}
    for model in sorted({model for model, _ in found}):
        for way in WAYS:
            if (model, way) in found:
                yield model, way, video.child(f"{model}/{way}")


def name_model(folder: Location, name: str, model: str | None) -> str:
    """The model as people know it, with the connection where it has one of its own.

    :param name: of the folder above ``folder``.
    :param model: as the job says.
    """
    note = folder.child(_CONNECTION)
    shown = model or name
    return f"{shown} at {note.read_bytes().decode()}" if note.exists() else shown


def _read_former(folder: Location) -> Iterator[Row]:
    if find_first_round(folder):
        return
    for name in _FORMER_ANSWERS:
        if folder.child(name).exists():
            yield from read_rows(folder.child(name), made_by="join")
