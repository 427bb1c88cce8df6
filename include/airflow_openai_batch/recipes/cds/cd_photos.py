"""Which photographs there are, and which of them are to be read."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_openai_batch.access.givers import find_giver_of
from airflow_openai_batch.access.locations import open_place
from airflow_openai_batch.errors import EmptyInputError
from airflow_openai_batch.recipes.cds.rounds import open_round
from airflow_openai_batch.recipes.json_rows import Row, read_rows, write_rows
from airflow_openai_batch.tables.preparation.pictures import describe_reading
from airflow_openai_batch.tables.reading.read_objects import list_objects
from airflow_openai_batch.wording import name_some, number_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_openai_batch.storage.location import Location
    from airflow_openai_batch.storage.sources import SourceFile
    from airflow_openai_batch.tables.prompts import PromptSpec

COVERS = "covers"
PHOTOS = "photos.jsonl"
"""What lay below the prefix when it was last listed."""
_ENDINGS = (
    *(".png", ".jpg", ".jpeg", ".webp", ".gif"),
    *(".heic", ".heif", ".tif", ".tiff", ".avif", ".bmp", ".jp2"),  # converted, where that is installed
)

log = logging.getLogger(__name__)


def list_photos(
    photos_uri: str,
    output: Location,
    prompt: PromptSpec | None = None,
    *,
    only_failed: bool = False,
    restart_of: str | None = None,
) -> str | None:
    """Begin a round with the photographs that have no good answer yet, new and changed ones among them.

    One that was rejected is among them as soon as something else decides what is rejected: the images of the prompt,
    or which formats can be decoded here.

    :param prompt: that reads them; without it what was rejected once stays so.
    :param only_failed: new ones wait.
    :param restart_of: the id of a run that asks about all of them anew.
    :returns: the round's directory; None where there is nothing to ask.
    :raises EmptyInputError: if there is no photograph below ``photos_uri``.
    :raises InputChangedError: if photographs were read with another prompt.
    """
    prefix = open_place(photos_uri.rstrip("/"), "input", find_giver_of(photos_uri, "photos_uri"))
    objects = list_objects(prefix)
    found = [each for each in objects if each.uri.lower().endswith(_ENDINGS)]
    if not found:
        raise EmptyInputError(f"{photos_uri}: has no photograph ({', '.join(_ENDINGS)}) below it.")
    root = prefix.uri.rstrip("/") + "/"
    _tell_of_others(objects, root)
    reading = None if prompt is None else describe_reading(prompt.images)
    listed = ("photo_uri", "photo_version")
    write_rows(
        output.child(PHOTOS),
        ({name: row[name] for name in listed} | {"below": root} for row in _make_rows(found, root, reading)),
    )
    place, asked = open_round(
        output.child(COVERS),
        _make_rows(found, root, reading),
        _photo_key,
        is_final=lambda row: reading is None or row.get("photo_reading") == reading,
        only_failed=only_failed,
        restart_of=restart_of,
        prompt=prompt,
    )
    log.info("%s of %s to be read.", f"{asked:,}", number_of(len(found), "photograph"))
    return None if place is None else place.uri


class PresentPhotos:
    """Whether photographs were there when they were last listed. Holds their URIs and versions in memory."""

    def __init__(self, output: Location) -> None:
        self._present: dict[str, str | None] = {}
        self._root: str | None = None
        """None where nothing was listed since the release that notes it."""
        if output.child(PHOTOS).exists():
            for row in read_rows(output.child(PHOTOS), made_by="list_photos"):
                self._present[row["photo_uri"]] = row.get("photo_version")  # earlier releases noted none
                self._root = row["below"]

    def is_gone(self, photo_uri: str) -> bool:
        """Of photographs elsewhere, read before another prefix was listed, it is not known."""
        is_below = self._root is not None and photo_uri.startswith(self._root)
        return is_below and photo_uri not in self._present

    def is_of_present(self, answer: Row) -> bool:
        """Whether an answer is to the photograph that was last listed, not to one that lay there before."""
        return self._present.get(answer["photo_uri"]) == answer.get("photo_version")


def _make_rows(found: Iterable[SourceFile], root: str, reading: str | None) -> Iterable[Row]:
    for each in found:
        yield {
            "photo": each.uri[len(root) :],
            "photo_uri": each.uri,
            "photo_version": f"{each.size}-{each.etag}",
            "photo_reading": reading,
        }


def _photo_key(row: Row) -> str:
    return f"{row['photo_uri']}\n{row['photo_version']}"


def _tell_of_others(objects: Iterable[SourceFile], root: str) -> None:
    others = [each.uri[len(root) :] for each in objects if not each.uri.lower().endswith(_ENDINGS)]
    if others:
        log.warning(
            "%s left out, since %s: %s. Names of photographs end in %s.",
            number_of(len(others), "file"),
            "its name is none of a photograph" if len(others) == 1 else "their names are none of photographs",
            name_some(others),
            ", ".join(_ENDINGS),
        )
