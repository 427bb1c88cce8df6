"""What templates may do: Jinja2 in a sandbox in which rows are nothing but data.

A key of a row comes before a method of that name, a column before a function of that name; a method can be called and
not printed; and what is printed has one form, whatever Python makes of it.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
import operator
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import jinja2
import jinja2.sandbox
from jinja2.exceptions import SecurityError, UndefinedError

from airflow_openai_batch.tables.plain_values import NoPlainFormError, to_plain
from airflow_openai_batch.wording import shorten

MOST_REPEATED = 1_000_000
"""Characters or items that ``*`` may make of a text or a list in a template."""
GLOBALS = ("range", "namespace", "dict")

_PRINTED = (str, int, float, Decimal, dt.date, dt.time, dt.timedelta, jinja2.Undefined)
_TEXT_FILTERS = (
    "capitalize", "center", "e", "escape", "filesizeformat", "float", "forceescape", "format", "indent", "int",
    "lower", "replace", "safe", "string", "striptags", "title", "trim", "truncate", "upper", "urlencode", "urlize",
    "wordcount", "wordwrap",
)  # fmt: skip
"""Those that make a text of what they get, by themselves."""


class Unprintable(jinja2.StrictUndefined):
    """What stands where a value is missing, or has no form: an error for whoever prints it."""

    __slots__ = ()


class Empty(Unprintable):
    """An empty cell. It is false, and equals none; whoever prints it or walks over it learns that it is empty."""

    __slots__ = ()

    def __bool__(self) -> bool:  # type: ignore[override]
        return False

    def __eq__(self, other: object) -> bool:  # type: ignore[override]
        return other is None or isinstance(other, Empty)

    def __ne__(self, other: object) -> bool:  # type: ignore[override]
        return not self == other

    __hash__ = None  # type: ignore[assignment]


class _Method(Unprintable):
    """A method or function: there for whoever calls it, missing for whoever prints it."""

    __slots__ = ("bound",)

    def __init__(self, name: str, bound: Callable[..., Any]) -> None:
        super().__init__(hint=f"{shorten(name)!r} is a method, which has to be called, and no key of the row")
        self.bound = bound


def empty_cell(name: str) -> Empty:
    return Empty(hint=f"column {shorten(name)!r} is empty")


class Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """Whoever may type a prompt into a form is held to what a prompt needs."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def getattr(self, obj: Any, attribute: str) -> Any:
        return self._look_up(obj, attribute, super().getattr)

    def getitem(self, obj: Any, argument: Any) -> Any:
        return self._look_up(obj, argument, super().getitem)

    def _look_up(self, obj: Any, name: Any, otherwise: Callable[[Any, Any], Any]) -> Any:
        is_data = isinstance(obj, dict)
        value = obj[name] if is_data and _has_key(obj, name) else otherwise(obj, name)
        if value is None and (is_data or isinstance(obj, list)):
            return Empty(hint=f"{shorten(str(name))!r} is empty")
        is_method = callable(value) and not isinstance(value, jinja2.Undefined)
        return _Method(str(name), value) if is_method else value

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(__obj, _Method):
            return super().call(__context, __obj, *args, **kwargs)
        if getattr(__obj.bound, "__name__", "") in ("format", "format_map"):
            args, kwargs = (
                tuple(map(to_printable, args)),
                {name: to_printable(v) for name, v in kwargs.items()},
            )
        found = super().call(__context, __obj.bound, *args, **kwargs)
        return Empty(hint="what a method gave is empty") if found is None else found

    def call_binop(self, context: Any, operator_name: str, left: Any, right: Any) -> Any:
        numbers = (int, float)
        if operator_name == "**":
            if not (isinstance(left, numbers) and isinstance(right, numbers) and abs(right) <= 64):
                raise SecurityError("** is for numbers up to the power of 64")
            return left**right
        if operator_name == "%":
            if isinstance(left, str):
                right = tuple(map(to_printable, right)) if isinstance(right, tuple) else to_printable(right)
            return operator.mod(left, right)
        sized, times = (left, right) if hasattr(left, "__len__") else (right, left)
        if hasattr(sized, "__len__") and isinstance(times, int) and len(sized) * times > MOST_REPEATED:
            raise SecurityError(f"* makes more than {MOST_REPEATED:,} items")
        return operator.mul(left, right)


def _has_key(found: Mapping[Any, Any], name: Any) -> bool:
    try:
        return name in found or name in getattr(found, "_known", ())
    except TypeError:  # a slice, or another list
        return False


def to_printable(value: Any) -> Any:
    """What Jinja2 may make a text of by itself: lists and objects as JSON, nothing for None.

    :raises UndefinedError: for whatever is no value of a row: methods, generators, Jinja2's own objects.
    """
    if type(value) is str:
        return value
    if value is None:
        return ""
    if isinstance(value, dict | list | tuple):
        return to_json(value)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, _PRINTED):
        return value
    raise UndefinedError(
        f"a {type(value).__name__} is no value that can be printed (a list can, after | list)"
    )


def to_json(value: Any) -> str:
    """JSON; of what JSON does not know, the text that is printed for it.

    :raises UndefinedError: as `to_printable`.
    """
    return _encode_json(None if isinstance(value, Empty) else value)


def _to_json_value(value: Any) -> Any:
    return None if isinstance(value, Empty) else str(to_printable(value))


_encode_json = json.JSONEncoder(ensure_ascii=False, default=_to_json_value).encode


@jinja2.pass_context
def _finalize(context: Any, value: Any) -> Any:
    """With a context, so that Jinja2 works nothing out while it compiles: templates run where a limit holds."""
    return value if type(value) is str else to_printable(value)


def _of_text(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that gets texts and numbers alone."""
    first = 1 if hasattr(function, "jinja_pass_arg") else 0

    @functools.wraps(function)
    def filtered(*args: Any, **kwargs: Any) -> Any:
        known = args[: first + 1]
        rest = [value if value is None else to_printable(value) for value in args[first + 1 :]]
        return function(*known[:-1], to_printable(known[-1]), *rest, **kwargs)

    return filtered


def _join(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def joined(context: Any, value: Any, d: str = "", attribute: Any = None) -> Any:
        if attribute is None:
            value = map(to_printable, value)
        return function(context, value, d, attribute)

    return joined


def make_environment() -> Sandbox:
    # A prompt is no HTML: nothing is escaped. Without the optimizer no filter runs before a row is there.
    environment = Sandbox(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        optimized=False,
        finalize=_finalize,
    )
    functions: Any = environment.globals
    environment.globals = {name: _Method(name, functions[name]) for name in GLOBALS}
    for name in _TEXT_FILTERS:
        environment.filters[name] = _of_text(environment.filters[name])
    environment.filters["join"] = _join(environment.filters["join"])
    environment.filters["tojson"] = to_json
    environment.tests["none"] = lambda value: value is None or isinstance(value, Empty)
    return environment


_SEEN_AS_THEY_ARE = frozenset({str, int, bool})


def to_cell(name: str, value: Any) -> Any:
    """A cell as templates see it: NaN is empty, bytes are text where they are UTF-8."""
    if type(value) in _SEEN_AS_THEY_ARE:
        return value
    found = _to_seen(name, value)
    return empty_cell(name) if found is None else found


def to_cells(values: Mapping[str, Any]) -> dict[str, Any]:
    """A whole row as templates see it; None for what is empty."""
    return {
        name: value if type(value) in _SEEN_AS_THEY_ARE else _to_seen(name, value)
        for name, value in values.items()
    }


def _to_seen(name: str, value: Any) -> Any:
    if type(value) is list and _SEEN_AS_THEY_ARE.issuperset(map(type, value)):
        return value
    if isinstance(value, float | Decimal):
        return None if value != value else value  # NaN is not itself
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return Unprintable(hint=f"column {shorten(name)!r} is binary and no text in UTF-8")
    if isinstance(value, dict):
        return {str(key): _to_seen(name, item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_seen(name, item) for item in value]
    if isinstance(value, str | int | dt.date | dt.time | dt.timedelta | None):
        return value
    try:
        return _to_seen(name, to_plain(value))
    except NoPlainFormError as error:
        return Unprintable(hint=f"column {shorten(name)!r} {error}")
