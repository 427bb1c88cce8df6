"""Text in the payload of a point: at a key, in pieces or whole, and where it is when the key is another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.wording import number_of, shorten

if TYPE_CHECKING:
    from qdrant_client import models

    from airflow_openai_batch.recipes.qdrant.qdrant_points import Points

_LOOKED_AT = 16
"""Points whose keys are named in an error."""
_MOST_KEYS = 20
_DEEPEST_KEY = 3


def read_field(payload: Mapping[str, Any], name: str) -> str | None:
    """Text at a key of the payload, ``a.b`` looks into an object; None where there is none. Pieces are joined by lines:
    texts, or segments as programs that transcribe write them (``[{"start": 0.0, "speaker": "A", "text": "..."}]``),
    with who speaks before each.
    """
    found: Any = payload
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return _read_text(found)


def check_text_field(points: Points, where: models.Filter | None, name: str, matching: int) -> None:
    """A wrong key would look as if there were nothing to do.

    :param matching: points that ``where`` lets through, at least one.
    :raises ConfigError: if none of them has anything at the key, or what is there is no text.
    """
    from qdrant_client import models

    absent = models.IsEmptyCondition(is_empty=models.PayloadField(key=name))
    having = models.Filter(must=where, must_not=[absent])
    if not points.count(having):
        problem = f"none of the {number_of(matching, 'point')} that match has anything there"
    else:
        first = next(points.read_pages([name], having, points=_LOOKED_AT), [])
        if any(_may_be_text(point.payload, name) for point in first):
            return
        problem = "what is there is no text, nor a list of texts or of segments with a text"
    looked_at = next(points.read_pages(None, where, points=_LOOKED_AT), [])
    raise ConfigError(
        f"text_field={shorten(name)!r}: {problem}. {_name_keys(point.payload for point in looked_at)}"
    )


def _read_text(found: Any) -> str | None:
    if isinstance(found, list):
        found = "\n".join(filter(None, map(_read_piece, found)))
    return found if isinstance(found, str) and found.strip() else None


def _read_piece(piece: Any) -> str:
    """Empty where it has no text."""
    said, speaker = (piece.get("text"), piece.get("speaker")) if isinstance(piece, Mapping) else (piece, None)
    text = said.strip() if isinstance(said, str) else ""
    return f"{speaker.strip()}: {text}" if text and isinstance(speaker, str) and speaker.strip() else text


def _may_be_text(payload: Mapping[str, Any], name: str) -> bool:
    """Also where it is empty: a transcript may be."""
    found: Any = payload
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return isinstance(found, str) or _read_text(found) is not None


def _name_keys(payloads: Iterable[Mapping[str, Any]]) -> str:
    found: dict[str, bool] = {}
    for payload in payloads:
        for name, has_text in _walk(payload):
            found[name] = found.get(name, False) or has_text
    with_text = [name for name, has_text in found.items() if has_text]
    if with_text:
        return f"Keys with a text there: {_list(with_text)}. Name one of them in text_field."
    others = f" Keys there: {_list(list(found))}." if found else ""
    return f"No key there has a text.{others} Name another collection, or other filters."


def _walk(payload: Mapping[str, Any], above: str = "", depth: int = 1) -> Iterator[tuple[str, bool]]:
    """Keys as a form takes them, and whether there is text."""
    for key, value in payload.items():
        if not key.isprintable() or "." in key:
            continue
        name = f"{above}{key}"
        if isinstance(value, Mapping) and depth < _DEEPEST_KEY:
            yield from _walk(value, f"{name}.", depth + 1)
        else:
            yield name, _read_text(value) is not None


def _list(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_KEYS:,} more" if len(names) > _MOST_KEYS else ""
    return ", ".join(shorten(name) for name in names[:_MOST_KEYS]) + more
