"""Which names of a run's context a template uses, and whether whoever triggers the run could have chosen one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from jinja2 import nodes

_ANY = frozenset({"*"})
# fmt: off
_DATES = ("logical_date", "data_interval_start", "data_interval_end", "start_date", "end_date")
_NAMES: Mapping[str, frozenset[str]] = {
    **dict.fromkeys((
        "ds", "ds_nodash", "ts", "ts_nodash", "ts_nodash_with_tz", "run_id", "task_instance_key_str", *_DATES,
        "prev_data_interval_start_success", "prev_data_interval_end_success", "prev_start_date_success",
        "prev_end_date_success", "task_reschedule_count",
        "macros", "var", "conn",
        "range", "dict", "lipsum", "cycler", "joiner", "namespace",
    ), _ANY),
    "dag_run": frozenset({"dag_id", "run_id", "run_type", "run_after", "queued_at", "clear_number", *_DATES}),
    **dict.fromkeys(("ti", "task_instance"), frozenset({
        "dag_id", "task_id", "run_id", "map_index", "try_number", "max_tries", "hostname", "id", "is_mapped",
        "rendered_map_index", "start_date", "end_date", "xcom_pull",
    })),
    "task": frozenset({"task_id", "dag_id", "owner", "queue", "pool", "task_display_name"}),
    "dag": frozenset({"dag_id", "dag_display_name", "owner", "tags"}),
}
# fmt: on
"""What whoever triggers does not write, each with the attributes that may be used. Ids of runs and dates they may
choose, from few characters: see `Giver.RUN`. Neither `params`, `dag_run.conf` nor `triggering_asset_events` is here."""

IsDefault = Callable[[str], bool]
"""Whether a parameter of this run is what the DAG's code says."""


def is_plain(template: nodes.Template) -> bool:
    """Whether nothing in it is rendered."""
    return all(isinstance(node, nodes.Output | nodes.TemplateData) for node in template.find_all(nodes.Node))


def is_template(text: str) -> bool:
    """By the signs that a DAG has unless it says otherwise (``jinja_environment_kwargs``)."""
    return any(sign in text for sign in ("{{", "{%", "{#"))


def names_only_what_is_known(
    template: nodes.Template, own: Mapping[str, object], is_default: IsDefault
) -> bool:
    """Whether nothing in it can hold what whoever triggers wrote; false for a name that nobody here knows.

    :param own: names that the DAG's code brings (``user_defined_macros``).
    """
    if any(template.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends))):
        return False
    return _Reader(own, is_default, _find_assigned(template)).is_known(template)


class _Reader:
    def __init__(self, own: Mapping[str, object], is_default: IsDefault, assigned: frozenset[str]) -> None:
        self._own = own
        self._is_default = is_default
        self._assigned = assigned

    def is_known(self, node: nodes.Node) -> bool:
        used = _read_attribute(node)
        if used is not None and used[0] not in self._assigned:
            return self._may_use(*used) and all(
                self.is_known(child) for child in node.iter_child_nodes() if not isinstance(child, nodes.Name)
            )
        if isinstance(node, nodes.Name) and node.ctx == "load" and node.name not in self._assigned:
            return _NAMES.get(node.name) is _ANY or node.name in self._own
        return all(self.is_known(child) for child in node.iter_child_nodes())

    def _may_use(self, name: str, attribute: str | None) -> bool:
        if name == "params":  # of a method, `params.get(...)`, it is not said which parameter it reads
            return attribute is not None and not hasattr(dict, attribute) and self._is_default(attribute)
        if name in self._own:
            return True
        allowed = _NAMES.get(name, frozenset())
        return allowed is _ANY or attribute in allowed


def _find_assigned(template: nodes.Template) -> frozenset[str]:
    """Names that the template itself gives values to: what they hold is judged where it is written.

    Those that the context has as well stay the context's, since which of the two is meant depends on the place.
    """
    stored = {name.name for name in template.find_all(nodes.Name) if name.ctx in ("store", "param")}
    return frozenset(stored - _NAMES.keys() - {"params"})


def _read_attribute(node: nodes.Node) -> tuple[str, str | None] | None:
    """``params.x`` and ``params["x"]`` as ("params", "x"); the attribute is None where it is not a constant."""
    if not isinstance(node, nodes.Getattr | nodes.Getitem) or not isinstance(node.node, nodes.Name):
        return None
    if isinstance(node, nodes.Getattr):
        return node.node.name, node.attr
    constant = node.arg.value if isinstance(node.arg, nodes.Const) else None
    return node.node.name, constant if isinstance(constant, str) else None
