"""How the parameters of the form reach the operators: as templates, one function for each kind of operator."""

from __future__ import annotations

from typing import Any


def sending_arguments() -> dict[str, str]:
    """The parameters of the form that every operator takes that may send, as templates."""
    return {
        "conn_id": "{{ params.conn_id }}",
        "poll_interval": "{{ params.poll_interval }}",
        "send_mode": "{{ params.mode }}",
        "realtime_threshold": "{{ params.realtime_threshold }}",
        "realtime_concurrency": "{{ params.realtime_concurrency }}",
        "enqueued_token_limit": "{{ params.enqueued_token_limit }}",
        "max_cost_usd": "{{ params.max_cost_usd }}",
        "finish_within_h": "{{ params.finish_within_h }}",
        "on_deadline": "{{ params.on_deadline }}",
        "keep_remote_files": "{{ params.keep_remote_files }}",
    }


def landing_arguments() -> dict[str, str]:
    """The parameters of the form that say how answers become rows, as templates."""
    return {
        "keep_response_body": "{{ params.keep_response_body }}",
        "max_attempts": "{{ params.max_attempts }}",
        "accept_codes": "{{ params.accept_codes | tojson }}",
        "retry_codes": "{{ params.retry_codes | tojson }}",
    }


def split_arguments() -> dict[str, Any]:
    """The parameters of the form that the split takes, as templates."""
    names = (
        "input_uri",
        "output_uri",
        "conn_id",
        "on_existing",
        "repair",
        "max_requests_per_shard",
        "max_tokens_per_shard",
        "max_bytes_per_shard",
        "on_bad_line",
        "on_empty",
        "realtime_threshold",
        "enqueued_token_limit",
        "max_cost_usd",
        "sample_requests",
    )
    return {name: f"{{{{ params.{name} }}}}" for name in names} | {
        "input_uri": "{{ params.input_uri | tojson }}",  # a list would arrive as Python's text
        "send_mode": "{{ params.mode }}",
        "plan_only": "{{ params.dry_run }}",
    }


def report_arguments() -> dict[str, Any]:
    """The parameters of the form that the report takes, as templates."""
    names = ("conn_id", "keep_remote_files", "sample_requests", "max_failed_fraction", "realtime_threshold")
    return {name: f"{{{{ params.{name} }}}}" for name in names} | {"send_mode": "{{ params.mode }}"}


def prepare_arguments() -> dict[str, Any]:
    """The parameters of the form that `OpenAIBatchPrepareOperator` takes, as templates."""
    named = {name: f"{{{{ params.{name} }}}}" for name in ("on_existing", "on_empty")}
    return {**named, "openai_conn_id": "{{ params.conn_id }}"}
