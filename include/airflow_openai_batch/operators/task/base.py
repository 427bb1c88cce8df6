"""What all our operators share: defaults that survive mapping, outlets beside those of the DAG's author, and texts that
stay texts."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator

from airflow_openai_batch.operators.task.failures import task_failures
from airflow_openai_batch.operators.task.parameters import read_text

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.definitions.mappedoperator import OperatorPartial

TEXTS = frozenset(
    {
        *("asset_uri", "batch_id", "conn_id", "delimiter", "encoding", "endpoint", "format", "images_root"),
        *("input_file_id", "job", "openai_conn_id", "output_uri", "prepared", "sheet", "sql"),
    }
)
"""Template fields that hold one text."""
SEVERAL_TEXTS = frozenset({"input_uri", "source"})
"""Template fields that hold a text or a list of them."""


class OpenAIBatchOperator(BaseOperator):
    """Base of all operators and sensors of this package."""

    own_outlets: ClassVar[Sequence[Any]] = ()
    """Outlets that the operator fills whatever ``outlets`` names: its ``__init__`` adds them, with `add_outlets`. Not
    one for all operators: at each ``__init__`` Airflow copies the DAG's whole form."""

    @classmethod
    def partial(cls, **kwargs: Any) -> OperatorPartial:
        """As Airflow's own, with this operator's defaults.

        The scheduler never makes the operator of a mapped task, so that it knows of what ``__init__`` would set only
        what is in here; Airflow itself takes over some parameters' defaults and leaves out ``max_retry_delay`` and
        ``outlets``.
        """
        made: OperatorPartial = super().partial(**kwargs)
        fill_defaults(cls, made.kwargs, given=kwargs)
        return made

    def pre_execute(self, context: Context) -> None:
        """Airflow may render templates to numbers (``render_template_as_native_obj``): a text is wanted here."""
        super().pre_execute(context)
        with task_failures():
            for name in self.template_fields:
                if name in TEXTS or name in SEVERAL_TEXTS:
                    value = read_text(name, getattr(self, name), several=name in SEVERAL_TEXTS)
                    setattr(self, name, value)


def add_outlets(kind: type[OpenAIBatchOperator], outlets: Any) -> list[Any]:
    """Those that were given, and the operator's own."""
    given = list(outlets) if isinstance(outlets, list | tuple | set) else [outlets] if outlets else []
    return [*given, *(own for own in kind.own_outlets if own not in given)]


def fill_defaults(
    kind: type[OpenAIBatchOperator], arguments: dict[str, Any], *, given: Collection[str]
) -> None:
    """Add to the arguments of a mapped task what they lack.

    :param given: names that the DAG's author has given, whatever their values.
    """
    for name, default in _find_defaults(kind).items():
        if name not in given and arguments.get(name) is None:
            arguments[name] = default
    arguments["outlets"] = add_outlets(kind, arguments.get("outlets"))


def _find_defaults(kind: type[OpenAIBatchOperator]) -> dict[str, Any]:
    """Of Airflow's own parameters, as the classes from `OpenAIBatchOperator` on set them."""
    known = inspect.signature(BaseOperator.__init__).parameters
    found: dict[str, Any] = {}
    for each in reversed(kind.mro()[: kind.mro().index(BaseOperator)]):
        init = vars(each).get("__init__")
        parameters = inspect.signature(init).parameters if init is not None else {}
        found |= {
            name: parameter.default
            for name, parameter in parameters.items()
            if name in known and parameter.default is not inspect.Parameter.empty
        }
    return {name: default for name, default in found.items() if default is not None}
