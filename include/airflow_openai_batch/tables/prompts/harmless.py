"""Which templates can neither take long nor become large, whatever a row holds: told from their syntax alone.

Those are rendered where they are; all others in a process with limits. A template counts as harmless if its work grows
with the row and no faster: it prints values, asks about them, and walks over one list without anything in it that
multiplies.
"""

from __future__ import annotations

from collections.abc import Iterator

from jinja2 import nodes

MAX_NAMES = 200
"""Times that a harmless template names a value."""
_FEW_NAMES = 20
MAX_JOINED = 8
"""Values that a harmless template puts together in one expression."""
MAX_CONSTANT_CHARS = 1_000
"""Of an argument of a filter or method."""
MAX_PUT_BETWEEN_CHARS = 16
"""Of an argument of ``join`` and ``replace``: it may come to stand between all characters of a text."""

_CHEAP_FILTERS = frozenset({
    "abs", "capitalize", "count", "d", "default", "e", "escape", "first", "float", "forceescape", "int", "items",
    "join", "last", "length", "list", "lower", "map", "replace", "reverse", "round", "safe", "sort", "string", "title",
    "tojson", "trim", "truncate", "unique", "upper", "wordcount",
})  # fmt: skip
_GROWING_FILTERS = frozenset({"e", "escape", "forceescape", "join", "replace", "tojson"})
"""What one of them makes longer, the next makes longer again; ``replace`` puts a constant for each character."""
_MAPPED_FILTERS = _CHEAP_FILTERS - _GROWING_FILTERS - {"map"}
_CHEAP_METHODS = frozenset({
    "date", "endswith", "get", "isoformat", "items", "keys", "lower", "lstrip", "removeprefix", "removesuffix",
    "rstrip", "split", "splitlines", "startswith", "strftime", "strip", "time", "title", "upper", "values",
})  # fmt: skip
_MOST_ROUNDS = 1_000
"""Of a loop over ``range``."""
_PLAIN_NODES = (
    nodes.Output, nodes.TemplateData, nodes.Const, nodes.Name, nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.If,
    nodes.CondExpr, nodes.Compare, nodes.Operand, nodes.Test, nodes.And, nodes.Or, nodes.Not, nodes.Neg, nodes.Pos,
    nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Concat, nodes.Filter, nodes.Call, nodes.For,
    nodes.Keyword, nodes.Tuple, nodes.List,
)  # fmt: skip
_WORKING = (
    nodes.Filter, nodes.Call, nodes.Compare, nodes.Test, nodes.Slice, nodes.Add, nodes.Mul, nodes.Concat, nodes.List,
    nodes.Tuple,
)  # fmt: skip
"""What takes the longer the larger its value is."""
_JOINING = (nodes.Add, nodes.Concat, nodes.List, nodes.Tuple)


class BadTemplateError(Exception):
    """The template cannot be used. The message says why."""


def is_harmless(tree: nodes.Template) -> bool:
    """Whether it may be rendered without limits."""
    names = 0
    for node in _walk(tree):
        names += isinstance(node, nodes.Name)
        if not isinstance(node, (nodes.Template, *_PLAIN_NODES)) or not _is_cheap(node):
            return False
    return names <= MAX_NAMES


def is_short(tree: nodes.Template) -> bool:
    """Whether it prints few values, and each once."""
    found = list(_walk(tree))
    names = sum(isinstance(node, nodes.Name) for node in found)
    return names <= _FEW_NAMES and not any(isinstance(node, nodes.For) for node in found)


def _walk(node: nodes.Node) -> Iterator[nodes.Node]:
    """Without recursion: a template may be nested as deeply as its parser lets it."""
    waiting = [node]
    while waiting:
        found = waiting.pop()
        yield found
        waiting.extend(found.iter_child_nodes())


def _is_cheap(node: nodes.Node) -> bool:
    if isinstance(node, nodes.Filter):
        return _is_cheap_filter(node)
    if isinstance(node, nodes.Call):
        return _is_cheap_call(node)
    if isinstance(node, nodes.For):
        return _is_cheap_loop(node)
    if isinstance(node, _JOINING):
        return sum(isinstance(each, nodes.Name) for each in _walk(node)) <= MAX_JOINED
    return True


def _is_cheap_filter(node: nodes.Filter) -> bool:
    if node.name not in _CHEAP_FILTERS or not _has_plain_arguments(node):
        return False
    if node.name == "map" and not _is_cheap_map(node):
        return False
    growing = [
        each for each in _walk(node) if isinstance(each, nodes.Filter) and each.name in _GROWING_FILTERS
    ]
    return len(growing) <= 2


def _is_cheap_map(node: nodes.Filter) -> bool:
    """It takes an attribute, or runs another filter by name."""
    if not node.args:
        return [each.key for each in node.kwargs] == ["attribute"]
    first = node.args[0]
    return len(node.args) == 1 and isinstance(first, nodes.Const) and first.value in _MAPPED_FILTERS


def _is_cheap_call(node: nodes.Call) -> bool:
    if not _has_plain_arguments(node):
        return False
    if isinstance(node.node, nodes.Name):
        numbers = [each.value for each in node.args if isinstance(each, nodes.Const)]
        return node.node.name == "range" and all(
            isinstance(number, int) and abs(number) <= _MOST_ROUNDS for number in numbers
        )
    return isinstance(node.node, nodes.Getattr) and node.node.attr in _CHEAP_METHODS


def _has_plain_arguments(node: nodes.Filter | nodes.Call) -> bool:
    is_between = isinstance(node, nodes.Filter) and node.name in ("join", "replace")
    most = MAX_PUT_BETWEEN_CHARS if is_between else MAX_CONSTANT_CHARS
    values = [*node.args, *(keyword.value for keyword in node.kwargs)]
    if node.dyn_args is not None or node.dyn_kwargs is not None:
        return False
    return all(isinstance(value, nodes.Const) and len(str(value.value)) <= most for value in values)


def _is_cheap_loop(loop: nodes.For) -> bool:
    """One that walks over a value of the row, and only prints what comes from outside of it."""
    own = {each.name for each in _walk(loop.target) if isinstance(each, nodes.Name)} | {"loop"}
    body = [each for part in (*loop.body, *loop.else_, *filter(None, [loop.test])) for each in _walk(part)]
    if loop.recursive or any(isinstance(each, nodes.For) for each in body):
        return False
    return not any(isinstance(each, _WORKING) and _names(each) - own for each in body)


def _names(node: nodes.Node) -> set[str]:
    return {each.name for each in _walk(node) if isinstance(each, nodes.Name)}


def check_names(tree: nodes.Template) -> None:
    """Jinja2's own objects are there to be asked, not to be printed or handed on.

    :raises BadTemplateError: for a bare ``self``, ``loop`` or macro.
    """
    own: dict[int, nodes.Name] = {}
    for parent, names in _reserved(tree):
        for node in _walk(parent):
            if isinstance(node, nodes.Name) and node.ctx == "load" and node.name in names:
                own[id(node)] = node
    for node in _walk(tree):
        if isinstance(node, nodes.Getattr | nodes.Getitem | nodes.Call):
            own.pop(id(node.node), None)
    for node in own.values():
        raise BadTemplateError(
            f"line {node.lineno}: {node.name!r} is Jinja's own here and no value that can be printed or handed on. A "
            f"column of that name is written {{{{ row[{node.name!r}] }}}}."
        )


def _reserved(tree: nodes.Template) -> Iterator[tuple[nodes.Node, set[str]]]:
    """Parts of a template and the names that Jinja2 takes for itself in them."""
    yield tree, {"self"} | {each.name for each in tree.find_all(nodes.Macro)}
    for loop in tree.find_all(nodes.For):
        for part in loop.body:
            yield part, {"loop"}
    for macro in tree.find_all((nodes.Macro, nodes.CallBlock)):
        yield macro, {"caller"}
