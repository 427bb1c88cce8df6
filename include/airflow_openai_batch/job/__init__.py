"""The job directory: its plan, the ledger of each shard and what it adds up to, the lines of a shard's requests.

Whoever has the directory can tell what happened to each request and go on from it on another machine.
"""

# Modules that other folders may import from.
__all__ = [
    "directory",
    "folding",
    "generations",
    "inputs",
    "ledger",
    "open_plan",
    "plan",
    "plan_layout",
    "ranges",
    "rejected",
    "request_line",
    "shard_reader",
    "shard_state",
]
