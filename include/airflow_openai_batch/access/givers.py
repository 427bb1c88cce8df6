"""Who gave a value: the author of the DAG, or whoever triggered the run.

The two may do different things. Who writes DAGs runs code on the workers and names any place; who may press *Trigger*
names only what the configuration allows. At execution time both values look the same, so this looks at where a value
comes from: at the raw field of the task in the DAG as it is written, before Airflow rendered it.

It is an allow-list: a constant, the result of another task, or a template that names nothing but what whoever triggers
cannot choose, is the author's. Everything else (``params``, ``dag_run.conf``, a name that nobody here knows) is the
form's. A mistake in this list refuses a DAG, and a person adds a line to a setting; a mistake in a list of what is
forbidden would let a stranger read the worker's disk. It needs no argument of the operators: ``{{ params.x }}`` in the
DAG is the mark.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import jinja2
from airflow.sdk import XComArg, get_current_context

from airflow_openai_batch.tables.prompts.template_names import is_plain, is_template, names_only_what_is_known

if TYPE_CHECKING:
    from airflow.sdk import DAG, Context


class Giver(enum.IntEnum):
    """In the order of how little they may."""

    CODE = 0
    """A constant of the DAG's author, or what another task returned: that task has checked what it read."""
    RUN = 1
    """The author's template over what differs from run to run. Whoever triggers may choose the run's id and date, so
    such a text may become part of a name, but not lead upwards."""
    FORM = 2
    """Whoever triggered the run."""


def find_giver(context: Context, *fields: str) -> Giver:
    """Who gave these fields of the task that runs: of several, the one who may do least.

    For a mapped task it looks at ``partial`` and ``expand``. An operator that another one makes of itself asks by the
    same names; where the other calls a field differently, its class says so in ``part_fields``.

    :param fields: names of the operator's arguments.
    """
    dag, ti = context.get("dag"), context.get("ti")
    if dag is None or ti is None or not dag.has_task(ti.task_id):
        return Giver.CODE  # outside of a run nobody triggered anything
    return find_giver_in(dag, ti.task_id, context.get("params") or {}, *fields)


def find_giver_in(dag: DAG, task_id: str, params: Mapping[str, Any], *fields: str) -> Giver:
    """As `find_giver`, where there is no context.

    :param params: of the run; without them what a parameter gives is the form's.
    """
    task: Any = dag.get_task(task_id)
    judge = _Judge(dag, task, params)
    other_names = getattr(getattr(task, "operator_class", task), "part_fields", {})
    return max(judge.judge_field(other_names.get(name, name)) for name in fields)


def find_giver_of(value: str, param: str | None = None) -> Giver:
    """Who gave a value that a function called by a task was handed: the form, unless it can be shown otherwise.

    It is the author's where nothing runs, where it stands in an argument of the running task that is the author's
    (``read("/data/handbook/")``, the result of another task), or where it is what the code says as the default of
    the parameter. A constant within the function of a task cannot be told from the form: it wants to be an argument of
    the task.

    :param param: of the DAG, that the value is for.
    """
    try:
        context = get_current_context()
    except RuntimeError:
        return Giver.CODE
    raw_task: Any = context["dag"].get_task(context["ti"].task_id)
    task = context["task"]
    judge = _Judge(context["dag"], raw_task, context["params"])
    if param is not None and _strip(judge.defaults.get(param)) == _strip(value):
        return Giver.CODE
    for name in ("op_args", "op_kwargs"):
        given = getattr(task, name, None) or ()
        for place, rendered in _walk_arguments(given):
            if _holds(rendered, value):
                raws = [each for raw in _read_raw(raw_task, name) for each in _dig(raw, place)]
                giver = max(map(judge.judge, raws), default=Giver.FORM)
                if giver is not Giver.FORM:
                    return giver
    return Giver.FORM


def find_conn_ids(dag: DAG) -> set[str]:
    """Connections that the code of a DAG names: in the defaults of its parameters and the arguments of its tasks.

    Those of places (``s3://conn_id@bucket/``) are not among them: who may use a place may not use its password for
    something else.
    """
    names: set[str] = set()
    for task in dag.tasks:
        defaults = _read_defaults(dag, task)
        names |= {value for name, value in defaults.items() if _is_conn_id(name, value)}
        given = getattr(task, "partial_kwargs", None) or vars(task)
        names |= {value for name, value in given.items() if _is_conn_id(name, value)}
    return names


def _is_conn_id(name: str, value: Any) -> bool:
    return name.endswith("conn_id") and isinstance(value, str) and bool(value) and not is_template(value)


class _Judge:
    """Judges raw values of one task."""

    def __init__(self, dag: Any, task: Any, params: Mapping[str, Any]) -> None:
        self._dag = dag
        self._task = task
        self._params = params
        self.defaults = _read_defaults(dag, task)

    def judge_field(self, name: str) -> Giver:
        is_mapped = hasattr(self._task, "partial_kwargs")
        if not is_mapped and not hasattr(self._task, name):
            return (
                Giver.FORM
            )  # an operator that a task of some other kind makes and runs, from whatever it has
        return max(
            (
                self.judge(raw, rendered=name in self._task.template_fields)
                for raw in _read_raw(self._task, name)
            ),
            default=Giver.CODE,
        )

    def judge(self, raw: Any, *, rendered: bool = True) -> Giver:
        """:param rendered: whether Airflow renders what it holds."""
        if isinstance(raw, str):
            return self._judge_text(raw) if rendered else Giver.CODE
        if raw is None or isinstance(raw, bool | int | float | bytes | PurePath | XComArg):
            return Giver.CODE
        parts = _read_parts(raw)
        if parts is not None:
            return max((self.judge(part, rendered=rendered) for part in parts), default=Giver.CODE)
        # What Airflow resolves in other ways (`dag.param(...)`), renders within or calls may become anything.
        signs = ("iter_references", "template_fields", "__call__")
        return Giver.FORM if any(hasattr(raw, sign) for sign in signs) else Giver.CODE

    def _judge_text(self, text: str) -> Giver:
        endings = tuple(getattr(self._task, "template_ext", None) or ())
        is_file = bool(endings) and text.endswith(endings)
        has_own_signs = bool(getattr(self._dag, "jinja_environment_kwargs", None))
        if not is_file and not is_template(text) and not has_own_signs:
            return Giver.CODE
        environment: jinja2.Environment = self._dag.get_template_env()
        try:
            if is_file and environment.loader is not None:  # its content is the template
                text = environment.loader.get_source(environment, text)[0]
            template = environment.parse(text)
        except (jinja2.TemplateError, OSError, UnicodeDecodeError):
            return Giver.FORM
        if is_plain(template):
            return Giver.CODE
        own = getattr(self._dag, "user_defined_macros", None) or {}
        return Giver.RUN if names_only_what_is_known(template, own, self._is_default) else Giver.FORM

    def _is_default(self, name: str) -> bool:
        """Whether a parameter is what the code says: the form as it stands is the author's."""
        return name in self.defaults and name in self._params and self._params[name] == self.defaults[name]


def _read_parts(raw: Any) -> Iterable[Any] | None:
    """What a value holds that is judged each for itself; None for one that holds nothing."""
    if isinstance(raw, Mapping):
        return [*raw.keys(), *raw.values()]
    if isinstance(raw, list | tuple | set | frozenset):
        return raw
    if type(raw).__name__ == "MappedArgument":  # of a task group that is mapped
        return list(_read_expanded(raw._input, raw._key))
    return None


def _read_raw(task: Any, name: str) -> Iterator[Any]:
    """What the DAG gives as this argument, before rendering; several where a list of dicts is mapped over."""
    if not hasattr(task, "partial_kwargs"):
        if hasattr(task, name):
            yield getattr(task, name)
        return
    expanded = [getattr(task, attribute, None) for attribute in ("expand_input", "op_kwargs_expand_input")]
    found = False
    for each in expanded:
        for value in _read_expanded(each, name):
            found = True
            yield value
    if name in task.partial_kwargs and (not found or name.startswith("op_")):
        yield task.partial_kwargs[name]


def _read_expanded(expand_input: Any, name: str) -> Iterator[Any]:
    value = getattr(expand_input, "value", None)
    if isinstance(value, Mapping):
        if name in value:
            yield value[name]
        elif name == "op_kwargs":  # of a decorated function: its arguments are what is mapped over
            yield value
    elif isinstance(value, XComArg):
        yield value
    elif isinstance(value, Iterable) and not isinstance(value, str):
        for item in value:
            if not isinstance(item, Mapping):
                yield item
            elif name in item or name == "op_kwargs":
                yield item.get(name, item)


def _read_defaults(dag: Any, task: Any = None) -> dict[str, Any]:
    """What the code says of each parameter of the DAG.

    :param task: the one that runs. Airflow writes the values of the run into the parameters that it holds, which are
        copies of the DAG's where the task was made within the DAG; of others it is not known any more what they were.
    """
    params, own = getattr(dag, "params", None) or {}, getattr(task, "params", None) or {}
    found = {name: _get_param(params, name) for name in params}
    kept = (
        name for name in found if task is None or (name in own and _get_param(own, name) is not found[name])
    )
    return {name: getattr(found[name], "value", found[name]) for name in kept}


def _get_param(params: Any, name: str) -> Any:
    return params.get_param(name) if hasattr(params, "get_param") else params[name]


def _walk_arguments(given: Any) -> Iterator[tuple[str | int, Any]]:
    return iter(given.items() if isinstance(given, Mapping) else enumerate(given))


def _dig(raw: Any, place: str | int) -> list[Any]:
    """The raw argument at the same place, if it is there; all of them where that cannot be said."""
    if isinstance(raw, Mapping):
        return [raw[place]] if place in raw else []
    if isinstance(raw, list | tuple) and isinstance(place, int):
        return [raw[place]] if place < len(raw) else []
    return [raw]


def _holds(rendered: Any, value: str) -> bool:
    """Whether an argument is this value, or has it among what it holds."""
    if isinstance(rendered, str):
        return bool(_strip(rendered) == _strip(value))
    if isinstance(rendered, Mapping):
        return any(_holds(each, value) for each in rendered.values())
    if isinstance(rendered, list | tuple):
        return any(_holds(each, value) for each in rendered)
    return False


def _strip(value: Any) -> Any:
    """A trailing slash makes no other place."""
    return value.strip().rstrip("/") if isinstance(value, str) else value
