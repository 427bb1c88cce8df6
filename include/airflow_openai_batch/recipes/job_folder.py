"""The directory of a run: what the tasks of a recipe hand to each other lies there, not in XCom."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from airflow_openai_batch.access.givers import find_giver_of
from airflow_openai_batch.access.locations import open_place
from airflow_openai_batch.errors import ConfigError, JobError
from airflow_openai_batch.operators.task.ownership import check_folder, check_owner
from airflow_openai_batch.operators.task.run_place import place_of_run

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_openai_batch.storage.location import Location

log = logging.getLogger(__name__)


OWNER = "owner.json"
MOST_NOTE_BYTES = 64 * 2**20
"""Ours have some thousand, of a folder with very many names some million."""


class _Owner(msgspec.Struct, frozen=True):
    """Of a run's directory."""

    dag_id: str


class FolderReading(msgspec.Struct, frozen=True, kw_only=True):
    """What was read for a run, once: whoever clears the task gets the same. Its file says that those beside it are
    complete."""

    asked: str
    """Digest of the question: a run goes on with its own reading only."""
    restarted_by: str = ""
    """The run that read anew what an earlier one had read into this directory."""


_Note = TypeVar("_Note", bound=msgspec.Struct)
_Reading = TypeVar("_Reading", bound=FolderReading)


def open_folder(context: Context) -> Location:
    """The directory that the form names as ``output_uri``; ``{run_id}`` stands for the run id, as for the operators.

    :raises ConfigError: if it is empty or may not be written.
    """
    output_uri = str(context["params"]["output_uri"])
    pattern = output_uri.strip().rstrip("/")
    if not pattern:
        raise ConfigError("output_uri is empty: name a directory for the run.")
    giver = find_giver_of(output_uri, "output_uri")
    place = open_place(place_of_run(pattern, context["ti"], giver), "output", giver)
    dag_id = context["ti"].dag_id
    check_folder(place, dag_id, giver)
    _claim(place, dag_id)
    return place


def _claim(folder: Location, dag_id: str) -> None:
    """Say whose the files of the run are, which no plan tells, or whose it was said that they are.

    :raises ForeignJobError: if they are another DAG's.
    """
    note = folder.child(OWNER)
    note.create_exclusive(msgspec.json.encode(_Owner(dag_id=dag_id)))
    if (owner := read_note(note, _Owner)) is not None:
        check_owner(owner.dag_id, folder.uri, dag_id)


def find_restart(context: Context) -> str | None:
    """The id of the run where its form asks for everything anew (``on_existing``)."""
    return context["run_id"] if context["params"]["on_existing"] == "restart" else None


def read_note(place: Location, kind: type[_Note]) -> _Note | None:
    """What a task noted when it was done; None if it was not.

    :raises JobError: if it is something else.
    """
    place.fs.invalidate_cache()
    try:
        return msgspec.json.decode(place.read_within(MOST_NOTE_BYTES), type=kind)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise JobError(f"{place.uri}: is none of ours ({error}). Choose another output_uri.") from None


def find_reading(
    place: Location,
    kind: type[_Reading],
    *,
    asked: str,
    restart_of: str | None,
    describe: Callable[[_Reading], str],
    what: str,
) -> _Reading | None:
    """What was read into a directory before; None where it is to be read now.

    :param asked: digest of the question.
    :param restart_of: the id of a run that reads anew, once.
    :param what: differs between two questions, for the message: ``other filters``.
    :raises JobError: if the directory has what another question came to.
    """
    done = read_note(place, kind)
    if done is None or restart_of not in (None, done.restarted_by):
        return None
    if done.asked != asked:
        raise JobError(
            f"{place.uri}: was read with {what}. Choose another output_uri, or set on_existing=restart to read anew."
        )
    log.info("Read before, and used as it is: %s.", describe(done))
    return done


def write_note(place: Location, note: Any) -> None:
    """Written last, so that it says that what it describes is complete."""
    place.write_bytes(msgspec.json.format(msgspec.json.encode(note), indent=2))
