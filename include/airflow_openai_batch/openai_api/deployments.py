"""``deployments`` in a connection's extra: which model is behind a name of one's own.

``{"deployments": {"my-mini": "gpt-5.4-mini"}}``. Azure is asked by the names of deployments, and gateways have names of
their own, which say nothing of prices, encodings and context windows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_openai_batch.errors import ConfigError

_EXAMPLE = '{"my-mini": "gpt-5.4-mini"}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployments:
    """The models by their names."""

    models: Mapping[str, str] = field(default_factory=dict)
    expected: bool = False
    """Whether the server is one that is asked by names of deployments."""

    def find_model(self, name: str) -> str:
        """The model behind a name; the name itself where it is none of a deployment."""
        return self.models.get(name, name)

    def may_name(self, name: str) -> bool:
        """Whether a name could be that of a deployment whose model is not said."""
        return (self.expected or bool(self.models)) and name not in self.models


NO_DEPLOYMENTS = Deployments()


def read_deployments(extra: Mapping[str, Any], where: str, *, has_deployments: bool = False) -> Deployments:
    """From a connection's extra.

    :param where: for messages, for instance ``connection 'openai_default'``.
    :param has_deployments: whether the connection's server is asked by names of deployments.
    :raises ConfigError: for what is no object of names of models.
    """
    value = extra.get("deployments")
    if value is None or value == "":
        return Deployments(expected=has_deployments)
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"{where}: deployments in its extra must be an object of models by the names of deployments, for instance "
            f"{_EXAMPLE}."
        )
    for name, model in value.items():
        if not isinstance(model, str) or not model:
            raise ConfigError(
                f"{where}: deployments[{name!r:.60}]={model!r:.60} in its extra must be the name of the model behind "
                f"it, for instance {_EXAMPLE}."
            )
    return Deployments(models={str(name): model for name, model in value.items()}, expected=has_deployments)
