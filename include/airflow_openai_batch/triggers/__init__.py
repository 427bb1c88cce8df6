"""What waits in the triggerer: for the end of a batch, for room in the queue.

Paths of trigger classes are stored in Airflow's database: one that moves leaves its old path importable.
"""

# Modules that other folders may import from.
__all__ = [
    "batch",
    "batch_list",
    "connect",
    "first_of",
    "handover",
    "handover_note",
    "held",
    "landing",
    "pause",
    "room",
]
