"""A million requests through a real Airflow: ``make million``."""
