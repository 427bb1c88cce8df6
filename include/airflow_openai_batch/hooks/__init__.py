"""Airflow's connections, from which clients are made, what they may spend, and Airflow's metrics."""

# Modules that other folders may import from.
__all__ = ["metrics", "monthly_budget", "openai_batch"]
