"""Who may go where: who gave a value, and what ``[openai_batch]`` of Airflow's configuration allows."""
