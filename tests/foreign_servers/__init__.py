"""Servers that nobody of this project wrote, each from an environment of its own, between Airflow and the emulator."""
