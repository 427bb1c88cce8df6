"""Azure OpenAI's v1 API: ``api-key`` or a token of Entra ID, files that are processed first, no end of time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from airflow_openai_batch.testing.refusals import ApiError
from airflow_openai_batch.testing.servers.rules import ServerRules

_DENIED = (
    "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an "
    "active subscription and use a correct regional API endpoint for your resource."
)


@dataclass(frozen=True, kw_only=True)
class AzureRules(ServerRules):
    def check_key(self, headers: Mapping[str, str], keys: frozenset[str] | None) -> None:
        key = headers.get("api-key", "").strip()
        if key:
            if "authorization" in headers:
                raise ApiError(
                    401, "Two ways of authentication were given, api-key and Authorization.", code="401"
                )
            taken = keys is None or key in keys
        else:
            scheme, _, token = headers.get("authorization", "").partition(" ")
            taken = scheme.lower() == "bearer" and token.startswith("eyJ")
        if not taken:
            raise ApiError(401, _DENIED, code="401")

    def word_refusal(self, code: str, *, model: str, limit: int) -> str | None:
        unit = {"token_limit_exceeded": "tokens", "request_limit_exceeded": "requests"}.get(code)
        if unit is None:
            return None
        return (
            f"The number of enqueued {unit} has surpassed the configured limit of {_round(limit)} for the deployment "
            f"'{model}'."
        )


AZURE = AzureRules(name="azure", path="/openai/v1", expires_batches=False)


def _round(limit: int) -> str:
    for scale, word in ((1_000_000_000, "B"), (1_000_000, "M"), (1_000, "K")):
        if limit >= scale:
            return f"{limit / scale:g}{word}"
    return str(limit)
