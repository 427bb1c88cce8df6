"""Parameters that may have been templates, so that they arrive as text: ``"None"``, ``"True"``, ``"60"``."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from airflow_openai_batch.errors import ConfigError

if TYPE_CHECKING:
    from airflow_openai_batch.sending.policy import Mode

_Choice = TypeVar("_Choice", bound=str)
_UNSET = ("", "none", "null")

DEFAULT_CONN_ID = "openai_default"
"""The provider's `OpenAIHook.default_conn_name`, without importing the hook: that takes a second, and not every
process that parses a DAG talks to OpenAI."""


def read_number(name: str, value: Any, *, minimum: float, maximum: float = math.inf, unit: str = "") -> float:
    """:raises ConfigError: if it is no number, too small or too large."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError):
        raise ConfigError(f"{name}={value!r}: must be a number{unit and f' of {unit}'}.") from None
    if not number >= minimum:
        raise ConfigError(f"{name}={value!r}: must be at least {minimum:g}.")
    if number > maximum:
        raise ConfigError(f"{name}={value!r}: must be at most {maximum:g}.")
    return number


def read_fraction(name: str, value: Any) -> float:
    """A part of the rows; with a percentage taken for one, no run would ever be red.

    :raises ConfigError: if it is not within 0 and 1.
    """
    try:
        return read_number(name, value, minimum=0.0, maximum=1.0)
    except ConfigError as error:
        raise ConfigError(f"{error} It is a part of the rows: 0.05 is five in a hundred.") from None


def read_optional_int(name: str, value: Any, *, minimum: int | None = None) -> int | None:
    """``None`` where it is unset.

    :raises ConfigError: if it is no whole number or too small.
    """
    if value is None or str(value).strip().lower() in _UNSET:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not number.is_integer():
        raise ConfigError(f"{name}={value!r}: must be a whole number; leave it empty for the default.")
    if minimum is not None and number < minimum:
        raise ConfigError(f"{name}={value!r}: must be at least {minimum}; leave it empty for the default.")
    return int(number)


def read_int(name: str, value: Any, *, minimum: int) -> int:
    """:raises ConfigError: if it is no whole number or too small."""
    number = read_number(name, value, minimum=minimum)
    if not number.is_integer():
        raise ConfigError(f"{name}={value!r}: must be a whole number.")
    return int(number)


def read_optional_number(name: str, value: Any, *, minimum: float, unit: str) -> float | None:
    """``None`` where it is unset.

    :raises ConfigError: if it is no number or too small.
    """
    if value is None or str(value).strip().lower() in _UNSET:
        return None
    return read_number(name, value, minimum=minimum, unit=unit)


def read_mode(value: Any) -> Mode:
    """``auto``, ``batch``, ``flex`` or ``realtime``; where it is unset, what USE_BATCH_PROCESSING says (auto, true,
    false).

    :raises ConfigError: for anything else.
    """
    if value is not None and str(value).strip().lower() not in _UNSET:
        return read_choice("mode", value, ("auto", "batch", "flex", "realtime"))
    setting = os.environ.get("USE_BATCH_PROCESSING", "auto").strip().lower()
    modes: dict[str, Mode] = {"": "auto", "auto": "auto", "true": "batch", "false": "realtime"}
    if setting in modes:
        return modes[setting]
    raise ConfigError(f"USE_BATCH_PROCESSING={setting!r} in the environment: must be auto, true or false.")


def read_text(name: str, value: Any, *, several: bool = False) -> Any:
    """A text, also where a native template made a number of it; ``None`` where it is unset.

    :param several: a list of texts is as well.
    :raises ConfigError: if it is neither.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return str(value)
    if several and isinstance(value, Sequence) and not isinstance(value, bytes):
        return [read_text(name, item) for item in value]
    if isinstance(value, PurePath):
        return str(value)
    wanted = "a text or a list of texts" if several else "a text"
    raise ConfigError(f"{name} is a {type(value).__name__}: must be {wanted}.")


def read_flag(name: str, value: Any) -> bool:
    """:raises ConfigError: if it is neither true nor false."""
    text = str(value).strip().lower()
    if text in ("true", "false"):
        return text == "true"
    raise ConfigError(f"{name}={value!r}: must be true or false.")


def read_choice(name: str, value: Any, choices: tuple[_Choice, ...]) -> _Choice:
    """:raises ConfigError: if it is none of the choices."""
    for choice in choices:
        if value == choice:
            return choice
    raise ConfigError(f"{name}={value!r}: must be one of {', '.join(choices)}.")


def read_list(name: str, value: Any) -> list[str]:
    """A list of texts, or one text, or either as JSON, which is what a template makes of them (``| tojson``).

    :raises ConfigError: if it is none of these.
    """
    if isinstance(value, str) and value.lstrip().startswith(("[", '"')):
        try:
            value = msgspec.json.decode(value)
        except msgspec.DecodeError:
            raise ConfigError(f"{name}={value!r}: looks like a JSON list but is none.") from None
    items = [value] if isinstance(value, str) else list(value or ())
    if not all(isinstance(item, str) for item in items):
        raise ConfigError(f"{name}={value!r}: must be a text or a list of texts.")
    return items
