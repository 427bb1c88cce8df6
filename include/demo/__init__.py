"""The demonstration: a real Airflow on this machine, real texts, and an emulated OpenAI."""
