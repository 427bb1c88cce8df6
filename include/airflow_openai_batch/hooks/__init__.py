"""Airflow's connections and metrics."""
