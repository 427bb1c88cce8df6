"""Which transcripts are asked about: what has no tags, and what is to get others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import msgspec

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.recipes.qdrant.qdrant_filters import leave_out
from airflow_openai_batch.recipes.qdrant.tag_marks import FAILED, Fields, Origin

if TYPE_CHECKING:
    from qdrant_client import models

Retag = Literal["version", "changed", "all", "never"]


class TagChoice(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked about besides points without tags."""

    retag: Retag = "version"
    """Points that this DAG has tagged: by an older ``version`` of the prompt, or another prompt; by a prompt that was
    ``changed`` in any way, its model too; ``all`` of them; ``never``. What a newer version has tagged stays."""
    overwrite: bool = False
    """Points with tags or a summary that others wrote, see `find_foreign_keys`."""
    retry_failed: bool = False
    """Points about which the same was asked in vain; they come last."""

    def __post_init__(self) -> None:
        if self.retag not in get_args(Retag):
            raise ConfigError(f"retag={self.retag[:40]!r}: must be one of {', '.join(get_args(Retag))}.")


def choose_points(
    where: models.Filter | None, fields: Fields, origin: Origin, retag: Retag
) -> models.Filter | None:
    """Those that match and are not settled."""
    settled = [[*group, _by_our_keys(fields)] for group in _settled(fields.tagging, origin, retag)]
    return leave_out(where, *settled) if settled else where


def choose_failed(wanted: models.Filter | None, fields: Fields, origin: Origin) -> models.Filter:
    """Of those, the ones with a note that this prompt has failed."""
    from qdrant_client import models

    key = f"{fields.tagging}.{FAILED}.prompt_digest"
    return models.Filter(must=[_match(key, origin.prompt_digest), *([wanted] if wanted else [])])


def _settled(tagging: str, origin: Origin, retag: Retag) -> list[list[Any]]:
    """Groups of conditions; a point is settled where all of a group hold."""
    from qdrant_client import models

    prompt, version = f"{tagging}.prompt", f"{tagging}.prompt_version"
    if retag == "never":
        absent = models.IsEmptyCondition(is_empty=models.PayloadField(key=prompt))
        return [[models.Filter(must_not=[absent])]]
    ours = _match(prompt, origin.prompt)
    number = None if isinstance(origin.prompt_version, str) else origin.prompt_version
    if retag == "version":
        same = (
            _match(version, origin.prompt_version)
            if number is None
            else models.FieldCondition(key=version, range=models.Range(gte=number))
        )
        return [[ours, same]]
    newer = (
        [] if number is None else [[ours, models.FieldCondition(key=version, range=models.Range(gt=number))]]
    )
    if retag == "all":
        return newer
    return [*newer, [_match(f"{tagging}.prompt_digest", origin.prompt_digest)]]


def _by_our_keys(fields: Fields) -> Any:
    """Tags under other keys are none here."""
    from qdrant_client import models

    key = f"{fields.tagging}.keys"
    if fields.are_usual:
        return models.IsEmptyCondition(is_empty=models.PayloadField(key=key))
    return models.Filter(must=[_match(key, name) for name in fields.values])


def _match(key: str, value: Any) -> Any:
    from qdrant_client import models

    return models.FieldCondition(key=key, match=models.MatchValue(value=value))
