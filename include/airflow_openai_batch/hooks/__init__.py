"""Airflow's connections, from which clients are made, and Airflow's metrics."""

# Modules that other folders may import from.
__all__ = ["metrics", "openai_batch"]
