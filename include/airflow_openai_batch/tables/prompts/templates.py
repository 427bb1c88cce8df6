"""The templates of a prompt, filled in from rows: Jinja2 in a sandbox, where a missing value is an error."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import jinja2
import jinja2.meta
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.idtracking import VAR_LOAD_RESOLVE
from jinja2.runtime import Context

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.tables.prompts.harmless import BadTemplateError, check_names, is_harmless, is_short
from airflow_openai_batch.tables.prompts.sandbox import (
    GLOBALS,
    empty_cell,
    make_environment,
    to_cell,
    to_cells,
)
from airflow_openai_batch.wording import shorten

if TYPE_CHECKING:
    from jinja2.compiler import Frame

ROW_NUMBER = "_row"
WHOLE_ROW = "row"
MAX_TEMPLATE_CHARS = 1_000_000
"""Of a template with anything to fill in; it is more than most models read."""
MAX_TEXT_BYTES = 50_000_000
"""Of what one template becomes: no request may be longer."""


class BadRowError(Exception):
    """This row cannot be asked about. The message says why and never quotes its content."""


class UnknownColumnError(ConfigError):
    """A template needs a column that the table does not have."""


_environment = make_environment()


class _WholeRow(dict[str, Any]):
    """``row``: an empty cell is missing where it is asked for by name, and None to whoever walks over all."""

    def __init__(self, values: Mapping[str, Any], known: frozenset[str]) -> None:
        super().__init__(to_cells(values))
        self._known = known
        """Columns of the table, of which the row may lack some; the sandbox asks for these, too."""

    def __getitem__(self, name: str) -> Any:
        if name not in self._known:
            return jinja2.StrictUndefined(name=name)  # as for a name without ``row``
        value = super().get(name)
        return empty_cell(name) if value is None else value


class Template:
    """One template of a prompt.

    :param field: of the prompt, for messages.
    :raises ConfigError: if it is no template.
    """

    def __init__(self, field: str, text: str) -> None:
        self.field = field
        try:
            tree = _environment.parse(text)
            has_code = self._has_code(tree)
            if has_code and len(text) > MAX_TEMPLATE_CHARS:
                raise ConfigError(
                    f"{field}: the template has {len(text):,} characters, limit {MAX_TEMPLATE_CHARS:,}. Shorten it."
                )
            check_names(tree)
            self.is_harmless = is_harmless(tree)
            self._is_short = self.is_harmless and is_short(tree)
            _print_operands(tree)
            self._template = _environment.from_string(tree)
        except BadTemplateError as error:
            raise ConfigError(f"{field}: {error}") from None
        except jinja2.TemplateSyntaxError as error:
            raise ConfigError(
                f"{field}: no valid template in line {error.lineno}: {error.message}. A column whose name has blanks "
                "or signs in it is written {{ row['Its name'] }}."
            ) from None
        except (RecursionError, MemoryError):
            raise ConfigError(f"{field}: the template is nested too deeply. Write it flatter.") from None
        self._blank = self._template.new_context({}, shared=True)
        self.names = _find_names(tree)
        self.keys, self.takes_row = _find_keys(tree)
        """What it asks of ``row`` by name, and whether it uses the row in any other way than ``row['Its name']``."""
        self._constant = None if has_code else _text_of(tree)

    @staticmethod
    def _has_code(tree: nodes.Template) -> bool:
        return any(
            not (
                isinstance(node, nodes.Output) and all(isinstance(n, nodes.TemplateData) for n in node.nodes)
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
            return self._collect(self._template.root_render_func(self._make_context(context)))
        except jinja2.UndefinedError as error:
            if (unknown := self._find_unknown(context, error.message or "")) is not None:
                raise UnknownColumnError(f"{self.field}: {unknown}") from None
            raise BadRowError(f"{self.field}: {error.message}") from None
        except SecurityError as error:
            raise ConfigError(f"{self.field}: the template may not do that: {error}.") from None
        except (BadRowError, MemoryError):
            raise
        except Exception as error:  # what a filter makes of a value; its words may quote the value
            raise BadRowError(f"{self.field}: the template failed with {type(error).__name__}") from None

    def _make_context(self, row: RowContext) -> Context:
        """As Jinja2 makes one for each rendering, which takes half of the time: only the variables are new."""
        context = Context.__new__(Context)
        context.__dict__.update(self._blank.__dict__)
        context.parent = row.variables
        context.vars, context.exported_vars = {}, set()
        return context

    def _collect(self, pieces: Iterable[str]) -> str:
        """Stops before memory is full: each piece is one value or what stands between two."""
        if self._is_short:
            pieces = list(pieces)
            if sum(map(len, pieces)) <= MAX_TEXT_BYTES:
                return "".join(pieces)
        found = []
        size = 0
        for piece in pieces:
            size += len(piece)
            if size > MAX_TEXT_BYTES:
                raise BadRowError(f"{self.field}: the text has more than {MAX_TEXT_BYTES:,} characters")
            found.append(piece)
        return "".join(found)

    def _find_unknown(self, context: RowContext, said: str) -> str | None:
        """The name that was missing, if no row can have it; an empty cell says something else."""
        for name in (self.names | self.keys) - context.known - set(GLOBALS):
            if said == f"{name!r} is undefined":
                return describe_unknown(name, context.known - {ROW_NUMBER, WHOLE_ROW})
        return None


class _NameTracker(jinja2.meta.TrackingCodeGenerator):
    """As Jinja2's own, which leaves out names of functions (a column may have one) and works out constants."""

    def __init__(self, environment: jinja2.Environment) -> None:
        super().__init__(environment)
        self.optimizer = None

    def enter_frame(self, frame: Frame) -> None:
        super().enter_frame(frame)
        loads = frame.symbols.loads.values()
        self.undeclared_identifiers.update(name for what, name in loads if what == VAR_LOAD_RESOLVE and name)


def _find_names(tree: nodes.Template) -> frozenset[str]:
    """What it takes from outside of itself."""
    tracker = _NameTracker(_environment)
    tracker.visit(tree)
    return frozenset(tracker.undeclared_identifiers)


def _find_keys(tree: nodes.Template) -> tuple[frozenset[str], bool]:
    """See `Template.keys` and `Template.takes_row`."""
    attributes = {each.attr for each in tree.find_all(nodes.Getattr) if _is_row(each.node)}
    keys = {
        id(each.node): each.arg.value
        for each in tree.find_all(nodes.Getitem)
        if _is_row(each.node) and isinstance(each.arg, nodes.Const) and isinstance(each.arg.value, str)
    }
    takes_row = any(id(name) not in keys for name in tree.find_all(nodes.Name) if _is_row(name))
    return frozenset(keys.values()) | attributes, takes_row


def _is_row(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Name) and node.name == WHOLE_ROW


def _text_of(tree: nodes.Template) -> str:
    """Of a template in which nothing is filled in."""
    return "".join(data.data for data in tree.find_all(nodes.TemplateData))


def _print_operands(tree: nodes.Template) -> None:
    """Let ``~`` take what may be printed, and nothing else."""
    for joined in list(tree.find_all(nodes.Concat)):
        joined.nodes = [
            nodes.Filter(node, "string", [], [], None, None, lineno=node.lineno) for node in joined.nodes
        ]
    tree.set_environment(_environment)


class RowContext:
    """What templates see of one row.

    :param values: by column; those that the templates name, or all of them. A row may lack some.
    :param named: columns that the templates name.
    """

    __slots__ = ("known", "variables")

    def __init__(
        self,
        values: Mapping[str, Any],
        number: int,
        known: frozenset[str],
        named: Iterable[str],
        *,
        whole: bool,
    ) -> None:
        self.known = known
        self.variables: dict[str, Any] = dict(_environment.globals)
        if whole:
            self.variables[WHOLE_ROW] = _WholeRow(values, known)
        self.variables[ROW_NUMBER] = number
        for name in named:
            self.variables[name] = to_cell(name, values.get(name))


def known_names(columns: Iterable[str]) -> frozenset[str]:
    """What a template may name over a table with these columns."""
    return frozenset(columns) | {ROW_NUMBER, WHOLE_ROW}


def describe_unknown(name: str, columns: Iterable[str]) -> str:
    """A sentence on a column that is not there, with the one that was probably meant."""
    columns = sorted(columns)
    cut = [column for column in columns if column.startswith(name) and not column.isidentifier()]
    close = difflib.get_close_matches(name, columns, n=1) or cut[:1]
    hint = f" Did you mean {_write_column(close[0])}?" if close else ""
    listed = ", ".join(shorten(column, 40) for column in columns[:20]) or "none"
    more = f" and {len(columns) - 20:,} more" if len(columns) > 20 else ""
    return f"needs the column {name!r}, which the table does not have.{hint} It has: {listed}{more}."


def _write_column(name: str) -> str:
    """As a template has to: what stands after a dash or a blank is no part of a name to it."""
    return repr(name) if name.isidentifier() else f"{WHOLE_ROW}[{name!r}]"
