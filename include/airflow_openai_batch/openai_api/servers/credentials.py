"""How a server is told who asks: by its key, or by tokens of Entra ID, which are fetched anew in time."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from airflow_openai_batch.errors import ConfigError, FatalAccountError, TransientError
from airflow_openai_batch.openai_api.servers.choice import complete_host
from airflow_openai_batch.server_words import clean_words

if TYPE_CHECKING:
    from airflow_openai_batch.openai_api.servers.profile import ServerProfile

SCOPE = "https://cognitiveservices.azure.com/.default"
"""What a token is for; ``azure_scope`` in the extra says another."""
_EXTRA = "airflow-provider-openai-batch[azure]"
_TEXTS = ("tenant_id", "client_id", "azure_authority", "azure_scope")


def set_up_server(
    profile: ServerProfile, settings: Mapping[str, Any], extra: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """A client's arguments as the server wants them: its address, and who asks.

    :param settings: as they are for OpenAI.
    :param where: for messages, for instance ``connection 'openai_default'``.
    :returns: with an `EntraTokens` in the place of ``api_key``, where there is no key.
    :raises ConfigError: for an address that cannot be, or where tokens cannot be had.
    """
    host = settings.get("base_url")
    made = {**settings, "base_url": complete_host(profile, None if host is None else str(host), where)}
    if "workload_identity" in settings:
        return made
    key = settings.get("api_key")
    if profile.takes_entra and is_entra(extra, key, where):
        made["api_key"] = EntraTokens(extra, key, where)
    return made


def is_entra(extra: Mapping[str, Any], password: str | None, where: str) -> bool:
    """Whether a connection has no key: it names an application, or has no password at all.

    :raises ConfigError: for an application that is named by half.
    """
    for name in _TEXTS:
        if extra.get(name) is not None and not isinstance(extra[name], str):
            raise ConfigError(f"{where}: {name} in its extra must be a text.")
    if not password:
        return True
    named = [name for name in ("tenant_id", "client_id") if extra.get(name)]
    if len(named) == 1:
        missing = "client_id" if named == ["tenant_id"] else "tenant_id"
        raise ConfigError(
            f"{where}: has {named[0]} in its extra and no {missing}. Say both for an application of Entra ID, whose "
            "secret is the password; or neither, for an API key."
        )
    return bool(named)


class EntraTokens:
    """Tokens of Entra ID, in the place of a key.

    Of the application that the extra names (``tenant_id``, ``client_id``, its secret as the password), or, without a
    password, of whatever identity the environment has: a managed identity, a workload identity, a login of ``az``.

    :raises ConfigError: without the package, or for what it does not take.
    """

    def __init__(self, extra: Mapping[str, Any], password: str | None, where: str) -> None:
        self._where = where
        self._scope = str(extra.get("azure_scope") or SCOPE)
        try:
            identity = importlib.import_module("azure.identity")
        except ImportError:
            raise ConfigError(
                f"{where}: has no API key, so that a token of Entra ID is needed, and azure-identity is not installed. "
                f"Install {_EXTRA} for workers, triggerers and API servers, or set the key as the password."
            ) from None
        try:
            self._credential = _make_credential(identity, extra, password)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"{where}: azure-identity refuses what its extra says of Entra ID: {clean_words(str(error))}. Look at "
                "tenant_id, client_id and azure_authority."
            ) from None

    def get(self) -> str:
        """A token that is still good for a while; fetched where there is none. Waits for the network.

        :raises FatalAccountError: if Entra ID gives none.
        :raises TransientError: if it cannot be reached.
        """
        exceptions = importlib.import_module("azure.core.exceptions")
        try:
            return str(self._credential.get_token(self._scope).token)
        except exceptions.AzureError as error:
            unreached = (exceptions.ServiceRequestError, exceptions.ServiceResponseError)
            is_refused = isinstance(error, exceptions.ClientAuthenticationError)
            # What could not be reached comes as a refusal, with the trouble of the network as its cause.
            if not is_refused or any(isinstance(each, unreached) for each in _iter_causes(error)):
                raise TransientError(
                    f"{self._where}: Entra ID could not be asked for a token: {_first_line(error)} Open the way there "
                    "for workers, triggerers and API servers."
                ) from None
            raise FatalAccountError(
                f"{self._where}: Entra ID gave no token for {self._scope}: {_first_line(error)} Correct tenant_id and "
                "client_id in its extra and the secret in its password, or the identity of workers, triggerers and "
                "API servers; it needs the role Cognitive Services OpenAI User. Then clear the task."
            ) from None

    async def aget(self) -> str:
        """As `get`, without holding up the running loop."""
        return await asyncio.to_thread(self.get)


def _make_credential(identity: Any, extra: Mapping[str, Any], password: str | None) -> Any:
    authority = extra.get("azure_authority")
    # Of an authority of one's own Microsoft's directory of authorities knows nothing.
    options = {"authority": authority, "disable_instance_discovery": True} if authority else {}
    if password:
        return identity.ClientSecretCredential(extra["tenant_id"], extra["client_id"], password, **options)
    if client_id := extra.get("client_id"):
        options["managed_identity_client_id"] = client_id
        options["workload_identity_client_id"] = client_id
    return identity.DefaultAzureCredential(**options)


def _iter_causes(error: BaseException) -> Iterator[BaseException]:
    each: BaseException | None = error
    while each is not None:
        yield each
        each = each.__cause__ or each.__context__


def _first_line(error: Exception) -> str:
    said = clean_words(str(error).strip().partition("\n")[0], 300)
    return said if said.endswith(".") else f"{said}."
