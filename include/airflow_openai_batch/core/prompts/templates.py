"""The templates of a prompt, filled in from rows: Jinja2 in a sandbox, where a missing value is an error."""

from __future__ import annotations

import difflib
import json
import operator
from collections.abc import Iterable, Mapping
from typing import Any

import jinja2
import jinja2.meta
import jinja2.sandbox
from jinja2.exceptions import SecurityError

from airflow_openai_batch.core.errors import ConfigError
from airflow_openai_batch.core.requests import shorten

ROW_NUMBER = "_row"
WHOLE_ROW = "row"
MOST_REPEATED = 1_000_000
"""Characters or items that ``*`` may make of a text or a list in a template."""


class BadRowError(Exception):
    """This row cannot be asked about. The message says why and never quotes its content."""


class UnknownColumnError(ConfigError):
    """A template needs a column that the table does not have."""


class _Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """Whoever may type a prompt into a form is held to what a prompt needs."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Any, operator_name: str, left: Any, right: Any) -> Any:
        numbers = (int, float)
        if operator_name == "**":
            if not (isinstance(left, numbers) and isinstance(right, numbers) and abs(right) <= 64):
                raise SecurityError("** is for numbers up to the power of 64")
            return left**right
        sized, times = (left, right) if hasattr(left, "__len__") else (right, left)
        if hasattr(sized, "__len__") and isinstance(times, int) and len(sized) * times > MOST_REPEATED:
            raise SecurityError(f"* makes more than {MOST_REPEATED:,} items")
        return operator.mul(left, right)


def _make_environment() -> _Sandbox:
    # A prompt is no HTML: nothing is escaped.
    environment = _Sandbox(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.globals = {name: environment.globals[name] for name in ("range", "namespace", "dict")}
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False, default=str)
    return environment


_environment = _make_environment()


class _WholeRow(dict[str, Any]):
    """``row``: an empty cell is missing where it is asked for by name, and None to whoever walks over all."""

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        return _empty_cell(name) if value is None else value


def _empty_cell(name: str) -> jinja2.StrictUndefined:
    return jinja2.StrictUndefined(hint=f"column {shorten(name)!r} is empty")


class Template:
    """One template of a prompt.

    :param field: of the prompt, for messages.
    :raises ConfigError: if it is no template.
    """

    def __init__(self, field: str, text: str) -> None:
        self.field = field
        try:
            tree = _environment.parse(text)
            self._template = _environment.from_string(text)
        except jinja2.TemplateSyntaxError as error:
            raise ConfigError(
                f"{field}: no valid template in line {error.lineno}: {error.message}. A column whose name has blanks "
                "or signs in it is written {{ row['Its name'] }}."
            ) from None
        self.names = frozenset(jinja2.meta.find_undeclared_variables(tree)) - set(_environment.globals)
        self._constant = None if self._has_code(tree) else self._template.render()

    @staticmethod
    def _has_code(tree: jinja2.nodes.Template) -> bool:
        return any(
            not (
                isinstance(node, jinja2.nodes.Output)
                and all(isinstance(n, jinja2.nodes.TemplateData) for n in node.nodes)
            )
            for node in tree.body
        )

    def fill(self, context: RowContext) -> str:
        """:raises BadRowError: if the row lacks what it needs.
        :raises ConfigError: if no row could have it, or the template does what it may not.
        """
        if self._constant is not None:
            return self._constant
        try:
            # `render` would copy the variables beside the globals for every row: half of the time.
            variables = self._template.new_context(context.variables, shared=True)
            return "".join(self._template.root_render_func(variables))
        except jinja2.UndefinedError as error:
            if (unknown := self._find_unknown(context, error.message or "")) is not None:
                raise UnknownColumnError(f"{self.field}: {unknown}") from None
            raise BadRowError(f"{self.field}: {error.message}") from None
        except SecurityError as error:
            raise ConfigError(f"{self.field}: the template may not do that: {error}.") from None
        except Exception as error:  # what a filter makes of a value; its words may quote the value
            raise BadRowError(f"{self.field}: the template failed with {type(error).__name__}") from None

    def _find_unknown(self, context: RowContext, said: str) -> str | None:
        """The name that was missing, if no row can have it; an empty cell says something else."""
        for name in self.names - context.known:
            if said == f"{name!r} is undefined":
                return describe_unknown(name, context.known - {ROW_NUMBER, WHOLE_ROW})
        return None


class RowContext:
    """What templates see of one row.

    :param values: by column; those that the templates name, or all of them.
    """

    __slots__ = ("known", "variables")

    def __init__(self, values: Mapping[str, Any], number: int, known: frozenset[str]) -> None:
        self.known = known
        self.variables: dict[str, Any] = dict(_environment.globals)
        for name, value in values.items():
            self.variables[name] = _empty_cell(name) if value is None else value
        self.variables[WHOLE_ROW] = self.variables.get(WHOLE_ROW, _WholeRow(values))
        self.variables[ROW_NUMBER] = number


def known_names(columns: Iterable[str]) -> frozenset[str]:
    """What a template may name over a table with these columns."""
    return frozenset(columns) | {ROW_NUMBER, WHOLE_ROW}


def describe_unknown(name: str, columns: Iterable[str]) -> str:
    """A sentence on a column that is not there, with the one that was probably meant."""
    columns = sorted(columns)
    close = difflib.get_close_matches(name, columns, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    listed = ", ".join(shorten(column, 40) for column in columns[:20]) or "none"
    more = f" and {len(columns) - 20:,} more" if len(columns) > 20 else ""
    return f"needs the column {name!r}, which the table does not have.{hint} It has: {listed}{more}."
