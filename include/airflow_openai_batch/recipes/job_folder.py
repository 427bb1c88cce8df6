"""The directory of a run: what the tasks of a recipe hand to each other lies there, not in XCom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from airflow.sdk import get_current_context

from airflow_openai_batch.access.givers import find_giver_of
from airflow_openai_batch.access.locations import open_place
from airflow_openai_batch.errors import ConfigError, JobError
from airflow_openai_batch.operators.task.run_place import place_of_run

if TYPE_CHECKING:
    from airflow_openai_batch.storage.location import Location

_Note = TypeVar("_Note", bound=msgspec.Struct)


def open_folder(output_uri: str, run_id: str) -> Location:
    """The directory that a form names; ``{run_id}`` stands for the run id, as for the operators.

    :raises ConfigError: if it is empty or may not be written.
    """
    pattern = output_uri.strip().rstrip("/")
    if not pattern:
        raise ConfigError("output_uri is empty: name a directory for the run.")
    giver = find_giver_of(output_uri, "output_uri")
    return open_place(place_of_run(pattern, get_current_context()["ti"], giver), "output", giver)


def read_note(place: Location, kind: type[_Note]) -> _Note | None:
    """What a task noted when it was done; None if it was not.

    :raises JobError: if it is something else.
    """
    place.fs.invalidate_cache()
    try:
        return msgspec.json.decode(place.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise JobError(f"{place.uri}: is none of ours ({error}). Choose another output_uri.") from None


def write_note(place: Location, note: Any) -> None:
    """Written last, so that it says that what it describes is complete."""
    place.write_bytes(msgspec.json.format(msgspec.json.encode(note), indent=2))
