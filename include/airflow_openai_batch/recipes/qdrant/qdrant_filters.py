"""Which points: conditions that a person types into a form, as a Qdrant filter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_openai_batch.errors import ConfigError

if TYPE_CHECKING:
    from qdrant_client import models

_CLAUSES = frozenset({"must", "should", "must_not", "min_should"})
_BOUNDS = frozenset({"gt", "gte", "lt", "lte"})


def make_filter(conditions: Mapping[str, Any]) -> models.Filter | None:
    """A filter, or None where there are no conditions.

    :param conditions: by key of the payload (``a.b`` looks into objects), all of which must hold: a value, a list of
        which one must be there, bounds (``{"gte": 5, "lt": 10}``, numbers or times as text), or null for a key that is
        not there. Or a filter in Qdrant's own form, with ``must``, ``should``, ``must_not``.
    :raises ConfigError: for what is no condition.
    """
    from qdrant_client import models

    if not conditions:
        return None
    if conditions.keys() <= _CLAUSES:
        return _read_own_form(conditions)
    return models.Filter(must=[_read_condition(key, value) for key, value in conditions.items()])


def leave_out(where: models.Filter | None, *unwanted: list[Any]) -> models.Filter:
    """Those that match ``where`` but not all conditions of one of ``unwanted``."""
    from qdrant_client import models

    return models.Filter(must=where, must_not=[models.Filter(must=each) for each in unwanted])


def _read_own_form(conditions: Mapping[str, Any]) -> models.Filter:
    import pydantic
    from qdrant_client import models

    try:
        return models.Filter.model_validate(dict(conditions))
    except pydantic.ValidationError as error:
        places = sorted({".".join(map(str, each["loc"][:3])) for each in error.errors()})
        raise ConfigError(
            f"filters: is no Qdrant filter (look at {', '.join(places[:3])}). The simple form is "
            '{"language": "en", "minutes": {"gte": 5}}.'
        ) from None


def _read_condition(key: str, value: Any) -> Any:
    from qdrant_client import models

    if value is None:
        return models.IsEmptyCondition(is_empty=models.PayloadField(key=key))
    if isinstance(value, Mapping):
        return models.FieldCondition(key=key, range=_read_range(key, value))
    if isinstance(value, list):
        if not value or not (_all_are(value, str) or _all_are(value, int)):
            raise ConfigError(f"filters.{key}: a list must hold texts only or whole numbers only.")
        return models.FieldCondition(key=key, match=models.MatchAny(any=value))
    if isinstance(value, float):
        return models.FieldCondition(key=key, range=models.Range(gte=value, lte=value))
    if isinstance(value, (str, int)):
        return models.FieldCondition(key=key, match=models.MatchValue(value=value))
    raise ConfigError(f'filters.{key}: must be a value, a list, bounds such as {{"gte": 5}}, or null.')


def _read_range(key: str, bounds: Mapping[str, Any]) -> Any:
    import pydantic
    from qdrant_client import models

    if not bounds or not bounds.keys() <= _BOUNDS:
        raise ConfigError(f"filters.{key}: bounds are {', '.join(sorted(_BOUNDS))}.")
    try:
        if _all_are(list(bounds.values()), str):
            return models.DatetimeRange(**bounds)
        return models.Range(**bounds)
    except pydantic.ValidationError:
        raise ConfigError(f"filters.{key}: bounds must be numbers, or times such as 2026-01-31.") from None


def _all_are(values: list[Any], kind: type) -> bool:
    return all(isinstance(value, kind) and not isinstance(value, bool) for value in values)
