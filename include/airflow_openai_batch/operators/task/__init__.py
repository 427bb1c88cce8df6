"""What the operators share: their base, parameters, failures, who may act on a job."""

# Modules that other folders may import from.
__all__ = [
    "asset_event",
    "base",
    "caller",
    "failures",
    "form_query",
    "handover",
    "ownership",
    "parameters",
    "prompt_files",
    "query",
    "run_place",
    "sending",
    "shard_step",
]
